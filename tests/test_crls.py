"""Certificate revocation lists and the flags of verification: judged as by the `openssl` program and by a connection."""

from __future__ import annotations

import copy
import pickle
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core.pairs import OPENSSL, client_context, engines, server_context, shake
from judged import DAY, NOW, Issued, connection_errors, issue, openssl_errors, revoke
from peers import Recorder, accept, listening, wait_for_end
from sslsock import (
    ConfigurationError,
    Context,
    Engine,
    PeerVerifyMode,
    SocketError,
    SslCertificate,
    SslConfiguration,
    SslCrl,
    SslError,
    SslServer,
    SslSocket,
    TicketKeys,
    VerifyFlag,
)
from sslsock.core.context import VERIFY_PEER

NO_CRL, BAD_SIGNATURE, CRL_NOT_YET, CRL_EXPIRED, REVOKED = 3, 8, 11, 12, 23
LEAF, CHAIN, STRICT, PARTIAL = (
    VerifyFlag.VERIFY_CRL_CHECK_LEAF,
    VerifyFlag.VERIFY_CRL_CHECK_CHAIN,
    VerifyFlag.VERIFY_X509_STRICT,
    VerifyFlag.VERIFY_X509_PARTIAL_CHAIN,
)
ARGUMENTS = {LEAF: "-crl_check", CHAIN: "-crl_check_all", STRICT: "-x509_strict", PARTIAL: "-partial_chain"}

ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
GOOD = issue("localhost", MIDDLE)
BAD = issue("localhost", MIDDLE)
BAD_MIDDLE = issue("bad middle", ROOT, ca=True)
UNDER_BAD = issue("localhost", BAD_MIDDLE)
FORGER = Issued(MIDDLE.certificate, ec.generate_private_key(ec.SECP256R1()))

OF_ROOT, OF_MIDDLE, OF_BAD_MIDDLE = revoke(ROOT, BAD_MIDDLE), revoke(MIDDLE, BAD), revoke(BAD_MIDDLE)

# Until OpenSSL 3.6, CRL_CHECK_ALL asks for a list of the root, which signs itself, too.
UNLISTED_ROOT = [(NO_CRL, 2)] if OPENSSL < (3, 6) else []

# name of the case: the chain, lists, flags, what is wrong
CASES = {
    "good": ([GOOD, MIDDLE], [OF_MIDDLE], LEAF, []),
    "good, the whole chain": ([GOOD, MIDDLE], [OF_MIDDLE, OF_ROOT], CHAIN, []),
    "revoked": ([BAD, MIDDLE], [OF_MIDDLE], LEAF, [(REVOKED, 0)]),
    "its authority revoked, which is not looked up": ([UNDER_BAD, BAD_MIDDLE], [OF_ROOT, OF_BAD_MIDDLE], LEAF, []),
    "its authority revoked": ([UNDER_BAD, BAD_MIDDLE], [OF_ROOT, OF_BAD_MIDDLE], CHAIN, [(REVOKED, 1)]),
    "no list": ([GOOD, MIDDLE], [], LEAF, [(NO_CRL, 0)]),
    "a list of another": ([GOOD, MIDDLE], [OF_ROOT], LEAF, [(NO_CRL, 0)]),
    "no list of the root": ([GOOD, MIDDLE], [OF_MIDDLE], CHAIN, [(NO_CRL, 1), *UNLISTED_ROOT]),
    "list expired": ([GOOD, MIDDLE], [revoke(MIDDLE, begin=NOW - 3 * DAY, end=NOW - DAY)], LEAF, [(CRL_EXPIRED, 0)]),
    "list of tomorrow": ([GOOD, MIDDLE], [revoke(MIDDLE, begin=NOW + DAY, end=NOW + 2 * DAY)], LEAF, [(CRL_NOT_YET, 0)]),
    "list forged": ([GOOD, MIDDLE], [revoke(FORGER)], LEAF, [(BAD_SIGNATURE, 0)]),
    "a newer list beside an expired": (
        [BAD, MIDDLE],
        [revoke(MIDDLE, begin=NOW - 3 * DAY, end=NOW - DAY), OF_MIDDLE],
        LEAF,
        [(REVOKED, 0)],
    ),
}


