"""websockets, on asyncio and in threads: `connect(uri, ssl=context)`, `serve(…, ssl=context)`."""

import asyncio
import threading

from common import NAME, client_context, peer_client_context, peer_server_context, report, server_context, switch
import websockets.asyncio.client
import websockets.asyncio.server
import websockets.sync.client
import websockets.sync.server

switch()

MESSAGES = ["text", b"bytes", "x" * 200_000]


async def on_asyncio(for_server, for_client):
    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async with websockets.asyncio.server.serve(echo, "127.0.0.1", 0, ssl=for_server) as server:
        port = server.sockets[0].getsockname()[1]
        async with websockets.asyncio.client.connect(f"wss://{NAME}:{port}/", ssl=for_client) as client:
            lengths = []
            for message in MESSAGES:
                await client.send(message)
                lengths.append(len(await client.recv()))
    return lengths


def in_threads(for_server, for_client):
    if type(for_client).__module__ != "sslsock.ssl":
        # The library reads in one thread and writes in another. CPython's module lets both into libssl at once (gh-143756), and
        # a request is lost that is written while a session ticket is read (RFC 8446, 4.6.1).
        for_server.num_tickets = 0

    def echo(connection):
        for message in connection:
            connection.send(message)

    with websockets.sync.server.serve(echo, "127.0.0.1", 0, ssl=for_server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        lengths = []
        with websockets.sync.client.connect(f"wss://{NAME}:{port}/", ssl=for_client) as client:
            for message in MESSAGES:
                client.send(message)
                lengths.append(len(client.recv()))
        server.shutdown()
        thread.join()
    return lengths


results = []
for for_server, for_client in ((peer_server_context, client_context), (server_context, peer_client_context)):
    results.append(asyncio.run(on_asyncio(for_server(), for_client())))
    results.append(in_threads(for_server(), for_client()))
report(results=results)
