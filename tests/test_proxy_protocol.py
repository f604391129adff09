"""The PROXY protocol's parser and encoders: every kind of header, every truncation, every mutated byte."""

from __future__ import annotations

import random
import struct
from typing import Optional

import pytest

from sslsock.proxy_protocol import (
    MAXIMUM_SIZE,
    MAXIMUM_TLVS,
    PP2_SUBTYPE_SSL_CIPHER,
    PP2_SUBTYPE_SSL_CN,
    PP2_SUBTYPE_SSL_KEY_ALG,
    PP2_SUBTYPE_SSL_SIG_ALG,
    PP2_SUBTYPE_SSL_VERSION,
    PP2_TYPE_ALPN,
    PP2_TYPE_AUTHORITY,
    PP2_TYPE_CRC32C,
    PP2_TYPE_NOOP,
    PP2_TYPE_SSL,
    PP2_TYPE_UNIQUE_ID,
    Endpoint,
    Header,
    ProxyProtocolError,
    TlsFields,
    encode_v1,
    encode_v2,
    parse,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
INET = (("192.0.2.1", 56324), ("198.51.100.7", 443))
INET6 = (("2001:db8::1", 1), ("fe80::ffff:0:2", 65535))
UNIX = (("/run/client.sock", 0), ("@abstract", 0))


def v2(command: int, family: int, block: bytes, version: int = 2) -> bytes:
    return SIGNATURE + bytes([version << 4 | command, family]) + struct.pack("!H", len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


ADDRESSES4 = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack("!HH", 56324, 443)
ADDRESSES6 = bytes.fromhex("20010db8" + "00" * 11 + "01" + "fe80" + "00" * 8 + "ffff00000002") + struct.pack("!HH", 1, 65535)
PATHS = b"/run/client.sock".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")

# Written down from the specification, not with our encoders.
VALID = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", *INET),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::1 fe80::ffff:0:2 1 65535\r\n", *INET6),
    "v1 longest TCP6": (
        b"PROXY TCP6 " + b":".join([b"FFFF"] * 8) + b" " + b":".join([b"ffff"] * 8) + b" 65535 65535\r\n",
        (":".join(["ffff"] * 8), 65535),
        (":".join(["ffff"] * 8), 65535),
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None, None),
    "v1 UNKNOWN with anything": (b"PROXY UNKNOWN \xff any thing\0\r\n", None, None),
    "v1 longest": (
        b"PROXY UNKNOWN " + b":".join([b"ffff"] * 8) + b" " + b":".join([b"ffff"] * 8) + b" 65535 65535\r\n",
        None,
        None,
    ),
    "v2 TCP4": (v2(1, 0x11, ADDRESSES4), *INET),
    "v2 UDP4": (v2(1, 0x12, ADDRESSES4), *INET),
    "v2 TCP6": (v2(1, 0x21, ADDRESSES6), *INET6),
    "v2 UDP6": (v2(1, 0x22, ADDRESSES6), *INET6),
    "v2 UNIX": (v2(1, 0x31, PATHS), *UNIX),
    "v2 UNIX datagram": (v2(1, 0x32, PATHS), *UNIX),
    "v2 UNIX without names": (v2(1, 0x31, bytes(216)), ("", 0), ("", 0)),
    "v2 UNIX, full paths": (v2(1, 0x31, b"/" + b"a" * 107 + b"/" + b"b" * 107), ("/" + "a" * 107, 0), ("/" + "b" * 107, 0)),
    "v2 UNSPEC": (v2(1, 0x00, b""), None, None),
    "v2 UNSPEC with something": (v2(1, 0x00, b"anything"), None, None),
    "v2 TCP of no family": (v2(1, 0x01, b"x"), None, None),
    "v2 IPv4, unspecified transport": (v2(1, 0x10, ADDRESSES4), None, None),
    "v2 LOCAL": (v2(0, 0x00, b""), None, None),
    "v2 LOCAL with addresses": (v2(0, 0x11, ADDRESSES4), None, None),
    "v2 LOCAL with an unknown family": (v2(0, 0xF7, b"rubbish"), None, None),
    "v2 with TLVs": (v2(1, 0x11, ADDRESSES4 + tlv(1, b"h2") + tlv(4, b"") + tlv(0xE5, b"\0\xff")), *INET),
    "v2 with the longest TLVs": (v2(1, 0x11, ADDRESSES4 + tlv(PP2_TYPE_NOOP, bytes(4093))), *INET),
}

