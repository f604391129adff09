"""Ticket keys: who resumes whose sessions, with which key, and what may happen to the keys meanwhile."""

import base64
import datetime
import gc
import hmac
import os
import pickle
import ssl
import subprocess
import sys
import threading
import time

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sslsock.core.certificate import SslCertificate
from sslsock.core.context import TICKET_LIFETIME, VERIFY_NONE, VERIFY_PEER, VERIFY_QUERY, ConfigurationError
from sslsock.core.engine import Engine, TlsError
from sslsock.core.key import SslKey
from sslsock.core.ticket_keys import KEY_SIZE, MOST_KEYS, TicketKeys

from .pairs import (
    SANITIZED,
    TLS_1_2,
    TLS_1_3,
    Identity,
    authority,
    client_context,
    identity,
    resident,
    server_context,
    shake,
)

NAME_SIZE = 16


def some_key(name=None):
    return (name or os.urandom(NAME_SIZE)) + os.urandom(KEY_SIZE - NAME_SIZE)


def keys_of(*material):
    keys = TicketKeys()
    keys.replace(material)
    return keys


def connect(client, server):
    """A connection over memory; returns the server's end. With TLS 1.3 the ticket comes with the first data."""
    near, far = Engine(client, session_key="peer"), Engine(server)
    shake(near, far)
    assert near.decrypt(far.encrypt(b"x")) == b"x"
    assert near.session_reused == far.session_reused
    return far


class SslClient:
    """The ssl module's client over memory."""

    def __init__(self, version):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.minimum_version = self.context.maximum_version = version
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.session = None

    def exchange(self, answer_to):
        """`answer_to` takes bytes to the server and returns its answer, in the end a byte of data too. Returns whether the
        session was resumed, and that byte."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        end = self.context.wrap_bio(incoming, outgoing, session=self.session)
        done = False
        while not done:
            try:
                end.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            if outgoing.pending:
                incoming.write(answer_to(outgoing.read()))
        word = end.read(1)  # with TLS 1.3 the ticket comes before it
        self.session = end.session
        return end.session_reused, word

    def connect(self, server):
        """Returns whether the session was resumed; both ends agree on it."""
        engine = Engine(server)

        def answer_to(data):
            shaking = not engine.handshake_done
            engine.decrypt(data)
            answer = engine.take()
            if shaking and engine.handshake_done:
                answer += engine.encrypt(b"1" if engine.session_reused else b"0")
            return answer

        resumed, word = self.exchange(answer_to)
        assert word == (b"1" if resumed else b"0")
        return resumed

    def hello(self):
        """What it would say next: the ticket it has is in it in the clear."""
        outgoing = ssl.MemoryBIO()
        end = self.context.wrap_bio(ssl.MemoryBIO(), outgoing, session=self.session)
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
        return outgoing.read()


def hello_of(client):
    """What our client would say next. TLS 1.3 offers a ticket once, so it is gone then."""
    return Engine(client, session_key="peer").start()


def ticket_in(hello, name):
    """The ticket that was sealed with the key of that name."""
    start = hello.index(name)
    size = int.from_bytes(hello[start - 2 : start], "big")
    return hello[start : start + size]


# whose sessions are resumed


def test_contexts_that_share_keys_resume_each_others_sessions(version):
    keys, client = TicketKeys(), client_context(version)
    servers = [server_context(version, ticket_keys=keys) for _ in range(3)]
    assert not connect(client, servers[0]).session_reused
    for server in (servers[1], servers[2], servers[0]):
        assert connect(client, server).session_reused


def test_contexts_with_other_keys_do_not(version):
    client = client_context(version)
    connect(client, server_context(version, ticket_keys=TicketKeys()))
    assert not connect(client, server_context(version, ticket_keys=TicketKeys())).session_reused
    assert not connect(client, server_context(version)).session_reused


def test_the_ssl_modules_client_resumes_across_contexts(version):
    keys, client = TicketKeys(), SslClient(version)
    resumed = [client.connect(server_context(version, ticket_keys=keys)) for _ in range(4)]
    assert resumed == [False, True, True, True]


def test_tickets_say_how_long_they_live(version):
    client = SslClient(version)
    client.connect(server_context(version, ticket_keys=TicketKeys()))
    assert client.session.ticket_lifetime_hint == TICKET_LIFETIME


SERVER_PROCESS = """
import sys
from sslsock.core.context import VERIFY_NONE, Context
from sslsock.core.engine import Engine
from sslsock.core.ticket_keys import TicketKeys
from sslsock.core.certificate import SslCertificate
from sslsock.core.key import SslKey

