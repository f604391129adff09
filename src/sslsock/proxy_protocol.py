"""The PROXY protocol, versions 1 and 2: bytes to a `Header` (`parse`), a header to bytes (`encode_v1`, `encode_v2`). No socket,
no clock.

The text that is followed is HAProxy's doc/proxy-protocol.txt; sections are cited from it. Three decisions are ours:

- `parse` is as eager as it can be with its refusals, so that a client without a header (plain HTTP, TLS) gets them at its first
  byte; addresses alone are looked at only when the header is complete, as section 2.1 demands.
- What a sender cannot know the meaning of is opaque: after LOCAL and after an unspecified family nobody can say where addresses
  end, so nothing behind the first 16 bytes is interpreted, a checksum neither.
- TLVs are bounded to 4 KiB, for the header is kept in memory before anything is known of who sends it.

Who may send a header is for the caller to know: anybody can claim any address.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple, Optional

__all__ = [
    "MAXIMUM_SIZE",
    "MAXIMUM_TLVS",
    "PP2_SUBTYPE_SSL_CIPHER",
    "PP2_SUBTYPE_SSL_CN",
    "PP2_SUBTYPE_SSL_KEY_ALG",
    "PP2_SUBTYPE_SSL_SIG_ALG",
    "PP2_SUBTYPE_SSL_VERSION",
    "PP2_TYPE_ALPN",
    "PP2_TYPE_AUTHORITY",
    "PP2_TYPE_CLIENT_NAME",
    "PP2_TYPE_CRC32C",
    "PP2_TYPE_NETNS",
    "PP2_TYPE_NOOP",
    "PP2_TYPE_SSL",
    "PP2_TYPE_UNIQUE_ID",
    "Endpoint",
    "Header",
    "ProxyProtocolError",
    "TlsFields",
    "encode_v1",
    "encode_v2",
    "parse",
]

Endpoint = tuple[str, int]
"""An address and a port: `("192.0.2.1", 443)`, `("2001:db8::1", 443)`. A UNIX socket is its path and 0: "@name" for an abstract
one, "" for one without a name."""

PP2_TYPE_ALPN = 0x01
"""The protocol that TLS has agreed on."""
PP2_TYPE_AUTHORITY = 0x02
"""The name that the client asked for (SNI), UTF-8."""
PP2_TYPE_CRC32C = 0x03
"""A checksum, which `parse` verifies."""
PP2_TYPE_NOOP = 0x04
"""Padding."""
PP2_TYPE_UNIQUE_ID = 0x05
"""An id of the connection, up to 128 bytes."""
PP2_TYPE_SSL = 0x20
"""The client's TLS, which `Header.tls` takes apart."""
PP2_SUBTYPE_SSL_VERSION = 0x21
"""In PP2_TYPE_SSL: the protocol version."""
PP2_SUBTYPE_SSL_CN = 0x22
"""In PP2_TYPE_SSL: the common name of the client's certificate."""
PP2_SUBTYPE_SSL_CIPHER = 0x23
"""In PP2_TYPE_SSL: the cipher."""
PP2_SUBTYPE_SSL_SIG_ALG = 0x24
"""In PP2_TYPE_SSL: what the proxy's certificate is signed with."""
PP2_SUBTYPE_SSL_KEY_ALG = 0x25
"""In PP2_TYPE_SSL: the kind of the proxy's key."""
PP2_TYPE_NETNS = 0x30
"""A network namespace."""
PP2_TYPE_CLIENT_NAME = 0xE0
"""Ours, of those for applications (section 2.2.8): a name of the client that the proxy has verified, UTF-8."""

CLIENT_SSL = 0x01
CLIENT_CERT_CONN = 0x02
CLIENT_CERT_SESS = 0x04

V1_START = b"PROXY "
V1_PROTOCOLS = (b"TCP4 ", b"TCP6 ", b"UNKNOWN ", b"UNKNOWN\r")
V1_MAXIMUM = 107  # with CRLF (section 2.1)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_FIXED = 16
MAXIMUM_TLVS = 4096
"""Bytes of TLVs that a header may have."""
MAXIMUM_UNIQUE_ID = 128  # section 2.2.5
LOCAL, PROXY = 0, 1
UNSPEC, INET, INET6, UNIX = 0, 1, 2, 3
STREAM, DGRAM = 1, 2
ADDRESSES_SIZE = {INET: 12, INET6: 36, UNIX: 216}
MAXIMUM_SIZE = V2_FIXED + ADDRESSES_SIZE[UNIX] + MAXIMUM_TLVS
"""Bytes that a header may have which `parse` takes."""
MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:192.0.2.1 is IPv4 in IPv6 (RFC 4291, 2.5.5.2)

