"""redis-py with Redis, which demands a client's certificate."""

import asyncio
import threading

from common import CA_FILE, CLIENT_FILE, NAME, PORTS, WRONG_NAME, outcome, report, switch
import redis
import redis.asyncio

switch()

certified = {"ssl_certfile": CLIENT_FILE, "ssl_keyfile": CLIENT_FILE}
options = {"host": NAME, "port": PORTS[0], "ssl": True, "ssl_ca_certs": CA_FILE, "ssl_check_hostname": True, "retry": None}
LARGE = bytes(range(256)) * 8192


def commands(client):
    """Large values, a thousand commands at once, a wait that is in vain."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.set(f"key{number}", b"v" * number)
        done = all(pipe.execute())
    sizes = [len(value) for value in client.mget([f"key{number}" for number in range(1000)])]
    large = client.set("large", LARGE) and client.get("large") == LARGE
    return [large, done, sizes == list(range(1000)), client.blpop("none", 0.1)]


def listens(client):
    """A subscription looks for messages with `select`, and must see what has been decrypted already."""
    with client.pubsub() as subscribed:
        subscribed.subscribe("channel")
        assert subscribed.get_message(timeout=30)["type"] == "subscribe"
        for number in range(200):
            client.publish("channel", str(number))
        got = [subscribed.get_message(timeout=30)["data"] for _ in range(200)]
        return got == [str(number).encode() for number in range(200)], subscribed.get_message(timeout=0.05)


def in_threads(client):
    wrong = []

    def work(name):
        for number in range(200):
            client.set(f"{name}", f"{name} {number}")
            if client.get(name) != f"{name} {number}".encode():
                wrong.append((name, number))

    threads = [threading.Thread(target=work, args=[str(name)]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


async def on_asyncio():
    client = redis.asyncio.Redis(**options, **certified)
    await client.set("large", LARGE)
    values = await asyncio.gather(*(client.get("large") for _ in range(8)))
    await client.aclose()
    return all(value == LARGE for value in values)


with redis.Redis(**options, **certified) as client:
    results = [commands(client), listens(client), in_threads(client)]
results.append(asyncio.run(on_asyncio()))
wrong_name = outcome(redis.Redis(**{**options, "host": WRONG_NAME}, **certified).ping)
no_certificate = outcome(redis.Redis(**options).ping)
no_authority = outcome(redis.Redis(**{**options, "ssl_ca_certs": None}, **certified).ping)
report(results=results, wrong_name=wrong_name, no_certificate=no_certificate[:1], no_authority=no_authority)
