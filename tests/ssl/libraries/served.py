"""Applications for servers that are started as programs. They answer with the modules that the connections of the process are
of."""

import asyncio
import gc
import ssl


def kinds():
    found = {type(one._sslobj).__module__ for one in gc.get_objects() if type(one).__name__ in ("SSLObject", "SSLSocket")
             and isinstance(one, (ssl.SSLObject, ssl.SSLSocket)) and getattr(one, "_sslobj", None) is not None}  # fmt: skip
    return " ".join(sorted(found)).encode()


def loop():
    return type(asyncio.get_running_loop()).__module__.encode()


LARGE = b"0123456789abcdef" * 300_000


def answer(path, sent):
    return {"/large": LARGE, "/count": str(sent).encode()}.get(path) or kinds()


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    sent, more = 0, True
    while more:
        message = await receive()
        sent, more = sent + len(message.get("body", b"")), message.get("more_body", False)
    body = loop() if scope["path"] == "/loop" else answer(scope["path"], sent)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ, start_response):
    body = answer(environ["PATH_INFO"], len(environ["wsgi.input"].read()))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
