"""grpclib, both ends, over HTTP/2 that ALPN has chosen: many calls, large messages, streams, a deadline, a call that is
cancelled, a client that vanishes, names, a server that ends in order."""

import asyncio

from common import NAME, WRONG_NAME, client_context, server_context, untrusting_context
from grpc_service import Bytes, Service
from matrix import LARGE, ended, look, matrix
import grpclib.client
import grpclib.server


def http2(context):
    context.set_alpn_protocols(["h2"])
    return context


async def work():
    service = Service()
    server = grpclib.server.Server([service], codec=Bytes())
    await server.start("127.0.0.1", 0, ssl=http2(server_context()))
    port = server._server.sockets[0].getsockname()[1]

    def open_channel(host=NAME, context=None):
        return grpclib.client.Channel(host, port, ssl=http2(context or client_context()), codec=Bytes())

    channel = open_channel()

    def call(name, kind=grpclib.client.UnaryUnaryMethod, channel=channel):
        return kind(channel, f"/test.Test/{name}", bytes, bytes)

    many = await asyncio.gather(*(call("Echo")(b"x" * size) for size in range(200)))
    result = {"many": [len(one) for one in many] == [*range(200)]}
    result["large"] = await call("Echo")(LARGE) == LARGE
    look()
    protocol = await channel.__connect__()
    result["alpn"] = protocol.connection._transport.get_extra_info("ssl_object").selected_alpn_protocol()
    async with call("Each", grpclib.client.StreamStreamMethod).open() as stream:
        got = []
        for number in range(200):
            await stream.send_message(b"%d" % number, end=number == 199)
            got.append(int(await stream.recv_message()))
        result["stream"] = [got == [*range(200)], await stream.recv_message()]
    for number in range(2):  # the client cancels; the client vanishes
        service.arrived.clear()
        service.cancelled.clear()
        other = open_channel()
        calling = asyncio.ensure_future(call("Never", channel=other)(b""))
        await service.arrived.wait()
        if number:
            (await other.__connect__()).connection._transport.abort()
            result["vanishes"] = (await ended(calling))[0]
        else:
            calling.cancel()
            await asyncio.wait([calling])
            result["cancelled"] = calling.cancelled()
        await service.cancelled.wait()
        other.close()
    told = (await ended(call("Never")(b"", timeout=0.05)))[0]
    result["deadline"] = told in ("TimeoutError", "GRPCError")  # whose clock is the first to say so
    for one in (open_channel(WRONG_NAME), open_channel(context=untrusting_context())):
        result.setdefault("names", []).append(await ended(call("Echo", channel=one)(b"")))
        one.close()
    server.close()
    channel.close()
    await server.wait_closed()  # which waits for the connections as well, from CPython 3.12 on
    result["end"] = (await ended(call("Echo", channel=open_channel())(b"")))[0]
    return result


matrix(work)
