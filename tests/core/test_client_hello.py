"""The ClientHello parser: what it finds, what it waits for, what it refuses, and that nothing a stranger sends does more."""

import contextlib
import copy
import hashlib
import pickle
import random
import ssl

import pytest

from sslsock.core.client_hello import MAX_CLIENT_HELLO, ClientHello, ClientHelloError, parse_client_hello
from sslsock.core.engine import Engine, TlsError

from .hellos import (
    ALPN,
    GREASE,
    GROUPS,
    HANDSHAKE,
    SERVER_NAME,
    SIGNATURES,
    VERSIONS,
    alpn,
    body_of,
    build,
    groups,
    made_by_ssl,
    message_of,
    records_of,
    renamed,
    server_name,
    signatures,
    vector,
    versions,
)
from .pairs import server_context

FULL = (
    server_name(b"www.example.com"),
    (0xFF01, b"\0"),
    groups(29, 23),
    alpn(b"h2", b"http/1.1"),
    signatures(0x0403, 0x0804),
    versions(0x0304, 0x0303),
)


def look(hello):
    """Every property, as a dictionary."""
    names = ("server_name", "next_protocols", "protocols", "cipher_suites", "groups", "signature_algorithms", "extensions")
    return {name: getattr(hello, name) for name in (*names, "ja4")}


# what it finds


def test_every_part_is_found():
    hello = parse_client_hello(build([0x1301, 0x1302, 0xC02B], FULL, session=bytes(32)))
    assert isinstance(hello, ClientHello)
    assert hello.server_name == "www.example.com"
    assert hello.next_protocols == ("h2", "http/1.1")
    assert hello.protocols == (0x0304, 0x0303)
    assert hello.cipher_suites == (0x1301, 0x1302, 0xC02B)
    assert hello.groups == (29, 23)
    assert hello.signature_algorithms == (0x0403, 0x0804)
    assert hello.extensions == (0, 0xFF01, 10, 16, 13, 43)
    assert "www.example.com" in repr(hello) and hello.ja4 in repr(hello)


@pytest.mark.parametrize("extensions", [None, ()], ids=["no extensions", "an empty list of extensions"])
def test_a_bare_one_has_the_defaults(extensions):
    hello = parse_client_hello(build([0x002F], extensions, version=0x0301))
    assert look(hello) == {
        "server_name": None,
        "next_protocols": (),
        "protocols": (0x0301,),
        "cipher_suites": (0x002F,),
        "groups": (),
        "signature_algorithms": (),
        "extensions": (),
        "ja4": f"t10i010000_{hashlib.sha256(b'002f').hexdigest()[:12]}_000000000000",
    }
    assert "without a server name" in repr(hello)


def test_versions_are_newest_first_and_without_grease():
    hello = parse_client_hello(build(extensions=[versions(GREASE[3], 0x0302, 0x0304, 0x0303)]))
    assert hello.protocols == (0x0304, 0x0303, 0x0302)


def test_other_grease_is_told_as_it_was_sent():
    sent = [(GREASE[0], b""), groups(GREASE[1], 29), (GREASE[2], b"\0")]
    hello = parse_client_hello(build([GREASE[5], 0x1301], sent))
    assert hello.cipher_suites == (GREASE[5], 0x1301)
    assert hello.groups == (GREASE[1], 29)
    assert hello.extensions == (GREASE[0], GROUPS, GREASE[2])


def test_a_protocol_that_is_no_text_survives_as_in_configurations():
    assert parse_client_hello(build(extensions=[alpn(b"\xff\0z")])).next_protocols == ("\udcff\0z",)


