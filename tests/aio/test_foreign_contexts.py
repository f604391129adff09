"""Contexts of other libraries on our loop: TLS is theirs, and all that holds of connections holds of these too.

The scenarios of test_same_as_asyncio run with the interpreter's as well.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from typing import Any

import pytest
from far_end import Buffered, Certificates, Plain, World


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


LIBRARIES = ["ssl", "utls", "rtls", *(["truststore"] if sys.version_info >= (3, 10) else [])]
SIDES = [(name, server) for name in LIBRARIES for server in (False, True) if not (server and name == "truststore")]


class Library:
    """A library's contexts, as `Certificates.context` asks for them."""

    PROTOCOL_TLS_SERVER, PROTOCOL_TLS_CLIENT = ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT

    def __init__(self, name: str) -> None:
        self.module = pytest.importorskip(name, reason=f"{name} is not installed")
        self.name = name

    def SSLContext(self, protocol: Any) -> Any:  # as `ssl` names it
        return self.module.SSLContext(protocol)


def world(library: str, server: bool, certificates: Certificates) -> World:
    return World(certificates, True, True, server, module=Library(library))


async def much_both_ways(w: World) -> None:
    near, far = await w.connect(Buffered)
    assert type(near.transport).__name__ == "SocketTransport"
    data = os.urandom(3_000_001)
    near.transport.write(data)
    assert await far.receive_exactly(len(data)) == data
    sending = w.loop.create_task(far.send(data))
    await w.until(lambda: len(near.received) == len(data))
    await sending
    assert near.received == data
    near.transport.writelines([b"a", bytearray(b"b")])
    assert await far.receive_exactly(2) == b"ab"
    info = near.transport.get_extra_info
    assert info("sslcontext") is w.near
    assert info("ssl_object").version() == info("tls_version") == "TLSv1.3"
    assert info("cipher")[0].startswith("TLS_")
    if not w.server:
        assert info("peercert")["subjectAltName"] == (("DNS", "localhost"),)
    near.transport.close()
    assert await far.receive_all() == b""
    await w.told("connection_lost")
    assert w.events[-1] == ("connection_lost", None)


@pytest.mark.parametrize(("library", "server"), SIDES)
def test_much_both_ways(library: str, server: bool, certificates: Certificates) -> None:
    world(library, server, certificates).run(much_both_ways)


class NoGroup(ssl.SSLObject):
    """As it is on CPython 3.15 with an OpenSSL older than 3.2."""

    def group(self) -> None:
        raise NotImplementedError("Getting selected group requires OpenSSL 3.2 or later.")


async def asked_for_the_group(w: World) -> None:
    w.near.sslobject_class = NoGroup
    near, _ = await w.connect()
    assert isinstance(near.transport.get_extra_info("ssl_object"), NoGroup)
    assert near.transport.get_extra_info("group") is None


@pytest.mark.parametrize("server", [False, True])
def test_a_group_that_the_library_cannot_tell(server: bool, certificates: Certificates) -> None:
    world("ssl", server, certificates).run(asked_for_the_group)


async def the_peers_end(w: World) -> None:
    near, far = await w.connect()
    await far.send(b"last")
    await far.say_end()
    await w.told("connection_lost")
    assert near.received == b"last"
    says_so = w.ssl.name != "rtls"  # whose object reads on and on after the peer's close_notify
    assert near.transport.get_extra_info("clean_close") is says_so
    assert [event[0] for event in w.events] == ["connection_made", "data", "eof_received", "connection_lost"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_peers_end(library: str, certificates: Certificates) -> None:
    world(library, False, certificates).run(the_peers_end)


async def a_cut(w: World) -> None:
    near, far = await w.connect()
    far.cut()
    await w.told("connection_lost")
    assert near.transport.get_extra_info("clean_close") is False


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_cut(library: str, certificates: Certificates) -> None:
    world(library, False, certificates).run(a_cut)


async def a_wrong_name(w: World) -> None:
    beginning, far = await w.raw(lambda: Plain(w), ssl=w.near, server_hostname="wrong.example")
    with contextlib.suppress(ssl.SSLError, OSError):
        await far.start_tls(w.far, True)
    with pytest.raises(ssl.SSLCertVerificationError):
        await beginning
    assert w.events == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_wrong_name(library: str, certificates: Certificates) -> None:
    world(library, False, certificates).run(a_wrong_name)


async def an_end_that_is_not_answered(w: World) -> None:
    near, far = await w.connect()
    near.transport.write(b"last")
    near.transport.close()
    await w.told("connection_lost")  # far has said nothing
    assert await far.receive_all() == b"last"


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_end_that_is_not_answered(library: str, certificates: Certificates) -> None:
    world(library, False, certificates).run(an_end_that_is_not_answered)
