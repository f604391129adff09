"""uvicorn behind a proxy that sends PROXY headers: the application sees the client's
address, and "https" where the client's TLS ends at the proxy.

Only the proxies in TRUSTED may connect: anybody else could claim to be anybody.

Run it:

    pip install uvicorn
    python proxied_uvicorn.py 8080

and a proxy before it:

    python -m sslsock proxy --listen tls://127.0.0.1:8443 --ca-out ca.pem \\
        --to tcp://127.0.0.1:8080 --proxy-protocol-out v2

and ask it: `curl --cacert ca.pem https://localhost:8443/`. Ctrl-C ends it.
"""

import asyncio
import sys
from ipaddress import ip_address, ip_network

import uvicorn
from application import application
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from sslsock.proxy_protocol import ProxyProtocolError, parse

TRUSTED = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
SECONDS = 5  # for the header to come


class ToldTransport:
    """A transport whose ends are those that the header names."""

    def __init__(self, transport, header):
        self._transport = transport
        self._told = {"socket": None, "peername": header.source}
        self._told["sockname"] = header.destination
        if header.tls() is not None:
            self._told["sslcontext"] = True  # what uvicorn knows "https" by

    def get_extra_info(self, name, default=None):
        if name in self._told:
            return self._told[name]
        return self._transport.get_extra_info(name, default)

    def __getattr__(self, name):
        return getattr(self._transport, name)


class Proxied(AutoHTTPProtocol):
    """uvicorn's protocol for HTTP, which begins when the header is there."""

    _begun = False

    def connection_made(self, transport):
        self._waiting, self._data = transport, b""
        peer = ip_address(transport.get_extra_info("peername")[0])
        if not any(peer in network for network in TRUSTED):
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SECONDS, transport.abort)

    def data_received(self, data):
        if self._begun:
            super().data_received(data)
            return
        self._data += data
        try:
            header = parse(self._data)
            if header is None:
                return
            transport = self._waiting
            if header.source is not None:
                transport = ToldTransport(transport, header)
        except ProxyProtocolError:
            self._waiting.abort()
            return
        self._begun = True
        self._timer.cancel()
        super().connection_made(transport)
        if self._data[header.size :]:
            super().data_received(self._data[header.size :])

    def connection_lost(self, exc):
        if self._begun:
            super().connection_lost(exc)
        elif hasattr(self, "_timer"):
            self._timer.cancel()

    def eof_received(self):
        return super().eof_received() if self._begun else None


if __name__ == "__main__":
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http=Proxied,
        proxy_headers=False,  # X-Forwarded-For is the clients' to forge
    )