def test_the_name_is_told_as_it_was_written():
    assert parse_client_hello(build(extensions=[server_name(b"WWW.Example.COM")])).server_name == "WWW.Example.COM"
    assert parse_client_hello(build(extensions=[server_name(b"a" * 255)])).server_name == "a" * 255


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["example.com", None])
@pytest.mark.parametrize("protocols", [(), ("h2", "http/1.1")])
def test_one_of_the_ssl_module(newest, name, protocols):
    hello = parse_client_hello(made_by_ssl(name, protocols, newest))
    assert hello.server_name == name
    assert hello.next_protocols == protocols
    assert hello.protocols[0] == newest
    assert (0x1301 in hello.cipher_suites) == (newest == ssl.TLSVersion.TLSv1_3)
    assert 0xC02F in hello.cipher_suites
    assert 29 in hello.groups and 0x0804 in hello.signature_algorithms
    assert hello.ja4.startswith("t13" if newest == ssl.TLSVersion.TLSv1_3 else "t12")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(kind):
    data = bytearray(build(extensions=FULL))
    hello = parse_client_hello(kind(data))
    data[:] = bytes(len(data))  # it has kept nothing of the caller's
    assert hello.server_name == "www.example.com"


def test_what_follows_is_not_looked_at():
    whole = build(extensions=FULL)
    for rest in (b"\x14\3\3\0\1\1", b"nonsense", bytes(200_000)):
        assert look(parse_client_hello(whole + rest)) == look(parse_client_hello(whole))
    message = message_of(body_of(extensions=FULL))
    assert parse_client_hello(records_of(message + b"\0\0\0\0")).server_name == "www.example.com"


# records


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 64])
def test_it_may_be_spread_over_many_records(step):
    message = message_of(body_of(range(0x1301, 0x1310), FULL))
    assert look(parse_client_hello(records_of(message, step))) == look(parse_client_hello(records_of(message)))


@pytest.mark.parametrize("step", [1, 5, 100, 16384])
def test_it_is_awaited_byte_by_byte(step):
    data = records_of(message_of(body_of(extensions=FULL)), step)
    for size in range(len(data)):
        assert parse_client_hello(data[:size]) is None, f"{size} of {len(data)} bytes are taken for all"
    assert parse_client_hello(data).server_name == "www.example.com"


def test_a_record_that_has_more_need_not_be_complete():
    message = message_of(body_of(extensions=FULL))
    data = records_of(message + bytes(100))
    assert parse_client_hello(data[: 5 + len(message) - 1]) is None
    assert parse_client_hello(data[: 5 + len(message)]).server_name == "www.example.com"


def padded(size):
    """A ClientHello whose only record is `size` bytes long, or its records if one does not do."""
    for filler in range(size - 200, size):
        data = build(extensions=[(21, bytes(filler))])
        if len(data) == size:
            return data
    raise AssertionError(size)


@pytest.mark.parametrize("size", [16384 + 5, 40_000, MAX_CLIENT_HELLO - 1, MAX_CLIENT_HELLO])
def test_a_long_one_is_found_up_to_the_bound(size):
    data = padded(size)
    assert parse_client_hello(data[:-1]) is None
    assert parse_client_hello(data).extensions == (21,)


def test_one_byte_more_than_the_bound_is_too_long():
    data = records_of(message_of(body_of(extensions=[(21, bytes(65_470))])))
    assert len(data) > MAX_CLIENT_HELLO
    with pytest.raises(ClientHelloError, match="longer than 65536 bytes"):
        parse_client_hello(data)
    assert parse_client_hello(data[: MAX_CLIENT_HELLO - 1]) is None
    with pytest.raises(ClientHelloError, match="longer than 65536 bytes"):
        parse_client_hello(data[:MAX_CLIENT_HELLO])


def test_a_length_beyond_the_bound_is_refused_at_the_header():
    with pytest.raises(ClientHelloError, match="longer than 65536 bytes") as caught:
        parse_client_hello(records_of(b"\1\1\0\0"))
    assert caught.value.alert == 22


def test_record_headers_count_against_the_bound():
    data = records_of(message_of(body_of(extensions=[(21, bytes(20_000))])), 1)
    with pytest.raises(ClientHelloError, match="longer than 65536 bytes"):
        parse_client_hello(data)


# what it refuses


NO_TLS = [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"\0", b"\x80\x2e\1\3\1", b"\x16\2", b"\x16\x04", b"\x19\3\3"]