INVALID = {
    "HTTP": (b"GET / HTTP/1.1\r\n", "begins with b'GET / HTTP/1'"),
    "a TLS ClientHello": (b"\x16\x03\x01\x02\x00\x01\x00", "begins with a TLS handshake"),
    "lower case": (b"proxy TCP4 ", "no PROXY header"),
    "POST": (b"POST / HTTP/1.1", "no PROXY header"),
    "PROXIED": (b"PROXIED", "no PROXY header"),
    "v1 unknown protocol": (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", "unknown protocol"),
    "v1 no protocol": (b"PROXY \r\n", "unknown protocol"),
    "v1 UNKNOWNX": (b"PROXY UNKNOWNX\r\n", "unknown protocol"),
    "v1 two spaces": (b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "unknown protocol"),
    "v1 two spaces inside": (b"PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n", "7 words"),
    "v1 a space at the end": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", "7 words"),
    "v1 too few": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "5 words"),
    "v1 nothing": (b"PROXY TCP4 \r\n", "3 words"),
    "v1 tabs": (b"PROXY TCP4 1.2.3.4\t1.2.3.4 1 1\r\n", "5 words"),
    "v1 leading zero in an address": (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n", "'1.2.3.04' is no IPv4 address"),
    "v1 short address": (b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n", "no IPv4 address"),
    "v1 256": (b"PROXY TCP4 1.2.3.4 1.2.3.256 1 1\r\n", "'1.2.3.256' is no IPv4 address"),
    "v1 IPv6 in TCP4": (b"PROXY TCP4 ::1 ::1 1 1\r\n", "no IPv4 address"),
    "v1 IPv4 in TCP6": (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n", "no IPv6 address"),
    "v1 two double colons": (b"PROXY TCP6 1::2::3 ::1 1 1\r\n", "no IPv6 address"),
    "v1 zone": (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", "no IPv6 address"),
    "v1 NUL": (b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 1\r\n", "no IPv4 address"),
    "v1 not ASCII": (b"PROXY TCP4 1.2.3.\xb2 1.2.3.4 1 1\r\n", "no IPv4 address"),
    "v1 port 65536": (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n", "'65536' is no port"),
    "v1 port -1": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 -1\r\n", "'-1' is no port"),
    "v1 port +1": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 +1\r\n", "no port"),
    "v1 port 01": (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", "'01' is no port"),
    "v1 port x": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n", "no port"),
    "v1 empty port": (b"PROXY TCP4 1.2.3.4 1.2.3.4  1\r\n", "no port"),
    "v1 LF alone": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n", "CR or LF alone"),
    "v1 CR alone": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\rX", "CR or LF alone"),
    "v1 CR CR LF": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r\n", "CR or LF alone"),
    "v1 UNKNOWN and LF": (b"PROXY UNKNOWN \n", "CR or LF alone"),
    "v1 UNKNOWN and CR alone": (b"PROXY UNKNOWN\rX", "CR or LF alone"),
    "v1 too long": (b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n", "no CRLF in the first 107"),
    "v1 without end": (b"PROXY TCP4 ".ljust(106, b"1"), "no CRLF in the first 107"),
    "v2 version 1": (v2(1, 0x11, ADDRESSES4, version=1), "version 1 instead of 2"),
    "v2 version 3": (v2(1, 0x11, ADDRESSES4, version=3), "version 3 instead of 2"),
    "v2 command": (v2(2, 0x11, ADDRESSES4), "unknown command 2"),
    "v2 family": (v2(1, 0x41, ADDRESSES4), "unknown address family or transport, 0x41"),
    "v2 transport": (v2(1, 0x13, ADDRESSES4), "unknown address family or transport, 0x13"),
    "v2 IPv4 too short": (v2(1, 0x11, ADDRESSES4[:-1]), "11 bytes, but the addresses take 12"),
    "v2 IPv6 too short": (v2(1, 0x21, ADDRESSES6[:-1]), "35 bytes, but the addresses take 36"),
    "v2 UNIX too short": (v2(1, 0x31, PATHS[:-1]), "215 bytes, but the addresses take 216"),
    "v2 too many TLVs": (v2(1, 0x11, ADDRESSES4 + tlv(4, bytes(4094))), "4097 bytes after the addresses, more than 4096"),
    "v2 huge": (v2(1, 0x11, ADDRESSES4)[:14] + b"\xff\xff", "more than 4096"),
    "v2 huge LOCAL": (v2(0, 0, b"")[:14] + b"\xff\xff", "more than 4096"),
    "v2 TLV without length": (v2(1, 0x11, ADDRESSES4 + b"\1\0"), "cut"),
    "v2 TLV too long": (v2(1, 0x11, ADDRESSES4 + b"\1\0\3h2"), "TLV 0x01 of 3 bytes, of which 2 are there"),
    "v2 short checksum": (v2(1, 0x11, ADDRESSES4 + tlv(3, b"\0\0\0")), "checksum"),
    "v2 wrong checksum": (v2(1, 0x11, ADDRESSES4 + tlv(3, bytes(4))), "the checksum is wrong"),
    "v2 two checksums": (v2(1, 0x11, ADDRESSES4 + tlv(3, bytes(4)) * 2), "a second checksum"),
    "v2 long id": (v2(1, 0x11, ADDRESSES4 + tlv(5, bytes(129))), "a unique id of 129 bytes"),
}


@pytest.mark.parametrize("name", VALID)
def test_a_valid_header_says_what_it_contains(name: str) -> None:
    data, source, destination = VALID[name]
    header = parse(data)
    assert header == Header(int(name[1]), "LOCAL" in name, source, destination, len(data), header.tlvs if header else ())


@pytest.mark.parametrize("name", VALID)
def test_what_follows_a_header_is_left_alone(name: str) -> None:
    data = VALID[name][0]
    for more in (b"x", b"\r\n", b"PROXY TCP4 ", data, bytes(70000)):
        assert parse(data + more) == parse(data), f"{more[:20]!r} changes the meaning"


@pytest.mark.parametrize("name", VALID)
def test_every_truncation_of_a_valid_header_is_waited_for(name: str) -> None:
    data = VALID[name][0]
    for length in range(len(data)):
        assert parse(data[:length]) is None, f"{data[:length]!r} was not waited for"


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_header_is_refused_with_its_reason(name: str) -> None:
    data, reason = INVALID[name]
    with pytest.raises(ProxyProtocolError) as caught:
        parse(data)
    assert reason in str(caught.value)
    assert str(caught.value).isprintable(), "the message would break a log line"


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_header_that_comes_byte_by_byte_is_waited_for_and_then_refused(name: str) -> None:
    data = INVALID[name][0]
    refused_at = outcome_by_bytes(data)[1]
    assert refused_at is not None and refused_at <= len(data), "it was accepted"


def outcome_by_bytes(data: bytes, known: int = 0) -> tuple[Optional[Header], Optional[int]]:
    """What a receiver does that looks after each byte: the header, or after how many bytes it refuses; neither: it waits.
    Of the first `known` bytes it is known that they are waited for."""
    for length in range(known, len(data) + 1):
        try:
            header = parse(data[:length])
        except ProxyProtocolError:
            return None, length
        if header is not None:
            assert header.size == length, "it was complete before"
            return header, None
    return None, None


@pytest.mark.parametrize(
    ("data", "refused_at"),
    [
        (b"GET", 1),
        (b"\x16\x03\x01", 1),
        (b"PRX", 3),
        (b"\r\nX", 3),
        (b"PROXY TCP5 ", 10),
        (b"PROXY UNKNOWN\n", 14),
        (SIGNATURE + b"\x31", 13),
        (SIGNATURE + b"\x21\x14", 14),
        (SIGNATURE + b"\x21\x11\x00\x0b", 16),
        (SIGNATURE + b"\x21\x11\xff\xff", 16),
    ],
)
def test_a_refusal_comes_with_the_first_byte_that_cannot_be(data: bytes, refused_at: int) -> None:
    assert outcome_by_bytes(data) == (None, refused_at)


def test_the_wait_is_bounded() -> None:
    """Whatever comes, after 107 bytes of version 1 and 16 + 216 + 4096 of version 2 there is an answer."""
    for start in (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN ", b"PROXY UNKNOWN\r"):
        for filler in (b" ", b"1", b"\xff", b"\0"):
            assert outcome_by_bytes(start + filler * 107)[1] is not None, f"{start!r} is waited for for ever"
    for family in range(256):
        for command in (0, 1):
            for length in (0, 11, 12, 4096, 4108, 4132, 4312, 4313, 65535):
                data = SIGNATURE + struct.pack("!BBH", 0x20 | command, family, length)
                try:
                    assert parse(data) is None or length == 0
                except ProxyProtocolError:
                    continue
                assert length <= 216 + 4096


@pytest.mark.parametrize("name", [name for name in VALID if len(VALID[name][0]) < 240])
def test_every_mutation_of_a_byte_is_answered_alike_at_once_and_byte_by_byte(name: str) -> None:
    data = VALID[name][0]
    for place in range(len(data)):
        for value in {0, 1, 9, 10, 13, 32, 48, 57, 0x7F, 0x80, 0xFF, data[place] ^ 1, data[place] ^ 0x20, data[place] ^ 0x80}:
            mutated = data[:place] + bytes([value]) + data[place + 1 :]
            header, refused_at = outcome_by_bytes(mutated, place)
            if refused_at is not None:
                with pytest.raises(ProxyProtocolError):
                    parse(mutated)
            else:
                assert parse(mutated) == header


def test_random_bytes_after_a_valid_beginning_never_do_anything_else() -> None:
    random_numbers = random.Random(20)
    beginnings = (b"", b"P", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", SIGNATURE, SIGNATURE + b"\x21", SIGNATURE + b"!\x11\0")
    for _ in range(5000):
        data = random_numbers.choice(beginnings) + random_numbers.randbytes(random_numbers.randrange(150))
        try:
            header = parse(data)
        except ProxyProtocolError as error:
            assert str(error).isprintable()
        else:
            assert header is None or header.size <= len(data)


def test_a_checksum_that_is_right_is_accepted_and_guards_every_byte() -> None:
    data = encode_v2(*INET, alpn=b"h2", checksum=True)
    header = parse(data)
    assert header is not None and header.tlv(PP2_TYPE_CRC32C) is not None
    for place in range(12, len(data)):
        for bit in range(8):
            mutated = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            try:
                other = parse(mutated)
            except ProxyProtocolError:
                continue
            # Not refused: a length that grew is waited for; LOCAL and unspecified are not interpreted; and the bits that
            # make another type of the checksum take the guard away.
            assert other is None or other.source is None or other.tlv(PP2_TYPE_CRC32C) is None, f"byte {place}, bit {bit}"


def test_the_checksum_is_crc32c() -> None:
    """RFC 3720, B.4: 32 bytes of zeros give aa36918a, of ones 43aba862, ascending 4e79dd46 (bytes in network order)."""
    from sslsock.proxy_protocol import _crc32c

    assert struct.pack("<I", _crc32c(bytes(32))).hex() == "aa36918a"
    assert struct.pack("<I", _crc32c(b"\xff" * 32)).hex() == "43aba862"
    assert struct.pack("<I", _crc32c(bytes(range(32)))).hex() == "4e79dd46"


# Encoding.


def test_version_1_is_written_as_the_specification_shows_it() -> None:
    assert encode_v1(("192.168.0.1", 56324), ("192.168.0.11", 443)) == b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    assert encode_v1(*INET6) == b"PROXY TCP6 2001:db8::1 fe80::ffff:0:2 1 65535\r\n"
    assert encode_v1(None, INET[1]) == encode_v1(INET[0], None) == encode_v1(*UNIX) == b"PROXY UNKNOWN\r\n"


def test_version_2_is_written_as_the_specification_shows_it() -> None:
    assert encode_v2(*INET) == v2(1, 0x11, ADDRESSES4)
    assert encode_v2(*INET6) == v2(1, 0x21, ADDRESSES6)
    for ends in ((None, INET[1]), (INET[0], None), (INET[0], UNIX[1]), UNIX, (("", 0), ("", 0))):
        assert encode_v2(*ends) == v2(0, 0, b"")


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        (("::ffff:192.0.2.1", 1), ("::ffff:192.0.2.2", 2), (("192.0.2.1", 1), ("192.0.2.2", 2))),
        (("::ffff:192.0.2.1", 1), ("192.0.2.2", 2), (("192.0.2.1", 1), ("192.0.2.2", 2))),
        (("192.0.2.1", 1), ("2001:db8::1", 2), (("::ffff:192.0.2.1", 1), ("2001:db8::1", 2))),
        (("2001:db8::1", 2), ("192.0.2.1", 1), (("2001:db8::1", 2), ("::ffff:192.0.2.1", 1))),
        (("fe80::1%eth0", 1), ("fe80::2%2", 2), (("fe80::1", 1), ("fe80::2", 2))),
        (("2001:0DB8::0001", 1), ("::", 0), (("2001:db8::1", 1), ("::", 0))),
    ],
    ids=str,
)
def test_addresses_are_told_in_one_family_and_their_shortest_form(
    source: Endpoint, destination: Endpoint, expected: tuple[Endpoint, Endpoint]
) -> None:
    for encode in (encode_v1, encode_v2):
        header = parse(encode(source, destination))
        assert header is not None and (header.source, header.destination) == expected


@pytest.mark.parametrize("ends", [INET, INET6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("checksum", [False, True])
def test_what_version_2_says_comes_back(ends: tuple[Endpoint, Endpoint], checksum: bool) -> None:
    data = encode_v2(*ends, alpn=b"h2", authority="b\u00fccher.example", unique_id=b"\0\1\2", checksum=checksum)
    header = parse(data + b"payload")
    assert header is not None and (header.source, header.destination, header.size) == (*ends, len(data))
    assert header.tlvs[:3] == (
        (PP2_TYPE_ALPN, b"h2"),
        (PP2_TYPE_AUTHORITY, "b\u00fccher.example".encode()),
        (PP2_TYPE_UNIQUE_ID, b"\0\1\2"),
    )
    assert len(header.tlvs) == 3 + checksum
    assert header.tlv(PP2_TYPE_SSL) is None


def tls_of(data: bytes) -> tuple[int, int, dict[int, bytes]]:
    """The bits, the verify field and the sub-TLVs of the TLS TLV."""
    header = parse(data)
    assert header is not None
    value = header.tlv(PP2_TYPE_SSL)
    assert value is not None
    client, verify = struct.unpack_from("!BI", value)
    fields, place = {}, 5
    while place < len(value):
        kind, length = struct.unpack_from("!BH", value, place)
        fields[kind] = value[place + 3 : place + 3 + length]
        assert len(fields[kind]) == length
        place += 3 + length
    return client, verify, fields


def test_the_tls_fields_are_all_told() -> None:
    tls = TlsFields(
        version="TLSv1.3",
        cipher="TLS_AES_128_GCM_SHA256",
        client_certificate=True,
        verified=True,
        common_name="J\u00f6rg",
        signature_algorithm="ecdsa-with-SHA256",
        key_algorithm="EC256",
    )
    assert tls_of(encode_v2(*INET, tls=tls)) == (
        7,
        0,
        {
            PP2_SUBTYPE_SSL_VERSION: b"TLSv1.3",
            PP2_SUBTYPE_SSL_CN: "J\u00f6rg".encode(),
            PP2_SUBTYPE_SSL_CIPHER: b"TLS_AES_128_GCM_SHA256",
            PP2_SUBTYPE_SSL_SIG_ALG: b"ecdsa-with-SHA256",
            PP2_SUBTYPE_SSL_KEY_ALG: b"EC256",
        },
    )


@pytest.mark.parametrize(
    "tls",
    [
        TlsFields(),
        TlsFields("TLSv1.3", "TLS_AES_128_GCM_SHA256", True, True, True, "J\u00f6rg", "RSA-SHA256", "RSA2048"),
        TlsFields("TLSv1.2", in_session=True, verified=True, common_name="no text: \udcff"),
        TlsFields(client_certificate=True, in_session=True),
    ],
    ids=["bare", "all", "resumed", "unverified"],
)
def test_tls_fields_come_back(tls: TlsFields) -> None:
    header = parse(encode_v2(*INET, alpn=b"h2", tls=tls))
    assert header is not None and header.tls() == tls


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"\0" + bytes(4), None),  # the client does without TLS
        (b"\1" + bytes(4), TlsFields()),  # as HAProxy has it of a client without a certificate: nothing was verified
        (b"\5" + bytes(4), TlsFields(in_session=True, verified=True)),
        (b"\xf9" + b"\0\0\0\1" + tlv(0x28, bytes(9)), TlsFields()),  # bits and fields of later versions
        (b"\1" + bytes(4) + tlv(0x21, b"a") + tlv(0x21, b"b"), TlsFields("a")),  # as with `tlv`: the first one
    ],
)
def test_what_others_say_of_tls(value: bytes, told: Optional[TlsFields]) -> None:
    header = parse(encode_v2(*INET, tlvs=[(PP2_TYPE_SSL, value)]))
    assert header is not None and header.tls() == told


@pytest.mark.parametrize("cut", [*range(12), *range(13, 20)])
def test_tls_fields_that_are_cut_are_refused(cut: int) -> None:
    value = (b"\1" + bytes(4) + tlv(0x21, b"TLSv") + tlv(0x22, b"Jane1"))[:cut]
    header = parse(encode_v2(*INET, tlvs=[(PP2_TYPE_SSL, value)]))
    assert header is not None
    if cut == 5:
        assert header.tls() == TlsFields()
    else:
        with pytest.raises(ProxyProtocolError, match="TLS"):
            header.tls()


def test_further_tlvs_stand_behind_ours_in_their_order() -> None:
    further = [(0xE1, b"one"), (PP2_TYPE_NOOP, b""), (0xE1, b"two"), (PP2_TYPE_AUTHORITY, b"x")]
    header = parse(encode_v2(*INET, alpn=b"h2", tlvs=iter(further), checksum=True))
    assert header is not None
    assert header.tlvs[:-1] == ((PP2_TYPE_ALPN, b"h2"), *further) and header.tlvs[-1][0] == PP2_TYPE_CRC32C


def test_the_longest_header_that_is_read() -> None:
    block = PATHS + tlv(0xE0, bytes(MAXIMUM_TLVS - 3))
    data = v2(1, 0x31, block)
    assert len(data) == MAXIMUM_SIZE
    header = parse(data)
    assert header is not None and header.size == MAXIMUM_SIZE
    with pytest.raises(ProxyProtocolError, match="more than 4096"):
        parse(v2(1, 0x31, block + tlv(4, b"")))


@pytest.mark.parametrize(
    ("tls", "client", "verified"),
    [
        (TlsFields(), 1, False),
        (TlsFields(client_certificate=True), 7, False),
        (TlsFields(client_certificate=True, verified=True), 7, True),
        (TlsFields(in_session=True, verified=True), 5, True),
    ],
    ids=str,
)
def test_the_bits_say_whether_and_when_a_certificate_was_shown(tls: TlsFields, client: int, verified: bool) -> None:
    bits, verify, fields = tls_of(encode_v2(*INET, tls=tls))
    assert (bits, verify == 0, fields) == (client, verified, {})


def test_tls_fields_are_told_without_addresses_too() -> None:
    data = encode_v2(None, None, alpn=b"h2")
    assert data == v2(0, 0, tlv(PP2_TYPE_ALPN, b"h2"))
    header = parse(data)
    assert header is not None and header.local and header.tlvs == (), "behind LOCAL nothing may be interpreted"


def test_a_server_name_that_is_no_text_is_passed_on_as_it_came() -> None:
    header = parse(encode_v2(*INET, authority=b"\xff.example".decode("utf-8", "surrogateescape")))
    assert header is not None and header.tlv(PP2_TYPE_AUTHORITY) == b"\xff.example"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"unique_id": bytes(129)}, "129 bytes"),
        ({"alpn": bytes(4097)}, "4097 bytes"),
        ({"alpn": bytes(70000)}, "70000 bytes"),
        ({"alpn": bytes(3000), "authority": "a" * 3000}, "6006 bytes of TLVs"),
        ({"tls": TlsFields(common_name="a" * 4097)}, "4097 bytes"),
        ({"authority": "\ud800"}, "surrogates"),
        ({"tlvs": [(PP2_TYPE_UNIQUE_ID, bytes(129))]}, "129 bytes"),
        ({"tlvs": [(PP2_TYPE_CRC32C, bytes(4))]}, "an argument of its own"),
        ({"tlvs": [(PP2_TYPE_ALPN, b"h2")], "alpn": b"h2"}, "an argument of its own"),
        ({"tlvs": [(256, b"")]}, "256 is no type"),
        ({"tlvs": [(-1, b"")]}, "-1 is no type"),
    ],
)
def test_what_does_not_fit_into_a_header_is_refused(arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_v2(*INET, **arguments)  # type: ignore[arg-type]


def test_the_longest_header_that_is_written_can_be_read() -> None:
    for ends, addresses in ((INET, 12), (INET6, 36), ((None, None), 0)):
        data = encode_v2(*ends, alpn=bytes(4093))
        header = parse(data)
        assert header is not None and header.size == len(data) == 16 + addresses + 4096


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    for encode in (encode_v1, encode_v2):
        with pytest.raises(ValueError, match="is no port"):
            encode(("192.0.2.1", port), ("192.0.2.1", 1))
        with pytest.raises(ValueError, match="is no port"):
            encode(("192.0.2.1", 1), ("192.0.2.1", port))
