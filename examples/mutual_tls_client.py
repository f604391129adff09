"""Mutual TLS, the client: shows a certificate of its own, and trusts nobody but our own
authority.

Run it, with `python mutual_tls_server.py 4433` in another terminal:

    python mutual_tls_client.py localhost 4433
"""

import sys
from pathlib import Path

import sslsock


def ready_read(socket):
    print(socket.read_all().decode(), end="")


def error(socket, error):
    # That is the server's goodbye
    if error != sslsock.SocketError.REMOTE_HOST_CLOSED_ERROR:
        print("failed:", socket.error_string)


socket = sslsock.SslSocket()
socket.configuration.set_identity(
    Path("client.pem").read_bytes(), Path("client.key").read_bytes()
)
socket.configuration.use_system_ca = False
socket.configuration.add_ca_file("ca.pem")
socket.ready_read_handler = ready_read
socket.error_handler = error
socket.connect_encrypted(sys.argv[1], int(sys.argv[2]))
sslsock.run()
