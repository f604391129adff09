"""Applications for servers that are started as programs. They answer with the modules that the connections of the process are
of."""

import gc
import ssl


def kinds():
    found = {type(one._sslobj).__module__ for one in gc.get_objects() if type(one).__name__ in ("SSLObject", "SSLSocket")
             and isinstance(one, (ssl.SSLObject, ssl.SSLSocket)) and getattr(one, "_sslobj", None) is not None}  # fmt: skip
    return " ".join(sorted(found)).encode()


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = kinds()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [kinds()]
