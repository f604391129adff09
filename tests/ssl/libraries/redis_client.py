"""redis-py, blocking and on asyncio: it makes its own contexts, so `install()`."""

import asyncio

from common import CA_FILE, NAME, outcome, read_exactly, read_line, report, scripted, switch
import redis
import redis.asyncio

switch()


def serve(plain, start_tls):
    """PING and GET of RESP; whatever else is asked is an error."""
    stream, heard = start_tls(), []
    try:
        while True:
            count = int(read_line(stream)[1:])
            words = []
            for _ in range(count):
                size = int(read_line(stream)[1:])
                words.append(read_exactly(stream, size + 2)[:-2].decode())
            heard.append(words[:1])
            answers = {"PING": b"+PONG\r\n", "GET": b"$100000\r\n" + b"v" * 100_000 + b"\r\n", "SET": b"+OK\r\n"}
            stream.sendall(answers.get(words[0].upper(), b"-ERR unknown command\r\n"))
    except EOFError:
        return heard


options = {"host": NAME, "ssl": True, "ssl_ca_certs": CA_FILE, "ssl_check_hostname": True, "protocol": 2}


async def on_asyncio(port):
    client = redis.asyncio.Redis(port=port, **options)
    results = [await client.ping(), await client.set("a", "b" * 200_000), len(await client.get("key"))]
    await client.aclose()
    return results


with scripted(serve) as (port, served):
    client = redis.Redis(port=port, **options)
    results = [client.ping(), client.set("a", "b" * 200_000), len(client.get("key")), client.ping()]
    client.close()
    results += asyncio.run(on_asyncio(port))
    wrong = outcome(lambda: redis.Redis(port=port, **{**options, "host": "127.0.0.2"}, retry=None).ping())
report(results=results, wrong_name=wrong[:1])
