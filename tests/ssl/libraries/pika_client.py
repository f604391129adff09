"""pika: `SSLOptions(context)`."""

from common import NAME, client_context, report, scripted, switch
from peers import serve_amqp
import pika

switch()

with scripted(serve_amqp) as (port, served):
    options = pika.SSLOptions(client_context(), NAME)
    connection = pika.BlockingConnection(pika.ConnectionParameters(NAME, port, ssl_options=options))
    open_then = connection.is_open
    connection.close()
report(served=served[0], open=open_then)
