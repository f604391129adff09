"""A client: connects with TLS, verifies the server, sends one line and prints what
comes back.

Run it, with a server in another terminal (server.py or echo_server.py):

    python certificates.py
    python server.py 4433
    python client.py localhost 4433 ca.pem

The third argument names a file of authorities to trust. Without it the system's are
trusted, as in a browser.
"""

import sys

import sslsock


def encrypted(socket):
    print(f"encrypted: {socket.session_protocol}, {socket.session_cipher}")
    socket.write(b"hello\n")


def ready_read(socket):
    while socket.can_read_line:
        print("answer:", socket.read_line().decode().rstrip("\n"))
        socket.disconnect()


def error(socket, error):
    print("failed:", socket.error_string)


host, port = sys.argv[1], int(sys.argv[2])
socket = sslsock.SslSocket()
if len(sys.argv) > 3:
    socket.configuration.add_ca_file(sys.argv[3])
socket.encrypted_handler = encrypted
socket.ready_read_handler = ready_read
socket.error_handler = error
socket.connect_encrypted(host, port)
sslsock.run()  # returns when the connection has ended
sys.exit(0 if socket.error is None else 1)
