"""A damaged block of a file of certificates is told with file and block: at a check, a start and a reload, for every option."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trustme

from command_helpers import Identity, run

from .running import listener, running

OPTIONS = ["cert", "client-ca", "to-ca", "to-cert"]


def broken(pem: bytes, how: str) -> bytes:
    lines = pem.splitlines(True)
    if how == "bad base64":
        lines[3] = b"!!!!" + lines[3][4:]
    elif how == "cut off":
        lines = lines[:4]
    elif how == "bytes changed":
        lines[1] = lines[1][::-1].lstrip(b"\n") + b"\n"
    else:
        lines = [b"-----BEGIN TRUSTED CERTIFICATE-----\n", *lines[1:5], b"-----END TRUSTED CERTIFICATE-----\n"]
    return b"".join(lines)


def config_of(folder: Path, identity: Identity, option: str, back: int) -> Path:
    for name in OPTIONS:
        (folder / f"{name}.pem").write_bytes((identity.ca if name.endswith("ca") else identity.cert).read_bytes())
    extra = f'key = "{identity.key}"\ncert = "cert.pem"\nclient-ca = "client-ca.pem"\n'
    extra += f'to-ca = "to-ca.pem"\nto-cert = "to-cert.pem"\nto-key = "{identity.key}"\n'
    config = folder / "proxy.toml"
    config.write_text(f'[[listener]]\nlisten = "tls://127.0.0.1:0"\nto = "tls://127.0.0.1:{back}"\n{extra}')
    return config


@pytest.mark.parametrize("option", OPTIONS)
def test_a_damaged_block_is_named(identity: Identity, tmp_path: Path, option: str) -> None:
    second = trustme.CA().cert_pem.bytes()
    with listener() as back:
        config = config_of(tmp_path, identity, option, back.getsockname()[1])
        file = tmp_path / f"{option}.pem"
        good = file.read_bytes()
        place = good.count(b"-----BEGIN CERTIFICATE-----") + 1
        line = config.read_text().splitlines().index(f'{option} = "{option}.pem"') + 1
        with running("--config", config) as proxy:
            for how in ("bad base64", "cut off", "bytes changed", "a damaged TRUSTED block"):
                file.write_bytes(good + broken(second, how))
                expected = f"{config}:{line}: {option}: {file}: block {place} (line {good.count(10) + 1}): "
                for more in (["--check"], []):
                    done = run("proxy", "--config", config, *more)
                    assert done.returncode == 2 and done.stderr.decode().startswith(f"sslsock: {expected}"), (how, done.stderr)
                before = len(proxy.messages)
                proxy.process.send_signal(signal.SIGHUP)
                proxy.wait_for_message("SIGHUP: the old settings stay in force", before)
                assert any(expected in message for message in proxy.messages[before:]), proxy.messages
            file.write_bytes(good + second)
            before = len(proxy.messages)
            proxy.process.send_signal(signal.SIGHUP)
            proxy.wait_for_message("SIGHUP: read again", before)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_trusted_block_is_taken(identity: Identity, tmp_path: Path, option: str) -> None:
    """`openssl x509 -trustout` writes such; without trust settings it is the certificate alone."""
    config = config_of(tmp_path, identity, option, 1)
    file = tmp_path / f"{option}.pem"
    file.write_bytes(file.read_bytes().replace(b" CERTIFICATE-----", b" TRUSTED CERTIFICATE-----"))
    assert run("proxy", "--config", config, "--check").returncode == 0
