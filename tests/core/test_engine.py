"""The engine over memory: no sockets, no clock."""

import contextlib
import os
import ssl
import threading
import time

import pytest

from sslsock.core.context import VERIFY_NONE, VERIFY_PEER, VERIFY_QUERY, Context
from sslsock.core.engine import Engine, TlsError
from sslsock.core.issue import issue_certificate, make_authority
from sslsock.core.key import SslKey

from .pairs import (
    DEADLINE,
    MIB,
    RECORD,
    SANITIZED,
    TLS_1_2,
    TLS_1_3,
    client_context,
    engines,
    feed,
    identity,
    pieces,
    resident,
    server_context,
    shake,
)

SPLITS = [None, 1, 7, "records", "offset records"]
SIZES = [0, 1, 2, 100, RECORD - 1, RECORD, RECORD + 1, 5 * RECORD, 100_003, MIB, MIB + 1]


# data


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_a_connection_works_with_each_kind_of_certificate(version, kind):
    client, server = engines(version, kind, verify_name="localhost")
    assert client.protocol == server.protocol == version
    assert client.cipher == server.cipher != ""
    assert server.decrypt(client.encrypt(b"question")) == b"question"
    assert client.decrypt(server.encrypt(b"answer")) == b"answer"
    assert client.peer_certificate_chain()[0] == identity(kind).certificate
    assert server.peer_certificate_chain() == []
    assert client.verify_errors == []


@pytest.mark.parametrize("split", SPLITS)
def test_handshake_data_and_close_survive_any_split(version, split):
    client, server = engines(version, split=split)
    data = os.urandom(3 * RECORD + 11)
    assert feed(server, client.encrypt(data), split) == data
    assert feed(client, server.encrypt(data), split) == data
    assert feed(server, client.close(), split) == b""
    assert server.peer_closed and not client.peer_closed
    assert feed(client, server.close(), split) == b""
    assert client.peer_closed


def test_data_and_close_glued_to_the_last_handshake_message_arrive(version):
    client = Engine(client_context(version))
    server = Engine(server_context(version))
    to_server = client.start()
    server.decrypt(to_server)
    client.decrypt(server.take())
    if version == TLS_1_2:
        server.decrypt(client.take())
        to_client = server.take() + server.encrypt(b"first words") + server.close()
        assert client.decrypt(to_client) == b"first words"
        assert client.peer_closed and client.handshake_done
    else:
        to_server = client.take() + client.encrypt(b"first words") + client.close()
        assert server.decrypt(to_server) == b"first words"
        assert server.peer_closed and server.handshake_done


@pytest.mark.parametrize("size", SIZES)
def test_every_size_arrives_whole(version, size):
    client, server = engines(version)
    data = os.urandom(size)
    assert server.decrypt(client.encrypt(data)) == data
    assert server.decrypt(client.encrypt(bytearray(data))) == data
    assert client.decrypt(server.encrypt(memoryview(data))) == data


def test_many_sizes_one_after_the_other_arrive(version):
    client, server = engines(version)
    for size in [1, MIB, 0, 17, RECORD + 1, 3, RECORD * 2, 1]:
        data = os.urandom(size)
        assert server.decrypt(client.encrypt(data)) == data


@pytest.mark.parametrize("room", [1, 3, 1000, RECORD, 2 * MIB])
def test_decrypt_into_gives_the_rest_in_later_calls(version, room):
    client, server = engines(version)
    data = os.urandom(2 * RECORD + 5)
    wire, buffer, got = client.encrypt(data), bytearray(room), bytearray()
    count = server.decrypt_into(wire, buffer)
    while count:
        got += buffer[:count]
        count = server.decrypt_into(b"", buffer)
    assert got == data


def test_decrypt_into_an_empty_buffer_loses_nothing(version):
    client, server = engines(version)
    assert server.decrypt_into(client.encrypt(b"kept"), bytearray()) == 0
    assert server.decrypt(b"") == b"kept"


def test_decrypt_into_in_place(version):
    client, server = engines(version)
    data = os.urandom(4 * RECORD)
    buffer = bytearray(client.encrypt(data))
    view = memoryview(buffer)
    count = server.decrypt_into(view, view)
    assert buffer[:count] == data


