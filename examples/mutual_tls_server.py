"""Mutual TLS, the server: only clients with a certificate of our own authority come in,
and it knows who they are.

Run it:

    python certificates.py
    python mutual_tls_server.py 4433

and talk to it: `python mutual_tls_client.py localhost 4433`, or

    openssl s_client -connect localhost:4433 -CAfile ca.pem -cert client.pem -key client.key

Ctrl-C ends it.
"""

import sys
from pathlib import Path

import sslsock

# A certificate says who it is. Who may come in is for the program to decide
ALLOWED = {"visitor"}


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        socket.encrypted_handler = greet
        socket.error_handler = error


def greet(socket):
    name = socket.peer_certificate.subject.get("CN", ["(no name)"])[0]
    if name in ALLOWED:
        print("client:", name)
        socket.write(f"hello, {name}\n".encode())
    else:
        print("not allowed:", name)
    socket.disconnect()


def error(socket, error):
    if error != sslsock.SocketError.REMOTE_HOST_CLOSED_ERROR:
        print("refused:", socket.error_string)


server = sslsock.SslServer()
configuration = server.configuration
configuration.set_identity(Path("server.pem").read_bytes(), Path("server.key").read_bytes())
# No certificate, no connection
configuration.peer_verify_mode = sslsock.SslSocket.VERIFY_PEER
configuration.use_system_ca = False  # else a certificate of any public authority would do
configuration.add_ca_file("ca.pem")
server.new_connection_handler = accept
if not server.listen(int(sys.argv[1]), "127.0.0.1"):
    sys.exit(server.error_string)
print(f"listening on 127.0.0.1:{server.port}")
try:
    sslsock.run()
except KeyboardInterrupt:
    print("stopped")
