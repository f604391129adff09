"""trio: `SSLStream(…, ssl_context=context)`, `open_ssl_over_tcp_stream`, `open_ssl_over_tcp_listeners`."""

from common import NAME, client_context, peer_client_context, peer_server_context, report, server_context, switch
import trio

switch()


async def talk(for_server, for_client):
    async def echo(stream):
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, for_server, host="127.0.0.1")
        port = listeners[0].transport_listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        stream = await trio.open_ssl_over_tcp_stream(NAME, port, ssl_context=for_client)
        got = bytearray()
        await stream.send_all(b"x" * 50_000)
        while len(got) < 50_000:
            got += await stream.receive_some()
        await stream.aclose()
        nursery.cancel_scope.cancel()
    return len(got)


results = [
    trio.run(talk, peer_server_context(), client_context()),
    trio.run(talk, server_context(), peer_client_context()),
]
report(results=results)
