"""Session resumption across processes: the second run of this client needs no full
handshake.

Within a process this goes by itself. Between processes the program keeps the session in
a file, which is as secret as a private key.

Run it twice, with `python server.py 4433` in another terminal:

    python session_file.py localhost 4433 ca.pem
    python session_file.py localhost 4433 ca.pem
"""

import os
import sys

import sslsock

FILE = "session.bin"


# With TLS 1.3 it comes with the first data, not with the handshake
def keep(socket, session):
    with open(os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(session.to_bytes())


def encrypted(socket):
    print("resumed" if socket.session_reused else "a full handshake")
    socket.write(b"hello\n")


socket = sslsock.SslSocket()
socket.configuration.add_ca_file(sys.argv[3])
if os.path.exists(FILE):
    with open(FILE, "rb") as file:
        # What cannot be used is not offered
        socket.session = sslsock.SslSession(file.read())
socket.new_session_handler = keep
socket.encrypted_handler = encrypted
socket.ready_read_handler = lambda socket: socket.disconnect()
socket.connect_encrypted(sys.argv[1], int(sys.argv[2]))
sslsock.run()