def read():
    return sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))

keys = TicketKeys()
keys.replace([read()])
engine = Engine(Context(server_side=True, certificate=SslCertificate(read()), private_key=SslKey(read()),
                        verify_mode=VERIFY_NONE, use_system_ca=False, ticket_keys=keys))
greeted = False
while not greeted:
    engine.decrypt(read())
    answer = engine.take()
    if engine.handshake_done:
        greeted = True
        answer += engine.encrypt(b"1" if engine.session_reused else b"0")
    sys.stdout.buffer.write(b"%d\\n" % len(answer) + answer)
    sys.stdout.buffer.flush()
"""


def test_a_session_of_one_process_is_resumed_by_another(version):
    leaf = authority("first").issue_cert("localhost")
    start = (some_key(), leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())
    client, seen = SslClient(version), []
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", SERVER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

            def write(data, to=process.stdin):
                to.write(b"%d\n" % len(data) + data)
                to.flush()

            def answer_to(data, write=write, answers=process.stdout):
                write(data)
                return answers.read(int(answers.readline()))

            for part in start:
                write(part)
            seen.append(client.exchange(answer_to))
        assert process.returncode == 0
    assert seen == [(False, b"0"), (True, b"1"), (True, b"1")]


def test_the_order_of_the_bytes_is_openssls(version):
    """Opens a ticket, laid out as in RFC 5077, 4, with the key laid out as for SSL_CTX_set_tlsext_ticket_keys."""
    key = some_key()
    client = SslClient(version)
    client.connect(server_context(version, ticket_keys=keys_of(key)))
    ticket = ticket_in(client.hello(), key[:16])
    assert hmac.digest(key[16:48], ticket[:-32], "sha256") == ticket[-32:]
    opener = Cipher(algorithms.AES(key[48:80]), modes.CBC(ticket[16:32])).decryptor()
    assert opener.update(ticket[32:-32])[:1] == b"\x30", "the sealed state is no DER sequence"


# policies


def mutual(version, by="first", **settings):
    """A server that demands a certificate of the authority `by`."""
    settings = {"verify_mode": VERIFY_PEER, "ca_certificates": [identity(by=by).authority], **settings}
    return server_context(version, **settings)


def client_with_certificate(version):
    own = identity()
    return client_context(
        version,
        certificate=own.certificate,
        private_key=own.key,
        ca_certificates=[own.authority, identity(by="second").authority],
    )


def test_a_client_certificate_is_known_where_its_session_is_resumed(version):
    keys, client = TicketKeys(), client_with_certificate(version)
    connect(client, mutual(version, ticket_keys=keys))
    server = connect(client, mutual(version, ticket_keys=keys))
    assert server.session_reused and server.peer_certificate_chain()[0] == identity().certificate


def test_a_session_without_a_certificate_does_not_open_a_server_that_demands_one(version):
    keys, client = TicketKeys(), client_context(version)
    for mode in (VERIFY_NONE, VERIFY_QUERY):
        connect(client, mutual(version, verify_mode=mode, ticket_keys=keys))
        with pytest.raises(TlsError, match="did not return a certificate"):
            connect(client, mutual(version, ticket_keys=keys))


def test_a_session_of_one_authoritys_client_does_not_open_the_server_of_another(version):
    keys, client = TicketKeys(), client_with_certificate(version)
    connect(client, mutual(version, ticket_keys=keys))
    with pytest.raises(TlsError, match="certificate verify failed"):
        connect(client, mutual(version, "second", ticket_keys=keys))


def test_a_session_with_ignored_errors_is_not_resumed_elsewhere(version):
    keys, client = TicketKeys(), client_with_certificate(version)
    for _ in range(3):
        server = connect(client, mutual(version, "second", verify_mode=VERIFY_QUERY, ticket_keys=keys))
        assert not server.session_reused and server.verify_errors


def trusted_for_clients(authority):
    """`openssl x509 -trustout -addtrust clientAuth`: X509_CERT_AUX with the one object identifier."""
    settings = bytes.fromhex("300c 300a 0608 2b06010505070302")
    text = base64.encodebytes(authority.to_der() + settings).decode()
    return SslCertificate(f"-----BEGIN TRUSTED CERTIFICATE-----\n{text}-----END TRUSTED CERTIFICATE-----\n")


POLICIES = {
    "verification mode": {"verify_mode": VERIFY_QUERY},
    "verification depth": {"verify_depth": 5},
    "the system's authorities": {"use_system_ca": True},
    "an authority more": {"ca_certificates": [identity().authority, identity(by="second").authority]},
    "trust settings of an authority": {"ca_certificates": [trusted_for_clients(identity().authority)]},
    "certificate": {
        "certificate": identity(by="second").certificate,
        "private_key": identity(by="second").key,
    },
    "a certificate more": {"certificates": [(identity("rsa").certificate, [], identity("rsa").key)]},
    "protocol": {"minimum_protocol": TLS_1_2, "maximum_protocol": 0},
    "ciphers": {"ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"},
    "ciphersuites": {"ciphersuites": "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"},
    "groups": {"groups": "P-256"},
    "signature algorithms": {"signature_algorithms": "ECDSA+SHA256:RSA-PSS+SHA256"},
    "session context": {"session_context": b"another"},
}


@pytest.mark.parametrize("policy", POLICIES)
def test_other_settings_are_another_policy(policy):
    keys, client = TicketKeys(), client_with_certificate(0)
    usual = {"minimum_protocol": TLS_1_3, "ticket_keys": keys}
    connect(client, mutual(0, **usual))
    assert connect(client, mutual(0, **usual)).session_reused
    assert not connect(client, mutual(0, **{**usual, **POLICIES[policy]})).session_reused


def test_the_same_settings_in_another_order_are_the_same_policy(version):
    keys, client = TicketKeys(), client_context(version)
    rsa, ecdsa = identity("rsa"), identity()
    authorities = [rsa.authority, identity(by="second").authority]
    pairs = [(rsa.certificate, [], rsa.key), (ecdsa.certificate, [], ecdsa.key)]
    own = {"certificate": None, "private_key": None, "verify_mode": VERIFY_QUERY, "ticket_keys": keys}
    connect(client, server_context(version, ca_certificates=authorities, certificates=pairs, **own))
    server = server_context(version, ca_certificates=[*reversed(authorities), authorities[0]], certificates=pairs[::-1], **own)
    assert connect(client, server).session_reused


def test_settings_that_authorise_nothing_may_differ(version):
    keys, client = TicketKeys(), client_context(version, next_protocols=[b"h2", b"http/1.1"])
    connect(client, server_context(version, ticket_keys=keys, next_protocols=[b"h2"]))
    server = connect(client, server_context(version, ticket_keys=keys, next_protocols=[b"http/1.1"]))
    assert server.session_reused and server.next_protocol == b"http/1.1"


def test_a_session_context_joins_servers_with_different_certificates(version):
    keys, client = TicketKeys(), client_context(version)
    kinds = [identity(), identity("rsa")]
    servers = [
        server_context(version, ticket_keys=keys, session_context=b"shop", certificate=own.certificate, private_key=own.key)
        for own in kinds
    ]
    connect(client, servers[0])
    assert connect(client, servers[1]).session_reused


def test_a_session_context_does_not_join_other_policies(version):
    keys, client = TicketKeys(), client_context(version)
    connect(client, mutual(version, verify_mode=VERIFY_NONE, ticket_keys=keys, session_context=b"shop"))
    with pytest.raises(TlsError, match="did not return a certificate"):
        connect(client, mutual(version, ticket_keys=keys, session_context=b"shop"))


def test_a_cipher_that_is_no_longer_allowed_does_not_come_back():
    keys, client = TicketKeys(), client_context(TLS_1_2)
    old, new = "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES256-GCM-SHA384"
    connect(client, server_context(TLS_1_2, ticket_keys=keys, ciphers=old))
    server = connect(client, server_context(TLS_1_2, ticket_keys=keys, ciphers=new))
    assert not server.session_reused and server.cipher == new


def test_they_are_a_servers():
    with pytest.raises(ConfigurationError, match="are for servers"):
        client_context(ticket_keys=TicketKeys())
    with pytest.raises(ConfigurationError, match="are for servers"):
        client_context(session_context=b"x")
    with pytest.raises(TypeError):
        server_context(ticket_keys=[some_key()])
    for wrong in ("text", None):
        with pytest.raises(TypeError):
            server_context(session_context=wrong)


# which key


def test_the_first_key_seals(version):
    keys, client = keys_of(some_key(), some_key()), SslClient(version)
    client.connect(server_context(version, ticket_keys=keys))
    hello = client.hello()
    assert [name in hello for name in keys.names] == [True, False]


@pytest.mark.parametrize("place", [1, 2, MOST_KEYS - 1])
def test_another_key_opens_and_the_ticket_is_renewed(version, place):
    old = some_key()
    keys, client = keys_of(old), SslClient(version)
    server = server_context(version, ticket_keys=keys)
    client.connect(server)
    material = [some_key() for _ in range(MOST_KEYS)]
    material[place] = old
    keys.replace(material)
    assert client.connect(server)
    hello = client.hello()
    assert keys.names[0] in hello and old[:16] not in hello


def test_our_client_keeps_a_renewed_ticket(version):
    """It lives through the replacement of all keys, if it comes once in the time of each."""
    material = [some_key() for _ in range(5)]
    keys, client = keys_of(material[0]), client_context(version)
    server = server_context(version, ticket_keys=keys)
    assert not connect(client, server).session_reused
    for old, new in zip(material, material[1:]):
        keys.replace([new, old])
        assert connect(client, server).session_reused
        keys.replace([new])
    hello = hello_of(client)
    assert keys.names[0] in hello and not any(old[:16] in hello for old in material[:-1])


def test_our_client_keeps_a_ticket_that_was_not_renewed():
    keys, client = TicketKeys(), client_context(TLS_1_2)
    server = server_context(TLS_1_2, ticket_keys=keys)
    assert not connect(client, server).session_reused
    before = ticket_in(hello_of(client), keys.names[0])
    for _ in range(3):
        assert connect(client, server).session_reused
    assert ticket_in(hello_of(client), keys.names[0]) == before


def test_a_ticket_of_tls_1_2_stays_as_long_as_its_key_is_the_first():
    keys, client = TicketKeys(), SslClient(TLS_1_2)
    server = server_context(TLS_1_2, ticket_keys=keys)
    client.connect(server)
    before = ticket_in(client.hello(), keys.names[0])
    assert client.connect(server)
    assert ticket_in(client.hello(), keys.names[0]) == before


def test_each_connection_of_tls_1_3_brings_another_ticket():
    keys, client, tickets = TicketKeys(), SslClient(TLS_1_3), set()
    server = server_context(TLS_1_3, ticket_keys=keys)
    for connection in range(6):
        assert client.connect(server) == (connection > 0)
        tickets.add(ticket_in(client.hello(), keys.names[0]))
    assert len(tickets) == 6


def test_two_tickets_of_one_key_have_nothing_in_common(version):
    keys, tickets = TicketKeys(), []
    for _ in range(2):
        client = SslClient(version)
        client.connect(server_context(version, ticket_keys=keys))
        tickets.append(ticket_in(client.hello(), keys.names[0]))
    assert tickets[0][:16] == tickets[1][:16]
    assert tickets[0][16:32] != tickets[1][16:32], "the initialisation vector was used twice"


def test_a_dropped_key_means_a_full_handshake(version):
    keys, client = TicketKeys(), SslClient(version)
    server = server_context(version, ticket_keys=keys)
    client.connect(server)
    keys.replace([some_key()])
    assert not client.connect(server)
    assert client.connect(server)


def test_the_same_name_with_other_keys_means_a_full_handshake(version):
    keys, client = TicketKeys(), SslClient(version)
    server = server_context(version, ticket_keys=keys)
    client.connect(server)
    keys.replace([some_key(keys.names[0])])
    assert not client.connect(server)


def resumes(server, hello):
    """Whether the server's first answer to this ClientHello goes on with a session."""
    engine = Engine(server)
    engine.decrypt(hello)
    answer = engine.take()
    if engine.protocol == TLS_1_3:
        return b"\x00\x29\x00\x02\x00\x00" in answer  # pre_shared_key, the first identity: RFC 8446, 4.2.11
    return identity().certificate.to_der() not in answer


