"""httpx, blocking and on asyncio: `verify=context`, or nothing with `install()`."""

import asyncio

from common import NAME, WRONG_NAME, client_context, https_server, outcome, report, switch
import httpx

switch()


async def on_asyncio(address):
    async with httpx.AsyncClient(verify=client_context()) as client:
        return [(await client.get(address)).text, len((await client.post(address, content=b"y" * 100_000)).text)]


with https_server() as port:
    address = f"https://{NAME}:{port}/path"
    with httpx.Client(verify=client_context()) as client:
        results = [client.get(address).text, client.get(address).text, len(client.post(address, content=b"x" * 100_000).text)]
    wrong = outcome(lambda: httpx.get(f"https://{WRONG_NAME}:{port}/", verify=client_context()))
    report(results=results, wrong_name=wrong, on_asyncio=asyncio.run(on_asyncio(address)))