_PORT = re.compile(r"0|[1-9][0-9]{0,4}").fullmatch


class ProxyProtocolError(Exception):
    """The bytes are not, and cannot become, a valid PROXY header. The text says why, in words for a log."""


class Header(NamedTuple):
    """What a PROXY header says: `parse` makes it."""

    version: int
    """1 or 2."""
    local: bool
    """Whether the proxy speaks for itself, as in a health check."""
    source: Optional[Endpoint]
    """The client's end of its connection. None where the connection's own addresses count: local, UNKNOWN, unspecified."""
    destination: Optional[Endpoint]
    """The other end of it; None as with `source`."""
    size: int
    """Bytes that the header takes, to be dropped from the front of the stream."""
    tlvs: tuple[tuple[int, bytes], ...] = ()
    """(type, value) of each, in the order in which they came."""

    def tlv(self, kind: int) -> Optional[bytes]:
        """The value of the first TLV of a type, None when there is none.

        kind: int, as PP2_TYPE_ALPN.
        """
        return next((value for key, value in self.tlvs if key == kind), None)

    def tls(self) -> Optional[TlsFields]:
        """The client's TLS (PP2_TYPE_SSL). None: nothing is said of it, or the client does without.

        ProxyProtocolError when the TLV is cut.
        """
        value = self.tlv(PP2_TYPE_SSL)
        return None if value is None else _tls_fields_untrusted(value)


class TlsFields(NamedTuple):
    """The client's TLS, as PP2_TYPE_SSL tells it (section 2.2.6)."""

    version: Optional[str] = None
    """As "TLSv1.3"."""
    cipher: Optional[str] = None
    """OpenSSL's name."""
    client_certificate: bool = False
    """Whether the client has shown a certificate in this connection."""
    in_session: bool = False
    """Whether it has in this one or in the one that it resumes."""
    verified: bool = False
    """Whether that certificate was verified, and with success."""
    common_name: Optional[str] = None
    """Of the client's certificate."""
    signature_algorithm: Optional[str] = None
    """Of the certificate that the proxy has shown, as "RSA-SHA256"."""
    key_algorithm: Optional[str] = None
    """Of the certificate that the proxy has shown, as "RSA2048"."""


def parse(data: bytes) -> Optional[Header]:
    """The header at the front of `data`, which may have more behind it (`Header.size`). None: not complete yet.

    data: bytes, all that have come; no header is longer than MAXIMUM_SIZE. ProxyProtocolError: no valid header, whatever
    follows. An error comes as early as it can be known.
    """
    if data[:1] == V1_START[:1]:
        return _parse_v1_untrusted(data)
    if SIGNATURE.startswith(data[:12]):
        return _parse_v2_untrusted(data)
    raise ProxyProtocolError(f"no PROXY header: the connection begins with {_what_begins_so(data)}")


def _what_begins_so(data: bytes) -> str:
    # RFC 8446, 5.1: a record of type handshake, legacy version 3.x.
    return "a TLS handshake" if data[:2] == b"\x16\x03" else repr(data[:12])


# Version 1, section 2.1.


def _parse_v1_untrusted(data: bytes) -> Optional[Header]:
    if data[:6] != V1_START[: len(data)]:
        raise ProxyProtocolError(f"no PROXY header: the connection begins with {data[:12]!r}")
    rest = data[6:14]
    if not any(rest[: len(known)] == known[: len(rest)] for known in V1_PROTOCOLS):
        raise ProxyProtocolError(f"PROXY v1: unknown protocol in {data[:20]!r}")
    end = data.find(b"\r\n", 0, V1_MAXIMUM)
    line = data[: end if end >= 0 else V1_MAXIMUM]
    # The CR that may be half of the end is not looked at before its LF is here.
    text = line[:-1] if end < 0 and line.endswith(b"\r") else line
    if end < 0 and len(text) > V1_MAXIMUM - 2:
        raise ProxyProtocolError(f"PROXY v1: no CRLF in the first {V1_MAXIMUM} bytes")
    if b"\r" in text or b"\n" in text:
        raise ProxyProtocolError("PROXY v1: CR or LF alone instead of CRLF")
    if end < 0:
        return None
    size = end + 2
    if text[6:13] == b"UNKNOWN":  # whatever follows it is to be ignored
        return Header(1, False, None, None, size)
    words = text.decode("ascii", "backslashreplace").split(" ")
    if len(words) != 6:
        raise ProxyProtocolError(f"PROXY v1: {len(words)} words instead of 6, one space between each two")
    family = socket.AF_INET if words[1] == "TCP4" else socket.AF_INET6
    source, destination = (_v1_address(family, word) for word in words[2:4])
    source_port, destination_port = (_v1_port(word) for word in words[4:6])
    return Header(1, False, (source, source_port), (destination, destination_port), size)


