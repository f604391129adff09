"""Chains whose signatures have been verified before (include/known_chains.h): nothing else is taken for granted of them, and no
chain passes for another."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from judged import DAY, NOW, Issued, issue, revoke
from sslsock import SslCertificate, SslConfiguration, SslCrl, ssl

NOT_YET, EXPIRED, REVOKED, WRONG_NAME, BAD_SIGNATURE = 9, 10, 23, 62, 7
UNTRUSTED = {19, 20, 21}
ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
GOOD = issue("localhost", MIDDLE)
CHAIN = [GOOD, MIDDLE]


def with_damaged_signature(issued: Issued) -> Issued:
    """The same but for the last byte, which is in the signature: what is signed stays as it is."""
    encoded = bytearray(issued.certificate.public_bytes(Encoding.DER))
    encoded[-1] ^= 1
    return Issued(x509.load_der_x509_certificate(bytes(encoded)), issued.key)


def trusting(*authorities: Issued) -> SslConfiguration:
    configuration = SslConfiguration()
    configuration.use_system_ca = False
    configuration.ca_certificates = [authority.ours for authority in authorities]
    return configuration


def codes(chain: list[Issued], configuration: SslConfiguration, name: str = "localhost", **settings: Any) -> set[int]:
    return {error.code for error in SslCertificate.verify([link.ours for link in chain], name, configuration, **settings)}


def make_known() -> None:
    for _ in range(2):
        assert codes(CHAIN, trusting(ROOT)) == set()


@pytest.mark.parametrize("place", [0, 1])
def test_a_bad_signature_of_what_was_known_well_signed(place: int) -> None:
    make_known()
    chain = list(CHAIN)
    chain[place] = with_damaged_signature(chain[place])
    for _ in range(2):  # what was found bad, and let pass by the callback that collects errors, is not known as good
        assert codes(chain, trusting(ROOT)) == {BAD_SIGNATURE}
    make_known()


def test_dates_are_looked_at_again() -> None:
    make_known()
    for _ in range(2):
        assert codes(CHAIN, trusting(ROOT), time=NOW + 2 * DAY) == {EXPIRED}
        assert codes(CHAIN, trusting(ROOT), time=NOW - 2 * DAY) == {NOT_YET}
    make_known()


def test_known_for_a_time_is_not_good_at_another() -> None:
    root = issue("root", ca=True, begin=NOW - 9 * DAY, end=NOW + DAY)
    chain = [issue("localhost", root, begin=NOW - 9 * DAY, end=NOW - 8 * DAY)]
    for _ in range(2):
        assert codes(chain, trusting(root), time=NOW - 8.5 * DAY) == set()
        assert codes(chain, trusting(root)) == {EXPIRED}


def test_names_are_looked_at_again() -> None:
    make_known()
    assert codes(CHAIN, trusting(ROOT), "example.org") == {WRONG_NAME}


def test_trust_is_asked_for_again() -> None:
    make_known()
    other = issue("root", ca=True)  # of the same name
    assert codes(CHAIN, trusting(other)) & (UNTRUSTED | {BAD_SIGNATURE})
    assert codes(CHAIN, trusting()) & UNTRUSTED
    make_known()


def test_revocation_is_looked_at_again() -> None:
    make_known()
    configuration = trusting(ROOT)
    configuration.crls = [SslCrl(revoke(MIDDLE, GOOD))]
    assert codes(CHAIN, configuration) == {REVOKED}
    make_known()


def test_another_certificate_for_the_same_key_and_name() -> None:
    make_known()
    forged = issue("localhost", issue("middle", ca=True), key=GOOD.key)  # by a stranger who calls himself as the authority
    assert codes([forged, MIDDLE], trusting(ROOT)) == {BAD_SIGNATURE}


def shake(client: Any, chain: list[Issued], tmp_path: Any) -> None:
    """A handshake of `sslsock.ssl` with a server that shows the chain."""
    (tmp_path / "chain.pem").write_bytes(b"".join(link.pem for link in chain))
    (tmp_path / "key.pem").write_bytes(chain[0].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(one, other, server_hostname="localhost"), server_context.wrap_bio(other, one, server_side=True)]
    for end in ends * 2:
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()


def test_connections_of_the_interface_of_ssl(tmp_path: Any) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=ROOT.pem.decode())
    damaged = [with_damaged_signature(GOOD), MIDDLE]
    for _ in range(2):
        shake(client, CHAIN, tmp_path)
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate signature failure"):
            shake(client, damaged, tmp_path)
    revoking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    (tmp_path / "ca.pem").write_bytes(ROOT.pem + revoke(MIDDLE, GOOD))
    revoking.load_verify_locations(tmp_path / "ca.pem")
    shake(revoking, CHAIN, tmp_path)
    revoking.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        shake(revoking, CHAIN, tmp_path)
    shake(client, CHAIN, tmp_path)


def test_many_chains(tmp_path: Any) -> None:
    """More than are kept: each stays good, and each damaged one bad."""
    chains = [[issue("localhost", ROOT)] for _ in range(40)]
    for _ in range(2):
        for chain in chains:
            assert codes(chain, trusting(ROOT)) == set()
            assert codes([with_damaged_signature(chain[0])], trusting(ROOT)) == {BAD_SIGNATURE}