def test_a_changed_ticket_means_a_full_handshake(version):
    keys, client = TicketKeys(), SslClient(version)
    server = server_context(version, ticket_keys=keys)
    client.connect(server)
    hello = client.hello()
    assert resumes(server, hello)
    ticket = ticket_in(hello, keys.names[0])
    start = hello.index(ticket)
    for place in range(len(ticket)):
        changed = bytearray(hello)
        changed[start + place] ^= 1 << place % 8
        assert not resumes(server, bytes(changed)), f"byte {place} of the ticket is not protected"
    rubbish = hello[:start] + keys.names[0] + os.urandom(len(ticket) - NAME_SIZE) + hello[start + len(ticket) :]
    assert not resumes(server, rubbish)


# how long


def change_ticket(hello, key, change):
    """The hello with its ticket opened, changed (`change` takes and returns the sealed state) and sealed again."""
    ticket = ticket_in(hello, key[:16])
    sealing = Cipher(algorithms.AES(key[48:80]), modes.CBC(ticket[16:32]))
    opener, sealer = sealing.decryptor(), sealing.encryptor()
    state = opener.update(ticket[32:-32]) + opener.finalize()
    changed = change(state)
    assert len(changed) == len(state)
    body = ticket[:32] + sealer.update(changed) + sealer.finalize()
    return hello.replace(ticket, body + hmac.digest(key[16:48], body, "sha256"))


