"""aiohttp: `TCPConnector(ssl=context)` and `run_app(ssl_context=context)`, or nothing with `install()`."""

import asyncio

from common import NAME, client_context, https_server, peer_request, report, server_context, switch
import aiohttp
from aiohttp import web

switch()


async def hello(request):
    return web.Response(text=f"hello {request.path}" + "!" * 100_000)


async def main(port):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context())) as session:
        results = []
        for number in range(3):
            async with session.get(f"https://{NAME}:{port}/{number}") as answer:
                results.append(await answer.text())
        async with session.post(f"https://{NAME}:{port}/", data=b"x" * 300_000) as answer:
            results.append(len(await answer.read()))
    async with aiohttp.ClientSession() as session:
        try:
            await session.get(f"https://{NAME}:{port}/")
        except aiohttp.ClientConnectorCertificateError as exc:
            results.append(type(exc).__name__)
    application = web.Application()
    application.router.add_get("/{name}", hello)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context())
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    served = await asyncio.get_running_loop().run_in_executor(None, peer_request, port, "/served")
    await runner.cleanup()
    return results, served


with https_server() as port:
    results, served = asyncio.run(main(port))
report(results=results, served=served)
