"""anyio, both ends: plain and TLS (which it does itself, over plain transports), TCP and UNIX; many streams, much each way at
once, cancel scopes, peers that vanish, names."""

import contextlib
import tempfile

from common import NAME, WRONG_NAME, client_context, server_context, untrusting_context
from matrix import LARGE, digest, ended, look, matrix
import anyio
from anyio.streams.tls import TLSListener, TLSStream


async def echo(stream):
    with contextlib.suppress(anyio.BrokenResourceError, OSError):  # of a peer that vanishes
        async with stream:
            async for data in stream:
                await stream.send(data)


async def both_ways(stream, data):
    """Sends and receives at once."""
    got = bytearray()
    async with anyio.create_task_group() as group:
        group.start_soon(stream.send, data)
        while len(got) < len(data):
            got += await stream.receive()
    return digest(bytes(got)) == digest(data)


async def streams(open_stream):
    results = []

    async def talk(number):
        async with await open_stream() as stream:
            results.append(await both_ways(stream, LARGE[: number * 10_000 + 1]))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(talk, number)
    async with await open_stream() as stream:
        results.append(await both_ways(stream, LARGE))
        look()
        with anyio.move_on_after(0.01) as scope:
            await stream.receive()
        await stream.send(b"again")
        results += [scope.cancelled_caught, (await stream.receive()).decode()]
    stream = await open_stream()
    plain = stream.transport_stream if isinstance(stream, TLSStream) else stream
    if hasattr(plain, "_transport"):  # over UNIX sockets anyio calls the system itself
        plain._transport.abort()
        results.append(await ended(stream.receive()))
    else:
        await stream.aclose()
    return results


async def work():
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        async with anyio.create_task_group() as group:
            tcp = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
            unix = await anyio.create_unix_listener(f"{folder}/socket")
            plain = (await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)).listeners[0]
            tls = TLSListener(plain, server_context(), standard_compatible=True)
            for listener in (tcp, unix, tls):
                group.start_soon(listener.serve, echo)
            port = tcp.extra(anyio.abc.SocketAttribute.local_port)
            tls_port = plain.extra(anyio.abc.SocketAttribute.local_port)
            context = client_context()
            result["TCP"] = await streams(lambda: anyio.connect_tcp("127.0.0.1", port))
            result["UNIX"] = await streams(lambda: anyio.connect_unix(f"{folder}/socket"))
            result["TLS"] = await streams(lambda: anyio.connect_tcp(NAME, tls_port, ssl_context=context))
            result["names"] = [
                await ended(anyio.connect_tcp(WRONG_NAME, tls_port, ssl_context=context)),
                await ended(anyio.connect_tcp(NAME, tls_port, ssl_context=untrusting_context())),
            ]
            program = await anyio.run_process(["cat"], input=LARGE)
            result["process"] = digest(program.stdout) == digest(LARGE)
            result["thread"] = await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 0))
            group.cancel_scope.cancel()
        for listener in (tcp, unix, tls):
            await listener.aclose()
    return result


matrix(work)