def accepts(server, hello):
    """Whether the server takes the ticket. With TLS 1.3 the changed hello then fails at the proof over it (4.2.11.2)."""
    try:
        return resumes(server, hello)
    except TlsError as error:
        assert "binder does not verify" in str(error)
        return True


def since(seconds):
    """A change: the full handshake was so many seconds ago."""
    begun = int(time.time())

    def change(state):
        for guess in range(begun - 30, begun + 1):
            if guess.to_bytes(8, "big") in state:
                return state.replace(guess.to_bytes(8, "big"), (begun - seconds).to_bytes(8, "big"))
        raise AssertionError("the ticket does not bear the time of its handshake")

    return change


@pytest.mark.parametrize(("seconds", "accepted"), [(0, True), (86000, True), (86500, False), (10**9, False)])
def test_a_session_is_resumed_for_a_day_after_its_full_handshake(version, seconds, accepted):
    key, client = some_key(), SslClient(version)
    server = server_context(version, ticket_keys=keys_of(key))
    for connection in range(3):
        assert client.connect(server) == (connection > 0)
        hello = change_ticket(client.hello(), key, since(seconds))
        assert accepts(server, hello) == accepted


def test_a_resumption_does_not_begin_the_day_anew():
    """TLS 1.2 shows a renewed ticket on the wire."""
    old, new = some_key(), some_key()
    keys, client = keys_of(old), SslClient(TLS_1_2)
    server = server_context(TLS_1_2, ticket_keys=keys)
    client.connect(server)
    hello = change_ticket(client.hello(), old, since(80000))
    keys.replace([new, old])
    engine = Engine(server)
    engine.decrypt(hello)
    renewed = ticket_in(engine.take(), new[:16])
    now = int(time.time())
    opener = Cipher(algorithms.AES(new[48:80]), modes.CBC(renewed[16:32])).decryptor()
    state = opener.update(renewed[32:-32])
    assert any((now - ago).to_bytes(8, "big") in state for ago in range(79999, 80031))


