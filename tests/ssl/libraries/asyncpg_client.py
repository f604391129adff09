"""asyncpg: `connect(…, ssl=context)`."""

import asyncio

from common import NAME, client_context, report, scripted, switch
from peers import serve_postgres
import asyncpg

switch()


async def main(port):
    connection = await asyncpg.connect(host=NAME, port=port, user="me", database="d", ssl=client_context())
    await connection.execute("SELECT")
    await connection.close()


with scripted(serve_postgres) as (port, served):
    asyncio.run(main(port))
report(served=served)
