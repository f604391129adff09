"""What a client makes of a server's certificate: every mode, with every kind of certificate.

The server is the `ssl` module's, which says what alert it was sent. Codes are OpenSSL's X509_V_ERR_ numbers.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, NamedTuple, Optional

import pytest

from peers import Recorder
from sslsock import PeerVerifyMode, SocketError, SocketState, SslConfiguration, SslError, SslMode, SslSocket

from .pki import CLIENT, NAME, SERVER, Identity, Pki, issue, trusting
from .ssl_peers import SslModuleServer, server_context

NONE, QUERY, VERIFY, AUTO = PeerVerifyMode

# X509_V_ERR_...
NOT_YET_VALID, EXPIRED = 9, 10
SELF_SIGNED, SELF_SIGNED_IN_CHAIN, NO_ISSUER, NO_FIRST = 18, 19, 20, 21
TOO_LONG, PATH_LENGTH, PURPOSE = 22, 25, 26
NO_CERTIFICATE_SIGNING, NOT_PERMITTED = 32, 47
WRONG_HOST, WRONG_ADDRESS, NO_AUTHORITY = 62, 64, 79


class Case(NamedTuple):
    """A server's identity, and what a client that trusts the root makes of it."""

    identity: Identity
    codes: tuple[int, ...] = ()
    alert: str = ""
    words: str = ""
    failing: Optional[Identity] = None
    """The certificate that is to blame, if not the server's own."""
    name: str = NAME
    """What the client asks for; "": nothing but the address it connects to."""
    sent: Optional[list[Identity]] = None
    """The certificates that the server sends, if not all below the root."""
    depth: int = 0
    more: bool = False
    """OpenSSL goes on with this chain and may find further errors, not the same in every version."""

    @property
    def culprit(self) -> Identity:
        return self.failing or self.identity


def leaf(pki: Pki, *names: str, **options: Any) -> Identity:
    """A server's certificate, in order except for what `names` and `options` say."""
    options.setdefault("issuer", pki.middle)
    options.setdefault("usages", [SERVER])
    return issue("the server", *(names or [NAME]), **options)


def unknown_with_its_root(pki: Pki) -> Case:
    unknown = leaf(pki, issuer=pki.other_root)
    return Case(
        unknown,
        (SELF_SIGNED_IN_CHAIN,),
        "unknown ca",
        "certificate in certificate chain",
        failing=pki.other_root,
        sent=[unknown, pki.other_root],
    )


def missing_intermediate(pki: Pki) -> Case:
    lonely = leaf(pki)
    return Case(lonely, (NO_ISSUER, NO_FIRST), "unknown ca", "unable to get local issuer certificate", sent=[lonely])


def faulty_issuer(pki: Pki, codes: tuple[int, ...], alert: str, words: str, **options: Any) -> Case:
    issuer = issue("Faulty Authority", **{"issuer": pki.root, "ca": True, **options})
    return Case(leaf(pki, issuer=issuer), codes, alert, words, failing=issuer, more=True)


def path_too_long(pki: Pki) -> Case:
    short = issue("Short Path", issuer=pki.root, ca=True, path_length=0)
    beyond = issue("Beyond Path", issuer=short, ca=True)
    return Case(leaf(pki, issuer=beyond), (PATH_LENGTH,), "unknown ca", "path length constraint exceeded", failing=short)


def second_intermediate(pki: Pki) -> Identity:
    return issue("Second Intermediate", issuer=pki.middle, ca=True)


def wrong_host(identity: Identity, name: str = NAME) -> Case:
    return Case(identity, (WRONG_HOST,), "bad certificate", f"the certificate is not for {name}", name=name)


def wrong_address(identity: Identity) -> Case:
    return Case(identity, (WRONG_ADDRESS,), "bad certificate", "the certificate is not for 127.0.0.1", name="")


