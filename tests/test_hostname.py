"""What may be given as a host, and what is made of it."""

import subprocess
import sys

import pytest

from sslsock.core.hostname import Host, ascii_name, parse_host
from sslsock.core.issue import issue_certificate, make_authority


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com", Host("example.com", False, "example.com", "example.com")),
        ("example.com.", Host("example.com.", False, "example.com", "example.com")),
        ("my_host", Host("my_host", False, "my_host", "my_host")),
        ("bücher.example", Host("xn--bcher-kva.example", False, "xn--bcher-kva.example", "xn--bcher-kva.example")),
        ("127.0.0.1", Host("127.0.0.1", True, "127.0.0.1", None)),
        ("::1", Host("::1", True, "::1", None)),
        ("[::1]", Host("::1", True, "::1", None)),
        ("fe80::1%lo", Host("fe80::1%lo", True, "fe80::1", None)),
        ("127.1", Host("127.1", False, "127.1", None)),
    ],
)
def test_host_is_taken_apart(text, expected):
    assert parse_host(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("a..b", "empty or longer"),
        (".", "empty or longer"),
        ("a" * 64, "longer than 63"),
        (".".join(["a" * 60] * 5), "longer than 253"),
        ("a b", "no host name"),
        ("https://example.com", "no host name"),
        ("example.com:443", "no host name"),
        ("ü" * 70 + ".example", "not valid"),
        ("ü" * 5000, "longer than 253"),
        ("\u2603.example", "not valid: .*not allowed"),  # a snowman: IDNA 2008 has letters, digits and marks
        ("a\u00ad\u200b..example", "empty or longer"),
        ("\u00ad", "empty or longer"),  # which the mapping leaves out
        ("\u0301a.example", "not valid"),  # RFC 5891, 4.2.3.2: a combining mark first
        ("a\u0660\u05d0.example", "not valid"),  # RFC 5893: both directions in one label
        ("xn--\u00fc.example", "not valid"),
        ("a\ud800.example", "not valid"),
        ("\u2100.example", "no host name"),  # mapped to "a/c"
        ("b\u00fccher.example\uff1a443", "no host name"),  # a colon in full width
    ],
)
def test_impossible_host_is_refused_with_the_reason(text, words):
    with pytest.raises(ValueError, match=words):
        parse_host(text)


# IDNA 2008, RFC 5891 to 5895, after the mapping of UTS 46


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("straße.de", "xn--strae-oqa.de"),  # another name than strasse.de, which IDNA 2003 made of it
        ("faß.example", "xn--fa-hia.example"),
        ("βόλος.com", "xn--nxasmm1c.com"),  # with a final sigma
        ("نامه\u200cای.com", "xn--mgba3gch31f060k.com"),  # with a zero width non-joiner
        ("BÜCHER.Example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),  # composed from two
        ("ｂücher．example", "xn--bcher-kva.example"),  # full width
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),  # with an ideographic full stop
        ("my_host.bücher.example", "my_host.xn--bcher-kva.example"),
        ("xn--bcher-kva.bücher.example.", "xn--bcher-kva.xn--bcher-kva.example."),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "XN--BCHER-KVA.example"),  # ASCII is left alone
        ("q--x.example", "q--x.example"),
    ],
)
def test_names_that_are_not_ascii_follow_idna_2008(text, expected):
    assert ascii_name(text) == expected
    host = parse_host(text)
    assert (host.name, host.numeric) == (expected, False)
    assert host.verify_name == host.server_name == expected.rstrip(".")


def test_an_address_in_the_digits_of_another_script_is_an_address():
    assert parse_host("１２７.０.０.１") == Host("127.0.0.1", True, "127.0.0.1", None)


def test_certificates_are_issued_for_the_same_names():
    authority, key = make_authority()
    certificate, _ = issue_certificate(authority, key, ["straße.de"])
    assert certificate.subject_alternative_names == [("DNS", "xn--strae-oqa.de")]


def test_idna_is_loaded_when_a_name_needs_it_and_missed_in_words():
    program = """
import sys
import sslsock
from sslsock.core.hostname import parse_host
parse_host("example.com"); parse_host("xn--bcher-kva.example"); parse_host("::1")
assert "idna" not in sys.modules
sys.modules["idna"] = None
try:
    parse_host("b\u00fccher.example")
except ValueError as exc:
    print(exc)
s = sslsock.SslSocket(); s.error_handler = lambda s, e: (print(e.name), sslsock.stop())
s.connect_encrypted("b\u00fccher.example", 443); sslsock.run()
"""
    command = [sys.executable, "-X", "utf8", "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert found.returncode == 0, found.stderr
    words, error = found.stdout.splitlines()
    assert "needs the package idna" in words
    assert error == "HOST_NOT_FOUND_ERROR"
