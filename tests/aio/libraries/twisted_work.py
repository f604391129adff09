"""Twisted's asyncioreactor: its own TLS, which is pyOpenSSL's, over the readers and writers of the loop; timers, threads, and
asyncio's streams beside it, awaited in a Deferred. The transports of asyncio are ours."""

import asyncio
import sys

from common import CA_FILE, NAME, SERVER_FILE, client_context, server_context
from matrix import LARGE, digest, look, matrix
from twisted.internet import asyncioreactor, defer, endpoints, protocol, ssl, task, threads


class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class Client(protocol.Protocol):
    def __init__(self, data):
        self.data, self.got, self.done = data, bytearray(), defer.Deferred()

    def connectionMade(self):
        self.transport.write(self.data)

    def dataReceived(self, data):
        self.got += data
        if len(self.got) == len(self.data):
            self.transport.loseConnection()

    def connectionLost(self, reason):
        self.done.callback([digest(bytes(self.got)) == digest(self.data), reason.type.__name__])


async def streams():
    async def echo(reader, writer):
        writer.write(await reader.readexactly(len(LARGE)))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context())
    reader, writer = await asyncio.open_connection(NAME, server.sockets[0].getsockname()[1], ssl=client_context())
    writer.write(LARGE)
    same = digest(await reader.readexactly(len(LARGE))) == digest(LARGE)
    look()
    writer.close()
    server.close()
    return same


async def work():
    loop = asyncio.get_running_loop()
    sys.modules.pop("twisted.internet.reactor", None)  # of the loop before
    asyncioreactor.install(loop)
    from twisted.internet import reactor

    reactor.startRunning(installSignalHandlers=False)
    with open(SERVER_FILE) as file:
        certificate = ssl.PrivateCertificate.loadPEM(file.read())
    with open(CA_FILE) as file:
        authority = ssl.Certificate.loadPEM(file.read())
    listening = reactor.listenSSL(0, protocol.Factory.forProtocol(Echo), certificate.options(), interface="127.0.0.1")

    async def talk(size, name=NAME, trust=authority):
        plain = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port)
        endpoint = endpoints.wrapClientTLS(ssl.optionsForClientTLS(name, trustRoot=trust), plain)
        client = await endpoints.connectProtocol(endpoint, Client(LARGE[:size]))
        return await client.done

    def run(coroutine):
        return defer.ensureDeferred(coroutine).asFuture(loop)

    sizes = [1, 16_384, 100_000, len(LARGE)]
    result = {"many": await asyncio.gather(*(run(talk(size)) for size in sizes * 5))}
    result["names"] = [await run(talk(1, "other.example")), await run(talk(1, trust=certificate))]
    result["streams"] = await defer.Deferred.fromFuture(asyncio.ensure_future(streams())).asFuture(loop)
    result["later"] = await task.deferLater(reactor, 0.001, lambda: "later").asFuture(loop)
    result["thread"] = await threads.deferToThreadPool(reactor, reactor.getThreadPool(), lambda: 42).asFuture(loop)
    await defer.maybeDeferred(listening.stopListening).asFuture(loop)
    reactor._stopThreadPool()  # its shutdown would end the loop
    reactor.disconnectAll()
    for reader in (*reactor.removeAll(), *reactor._internalReaders):
        reader.connectionLost(None)
    return result


matrix(work)
