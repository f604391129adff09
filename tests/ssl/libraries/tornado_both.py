"""tornado: `ssl_options=context` for clients and servers, or nothing with `install()`."""

import asyncio

from common import CA_FILE, NAME, client_context, https_server, peer_request, report, server_context, switch
import tornado.httpclient
import tornado.httpserver
import tornado.netutil
import tornado.web

switch()


class Hello(tornado.web.RequestHandler):
    def get(self, name):
        self.write(f"hello {name}" + "!" * 100_000)


async def main(port):
    client = tornado.httpclient.AsyncHTTPClient()
    results = []
    for number in range(2):
        answer = await client.fetch(f"https://{NAME}:{port}/{number}", ssl_options=client_context())
        results.append(answer.body.decode())
    answer = await client.fetch(f"https://{NAME}:{port}/", method="POST", body="x" * 300_000, ca_certs=CA_FILE)
    results.append(len(answer.body))
    try:
        await client.fetch(f"https://{NAME}:{port}/")  # with the context that was made when tornado was imported
    except Exception as exc:
        results.append(type(exc).__name__)
    server = tornado.httpserver.HTTPServer(tornado.web.Application([("/(.*)", Hello)]), ssl_options=server_context())
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    served = await asyncio.get_running_loop().run_in_executor(None, peer_request, port, "/served")
    server.stop()
    return results, served


with https_server() as port:
    results, served = asyncio.run(main(port))
report(results=results, served=served)