def trusting(*authorities, lists=(), flags=0):
    configuration = SslConfiguration()
    configuration.use_system_ca = False
    configuration.ca_certificates = [authority.ours for authority in authorities]
    configuration.crls = [SslCrl(each) for each in lists]
    configuration.verify_flags = flags
    return configuration


def verified(chain, configuration):
    """The judgement of `SslCertificate.verify`, which is that of a connection."""
    errors = SslCertificate.verify([link.ours for link in chain], "localhost", configuration)
    context = configuration.context(False, PeerVerifyMode.VERIFY_PEER)
    assert errors == [SslError(*error) for error in connection_errors(context, chain, "localhost")]
    return errors


@pytest.mark.parametrize("case", CASES)
def test_revocation_is_judged_as_by_a_connection_and_by_openssl(case, tmp_path):
    chain, lists, flags, wrong = CASES[case]
    errors = verified(chain, trusting(ROOT, lists=lists, flags=flags))
    assert [(error.code, error.depth) for error in errors] == wrong
    assert all(error.certificate is not None and error.error_string for error in errors)
    theirs = openssl_errors(tmp_path, [ROOT], chain, "-purpose", "sslserver", ARGUMENTS[flags], lists=tuple(lists))
    assert theirs[:1] == [code for code, _ in wrong][:1]


def test_lists_are_looked_at_without_a_flag():
    assert [error.code for error in verified([BAD, MIDDLE], trusting(ROOT, lists=[OF_MIDDLE]))] == [REVOKED]
    # and a flag that is set means what it says
    assert [error.code for error in verified([BAD, MIDDLE], trusting(ROOT, lists=[OF_MIDDLE], flags=STRICT))][-1:] == [REVOKED]


def test_lists_beside_the_systems_authorities(tmp_path, monkeypatch):
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    configuration = SslConfiguration()
    assert verified([BAD, MIDDLE], configuration) == []
    configuration.add_crl(SslCrl(OF_MIDDLE))
    assert [error.code for error in verified([BAD, MIDDLE], configuration)] == [REVOKED]
    configuration.crls = []
    assert verified([BAD, MIDDLE], configuration) == []  # the store of all contexts has no list


def test_a_partial_chain_ends_where_it_is_trusted(tmp_path):
    assert verified([GOOD], trusting(MIDDLE)) != []
    assert verified([GOOD], trusting(MIDDLE, flags=PARTIAL)) == []
    assert verified([GOOD], trusting(GOOD, flags=PARTIAL)) == []
    assert openssl_errors(tmp_path, [MIDDLE], [GOOD]) != []
    assert openssl_errors(tmp_path, [MIDDLE], [GOOD], "-partial_chain") == []


def test_strict_refuses_what_is_worked_around_otherwise(tmp_path):
    chain = [GOOD, MIDDLE]  # whose authorities lack a keyUsage, and have no authority key identifiers
    assert verified(chain, trusting(ROOT)) == []
    errors = verified(chain, trusting(ROOT, flags=STRICT))
    theirs = openssl_errors(tmp_path, [ROOT], chain, "-purpose", "sslserver", "-x509_strict")
    assert errors != []
    assert theirs[0] == errors[0].code


def test_flags_are_those_of_the_standard_library():
    for flag in VerifyFlag:
        assert int(getattr(ssl, flag.name, flag)) == flag
        assert getattr(SslConfiguration, flag.name) is flag
    configuration = SslConfiguration()
    assert configuration.verify_flags == VerifyFlag.VERIFY_DEFAULT
    configuration.verify_flags = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_TRUSTED_FIRST
    assert configuration.verify_flags == STRICT | VerifyFlag.VERIFY_X509_TRUSTED_FIRST
    assert isinstance(configuration.verify_flags, VerifyFlag)


@pytest.mark.parametrize(("flags", "error"), [("strict", TypeError), (True, TypeError), (1, ValueError), (-1, ValueError)])
def test_wrong_flags_raise(flags, error):
    configuration = SslConfiguration()
    with pytest.raises(error, match="verify_flags"):
        configuration.verify_flags = flags
    assert configuration.verify_flags == 0


