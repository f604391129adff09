"""Pre-shared keys: TLS without certificates, for devices that share a key with their
server.

Run it, each in a terminal of its own:

    python pre_shared_key.py server 4433
    python pre_shared_key.py client 4433

or let OpenSSL be the client:

    openssl s_client -connect localhost:4433 -psk_identity "device 7" \\
        -psk 5d1a9e0c4c1b4a0ab31f7f2f5b8e6a13

Keys are random bytes, never passwords. This makes one:

    python -c "import secrets; print(secrets.token_hex(16))"
"""

import sys

import sslsock

# By the name of the device
KEYS = {"device 7": bytes.fromhex("5d1a9e0c4c1b4a0ab31f7f2f5b8e6a13")}


def find_key(socket, authenticator):  # on the server: who is it, and which key has it?
    # An unknown name has an empty key, and the handshake fails
    authenticator.pre_shared_key = KEYS.get(authenticator.identity, b"")


def give_key(socket, authenticator):  # on the client: this is who I am
    authenticator.identity = "device 7"
    authenticator.pre_shared_key = KEYS["device 7"]


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        socket.encrypted_handler = welcome
        socket.error_handler = tell


def welcome(socket):
    socket.write(b"welcome\n")
    socket.disconnect()


def show(socket):
    print("key used:", socket.pre_shared_key_used, socket.session_cipher)
    print(socket.read_all().decode(), end="")


def tell(socket, error):
    if error != sslsock.SocketError.REMOTE_HOST_CLOSED_ERROR:
        print("failed:", socket.error_string)


role, port = sys.argv[1], int(sys.argv[2])
if role == "server":
    server = sslsock.SslServer()
    server.pre_shared_key_handler = find_key
    server.new_connection_handler = accept
    if not server.listen(port, "127.0.0.1"):
        sys.exit(server.error_string)
    print(f"listening on 127.0.0.1:{server.port}")
else:
    socket = sslsock.SslSocket()
    socket.pre_shared_key_handler = give_key
    socket.ready_read_handler = show
    socket.error_handler = tell
    socket.connect_encrypted("127.0.0.1", port)
try:
    sslsock.run()
except KeyboardInterrupt:
    print("stopped")
