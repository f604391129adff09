"""paho-mqtt: `tls_set_context(context)`, or `tls_set` with `install()`."""

import threading

from common import CA_FILE, HOW, NAME, TIMEOUT, client_context, read_exactly, report, scripted, switch
import paho.mqtt.client as mqtt

switch()


def serve(plain, start_tls):
    """CONNECT, one PUBLISH with QoS 1, DISCONNECT (MQTT 3.1.1)."""
    stream, heard = start_tls(), []
    while True:
        kind = read_exactly(stream, 1)[0]
        size = shift = 0
        while (byte := read_exactly(stream, 1)[0]) & 0x80:
            size, shift = size | (byte & 0x7F) << shift, shift + 7
        body = read_exactly(stream, size | byte << shift)
        heard.append([kind >> 4, len(body)])
        if kind >> 4 == 1:
            stream.sendall(b"\x20\2\0\0")
        elif kind >> 4 == 3:
            topic = int.from_bytes(body[:2], "big")
            stream.sendall(b"\x40\2" + body[2 + topic : 4 + topic])
        elif kind >> 4 == 14:
            return heard


connected = threading.Event()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="me")
client.on_connect = lambda *arguments: connected.set()
if HOW in ("install", "late"):
    client.tls_set(CA_FILE)
else:
    client.tls_set_context(client_context())
with scripted(serve) as (port, served):
    client.connect(NAME, port)
    client.loop_start()
    assert connected.wait(TIMEOUT)
    sent = client.publish("topic", b"x" * 100_000, qos=1)
    sent.wait_for_publish(TIMEOUT)
    client.disconnect()
    client.loop_stop()
report(served=served, published=sent.is_published())
