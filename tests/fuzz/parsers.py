"""What comes from strangers or from files, and is parsed: python -m fuzz.parsers TARGET [libFuzzer's options and folders]

A target takes any bytes, and raises when something does not hold. atheris guides them by coverage, of Python code and of the C
that clang has instrumented (`ci/fuzz`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Optional

sys.path.insert(0, str(Path(__file__).parents[1]))

if __name__ == "__main__":
    import atheris

    MODULES = ["sslsock.proxy.settings.config_file", "sslsock.proxy_protocol", "sslsock.proxy.settings.toml_lines"]
    with atheris.instrument_imports(include=MODULES):
        from sslsock import proxy_protocol
        from sslsock.proxy.settings import config_file
else:
    from sslsock import proxy_protocol
    from sslsock.proxy.settings import config_file

from sslsock import SslCertificate, SslKey
from sslsock.core.certificate import SslEncoding
from sslsock.core.client_hello import ClientHelloError, parse_client_hello
from sslsock.core.key import KeyType
from sslsock.proxy.settings.model import SettingsError

MEMORY = os.memfd_create("configuration")  # a file for all runs
FOUND = Path(__file__).with_name("found")  # inputs that have shown a fault, a folder a target


def look(thing: Any) -> dict[str, Any]:
    """All properties, which must not raise."""
    return {name: getattr(thing, name) for name in dir(type(thing)) if not name.startswith("_") and name.islower()}


def parsed(parse: Callable[[bytes], Any], data: bytes, error: type[Exception]) -> tuple[str, Any]:
    """What came of it: ("incomplete", None), ("refused", the exception), ("done", the result)."""
    try:
        found = parse(data)
    except error as exc:
        return "refused", exc
    return ("incomplete", None) if found is None else ("done", found)


def check_growing(
    parse: Callable[[bytes], Any], data: bytes, error: type[Exception], size: Optional[Callable[[Any], int]] = None
) -> None:
    """A verdict on the first bytes stands, whatever follows: they come in any pieces."""
    whole, _ = parsed(parse, data, error)
    for cut in {len(data) // 2, max(len(data) - 1, 0), min(len(data), 5)}:
        part, found = parsed(parse, data[:cut], error)
        if part == "done" and size is not None:
            assert 0 < size(found) <= cut, f"it takes {size(found)} of {cut} bytes"
        assert part in ("incomplete", whole), f"{part} after {cut} bytes, but {whole} after all {len(data)}"


def client_hello(data: bytes) -> None:
    verdict, found = parsed(parse_client_hello, data, ClientHelloError)
    if verdict == "done":
        assert look(found)["ja4"].isascii()
    elif verdict == "refused":
        assert str(found) and 0 <= found.alert < 256
    check_growing(parse_client_hello, data, ClientHelloError)


def proxy_header(data: bytes) -> None:
    verdict, found = parsed(proxy_protocol.parse, data, proxy_protocol.ProxyProtocolError)
    if verdict == "done":
        assert 0 < found.size <= len(data)
        if found.version == 1 and found.source is not None:
            again = proxy_protocol.parse(proxy_protocol.encode_v1(found.source, found.destination))
            assert again is not None and (again.source, again.destination) == (found.source, found.destination)
        parsed(lambda _: found.tls(), data, proxy_protocol.ProxyProtocolError)
    check_growing(proxy_protocol.parse, data, proxy_protocol.ProxyProtocolError, lambda header: header.size)


def certificates(data: bytes) -> None:
    found = []
    with contextlib.suppress(ValueError):
        found = SslCertificate.from_bytes(data)
    found += [SslCertificate(data), SslCertificate(data, SslEncoding.DER)]
    for one in found:
        look(one)
        repr(one)
        assert bool(one.error_string) is one.null
        if not one.null:
            assert SslCertificate(one.to_der(), SslEncoding.DER) == one == SslCertificate(one.to_pem())


def keys(data: bytes) -> None:
    for form in (SslEncoding.PEM, SslEncoding.DER):
        for kind in (KeyType.PRIVATE, KeyType.PUBLIC):
            key = SslKey(data, None, form, kind, b"secret")
            look(key)
            assert bool(key.error_string) is key.null
            assert "secret" not in repr(key)


def configuration(data: bytes) -> None:
    """The file of `--config`."""
    os.ftruncate(MEMORY, 0)
    os.pwrite(MEMORY, data, 0)
    try:
        config_file.read_settings(f"/proc/self/fd/{MEMORY}")
    except SettingsError as exc:
        assert str(exc)


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function for function in (client_hello, proxy_header, certificates, keys, configuration)
}

TOML = b"""\
threads = 2
idle-timeout = 60.5
[[listener]]
listen = ["tls://:8443", "tcp://127.0.0.1:0"]
to = "tcp://127.0.0.1:8080"
cert = ["a.pem"]
alpn = ["h2", "http/1.1"]
[[listener.route]]
server-names = ["*.example.com"]
to = ["unix:/run/back", 'tls://[::1]:443']
"""


def seeds(target: str) -> list[bytes]:
    """Well-formed inputs to begin with."""
    if target == "client_hello":
        from core.pairs import TLS_1_2, TLS_1_3, client_context
        from sslsock import Engine

        context = [client_context(version, next_protocols=[b"h2", b"http/1.1"]) for version in (TLS_1_2, TLS_1_3)]
        return [Engine(one, server_name="www.example.com").start() for one in context]
    if target == "proxy_header":
        ends = ("192.0.2.1", 443), ("198.51.100.7", 8443)
        wide = ("2001:db8::1", 443), ("2001:db8::2", 8443)
        local = ("/run/front", 0), ("@back", 0)
        made = [proxy_protocol.encode_v1(*pair) for pair in (ends, wide, (None, None))]
        return made + [proxy_protocol.encode_v2(*pair, unique_id=b"id", checksum=True) for pair in (ends, wide, local)]
    if target in ("certificates", "keys"):
        from cryptography.hazmat.primitives import serialization as form

        from self_signed import EC_KEY, ED25519_KEY, make

        if target == "certificates":
            pem = make(["example.com", "IP:192.0.2.1", "email:a@example.com"], ["example.com"])
            return [pem, SslCertificate(pem).to_der(), pem * 2]
        found = []
        for key in (EC_KEY, ED25519_KEY):
            for encoding in (form.Encoding.PEM, form.Encoding.DER):
                for secret in (form.NoEncryption(), form.BestAvailableEncryption(b"secret")):
                    found.append(key.private_bytes(encoding, form.PrivateFormat.PKCS8, secret))
                found.append(key.public_key().public_bytes(encoding, form.PublicFormat.SubjectPublicKeyInfo))
        return found
    return [TOML]


def main() -> None:
    target, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds(target)):
            (Path(folder) / f"seed-{number}").write_bytes(data)
        # libFuzzer writes what it finds new into the first folder that is given.
        atheris.Setup([sys.argv[0], *options, folder, *map(str, FOUND.glob(target))], TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
