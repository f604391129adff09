"""uvicorn on h11 and on httptools, its WebSockets by both of its libraries; aiohttp is the client. Many requests, large bodies
both ways, a client that vanishes, an end in order."""

import asyncio
import io
import socket
import warnings

from asgi import Application
from common import NAME, SERVER_FILE, client_context, server_context
from matrix import LARGE, digest, look, matrix
import aiohttp
import uvicorn


async def with_server(http, ws):
    application = Application()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, http=http, ws=ws, ws_max_size=1 << 24, ssl_certfile=SERVER_FILE, ssl_keyfile=SERVER_FILE,
        ssl_context_factory=lambda config, default: server_context(), log_config=None,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    address = f"https://{NAME}:{listener.getsockname()[1]}"
    try:
        connector = aiohttp.TCPConnector(ssl=client_context(), limit=8)
        async with aiohttp.ClientSession(connector=connector) as session:
            return {
                "requests": await requests(session, address),
                "vanishes": await vanishes(session, address, application),
                "socket": await over_websocket(session, address, application),
                "end": await end(session, address, application, server, serving),
                "events": application.events,
            }
    finally:
        server.should_exit = True
        await serving


async def requests(session, address):
    async def echo(data):
        async with session.post(f"{address}/echo", data=io.BytesIO(data)) as answer:
            assert await answer.read() == data
            return answer.headers["X-Peer"]

    peers = set(await asyncio.gather(*(echo(b"%d" % number) for number in range(200))))
    await echo(LARGE)
    async with session.get(f"{address}/large") as answer:
        look()
        return [len(peers) <= 8, answer.headers["X-Scheme"], digest(await answer.read()) == digest(LARGE)]


async def vanishes(session, address, application):
    answer = await session.get(f"{address}/until-gone")
    await answer.content.readexactly(4)
    await application.arrived.wait()
    answer.connection.transport.abort()
    answer.close()
    return await application.left.wait()


async def over_websocket(session, address, application):
    async with session.ws_connect(f"{address}/", max_msg_size=1 << 24) as client:
        await client.send_bytes(LARGE)
        same = digest(await client.receive_bytes()) == digest(LARGE)
        for number in range(100):
            await client.send_str(str(number))
        numbers = [int(await client.receive_str()) for _ in range(100)] == list(range(100))
        await client.close(code=4000)
    while not application.codes:
        await asyncio.sleep(0.001)
    return [same, numbers, client.close_code, application.codes[:]]


async def end(session, address, application, server, serving):
    """A WebSocket and idle connections are open."""
    client = await session.ws_connect(f"{address}/")
    server.should_exit = True
    last = await client.receive()
    await client.close()
    await serving
    return [last.type.name, last.data, application.codes[1:]]


async def work():
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    return {"h11": await with_server("h11", "wsproto"), "httptools": await with_server("httptools", "websockets-sansio")}


matrix(work)
