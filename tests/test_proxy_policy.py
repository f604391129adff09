"""What decides whether a connection to a back end comes about, and so which routes share what is known of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from judged import issue, revoke
from sslsock.proxy.policy import RoutePolicy
from sslsock.proxy.settings.model import Address, BackTls, KeyPair, Route, TlsPolicy

ROOT = issue("root", ca=True)
TO = (Address("tls", "192.0.2.1", 443),)


@pytest.fixture
def tls(tmp_path: Path) -> BackTls:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair = tmp_path / "own.pem"
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(pair)
    (tmp_path / "some.crl").write_bytes(revoke(ROOT))
    policy = TlsPolicy(crls=(str(tmp_path / "some.crl"),))
    return BackTls(ca=str(tmp_path / "ca.pem"), key_pair=KeyPair(str(pair), str(pair)), policy=policy)


def test_the_same_is_the_same(tls: BackTls) -> None:
    one, other = (RoutePolicy(Route(TO, names, back_tls=tls), "v2") for names in (("a.example",), ("b.example",)))
    assert one.connecting == other.connecting, "who gets there does not matter"


@pytest.mark.parametrize(
    "change",
    [
        {"server_name": "elsewhere.example"},
        {"insecure": True},
        {"alpn": ("h2",)},
        {"ca": None},
        {"key_pair": None},
        {"allow_names": ("a.example",)},
        {"policy": TlsPolicy(groups="P-256")},
        {"policy": TlsPolicy(verify_depth=0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_of_tls_decide(tls: BackTls, change: dict[str, Any]) -> None:
    route = Route(TO, back_tls=tls)
    assert RoutePolicy(route).connecting != RoutePolicy(route._replace(back_tls=tls._replace(**change))).connecting


def test_the_address_and_the_proxy_header_decide(tls: BackTls) -> None:
    route = Route(TO, back_tls=tls)
    known = {
        RoutePolicy(each, version).connecting
        for each in (route, route._replace(to=(Address("tls", "192.0.2.1", 444),)), route._replace(to=TO * 2))
        for version in (None, "v1", "v2")
    }
    assert len(known) == 9


@pytest.mark.parametrize("file", ["ca.pem", "own.pem", "some.crl"])
def test_what_the_files_hold_decides(tls: BackTls, tmp_path: Path, file: str) -> None:
    """They may have changed when SIGHUP has them read again."""
    route = Route(TO, back_tls=tls)
    before = RoutePolicy(route).connecting
    assert RoutePolicy(route).connecting == before
    authority = trustme.CA()
    if file == "some.crl":
        (tmp_path / file).write_bytes(revoke(ROOT, issue("a.example", ROOT)))
    elif file == "ca.pem":
        authority.cert_pem.write_to_path(tmp_path / file)
    else:
        authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(tmp_path / file)
    assert RoutePolicy(route).connecting != before