def _v1_address(family: int, word: str) -> str:
    packed = _packed(family, word)
    if packed is None:
        raise ProxyProtocolError(f"PROXY v1: {word!r} is no {'IPv4' if family == socket.AF_INET else 'IPv6'} address")
    return socket.inet_ntop(family, packed)


def _v1_port(word: str) -> int:
    if not _PORT(word) or int(word) > 65535:
        raise ProxyProtocolError(f"PROXY v1: {word!r} is no port, 0 to 65535 without leading zeros")
    return int(word)


# Version 2, section 2.2.


def _parse_v2_untrusted(data: bytes) -> Optional[Header]:
    if len(data) > 12 and data[12] >> 4 != 2:
        raise ProxyProtocolError(f"PROXY v2: version {data[12] >> 4} instead of 2")
    if len(data) > 12 and data[12] & 15 not in (LOCAL, PROXY):
        raise ProxyProtocolError(f"PROXY v2: unknown command {data[12] & 15}")
    if len(data) < 14:
        return None
    local = data[12] & 15 == LOCAL
    family, transport = data[13] >> 4, data[13] & 15
    if not local and (family > UNIX or transport > DGRAM):  # LOCAL: "discard the protocol block including the family"
        raise ProxyProtocolError(f"PROXY v2: unknown address family or transport, 0x{data[13]:02x}")
    opaque = local or UNSPEC in (family, transport)
    if len(data) < V2_FIXED:
        return None
    (length,) = struct.unpack_from("!H", data, 14)
    addresses = 0 if opaque else ADDRESSES_SIZE[family]
    if length < addresses:
        raise ProxyProtocolError(f"PROXY v2: {length} bytes, but the addresses take {addresses}")
    if length > addresses + MAXIMUM_TLVS:
        raise ProxyProtocolError(f"PROXY v2: {length - addresses} bytes after the addresses, more than {MAXIMUM_TLVS}")
    size = V2_FIXED + length
    if len(data) < size:
        return None
    if opaque:
        return Header(2, local, None, None, size)
    header = data[:size]
    source, destination = _v2_addresses(family, header)
    return Header(2, False, source, destination, size, _v2_tlvs_untrusted(header, V2_FIXED + addresses))


def _v2_addresses(family: int, header: bytes) -> tuple[Endpoint, Endpoint]:
    if family == UNIX:
        paths = struct.unpack_from("108s108s", header, V2_FIXED)
        return (_unix_name(paths[0]), 0), (_unix_name(paths[1]), 0)
    number, layout = (socket.AF_INET, "!4s4sHH") if family == INET else (socket.AF_INET6, "!16s16sHH")
    source, destination, source_port, destination_port = struct.unpack_from(layout, header, V2_FIXED)
    return (socket.inet_ntop(number, source), source_port), (socket.inet_ntop(number, destination), destination_port)


def _unix_name(path: bytes) -> str:
    if path[:1] == b"\0" and path.strip(b"\0"):  # unix(7): an abstract name, shown as ss(8) does
        path = path.rstrip(b"\0").replace(b"\0", b"@")
    return path.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _v2_tlvs_untrusted(header: bytes, place: int) -> tuple[tuple[int, bytes], ...]:
    tlvs = []
    checksum_at = 0
    while place < len(header):
        if place + 3 > len(header):
            raise ProxyProtocolError(f"PROXY v2: a TLV is cut at byte {len(header)}")
        kind, length = struct.unpack_from("!BH", header, place)
        place += 3
        if place + length > len(header):
            raise ProxyProtocolError(f"PROXY v2: TLV 0x{kind:02x} of {length} bytes, of which {len(header) - place} are there")
        if kind == PP2_TYPE_CRC32C:
            if length != 4 or checksum_at:
                raise ProxyProtocolError("PROXY v2: a second checksum, or one that does not have 4 bytes")
            checksum_at = place
        if kind == PP2_TYPE_UNIQUE_ID and length > MAXIMUM_UNIQUE_ID:
            raise ProxyProtocolError(f"PROXY v2: a unique id of {length} bytes, more than {MAXIMUM_UNIQUE_ID}")
        tlvs.append((kind, header[place : place + length]))
        place += length
    if checksum_at and _crc32c(_with_checksum(header, checksum_at, 0)) != struct.unpack_from("!I", header, checksum_at)[0]:
        raise ProxyProtocolError("PROXY v2: the checksum is wrong")
    return tuple(tlvs)