GOOD: dict[str, Callable[[Pki], Case]] = {
    "in order": lambda pki: Case(leaf(pki)),
    "of the root": lambda pki: Case(leaf(pki, issuer=pki.root)),
    "no usage named": lambda pki: Case(leaf(pki, usages=[])),
    "asked for in capitals": lambda pki: Case(leaf(pki), name=NAME.upper()),
    "asked for with a dot at the end": lambda pki: Case(leaf(pki), name=NAME + "."),
    "address": lambda pki: Case(leaf(pki, "127.0.0.1"), name=""),
    "address and a name": lambda pki: Case(leaf(pki, NAME, "127.0.0.1"), name=""),
    "wildcard": lambda pki: Case(leaf(pki, "*.example.test")),
    "as deep as allowed": lambda pki: Case(leaf(pki, issuer=second_intermediate(pki)), depth=2),
    "inside what the authority may certify": lambda pki: Case(
        leaf(pki, issuer=issue("Constrained", issuer=pki.root, ca=True, permitted=["example.test"]))
    ),
}

BAD: dict[str, Callable[[Pki], Case]] = {
    "expired": lambda pki: Case(leaf(pki, days=(-30, -1)), (EXPIRED,), "certificate expired", "certificate has expired"),
    "not yet valid": lambda pki: Case(leaf(pki, days=(1, 30)), (NOT_YET_VALID,), "bad certificate", "not yet valid"),
    "wrong host": lambda pki: wrong_host(leaf(pki, "other.example.test")),
    "no name that fits": lambda pki: wrong_host(issue("nobody", issuer=pki.middle)),
    # OpenSSL would take it where there is no DNS name (X509_check_host(3)); RFC 9525 has done away with that.
    "common name only": lambda pki: wrong_host(issue(NAME, issuer=pki.middle, usages=[SERVER])),
    "common name beside another name": lambda pki: wrong_host(issue(NAME, "other.example.test", issuer=pki.middle)),
    "wrong address": lambda pki: wrong_address(leaf(pki, "127.0.0.2", NAME)),
    "address as common name": lambda pki: wrong_address(issue("127.0.0.1", issuer=pki.middle)),
    "address as DNS name": lambda pki: wrong_address(leaf(pki, NAME)),
    "wildcard, two labels deep": lambda pki: wrong_host(leaf(pki, "*.example.test"), "deep.server.example.test"),
    "wildcard for the domain itself": lambda pki: wrong_host(leaf(pki, "*.example.test"), "example.test"),
    "wildcard of part of a label": lambda pki: wrong_host(leaf(pki, "s*.example.test")),
    "wildcard in the middle": lambda pki: wrong_host(leaf(pki, "server.*.test")),
    "unknown authority": lambda pki: Case(
        leaf(pki, issuer=pki.other_root), (NO_ISSUER, NO_FIRST), "unknown ca", "unable to get local issuer certificate"
    ),
    "unknown authority with its root": unknown_with_its_root,
    "self-signed": lambda pki: Case(issue(NAME, NAME), (SELF_SIGNED,), "unknown ca", "signed certificate"),
    "missing intermediate": missing_intermediate,
    "usage of a client": lambda pki: Case(
        leaf(pki, usages=[CLIENT]), (PURPOSE,), "unsupported certificate", "certificate purpose"
    ),
    "key that may not sign": lambda pki: Case(
        leaf(pki, signs=False, algorithm="rsa"), (PURPOSE,), "unsupported certificate", "certificate purpose"
    ),
    "issuer without the CA flag": lambda pki: faulty_issuer(
        pki, (NO_AUTHORITY,), "unknown ca", "invalid CA certificate", ca=False, signs_certificates=True
    ),
    "issuer that may not sign certificates": lambda pki: faulty_issuer(
        pki, (NO_AUTHORITY,), "unknown ca", "invalid CA certificate", signs_certificates=False
    ),
    "expired issuer": lambda pki: faulty_issuer(
        pki, (EXPIRED,), "certificate expired", "certificate has expired", days=(-60, -30)
    ),
    "outside what the authority may certify": lambda pki: Case(
        leaf(pki, issuer=issue("Constrained", issuer=pki.root, ca=True, permitted=["inside.test"])),
        (NOT_PERMITTED,),
        "certificate unknown",
        "permitted subtree violation",
    ),
    "path too long": path_too_long,
    "deeper than allowed": lambda pki: Case(
        leaf(pki, issuer=second_intermediate(pki)),
        (TOO_LONG,),
        "unknown ca",
        "certificate chain too long",
        depth=1,
        failing=pki.middle,
        more=True,
    ),
    "expired and for another host": lambda pki: Case(
        leaf(pki, "other.example.test", days=(-30, -1)), (WRONG_HOST, EXPIRED), "bad certificate", "not for " + NAME
    ),
}


