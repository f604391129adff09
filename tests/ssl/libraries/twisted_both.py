"""Twisted has its TLS from pyOpenSSL, not from `ssl`: there is nothing to switch, and nothing may break."""

from common import CA_FILE, NAME, SERVER_FILE, report, switch
from twisted.internet import endpoints, protocol, reactor, ssl

switch()

got = []


class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class Client(protocol.Protocol):
    def connectionMade(self):
        self.transport.write(b"x" * 1000)

    def dataReceived(self, data):
        got.append(len(data))
        if sum(got) == 1000:
            reactor.stop()


with open(SERVER_FILE) as file:
    certificate = ssl.PrivateCertificate.loadPEM(file.read())
with open(CA_FILE) as file:
    authority = ssl.Certificate.loadPEM(file.read())
listening = reactor.listenSSL(0, protocol.Factory.forProtocol(Echo), certificate.options(), interface="127.0.0.1")
options = ssl.optionsForClientTLS(NAME, trustRoot=authority)
plain = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port)
endpoints.wrapClientTLS(options, plain).connect(protocol.Factory.forProtocol(Client))
reactor.callLater(30, reactor.stop)
reactor.run()
report(got=sum(got))