@pytest.mark.parametrize("data", NO_TLS)
def test_another_protocol_is_seen_at_the_first_bytes(data):
    with pytest.raises(ClientHelloError, match="does not speak TLS") as caught:
        parse_client_hello(data)
    assert caught.value.alert == 0
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("data", "alert"),
    [
        (b"\x15\3\1\0\2\2\x28", 10),  # an alert
        (b"\x17\3\3\0\1x", 10),  # data
        (records_of(b"\2\0\0\4abcd"), 10),  # a ServerHello
        (records_of(b"\2"), 10),
        (b"\x16\3\1\0\0", 22),  # no empty fragments of a handshake
        (b"\x16\3\1\x40\1", 22),
        (b"\x16\3\1\xff\xff", 22),
    ],
)
def test_other_records_are_refused(data, alert):
    with pytest.raises(ClientHelloError) as caught:
        parse_client_hello(data)
    assert caught.value.alert == alert


def test_other_records_may_not_come_in_between():
    message = message_of(body_of(extensions=FULL))
    with pytest.raises(ClientHelloError, match="does not begin with a ClientHello"):
        parse_client_hello(records_of(message[:50]) + b"\x15\3\1\0\2\1\0" + records_of(message[50:]))


MALFORMED = {
    "nothing": b"",
    "a version only": b"\3\3",
    "a long session id": body_of(session=bytes(33)),
    "no cipher suites": body_of(ciphers=()),
    "half a cipher suite": b"\3\3" + bytes(32) + b"\0" + vector(b"\x13") + b"\1\0",
    "no compression": body_of(compressions=b""),
    "a byte after all": body_of(extensions=FULL) + b"\0",
    "a byte in place of extensions": body_of(extensions=None) + b"\0",
    "extensions that are cut": body_of(extensions=FULL)[:-1],
    "half an extension": body_of(extensions=None) + vector(b"\0\x17\0"),
    "an extension that reaches out": body_of(extensions=None) + vector(b"\0\x17\0\1"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_message_is_refused(case):
    with pytest.raises(ClientHelloError) as caught:
        parse_client_hello(records_of(message_of(MALFORMED[case])))
    assert caught.value.alert == 50


BAD_EXTENSIONS = {
    "an empty server_name": (SERVER_NAME, b""),
    "no names": (SERVER_NAME, vector(b"")),
    "another kind of name": (SERVER_NAME, vector(b"\1" + vector(b"a"))),
    "two names": (SERVER_NAME, vector(b"\0" + vector(b"a") + b"\0" + vector(b"b"))),
    "a name that is cut": (SERVER_NAME, vector(b"\0\0\5abc")),
    "bytes after the names": (SERVER_NAME, vector(b"\0" + vector(b"a")) + b"\0"),
    "no protocols": alpn(),
    "an empty protocol": alpn(b"h2", b""),
    "a protocol that is cut": (ALPN, vector(b"\3h2")),
    "bytes after the protocols": (ALPN, vector(b"\2h2") + b"\0"),
    "no versions": versions(),
    "half a version": (VERSIONS, vector(b"\3\4\3", 1)),
    "bytes after the versions": (VERSIONS, vector(b"\3\4", 1) + b"\0"),
    "no groups": groups(),
    "half a group": (GROUPS, vector(b"\0")),
    "groups that are cut": (GROUPS, b"\0\4\0\x1d"),
    "no signature algorithms": signatures(),
    "half a signature algorithm": (SIGNATURES, vector(b"\4\3\5")),
    "nothing in place of signature algorithms": (SIGNATURES, b""),
}


@pytest.mark.parametrize("case", BAD_EXTENSIONS)
def test_a_malformed_extension_is_refused_by_number(case):
    number, content = BAD_EXTENSIONS[case]
    with pytest.raises(ClientHelloError, match=f"extension {number} of the ClientHello is malformed") as caught:
        parse_client_hello(build(extensions=[(0x17, b""), (number, content)]))
    assert caught.value.alert == 50


NO_HOST_NAMES = {
    "nothing": (b"", None),
    "the longest": (b"a" * 255, "a" * 255),
    "a line feed": (b"a\nb", "a\nb"),
    "a space": (b"a b", "a b"),
    "UTF-8": ("bücher.example".encode(), "bücher.example"),
    "no UTF-8": (b"b\xfccher.example\xff", "b\udcfccher.example\udcff"),
    "an address": (b"192.0.2.1", "192.0.2.1"),
    "an underscore": (b"_a.example", "_a.example"),
}


@pytest.mark.parametrize("case", NO_HOST_NAMES)
def test_a_server_name_that_is_no_host_name_is_read_as_libssl_reads_it(case):
    name, expected = NO_HOST_NAMES[case]
    data = renamed(name)
    hello = parse_client_hello(data)
    assert hello.server_name == expected
    assert repr(hello).isascii() and repr(hello).isprintable()
    engine = libssl_answers(data)
    assert engine is not None and engine.requested_server_name == expected


@pytest.mark.parametrize("name", [b"good.example\0evil.example", b"\0", b"a" * 256], ids=["a zero", "only a zero", "too long"])
def test_a_server_name_that_libssl_refuses(name):
    data = renamed(name)
    with pytest.raises(ClientHelloError, match="server name") as caught:
        parse_client_hello(data)
    assert caught.value.alert == 112
    assert libssl_answers(data) is None


@pytest.mark.parametrize("number", [0, 23, 0x8000, 0xFFFF])
def test_an_extension_that_comes_twice_is_refused(number):
    twice = server_name(b"a") if number == 0 else (number, b"")
    with pytest.raises(ClientHelloError, match=f"extension {number} twice") as caught:
        parse_client_hello(build(extensions=[twice, (22, b""), twice]))
    assert caught.value.alert == 47


def test_as_many_extensions_as_there_is_room_for():
    many = [(number, b"") for number in range(100, 16_000)]
    assert len(parse_client_hello(build(extensions=many)).extensions) == len(many)


@pytest.mark.parametrize("wrong", [None, "text", 1, ["list"]])
def test_what_is_no_buffer_is_a_type_error(wrong):
    with pytest.raises(TypeError):
        parse_client_hello(wrong)


def test_nobody_else_makes_one():
    with pytest.raises(TypeError, match="client_hello_handler"):
        ClientHello()
    empty = ClientHello.__new__(ClientHello)
    assert look(empty)["server_name"] is None and look(empty)["protocols"] == () and repr(empty)
    hello = parse_client_hello(build(extensions=FULL))
    for make in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            make(hello)
    with pytest.raises(AttributeError):
        hello.server_name = "other"


# JA4


def hello_of(raw, protocol, grease=True):
    """A ClientHello with what a published JA4_ro says: cipher suites, extensions and signature algorithms in their order."""
    first, ciphers, extensions, *algorithms = raw.split("_")
    newest = {"13": 0x0304, "10": 0x0301}[first[1:3]]
    contents = {
        SERVER_NAME: server_name(b"example.com")[1],
        ALPN: alpn(protocol, b"x")[1],
        VERSIONS: versions(GREASE[1], newest, 0x0303)[1],
        GROUPS: groups(GREASE[2], 29, 23)[1],
        SIGNATURES: signatures(*[int(number, 16) for number in algorithms[0].split(",")])[1] if algorithms else b"",
    }
    order = [int(number, 16) for number in extensions.split(",")]
    pairs = [(number, contents.get(number, b"\0")) for number in order]
    suites = [int(number, 16) for number in ciphers.split(",")]
    if grease:
        pairs = [(GREASE[4], b""), *pairs, (GREASE[5], b"\0")]
        suites = [GREASE[6], *suites]
    return build(suites, pairs, version=min(newest, 0x0303))


CHROME_CIPHERS = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"
CHROME_SIGNATURES = "0403,0804,0401,0503,0805,0501,0806,0601"

# JA4 by JA4_ro, as the JA4 specification, its test data and sites that show visitors theirs have published them.
PUBLISHED = {
    "t13d1516h2_8daaf6152771_e5627efa2ab1": (  # the specification's example
        f"t13d1516h2_{CHROME_CIPHERS}_001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
        f"_{CHROME_SIGNATURES}"
    ),
    "t13d1516h2_8daaf6152771_d8a2da3f94cd": (  # Chrome 146
        f"t13d1516h2_{CHROME_CIPHERS}_fe0d,002b,0012,44cd,000a,ff01,0033,0005,0023,0000,000d,0010,000b,001b,0017,002d"
        f"_{CHROME_SIGNATURES}"
    ),
    "t13d1517h2_8daaf6152771_cb7bf5808d99": (  # Chrome with GREASE among its signature algorithms
        f"t13d1517h2_{CHROME_CIPHERS}_fe0d,0010,0017,0033,44cd,ff01,000a,000d,0023,002b,000b,ca34,002d,0000,0005,001b,0012"
        f"_0a0a,0904,0905,0906,{CHROME_SIGNATURES}"
    ),
    "t13d1615h2_46e7e9700bed_45f260be83e2": (  # an older Chrome
        f"t13d1615h2_{CHROME_CIPHERS},000a_0000,0017,ff01,000a,000b,0023,0010,0005,000d,0012,0033,002d,002b,001b,0015"
        f"_{CHROME_SIGNATURES},0201"
    ),
    "t13d2014h2_a09f3c656075_14788d8d241b": (  # Safari 17
        "t13d2014h2_1301,1302,1303,c02c,c02b,cca9,c030,c02f,cca8,c00a,c009,c014,c013,009d,009c,0035,002f,c008,c012,000a"
        "_0000,0017,ff01,000a,000b,0010,0005,000d,0012,0033,002d,002b,001b,0015"
        "_0403,0804,0401,0503,0203,0805,0805,0501,0806,0601,0201"
    ),
    "t13d1715h2_5b57614c22b0_3d5424432f57": (  # Firefox
        "t13d1715h2_1301,1303,1302,c02b,c02f,cca9,cca8,c02c,c030,c00a,c009,c013,c014,009c,009d,002f,0035"
        "_0000,0017,ff01,000a,000b,0023,0010,0005,0022,0033,002b,000d,002d,001c,0015"
        "_0403,0503,0603,0804,0805,0806,0401,0501,0601,0203,0201"
    ),
    "t13d4213h1_171bc101b036_5f0018e59d20": (  # curl with GnuTLS's many cipher suites
        "t13d4213h1_1302,1303,1301,1304,c02c,c030,cca9,cca8,c0ad,c02b,c02f,c0ac,c023,c027,c00a,c014,c009,c013,009d,c09d,009c"
        ",c09c,003d,003c,0035,002f,00a3,009f,ccaa,c09f,00a2,009e,c09e,006b,006a,0067,0040,0039,0038,0033,0032,00ff"
        "_0000,000b,000a,0010,0016,0017,0031,000d,002b,002d,0033,001b,0015"
        "_0403,0503,0603,0807,0808,0809,080a,080b,0804,0805,0806,0401,0501,0601,0303,0301,0402,0502,0602,0302,0203,0201,0202"
    ),
    "t10d230100_6a57a6f57151_000000000000": (  # TLS 1.0, and no extension that counts
        "t10d230100_0039,0038,0035,0016,0013,000a,0033,0032,002f,009a,0099,0096,0005,0004,0015,0012,0009,0014,0011,0008,0006"
        ",0003,00ff_0000"
    ),
}


@pytest.mark.parametrize("grease", [False, True], ids=["plain", "grease"])
@pytest.mark.parametrize("ja4", PUBLISHED)
def test_published_fingerprints(ja4, grease):
    raw = PUBLISHED[ja4]
    protocol = {"h2": b"h2", "h1": b"http/1.1", "00": b"none"}[raw.split("_")[0][-2:]]
    assert parse_client_hello(hello_of(raw, protocol, grease)).ja4 == ja4


@pytest.mark.parametrize(
    ("protocol", "ends"),
    [
        (b"h2", "h2"), (b"http/1.1", "h1"), (b"q", "qq"), (b"\xab", "ab"), (b"\xab\xcd", "ad"), (b"0\xab", "3b"),
        (b"01\xab\xcd", "3d"), (b"0\xab\xcd1", "01"), (b"\xba\xad", "bd"), (b"-a", "21"),
    ],
)  # fmt: skip
def test_the_protocol_in_a_fingerprint(protocol, ends):
    """The specification's own examples, and some."""
    assert parse_client_hello(build(extensions=[alpn(protocol)])).ja4.split("_")[0] == f"t12i0101{ends}"


@pytest.mark.parametrize(
    ("version", "letters"),
    [(0x0304, "13"), (0x0303, "12"), (0x0302, "11"), (0x0301, "10"), (0x0300, "s3"), (0x0002, "s2"), (0x0305, "00")],
)
def test_the_version_in_a_fingerprint(version, letters):
    assert parse_client_hello(build(extensions=[versions(version)])).ja4.startswith(f"t{letters}i")
    assert parse_client_hello(build(extensions=None, version=version)).ja4.startswith(f"t{letters}i")


def test_counts_in_a_fingerprint_end_at_99():
    many = [(number, b"") for number in range(100, 250)]
    assert parse_client_hello(build(range(1, 101), many)).ja4.startswith("t12i999900_")


def test_a_fingerprint_of_grease_alone():
    only = [(GREASE[0], b""), versions(GREASE[1])]
    extensions = hashlib.sha256(b"002b").hexdigest()[:12]
    assert parse_client_hello(build([GREASE[2]], only)).ja4 == f"t00i000100_000000000000_{extensions}"


def test_a_fingerprint_is_made_once():
    hello = parse_client_hello(build(extensions=FULL))
    assert hello.ja4 is hello.ja4


# strangers


def samples():
    yield build([0x1301, GREASE[0]], FULL, session=bytes(32))
    yield build([0x002F], None)
    yield records_of(message_of(body_of(extensions=FULL)), 30)
    yield hello_of(PUBLISHED["t13d4213h1_171bc101b036_5f0018e59d20"], b"h2")
    yield made_by_ssl()
    yield made_by_ssl(newest=ssl.TLSVersion.TLSv1_2)


def attempt(data):
    """Parse from memory of exactly that size, so that a sanitizer sees a byte too far; look at everything that comes."""
    memory = memoryview(bytes(data))
    try:
        hello = parse_client_hello(memory)
    except ClientHelloError as exc:
        assert str(exc) and exc.alert in (0, 10, 22, 47, 50, 112)
        return None
    if hello is not None:
        found = look(hello)
        assert len(found["ja4"]) == 36
        assert all(0 <= number <= 0xFFFF for number in found["extensions"] + found["groups"] + found["cipher_suites"])
    return hello


@pytest.mark.parametrize("number", range(6))
def test_every_truncation_waits_or_is_refused(number):
    data = list(samples())[number]
    for size in range(len(data)):
        assert attempt(data[:size]) is None
    assert attempt(data) is not None


@pytest.mark.parametrize("number", range(6))
def test_every_truncated_message_is_refused(number):
    """The outer lengths agree with what is there; those inside lie."""
    data = list(samples())[number]
    step = int.from_bytes(data[3:5], "big")
    whole = b"".join(data[start + 5 : start + 5 + step] for start in range(0, len(data), step + 5))[4:]
    assert attempt(records_of(message_of(whole))) is not None
    # Without its extensions a message is complete, too.
    complete = len(body_of(parse_client_hello(data).cipher_suites, None, session=bytes(whole[34])))
    for size in range(len(whole)):
        assert (attempt(records_of(message_of(whole[:size]))) is not None) == (size == complete), size


@pytest.mark.parametrize("number", range(6))
def test_every_length_may_lie(number):
    """Any two bytes may be a length: each place gets values that are one off, zero, all there is and more."""
    data = list(samples())[number]
    for place in range(len(data)):
        for value in (0, 1, data[place] - 1 & 255, data[place] + 1 & 255, 0x7F, 0x80, 0xFF):
            attempt(data[:place] + bytes((value,)) + data[place + 1 :])
        for value in (b"\0\0", b"\0\1", b"\xff\xff", b"\x7f\xff", len(data).to_bytes(2, "big")):
            attempt(data[:place] + value + data[place + 2 :])


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_does_no_harm(seed):
    generator = random.Random(seed)
    whole = list(samples())
    for _ in range(1000):
        data = bytearray(generator.choice(whole))
        for _ in range(generator.randint(1, 8)):
            place = generator.randrange(len(data))
            kind = generator.randrange(5)
            if kind == 0:
                data[place] = generator.randrange(256)
            elif kind == 1:
                data[place] ^= 1 << generator.randrange(8)
            elif kind == 2:
                del data[place : place + generator.randint(1, 20)]
            elif kind == 3:
                data[place:place] = generator.randbytes(generator.randint(1, 20))
            else:
                other = generator.choice(whole)
                data[place:] = other[generator.randrange(len(other)) :]
            if not data:
                break
        attempt(data)


@pytest.mark.parametrize("seed", range(5))
def test_random_contents_of_right_length_do_no_harm(seed):
    """The frame is in order, so that the parser comes as far as the extensions."""
    generator = random.Random(seed)
    known = (SERVER_NAME, GROUPS, SIGNATURES, ALPN, VERSIONS, 23)
    for _ in range(1000):
        pairs = [(number, generator.randbytes(generator.randrange(12))) for number in generator.sample(known, 4)]
        attempt(records_of(message_of(body_of(extensions=pairs)), generator.randint(1, 300)))


def libssl_answers(data):
    """An engine that has answered this ClientHello with a ServerHello, or None."""
    engine = Engine(server_context())
    with contextlib.suppress(TlsError):
        engine.decrypt(data)
    answer = engine.take()
    return engine if answer[:1] == b"\x16" and answer[5:6] == b"\2" else None


# What libssl leaves alone or has no use for, and we refuse.
STRICTER = ("twice", "extension 10 ", "extension 13 ", "extension 16 ", "extension 43 ")


@pytest.mark.parametrize("seed", range(10))
def test_libssl_reads_the_same(seed):
    """A ClientHello may be damaged as it will: if libssl goes on with it, we have read the same name in it, so that nobody is
    sent to one place by us and to another by libssl."""
    generator = random.Random(seed)
    whole = [made_by_ssl("one.example"), made_by_ssl("one.example", (), ssl.TLSVersion.TLSv1_2), made_by_ssl(None)]
    both = 0
    for _ in range(150):
        data = bytearray(generator.choice(whole))
        for _ in range(generator.randint(1, 4)):
            # Near the names and lengths of extensions, rather than in the random bytes.
            data[generator.choice([*range(12), *range(43, 46), *range(76, len(data))])] = generator.randrange(256)
        engine = libssl_answers(data)
        if engine is None:
            continue
        try:
            hello = parse_client_hello(data)
        except ClientHelloError as exc:
            assert any(words in str(exc) for words in STRICTER), f"libssl takes what we refuse: {exc}: {data.hex()}"
            continue
        assert hello is not None, f"libssl has enough of what we find incomplete: {data.hex()}"
        assert hello.server_name == engine.requested_server_name, data.hex()
        assert engine.protocol in hello.protocols or engine.protocol < hello.protocols[0], data.hex()
        both += 1
    assert both > 20, "hardly any was accepted by both, so nothing was compared"


def test_random_bytes_do_no_harm():
    generator = random.Random(1)
    for _ in range(2000):
        attempt(bytes((HANDSHAKE, 3, 1)) + generator.randbytes(generator.randrange(300)))
