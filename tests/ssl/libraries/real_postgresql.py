"""asyncpg with PostgreSQL: passwords, a client's certificate, COPY, LISTEN, a pool, a query that is cancelled (over a
connection of its own), on asyncio and on uvloop."""

import asyncio
import io

from common import CLIENT_FILE, NAME, PORTS, WRONG_NAME, client_context, names, report, switch
import asyncpg
import uvloop

switch()


def options(certified=False, **more):
    context = client_context()
    if certified:
        context.load_cert_chain(CLIENT_FILE)
    user = {"user": "certified"} if certified else {"user": "me", "password": "secret"}
    return {"host": NAME, "port": PORTS[0], "database": "postgres", "ssl": context, **user, **more}


async def ended(awaitable):
    try:
        return await awaitable
    except Exception as exc:
        return names(exc)


async def queries():
    async with asyncpg.create_pool(**options(), min_size=1, max_size=4) as pool:
        numbers = await asyncio.gather(*(pool.fetchval("select $1::int", number) for number in range(200)))
        async with pool.acquire() as connection:
            used = await connection.fetchrow("select ssl, version from pg_stat_ssl where pid = pg_backend_pid()")
            large = await connection.fetchval("select repeat('x', 5000000)")
            await connection.execute("create temporary table t (a int, b text)")
            rows = [(number, "b" * 100) for number in range(20_000)]
            copied = await connection.copy_records_to_table("t", records=rows)
            out = io.BytesIO()
            await connection.copy_from_query("select * from t order by a", output=out)
            async with connection.transaction():
                counted = [row["a"] async for row in connection.cursor("select a from t order by a")]
            cancelled = await ended(connection.fetchval("select pg_sleep(60)", timeout=0.1))
            after = await connection.fetchval("select 1")
    return [numbers == list(range(200)), list(used), len(large), copied, len(out.getvalue()), len(counted), cancelled, after]


async def notified():
    listener, other = await asyncpg.connect(**options()), await asyncpg.connect(**options(certified=True))
    got = asyncio.get_running_loop().create_future()
    await listener.add_listener("channel", lambda *arguments: got.set_result(arguments[-1]))
    await other.execute("notify channel, 'hello'")
    heard = await asyncio.wait_for(got, 30)
    who = await other.fetchval("select current_user")
    await listener.close()
    await other.close()
    return heard, who


async def main():
    wrong_name = await ended(asyncpg.connect(**options(host=WRONG_NAME)))
    not_certified = await ended(asyncpg.connect(**options(user="certified")))
    by_mode = await asyncpg.connect(**{**options(), "ssl": "require"})
    await by_mode.close()
    return {"queries": await queries(), "notified": await notified(), "wrong_name": wrong_name, "not_certified": not_certified}


if __name__ == "__main__":
    results = []
    for loop in (asyncio, uvloop):
        event_loop = loop.new_event_loop()
        results.append(event_loop.run_until_complete(main()))
        event_loop.close()
    report(asyncio=results[0], uvloop=results[1], wrong_name=results[0]["wrong_name"])