@pytest.fixture(scope="session")
def case_of(pki: Pki) -> Callable[[str], Case]:
    return functools.lru_cache(maxsize=None)(lambda name: (GOOD.get(name) or BAD[name])(pki))


def serving(pki: Pki, case: Case, version: Optional[str] = None) -> SslModuleServer:
    return SslModuleServer(server_context(pki, case.identity, version, case.sent))


class Attempt:
    """One connection to a server: what our side noted, and what the server saw of it."""

    def __init__(
        self,
        host: Any,
        server: SslModuleServer,
        configuration: SslConfiguration,
        *,
        name: str = NAME,
        handler: Optional[Callable[[SslSocket, list[SslError]], object]] = None,
        mode: Optional[PeerVerifyMode] = None,
    ) -> None:
        before = len(server.seen)
        server.wake = host.loop.call_soon_threadsafe
        self.given: list[list[SslError]] = []
        sock = self.socket = SslSocket()
        sock.configuration = configuration
        sock.peer_verify_name = name
        sock.peer_verify_mode = mode
        self.recorder = Recorder(sock)
        sock.ssl_errors_handler = None

        def on_errors(sock: SslSocket, errors: list[SslError]) -> None:
            assert not sock.encrypted
            assert sock.ssl_handshake_errors == errors
            self.given.append(errors)
            if handler is not None:
                handler(sock, errors)

        if handler is not None:
            sock.ssl_errors_handler = on_errors
        sock.connect_encrypted("127.0.0.1", server.port)
        host.wait_for(lambda: self.recorder.has("encrypted") or self.recorder.has("error"), self.recorder.events)
        self.accepted = sock.encrypted
        self.reused = sock.session_reused
        if self.accepted:
            sock.write(b"are you there?")
            host.wait_for(lambda: self.recorder.data == b"are you there?", self.recorder.events)
            sock.disconnect()
        host.wait_for(lambda: sock.state is SocketState.UNCONNECTED_STATE, self.recorder.events)
        host.wait_for(lambda: len(server.seen) > before, "the server's view")
        self.seen = server.seen[before]

    def assert_found(self, case: Case) -> None:
        if case.more:
            assert self.codes[0] == case.codes[0]
        else:
            assert tuple(self.codes) == case.codes

    @property
    def codes(self) -> list[int]:
        return [error.code for error in self.socket.ssl_handshake_errors]

    def assert_accepted(self) -> None:
        assert self.accepted
        assert self.seen.clean, self.seen
        assert self.recorder.of("error") == []
        assert self.recorder.names()[-1] == "disconnected"

    def assert_refused(self) -> None:
        sock, recorder = self.socket, self.recorder
        assert not self.accepted
        assert not recorder.has("encrypted")
        assert recorder.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
        assert sock.error is SocketError.SSL_HANDSHAKE_FAILED_ERROR
        assert recorder.names()[-3:] == ["state", "mode", "disconnected"]
        assert sock.mode is SslMode.UNENCRYPTED_MODE
        assert not sock.encrypted
        assert not sock.valid
        assert recorder.data == b""


def configuration_for(pki: Pki, case: Case, mode: PeerVerifyMode = AUTO) -> SslConfiguration:
    configuration = trusting(pki.root)
    configuration.peer_verify_mode = mode
    configuration.peer_verify_depth = case.depth
    return configuration


def nothing(sock: SslSocket, errors: list[SslError]) -> None:
    """An ssl_errors_handler that leaves the decision to the mode."""


