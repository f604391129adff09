"""anyio on asyncio and trio: `connect_tcp(…, ssl_context=context)`, `TLSListener`."""

from common import NAME, client_context, peer_client_context, peer_server_context, report, server_context, switch
import anyio
from anyio.streams.tls import TLSListener

switch()


async def talk(for_server, for_client):
    async def echo(stream):
        async with stream:
            async for data in stream:
                await stream.send(data)

    async with anyio.create_task_group() as group:
        plain = (await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)).listeners[0]
        port = plain.extra(anyio.abc.SocketAttribute.local_port)
        listener = TLSListener(plain, for_server)
        group.start_soon(listener.serve, echo)
        async with await anyio.connect_tcp("127.0.0.1", port, ssl_context=for_client, tls_hostname=NAME) as stream:
            got = b""
            await stream.send(b"x" * 50_000)
            while len(got) < 50_000:
                got += await stream.receive()
        group.cancel_scope.cancel()
    return len(got)


results = []
for backend in ("asyncio", "trio"):
    results.append(anyio.run(talk, peer_server_context(), client_context(), backend=backend))
    results.append(anyio.run(talk, server_context(), peer_client_context(), backend=backend))
report(results=results)
