"""A key log, with which Wireshark can read the connections of this client. For
debugging, and for nothing else.

Every program that uses sslsock does the same, with no line changed, when the
environment says so:

    SSLKEYLOGFILE=/tmp/keys.log python client.py localhost 4433 ca.pem

Run it, with `python server.py 4433` in another terminal:

    python key_log.py localhost 4433 ca.pem keys.log

In Wireshark: Preferences, Protocols, TLS, "(Pre)-Master-Secret log filename".
"""

import os
import sys

import sslsock


def encrypted(socket):
    print("the secrets of this connection are in", sys.argv[4])
    socket.disconnect()


socket = sslsock.SslSocket()
socket.configuration.add_ca_file(sys.argv[3])
socket.configuration.key_log = os.path.abspath(sys.argv[4])  # made for its owner only
socket.encrypted_handler = encrypted
socket.connect_encrypted(sys.argv[1], int(sys.argv[2]))
sslsock.run()
