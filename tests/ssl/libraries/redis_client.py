"""redis-py, blocking and on asyncio: it makes its own contexts, so `install()`."""

import asyncio

from common import CA_FILE, NAME, WRONG_NAME, outcome, report, scripted, switch
from peers import serve_redis
import redis
import redis.asyncio

switch()

options = {"host": NAME, "ssl": True, "ssl_ca_certs": CA_FILE, "ssl_check_hostname": True, "protocol": 2}


async def on_asyncio(port):
    client = redis.asyncio.Redis(port=port, **options)
    results = [await client.ping(), await client.set("a", "b" * 200_000), len(await client.get("key"))]
    await client.aclose()
    return results


with scripted(serve_redis) as (port, served):
    client = redis.Redis(port=port, **options)
    results = [client.ping(), client.set("a", "b" * 200_000), len(client.get("key")), client.ping()]
    client.close()
    results += asyncio.run(on_asyncio(port))
    wrong = outcome(lambda: redis.Redis(port=port, **{**options, "host": WRONG_NAME}, retry=None).ping())
report(results=results, wrong_name=wrong)
