"""What may be given as a host, and what is made of it."""

import pytest

from sslsock.core.hostname import Host, parse_host


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
    ],
)
def test_impossible_host_is_refused_with_the_reason(text, words):
    with pytest.raises(ValueError, match=words):
        parse_host(text)
