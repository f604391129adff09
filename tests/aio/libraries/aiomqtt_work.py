"""aiomqtt with Mosquitto: messages of each quality of service, large ones, several clients, names. Its sockets are paho's, and
asyncio's loop only tells it of them by `add_reader` and `add_writer`."""

import asyncio

from common import CLIENT_FILE, NAME, PORTS, WRONG_NAME, client_context, untrusting_context
from matrix import look, matrix
import aiomqtt

SIZES = [0, 1, 100, 16_384, 16_385, 1_000_000]


def certified(context):
    context.load_cert_chain(CLIENT_FILE)
    return context


def client(host=NAME, context=None):
    return aiomqtt.Client(host, PORTS[0], tls_context=certified(context or client_context()), timeout=60)


async def round_trips():
    async with client() as one:
        await one.subscribe("topic", qos=2)
        for quality in range(3):
            for size in SIZES:
                await one.publish("topic", b"x" * size, qos=quality)
        got = []
        async for message in one.messages:
            got.append([message.qos, len(message.payload)])
            if len(got) == 3 * len(SIZES):
                break
        look()
    return sorted(got)


async def several():
    """Each hears what all have said."""
    subscribed, ready, heard = [], asyncio.Event(), []

    async def talk(number):
        async with client() as one:
            await one.subscribe("all", qos=1)
            subscribed.append(number)
            if len(subscribed) == 5:
                ready.set()
            await ready.wait()
            for step in range(20):
                await one.publish("all", f"{number} {step}", qos=1)
            got = set()
            async for message in one.messages:
                got.add(message.payload)
                if len(got) == 100:
                    break
            heard.append(len(got))

    await asyncio.gather(*(talk(number) for number in range(5)))
    return heard


async def refused(**options):
    try:
        async with client(**options):
            return "connected"
    except aiomqtt.MqttError as exc:
        return [type(exc).__name__, "certificate verify failed" in str(exc)]


async def work():
    return {
        "round trips": await round_trips(),
        "several": await several(),
        "names": [await refused(host=WRONG_NAME), await refused(context=untrusting_context())],
    }


matrix(work)