@pytest.mark.parametrize(("year", "accepted"), [(b"48", True), (b"20", False)])
def test_a_session_ends_with_the_clients_certificate(version, year, accepted):
    key = some_key()
    server = mutual(version, ticket_keys=keys_of(key))
    own = short_identity()
    client = client_context(version, certificate=own.certificate, private_key=own.key)
    connect(client, server)
    ends = f"{own.certificate.not_after:%y%m%d%H%M%SZ}".encode()

    def change(state):
        assert state.count(ends) == 1
        return state.replace(ends, year + ends[2:])  # both are leap years: each day of this year is one of theirs

    assert accepts(server, change_ticket(hello_of(client), key, change)) == accepted


def short_identity():
    """A client certificate that ends before 2050, which trustme's do not: only then its end is written as UTCTime."""
    tomorrow = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    leaf = authority("first").issue_cert("client", not_after=tomorrow)
    return Identity(
        SslCertificate(leaf.cert_chain_pems[0].bytes()),
        SslKey(leaf.private_key_pem.bytes()),
        identity().authority,
    )


# changing the keys


def test_rotate_puts_a_key_in_front_and_keeps_the_older_ones():
    keys = TicketKeys(older=2)
    seen = [keys.names[0]]
    for _ in range(5):
        keys.rotate()
        seen.insert(0, keys.names[0])
        assert keys.names == seen[:3]
    assert len(set(seen)) == 6


def test_rotate_bounds_what_was_replaced():
    material = [some_key() for _ in range(MOST_KEYS)]
    for older in (0, 1, MOST_KEYS - 1):
        keys = TicketKeys(older=older)
        keys.replace(material)
        keys.rotate()
        assert keys.names[1:] == [key[:16] for key in material[:older]]
        assert keys.older == older


