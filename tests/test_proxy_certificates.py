"""Certificates of a listener: read from files or made, put together by their names, and chosen by SNI."""

from __future__ import annotations

import datetime
import os
import stat
import threading
from pathlib import Path

import pytest
import trustme

from self_signed import EC_KEY, ED25519_KEY, END, RSA_KEY, Folder, key_pem, make
from sslsock import Context, Engine, SslCertificate, SslKey
from sslsock.proxy.settings.model import KeyPair
from sslsock.proxy.tls.certificates import (
    CertificateError,
    CertificateStore,
    Expiry,
    make_localhost_pair,
    read_certificates,
    write_authority,
)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def chosen(store: CertificateStore, name: str) -> tuple[str, ...]:
    return store.choose(name).names


# Choosing


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("first.test", ("first.test",)),
        ("second.test", ("also.test", "second.test")),
        ("also.test", ("also.test", "second.test")),
        ("SECOND.Test", ("also.test", "second.test")),
        ("second.test.", ("also.test", "second.test")),
        ("www.wild.test", ("*.wild.test",)),
        ("WWW.WILD.TEST.", ("*.wild.test",)),
        ("xn--bcher-kva.wild.test", ("*.wild.test",)),
        ("exact.wild.test", ("exact.wild.test",)),
        ("mixed.test", ("mixed.test",)),
        # the default
        ("", ("first.test",)),
        ("unknown.test", ("first.test",)),
        ("wild.test", ("first.test",)),
        ("a.b.wild.test", ("first.test",)),
        (".wild.test", ("first.test",)),
        (".", ("first.test",)),
        ("*.wild.test", ("*.wild.test",)),
        ("second.test..", ("first.test",)),
        ("web1.part.test", ("first.test",)),
        ("nul\x00.test", ("first.test",)),
        ("\x00", ("first.test",)),
    ],
)
def test_which_names_get_which_certificate(folder: Folder, asked: str, names: tuple[str, ...]) -> None:
    pairs = [
        folder.pair("first.test"),
        folder.pair("second.test", "also.test"),
        folder.pair("*.wild.test"),
        folder.pair("exact.wild.test"),
        folder.pair("Mixed.TEST"),
        folder.pair("web*.part.test"),
    ]
    assert chosen(CertificateStore.from_files(pairs), asked) == names


def test_no_name_gets_the_default(folder: Folder) -> None:
    store = CertificateStore.from_files([folder.pair("b.test"), folder.pair("a.test")])
    assert store.choose(None) is store.default is store.identities[0]
    assert store.default.names == ("b.test",)


def test_the_common_name_counts_only_without_alternative_names(folder: Folder) -> None:
    store = CertificateStore.from_files(
        [
            folder.pair("default.test"),
            folder.pair(cn=["Only.test"]),
            folder.pair("real.test", cn=["shown.test"]),
            folder.pair("email:a@b.test", cn=["mail.test"]),
        ]
    )
    assert chosen(store, "only.test") == ("only.test",)
    assert chosen(store, "real.test") == ("real.test",)
    assert chosen(store, "shown.test") == ("default.test",)
    assert chosen(store, "mail.test") == ("default.test",)


def test_the_first_of_two_identities_serves_a_name_in_common(folder: Folder) -> None:
    store = CertificateStore.from_files([folder.pair("a.test", "both.test"), folder.pair("both.test", "c.test")])
    assert chosen(store, "both.test") == ("a.test", "both.test")
    assert chosen(store, "c.test") == ("both.test", "c.test")


# Identities


def test_keys_of_different_kinds_for_the_same_names_are_one_identity(folder: Folder) -> None:
    rsa, ec = folder.pair("a.test", "b.test", key=RSA_KEY), folder.pair("B.test", "a.test.", key=EC_KEY)
    other = folder.pair("a.test", key=ED25519_KEY)
    store = CertificateStore.from_files([rsa, ec, other])
    assert len(store.identities) == 2
    identity = store.choose("b.test")
    assert [key.algorithm for _, _, key in identity.pairs] == [SslKey.RSA, SslKey.EC]
    assert [pair[0] for pair in identity.pairs] == [SslCertificate(Path(p.certificate).read_bytes()) for p in (rsa, ec)]
    assert all(chain == [] for _, chain, _ in identity.pairs)


