"""A server: takes connections with TLS, and answers each line that it receives.

Run it:

    python certificates.py
    python server.py 4433

and talk to it: `python client.py localhost 4433 ca.pem`, or `openssl s_client -connect
localhost:4433 -CAfile ca.pem`. Ctrl-C ends it.
"""

import sys
from pathlib import Path

import sslsock


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        socket.ready_read_handler = ready_read
        socket.error_handler = error


def ready_read(socket):
    while socket.can_read_line:
        line = socket.read_line().strip()
        socket.write(b"you said " + line + b"\n")


def error(socket, error):
    # That one is how every connection ends
    if error != sslsock.SocketError.REMOTE_HOST_CLOSED_ERROR:
        print("failed:", socket.error_string)


server = sslsock.SslServer()
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