def test_sessions_live_through_as_many_rotations_as_keys_are_kept(version):
    keys = TicketKeys(older=2)
    server = server_context(version, ticket_keys=keys)
    for rotations in range(4):
        client = client_context(version)
        connect(client, server)
        for _ in range(rotations):
            keys.rotate()
        assert connect(client, server).session_reused == (rotations <= 2)


@pytest.mark.parametrize("older", [-1, MOST_KEYS, 10**6])
def test_an_impossible_number_of_older_keys_is_refused(older):
    with pytest.raises(ValueError, match="older is 0 to 15"):
        TicketKeys(older=older)


REFUSED = {
    "none": ([], "there are 1 to 16 ticket keys, not 0"),
    "seventeen": ([some_key() for _ in range(17)], "there are 1 to 16 ticket keys, not 17"),
    "48 bytes": ([some_key(), bytes(48)], "ticket key 2 has 48 bytes, not 80"),
    "a byte less": ([bytes(79)], "ticket key 1 has 79 bytes, not 80"),
    "a byte more": ([bytes(81)], "ticket key 1 has 81 bytes, not 80"),
    "empty": ([b""], "ticket key 1 has 0 bytes, not 80"),
    "a name twice": ([some_key(b"n" * 16), some_key(), some_key(b"n" * 16)], "ticket key 3 has the name of one before it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_keys_are_refused_and_the_old_ones_stay(case):
    material, message = REFUSED[case]
    keys = TicketKeys()
    before = keys.names
    with pytest.raises(ValueError, match=message):
        keys.replace(material)
    assert keys.names == before


@pytest.mark.parametrize("wrong", [None, 1, ["text" * 20], [None], [some_key(), 80]])
def test_what_is_not_bytes_is_a_type_error(wrong):
    keys = TicketKeys()
    before = keys.names
    with pytest.raises(TypeError):
        keys.replace(wrong)
    assert keys.names == before


def test_any_bytes_like_key_serves():
    material = [some_key() for _ in range(3)]
    keys = TicketKeys()
    keys.replace(kind(key) for kind, key in zip((bytes, bytearray, memoryview), material))
    assert keys.names == [key[:16] for key in material]


def test_secrets_do_not_show():
    key = some_key()
    keys = keys_of(key)
    assert repr(keys) == f"<TicketKeys, first {key[:16].hex()}, 1 in all>"
    with pytest.raises(TypeError):
        pickle.dumps(keys)


# lives


def test_connections_outlive_the_names_of_what_they_use(version):
    client = client_context(version)
    near, far = Engine(client, session_key="peer"), Engine(server_context(version, ticket_keys=TicketKeys()))
    gc.collect()
    shake(near, far)
    assert near.decrypt(far.encrypt(b"x")) == b"x"


CHANGES = 20


def under_change(change, work, workers=3):
    """Runs `work` in several threads, again and again until `change(0)`, `change(1)` and so on have been called meanwhile."""
    failures, changes = [], 0

    def run():
        try:
            work()
            while changes < CHANGES:
                work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            change(changes)
            changes += 1
    finally:
        changes = CHANGES
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def test_no_ticket_is_lost_while_the_keys_change_places(version):
    """Every state in between has both keys, so each session must be resumed, whichever moment its connection meets."""
    one, other = some_key(), some_key()
    keys = keys_of(one, other)
    fill = [some_key() for _ in range(MOST_KEYS - 2)]
    orders = [[one, other], [other, one], [other, *fill, one], [one, *fill, other]]

    def work():
        client, server = SslClient(version), server_context(version, ticket_keys=keys)
        assert not client.connect(server)
        for _ in range(60):
            assert client.connect(server)

    under_change(lambda count: keys.replace(orders[count % len(orders)]), work)


def test_handshakes_go_on_while_keys_rotate(version):
    keys = TicketKeys()
    reused = []

    def work():
        client = client_context(version)
        for _ in range(60):
            reused.append(connect(client, server_context(version, ticket_keys=keys)).session_reused)

    under_change(lambda count: keys.rotate(), work)
    assert len(reused) >= 180 and len(keys.names) == 3


def test_contexts_and_keys_leave_no_memory_behind(version):
    keys = TicketKeys()
    client = client_context(version)

    def round_of(count):
        for _ in range(count):
            connect(client, server_context(version, ticket_keys=keys))
            keys.rotate()
            server_context(version, ticket_keys=TicketKeys())
        gc.collect()

    round_of(100)
    before = resident()
    round_of(400)
    assert SANITIZED or resident() - before < 512, "KiB grew with contexts and keys"