def test_decrypt_into_wants_a_writable_buffer(version):
    client, server = engines(version)
    with pytest.raises((TypeError, BufferError)):
        server.decrypt_into(client.encrypt(b"x"), b"fixed")
    with pytest.raises(TypeError):
        server.decrypt("text")
    with pytest.raises(TypeError):
        client.encrypt(None)
    assert server.decrypt(client.encrypt(b"still there")[:0]) == b""


def test_a_buffer_is_given_back_after_each_call(version):
    client, server = engines(version)
    wire = bytearray(client.encrypt(b"x"))
    room = bytearray(100)
    server.decrypt_into(wire, room)
    wire.append(0)  # BufferError if a view were left
    room.append(0)
    plain = bytearray(b"plain")
    client.encrypt(plain)
    plain.append(0)
    with pytest.raises(TlsError):
        server.decrypt(garbage := bytearray(b"no record " * 10))
    garbage.append(0)


def test_both_directions_at_once_do_not_mix(version):
    client, server = engines(version)
    to_server = client.encrypt(b"a" * 50_000)
    to_client = server.encrypt(b"b" * 50_000)
    assert client.decrypt(to_client) == b"b" * 50_000
    assert server.decrypt(to_server) == b"a" * 50_000


# the order of calls


def test_nothing_is_encrypted_before_the_handshake(version):
    client = Engine(client_context(version))
    with pytest.raises(RuntimeError, match="before the handshake"):
        client.encrypt(b"too early")
    client.start()
    with pytest.raises(RuntimeError, match="before the handshake"):
        client.encrypt(b"too early")
    assert client.protocol == 0 and client.group == "" and client.next_protocol is None


def test_nothing_is_encrypted_after_close(version):
    client, server = engines(version)
    assert server.decrypt(client.close()) == b""
    with pytest.raises(RuntimeError, match="after close"):
        client.encrypt(b"too late")
    assert client.close() == b""
    assert client.decrypt(server.encrypt(b"the other direction is open")) == b"the other direction is open"


def test_close_before_the_handshake_says_nothing(version):
    assert Engine(client_context(version)).close() == b""


@pytest.mark.parametrize("first", [0, 1], ids=["client first", "server first"])
def test_both_close_in_either_order(version, first):
    ends = engines(version)
    one, other = ends[first], ends[1 - first]
    assert other.decrypt(one.close()) == b"" and other.peer_closed
    assert one.decrypt(other.close()) == b"" and one.peer_closed


def test_close_of_both_at_once(version):
    client, server = engines(version)
    to_server, to_client = client.close(), server.close()
    client.decrypt(to_client)
    server.decrypt(to_server)
    assert client.peer_closed and server.peer_closed


def test_a_stream_that_is_cut_does_not_count_as_closed(version):
    client, server = engines(version)
    wire = client.encrypt(b"only half of this record comes")
    assert server.decrypt(wire[:-5]) == b""
    assert not server.peer_closed


CLOSE_NOTIFY, USER_CANCELED = (b"\x15\x03\x03\x00\x02\x01" + number for number in (b"\x00", b"\x5a"))  # RFC 8446, 6 and 6.1


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("alerts", [CLOSE_NOTIFY, USER_CANCELED + CLOSE_NOTIFY], ids=["close_notify", "user_canceled before"])
def test_close_notify_ends_a_handshake(version, server_side, alerts):
    """Nothing can come of it, whether the peer closes the connection then or not."""
    client, server = Engine(client_context(version)), Engine(server_context(version))
    hello = client.start()
    engine = client
    if server_side:
        server.decrypt(hello)
        engine = server
    with pytest.raises(TlsError, match="closed the connection during the handshake") as caught:
        engine.decrypt(alerts)
    assert caught.value.handshaking and engine.peer_closed and not engine.handshake_done
    with pytest.raises(TlsError):
        engine.decrypt(b"")


def test_what_comes_after_close_notify_is_ignored_and_not_kept(version):
    client, server = engines(version)
    server.decrypt(client.close())
    before = resident()
    for _ in range(64):
        assert server.decrypt(bytes(MIB)) == b""
    assert SANITIZED or resident() - before < 32_000


# bad input


