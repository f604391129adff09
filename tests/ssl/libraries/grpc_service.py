"""A service for grpclib that needs no protobuf: its messages are bytes, and it answers with what it was given."""

import asyncio

import grpclib.const
import grpclib.encoding.base


class Bytes(grpclib.encoding.base.CodecBase):
    __content_subtype__ = "bytes"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


class Service:
    """Echo answers once, Each to each message, Never not at all."""

    def __init__(self):
        self.arrived, self.cancelled = asyncio.Event(), asyncio.Event()

    def __mapping__(self):
        async def echo(stream):
            await stream.send_message(await stream.recv_message())

        async def each(stream):
            async for message in stream:
                await stream.send_message(message)

        async def never(stream):
            self.arrived.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()

        one, many = grpclib.const.Cardinality.UNARY_UNARY, grpclib.const.Cardinality.STREAM_STREAM
        calls = {"Echo": (echo, one), "Each": (each, many), "Never": (never, one)}
        return {f"/test.Test/{name}": grpclib.const.Handler(*call, bytes, bytes) for name, call in calls.items()}
