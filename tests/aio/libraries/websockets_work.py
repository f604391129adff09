"""websockets, both ends: many connections, large and fragmented messages, pings, codes of the close, a peer that vanishes, a
client that is cancelled, names, and a server that ends in order."""

import asyncio
import contextlib

from common import NAME, WRONG_NAME, client_context, server_context, untrusting_context
from matrix import LARGE, digest, ended, look, matrix
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def work():
    over, opened = [], asyncio.Event()

    async def echo(connection):
        opened.set()
        try:
            async for message in connection:
                await connection.send(message)
        finally:
            code = await asyncio.wait_for(connection.wait_closed(), 60) or connection.close_code
            over.append(code)

    async def closed(count):
        while len(over) < count:
            await asyncio.sleep(0.001)
        told, over[:] = over[:], []
        return told

    async with serve(echo, "127.0.0.1", 0, ssl=server_context(), max_size=1 << 24) as server:
        port = server.sockets[0].getsockname()[1]
        address, context = f"wss://{NAME}:{port}/", client_context()
        options = {"ssl": context, "max_size": 1 << 24}

        async def talk(number):
            async with connect(address, **options) as client:
                for step in range(20):
                    await client.send(f"{number} {step}")
                    assert await client.recv() == f"{number} {step}"

        await asyncio.gather(*(talk(number) for number in range(30)))
        result = {"many": await closed(30)}
        async with connect(address, **options, compression=None) as client:
            await client.send(LARGE)
            large = digest(await client.recv()) == digest(LARGE)
            await client.send(LARGE[start : start + 10_000] for start in range(0, 500_000, 10_000))
            fragments = await client.recv() == LARGE[:500_000]
            look()
            await (await client.ping())
            await client.close(4000, "enough")
            result["messages"] = [large, fragments, client.close_code, await closed(1)]
        client = await connect(address, **options)
        client.transport.abort()
        with contextlib.suppress(ConnectionClosed):
            await client.recv()
        result["vanishes"] = [client.close_code, await closed(1)]
        opened.clear()
        connecting = asyncio.ensure_future(talk(0))
        await opened.wait()
        connecting.cancel()
        await asyncio.wait([connecting])
        result["cancelled"] = connecting.cancelled()
        await closed(1)
        result["names"] = [
            await ended(connect(address.replace(NAME, WRONG_NAME), **options)),
            await ended(connect(address, ssl=untrusting_context())),
        ]
        client = await connect(address, **options)
        server.close()
        with contextlib.suppress(ConnectionClosed):
            await client.recv()
        await server.wait_closed()
        result["end"] = [client.close_code, await closed(1), await ended(connect(address, **options))]
    return result


matrix(work)