def test_flags_and_lists_are_a_part_of_what_contexts_are_shared_by():
    def context(**settings):
        return trusting(ROOT, **settings).context(False, PeerVerifyMode.VERIFY_PEER)

    settings = ({}, {"flags": STRICT}, {"flags": LEAF}, {"lists": [OF_MIDDLE]}, {"lists": [OF_ROOT]})
    first = [context(**each) for each in settings]
    assert len(set(map(id, first))) == len(settings)
    assert [context(**each) for each in settings] == first
    assert trusting(ROOT, lists=[OF_MIDDLE]) == trusting(ROOT, lists=[OF_MIDDLE]) != trusting(ROOT)


def test_a_server_resumes_no_session_that_another_policy_has_verified():
    keys = TicketKeys()
    root = issue("clients", ca=True)
    client_identity = issue("client", root, use="client")

    def server(**settings):
        return server_context(
            ticket_keys=keys, session_context=b"one", verify_mode=VERIFY_PEER, ca_certificates=[root.ours], **settings
        )

    client = client_context(certificate=client_identity.ours, private_key=client_identity.our_key)

    def resumed(server_settings, expect_failure=False):
        left = Engine(client, session_key="one")
        right = Engine(server(**server_settings))
        if expect_failure:
            with pytest.raises(Exception, match="revoked"):
                shake(left, right)
            return None
        shake(left, right)
        return right.session_reused

    assert not resumed({})
    assert resumed({})
    assert not resumed({"verify_flags": 0x80000})
    resumed({})
    assert not resumed({"crls": [SslCrl(revoke(root))]})
    resumed({})
    resumed({"crls": [SslCrl(revoke(root, client_identity))]}, expect_failure=True)


def test_a_socket_refuses_a_revoked_peer_and_tells_why(host):
    server = SslServer()
    configuration = SslConfiguration()
    configuration.local_certificate_chain = [BAD.ours, MIDDLE.ours]
    configuration.private_key = BAD.our_key
    configuration.use_system_ca = False
    server.configuration = configuration
    listening(server)
    client = SslSocket()
    client.configuration = trusting(ROOT, lists=[OF_MIDDLE])
    told = []
    left = Recorder(client)
    client.ssl_errors_handler = lambda sock, errors: told.extend(errors)
    client.connect_encrypted("localhost", server.port)
    right = accept(host, server)
    server.close()
    wait_for_end(host, left)
    wait_for_end(host, right)
    assert [(error.code, error.depth, error.certificate) for error in told] == [(REVOKED, 0, BAD.ours)]
    assert left.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    assert "revoked" in client.error_string
    assert "certificate revoked" in right.socket.error_string


# The value


def test_what_a_list_says():
    crl = SslCrl(OF_MIDDLE)
    assert not crl.null
    assert crl.error_string == ""
    assert crl.issuer == {"CN": ["middle"]}
    assert (crl.last_update, crl.next_update) == (NOW - DAY, NOW + DAY)
    theirs = x509.load_pem_x509_crl(OF_MIDDLE)
    assert crl.to_der() == theirs.public_bytes(serialization.Encoding.DER)
    assert crl == SslCrl(crl.to_der(), SslCrl.DER) == SslCrl(OF_MIDDLE.decode()) != SslCrl(OF_ROOT)
    assert hash(crl) == hash(SslCrl(OF_MIDDLE))
    assert "middle" in repr(crl)
    for twin in (copy.copy(crl), copy.deepcopy(crl), pickle.loads(pickle.dumps(crl))):
        assert twin == crl


def test_what_holds_nothing_says_nothing():
    assert SslCrl().next_update is SslCrl().last_update is None
    assert SslCrl().issuer == {}
    assert SslCrl().to_der() == b""


