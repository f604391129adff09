"""uvicorn (`ssl_context_factory=`) and hypercorn (its own context: `install()`), as programs hold them."""

import asyncio
import socket
import threading

from common import HOW, SERVER_FILE, peer_request, report, server_context, switch
import hypercorn.asyncio
import hypercorn.config
import uvicorn

switch()


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = f"{scope['scheme']} {scope['path']}".encode() + b"!" * 200_000
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def with_uvicorn():
    listener = socket.create_server(("127.0.0.1", 0))
    options = {"ssl_context_factory": lambda config, default: server_context()} if HOW == "context" else {}
    config = uvicorn.Config(application, log_level="error", ssl_certfile=SERVER_FILE, ssl_keyfile=SERVER_FILE, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    answers = [peer_request(listener.getsockname()[1], f"/{number}") for number in range(2)]
    server.should_exit = True
    thread.join()
    return answers


def with_hypercorn():
    config = hypercorn.config.Config()
    listener = socket.create_server(("127.0.0.1", 0))
    config.bind = [f"fd://{listener.fileno()}"]
    config.certfile = config.keyfile = SERVER_FILE
    config.loglevel = "ERROR"
    if HOW == "context":
        config.create_ssl_context = server_context

    async def main():
        over = asyncio.Event()
        serving = asyncio.ensure_future(hypercorn.asyncio.serve(application, config, shutdown_trigger=over.wait))
        loop = asyncio.get_running_loop()
        answers = [await loop.run_in_executor(None, peer_request, port, f"/{number}") for number in range(2)]
        over.set()
        await serving
        return answers

    port = listener.getsockname()[1]
    return asyncio.run(main())


report(uvicorn=with_uvicorn(), hypercorn=with_hypercorn())
