"""asyncpg: `connect(…, ssl=context)`."""

import asyncio
import struct

from common import NAME, client_context, read_exactly, report, scripted, switch
import asyncpg

switch()


def message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


def serve(plain, start_tls):
    """As far as ReadyForQuery (PostgreSQL's protocol, 55.2), with SSLRequest, and a query."""
    request = read_exactly(plain, 8)
    plain.sendall(b"S")
    stream = start_tls()
    start = read_exactly(stream, struct.unpack("!I", read_exactly(stream, 4))[0] - 4)
    heard = [request.hex(), b"user\0me\0" in start]
    ready = message(b"Z", b"I")
    version = message(b"S", b"server_version\00016.0\0")
    stream.sendall(message(b"R", struct.pack("!I", 0)) + version + message(b"K", bytes(8)) + ready)
    while (kind := read_exactly(stream, 1)) != b"X":
        body = read_exactly(stream, struct.unpack("!I", read_exactly(stream, 4))[0] - 4)
        heard.append([kind.decode(), body.decode()])
        stream.sendall(message(b"C", b"SELECT 0\0") + ready)
    return heard


async def main(port):
    connection = await asyncpg.connect(host=NAME, port=port, user="me", database="d", ssl=client_context())
    await connection.execute("SELECT")
    await connection.close()


with scripted(serve) as (port, served):
    asyncio.run(main(port))
report(served=served)
