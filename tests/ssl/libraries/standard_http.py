"""http.client, urllib.request, xmlrpc.client: `context=context`, or nothing with `install()`; http.server."""

import http.client
import os
import urllib.request
import xmlrpc.client

from common import CA_FILE, HOW, NAME, WRONG_NAME, client_context, https_server, outcome, peer_request, report
from common import server_context, switch

switch()
os.environ["SSL_CERT_FILE"] = CA_FILE  # what default contexts trust

with https_server() as port:
    given = {} if HOW in ("install", "late") else {"context": client_context()}
    connection = http.client.HTTPSConnection(NAME, port, **given)
    results = []
    for _ in range(2):
        connection.request("GET", "/client")
        results.append(connection.getresponse().read().decode())
    connection.close()
    with urllib.request.urlopen(f"https://{NAME}:{port}/urllib", **given) as answer:
        results.append(answer.read().decode())
    wrong = outcome(lambda: urllib.request.urlopen(f"https://{WRONG_NAME}:{port}/", **given))

    with xmlrpc.client.ServerProxy(f"https://{NAME}:{port}/", **given) as proxy:
        rpc = outcome(lambda: proxy.echo(1))  # the peer sends the call back: no response, but all of it has come and gone
with https_server(server_context()) as port:
    served = peer_request(port, "/served")
report(results=results, wrong_name=wrong, rpc=rpc, served=served)
