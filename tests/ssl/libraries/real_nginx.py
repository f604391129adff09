"""http.client, urllib, urllib3, requests, httpx, aiohttp, tornado with nginx: large answers, connections that are kept, a
client's certificate."""

import asyncio
import http.client
import urllib.request

from common import CA_FILE, CLIENT_FILE, HOW, NAME, PORTS, WRONG_NAME, client_context, names, outcome, report, switch
import aiohttp
import httpx
import requests
import requests.adapters
from tornado.httpclient import AsyncHTTPClient
import urllib3

switch()

ADDRESS = f"https://{NAME}:{PORTS[0]}"
LARGE = bytes(range(256)) * 80_000


def certified():
    context = client_context()
    context.load_cert_chain(CLIENT_FILE)
    return context


def standard():
    connection = http.client.HTTPSConnection(NAME, PORTS[0], context=certified())
    found = []
    for path in ("/large", "/client", "/large"):
        connection.request("GET", path)
        found.append(connection.getresponse().read())
    connection.close()
    with urllib.request.urlopen(f"{ADDRESS}/large", context=client_context()) as answer:
        found.append(answer.read())
    return [body == LARGE or body.decode() for body in found]


def by_urllib3():
    with urllib3.PoolManager(ssl_context=certified()) as pool:
        found = [pool.request("GET", ADDRESS + path).data for path in ("/large", "/client")]
        streamed = sum(map(len, pool.request("GET", f"{ADDRESS}/large", preload_content=False).stream(100_000)))
        wrong = outcome(lambda: pool.request("GET", f"https://{WRONG_NAME}:{PORTS[0]}/", retries=False))
    return [found[0] == LARGE, found[1].decode(), streamed, wrong]


class ContextAdapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, **options, ssl_context=certified())


def by_requests():
    with requests.Session() as session:
        if HOW == "context":
            session.mount("https://", ContextAdapter())
        session.trust_env, session.verify, session.cert = False, CA_FILE, CLIENT_FILE
        found = [session.get(ADDRESS + path).content for path in ("/large", "/client")]
        wrong = outcome(lambda: session.get(f"https://{WRONG_NAME}:{PORTS[0]}/"))
    return [found[0] == LARGE, found[1].decode(), wrong]


def by_httpx():
    with httpx.Client(verify=certified()) as client:
        found = [client.get(ADDRESS + path).content for path in ("/large", "/client")]
    return [found[0] == LARGE, found[1].decode()]


async def on_asyncio():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=certified())) as session:

        async def get(path):
            async with session.get(ADDRESS + path) as answer:
                return await answer.read()

        found = await asyncio.gather(*(get(path) for path in ("/large", "/client", "/large")))
        try:
            await session.get(ADDRESS, server_hostname="other.example")
        except aiohttp.ClientError as exc:
            found.append(" ".join(names(exc)).encode())
    async with httpx.AsyncClient(verify=certified()) as client:
        found += [answer.content for answer in await asyncio.gather(*(client.get(f"{ADDRESS}/large") for _ in range(3)))]
    fetched = await AsyncHTTPClient().fetch(f"{ADDRESS}/large", ssl_options=certified())
    return [body == LARGE or body.decode() for body in [*found, fetched.body]]


by = {"standard": standard(), "urllib3": by_urllib3(), "requests": by_requests(), "httpx": by_httpx()}
report(**by, on_asyncio=asyncio.run(on_asyncio()), wrong_name=by["urllib3"][-1])
