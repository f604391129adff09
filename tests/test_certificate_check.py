"""`SslCertificate.verify`: its judgement is that of a connection, and that of the `openssl` program."""

from __future__ import annotations

import datetime
import threading

import pytest

from judged import DAY, NOW, connection_errors, issue, openssl_errors, weak_key
from sslsock import PeerVerifyMode, SslCertificate, SslConfiguration, SslError, SslMode

EXPIRED, NOT_YET, UNKNOWN_ISSUER, SELF_SIGNED, WRONG_NAME, WRONG_ADDRESS = 10, 9, 20, 18, 62, 64
WRONG_PURPOSE, INVALID_CA, WEAK_KEY, WEAK_CA_KEY, SELF_SIGNED_IN_CHAIN, UNVERIFIED_FIRST = 26, 79, 66, 67, 19, 21

ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
GOOD = issue("localhost", MIDDLE)
OLD_MIDDLE = issue("old middle", ROOT, ca=True, begin=NOW - 3 * DAY, end=NOW - 2 * DAY)
NO_CA = issue("no authority", ROOT)
WEAK_MIDDLE = issue("weak middle", ROOT, ca=True, key=weak_key())

# name of the case: the chain, the name asked for, the codes of all that is wrong
CASES = {
    "good": ([GOOD, MIDDLE], "localhost", []),
    "good with its root": ([GOOD, MIDDLE, ROOT], "localhost", []),
    "in disorder": ([GOOD, ROOT, MIDDLE], "localhost", []),
    "straight from the root": ([issue("localhost", ROOT)], "localhost", []),
    "wildcard": ([issue("*.example.org", ROOT)], "www.example.org", []),
    "wrong name": ([GOOD, MIDDLE], "example.org", [WRONG_NAME]),
    "wrong address": ([GOOD, MIDDLE], "127.0.0.1", [WRONG_ADDRESS]),
    "expired": ([issue("localhost", MIDDLE, begin=NOW - 3 * DAY, end=NOW - DAY), MIDDLE], "localhost", [EXPIRED]),
    "not yet valid": ([issue("localhost", MIDDLE, begin=NOW + DAY, end=NOW + 2 * DAY), MIDDLE], "localhost", [NOT_YET]),
    "its authority expired": ([issue("localhost", OLD_MIDDLE), OLD_MIDDLE], "localhost", [EXPIRED]),
    "without its intermediate": ([GOOD], "localhost", [UNKNOWN_ISSUER, UNVERIFIED_FIRST]),
    "unknown authority": ([issue("localhost", issue("another", ca=True))], "localhost", [UNKNOWN_ISSUER, UNVERIFIED_FIRST]),
    "unknown root in the chain": (None, "localhost", [SELF_SIGNED_IN_CHAIN]),
    "signed by itself": ([issue("localhost")], "localhost", [SELF_SIGNED]),
    "for a client": ([issue("localhost", MIDDLE, use="client"), MIDDLE], "localhost", [WRONG_PURPOSE]),
    "signed by no authority": ([issue("localhost", NO_CA), NO_CA], "localhost", [INVALID_CA, WRONG_PURPOSE]),
    "weak key": ([issue("localhost", MIDDLE, key=weak_key()), MIDDLE], "localhost", [WEAK_KEY]),
    "weak key of its authority": ([issue("localhost", WEAK_MIDDLE), WEAK_MIDDLE], "localhost", [WEAK_CA_KEY]),
    "expired and of another name": (
        [issue("localhost", MIDDLE, begin=NOW - 3 * DAY, end=NOW - DAY), MIDDLE],
        "example.org",
        [WRONG_NAME, EXPIRED],
    ),
}
STRANGER = issue("stranger", ca=True)
CASES["unknown root in the chain"] = ([issue("localhost", STRANGER), STRANGER], "localhost", [SELF_SIGNED_IN_CHAIN])


def trusting(*authorities):
    configuration = SslConfiguration()
    configuration.use_system_ca = False
    configuration.ca_certificates = [authority.ours for authority in authorities]
    configuration.ciphers = "DEFAULT:@SECLEVEL=2"  # what it is by default is up to whoever has built OpenSSL
    return configuration


def checked(chain, *arguments, **settings):
    return SslCertificate.verify([link.ours for link in chain], *arguments, **settings)


def codes(errors):
    return sorted({error.code for error in errors})


@pytest.mark.parametrize("case", CASES)
def test_all_that_is_wrong_is_found_as_by_a_connection_and_by_openssl(case, tmp_path):
    chain, name, wrong = CASES[case]
    configuration = trusting(ROOT)
    errors = checked(chain, name, configuration)
    assert codes(errors) == sorted(set(wrong)), errors
    context = configuration.context(False, PeerVerifyMode.VERIFY_PEER)
    assert errors == [SslError(*error) for error in connection_errors(context, chain, name)]
    asked = ("-verify_ip" if name[0].isdigit() else "-verify_hostname", name)
    theirs = openssl_errors(tmp_path, [ROOT], chain, "-purpose", "sslserver", "-auth_level", "2", *asked)
    # The program goes on after some errors only.
    assert set(theirs) <= set(codes(errors))
    assert theirs[:1] == [error.code for error in errors][:1]


def test_an_error_says_which_certificate_and_where(tmp_path):
    expired = CASES["its authority expired"][0]
    (error,) = checked(expired, "localhost", trusting(ROOT))
    assert (error.code, error.depth, error.certificate) == (EXPIRED, 1, OLD_MIDDLE.ours)
    assert "expired" in error.error_string
    (error,) = checked([GOOD, MIDDLE], "example.org", trusting(ROOT))
    assert error.error_string == "the certificate is not for example.org"


