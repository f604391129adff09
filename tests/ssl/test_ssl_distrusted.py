"""Public keys that no chain is trusted with (include/distrusted_keys.h), in either interface.

Nobody needs their private keys for it: a chain is looked at before the handshake proves that the server has its key, and from
the root down, each certificate before what it has signed.
"""

from __future__ import annotations

import _ssl
import base64
import re
import ssl as stdlib
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from judged import Issued, issue
from peers import SOURCES, needs_sources
from sslsock import SslConfiguration, ssl

REJECTED, BAD_SIGNATURE = 28, 7
INTERPRETER_HAS_THEM = sys.version_info >= (3, 15, 2) or (3, 14, 10) <= sys.version_info < (3, 15)
MODULES = [ssl, stdlib] if INTERPRETER_HAS_THEM else [ssl]

# Of "EM OV TLS CA - G3C".
KEY = load_der_public_key(
    base64.b64decode(
        "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEE4JRzVKskpjByKrZdzId65fnCb0LTKCspV3IrVHc/J0ViaFZfjpRIOHv1jHGPhg1ysrimGmmLhYx6KKB"
        "gatWYW3EXZGKvAnzqw5jz3kqpNztc4e+N7ulaVSfHAKycO1n"
    )
)


class Public:
    """The part of a key pair that everybody has."""

    def public_key(self) -> Any:
        return KEY


ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
BAD_MIDDLE = issue("middle", ROOT, ca=True, key=Public())
BAD_ROOT = issue("root", ROOT, ca=True, key=Public())  # not signed by itself, which nobody checks of a trusted root
LEAF = issue("localhost", MIDDLE)
# where such a key is: the peer's certificates, whom the client trusts
CHAINS: dict[str, tuple[list[Issued], Issued]] = {
    "the peer's own": ([issue("localhost", ROOT, key=Public())], ROOT),
    "an intermediate": ([LEAF, BAD_MIDDLE], ROOT),
    "the trusted root": ([LEAF, MIDDLE], BAD_ROOT),
}


def in_8(data: bytes) -> bytes:
    return len(data).to_bytes(1, "big") + data


def in_24(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data


def server_says(chain: list[Issued]) -> bytes:
    """A ServerHello of TLS 1.2 and the server's certificates (RFC 5246, 7.4.1.3 and 7.4.2), before anything is signed."""
    suite, extensions = b"\xc0\x2b", b"\xff\x01\x00\x01\x00"  # TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256; renegotiation_info
    hello = b"\x03\x03" + bytes(32) + in_8(b"") + suite + b"\0" + len(extensions).to_bytes(2, "big") + extensions
    certificates = b"".join(in_24(one.certificate.public_bytes(Encoding.DER)) for one in chain)
    messages = b"\x02" + in_24(hello) + b"\x0b" + in_24(in_24(certificates))
    return b"\x16\x03\x03" + len(messages).to_bytes(2, "big") + messages


def outcome(module: Any, chain: list[Issued], trusted: Issued, **settings: Any) -> object:
    """The code of a client's verification error, or "taken" if it goes on."""
    context = module.SSLContext(module.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted.pem.decode())
    for name, value in settings.items():
        setattr(context, name, value)
    incoming, outgoing = module.MemoryBIO(), module.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(module.SSLWantReadError):
        client.do_handshake()
    incoming.write(server_says(chain))
    try:
        client.do_handshake()
    except module.SSLCertVerificationError as error:
        return error.verify_code
    except module.SSLWantReadError:
        return "taken"
    raise AssertionError("there was no more to read")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("place", CHAINS)
@pytest.mark.parametrize("mode", [stdlib.CERT_REQUIRED, stdlib.CERT_OPTIONAL, stdlib.CERT_NONE])
def test_a_connection_is_refused(module: Any, place: str, mode: stdlib.VerifyMode) -> None:
    wanted = "taken" if mode == stdlib.CERT_NONE else REJECTED
    assert outcome(module, *CHAINS[place], check_hostname=False, verify_mode=mode) == wanted
    assert outcome(module, *CHAINS[place], check_hostname=False, verify_flags=0, verify_mode=mode) == wanted


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_other_keys_are_not(module: Any) -> None:
    assert outcome(module, [LEAF, MIDDLE], ROOT) == "taken"
    assert outcome(module, [LEAF, issue("middle", ROOT, ca=True)], ROOT) == BAD_SIGNATURE


@pytest.mark.parametrize("place", CHAINS)
def test_a_certificate_is_refused(place: str) -> None:
    chain, trusted = CHAINS[place]
    configuration = SslConfiguration()
    configuration.use_system_ca = False
    configuration.ca_certificates = [trusted.ours]
    for _ in range(2):  # the second time its signatures are known (include/known_chains.h)
        errors = chain[0].ours.verify([one.ours for one in chain], "localhost", configuration)
        assert REJECTED in [error.code for error in errors]
        assert "certificate rejected" in [error.error_string for error in errors]
    assert outcome(ssl, chain, trusted) == REJECTED


@needs_sources
def test_the_list_is_the_interpreters() -> None:
    """Those of CPython that have one have it in the code of `_ssl`."""
    text = (SOURCES.parent.parent / "include" / "distrusted_keys.c").read_text()
    numbers = re.findall(r"\b0x([0-9a-f]{2})\b", text)
    table = bytes.fromhex("".join(numbers))
    assert len(table) == 8 * 32
    code = Path(getattr(_ssl, "__file__", sys.executable)).read_bytes()
    place = code.find(table[:32])
    if INTERPRETER_HAS_THEM:
        assert place >= 0, "the interpreter's list does not begin as ours does"
    if place >= 0:
        assert code[place : place + len(table)] == table
        assert not is_digest(code[place + len(table) :][:32]), "the interpreter's list has become longer"


def is_digest(data: bytes) -> bool:
    """Or likely: neither text nor small numbers."""
    return data.count(0) < 4 and sum(byte >= 0x80 for byte in data) > 5
