"""aiosmtplib with Postfix: STARTTLS by itself and by hand, TLS from the start, large messages, many connections, a client's
certificate, names."""

import asyncio

from common import CLIENT_FILE, NAME, PORTS, WRONG_NAME, client_context, untrusting_context
from matrix import ended, look, matrix
import aiosmtplib

STARTTLS, TLS, STRICT = PORTS[:3]
HEAD = b"From: me@example.org\r\nTo: you@example.org\r\nSubject: hello\r\n\r\n"
LARGE = HEAD + b"x" * 70 + b"\r\n" + b"line of a long text\r\n" * 200_000  # 4.2 MB


async def send(client, message):
    errors, answer = await client.sendmail("me@example.org", ["you@example.org"], message)
    return [errors, answer.split()[1:4]]


async def many():
    async def talk(number):
        async with aiosmtplib.SMTP(hostname=NAME, port=STARTTLS, start_tls=True, tls_context=client_context()) as client:
            return [await send(client, HEAD + b"%d" % step) for step in range(5)]

    results = await asyncio.gather(*(talk(number) for number in range(8)))
    return len(results), all(one == results[0] for one in results), results[0][0][0]


async def by_hand():
    client = aiosmtplib.SMTP(hostname=NAME, port=STARTTLS, start_tls=False)
    await client.connect()
    before = client.supports_extension("starttls")
    answer = await client.starttls(tls_context=client_context())
    await client.ehlo()
    look()
    sent, version = await send(client, LARGE), client.get_transport_info("ssl_object").version()
    await client.quit()
    return [before, answer.code, version, sent[0]]


async def from_the_start():
    async with aiosmtplib.SMTP(hostname=NAME, port=TLS, use_tls=True, tls_context=client_context()) as client:
        look()
        return (await send(client, LARGE))[0]


async def certified(has):
    context = client_context()
    if has:
        context.load_cert_chain(CLIENT_FILE)
    async with aiosmtplib.SMTP(hostname=NAME, port=STRICT, start_tls=True, tls_context=context) as client:
        return (await send(client, HEAD))[0]


async def refused(port, context, host=NAME):
    client = aiosmtplib.SMTP(hostname=host, port=port, use_tls=port == TLS, start_tls=port != TLS, tls_context=context)
    return await ended(client.connect())


async def work():
    return {
        "many": await many(),
        "by hand": await by_hand(),
        "from the start": await from_the_start(),
        "certified": [await certified(True), await ended(certified(False))],
        "names": [
            [await refused(port, client_context(), WRONG_NAME), await refused(port, untrusting_context())]
            for port in (STARTTLS, TLS)
        ],
    }


matrix(work)
