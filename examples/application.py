"""A web application (ASGI), served by uvicorn on sslsock's loop and TLS. No line of it
knows of sslsock.

Run it:

    pip install uvicorn
    python certificates.py
    python -m sslsock run --loop -m uvicorn application:application --port 8443 \\
        --ssl-certfile server.pem --ssl-keyfile server.key

and ask it: `curl --cacert ca.pem https://localhost:8443/`. Ctrl-C ends it.
"""


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain")],
        }
    )
    await send(
        {"type": "http.response.body", "body": f"hello from {scope['scheme']}\n".encode()}
    )