def test_plain_http_is_named(version):
    server = Engine(server_context(version))
    with pytest.raises(TlsError, match="http request") as caught:
        server.decrypt(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert caught.value.handshaking and caught.value.alert is None
    with pytest.raises(TlsError, match="http request"):
        server.decrypt(b"more")


@pytest.mark.parametrize("data", [b"\xff" * 100, b"SSH-2.0-OpenSSH\r\n", bytes(1000)], ids=["ff", "ssh", "zeroes"])
def test_what_is_not_tls_fails_on_both_sides(version, data):
    for engine in (Engine(server_context(version)), Engine(client_context(version))):
        engine.start()
        with pytest.raises(TlsError) as caught:
            engine.decrypt(data)
        assert caught.value.reason and caught.value.handshaking


def test_random_bytes_never_do_more_than_fail(version):
    server_settings = server_context(version)
    for size in (1, 5, 6, 50, 20_000):
        server = Engine(server_settings)
        try:
            for piece in pieces(os.urandom(size), 7):
                server.decrypt(piece)
        except TlsError:
            pass


def test_a_record_longer_than_allowed_fails(version):
    client, server = engines(version)
    with pytest.raises(TlsError) as caught:
        server.decrypt(b"\x17\x03\x03" + (RECORD + 3000).to_bytes(2, "big") + bytes(RECORD + 3000))
    assert not caught.value.handshaking
    with pytest.raises(TlsError) as caught:
        client.decrypt(server.take())
    assert caught.value.alert == "record overflow"


def test_an_endless_handshake_message_is_refused(version):
    server = Engine(server_context(version))
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(RECORD - 4)
    with pytest.raises(TlsError):
        for _ in range(200):
            server.decrypt(record)


def test_a_tampered_record_fails_and_says_so_to_the_peer(version):
    client, server = engines(version)
    wire = bytearray(client.encrypt(b"pay 10 to Alice"))
    wire[-1] ^= 1
    with pytest.raises(TlsError) as caught:
        server.decrypt(wire)
    assert not caught.value.handshaking and "mac" in caught.value.reason
    with pytest.raises(TlsError) as caught:
        client.decrypt(server.take())
    assert caught.value.alert == "bad record mac"
    assert 'the peer sent the alert "bad record mac"' in str(caught.value)


def test_plaintext_before_a_tampered_record_is_given_first(version):
    client, server = engines(version)
    wire = bytearray(client.encrypt(b"good") + client.encrypt(b"evil"))
    wire[-1] ^= 1
    assert server.decrypt(wire) == b"good"
    for _ in range(2):
        with pytest.raises(TlsError, match="mac"):
            server.decrypt(b"")


def test_a_failed_engine_keeps_failing_with_the_same_words(version):
    _, server = engines(version)
    with pytest.raises(TlsError) as caught:
        server.decrypt(b"\x17\x03\x03\x00\x20" + bytes(32))
    for _ in range(3):
        with pytest.raises(TlsError) as again:
            server.encrypt(b"x" * 40_000)
        assert str(again.value) == str(caught.value)
        with pytest.raises(TlsError):
            server.decrypt_into(b"", bytearray(10))


def test_an_alert_counts_as_a_failure_even_when_others_left_errors_behind(version):
    """OpenSSL's error queue belongs to the thread: what is stale in it must neither be blamed on us nor hide ours."""
    client, server = engines(version)
    leave_stale_errors()
    assert server.decrypt(client.encrypt(b"fine")[:10]) == b""
    assert server.decrypt(b"") == b""
    client, server = engines(version)
    leave_stale_errors()
    server.decrypt(client.close())
    assert server.peer_closed
    client, server = engines(version)
    with pytest.raises(TlsError):
        server.decrypt(b"\x17\x03\x03\x00\x20" + bytes(32))
    leave_stale_errors()
    with pytest.raises(TlsError) as caught:
        client.decrypt(server.take())
    assert caught.value.alert == "bad record mac" and not client.peer_closed


def leave_stale_errors():
    """As another user of the same libcrypto would: a key that does not load."""
    assert SslKey(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").null
    with contextlib.suppress(ssl.SSLError):
        ssl.create_default_context(cadata="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_no_common_version_is_an_alert_with_a_name():
    client = Engine(client_context(TLS_1_2))
    server = Engine(server_context(TLS_1_3))
    with pytest.raises(TlsError) as caught:
        server.decrypt(client.start())
    assert "unsupported protocol" in caught.value.reason or "version" in caught.value.reason
    with pytest.raises(TlsError) as caught:
        client.decrypt(server.take())
    assert caught.value.alert == "protocol version" and caught.value.handshaking


def test_a_server_alert_reaches_the_client_with_its_name(version):
    client = Engine(client_context(version), verify_name="elsewhere.example")
    server = Engine(server_context(version))
    with pytest.raises(TlsError, match=r"the certificate is not for elsewhere\.example"):
        shake(client, server)
    with pytest.raises(TlsError) as caught:
        server.decrypt(client.take())
    assert caught.value.alert in ("bad certificate", "unknown CA", "certificate unknown")


# verification


def refused(client, server):
    with pytest.raises(TlsError) as caught:
        shake(client, server)
    assert caught.value.handshaking
    return caught.value


def test_a_peer_without_a_trusted_ca_is_refused(version):
    client = Engine(client_context(version, by="second"))
    error = refused(client, Engine(server_context(version)))
    assert error.reason == "certificate verify failed" and "unable to get" in str(error)
    code, depth, text, certificate = client.verify_errors[0]
    assert (code, depth) == (20, 0) and text and certificate == identity().certificate


def test_every_verification_error_is_found(version):
    asked = []
    client = Engine(client_context(version, by="second"), verify_name="elsewhere.example", verify_handler=asked.append)
    refused(client, Engine(server_context(version)))
    assert {error[0] for error in asked[0]} >= {20, 62}
    assert client.verify_errors == asked[0]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_right_name_or_address_passes(version, name):
    client, _ = engines(version, verify_name=name)
    assert client.verify_errors == []


@pytest.mark.parametrize("name", ["elsewhere.example", "127.0.0.2", "localhost.example", "::1"])
def test_the_wrong_name_or_address_is_refused(version, name):
    client = Engine(client_context(version), verify_name=name)
    assert f"the certificate is not for {name}" in str(refused(client, Engine(server_context(version))))


def test_verify_query_reports_and_goes_on(version):
    client, _ = engines(version, client=client_context(version, by="second", verify_mode=VERIFY_QUERY))
    assert client.verify_errors[0][0] == 20


def test_verify_none_does_not_look(version):
    client, _ = engines(version, client=client_context(version, by="second", verify_mode=VERIFY_NONE))
    assert client.verify_errors == []
    assert client.peer_certificate_chain()


@pytest.mark.parametrize("mode", [VERIFY_QUERY, VERIFY_PEER])
@pytest.mark.parametrize("answer", [True, False, 1, None, "yes"])
def test_the_verify_handler_decides(version, mode, answer):
    client = Engine(client_context(version, by="second", verify_mode=mode), verify_handler=lambda errors: answer)
    server = Engine(server_context(version))
    if answer:
        shake(client, server)
        assert server.decrypt(client.encrypt(b"hello")) == b"hello"
    else:
        refused(client, server)
    assert client.verify_errors


def test_an_ignored_error_is_not_blamed_for_a_later_failure(version):
    client = Engine(client_context(version, by="second"), verify_handler=lambda errors: True)
    server = Engine(server_context(version))
    server.decrypt(client.start())
    if version == TLS_1_2:
        client.decrypt(server.take())
        server.decrypt(client.take())
    *before, finished = pieces(server.take(), "records")
    client.decrypt(b"".join(before))
    assert client.verify_errors and not client.handshake_done
    with pytest.raises(TlsError) as caught:
        client.decrypt(finished[:-1] + bytes([finished[-1] ^ 1]))
    assert caught.value.handshaking and caught.value.reason
    assert str(caught.value) == caught.value.reason, "it names an error that was ignored"
    assert client.refused_certificate is None


def test_the_verify_handler_is_not_asked_about_a_good_chain(version):
    engines(version, verify_name="localhost", verify_handler=lambda errors: pytest.fail("asked"))


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_of_the_verify_handler_is_raised_and_refuses(version, exception):
    def handler(errors):
        raise exception("mine")

    client = Engine(client_context(version, by="second"), verify_handler=handler)
    server = Engine(server_context(version))
    with pytest.raises(exception, match="mine"):
        shake(client, server)
    with pytest.raises(TlsError):
        server.decrypt(client.take())
    with pytest.raises(TlsError):
        client.decrypt(b"")


def test_the_verify_handler_may_look_at_the_engine_but_not_use_it(version):
    seen = []

    def handler(errors):
        for use in (
            client.start,
            client.close,
            client.take,
            lambda: client.decrypt(b""),
            lambda: client.decrypt_into(b"", bytearray(1)),
            lambda: client.encrypt(b"x"),
        ):
            with pytest.raises(RuntimeError):
                use()
        assert not client.handshake_done and not client.session_reused
        seen.extend(client.peer_certificate_chain()[:1])
        return True

    client = Engine(client_context(version, by="second"), verify_handler=handler)
    server = Engine(server_context(version))
    shake(client, server)
    assert seen in ([], [identity().certificate])
    assert server.decrypt(client.encrypt(b"unharmed")) == b"unharmed"


# client certificates


def mutual(version, client_by, **server_settings):
    own = identity("ecdsa", client_by) if client_by else None
    settings = {"certificate": own.certificate, "private_key": own.key} if own else {}
    server = server_context(version, ca_certificates=[identity().authority], **{"verify_mode": VERIFY_PEER, **server_settings})
    return Engine(client_context(version, **settings)), Engine(server)


def shake_all(client, server):
    """With TLS 1.3 a client is done before the server has looked at its certificate."""
    shake(client, server)
    client.decrypt(server.take())


def test_a_demanded_client_certificate_is_checked_and_seen(version):
    client, server = mutual(version, "first")
    shake(client, server)
    assert server.peer_certificate_chain()[0] == identity("ecdsa", "first").certificate
    assert server.verify_errors == []
    assert server.refused_certificate is None and not server.certificate_missing


def test_a_missing_client_certificate_is_refused(version):
    client, server = mutual(version, None)
    assert not server.certificate_missing
    with pytest.raises(TlsError, match="peer did not return a certificate"):
        shake_all(client, server)
    assert server.certificate_missing and server.refused_certificate is None
    with pytest.raises(TlsError) as caught:
        client.decrypt(server.take())
    assert caught.value.alert in ("certificate required", "handshake failure")


def test_a_wrong_client_certificate_is_refused(version):
    client, server = mutual(version, "second")
    with pytest.raises(TlsError, match="certificate verify failed"):
        shake_all(client, server)
    assert server.verify_errors[0][0] == 20
    assert server.refused_certificate == identity("ecdsa", "second").certificate and not server.certificate_missing
    with pytest.raises(TlsError) as caught:
        client.decrypt(server.take())
    assert caught.value.alert == "unknown CA"


def test_a_server_that_only_asks_goes_on_without_one(version):
    client, server = mutual(version, None, verify_mode=VERIFY_QUERY)
    shake(client, server)
    assert server.peer_certificate_chain() == [] and server.verify_errors == []


# resumption


def reconnect(client_settings, server_settings, key="peer", **settings):
    client = Engine(client_settings, session_key=key, **settings)
    server = Engine(server_settings)
    shake(client, server)
    assert client.decrypt(server.encrypt(b"x")) == b"x"  # with TLS 1.3 the tickets are read here at the latest
    assert client.session_reused == server.session_reused
    return client, server


def test_a_second_connection_resumes(version):
    client, server = client_context(version), server_context(version)
    assert not reconnect(client, server)[0].session_reused
    assert reconnect(client, server)[0].session_reused


def test_a_resumed_connection_still_knows_the_certificate(version):
    client, server = client_context(version), server_context(version)
    reconnect(client, server)
    assert reconnect(client, server)[0].peer_certificate_chain()[0] == identity().certificate


def test_another_session_key_is_not_resumed(version):
    client, server = client_context(version), server_context(version)
    reconnect(client, server, key="a")
    assert not reconnect(client, server, key="b")[0].session_reused
    assert not reconnect(client, server, key=None)[0].session_reused
    assert reconnect(client, server, key="a")[0].session_reused


def test_another_context_is_not_resumed(version):
    server = server_context(version)
    reconnect(client_context(version), server)
    assert not reconnect(client_context(version), server)[0].session_reused


def test_another_servers_ticket_falls_back_to_a_full_handshake(version):
    client = client_context(version)
    reconnect(client, server_context(version))
    assert not reconnect(client, server_context(version))[0].session_reused


def test_a_ticket_of_tls_1_3_is_not_offered_twice():
    client, server = client_context(TLS_1_3), server_context(TLS_1_3)
    reconnect(client, server)
    attempts = [Engine(client, session_key="peer") for _ in range(8)]
    reused = []
    for attempt in attempts:
        peer = Engine(server)
        shake(attempt, peer)
        reused.append(attempt.session_reused)
    assert 1 <= reused.count(True) <= 4 and not reused[-1]


def test_a_session_with_ignored_errors_is_not_kept(version):
    client = client_context(version, by="second")
    server = server_context(version)
    for _ in range(2):
        asked = []
        engine, _ = reconnect(client, server, verify_handler=lambda errors, asked=asked: bool(asked.append(1)) or True)
        assert asked and not engine.session_reused


def test_a_server_does_not_resume_a_client_whose_errors_it_ignored(version):
    own = identity("ecdsa", "second")
    client = client_context(version, certificate=own.certificate, private_key=own.key)
    server = server_context(version, verify_mode=VERIFY_QUERY, ca_certificates=[identity().authority])
    for _ in range(3):
        _, engine = reconnect(client, server)
        assert engine.peer_certificate_chain()[0] == own.certificate
        assert engine.verify_errors, "an unverified certificate came back without its errors"


def test_a_server_resumes_a_client_that_it_has_verified(version):
    own = identity()
    client = client_context(version, certificate=own.certificate, private_key=own.key)
    server = server_context(version, verify_mode=VERIFY_PEER, ca_certificates=[own.authority])
    reconnect(client, server)
    _, engine = reconnect(client, server)
    assert engine.session_reused and engine.peer_certificate_chain()[0] == own.certificate


def test_sessions_of_many_peers_are_bounded(version):
    client, server = client_context(version), server_context(version)
    for number in range(40):
        reconnect(client, server, key=number)
    assert reconnect(client, server, key=39)[0].session_reused


def test_an_unhashable_session_key_is_a_type_error(version):
    with pytest.raises(TypeError):
        Engine(client_context(version), session_key=[])


# ALPN and SNI


def test_the_servers_preference_wins(version):
    client, server = engines(
        version,
        client=client_context(version, next_protocols=[b"http/1.1", b"h2"]),
        server=server_context(version, next_protocols=[b"h2", b"http/1.1"]),
    )
    assert client.next_protocol == server.next_protocol == b"h2"


def test_no_common_protocol_is_an_alert(version):
    client = Engine(client_context(version, next_protocols=[b"imap"]))
    server = Engine(server_context(version, next_protocols=[b"h2"]))
    with pytest.raises(TlsError):
        server.decrypt(client.start())
    with pytest.raises(TlsError) as caught:
        client.decrypt(server.take())
    assert caught.value.alert == "no application protocol"


@pytest.mark.parametrize(("offered", "known"), [([b"h2"], []), ([], [b"h2"])])
def test_a_side_without_a_list_agrees_on_none(version, offered, known):
    client, server = engines(
        version,
        client=client_context(version, next_protocols=offered),
        server=server_context(version, next_protocols=known),
    )
    assert client.next_protocol is None and server.next_protocol is None


def test_the_server_sees_the_requested_name(version):
    _, server = engines(version, server_name="localhost")
    assert server.requested_server_name == "localhost"
    _, server = engines(version, server_name="bücher.example")
    assert server.requested_server_name == "xn--bcher-kva.example"
    _, server = engines(version)
    assert server.requested_server_name is None


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 256])
def test_a_name_that_cannot_be_sent_is_a_value_error(name):
    with pytest.raises(ValueError, match="server name"):
        Engine(client_context(), server_name=name)


@pytest.mark.parametrize("name", ["", "localhost\0.example"])
def test_a_name_that_cannot_be_verified_is_a_value_error(name):
    with pytest.raises(ValueError):
        Engine(client_context(), verify_name=name)


def test_an_engine_needs_a_context():
    with pytest.raises(TypeError):
        Engine(None)
    with pytest.raises(TypeError):
        Engine("context")


# threads


def test_an_engine_used_by_two_threads_raises_and_does_not_crash(version):
    client, _ = engines(version)
    data, errors, done = bytes(MIB), [], threading.Event()

    def meddle():
        while not done.is_set():
            for use in (
                lambda: client.encrypt(data),
                client.take,
                client.peer_certificate_chain,
                lambda: (client.cipher, client.protocol, client.group, client.session_reused),
            ):
                try:
                    use()
                except RuntimeError as error:
                    errors.append(error)

    threads = [threading.Thread(target=meddle) for _ in range(3)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + DEADLINE
    while len(errors) < 10 and time.monotonic() < end:
        try:
            client.encrypt(data)
        except RuntimeError as error:
            errors.append(error)
    done.set()
    for thread in threads:
        thread.join()
    assert errors, "no two calls ever met"
    assert all("at work" in str(error) for error in errors)


def test_engines_of_one_context_work_in_many_threads(version):
    client_settings, server_settings = client_context(version), server_context(version)
    failures = []

    def work(number):
        try:
            for _ in range(5):
                client = Engine(client_settings, verify_name="localhost", session_key=number % 2)
                server = Engine(server_settings)
                shake(client, server)
                data = os.urandom(300_000)
                assert server.decrypt(client.encrypt(data)) == data
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_engines_that_are_dropped_half_way_leave_nothing(version):
    client_settings, server_settings = client_context(version), server_context(version)
    for step in range(4):
        client, server = Engine(client_settings), Engine(server_settings)
        to_server = client.start()
        if step > 0:
            server.decrypt(to_server[: 100 if step == 1 else None])
        if step > 2:
            client.decrypt(server.take())
        del client, server


@pytest.mark.parametrize("name", ["", ".example.com", "a\0b"])
def test_a_name_that_would_match_more_or_less_than_itself_is_refused(name):
    context = Context(server_side=False, use_system_ca=False)
    with pytest.raises(ValueError, match="not a name that a certificate can be for"):
        Engine(context, verify_name=name)


def named(*names):
    authority, key = make_authority()
    certificate, own_key = issue_certificate(authority, key, names)
    server = Context(
        server_side=True, certificate=certificate, private_key=own_key, verify_mode=VERIFY_NONE, use_system_ca=False
    )
    return Context(server_side=False, ca_certificates=[authority], use_system_ca=False), server


@pytest.mark.parametrize(
    "name",
    ["fe80::1", "fe80::1%lo", "[fe80::1%eth0]", "[fe80::1]", "FE80:0::1", "127.0.0.1", "[127.0.0.1]", "example.com",
     "example.com.", "EXAMPLE.com.", "straße.de", "STRASSE.example.", "xn--strae-oqa.de", "a.wild.example."],
)  # fmt: skip
def test_an_engine_takes_the_names_that_a_socket_takes(name):
    client_settings, server_settings = named(
        "fe80::1", "127.0.0.1", "example.com", "straße.de", "strasse.example", "*.wild.example"
    )
    client = Engine(client_settings, verify_name=name)
    shake(client, Engine(server_settings))
    others, server_settings = named("fe80::2", "strasse.de", "example.org")
    with pytest.raises(TlsError, match=r"mismatch|not for"):
        shake(Engine(others, verify_name=name), Engine(server_settings))


@pytest.mark.parametrize(
    ("name", "sent"),
    [("example.com", "example.com"), ("example.com.", "example.com"), ("straße.de", "xn--strae-oqa.de"), ("a_b", "a_b")],
)
def test_the_server_name_goes_out_as_a_dns_name(name, sent):
    client, server = Engine(client_context(), server_name=name), Engine(server_context())
    shake(client, server)
    assert server.requested_server_name == sent


@pytest.mark.parametrize("name", ["", ".", "a\0b", "\u2603.example", "x" * 300])
def test_what_cannot_be_a_server_name_is_refused(name):
    with pytest.raises(ValueError):
        Engine(client_context(), server_name=name)
