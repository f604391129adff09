"""pika: `SSLOptions(context)`."""

import struct

from common import NAME, client_context, read_exactly, report, scripted, switch
import pika

switch()


def text(words):
    return bytes([len(words)]) + words


def serve(plain, start_tls):
    """The handshake of AMQP 0-9-1 (its section 2.2.4), and the close."""
    stream = start_tls()
    heard = [read_exactly(stream, 8).hex()]

    def send(class_id, method, body):
        payload = struct.pack("!HH", class_id, method) + body
        stream.sendall(b"\1" + struct.pack("!HI", 0, len(payload)) + payload + b"\xce")

    send(10, 10, b"\0\x09" + struct.pack("!I", 0) + struct.pack("!I", 5) + b"PLAIN" + struct.pack("!I", 5) + b"en_US")
    while True:
        kind, _, size = struct.unpack("!BHI", read_exactly(stream, 7))
        payload = read_exactly(stream, size + 1)
        if kind != 1:
            continue
        class_id, method = struct.unpack("!HH", payload[:4])
        heard.append([class_id, method])
        if method == 11:  # start-ok
            send(10, 30, struct.pack("!HIH", 10, 131072, 0))
        elif method == 40:  # open
            send(10, 41, b"\0")
        elif method == 50:  # close
            send(10, 51, b"")
            return heard


with scripted(serve) as (port, served):
    options = pika.SSLOptions(client_context(), NAME)
    connection = pika.BlockingConnection(pika.ConnectionParameters(NAME, port, ssl_options=options))
    open_then = connection.is_open
    connection.close()
report(served=served[0], open=open_then)
