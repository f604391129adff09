"""A server for the example of a page of docs/libraries: `python page_peer.py page CA_FILE SERVER_FILE PEER`. It prints
its port, and ends with its standard input. TLS is the interpreter's.
"""

import asyncio
import sys
import threading

from common import https_server, peer_server_context, scripted
import peers

GREETINGS = {
    "smtp": (b"220 smtp\r\n", peers.SMTP, "STARTTLS"),
    "imap": (b"* OK imap\r\n", peers.IMAP, "STARTTLS"),
    "imaps": (b"* OK imap\r\n", peers.IMAP, None, True),
}


def serve_grpc():
    from grpc_service import Bytes, Service
    import grpclib.server

    async def main():
        context = peer_server_context()
        context.set_alpn_protocols(["h2"])
        server = grpclib.server.Server([Service()], codec=Bytes())
        await server.start("127.0.0.1", 0, ssl=context)
        print(server._server.sockets[0].getsockname()[1], flush=True)
        await server.wait_closed()

    threading.Thread(target=asyncio.run, args=[main()], daemon=True).start()


name = sys.argv[4]
if name == "grpc":
    serve_grpc()
    sys.stdin.read()
elif name == "https":
    with https_server() as port:
        print(port, flush=True)
        sys.stdin.read()
else:
    with scripted(peers.dialogue(*GREETINGS[name]) if name in GREETINGS else getattr(peers, f"serve_{name}")) as (port, _):
        print(port, flush=True)
        sys.stdin.read()
