"""STARTTLS, the server: enough of SMTP to take a message, and only from clients that
have encrypted first.

Run it:

    python certificates.py
    python starttls_server.py 2525

and talk to it: `openssl s_client -connect localhost:2525 -starttls smtp -CAfile
ca.pem`. Ctrl-C ends it.
"""

import sys
from pathlib import Path

import sslsock


def accept(server):
    # Not next_pending_secure_connection
    while (socket := server.next_pending_connection()) is not None:
        socket.ready_read_handler = ready_read
        socket.read_buffer_size = 1 << 16
        socket.write(b"220 localhost ESMTP\r\n")


def ready_read(socket):
    while socket.can_read_line:
        command = socket.read_line().decode("ascii", "replace").strip().upper()
        if command.startswith("EHLO"):
            socket.write(
                b"250-localhost\r\n250 STARTTLS\r\n"
                if not socket.encrypted
                else b"250 localhost\r\n"
            )
        elif command == "STARTTLS" and not socket.encrypted:
            # This answer is in the clear still. What the client has sent behind its
            # STARTTLS makes the handshake fail, as it must.
            socket.write(b"220 go ahead\r\n")
            socket.start_server_encryption()
            return
        elif command == "QUIT":
            socket.write(b"221 bye\r\n")
            socket.disconnect()
        elif not socket.encrypted:
            socket.write(b"530 STARTTLS first\r\n")
        else:
            socket.write(b"250 ok\r\n")


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
