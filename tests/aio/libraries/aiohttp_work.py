"""aiohttp, client and server: many requests, large bodies both ways, files, cancellation, names, peers that vanish, an end in
order, WebSocket, and an HTTP proxy, which is plain or has TLS itself (so that TLS runs in TLS)."""

import asyncio
import contextlib
import tempfile
import warnings

from common import NAME, client_context, server_context, untrusting_context
from matrix import LARGE, digest, ended, look, matrix
import aiohttp
from aiohttp import web

SOCKETS = web.AppKey("sockets", set)


class Site:
    """What is served."""

    def __init__(self, folder):
        self.path = f"{folder}/file"
        with open(self.path, "wb") as file:
            file.write(LARGE)
        self.vanished = asyncio.get_running_loop().create_future()
        self.arrived, self.cancelled = asyncio.Event(), asyncio.Event()
        self.closed = []

    async def echo(self, request):
        headers = {"X-Peer": str(request.transport.get_extra_info("peername")[1])}
        return web.Response(body=await request.read(), headers=headers)

    async def file(self, request):
        return web.FileResponse(self.path)

    async def never(self, request):
        self.arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def endless(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(LARGE[:65536])
                await asyncio.sleep(0)  # a write alone may never wait, and the loop not hear that the client has gone
        except (ConnectionError, asyncio.CancelledError):  # whichever comes first
            self.vanished.set_result("told")
            raise

    async def socket(self, request):
        answer = web.WebSocketResponse(max_msg_size=1 << 24)
        await answer.prepare(request)
        request.app[SOCKETS].add(answer)
        async for message in answer:
            if message.type == aiohttp.WSMsgType.TEXT:
                await answer.send_str(message.data)
            else:
                await answer.send_bytes(message.data)
        request.app[SOCKETS].discard(answer)
        self.closed.append(answer.close_code)
        return answer

    async def going_away(self, application):
        for one in set(application[SOCKETS]):
            await one.close(code=aiohttp.WSCloseCode.GOING_AWAY, message=b"the server ends")

    @contextlib.asynccontextmanager
    async def served(self, context):
        application = web.Application(client_max_size=1 << 26)
        application[SOCKETS] = set()
        for path in ("echo", "file", "never", "endless", "socket"):
            application.router.add_route("*", f"/{path}", getattr(self, path))
        application.on_shutdown.append(self.going_away)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=10)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        scheme = "https" if context else "http"
        try:
            yield f"{scheme}://{NAME}:{site._server.sockets[0].getsockname()[1]}", runner.cleanup
        finally:
            await runner.cleanup()


async def pieces():
    for start in range(0, len(LARGE), 100_000):
        yield LARGE[start : start + 100_000]


async def many(session, address):
    """Over eight connections at the most, which are used again."""

    async def ask(number):
        async with session.post(f"{address}/echo", data=b"%d" % number) as answer:
            assert await answer.read() == b"%d" % number
            return answer.headers["X-Peer"]

    return len(set(await asyncio.gather(*(ask(number) for number in range(200))))) <= 8


async def large(session, address):
    async with session.post(f"{address}/echo", data=pieces()) as answer:
        echoed = digest(await answer.read())
    async with session.get(f"{address}/file") as answer:
        sent = [answer.status, digest(await answer.read())]
    async with session.get(f"{address}/file", headers={"Range": "bytes=1000-300999"}) as answer:
        part = [answer.status, digest(await answer.read()) == digest(LARGE[1000:301_000])]
    slow = 0
    async with session.get(f"{address}/file") as answer:
        async for piece in answer.content.iter_chunked(10_000):
            slow += len(piece)
            await asyncio.sleep(0)
    return [echoed == digest(LARGE), sent, part, slow]


async def cancelled(session, address, site):
    asking = asyncio.ensure_future(session.get(f"{address}/never"))
    await site.arrived.wait()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await site.cancelled.wait()  # the server's handler heard of it
    return asking.cancelled()


async def vanishes(session, address, site):
    answer = await session.get(f"{address}/endless")
    await answer.content.readexactly(1_000_000)
    answer.connection.transport.abort()
    answer.close()
    return await site.vanished


async def sockets(session, address, site):
    async with session.ws_connect(f"{address}/socket", max_msg_size=1 << 24) as client:
        await client.send_str("text")
        results = [await client.receive_str()]
        for _ in range(100):
            await client.send_str("x" * 100)
        results.append({await client.receive_str() for _ in range(100)} == {"x" * 100})
        await client.send_bytes(LARGE)
        results.append(digest(await client.receive_bytes()) == digest(LARGE))
        look()
        await client.close(code=4000)
    while not site.closed:
        await asyncio.sleep(0.001)
    return [*results, client.close_code, site.closed]


async def names(address):
    results = []
    for context, name in ((untrusting_context(), NAME), (client_context(), "other.example")):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            results.append(await ended(session.get(f"{address}/echo", server_hostname=name)))
    return results


async def carry(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def proxy(reader, writer):
    """CONNECT (RFC 9110, 9.3.6)."""
    host, port = (await reader.readuntil(b"\r\n\r\n")).split()[1].rsplit(b":", 1)
    far_reader, far_writer = await asyncio.open_connection(host.decode(), int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    carrying = [asyncio.ensure_future(carry(reader, far_writer)), asyncio.ensure_future(carry(far_reader, writer))]
    await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
    for one in (far_writer, writer):
        one.close()
    await asyncio.gather(*carrying)


async def through_proxies(address):
    results = []
    for scheme, context in (("http", None), ("https", server_context())):
        server = await asyncio.start_server(proxy, "127.0.0.1", 0, ssl=context)
        far = f"{scheme}://{NAME}:{server.sockets[0].getsockname()[1]}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context())) as session:
            for _ in range(3):
                async with session.post(f"{address}/echo", data=pieces(), proxy=far) as answer:
                    results.append(digest(await answer.read()) == digest(LARGE))
            look()
            refused = await ended(session.get(f"{address}/echo", proxy=far, ssl=untrusting_context()))
            results.append("SSLCertVerificationError" in refused)  # below asyncio's TLS in TLS with a TypeError of its own
        server.close()
    return results


async def work():
    warnings.filterwarnings("ignore", "An HTTPS request is being sent through an HTTPS proxy")
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for context in (None, server_context()):
            site = Site(folder)
            async with site.served(context) as (address, end):
                connector = aiohttp.TCPConnector(ssl=client_context(), limit=8)
                async with aiohttp.ClientSession(connector=connector) as session:
                    kind = result["TLS" if context else "plain"] = {
                        "many": await many(session, address),
                        "large": await large(session, address),
                        "cancelled": await cancelled(session, address, site),
                        "vanishes": await vanishes(session, address, site),
                        "sockets": await sockets(session, address, site),
                    }
                    if context:
                        kind["names"] = await names(address)
                        kind["proxies"] = await through_proxies(address)
                    client = await session.ws_connect(f"{address}/socket")
                    ending = asyncio.ensure_future(end())
                    last = await client.receive()
                    await ending
                    kind["end"] = [last.type.name, last.data, await ended(session.get(f"{address}/echo"))]
    return result


matrix(work)
