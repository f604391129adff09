"""Ticket keys that servers share: a session that one has begun another resumes, unless it asks clients for certificates."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as standard
import threading
from typing import Any, Optional

import pytest

from peers import DEADLINE, Certificates
from sslsock import TicketKeys, aio, ssl
from sslsock.core.ticket_keys import KEY_SIZE

VERSIONS = [standard.TLSVersion.TLSv1_2, standard.TLSVersion.TLSv1_3]


class Visitor:
    """The interpreter's TLS, which keeps its session."""

    def __init__(self, certificates: Certificates, version: Any) -> None:
        self.context = standard.create_default_context()
        certificates.ca.configure_trust(self.context)
        certificates._client.configure_cert(self.context)
        self.context.minimum_version = self.context.maximum_version = version
        self.session: Optional[standard.SSLSession] = None

    def visit(self, context: Any, session: Optional[standard.SSLSession] = None) -> Any:
        """Whether a server with `context` resumes the session; and the one that it gives."""
        found: list[Any] = []

        def act(addresses: Any) -> None:
            def run() -> None:
                sock = socket.create_connection(addresses[0])
                with self.context.wrap_socket(sock, server_hostname="localhost", session=session) as tls:
                    tls.sendall(b"hello\n")
                    assert tls.recv(100) == b"hello\n"
                    found.extend((tls.session_reused, tls.session))

            thread = threading.Thread(target=run)
            thread.start()
            threads.append(thread)

        threads: list[threading.Thread] = []

        async def main(sockets: Any) -> None:
            done = asyncio.get_running_loop().create_future()

            async def echo(reader: Any, writer: Any) -> None:
                writer.write(await reader.readline())
                writer.close()
                await reader.read()
                done.set_result(None)

            server = await asyncio.start_server(echo, sock=sockets[0], ssl=context)
            await asyncio.wait_for(done, DEADLINE)
            server.close()

        aio.serve(main, "127.0.0.1", 0, threads=1, started=act)
        threads[0].join(DEADLINE)
        return found


def context_for(certificates: Certificates, keys: Optional[TicketKeys], asks: bool = False) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates._server.configure_cert(context)
    certificates.ca.configure_trust(context)
    if keys is not None:
        context.use_ticket_keys(keys)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_who_has_the_same_keys_resumes(certificates: Certificates, version: Any) -> None:
    visitor = Visitor(certificates, version)
    material = os.urandom(KEY_SIZE)
    keys, of_another_process = TicketKeys(), TicketKeys()
    keys.replace([material])
    of_another_process.replace([material])
    reused, session = visitor.visit(context_for(certificates, keys))
    assert not reused
    for others in (context_for(certificates, keys), context_for(certificates, of_another_process)):
        assert visitor.visit(others, session)[0]
    for stranger in (context_for(certificates, TicketKeys()), context_for(certificates, None)):
        assert not visitor.visit(stranger, session)[0]
    keys.rotate()
    assert visitor.visit(context_for(certificates, keys), session)[0]  # an older key opens still


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_server_that_asks_for_certificates_resumes_its_own_only(certificates: Certificates, version: Any) -> None:
    visitor, keys = Visitor(certificates, version), TicketKeys()
    asking, other = context_for(certificates, keys, asks=True), context_for(certificates, keys, asks=True)
    asks_nobody = context_for(certificates, keys)
    session = visitor.visit(asks_nobody)[1]
    assert not visitor.visit(asking, session)[0]
    session = visitor.visit(asking)[1]
    assert visitor.visit(asking, session)[0]
    assert not visitor.visit(other, session)[0] and not visitor.visit(asks_nobody, session)[0]


def test_what_takes_no_keys(certificates: Certificates) -> None:
    with pytest.raises(ValueError, match="not a server context"):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).use_ticket_keys(TicketKeys())
    with pytest.raises(TypeError):
        context_for(certificates, None).use_ticket_keys(b"keys")
