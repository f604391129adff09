"""asyncio and uvloop: `open_connection(ssl=context)`, `start_server(ssl=context)`."""

import asyncio

from common import NAME, client_context, peer_client_context, peer_server_context, report, server_context, switch
import uvloop

switch()


async def talk(for_server, for_client):
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=for_server)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=for_client, server_hostname=NAME)
    results = []
    for size in (1, 1000, 300_000):
        writer.write(b"x" * size)
        results.append(len(await reader.readexactly(size)))
    results.append(writer.get_extra_info("ssl_object").version())
    writer.close()
    try:
        await asyncio.open_connection("127.0.0.1", port, ssl=for_client, server_hostname="other.example")
    except OSError as exc:
        results.append([type(exc).__name__, exc.reason])
    server.close()
    return results


async def both():
    return [await talk(peer_server_context(), client_context()), await talk(server_context(), peer_client_context())]


loops = [asyncio.new_event_loop(), uvloop.new_event_loop()]
results = [loop.run_until_complete(both()) for loop in loops]
report(results=results)
