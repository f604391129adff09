"""grpclib: `Channel(ssl=context)`, `Server.start(ssl=context)`."""

import asyncio

from common import NAME, client_context, peer_client_context, peer_server_context, report, server_context, switch
from grpc_service import Bytes, Service
import grpclib.client
import grpclib.server

switch()


async def talk(for_server, for_client):
    for context in (for_server, for_client):
        context.set_alpn_protocols(["h2"])
    server = grpclib.server.Server([Service()], codec=Bytes())
    await server.start("127.0.0.1", 0, ssl=for_server)
    port = server._server.sockets[0].getsockname()[1]
    channel = grpclib.client.Channel(NAME, port, ssl=for_client, codec=Bytes())
    method = grpclib.client.UnaryUnaryMethod(channel, "/test.Test/Echo", bytes, bytes)
    answers = [len(await method(b"x" * size)) for size in (1, 1000, 30_000)]
    channel.close()
    server.close()
    await server.wait_closed()
    return answers


results = [
    asyncio.run(talk(peer_server_context(), client_context())),
    asyncio.run(talk(server_context(), peer_client_context())),
]
report(results=results)
