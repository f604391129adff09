"""After a HelloRetryRequest a client says the same again (RFC 8446, 4.1.2): what a program has decided by the first ClientHello
holds for the second.
"""

import pytest

from sslsock.core.engine import Engine, TlsError

from .libssl import SET_GROUPS, SET_MIN_PROTOCOL, Libssl, PeerError, calls_libssl, shake_hands
from .pairs import TLS_1_2, TLS_1_3, client_context, server_context, shake

pytestmark = calls_libssl

FAR_GROUPS = "X448:P-256"  # the client guesses the first, a server of ours takes the second
SET_SIGNATURES = 98  # openssl/ssl.h
HELLO_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")  # RFC 8446, 4.1.3
RECORD_HEADER, MESSAGE_HEADER = 5, 4
RANDOM = RECORD_HEADER + MESSAGE_HEADER + 2
SESSION_ID = RANDOM + 32 + 1


def waiting(server, name=b"public.example", before=lambda peer: None):
    """A client that has got a HelloRetryRequest, which `shake` answers."""
    peer = Libssl(TLS_1_3, groups=FAR_GROUPS)
    peer.set_server_name(name)
    peer.set_next_protocols(b"\x02h2")
    before(peer)
    assert not peer.shake()
    server.decrypt(peer.take())
    answer = server.take()
    assert HELLO_RETRY in answer, "no HelloRetryRequest"
    peer.feed(answer)
    return peer


def refused(server, peer, hello):
    """That the server refuses this second ClientHello, and says so."""
    with pytest.raises(TlsError, match="second ClientHello") as caught:
        server.decrypt(hello)
    assert caught.value.handshaking and caught.value.alert is None
    peer.feed(server.take())
    with pytest.raises(PeerError, match="illegal parameter"):
        peer.shake()
    assert not server.handshake_done


CHANGES = {
    "server name": lambda peer: peer.set_server_name(b"admin.example"),
    "server name in another case": lambda peer: peer.set_server_name(b"PUBLIC.example"),
    "no server name": lambda peer: peer.set_server_name(None),
    "protocols": lambda peer: peer.set_next_protocols(b"\x08http/1.1"),
    "no protocols": lambda peer: peer.set_next_protocols(b""),
    "one protocol more": lambda peer: peer.set_next_protocols(b"\x02h2\x08http/1.1"),
    "cipher suites": lambda peer: peer.must("SSL_set_ciphersuites", peer.ssl, b"TLS_AES_128_GCM_SHA256"),
    "groups": lambda peer: peer.control(SET_GROUPS, 0, b"X448:P-256:P-384"),
    "signature algorithms": lambda peer: peer.control(SET_SIGNATURES, 0, b"ECDSA+SHA256"),
    "versions": lambda peer: peer.control(SET_MIN_PROTOCOL, TLS_1_2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_second_client_hello_that_says_something_else(change):
    server = Engine(server_context(next_protocols=[b"h2", b"http/1.1"]))
    peer = waiting(server)
    change(peer)
    peer.shake()
    refused(server, peer, peer.take())
    assert server.requested_server_name in (None, "public.example")


@pytest.mark.parametrize("place", [RANDOM, RANDOM + 31, SESSION_ID], ids=["random", "end of random", "session id"])
def test_a_second_client_hello_of_another_client(place):
    server = Engine(server_context())
    peer = waiting(server)
    peer.shake()
    flight = bytearray(peer.take())
    start = flight.index(b"\x16\x03")  # behind the change_cipher_spec of RFC 8446, D.4
    flight[start + place] ^= 1
    refused(server, peer, flight)


def test_the_same_again_is_served():
    server = Engine(server_context(next_protocols=[b"h2"]))
    peer = waiting(server)
    for _ in range(3):
        peer.shake()
        server.decrypt(peer.take())
        peer.feed(server.take())
    assert server.handshake_done
    assert (server.requested_server_name, server.next_protocol, server.group) == ("public.example", b"h2", "secp256r1")
    assert server.decrypt(peer.write(b"question")) == b"question"


@pytest.mark.parametrize("resumed", [False, True], ids=["full", "resumed"])
def test_clients_of_ours_are_served(resumed):
    """Resumed: the second ClientHello has another pre_shared_key, as it must."""
    client_settings, server_settings = client_context(groups=FAR_GROUPS), server_context()
    for number in range(1 + resumed):
        client = Engine(client_settings, server_name="localhost", verify_name="localhost", session_key="it")
        server = Engine(server_settings)
        assert shake(client, server) > 1, "there was no HelloRetryRequest"
        assert client.session_reused == (number == 1)
        assert server.decrypt(client.encrypt(b"question")) == b"question"


def test_who_needs_no_retry_is_not_compared_with_others(version):
    settings = server_context()
    for name in (b"one.example", b"two.example"):
        server, peer = Engine(settings), Libssl(version)
        peer.set_server_name(name)
        shake_hands(peer, server)
        assert server.requested_server_name == name.decode()