def _tls_fields_untrusted(value: bytes) -> Optional[TlsFields]:
    if len(value) < 5:
        raise ProxyProtocolError(f"PROXY v2: what is said of TLS has {len(value)} bytes, fewer than 5")
    client, verify = struct.unpack_from("!BI", value)
    texts: dict[int, str] = {}
    place = 5
    while place < len(value):
        if place + 3 > len(value):
            raise ProxyProtocolError("PROXY v2: what is said of TLS is cut")
        kind, length = struct.unpack_from("!BH", value, place)
        place += 3
        if place + length > len(value):
            raise ProxyProtocolError(f"PROXY v2: TLS, 0x{kind:02x} of {length} bytes, of which {len(value) - place} are there")
        if kind in _TLS_TEXTS and kind not in texts:
            texts[kind] = value[place : place + length].decode("utf-8", "surrogateescape")
        place += length
    if not client & CLIENT_SSL:
        return None
    shown, in_session = bool(client & CLIENT_CERT_CONN), bool(client & (CLIENT_CERT_CONN | CLIENT_CERT_SESS))
    return TlsFields(
        version=texts.get(PP2_SUBTYPE_SSL_VERSION),
        cipher=texts.get(PP2_SUBTYPE_SSL_CIPHER),
        client_certificate=shown,
        in_session=in_session,
        verified=in_session and verify == 0,  # HAProxy says zero of a client without a certificate too
        common_name=texts.get(PP2_SUBTYPE_SSL_CN),
        signature_algorithm=texts.get(PP2_SUBTYPE_SSL_SIG_ALG),
        key_algorithm=texts.get(PP2_SUBTYPE_SSL_KEY_ALG),
    )


_TLS_TEXTS = (
    *(PP2_SUBTYPE_SSL_VERSION, PP2_SUBTYPE_SSL_CN, PP2_SUBTYPE_SSL_CIPHER),
    *(PP2_SUBTYPE_SSL_SIG_ALG, PP2_SUBTYPE_SSL_KEY_ALG),
)


# CRC32c, section 2.2.3: RFC 4960, appendix B. Reflected, polynomial 0x1EDC6F41.


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc32c_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _with_checksum(header: bytes, place: int, checksum: int) -> bytes:
    return header[:place] + struct.pack("!I", checksum) + header[place + 4 :]


# Sending.


def encode_v1(source: Optional[Endpoint], destination: Optional[Endpoint]) -> bytes:
    """A header of version 1. UNKNOWN when an end is None or has no IP address.

    source, destination: (address, port) of the client's connection. ValueError for a port outside 0 to 65535.
    """
    family, packed = _common_family(source, destination)
    if source is None or destination is None or family == UNSPEC:
        return b"PROXY UNKNOWN\r\n"
    name, number = ("TCP4", socket.AF_INET) if family == INET else ("TCP6", socket.AF_INET6)
    addresses = " ".join(socket.inet_ntop(number, one) for one in packed)
    return f"PROXY {name} {addresses} {_checked_port(source)} {_checked_port(destination)}\r\n".encode("ascii")


