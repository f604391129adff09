"""Certificates written byte by byte, with contents that no library would sign; their signatures are none."""

import base64

SUBJECT_ALT_NAME, CRL_POINTS, INFO_ACCESS = "2.5.29.17", "2.5.29.31", "1.3.6.1.5.5.7.1.1"
OCSP, CA_ISSUERS = "1.3.6.1.5.5.7.48.1", "1.3.6.1.5.5.7.48.2"
UTF8, PRINTABLE, T61, IA5, UTC_TIME, GENERAL_TIME, UNIVERSAL, BMP = 12, 19, 20, 22, 23, 24, 28, 30


def der(tag, *parts):
    """One value, X.690, 8.1: its tag, its length, what is in it."""
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def sequence(*parts):
    return der(0x30, *parts)


def a_set(*parts):
    return der(0x31, *parts)


def oid(text):
    first, second, *rest = (int(part) for part in text.split("."))
    body = b""
    for number in [40 * first + second, *rest]:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | number & 0x7F)
        body += bytes(reversed(groups))
    return der(6, body)


def attribute(kind, value, tag=UTF8):
    return sequence(oid(kind), der(tag, value))


def name(*sets):
    """A distinguished name; each of `sets` is a list of attributes."""
    return sequence(*(a_set(*one) for one in sets))


def common_name(value, tag=UTF8):
    return name([attribute("2.5.4.3", value, tag)])


def general(number, value):
    """A GeneralName, RFC 5280, 4.2.1.6: a directory name (4) and others that are made of parts have bit 6 set."""
    return der(0x80 | number, value)


def constructed(number, *values):
    return der(0xA0 | number, *values)


def extension(kind, value):
    return sequence(oid(kind), der(4, value))


def alternative_names(*names):
    return extension(SUBJECT_ALT_NAME, sequence(*names))


def access(*pairs):
    return extension(INFO_ACCESS, sequence(*(sequence(oid(method), place) for method, place in pairs)))


# An Ed25519 public key (RFC 8410), any.
KEY = sequence(sequence(oid("1.3.101.112")), der(3, b"\0" + bytes(range(32))))
SIGNED_WITH = sequence(oid("1.3.101.112"))
SUBJECT, ISSUER = common_name(b"subject"), common_name(b"issuer")
TIME = der(UTC_TIME, b"260102030405Z")


def certificate(subject=SUBJECT, issuer=ISSUER, serial=b"\1", begin=TIME, end=TIME, extensions=(), version=2):
    """DER."""
    parts = [der(2, serial), SIGNED_WITH, issuer, sequence(begin, end), subject, KEY]
    if version:
        parts.insert(0, constructed(0, der(2, bytes([version]))))
    if extensions:
        parts.append(constructed(3, sequence(*extensions)))
    return sequence(sequence(*parts), SIGNED_WITH, der(3, b"\0" + bytes(64)))


def pem(encoded):
    lines = base64.encodebytes(encoded).decode()
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"
