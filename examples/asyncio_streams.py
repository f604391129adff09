"""An asyncio program on sslsock's loop: a TLS server and a client with asyncio's
streams, in one process.

It is an ordinary asyncio program but for two lines: the import of `ssl`, and
`sslsock.aio.run` in the place of `asyncio.run`.

Run it:

    python certificates.py
    python asyncio_streams.py
"""

import asyncio

import sslsock.aio
from sslsock import ssl  # in the place of `import ssl`


async def serve(reader, writer):
    async for line in reader:
        writer.write(b"you said " + line)
        await writer.drain()
    writer.close()


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("server.pem", "server.key")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    trust = ssl.create_default_context(cafile="ca.pem")
    reader, writer = await asyncio.open_connection("localhost", port, ssl=trust)
    print(writer.get_extra_info("ssl_object").version(), writer.get_extra_info("cipher")[0])
    writer.write(b"hello\n")
    print((await reader.readline()).decode(), end="")
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


sslsock.aio.run(main())  # in the place of asyncio.run(main())
