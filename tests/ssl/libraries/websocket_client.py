"""websocket-client: `sslopt={"context": context}`, or nothing with `install()`."""

from common import CA_FILE, HOW, NAME, WRONG_NAME, client_context, outcome, report, scripted, switch
from peers import serve_websocket
import websocket

switch()

options = {"ca_certs": CA_FILE} if HOW in ("install", "late") else {"context": client_context()}
with scripted(serve_websocket) as (port, served):
    connection = websocket.create_connection(f"wss://{NAME}:{port}/", sslopt=options)
    connection.send("hello there")
    answer = connection.recv()
    connection.sock.close()
    wrong = outcome(lambda: websocket.create_connection(f"wss://{WRONG_NAME}:{port}/", sslopt=options))
report(answer=answer, served=served[0], wrong_name=wrong)
