"""A server whose connections are coroutines, in any asyncio program.

Run it:

    python certificates.py
    python awaiting_server.py 4433

and talk to it: `python awaiting_client.py localhost 4433 ca.pem`. Ctrl-C ends it.
"""

import asyncio
import sys
from pathlib import Path

import sslsock


async def serve(socket):
    try:
        async with socket:
            await socket.encrypted()
            async for line in socket:
                socket.write(b"you said " + line)
                await socket.bytes_written(1 << 16)  # wait for a client that does not read
    except sslsock.SocketFailure as exc:
        print("failed:", exc)


async def main(port):
    tasks = set()  # asyncio keeps no reference to a task that runs
    async with sslsock.SslServer() as server:
        server.configuration.set_identity(
            Path("server.pem").read_bytes(), Path("server.key").read_bytes()
        )
        if not server.listen(port, "127.0.0.1"):
            sys.exit(server.error_string)
        print(f"listening on 127.0.0.1:{server.port}")
        async for socket in server:
            socket.read_buffer_size = 1 << 16
            task = asyncio.create_task(serve(socket))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


try:
    asyncio.run(main(int(sys.argv[1])))
except KeyboardInterrupt:
    print("stopped")
