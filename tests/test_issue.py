"""Certificates made in memory: what they say, that others believe them, and that keys do not get out."""

from __future__ import annotations

import datetime
import pickle
import ssl
import subprocess
from pathlib import Path

import pytest

from command_helpers import openssl
from sslsock import Context, Engine, SslCertificate, SslKey
from sslsock.core.issue import LOCALHOST, issue_certificate, issue_pem, make_authority


def shake(server: Context, client: Context, name: str) -> Engine:
    """Hands shaken in memory; the client's engine."""
    a, b = Engine(client, server_name=None, verify_name=name), Engine(server)
    b.decrypt(a.start())
    while not (a.handshake_done and b.handshake_done):
        a.decrypt(b.take())
        b.decrypt(a.take())
    return a


def server_context(certificate: SslCertificate, key: SslKey) -> Context:
    return Context(server_side=True, certificate=certificate, private_key=key, verify_mode=0, use_system_ca=False)


def test_what_an_authority_says() -> None:
    certificate, key = make_authority("my authority")
    assert certificate.subject == certificate.issuer
    assert certificate.subject["CN"] == ["my authority"]
    assert (certificate.null, certificate.error_string) == (False, "")
    assert (key.null, key.type, key.algorithm, key.error_string) == (False, SslKey.PRIVATE, SslKey.EC, "")


def test_what_a_certificate_says() -> None:
    authority, authority_key = make_authority()
    certificate, key = issue_certificate(authority, authority_key)
    assert certificate.issuer == authority.subject
    assert certificate.subject["CN"] == ["localhost"]
    assert certificate.subject_alternative_names == [("DNS", "localhost"), ("IP", "127.0.0.1"), ("IP", "::1")]
    now = datetime.datetime.now(datetime.timezone.utc)
    assert certificate.not_before is not None
    assert certificate.not_after is not None
    assert certificate.not_before < now < certificate.not_after
    assert certificate.not_after - certificate.not_before < datetime.timedelta(days=31)
    assert 0 < certificate.serial_number < 1 << 128
    assert key != authority_key


def test_each_is_another() -> None:
    authority, authority_key = make_authority()
    made = [issue_certificate(authority, authority_key) for _ in range(3)]
    assert len({certificate.serial_number for certificate, _ in made}) == 3
    assert len({key for _, key in made}) == 3


def test_openssl_believes_them_strictly(tmp_path: Path) -> None:
    authority, authority_key = make_authority()
    certificate, _ = issue_certificate(authority, authority_key, ["*.example.com", "192.0.2.7", "2001:db8::7"])
    (tmp_path / "ca.pem").write_bytes(authority.to_pem())
    (tmp_path / "cert.pem").write_bytes(certificate.to_pem())
    for purpose in ("sslserver", "sslclient"):
        for check in (["-verify_hostname", "www.example.com"], ["-verify_ip", "192.0.2.7"]):
            subprocess.run(
                [
                    openssl(),
                    "verify",
                    "-x509_strict",
                    "-purpose",
                    purpose,
                    *check,
                    "-CAfile",
                    str(tmp_path / "ca.pem"),
                    str(tmp_path / "cert.pem"),
                ],
                check=True,
                capture_output=True,
            )


@pytest.mark.parametrize("name", LOCALHOST)
def test_a_handshake_with_them(name: str) -> None:
    authority, authority_key = make_authority()
    client = Context(server_side=False, ca_certificates=[authority], use_system_ca=False)
    engine = shake(server_context(*issue_certificate(authority, authority_key)), client, name)
    assert engine.verify_errors == []


def test_another_authority_of_the_same_name_is_not_believed() -> None:
    authority, authority_key = make_authority()
    other, _ = make_authority()
    client = Context(server_side=False, ca_certificates=[other], use_system_ca=False)
    with pytest.raises(Exception, match="certificate verify failed"):
        shake(server_context(*issue_certificate(authority, authority_key)), client, "localhost")


def test_as_pem_for_the_ssl_module(tmp_path: Path) -> None:
    certificate, key, authority = issue_pem()
    (tmp_path / "both.pem").write_bytes(certificate + key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "both.pem")
    ssl.create_default_context(cadata=authority.decode("ascii"))
    loaded = SslKey(key, SslKey.EC)
    assert not loaded.null
    assert not SslCertificate(certificate).null


def test_a_key_is_not_pickled_nor_shown() -> None:
    _, key = make_authority()
    with pytest.raises(TypeError):
        pickle.dumps(key)
    assert repr(key) == "<SslKey EC private>"


@pytest.mark.parametrize(
    "names",
    [
        [],
        [""],
        ["a,DNS:b"],
        ["a b"],
        ["a\0b"],
        ["a\nb"],
        ["-a.example"],
        ["x" * 64],
        ["a..b"],
        ["x." * 130 + "x"],
        ["a/24"],
    ],
)
def test_names_that_are_none(names: list[str]) -> None:
    authority, authority_key = make_authority()
    with pytest.raises(ValueError):
        issue_certificate(authority, authority_key, names)


def test_an_internationalized_name() -> None:
    authority, authority_key = make_authority()
    certificate, _ = issue_certificate(authority, authority_key, ["bücher.example"])
    assert certificate.subject_alternative_names == [("DNS", "xn--bcher-kva.example")]


def test_a_long_name_does_not_fit_the_subject_but_counts() -> None:
    authority, authority_key = make_authority()
    name = ".".join(["label" * 5] * 4)
    certificate, _ = issue_certificate(authority, authority_key, [name])
    assert certificate.subject_alternative_names == [("DNS", name)]


def test_wrong_use() -> None:
    authority, authority_key = make_authority()
    _, other_key = make_authority()
    with pytest.raises(ValueError, match="not the authority's"):
        issue_certificate(authority, other_key)
    with pytest.raises(ValueError, match="null"):
        issue_certificate(SslCertificate(b""), authority_key)
    with pytest.raises(TypeError):
        issue_certificate(authority, authority_key, "localhost")
    with pytest.raises(TypeError):
        issue_certificate(authority, authority_key, [b"localhost"])  # type: ignore[list-item]
    with pytest.raises(ValueError):
        make_authority("")
    with pytest.raises(ValueError):
        make_authority("x" * 65)
