"""PyMySQL with MariaDB: passwords, a client's certificate, results of many records, a connection that the server ends."""

from common import CA_FILE, CLIENT_FILE, HOW, NAME, PORTS, WRONG_NAME, client_context, outcome, report, switch
import pymysql
import pymysql.cursors

switch()


def connect(host=NAME, certified=False, **more):
    if HOW in ("install", "late"):
        given = {"ssl_ca": CA_FILE, "ssl_verify_identity": True}
        if certified:
            given.update(ssl_cert=CLIENT_FILE, ssl_key=CLIENT_FILE)
    else:
        given = {"ssl": client_context()}
        if certified:
            given["ssl"].load_cert_chain(CLIENT_FILE)
    user = {"user": "certified"} if certified else {"user": "me", "password": "secret"}
    return pymysql.connect(**{"host": host, "port": PORTS[0], **user, **given, **more})


def queries():
    with connect(database="mine") as connection, connection.cursor() as cursor:
        cursor.execute("show status like 'Ssl_version'")
        version = cursor.fetchone()
        cursor.execute("create table t (a int, b text)")
        rows = cursor.executemany("insert into t values (%s, %s)", [(number, "b" * 200) for number in range(10_000)])
        connection.commit()
        cursor.execute("select * from t order by a")
        read = cursor.fetchall()
        cursor.execute("select repeat('x', 5000000)")
        large = len(cursor.fetchone()[0])
        with connection.cursor(pymysql.cursors.SSCursor) as unbuffered:
            unbuffered.execute("select a from t")
            counted = sum(1 for _ in unbuffered)
        cursor.execute("drop table t")
    return version, rows, len(read), large, counted


def ended_by_the_server():
    with connect() as victim, connect() as other, other.cursor() as cursor:
        cursor.execute(f"kill {victim.thread_id()}")
        ended = outcome(lambda: victim.query("select 1"))
        victim.ping(reconnect=True)
        return ended[:1], victim.open


with connect(certified=True) as certified, certified.cursor() as cursor:
    cursor.execute("select current_user()")
    who = cursor.fetchone()
report(
    queries=queries(), who=who, ended=ended_by_the_server(),
    wrong_name=outcome(lambda: connect(WRONG_NAME)),
    not_certified=outcome(lambda: connect(user="certified", password=""))[:1],
)  # fmt: skip
