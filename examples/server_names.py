"""A server with several names: each client gets the certificate for the name that it
asks for (SNI).

Run it:

    python certificates.py
    python server_names.py 4433

and look: `openssl s_client -connect localhost:4433 -servername two.example -CAfile
ca.pem`. Ctrl-C ends it.
"""

import sys
from pathlib import Path

import sslsock


def configuration_of(name):
    configuration = sslsock.SslConfiguration()
    configuration.set_identity(
        Path(f"{name}.pem").read_bytes(), Path(f"{name}.key").read_bytes()
    )
    return configuration


CONFIGURATIONS = {name: configuration_of(name) for name in ("one.example", "two.example")}


def choose(socket, hello):  # before the handshake, with what the client offers
    name = (hello.server_name or "").lower()
    if name in CONFIGURATIONS:
        socket.configuration = CONFIGURATIONS[name]
    else:
        print("nobody here is called", repr(name))
        socket.abort()


def accept(server):
    while (socket := server.next_pending_secure_connection()) is not None:
        socket.encrypted_handler = welcome


def welcome(socket):
    socket.write(f"this is {socket.requested_server_name}\n".encode())
    socket.disconnect()


server = sslsock.SslServer()
server.client_hello_handler = choose
server.new_connection_handler = accept
if not server.listen(int(sys.argv[1]), "127.0.0.1"):
    sys.exit(server.error_string)
print(f"listening on 127.0.0.1:{server.port}")
try:
    sslsock.run()
except KeyboardInterrupt:
    print("stopped")
