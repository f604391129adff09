"""paho-mqtt with Mosquitto, which demands a client's certificate."""

import threading

from common import CA_FILE, CLIENT_FILE, HOW, NAME, PORTS, TIMEOUT, WRONG_NAME, client_context, outcome, report, switch
import paho.mqtt.client as mqtt

switch()

SIZES = [0, 1, 100, 16_384, 16_385, 1_000_000]


def make(certified=True):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    if HOW in ("install", "late"):
        client.tls_set(CA_FILE, *([CLIENT_FILE] * 2 if certified else []))
    else:
        context = client_context()
        if certified:
            context.load_cert_chain(CLIENT_FILE)
        client.tls_set_context(context)
    return client


def round_trips():
    """Each message comes back, of each quality of service."""
    got, done, subscribed = [], threading.Event(), threading.Event()
    client = make()

    def on_message(client, data, message):
        got.append((message.qos, len(message.payload)))
        if len(got) == 3 * len(SIZES):
            done.set()

    client.on_message = on_message
    client.on_connect = lambda *arguments: client.subscribe("topic", 2)
    client.on_subscribe = lambda *arguments: subscribed.set()
    client.connect(NAME, PORTS[0])
    client.loop_start()
    assert subscribed.wait(TIMEOUT)
    for quality in range(3):
        for size in SIZES:
            client.publish("topic", b"x" * size, quality)
    assert done.wait(TIMEOUT), got
    client.disconnect()
    client.loop_stop()
    return sorted(got)


def refused():
    """Without a certificate the connection ends before the broker has answered."""
    client, ended = make(certified=False), threading.Event()
    client.on_disconnect = lambda *arguments: ended.set()
    client.on_connect_fail = lambda *arguments: ended.set()
    client.connect(NAME, PORTS[0])
    client.loop_start()
    told = ended.wait(TIMEOUT)
    client.loop_stop()
    return told, client.is_connected()


wrong_name = outcome(lambda: make().connect(WRONG_NAME, PORTS[0]))
report(got=round_trips(), refused=refused(), wrong_name=wrong_name)
