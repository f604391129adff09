"""Who is let in: --client-ca and --allow-name."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any, Optional

import pytest
import trustme

from command_helpers import Identity

from .running import Path, end_of, end_output, path, receive_exactly

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def guarded(identity: Identity) -> Iterator[Path]:
    with path("tls", "tcp", identity, "--client-ca", identity.ca, "--allow-name", "*@example.org") as made:
        yield made


def context_of(identity: Identity, version: ssl.TLSVersion, certificate: Optional[trustme.LeafCert]) -> ssl.SSLContext:
    context = identity.client_context()
    context.minimum_version = context.maximum_version = version
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def refused(guarded: Path, context: ssl.SSLContext, **options: Any) -> dict[str, Any]:
    """Try to connect, be refused without a back end having been asked, and return the record."""
    try:
        client = guarded.connect_client(context=context, **options)
    except (ssl.SSLError, ConnectionError):  # TLS 1.2: the client's handshake ends last
        record = guarded.proxy.record()
    else:
        with client:
            with pytest.raises((ssl.SSLError, ConnectionError)):  # an end in order would be close_notify
                client.recv(1)
            record = guarded.record()
    guarded.listening.settimeout(0)
    with pytest.raises(BlockingIOError):
        guarded.listening.accept()
    guarded.listening.settimeout(30)
    return record


@pytest.mark.parametrize("version", VERSIONS)
def test_a_name_on_the_list_is_let_in_and_resumed(guarded: Path, identity: Identity, version: ssl.TLSVersion) -> None:
    context = context_of(identity, version, identity.client)
    session, resumed = None, []
    for _ in range(2):
        with guarded.connect_client(context=context, session=session) as client, guarded.accept() as server:
            server.sendall(b"welcome")
            assert receive_exactly(client, 7) == b"welcome"
            session = client.session
            end_output(client)
            end_output(server)
        record = guarded.record()
        resumed.append((record["resumed"], record["client"]))
    assert resumed == [(False, "email:client@example.org"), (True, "email:client@example.org")]


@pytest.mark.parametrize("version", VERSIONS)
def test_another_name_is_refused(guarded: Path, identity: Identity, version: ssl.TLSVersion) -> None:
    stranger = identity.authority.issue_cert("client@example.net")
    record = refused(guarded, context_of(identity, version, stranger))
    assert record["reason"] == "client_certificate_refused"
    assert "not among the allowed names" in record["error"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refused_client_is_refused_again_with_a_session(guarded: Path, identity: Identity, version: ssl.TLSVersion) -> None:
    stranger = context_of(identity, version, identity.authority.issue_cert("client@example.net"))
    with guarded.connect_client(context=stranger) as client:
        assert end_of(client) == ("access_denied" if version == ssl.TLSVersion.TLSv1_3 else "internal_error")
        session = client.session
    guarded.record()
    assert session is not None
    assert refused(guarded, stranger, session=session)["reason"] == "client_certificate_refused"


@pytest.mark.parametrize("version", VERSIONS)
def test_no_certificate_is_refused_with_an_alert(guarded: Path, identity: Identity, version: ssl.TLSVersion) -> None:
    record = refused(guarded, context_of(identity, version, None))
    assert record["reason"] in ("client_certificate_refused", "handshake_failed")
    assert "peer did not return a certificate" in record["error"]


@pytest.mark.parametrize("version", VERSIONS)
def test_another_authority_is_refused(guarded: Path, identity: Identity, version: ssl.TLSVersion) -> None:
    forged = trustme.CA().issue_cert("client@example.org")
    assert refused(guarded, context_of(identity, version, forged))["reason"] == "client_certificate_refused"


def test_a_session_without_certificate_does_not_get_in_elsewhere(identity: Identity, tmp_path: Any, start: Any) -> None:
    """Two listeners share their ticket keys; only one of them asks for certificates."""
    with socket.create_server(("127.0.0.1", 0)) as back:
        to = f'to = "tcp://127.0.0.1:{back.getsockname()[1]}"'
        file = tmp_path / "proxy.toml"
        pair = f'cert = "{identity.cert}"\nkey = "{identity.key}"'
        file.write_text(
            f'[[listener]]\nlisten = "tls://127.0.0.1:0"\n{pair}\n{to}\n'
            f'[[listener]]\nlisten = "tls://127.0.0.1:0"\n{pair}\n{to}\nclient-ca = "{identity.ca}"\n'
        )
        proxy = start("--config", file, listeners=2)
        context = identity.client_context()

        def connect(port: int, session: Optional[ssl.SSLSession]) -> ssl.SSLSocket:
            sock = socket.create_connection(("127.0.0.1", port), 30)
            return context.wrap_socket(sock, server_hostname="localhost", session=session)

        with connect(proxy.ports[0], None) as client:
            server = back.accept()[0]
            with server:
                server.sendall(b"x")
                assert client.recv(1) == b"x"
                session = client.session
        with pytest.raises((ssl.SSLError, ConnectionError)), connect(proxy.ports[1], session) as client:
            assert not client.session_reused
            client.recv(1)
