"""A client that knows its server by the fingerprint of its certificate, whoever has
signed it.

For a device with a certificate of its own making, or a server whose authority is not to
decide. The fingerprint is compared after the handshake and before the first byte of
ours is sent.

Run it, with `python server.py 4433` in another terminal:

    openssl x509 -in server.pem -noout -fingerprint -sha256    # says the fingerprint
    python pinned_client.py localhost 4433 FINGERPRINT
"""

import hmac
import sys

import sslsock

PIN = bytes.fromhex(sys.argv[3].replace(":", ""))


def encrypted(socket):
    if not hmac.compare_digest(socket.peer_certificate.digest("sha256"), PIN):
        print("failed: the server has another certificate")
        socket.abort()
        return
    print("it is the one")
    socket.write(b"hello\n")


def ready_read(socket):
    print("answer:", socket.read_all().decode(), end="")
    socket.disconnect()


socket = sslsock.SslSocket()
# No authority is asked: `encrypted` decides
socket.peer_verify_mode = sslsock.SslSocket.VERIFY_NONE
socket.encrypted_handler = encrypted
socket.ready_read_handler = ready_read
socket.error_handler = lambda socket, error: print("failed:", socket.error_string)
socket.connect_encrypted(sys.argv[1], int(sys.argv[2]))
sslsock.run()