# Kind of key (E, R or D for EC, RSA, Ed25519) and names of each certificate, in order; then for a name that is asked for, the
# places of those that it is served with.
OVERLAPS: dict[str, tuple[list[tuple[str, str]], dict[str, list[int]]]] = {
    "a wildcard of one beside an exact name of the other": (
        [("E", "www.shop.test"), ("R", "*.shop.test")],
        {"www.shop.test": [0, 1], "other.shop.test": [1], "": [0, 1], "nobody.test": [0, 1]},
    ),
    "the other order": (
        [("R", "*.shop.test"), ("E", "www.shop.test")],
        {"www.shop.test": [1, 0], "other.shop.test": [0], "": [0], "nobody.test": [0]},
    ),
    "a name in common": (
        [("E", "a.test both.test"), ("R", "both.test c.test")],
        {"a.test": [0], "both.test": [0, 1], "c.test": [1], "": [0]},
    ),
    "exact before wildcard, of one kind": (
        [("R", "*.shop.test"), ("R", "www.shop.test"), ("E", "*.shop.test")],
        {"www.shop.test": [1, 2], "other.shop.test": [0, 2], "": [0, 2]},
    ),
    "the first of one kind": (
        [("E", "a.test x.test"), ("E", "a.test y.test"), ("R", "a.test z.test")],
        {"a.test": [0, 2], "y.test": [1], "z.test": [2]},
    ),
    "three kinds": (
        [("D", "*.test"), ("E", "a.test"), ("R", "a.test b.test")],
        {"a.test": [1, 2, 0], "b.test": [2, 0], "c.test": [0], "": [0]},
    ),
    "another one for all of the first's names": (
        [("E", "a.test b.test"), ("R", "*.test"), ("D", "a.test")],
        {"": [0, 1], "nobody.example": [0, 1], "a.test": [0, 2, 1], "b.test": [0, 1]},
    ),
    "addresses": ([("E", "IP:192.0.2.1"), ("R", "IP:192.0.2.1 a.test")], {"192.0.2.1": [0, 1], "a.test": [1], "": [0, 1]}),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_a_name_is_served_with_every_kind_of_key_that_fits(folder: Folder, case: str) -> None:
    certificates, asked = OVERLAPS[case]
    keys = {"E": EC_KEY, "R": RSA_KEY, "D": ED25519_KEY}
    pairs = [folder.pair(*names.split(), key=keys[kind]) for kind, names in certificates]
    store = CertificateStore.from_files(pairs)
    places = {pair.certificate: place for place, pair in enumerate(pairs)}
    for name, expected in asked.items():
        found = [places[expiry.path] for expiry in store.choose(name).expiries]
        assert sorted(found) == sorted(expected) and found[0] == expected[0], name
        assert [SslCertificate(Path(expiry.path).read_bytes()) for expiry in store.choose(name).expiries] == [
            pair[0] for pair in store.choose(name).pairs
        ]
    assert len({identity.key for identity in store.identities}) == len(store.identities)
    assert not store.unused()


def test_the_key_of_an_identity_does_not_depend_on_the_order_of_files(folder: Folder) -> None:
    pairs = [folder.pair("www.shop.test"), folder.pair("*.shop.test", key=RSA_KEY), folder.pair("*.shop.test")]
    one, other = CertificateStore.from_files(pairs), CertificateStore.from_files(pairs[::-1])
    for name in ("www.shop.test", "other.shop.test"):
        assert one.choose(name).key == other.choose(name).key
    assert one.choose("www.shop.test").key != one.choose("other.shop.test").key


def test_one_that_is_never_used_is_told(folder: Folder) -> None:
    pairs = [folder.pair("a.test", "b.test"), folder.pair("a.test"), folder.pair("b.test", "a.test", key=RSA_KEY)]
    assert [expiry.path for expiry in CertificateStore.from_files(pairs).unused()] == [pairs[1].certificate]


def test_certificates_without_names_for_hosts_are_kept_apart(folder: Folder) -> None:
    names = (["email:a@b.test"], ["email:c@d.test"], ["IP:10.0.0.1"], [])
    pairs = [folder.pair(*each) for each in names]
    store = CertificateStore.from_files(pairs)
    assert chosen(store, "10.0.0.1") == ("10.0.0.1",)
    assert store.default.names == ()
    assert [len(identity.pairs) for identity in store.identities] == [1, 1]
    assert [expiry.path for expiry in store.unused()] == [pairs[1].certificate, pairs[3].certificate]


def test_the_second_of_the_same_names_and_kind_is_refused(folder: Folder) -> None:
    first, second = folder.pair("a.test"), folder.pair("a.test")
    with pytest.raises(CertificateError) as caught:
        CertificateStore.from_files([first, second])
    assert str(caught.value).startswith(f"{second.certificate}: ")
    assert str(caught.value).endswith(f"with the same kind of key (EC), as {first.certificate}")


def test_the_key_of_an_identity_survives_a_reload_with_new_files_in_another_order(folder: Folder) -> None:
    old = CertificateStore.from_files([folder.pair("a.test", "b.test"), folder.pair("c.test")])
    new = CertificateStore.from_files([folder.pair("c.test"), folder.pair("B.test", "a.test")])
    assert old.choose("a.test").key == new.choose("a.test").key
    assert old.choose("c.test").key == new.choose("c.test").key
    assert old.default.key != new.default.key
    assert old.choose("a.test").pairs != new.choose("a.test").pairs


def test_expiries(folder: Folder) -> None:
    soon = datetime.datetime(2031, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    rsa, ec = folder.pair("a.test", key=RSA_KEY, end=soon), folder.pair("a.test")
    assert CertificateStore.from_files([rsa, ec]).expiries() == [
        Expiry(rsa.certificate, ("a.test",), "RSA", soon),
        Expiry(ec.certificate, ("a.test",), "EC", END),
    ]


# Files


def test_a_chain_and_a_key_in_one_file(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.create_child_ca().issue_cert("chain.test")
    file = tmp_path / "all.pem"
    file.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    ((certificate, chain, key),) = CertificateStore.from_files([KeyPair(str(file), str(file))]).default.pairs
    blocks = [SslCertificate(pem.bytes()) for pem in issued.cert_chain_pems]
    assert [certificate, *chain] == blocks
    assert len(blocks) >= 2
    assert key == SslKey(issued.private_key_pem.bytes())


def spoil(pair: KeyPair, what: str) -> KeyPair:
    """The pair, with one of its files spoilt as `what` says."""
    certificate, key = Path(pair.certificate), Path(pair.key)
    if what == "no certificate file":
        certificate.unlink()
    elif what == "no key file":
        key.unlink()
    elif what == "empty":
        certificate.write_bytes(b"")
    elif what == "a key for a certificate":
        certificate.write_bytes(key.read_bytes())
    elif what == "a certificate for a key":
        key.write_bytes(certificate.read_bytes())
    elif what == "a truncated key":
        key.write_bytes(key.read_bytes()[:60])
    elif what == "another key":
        key.write_bytes(key_pem(RSA_KEY))
    elif what == "a folder":
        return KeyPair(str(certificate.parent), pair.key)
    elif what == "a NUL in the path":
        return KeyPair("nul\0.pem", pair.key)
    return pair


@pytest.mark.parametrize(
    ("what", "at_fault", "reason"),
    [
        ("no certificate file", "certificate", "No such file"),
        ("no key file", "key", "No such file"),
        ("empty", "certificate", "the data is empty"),
        ("a key for a certificate", "certificate", "a private key"),
        ("a certificate for a key", "key", "a certificate"),
        ("a truncated key", "key", "PEM"),
        ("another key", "key", "does not fit the certificate"),
        ("a folder", "certificate", "Is a directory"),
        ("a NUL in the path", "certificate", "null"),
    ],
)
def test_errors_name_the_file(folder: Folder, what: str, at_fault: str, reason: str) -> None:
    pair = spoil(folder.pair("a.test"), what)
    with pytest.raises(CertificateError) as caught:
        CertificateStore.from_files([folder.pair("good.test"), pair])
    assert caught.value.path == getattr(pair, at_fault)
    assert str(caught.value).startswith(f"{caught.value.path}: ")
    assert reason in str(caught.value)
    if what == "another key":
        assert pair.certificate in str(caught.value)


def test_a_missing_key_in_a_single_file_is_said(folder: Folder) -> None:
    pair = folder.pair("a.test")
    with pytest.raises(CertificateError, match="a certificate"):
        CertificateStore.from_files([KeyPair(pair.certificate, pair.certificate)])


def test_authorities_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(make(["one.test"]) + b"words between\n" + make(["two.test"]))
    names = [certificate.subject_alternative_names for certificate in read_certificates(str(file))]
    assert names == [[("DNS", "one.test")], [("DNS", "two.test")]]
    file.write_bytes(b"nothing")
    with pytest.raises(CertificateError, match=r"ca\.pem: "):
        read_certificates(str(file))


# Without files


@pytest.mark.parametrize(
    ("host", "added"),
    [
        ("", []),
        ("0.0.0.0", []),
        ("::", []),
        ("localhost", []),
        ("127.0.0.1", []),
        ("10.1.2.3", [("IP", "10.1.2.3")]),
        ("fe80::1%eth0", [("IP", "fe80::1")]),
        ("proxy.example.org", [("DNS", "proxy.example.org")]),
    ],
)
def test_the_names_of_the_certificate_made_here(host: str, added: list[tuple[str, str]]) -> None:
    (certificate, chain, _), _ = make_localhost_pair(host)
    assert certificate.subject_alternative_names == [("DNS", "localhost"), ("IP", "127.0.0.1"), ("IP", "::1"), *added]
    assert chain == []


def test_clients_that_trust_the_authority_believe_the_certificate_made_here() -> None:
    store, authority = CertificateStore.for_localhost("10.1.2.3")
    ((certificate, chain, key),) = store.choose("localhost").pairs
    server = Context(server_side=True, certificate=certificate, certificate_chain=chain, private_key=key, verify_mode=0)
    client = Context(server_side=False, ca_certificates=[authority], use_system_ca=False)
    for name in ("localhost", "10.1.2.3"):
        a, b = Engine(client, server_name=None, verify_name=name), Engine(server)
        b.decrypt(a.start())
        while not (a.handshake_done and b.handshake_done):
            a.decrypt(b.take())
            b.decrypt(a.take())
    assert store.expiries() == [Expiry("", store.default.names, "EC", certificate.not_after)]
    other, _ = CertificateStore.for_localhost()
    assert other.default.pairs[0][2] != key, "two runs share a key"


def test_the_authority_is_written_for_all_to_read(tmp_path: Path) -> None:
    _, authority = make_localhost_pair()
    path = tmp_path / "ca.pem"
    before = os.umask(0o077)
    try:
        write_authority(str(path), authority)
    finally:
        os.umask(before)
    assert path.read_bytes() == authority.to_pem()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["ca.pem"], "something was left beside the file"


def test_the_authority_replaces_a_file_at_once_through_a_link(tmp_path: Path) -> None:
    _, authority = make_localhost_pair()
    target, link = tmp_path / "real.pem", tmp_path / "link.pem"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with open(target, "rb") as reader:
        write_authority(str(link), authority)
        assert reader.read() == b"old", "the old file was written to while somebody read it"
    assert link.is_symlink()
    assert target.read_bytes() == authority.to_pem()


def test_the_authority_goes_into_a_pipe(tmp_path: Path) -> None:
    _, authority = make_localhost_pair()
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    reader.start()
    write_authority(str(path), authority)
    reader.join(10)
    assert read == [authority.to_pem()]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_an_authority_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    _, authority = make_localhost_pair()
    with pytest.raises(FileNotFoundError):
        write_authority(str(tmp_path / "nowhere" / "ca.pem"), authority)
    with pytest.raises(IsADirectoryError):
        write_authority(str(tmp_path), authority)
    assert os.listdir(tmp_path) == []