def test_without_a_name_any_will_do():
    assert checked([GOOD, MIDDLE], configuration=trusting(ROOT)) == []


def test_the_systems_authorities_are_asked_by_default(tmp_path, monkeypatch):
    assert codes(checked([GOOD, MIDDLE], "localhost"))[0] in (SELF_SIGNED_IN_CHAIN, UNKNOWN_ISSUER)
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert checked([GOOD, MIDDLE], "localhost", SslConfiguration()) == []


def test_the_purpose_is_a_servers_unless_it_is_a_clients(tmp_path):
    client = [issue("client", MIDDLE, use="client"), MIDDLE]
    assert codes(checked(client, "", trusting(ROOT))) == [WRONG_PURPOSE]
    assert checked(client, "", trusting(ROOT), purpose=SslMode.SSL_CLIENT_MODE) == []
    assert codes(checked([GOOD, MIDDLE], "", trusting(ROOT), purpose=SslMode.SSL_CLIENT_MODE)) == [WRONG_PURPOSE]
    assert checked([GOOD, MIDDLE], "", trusting(ROOT), purpose=SslMode.SSL_SERVER_MODE) == []
    assert openssl_errors(tmp_path, [ROOT], client, "-purpose", "sslclient") == []


def test_the_time_may_be_another():
    def at(time):
        return codes(checked([GOOD, MIDDLE], "localhost", trusting(ROOT), time=time))

    assert at(NOW) == []
    assert at(NOW + 3 * DAY) == [EXPIRED]
    assert at(NOW - 3 * DAY) == [NOT_YET]
    assert at((NOW + 3 * DAY).astimezone(datetime.timezone(DAY / 24))) == [EXPIRED]
    old = CASES["expired"][0]
    root = issue("root", ca=True, begin=NOW - 9 * DAY, key=ROOT.key)
    middle = issue("middle", root, ca=True, begin=NOW - 9 * DAY, key=MIDDLE.key)
    assert checked([old[0], middle], "localhost", trusting(root), time=NOW - 2 * DAY) == []


def test_the_depth_is_the_configurations():
    configuration = trusting(ROOT)
    deep = issue("deep", MIDDLE, ca=True)
    chain = [issue("localhost", deep), deep, MIDDLE]
    assert checked(chain, "localhost", configuration) == []
    configuration.peer_verify_depth = 1
    found = checked(chain, "localhost", configuration)
    context = configuration.context(False, PeerVerifyMode.VERIFY_PEER)
    assert found == [SslError(*error) for error in connection_errors(context, chain, "localhost")] != []


def test_a_configuration_that_verifies_nothing_is_for_connections():
    configuration = trusting(ROOT)
    configuration.peer_verify_mode = PeerVerifyMode.VERIFY_NONE
    configuration.verify_hostname = False
    assert codes(checked([GOOD, MIDDLE], "example.org", configuration)) == [WRONG_NAME]


def test_it_leaves_configuration_and_certificates_as_they_were():
    configuration = trusting(ROOT)
    before = trusting(ROOT)
    context = configuration.context(False, PeerVerifyMode.VERIFY_PEER)
    chain = [link.ours for link in (GOOD, MIDDLE)]
    for _ in range(3):
        assert codes(SslCertificate.verify(chain, "example.org", configuration, time=NOW + 3 * DAY)) == [EXPIRED, WRONG_NAME]
        assert SslCertificate.verify(chain, "localhost", configuration) == []
    assert configuration == before
    assert configuration.context(False, PeerVerifyMode.VERIFY_PEER) is context


def test_many_threads_may_verify_with_one_configuration():
    configuration = trusting(ROOT)
    configuration.context(False, PeerVerifyMode.VERIFY_PEER)
    found = []

    def work(case):
        chain, name, wrong = CASES[case]
        found.extend(codes(checked(chain, name, configuration)) == sorted(set(wrong)) for _ in range(10))

    threads = [threading.Thread(target=work, args=(case,)) for case in CASES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 10 * len(CASES)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ((GOOD.ours,), {}),
        (([GOOD.pem],), {}),
        ((None,), {}),
        (([GOOD.ours], b"localhost"), {}),
        (([GOOD.ours], None), {}),
        (([GOOD.ours], "", {}), {}),
        (([GOOD.ours],), {"time": 0}),
        (([GOOD.ours],), {"purpose": "server"}),
    ],
)
def test_wrong_types_raise(arguments, settings):
    with pytest.raises(TypeError):
        SslCertificate.verify(*arguments, **settings)


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (([],), {}, "no certificate"),
        (([GOOD.ours, SslCertificate(b"rubbish")],), {}, "did not load"),
        (([GOOD.ours], "a..b"), {}, "a..b"),
        (([GOOD.ours],), {"time": datetime.datetime(2030, 1, 1)}, "time zone"),
        (([GOOD.ours],), {"purpose": SslMode.UNENCRYPTED_MODE}, "purpose"),
        (([GOOD.ours],), {"purpose": 9}, "9"),
    ],
)
def test_impossible_values_raise(arguments, settings, words):
    with pytest.raises(ValueError, match=words):
        SslCertificate.verify(*arguments, **settings)


def test_a_configuration_that_cannot_be_used_is_told():
    configuration = trusting(ROOT)
    configuration.ciphers = "NO-SUCH-CIPHER"
    with pytest.raises(ValueError, match="NO-SUCH-CIPHER"):
        checked([GOOD, MIDDLE], "localhost", configuration)
