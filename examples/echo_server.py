"""An echo server for many connections: each gets back what it sends, and none can fill
the server's memory.

Two numbers bound what a connection may hold here. `read_buffer_size`: so much is
received ahead of what was read. `WAITING`: while so much waits to be sent, nothing is
read. A client that sends and does not read then has to wait itself, for TCP slows it
down.

Run it:

    python certificates.py
    python echo_server.py 4433

and talk to it: `openssl s_client -connect localhost:4433 -CAfile ca.pem`. Ctrl-C ends
it.
"""

import sys
from pathlib import Path

import sslsock

WAITING = 1 << 20  # bytes

connections = set()


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        connections.add(socket)
        socket.read_buffer_size = 1 << 16
        socket.ready_read_handler = echo
        socket.bytes_written_handler = lambda socket, count: echo(socket)
        socket.error_handler = error
        socket.disconnected_handler = connections.discard


def echo(socket):
    if socket.bytes_to_write < WAITING:
        socket.write(socket.read_all())


def error(socket, error):
    if error != sslsock.SocketError.REMOTE_HOST_CLOSED_ERROR:
        print("failed:", socket.error_string)


def count():
    print(f"{len(connections)} connections")
    sslsock.EventLoop.current().call_later(10, count)


server = sslsock.SslServer()
server.configuration.set_identity(
    Path("server.pem").read_bytes(), Path("server.key").read_bytes()
)
server.new_connection_handler = accept
if not server.listen(int(sys.argv[1]), "127.0.0.1"):
    sys.exit(server.error_string)
print(f"listening on 127.0.0.1:{server.port}")
try:
    sslsock.run(count)
except KeyboardInterrupt:
    print("stopped")
