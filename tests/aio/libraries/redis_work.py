"""redis-py's asyncio with Redis: pipelines, large values, a subscription, a wait that is cancelled, a connection that the
server ends and that is made again, names."""

import asyncio

from common import CA_FILE, CLIENT_FILE, NAME, PORTS, WRONG_NAME
from matrix import LARGE, digest, ended, look, matrix
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

certified = {"ssl_certfile": CLIENT_FILE, "ssl_keyfile": CLIENT_FILE}
options = {"host": NAME, "port": PORTS[0], "ssl": True, "ssl_ca_certs": CA_FILE, "ssl_check_hostname": True}


async def commands(client):
    async with client.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.set(f"key{number}", b"v" * number)
        done = all(await pipe.execute())
    sizes = [len(value) for value in await client.mget([f"key{number}" for number in range(1000)])]
    await client.set("large", LARGE)
    values = await asyncio.gather(*(client.get("large") for _ in range(8)))
    look()
    return [done, sizes == list(range(1000)), {digest(value) for value in values} == {digest(LARGE)}]


async def listens(client):
    async with client.pubsub() as subscribed:
        await subscribed.subscribe("channel")
        assert (await subscribed.get_message(timeout=30))["type"] == "subscribe"
        for number in range(200):
            await client.publish("channel", str(number))
        got = [(await subscribed.get_message(timeout=30))["data"] for _ in range(200)]
        return [got == [str(number).encode() for number in range(200)], await subscribed.get_message(timeout=0.01)]


async def cancelled(client):
    waiting = asyncio.ensure_future(client.blpop("none"))
    while not any(one["cmd"] == "blpop" for one in await client.client_list()):
        pass
    waiting.cancel()
    await asyncio.wait([waiting])
    return [waiting.cancelled(), await client.ping()]


async def connects_again():
    """The server ends the connection while a command waits, and between two."""
    retry = {"retry": Retry(NoBackoff(), 3), "single_connection_client": True}
    async with Redis(**options, **certified, **retry) as client, Redis(**options, **certified) as other:
        numbers = []
        for _ in range(3):
            numbers.append(await client.client_id())
            await other.client_kill_filter(_id=numbers[-1])
        waiting = asyncio.ensure_future(client.blpop("list"))
        while not any(one["cmd"] == "blpop" for one in await other.client_list()):
            pass
        blocked = [one["id"] for one in await other.client_list() if one["cmd"] == "blpop"]
        await other.client_kill_filter(_id=blocked[0])
        while not any(one["cmd"] == "blpop" and one["id"] != blocked[0] for one in await other.client_list()):
            pass
        await other.lpush("list", "value")
        return [len(set(numbers)), (await waiting)[1].decode()]


async def refused(**changes):
    async with Redis(**{**options, **certified, "retry": Retry(NoBackoff(), 0), **changes}) as client:
        return (await ended(client.ping()))[0]


async def work():
    async with Redis(**options, **certified) as client:
        result = {"commands": await commands(client), "listens": await listens(client), "cancelled": await cancelled(client)}
    return {
        **result,
        "again": await connects_again(),
        "names": [await refused(host=WRONG_NAME), await refused(ssl_ca_certs=None)],
    }


matrix(work, installs=True)