def encode_v2(
    source: Optional[Endpoint],
    destination: Optional[Endpoint],
    *,
    tls: Optional[TlsFields] = None,
    alpn: Optional[bytes] = None,
    authority: Optional[str] = None,
    unique_id: Optional[bytes] = None,
    tlvs: Iterable[tuple[int, bytes]] = (),
    checksum: bool = False,
) -> bytes:
    """A header of version 2 for a stream.

    An end that is None (the proxy speaks for itself, as in a health check) or has no IP address: LOCAL, which makes the
    receiver use the connection's own addresses. tls, alpn (the negotiated protocol), authority (the SNI), unique_id (up to 128
    bytes): TLVs, left out when None. tlvs: further ones behind these, (type, value) each. checksum: add one.

    ValueError for what does not fit: a port outside 0 to 65535, a long id, a type outside 0 to 255 or one that an argument
    is for and that would stand twice, a checksum among `tlvs`, TLVs above 4 KiB.
    """
    family, packed = _common_family(source, destination)
    # Not PROXY with an unspecified or a UNIX family, which receivers may refuse, as HAProxy does; LOCAL they must accept.
    command, family_and_transport, block = LOCAL, UNSPEC, b""
    if source is not None and destination is not None and family != UNSPEC:
        command, family_and_transport = PROXY, family << 4 | STREAM
        block = b"".join(packed) + struct.pack("!HH", _checked_port(source), _checked_port(destination))
    values: list[tuple[int, bytes]] = []
    if alpn is not None:
        values.append((PP2_TYPE_ALPN, alpn))
    if authority is not None:
        values.append((PP2_TYPE_AUTHORITY, authority.encode("utf-8", "surrogateescape")))
    if unique_id is not None:
        values.append((PP2_TYPE_UNIQUE_ID, _checked_id(unique_id)))
    if tls is not None:
        values.append((PP2_TYPE_SSL, _tls_value(tls)))
    taken = {kind for kind, _ in values} | {PP2_TYPE_CRC32C}
    for kind, value in tlvs:
        if kind in taken:
            raise ValueError(f"TLV 0x{kind:02x} has an argument of its own, which sets it")
        values.append((kind, _checked_id(value) if kind == PP2_TYPE_UNIQUE_ID else value))
    if checksum:
        values.append((PP2_TYPE_CRC32C, bytes(4)))
    tail = b"".join(_tlv(kind, value) for kind, value in values)
    if len(tail) > MAXIMUM_TLVS:
        raise ValueError(f"{len(tail)} bytes of TLVs, more than {MAXIMUM_TLVS}")
    head = struct.pack("!BBH", 2 << 4 | command, family_and_transport, len(block) + len(tail))
    header = SIGNATURE + head + block + tail
    return _with_checksum(header, len(header) - 4, _crc32c(header)) if checksum else header


def _checked_id(unique_id: bytes) -> bytes:
    if len(unique_id) > MAXIMUM_UNIQUE_ID:
        raise ValueError(f"a unique id of {len(unique_id)} bytes, more than {MAXIMUM_UNIQUE_ID}")
    return unique_id


def _tlv(kind: int, value: bytes) -> bytes:
    if not 0 <= kind <= 255:
        raise ValueError(f"{kind} is no type of a TLV, 0 to 255")
    if len(value) > MAXIMUM_TLVS:
        raise ValueError(f"TLV 0x{kind:02x} of {len(value)} bytes, more than {MAXIMUM_TLVS}")
    return struct.pack("!BH", kind, len(value)) + value


def _tls_value(tls: TlsFields) -> bytes:
    client = CLIENT_SSL
    if tls.client_certificate:
        client |= CLIENT_CERT_CONN
    if tls.client_certificate or tls.in_session:
        client |= CLIENT_CERT_SESS
    # Zero says that there was a certificate and that it was verified; any other value that this was not so.
    verify = 0 if tls.verified else 1
    fields = (
        (PP2_SUBTYPE_SSL_VERSION, tls.version),
        (PP2_SUBTYPE_SSL_CN, tls.common_name),
        (PP2_SUBTYPE_SSL_CIPHER, tls.cipher),
        (PP2_SUBTYPE_SSL_SIG_ALG, tls.signature_algorithm),
        (PP2_SUBTYPE_SSL_KEY_ALG, tls.key_algorithm),
    )
    sub_tlvs = b"".join(_tlv(kind, value.encode("utf-8", "surrogateescape")) for kind, value in fields if value is not None)
    return struct.pack("!BI", client, verify) + sub_tlvs


def _packed(family: int, address: str) -> Optional[bytes]:
    try:
        return socket.inet_pton(family, address)
    except (OSError, ValueError):  # ValueError: it contains a NUL
        return None


def _common_family(source: Optional[Endpoint], destination: Optional[Endpoint]) -> tuple[int, list[bytes]]:
    """INET or INET6 and both addresses in it; UNSPEC where there are no two IP addresses."""
    if source is None or destination is None:
        return UNSPEC, []
    ends = [_family_and_bytes(source[0]), _family_and_bytes(destination[0])]
    families = {family for family, _ in ends}
    if UNSPEC in families:
        return UNSPEC, []
    if len(families) > 1:
        return INET6, [MAPPED + packed if family == INET else packed for family, packed in ends]
    return families.pop(), [packed for _, packed in ends]


def _family_and_bytes(address: str) -> tuple[int, bytes]:
    packed = _packed(socket.AF_INET, address)
    if packed is not None:
        return INET, packed
    packed = _packed(socket.AF_INET6, address.partition("%")[0])  # a zone means nothing on another machine
    if packed is None:
        return UNSPEC, b""
    # A socket that listens on both families shows IPv4 clients so: they are IPv4 clients.
    return (INET, packed[12:]) if packed.startswith(MAPPED) else (INET6, packed)


def _checked_port(end: Endpoint) -> int:
    if not 0 <= end[1] <= 65535:
        raise ValueError(f"{end[1]} is no port")
    return end[1]