@pytest.mark.parametrize(
    ("data", "form", "words"),
    [
        (b"", SslCrl.PEM, "empty"),
        (b"rubbish", SslCrl.PEM, "not PEM"),
        (GOOD.pem, SslCrl.PEM, "this is a certificate, not a certificate revocation list"),
        (OF_MIDDLE[:-40], SslCrl.PEM, "END|truncated|damaged"),
        (SslCrl(OF_MIDDLE).to_der()[:-4], SslCrl.DER, "truncated"),
        (SslCrl(OF_MIDDLE).to_der() + b"x", SslCrl.DER, "too many"),
        (OF_MIDDLE, SslCrl.DER, "this is PEM"),
        (SslCrl(OF_MIDDLE).to_der(), SslCrl.PEM, "this is DER"),
        (GOOD.ours.to_der(), SslCrl.DER, "this is a certificate"),
    ],
)
def test_what_cannot_be_loaded_is_null_and_says_why(data, form, words):
    crl = SslCrl(data, form)
    assert crl.null
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(crl.error_string)
    with pytest.raises(ConfigurationError, match="a CRL did not load"):
        Context(server_side=False, use_system_ca=False, crls=[crl])


@pytest.mark.parametrize("cut", [b"", b"\n", b"-----END"])
def test_a_list_that_is_cut_anywhere_loads_in_no_way(cut):
    whole = SslCrl(OF_MIDDLE).to_der()
    for size in range(1, len(whole)):
        assert SslCrl(whole[:size], SslCrl.DER).null
    text = OF_MIDDLE[: OF_MIDDLE.index(b"-----END")]
    assert SslCrl(text + cut).null
    with pytest.raises(ValueError, match="line 1"):
        SslCrl.from_bytes(text + cut)


def test_a_file_adds_all_its_lists(tmp_path):
    (tmp_path / "both.pem").write_bytes(OF_ROOT + GOOD.pem + b"some words\n" + OF_MIDDLE)
    (tmp_path / "one.der").write_bytes(SslCrl(OF_ROOT).to_der())
    (tmp_path / "two.der").write_bytes(SslCrl(OF_ROOT).to_der() + SslCrl(OF_MIDDLE).to_der())
    configuration = trusting(ROOT)
    configuration.add_crl_file(tmp_path / "both.pem")
    assert configuration.crls == [SslCrl(OF_ROOT), SslCrl(OF_MIDDLE)]
    configuration.add_crl_file(str(tmp_path / "one.der"))
    assert len(configuration.crls) == 3
    assert SslCrl.from_path(tmp_path / "two.der") == [SslCrl(OF_ROOT), SslCrl(OF_MIDDLE)]
    configuration.crls.clear()
    assert len(configuration.crls) == 3
    assert [error.code for error in verified([BAD, MIDDLE], configuration)] == [REVOKED]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"nothing here", "holds no certificate revocation list"),
        (b"", "holds no certificate revocation list"),
        (OF_ROOT + OF_MIDDLE.replace(b"\nM", b"\n!", 1), "block 2"),
        (OF_ROOT + OF_MIDDLE[:100], "block 2"),
        (SslCrl(OF_ROOT).to_der() + b"\x30\x82\x01", "list 2"),
    ],
)
def test_a_damaged_file_is_named_and_adds_nothing(tmp_path, content, words):
    path = tmp_path / "some.crl"
    path.write_bytes(content)
    configuration = trusting(ROOT)
    with pytest.raises(ValueError, match=rf"some\.crl.*{words}"):
        configuration.add_crl_file(path)
    assert configuration.crls == []


def test_a_file_that_is_not_there_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        SslConfiguration().add_crl_file(tmp_path / "missing.crl")


@pytest.mark.parametrize("wrong", [None, OF_ROOT, [OF_ROOT], SslCrl(OF_ROOT), 3])
def test_what_are_no_lists_is_refused(wrong):
    configuration = SslConfiguration()
    with pytest.raises(TypeError):
        configuration.crls = wrong
    with pytest.raises(TypeError):
        configuration.add_crl(OF_ROOT)
    with pytest.raises(TypeError):
        SslCrl(3)


def test_other_contexts_take_them_too():
    engines(client=client_context(verify_flags=0x8000), server=server_context(crls=[SslCrl(OF_MIDDLE)]))
