"""A server and a client over a UNIX socket, with TLS over it.

Run it:

    python certificates.py
    python unix_socket.py
"""

from pathlib import Path

import sslsock


def accept(server):
    socket = server.next_pending_secure_connection()
    if socket is not None:
        socket.ready_read_handler = lambda socket: socket.write(socket.read_all())


def answered(socket):
    print("answered:", socket.read_all().decode())
    socket.disconnect()
    server.close()  # which removes the file


server = sslsock.SslServer()
server.configuration.set_identity(
    Path("server.pem").read_bytes(), Path("server.key").read_bytes()
)
server.new_connection_handler = accept
if not server.listen_local("echo.sock", mode=0o600):  # this user's programs alone
    raise SystemExit(server.error_string)

client = sslsock.SslSocket()
client.configuration.add_ca_file("ca.pem")
client.peer_verify_name = "localhost"  # a path is no name of a certificate
client.encrypted_handler = lambda socket: socket.write(b"hello")
client.ready_read_handler = answered
client.error_handler = lambda socket, error: print("failed:", socket.error_string)
client.connect_local_encrypted("echo.sock")
sslsock.run()
