"""PyMySQL: `connect(…, ssl=context)`, or `ssl_ca=` with `install()`."""

from common import CA_FILE, HOW, NAME, WRONG_NAME, client_context, outcome, report, scripted, switch
from peers import serve_mysql
import pymysql

switch()

given = {"ssl_ca": CA_FILE, "ssl_verify_identity": True} if HOW in ("install", "late") else {"ssl": client_context()}
with scripted(serve_mysql) as (port, served):
    connection = pymysql.connect(host=NAME, port=port, user="me", password="secret", **given)
    connection.ping(reconnect=False)
    cipher = connection._sock.version()
    connection.close()
    wrong = outcome(lambda: pymysql.connect(host=WRONG_NAME, port=port, user="me", **given))
report(served=served[0], cipher=cipher, wrong_name=wrong)
