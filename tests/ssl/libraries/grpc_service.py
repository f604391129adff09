"""A service for grpclib that needs no protobuf: its messages are bytes, and it answers with what it was given."""

import grpclib.const
import grpclib.encoding.base


class Bytes(grpclib.encoding.base.CodecBase):
    __content_subtype__ = "bytes"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


class Service:
    def __mapping__(self):
        async def echo(stream):
            await stream.send_message(await stream.recv_message())

        return {"/test.Test/Echo": grpclib.const.Handler(echo, grpclib.const.Cardinality.UNARY_UNARY, bytes, bytes)}
