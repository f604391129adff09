"""STARTTLS, the client: an IMAP connection that begins in the clear and goes on
encrypted.

Run it with a mail server of yours:

    python starttls_client.py imap.example.com 143 [ca.pem]
"""

import sys

import sslsock


def ready_read(socket):
    while socket.can_read_line:
        line = socket.read_line().decode().rstrip()
        print("server:", line)
        if line.startswith("* OK"):
            socket.write(b"a STARTTLS\r\n")
        elif line.startswith("a OK"):
            # What is written from here on waits for the handshake
            socket.start_client_encryption()
            socket.write(b"b CAPABILITY\r\n")
        elif line.startswith("b OK"):
            socket.disconnect()


def error(socket, error):
    print("failed:", socket.error_string)


socket = sslsock.SslSocket()
if len(sys.argv) > 3:
    socket.configuration.add_ca_file(sys.argv[3])
socket.ready_read_handler = ready_read
socket.encrypted_handler = lambda socket: print("encrypted:", socket.session_protocol)
socket.error_handler = error
socket.connect(sys.argv[1], int(sys.argv[2]))  # not connect_encrypted
sslsock.run()
sys.exit(0 if socket.error is None else 1)
