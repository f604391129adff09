"""`SSLContext.resume_sessions`: connections of a client that resume the sessions of earlier ones by themselves."""

from __future__ import annotations

import ssl as stdlib
import warnings
from typing import Any, Optional

import pytest
from tls_pairs import NAME, Files, connected

from sslsock import ssl

VERSIONS = [stdlib.TLSVersion.TLSv1_2, stdlib.TLSVersion.TLSv1_3]


@pytest.fixture(params=VERSIONS, ids=["tls1.2", "tls1.3"])
def server(request: pytest.FixtureRequest, files: Files) -> stdlib.SSLContext:
    context: stdlib.SSLContext = files.server(stdlib)
    context.minimum_version = context.maximum_version = request.param
    return context


def resuming(files: Files) -> Any:
    context = files.client(ssl)
    context.resume_sessions = True
    return context


def exchange(client: Any, server: Any, name: Optional[str] = NAME) -> bool:
    """Whether one connection has resumed a session. Data goes both ways, so that a session of TLS 1.3 has come."""
    with connected(client, server, name) as (here, there):
        here.sendall(b"question")
        assert there.recv(100) == b"question"
        there.sendall(b"answer")
        assert here.recv(100) == b"answer"
        assert here.getpeercert()["subject"], "a resumed session still knows whom it was made with"
        reused: bool = here.session_reused
        assert reused == there.session_reused
        return reused


def test_it_is_off(files: Files, server: Any) -> None:
    client = files.client(ssl)
    assert client.resume_sessions is False
    assert [exchange(client, server) for _ in range(3)] == [False] * 3


def test_later_connections_resume(files: Files, server: Any) -> None:
    client = resuming(files)
    assert [exchange(client, server) for _ in range(5)] == [False, True, True, True, True]


@pytest.mark.parametrize("protocol", ["PROTOCOL_TLS", "PROTOCOL_TLS_CLIENT"])
def test_a_context_for_both_roles(files: Files, server: Any, protocol: str) -> None:
    """CPython 3.9 makes its default contexts with PROTOCOL_TLS. A server with it keeps sessions for nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client = ssl.SSLContext(getattr(ssl, protocol))
    client.verify_mode = ssl.CERT_REQUIRED
    client.load_verify_locations(files.ca_file)
    client.resume_sessions = True
    assert [exchange(client, server) for _ in range(3)] == [False, True, True]
    if protocol == "PROTOCOL_TLS":
        client.verify_mode = ssl.CERT_NONE
        client.load_cert_chain(files.server_file)
        other = files.client(stdlib)
        assert [exchange(other, client) for _ in range(2)] == [False, False]


def test_switched_off_it_forgets(files: Files, server: Any) -> None:
    client = resuming(files)
    exchange(client, server)
    client.resume_sessions = False
    assert exchange(client, server) is False
    client.resume_sessions = True
    assert [exchange(client, server), exchange(client, server)] == [False, True]


def test_a_session_belongs_to_a_name(files: Files, server: Any) -> None:
    client = resuming(files)
    exchange(client, server)
    assert exchange(client, server, "127.0.0.1") is False
    assert exchange(client, server) is True


def test_without_a_name_nothing_is_kept(files: Files, server: Any) -> None:
    client = resuming(files)
    client.check_hostname = False
    assert [exchange(client, server, None) for _ in range(2)] == [False, False]


@pytest.mark.parametrize(
    "change",
    [
        lambda context, files: setattr(context, "check_hostname", False),
        lambda context, files: setattr(context, "verify_mode", ssl.CERT_REQUIRED),
        lambda context, files: setattr(context, "verify_flags", context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN),
        lambda context, files: setattr(context, "hostname_checks_common_name", False),
        lambda context, files: context.load_verify_locations(files.ca_file),
        lambda context, files: context.load_verify_locations(cadata=files.ca_file.read_text()),
        lambda context, files: context.load_default_certs(),
        lambda context, files: context.load_cert_chain(files.server_file),
    ],
    ids=["check_hostname", "verify_mode", "verify_flags", "common_name", "file", "text", "defaults", "own certificate"],
)
def test_what_decides_whom_to_trust_forgets_all(files: Files, server: Any, change: Any) -> None:
    client = resuming(files)
    exchange(client, server)
    change(client, files)
    assert exchange(client, server) is False


def test_a_peer_that_was_not_verified_is_not_taken_for_one_that_was(files: Files, server: Any) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.resume_sessions = True
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    with connected(client, server) as (here, there):
        there.sendall(b"answer")
        assert here.recv(100) == b"answer"
    client.verify_mode = ssl.CERT_REQUIRED
    with pytest.raises(stdlib.SSLError), connected(client, server):
        pass


def test_a_session_that_comes_after_a_change_is_of_before(files: Files, server: Any) -> None:
    """The tickets of a connection that verified nothing, read when the context verifies, are resumed by none that does."""
    client = resuming(files)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    with connected(client, server) as (here, there):
        client.verify_mode = ssl.CERT_REQUIRED
        there.sendall(b"answer")
        assert here.recv(100) == b"answer"
        assert exchange(client, server) is False


def test_a_given_session_goes_first(files: Files) -> None:
    server = files.server(stdlib)
    server.maximum_version = stdlib.TLSVersion.TLSv1_2
    client = resuming(files)
    with connected(client, server) as (here, _):
        session = here.session
    with connected(client, server, session=session) as (here, _):
        assert here.session_reused and here.session == session


def test_a_session_of_tls_1_3_is_used_once(files: Files) -> None:
    server = files.server(stdlib)
    server.num_tickets = 1
    client = resuming(files)
    exchange(client, server)
    with connected(client, server) as (first, _), connected(client, server) as (second, _):
        assert (first.session_reused, second.session_reused) == (True, False)


def test_it_is_for_clients(files: Files) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ValueError, match="PROTOCOL_TLS_SERVER"):
        context.resume_sessions = True
    assert context.resume_sessions is False


def test_a_server_knows_the_client_of_a_resumed_session(files: Files) -> None:
    """A session has the client's own certificate, and no chain."""
    server = files.server(ssl)
    server.load_verify_locations(files.ca_file)
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = stdlib.TLSVersion.TLSv1_2
    client = resuming(files)
    client.load_cert_chain(files.server_file)
    with connected(client, server) as (_, there):
        own = there.getpeercert(True)
        assert there.get_unverified_chain()[0] == there.get_verified_chain()[0] == own
    with connected(client, server) as (_, there):
        assert there.session_reused
        assert there.get_unverified_chain() == [own]
        assert there.get_verified_chain() == []