def ignore_all(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors()


# Every mode with every certificate


@pytest.mark.parametrize("mode", PeerVerifyMode, ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", GOOD)
def test_a_good_certificate_is_accepted_in_every_mode(own_host, pki, case_of, version, name, mode):
    case = case_of(name)
    configuration = configuration_for(pki, case, mode)
    with serving(pki, case, version) as server:
        for again in (False, True):
            attempt = Attempt(own_host, server, configuration, name=case.name, handler=nothing)
            attempt.assert_accepted()
            assert attempt.given == []
            assert attempt.codes == []
            assert attempt.reused is again
            assert attempt.socket.peer_certificate == case.identity.ours


@pytest.mark.parametrize("with_handler", [True, False], ids=["handler", "no handler"])
@pytest.mark.parametrize("mode", [VERIFY, AUTO], ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_certificate_is_refused_with_its_reason(own_host, pki, case_of, version, name, mode, with_handler):
    case = case_of(name)
    configuration = configuration_for(pki, case, mode)
    with serving(pki, case, version) as server:
        for _ in range(2):
            handler = nothing if with_handler else None
            attempt = Attempt(own_host, server, configuration, name=case.name, handler=handler)
            attempt.assert_refused()
            errors = attempt.socket.ssl_handshake_errors
            attempt.assert_found(case)
            assert attempt.given == ([errors] if with_handler else [])
            assert case.words in errors[0].error_string
            assert errors[0].certificate == case.culprit.ours
            words = attempt.socket.error_string
            assert words.startswith(f"127.0.0.1 port {server.port}: the TLS handshake failed: certificate verify failed")
            assert case.words in words
            assert case.culprit.subject in words
            assert f"alert {case.alert}" in attempt.seen.words.replace("_", " ")


@pytest.mark.parametrize("with_handler", [True, False], ids=["handler", "no handler"])
@pytest.mark.parametrize("name", BAD)
def test_query_reports_the_errors_of_a_bad_certificate_and_goes_on(own_host, pki, case_of, version, name, with_handler):
    case = case_of(name)
    configuration = configuration_for(pki, case, QUERY)
    with serving(pki, case, version) as server:
        for _ in range(2):
            handler = nothing if with_handler else None
            attempt = Attempt(own_host, server, configuration, name=case.name, handler=handler)
            attempt.assert_accepted()
            attempt.assert_found(case)
            assert attempt.given == ([attempt.socket.ssl_handshake_errors] if with_handler else [])
            assert not attempt.reused, "a session that rests on errors was resumed"
            assert attempt.socket.peer_certificate == case.identity.ours


@pytest.mark.parametrize("name", BAD)
def test_no_verification_finds_no_error(own_host, pki, case_of, version, name):
    case = case_of(name)
    configuration = configuration_for(pki, case, NONE)
    with serving(pki, case, version) as server:
        attempt = Attempt(own_host, server, configuration, name=case.name, handler=nothing)
        attempt.assert_accepted()
        assert attempt.given == []
        assert attempt.codes == []
        assert attempt.socket.peer_certificate == case.identity.ours


@pytest.mark.parametrize("name", ["in order", "expired", "wrong host", "unknown authority", "self-signed"])
def test_the_verdict_is_the_same_on_every_loop(host, pki, case_of, version, name):
    case = case_of(name)
    with serving(pki, case, version) as server:
        attempt = Attempt(host, server, configuration_for(pki, case), name=case.name, handler=nothing)
        assert attempt.accepted == (name == "in order")
        attempt.assert_found(case)
        case_again = Attempt(host, server, configuration_for(pki, case), name=case.name, handler=ignore_all)
        case_again.assert_accepted()


# Going on in spite of errors


@pytest.mark.parametrize("name", BAD)
def test_all_errors_can_be_ignored(own_host, pki, case_of, version, name):
    case = case_of(name)
    configuration = configuration_for(pki, case)
    with serving(pki, case, version) as server:
        for _ in range(2):
            attempt = Attempt(own_host, server, configuration, name=case.name, handler=ignore_all)
            attempt.assert_accepted()
            assert len(attempt.given) == 1
            attempt.assert_found(case)
            assert not attempt.reused, "a session that rests on ignored errors was resumed"
        # Nothing of that tolerance is left for who does not share it.
        Attempt(own_host, server, configuration, name=case.name).assert_refused()


def exactly(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors(errors)


def more_than_these(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors([SslError(1, 0, "another", errors[0].certificate), *errors, SslError(99)])


def equal_ones(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors(SslError(error.code, 0, "", error.certificate) for error in errors)


def none_of_them(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors([])


def all_but_the_first(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors(errors[1:])


def all_but_the_last(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors(errors[:-1])


def the_codes_of_another_certificate(sock: SslSocket, errors: list[SslError]) -> None:
    another = issue(NAME, NAME).ours
    sock.ignore_ssl_errors([SslError(error.code, error.depth, error.error_string, another) for error in errors])


def other_codes_of_the_certificate(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors([SslError(SELF_SIGNED, 0, error.error_string, error.certificate) for error in errors])


def all_and_then_none(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors()
    sock.ignore_ssl_errors([])


def tampers_with_the_list(sock: SslSocket, errors: list[SslError]) -> None:
    errors.clear()
    sock.ignore_ssl_errors(errors)


def raises_after_ignoring(sock: SslSocket, errors: list[SslError]) -> None:
    sock.ignore_ssl_errors()
    sock.ignore_ssl_errors([])
    raise LookupError("in the handler")


@pytest.mark.parametrize("name", ["expired", "missing intermediate", "expired and for another host"])
@pytest.mark.parametrize("handler", [exactly, more_than_these, equal_ones], ids=lambda handler: handler.__name__)
def test_a_list_that_names_all_errors_is_enough(own_host, pki, case_of, version, name, handler):
    case = case_of(name)
    with serving(pki, case, version) as server:
        Attempt(own_host, server, configuration_for(pki, case), name=case.name, handler=handler).assert_accepted()


@pytest.mark.parametrize("name", ["expired", "missing intermediate", "expired and for another host"])
@pytest.mark.parametrize(
    "handler",
    [
        none_of_them,
        all_but_the_first,
        all_but_the_last,
        the_codes_of_another_certificate,
        other_codes_of_the_certificate,
        all_and_then_none,
        tampers_with_the_list,
    ],
    ids=lambda handler: handler.__name__,
)
def test_a_list_that_lacks_an_error_is_not(own_host, pki, case_of, version, name, handler):
    case = case_of(name)
    with serving(pki, case, version) as server:
        attempt = Attempt(own_host, server, configuration_for(pki, case), name=case.name, handler=handler)
        attempt.assert_refused()
        attempt.assert_found(case)


def test_a_handler_that_raises_ignores_nothing(own_host, pki, case_of, version):
    case = case_of("expired")
    with serving(pki, case, version) as server:
        attempt = Attempt(own_host, server, configuration_for(pki, case), handler=raises_after_ignoring)
        attempt.assert_refused()
    assert [type(failure) for failure in own_host.take_failures()] == [LookupError]


def test_errors_can_be_ignored_inside_the_handler_only(own_host, pki, case_of):
    case = case_of("expired")
    sock = SslSocket()
    with pytest.raises(RuntimeError, match="ssl_errors_handler"):
        sock.ignore_ssl_errors()
    with serving(pki, case) as server:
        attempt = Attempt(own_host, server, configuration_for(pki, case), handler=ignore_all)
        attempt.assert_accepted()
        with pytest.raises(RuntimeError, match="ssl_errors_handler"):
            attempt.socket.ignore_ssl_errors()


@pytest.mark.parametrize("call", ["abort", "disconnect", "close"])
def test_the_handler_may_end_the_connection(own_host, pki, case_of, version, call):
    case = case_of("expired")
    told = []

    def end(sock: SslSocket, errors: list[SslError]) -> None:
        sock.ignore_ssl_errors()
        getattr(sock, call)()

    with serving(pki, case, version) as server:
        sock = SslSocket()
        sock.configuration = configuration_for(pki, case)
        sock.peer_verify_name = NAME
        sock.encrypted_handler = told.append
        sock.ssl_errors_handler = end
        sock.connect_encrypted("127.0.0.1", server.port)
        own_host.wait_for(lambda: server.seen, "the server's view")
        own_host.wait_for(lambda: sock.state is SocketState.UNCONNECTED_STATE)
        assert told == []
        assert not server.seen[0].clean


# The name that is checked


def test_the_host_is_the_name_that_is_checked(host, pki, version):
    with SslModuleServer(server_context(pki, version=version)) as server:
        sock = SslSocket()
        sock.configuration = trusting(pki.root)
        recorder = Recorder(sock)
        sock.connect_encrypted("localhost", server.port)
        host.wait_for(lambda: recorder.has("encrypted") or recorder.has("error"), recorder.events)
        assert sock.encrypted, sock.error_string
        sock.disconnect()
        host.wait_for(lambda: server.seen)


def test_peer_verify_name_takes_the_place_of_the_host(own_host, pki, case_of, version):
    case = case_of("wrong address")  # for 127.0.0.2 and NAME
    configuration = configuration_for(pki, case)
    with serving(pki, case, version) as server:
        Attempt(own_host, server, configuration, name="").assert_refused()
        Attempt(own_host, server, configuration, name=NAME).assert_accepted()
        Attempt(own_host, server, configuration, name="127.0.0.2").assert_accepted()
        for wrong in ("other.example.test", "127.0.0.3"):
            attempt = Attempt(own_host, server, configuration, name=wrong)
            attempt.assert_refused()
            assert f"the certificate is not for {wrong}" in attempt.socket.error_string


@pytest.mark.parametrize("mode", [QUERY, VERIFY, AUTO], ids=lambda mode: mode.name)
def test_without_verify_hostname_only_the_name_is_not_checked(own_host, pki, case_of, version, mode):
    wrong, expired = case_of("wrong host"), case_of("expired and for another host")
    for case, codes in ((wrong, ()), (expired, (EXPIRED,))):
        configuration = configuration_for(pki, case, mode)
        configuration.verify_hostname = False
        with serving(pki, case, version) as server:
            attempt = Attempt(own_host, server, configuration, handler=nothing)
            assert tuple(attempt.codes) == codes
            assert attempt.accepted == (mode is QUERY or not codes)


# What a session may carry over


@pytest.mark.parametrize("mode", [NONE, QUERY], ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", ["expired", "wrong host", "unknown authority"])
def test_a_lax_socket_leaves_no_session_to_a_strict_one(own_host, pki, case_of, version, name, mode):
    case = case_of(name)
    configuration = configuration_for(pki, case)
    with serving(pki, case, version) as server:
        Attempt(own_host, server, configuration, mode=mode).assert_accepted()
        attempt = Attempt(own_host, server, configuration, mode=VERIFY)
        attempt.assert_refused()
        attempt.assert_found(case)


def test_a_session_is_not_resumed_for_another_name(own_host, pki, case_of, version):
    case = case_of("in order")
    configuration = configuration_for(pki, case)
    with serving(pki, case, version) as server:
        Attempt(own_host, server, configuration).assert_accepted()
        attempt = Attempt(own_host, server, configuration, name="other.example.test")
        attempt.assert_refused()
        assert attempt.codes == [WRONG_HOST]


def test_a_session_without_a_name_check_is_not_resumed_with_one(own_host, pki, case_of, version):
    case = case_of("wrong host")
    configuration = configuration_for(pki, case)
    configuration.verify_hostname = False
    with serving(pki, case, version) as server:
        Attempt(own_host, server, configuration).assert_accepted()
        configuration.verify_hostname = True
        Attempt(own_host, server, configuration).assert_refused()


def test_a_session_is_not_resumed_by_who_trusts_others(own_host, pki, case_of, version):
    case = case_of("in order")
    configuration = configuration_for(pki, case)
    with serving(pki, case, version) as server:
        Attempt(own_host, server, configuration).assert_accepted()
        configuration.ca_certificates = [pki.other_root.ours]
        attempt = Attempt(own_host, server, configuration)
        attempt.assert_refused()
        assert NO_ISSUER in attempt.codes or SELF_SIGNED_IN_CHAIN in attempt.codes


def test_an_authority_in_the_middle_is_not_trusted_by_itself(own_host, pki, case_of, version):
    """A chain has to end at a self-signed certificate that is trusted, as is OpenSSL's default."""
    case = case_of("in order")
    with serving(pki, case, version) as server:
        attempt = Attempt(own_host, server, trusting(pki.middle))
        attempt.assert_refused()
        assert attempt.codes == [2]  # unable to get issuer certificate
