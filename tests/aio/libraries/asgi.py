"""The ASGI application that the servers of this folder are given."""

import asyncio

from matrix import LARGE


class Application:
    """POST /echo comes back; GET /large has 4 MiB in pieces; /until-gone waits for the client to leave; a WebSocket echoes."""

    def __init__(self):
        self.events, self.left, self.arrived = [], asyncio.Event(), asyncio.Event()
        self.codes = []

    async def __call__(self, scope, receive, send):
        await getattr(self, scope["type"])(scope, receive, send)

    async def lifespan(self, scope, receive, send):
        while True:
            kind = (await receive())["type"]
            self.events.append(kind)
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return

    async def http(self, scope, receive, send):
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        peer = b"%d" % scope["client"][1]
        if scope["path"] == "/until-gone":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"wait", "more_body": True})
            self.arrived.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()
            return
        size = len(LARGE) if scope["path"] == "/large" else len(body)
        headers = [(b"content-length", b"%d" % size), (b"x-peer", peer), (b"x-scheme", scope["scheme"].encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/large":
            for start in range(0, len(LARGE), 65536):
                await send({"type": "http.response.body", "body": LARGE[start : start + 65536], "more_body": True})
            body = b""
        await send({"type": "http.response.body", "body": bytes(body)})

    async def websocket(self, scope, receive, send):
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            else:
                await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})
        self.codes.append(message["code"])
