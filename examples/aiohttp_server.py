"""An aiohttp server on sslsock's loop and TLS: `loop=` and the context are the two
places that say so.

Run it:

    pip install aiohttp
    python certificates.py
    python aiohttp_server.py 8443

and ask it: `curl --cacert ca.pem https://localhost:8443/`. Ctrl-C ends it.
"""

import socket
import sys

from aiohttp import web

import sslsock
from sslsock import ssl


async def hello(request):
    return web.Response(text=f"hello from {request.scheme}\n")


application = web.Application()
application.router.add_get("/", hello)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
web.run_app(application, sock=listener, ssl_context=context, loop=sslsock.new_event_loop())
