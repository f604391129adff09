"""Limits and timeouts of a server: nobody can hold it up by saying nothing, or by
coming a thousand times.

Run it:

    python certificates.py
    python limits.py 4433

and try it: `openssl s_client -connect localhost:4433 -CAfile ca.pem`, twice, a third
time, or with no word. Ctrl-C ends it.
"""

import collections
import sys
from pathlib import Path

import sslsock

PER_ADDRESS = 2  # connections from one address
# Seconds without a line, then the connection is ended
SILENCE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
LINE = 1000  # bytes of a line

connections = collections.Counter()
loop = sslsock.EventLoop.current()


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        Visitor(socket)


class Visitor:
    def __init__(self, socket):
        self.address = socket.remote_address
        self.socket = socket
        self.timer = None
        if connections[self.address] >= PER_ADDRESS:
            print("too many from", self.address)
            socket.abort()
            return
        connections[self.address] += 1
        socket.read_buffer_size = LINE  # no more is received ahead
        socket.ready_read_handler = self.ready_read
        socket.disconnected_handler = self.disconnected
        socket.error_handler = lambda socket, error: None
        socket.encrypted_handler = lambda socket: self.wait()

    def wait(self):
        if self.timer is not None:
            self.timer.cancel()
        self.timer = loop.call_later(SILENCE, self.silent)

    def silent(self):
        print("silent:", self.address)
        self.socket.write(b"you say nothing\n")
        self.socket.disconnect()

    def ready_read(self, socket):
        while socket.can_read_line:
            self.wait()
            socket.write(socket.read_line())
        if socket.bytes_available >= LINE:
            print("a line without end:", self.address)
            socket.abort()

    def disconnected(self, socket):
        if self.timer is not None:
            self.timer.cancel()
        connections[self.address] -= 1


server = sslsock.SslServer()
server.handshake_timeout = 5  # seconds
server.max_handshakes = 100  # at once; who comes then waits in the system's queue
server.max_pending_connections = 50  # accepted and not taken yet
server.configuration.set_identity(
    Path("server.pem").read_bytes(), Path("server.key").read_bytes()
)
server.new_connection_handler = accept
if not server.listen(int(sys.argv[1]), "127.0.0.1"):
    sys.exit(server.error_string)
print(f"listening on 127.0.0.1:{server.port}")
try:
    sslsock.run()
except KeyboardInterrupt:
    print("stopped")
