"""aioimaplib with Dovecot: many messages and large ones, IDLE, several connections, names."""

import asyncio
import itertools

from common import NAME, PORTS, WRONG_NAME, client_context, untrusting_context
from matrix import digest, ended, look, matrix
from aioimaplib import IMAP4_SSL

MESSAGE = b"Subject: hello\r\n\r\n" + b"line of a long text\r\n" * 100_000  # 2.1 MB
users = itertools.count()


async def login(user, host=NAME, context=None):
    client = IMAP4_SSL(host=host, port=PORTS[1], ssl_context=context or client_context(), timeout=60)
    await client.wait_hello_from_server()
    assert (await client.login(user, "secret")).result == "OK"
    await client.select("INBOX")
    return client


async def messages(client):
    results = [(await client.append(MESSAGE)).result]
    for number in range(50):
        await client.append(b"Subject: %d\r\n\r\ntext\r\n" % number)
    await client.select("INBOX")
    found = await client.search("ALL")
    fetched = await client.fetch("1", "(RFC822)")
    whole = await client.fetch("1:51", "(RFC822.SIZE)")
    look()
    return [*results, found.lines[0].decode(), digest(bytes(fetched.lines[1])) == digest(MESSAGE), len(whole.lines)]


async def idles(client, user):
    other = await login(user)
    idle = await client.idle_start(timeout=60)
    await other.append(b"Subject: new\r\n\r\ntext\r\n")
    pushed = await client.wait_server_push()
    client.idle_done()
    await asyncio.wait_for(idle, 60)
    await other.logout()
    return pushed[0].decode()


async def work():
    user = f"user{next(users)}"
    client = await login(user)
    result = {"messages": await messages(client), "idle": await idles(client, user)}
    several = await asyncio.gather(*(login(user) for _ in range(5)))
    sizes = await asyncio.gather(*(one.fetch("1", "(RFC822)") for one in several))
    result["several"] = {len(one.lines[1]) for one in sizes} == {len(MESSAGE)}
    for one in (client, *several):
        await one.logout()
    result["names"] = [
        await ended(login(user, WRONG_NAME)),
        await ended(login(user, context=untrusting_context())),
    ]
    return result


matrix(work)
