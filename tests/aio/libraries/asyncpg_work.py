"""asyncpg with PostgreSQL: TLS negotiated, by a context and by `sslmode`, and direct (to a relay that negotiates on its way to
PostgreSQL 15, which has none); what tests/ssl/libraries/real_postgresql.py does; queries that are cancelled, and a back end
that is ended."""

import asyncio
import contextlib
import sys

from common import CA_FILE, NAME, PORTS, client_context, server_context, untrusting_context
from matrix import ended, look, matrix
import asyncpg
from real_postgresql import main, options

SERVER_FILE = sys.argv[-1]
SSL_REQUEST = bytes.fromhex("0000000804d2162f")


async def carry(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def relay(reader, writer):
    far_reader, plain = await asyncio.open_connection(NAME, PORTS[0])
    plain.write(SSL_REQUEST)
    assert await far_reader.readexactly(1) == b"S"
    loop, protocol = asyncio.get_running_loop(), plain.transport.get_protocol()
    far_transport = await loop.start_tls(plain.transport, protocol, client_context(), server_hostname=NAME)
    far_writer = asyncio.StreamWriter(far_transport, protocol, far_reader, loop)
    carrying = [asyncio.ensure_future(carry(reader, far_writer)), asyncio.ensure_future(carry(far_reader, writer))]
    await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
    for one in (writer, far_writer):
        one.close()
    await asyncio.gather(*carrying)


async def direct():
    context = server_context(SERVER_FILE)
    context.set_alpn_protocols(["postgresql"])
    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    connection = await asyncpg.connect(**options(port=port), direct_tls=True)
    numbers = [await connection.fetchval("select $1::int", number) for number in range(100)]
    large = await connection.fetchval("select repeat('x', 5000000)")
    look()
    await connection.close()
    refused = await ended(asyncpg.connect(**{**options(port=port), "ssl": untrusting_context()}, direct_tls=True))
    server.close()
    await server.wait_closed()
    return [numbers == list(range(100)), len(large), refused]


async def modes():
    results = []
    address = f"postgresql://me:secret@{NAME}:{PORTS[0]}/postgres"
    for mode in ("prefer", "require", f"verify-full&sslrootcert={CA_FILE}"):
        connection = await asyncpg.connect(f"{address}?sslmode={mode}")
        results.append(await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()"))
        await connection.close()
    return [*results, await ended(asyncpg.connect(f"{address}?sslmode=disable"))]


async def cancelled():
    """A task that waits for an answer is cancelled; its pool goes on."""
    async with asyncpg.create_pool(**options(), min_size=2, max_size=2) as pool:
        waiting = asyncio.ensure_future(pool.fetchval("select pg_sleep(60)"))
        while not await pool.fetchval("select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'"):
            pass
        waiting.cancel()
        await asyncio.wait([waiting])
        numbers = await asyncio.gather(*(pool.fetchval("select $1::int", number) for number in range(100)))
        return [waiting.cancelled(), numbers == list(range(100))]


async def terminated():
    victim, other = await asyncpg.connect(**options()), await asyncpg.connect(**options())
    over = asyncio.Event()
    victim.add_termination_listener(lambda connection: over.set())
    await other.execute("select pg_terminate_backend($1)", victim.get_server_pid())
    await over.wait()
    told = await ended(victim.fetchval("select 1"))
    await other.close()
    return told


async def work():
    return {
        "negotiated": await main(),
        "direct": await direct(),
        "modes": await modes(),
        "cancelled": await cancelled(),
        "terminated": await terminated(),
    }


matrix(work, installs=True)
