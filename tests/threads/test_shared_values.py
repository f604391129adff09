"""What threads share of the family: contexts with sessions, ticket keys, certificates, keys, CRLs, configurations, rates."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import pytest
from crowd import CRL, ROUNDS, THREADS, Crowd, client_context, files, joined, path_of, repeated, server_context, talk

from sslsock import PeerVerifyMode, SslCertificate, SslConfiguration, SslCrl, SslEncoding, SslKey
from sslsock.core.engine import Engine
from sslsock.core.rate_limits import RateLimits
from sslsock.core.system_store import system_stamp
from sslsock.core.ticket_keys import TicketKeys
from sslsock.sockets.snapshot import context_of

TLS_1_2, TLS_1_3 = 0x0303, 0x0304


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_threads_resume_from_one_context_while_its_ticket_keys_change(version: int) -> None:
    keys = TicketKeys(older=15)
    server = server_context(ticket_keys=keys, minimum_protocol=version, maximum_protocol=version)
    client = client_context(minimum_protocol=version, maximum_protocol=version)
    reused = []

    def connect() -> None:
        one = Engine(client, server_name="localhost", verify_name="localhost", session_key="localhost")
        other = Engine(server)
        joined(one, other)
        talk(one, other, b"x" * 1000)
        reused.append(one.session_reused)

    def change() -> None:
        keys.rotate()
        assert 1 <= len(keys.names) <= 16
        assert len(set(keys.names)) >= 1

    Crowd().work(repeated(connect)).meanwhile(change).run()
    assert len(reused) == THREADS * ROUNDS
    connect()
    connect()
    assert reused[-1]  # nothing has been broken


def test_a_session_of_tls_1_3_is_offered_by_one_thread_only() -> None:
    server, client = server_context(minimum_protocol=TLS_1_3), client_context(minimum_protocol=TLS_1_3)
    given = []

    def take() -> None:
        engine = Engine(client, session_key="name", verify_name="localhost")
        other = Engine(server)
        joined(engine, other)
        if engine.session_reused:
            given.append(engine)

    take()  # leaves one session
    before = len(given)
    Crowd().work(take).run()
    # Each leaves one and takes one at the most: none is taken twice, or libssl would have refused the second.
    assert before == 0 and 1 <= len(given) <= THREADS


def test_values_are_read_by_all() -> None:
    certificate, key, authority = files()[0][0]
    own, secret, list_ = SslCertificate(certificate), SslKey(key), SslCrl(CRL)
    expected = (own.subject, own.digest(), own.to_pem(), own.not_after, own.subject_alternative_names, repr(own), hash(own))

    def read() -> None:
        assert expected == (
            own.subject,
            own.digest(),
            own.to_pem(),
            own.not_after,
            own.subject_alternative_names,
            repr(own),
            hash(own),
        )
        assert own == SslCertificate(certificate) and own != SslCertificate(authority)
        assert secret == SslKey(key) and hash(secret) == hash(SslKey(key))
        assert list_ == SslCrl(CRL) and list_.issuer == {"CN": ["an authority"]} and list_.next_update.year == 2049

    Crowd().work(repeated(read)).run()


def test_certificates_that_are_loaded_once_come_and_go() -> None:
    """Whoever loads one finds it, or a thread has just let it go: each is whole."""
    certificate, _, authority = files()[0][0]
    expected = [SslCertificate(certificate).to_der(), SslCertificate(authority).to_der()]

    def load() -> None:
        for _ in range(20):
            assert [one.to_der() for one in SslCertificate.from_bytes(certificate + authority)] == expected

    def restore() -> None:
        assert pickle.loads(pickle.dumps(SslCertificate(authority))).to_der() == expected[1]

    Crowd().work(repeated(load)).meanwhile(restore).run()


# Private keys as RFC 5958 has them, and of RFC 5915, which say nothing of their public halves.
P_256 = bytes.fromhex("06082a8648ce3d030107")
KEYS = {
    "EC": bytes.fromhex("3041020100301306072a8648ce3d0201") + P_256 + bytes.fromhex("042730250201010420") + b"k" * 32,
    "EC of before": bytes.fromhex("30310201010420") + b"k" * 32 + bytes.fromhex("a00a") + P_256,
    "Ed25519": bytes.fromhex("302e020100300506032b657004220420") + b"k" * 32,
    "Ed448": bytes.fromhex("3047020100300506032b6571043b0439") + b"k" * 57,
}


def test_keys_of_all_kinds_are_loaded_beside_damaged_ones() -> None:
    good = {name: SslKey(data, format=SslEncoding.DER) for name, data in KEYS.items()}
    assert not [name for name, key in good.items() if key.null]
    damaged = {name: data.replace(P_256, P_256[:-1] + b"\x7f") for name, data in KEYS.items()}  # there is no such curve
    damaged.update((name, KEYS[name][:-1]) for name in ("Ed25519", "Ed448"))
    reasons = {name: SslKey(data, format=SslEncoding.DER).error_string for name, data in damaged.items()}
    assert all(reasons.values())

    def load() -> None:
        for name, data in KEYS.items():
            assert SslKey(damaged[name], format=SslEncoding.DER).error_string == reasons[name]
            assert SslKey(data, format=SslEncoding.DER) == good[name]

    Crowd().work(repeated(load)).run()


def test_turns_are_given_to_no_two_threads() -> None:
    hour = 3600 * 10**9
    most = THREADS * ROUNDS // 2
    rates = RateLimits(2)
    rates.follow(0, hour, most)
    both, other = rates.limiter((0, 1)), rates.limiter((1,))
    taken = []

    def take() -> None:
        taken.append(both.take(0.0) is not None)

    def follow() -> None:
        rates.follow(0, hour, most)  # the same again
        rates.follow(1, 1, 2**40)
        assert other.take() == 0.0 and both.in_force[0] == (hour, most)
        rates.follow(1, 0, 1)

    Crowd().work(repeated(take)).meanwhile(follow).run()
    assert (len(taken), sum(taken)) == (THREADS * ROUNDS, most)


def test_contexts_come_and_go_with_what_they_share() -> None:
    list_ = SslCrl(CRL)

    def make() -> None:
        engine = Engine(client_context(crls=[list_], verify_flags=0), verify_name="localhost")
        assert engine.start()
        client_context(crls=[SslCrl(CRL)])

    def system() -> None:
        system_stamp()
        SslConfiguration()

    Crowd().work(repeated(make)).meanwhile(system).run()


def test_equal_settings_are_one_context_for_all_threads() -> None:
    configuration = SslConfiguration()
    configuration.ca_certificates = [SslCertificate(files()[0][0][2])]
    configuration.use_system_ca = False
    found = []
    snapshot = configuration.snapshot(False, PeerVerifyMode.VERIFY_PEER)

    def ask() -> None:
        found.append(context_of(snapshot))

    def others() -> None:
        other = SslConfiguration()
        other.use_system_ca = False
        other.peer_verify_depth = threading.get_ident() % 1000
        context_of(other.snapshot(False, PeerVerifyMode.VERIFY_PEER))

    Crowd().work(repeated(ask)).meanwhile(others).run()
    assert len(set(map(id, found))) == 1


def test_a_configuration_is_used_while_it_changes() -> None:
    configuration = SslConfiguration()
    configuration.use_system_ca = False
    authority = files()[0][0][2]
    configuration.ca_certificates = [SslCertificate(authority)]
    server = server_context()

    def connect() -> None:
        client = Engine(configuration.context(False, PeerVerifyMode.VERIFY_PEER), verify_name="localhost")
        joined(client, Engine(server))
        assert client.protocol == TLS_1_3

    def change() -> None:
        configuration.allowed_next_protocols = ["one"]
        configuration.ca_certificates = [SslCertificate(authority), SslCertificate(files()[0][1][2])]
        configuration.allowed_next_protocols = []

    Crowd().work(repeated(connect)).meanwhile(change).run()


def test_one_engine_is_for_one_thread_at_a_time() -> None:
    client, server = Engine(client_context(), verify_name="localhost"), Engine(server_context())
    joined(client, server)
    text = b"y" * 300_000  # long enough to be at work without the GIL
    refused, made = [], []
    lock = threading.Lock()

    def use() -> None:
        try:
            cipher = client.encrypt(text)
        except RuntimeError as exc:
            refused.append(str(exc))
        else:
            with lock:
                made.append(cipher)
        try:
            client.export_keying_material("EXPERIMENTAL x", 32)
            client.take()
        except RuntimeError as exc:
            refused.append(str(exc))
        assert client.cipher and client.protocol and client.peer_certificate_chain()

    Crowd().work(repeated(use, 3 * ROUNDS)).run()
    assert made
    assert all("another thread" in text for text in refused)


def test_a_key_log_is_told_by_all_threads(tmp_path: Path) -> None:
    lines: list[str] = []
    path = tmp_path / "keys.log"
    to_file, to_list = server_context(key_log=str(path)), server_context(key_log=lines.append)
    client = client_context()

    def connect() -> None:
        for server in (to_file, to_list):
            joined(Engine(client, verify_name="localhost"), Engine(server))

    Crowd().work(repeated(connect, 3)).run()
    # Of a connection of TLS 1.3 five, each whole.
    assert len(lines) == len(path.read_text().splitlines()) == THREADS * 3 * 5
    assert all(len(line.split(" ")) == 3 for line in lines + path.read_text().splitlines())


def test_files_of_authorities_are_read_by_all() -> None:
    from sslsock import ssl

    def load() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(path_of("ca0.pem"))
        context.load_verify_locations(path_of("ca1.pem"))
        assert context.cert_store_stats() == {"x509": 2, "crl": 0, "x509_ca": 2}

    def touch() -> None:
        Path(path_of("ca1.pem")).touch()  # it has changed: it is read again
        ssl.create_default_context()

    files()
    Crowd().work(repeated(load)).meanwhile(touch).run()


def test_more_files_of_authorities_than_are_kept_are_read_by_all(tmp_path: Path) -> None:
    from sslsock import ssl

    paths = [tmp_path / f"{number}.pem" for number in range(40)]
    for path in paths:
        path.write_bytes(files()[0][0][2])

    def load() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for path in paths:
            context.load_verify_locations(path)
        assert context.cert_store_stats()["x509"] == 1

    Crowd().work(repeated(load)).run()
