"""A certificate that is asked for later: the server asks for the client's only when a
request needs it (TLS 1.3).

Both sides say beforehand that this may be. Here they are in one process.

Run it:

    python certificates.py
    python late_certificate.py
"""

from pathlib import Path

import sslsock


def configuration_with(certificate, key):
    configuration = sslsock.SslConfiguration()
    configuration.set_identity(Path(certificate).read_bytes(), Path(key).read_bytes())
    configuration.add_ca_file("ca.pem")
    # The client agrees; the server does not ask in the handshake
    configuration.post_handshake_authentication = True
    return configuration


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        socket.ready_read_handler = ready_read
        socket.peer_certificate_handler = answered


def ready_read(socket):
    request = socket.read_line()
    if request == b"public\n":
        socket.write(b"for everybody\n")
    elif request == b"private\n" and not socket.request_peer_certificate():
        socket.disconnect()  # the client has not agreed, or speaks TLS 1.2


def answered(socket):
    who = socket.peer_certificate
    socket.write(
        b"for " + who.subject["CN"][0].encode() + b"\n" if who else b"not for you\n"
    )


def show(socket):
    print(socket.read_all().decode(), end="")
    if not requests:
        sslsock.stop()
        return
    socket.write(requests.pop())


server = sslsock.SslServer()
server.configuration = configuration_with("server.pem", "server.key")
server.new_connection_handler = accept
if not server.listen(0, "127.0.0.1"):
    raise SystemExit(server.error_string)

requests = [b"private\n", b"public\n"]
client = sslsock.SslSocket()
client.configuration = configuration_with("client.pem", "client.key")
client.ready_read_handler = show
client.connect_encrypted("localhost", server.port)
client.write(requests.pop())
sslsock.run()
