"""paho-mqtt: `tls_set_context(context)`, or `tls_set` with `install()`."""

import threading

from common import CA_FILE, HOW, NAME, TIMEOUT, client_context, report, scripted, switch
from peers import serve_mqtt
import paho.mqtt.client as mqtt

switch()

connected = threading.Event()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="me")
client.on_connect = lambda *arguments: connected.set()
if HOW in ("install", "late"):
    client.tls_set(CA_FILE)
else:
    client.tls_set_context(client_context())
with scripted(serve_mqtt) as (port, served):
    client.connect(NAME, port)
    client.loop_start()
    assert connected.wait(TIMEOUT)
    sent = client.publish("topic", b"x" * 100_000, qos=1)
    sent.wait_for_publish(TIMEOUT)
    client.disconnect()
    client.loop_stop()
report(served=served, published=sent.is_published())
