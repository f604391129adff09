"""TLS without sockets: `Engine` takes bytes and gives bytes, and the program moves them
as it likes.

Here the way is an ordinary blocking socket of the standard library. It could be a
serial line, a message queue, or a test.

Run it, with `python server.py 4433` in another terminal:

    python engine.py localhost 4433 ca.pem
"""

import socket
import sys

import sslsock

host, port, authorities = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = sslsock.Context(
    server_side=False, ca_certificates=sslsock.SslCertificate.from_path(authorities)
)
engine = sslsock.Engine(context, server_name=host, verify_name=host)


def receive(way):
    """Plaintext, as much as has come. Empty: no record is complete yet."""
    data = way.recv(65536)
    if not data:
        raise ConnectionError("the peer has gone without a close_notify")
    plaintext = engine.decrypt(data)
    # Reading may have made something to send: handshake messages, alerts, key updates
    way.sendall(engine.take())
    return plaintext


with socket.create_connection((host, port), 30) as way:
    try:
        way.sendall(engine.start())
        while not engine.handshake_done:
            receive(way)
    except sslsock.TlsError as exc:
        way.sendall(engine.take())  # the alert, so that the peer knows
        sys.exit(f"failed: {exc}")
    print("encrypted:", hex(engine.protocol), engine.cipher)
    way.sendall(engine.encrypt(b"hello\n"))
    answer = b""
    while not answer.endswith(b"\n"):
        answer += receive(way)
    print("answer:", answer.decode(), end="")
    way.sendall(engine.close())
