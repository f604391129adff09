"""hypercorn, with httpx over HTTP/2 and HTTP/1.1 and websockets as its clients: many requests at once, large bodies both ways,
clients that vanish, a request that is cancelled, names, an end in order. httpx does its TLS itself, over plain transports."""

import asyncio
import contextlib
import socket

from asgi import Application
from common import NAME, WRONG_NAME, client_context, server_context, untrusting_context
from matrix import LARGE, digest, ended, look, matrix
import httpx
import hypercorn.asyncio
import hypercorn.config
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


def offering(context):
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def requests(address, version):
    limits = httpx.Limits(max_connections=8)
    async with httpx.AsyncClient(verify=client_context(), http2=version == 2, limits=limits, timeout=60) as client:

        async def echo(data):
            answer = await client.post(f"{address}/echo", content=data)
            assert answer.content == data
            return answer.headers["x-peer"], answer.http_version

        answers = await asyncio.gather(*(echo(b"%d" % number) for number in range(100)))
        peers = {peer for peer, _ in answers}
        large = (await client.get(f"{address}/large")).content
        async with client.stream("GET", f"{address}/large") as answer:
            slow = 0
            async for piece in answer.aiter_bytes(10_000):
                slow += len(piece)
        look()
        await echo(LARGE[:1_000_000])
        return [len(peers) <= (1 if version == 2 else 8), answers[0][1], digest(large) == digest(LARGE), slow]


async def vanishes(address, port, application):
    """In the middle of a large answer over HTTP/1.1; then a request over HTTP/2 is cancelled."""
    reader, writer = await asyncio.open_connection(NAME, port, ssl=client_context())
    writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readexactly(100_000)
    writer.transport.abort()
    async with httpx.AsyncClient(verify=client_context(), http2=True, timeout=60) as client:
        # SETTINGS have gone both ways then: who is cancelled only receives, for anyio's TLS is broken by a cancelled send
        await client.post(f"{address}/echo", content=b"first")
        asking = asyncio.ensure_future(client.get(f"{address}/until-gone"))
        await application.arrived.wait()
        asking.cancel()
        await asyncio.wait([asking])
        again = await client.post(f"{address}/echo", content=b"again")
    await application.left.wait()  # httpx sends no RST_STREAM: the end of its connection tells
    return [asking.cancelled(), again.text]


async def over_websocket(port, application):
    async with connect(f"wss://{NAME}:{port}/", ssl=client_context(), max_size=1 << 24) as client:
        await client.send(LARGE)
        same = digest(await client.recv()) == digest(LARGE)
        await client.close(4000)
    client = await connect(f"wss://{NAME}:{port}/", ssl=client_context())
    client.transport.abort()
    with contextlib.suppress(ConnectionClosed):
        await client.recv()
    while len(application.codes) < 2:
        await asyncio.sleep(0.001)
    return [same, client.close_code, application.codes]


async def names(address):
    results = []
    for context, url in ((untrusting_context(), address), (client_context(), address.replace(NAME, WRONG_NAME))):
        async with httpx.AsyncClient(verify=context) as client:
            results.append([name for name in await ended(client.get(f"{url}/echo")) if "Error" in name])
    return results


async def work():
    application, over = Application(), asyncio.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    config = hypercorn.config.Config()
    port = listener.getsockname()[1]
    config.bind = [f"fd://{listener.detach()}"]  # which it closes
    config.certfile = config.keyfile = "given"
    config.create_ssl_context = lambda: offering(server_context())
    config.errorlog = None
    config.websocket_max_message_size = 1 << 24
    address = f"https://{NAME}:{port}"
    serving = asyncio.ensure_future(hypercorn.asyncio.serve(application, config, shutdown_trigger=over.wait))
    try:
        result = {
            "HTTP/2": await requests(address, 2),
            "HTTP/1.1": await requests(address, 1),
            "vanishes": await vanishes(address, port, application),
            "socket": await over_websocket(port, application),
            "names": await names(address),
        }
    finally:
        over.set()
        await serving
    return {**result, "events": application.events}


matrix(work)
