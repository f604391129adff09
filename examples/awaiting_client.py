"""A client that awaits its socket, in any asyncio program.

Run it, with `python server.py 4433` (or awaiting_server.py) in another terminal:

    python awaiting_client.py localhost 4433 ca.pem
"""

import asyncio
import sys

import sslsock


async def main(host, port, authorities):
    # At the end of the block it is closed, and all is sent
    async with sslsock.SslSocket() as socket:
        socket.configuration.add_ca_file(authorities)
        socket.connect_encrypted(host, port)
        await socket.encrypted()
        print("encrypted:", socket.session_protocol)
        for word in (b"hello", b"goodbye"):
            socket.write(word + b"\n")
            print("answer:", (await socket.read_until(b"\n")).decode(), end="")


try:
    asyncio.run(asyncio.wait_for(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]), 30))
except (sslsock.SocketFailure, asyncio.TimeoutError) as exc:
    sys.exit(f"failed: {exc or 'no answer in 30 seconds'}")
