"""ALPN: one port, two protocols, and the handshake agrees on which.

Run it:

    python certificates.py
    python alpn_server.py 4433

and look: `openssl s_client -connect localhost:4433 -CAfile ca.pem -alpn shout`. Ctrl-C
ends it.
"""

import sys
from pathlib import Path

import sslsock

PROTOCOLS = {
    "shout": lambda line: line.upper(),
    "backwards": lambda line: line.rstrip(b"\n")[::-1] + b"\n",
}


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        socket.encrypted_handler = begin


def begin(socket):
    protocol = socket.next_negotiated_protocol  # None: the client has offered none
    if protocol is None:
        socket.write(b"say which protocol you speak\n")
        socket.disconnect()
        return
    socket.ready_read_handler = lambda socket: answer(socket, PROTOCOLS[protocol])
    answer(socket, PROTOCOLS[protocol])  # what came with the handshake


def answer(socket, reply):
    while socket.can_read_line:
        socket.write(reply(socket.read_line()))


server = sslsock.SslServer()
server.configuration.set_identity(
    Path("server.pem").read_bytes(), Path("server.key").read_bytes()
)
# The first that the client offers too
server.configuration.allowed_next_protocols = list(PROTOCOLS)
server.new_connection_handler = accept
if not server.listen(int(sys.argv[1]), "127.0.0.1"):
    sys.exit(server.error_string)
print(f"listening on 127.0.0.1:{server.port}")
try:
    sslsock.run()
except KeyboardInterrupt:
    print("stopped")
