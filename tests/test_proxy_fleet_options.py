"""--fleet and what belongs to it: what is made of it, what is refused, and that no message shows a password."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sslsock.__main__ import make_parser
from sslsock.proxy.check import check_files
from sslsock.proxy.settings.config_file import read_settings
from sslsock.proxy.settings.model import Address, Fleet, ProxySettings, SettingsError
from sslsock.proxy.settings.options import make_settings

LISTENER = ("--listen", "tcp://127.0.0.1:0", "--to", "tcp://127.0.0.1:9")


def settings(*arguments: object) -> ProxySettings:
    return make_settings(make_parser().parse_args(["proxy", *LISTENER, *map(str, arguments)]))


@pytest.mark.parametrize(
    ("url", "wanted", "shown"),
    [
        ("redis://localhost", Fleet(Address("tcp", "localhost", 6379)), "redis://localhost:6379/0"),
        ("REDISS://10.0.0.1:7000/", Fleet(Address("tls", "10.0.0.1", 7000)), "rediss://10.0.0.1:7000/0"),
        ("redis://[::1]", Fleet(Address("tcp", "::1", 6379)), "redis://[::1]:6379/0"),
        ("redis://[::1]:1/15", Fleet(Address("tcp", "::1", 1), database=15), "redis://[::1]:1/15"),
        ("redis://u:p%40%2F@h/2", Fleet(Address("tcp", "h", 6379), "u", "p@/", 2), "redis://h:6379/2"),
        ("redis://:p:p@h", Fleet(Address("tcp", "h", 6379), None, "p:p"), "redis://h:6379/0"),
        ("redis://u@h", Fleet(Address("tcp", "h", 6379), "u"), "redis://h:6379/0"),
        ("unix:/run/redis.sock", Fleet(Address("tcp", "", 0, "/run/redis.sock")), "unix:/run/redis.sock"),
        ("unix:///run/redis.sock", Fleet(Address("tcp", "", 0, "/run/redis.sock")), "unix:/run/redis.sock"),
    ],
)
def test_the_url(url: str, wanted: Fleet, shown: str) -> None:
    found = settings("--fleet", url).fleet
    assert found == wanted and str(found) == shown
    assert wanted.password is None or wanted.password not in repr(found)


def test_all_of_it_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(
        'fleet = "rediss://h"\nfleet-name = "{a}.b:c-d"\nfleet-ca = "ca"\nfleet-password-file = "p"\nfleet-secret-file = "s"\n'
        '[[listener]]\nlisten = "tcp://127.0.0.1:0"\nto = "tcp://127.0.0.1:9"\n'
    )
    found = read_settings(str(file), {})
    here = [str(tmp_path / name) for name in ("ca", "p", "s")]
    assert found.fleet == Fleet(Address("tls", "h", 6379), None, None, 0, "{a}.b:c-d", *here)
    assert {*here} <= {*found.files()}, "a reload reads them"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fleet-name", "x"], "--fleet-name: it needs --fleet"),
        (["--fleet-ca", "x"], "--fleet-ca: it needs --fleet"),
        (["--fleet", "redis://h", "--ticket-key-file", "x"], "--ticket-key-file: either this or --fleet"),
        (["--fleet", "redis://h", "--fleet-ca", "x"], "--fleet-ca: it is for rediss://"),
        (["--fleet", "redis://:SESAME@h", "--fleet-password-file", "x"], "--fleet-password-file: there is"),
        (["--fleet", "localhost:6379"], "--fleet: redis://HOST:PORT, rediss://HOST:PORT or unix:PATH is needed"),
        (["--fleet", "http://:SESAME@h"], "--fleet: redis://HOST:PORT"),
        (["--fleet", "redis://:SESAME@h?db=1"], "--fleet: nothing follows"),
        (["--fleet", "redis://:SESAME@h/x"], "--fleet: behind the port stands the number of a database"),
        (["--fleet", "redis://:SESAME@h/0/1"], "--fleet: behind the port"),
        (["--fleet", "redis://:SESAME@h:x"], "--fleet: 'h:x': a port is 1 to 65535"),
        (["--fleet", "redis://:SESAME@h:0"], "--fleet: 'h:0': a port is 1 to 65535"),
        (["--fleet", "redis://:SESAME@0.0.0.0"], "--fleet: 0.0.0.0 means every address"),
        (["--fleet", "redis://:SESAME@"], "--fleet: ':6379' has no host"),
        (["--fleet", "redis://127.1"], "--fleet: '127.1': no host name ends in a number"),
        (["--fleet", "unix:"], "--fleet: "),
        (["--fleet", "unix:@redis"], "--fleet: Redis listens on a UNIX socket that has a file"),
        (["--fleet", "unix:/" + 200 * "x"], "--fleet: "),
        (["--fleet", "redis://h", "--fleet-name", "a b"], "--fleet-name: 'a b': up to 200"),
        (["--fleet", "redis://h", "--fleet-name", "x" * 201], "--fleet-name: "),
    ],
)
def test_what_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(*arguments)
    assert str(caught.value).startswith(message)
    assert "SESAME" not in str(caught.value)


def checked(*arguments: object) -> list[str]:
    warnings: list[str] = []
    check_files(settings(*arguments), warnings.append)
    return warnings


def complaint(*arguments: object) -> str:
    with pytest.raises(SettingsError) as caught:
        checked(*arguments)
    return str(caught.value)


def test_files_are_verified(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for option, url, bad in (
        ("--fleet-ca", "rediss://h", [(b"x", "no certificate"), (b"\xff", "it is not text")]),
        ("--fleet-password-file", "redis://localhost", [(b"\n", "it is empty"), (b"\xff", "it is not text")]),
        ("--fleet-secret-file", "redis://h", [(b"", "0 bytes; 32"), (b"x" * 31 + b"\n", "31 bytes; 32 random ones")]),
    ):
        file.unlink(missing_ok=True)
        assert complaint("--fleet", url, option, file) == f"{option}: {file}: No such file or directory"
        for text, reason in bad:
            file.write_bytes(text)
            assert complaint("--fleet", url, option, file).startswith(f"{option}: {file}: {reason}")


def test_what_others_can_see_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x" * 32)
    file.chmod(0o644)
    assert checked("--fleet", "redis://localhost") == checked("--fleet", "redis://[::1]") == []
    (exposed,) = checked("--fleet", "redis://h", "--fleet-secret-file", file)
    assert exposed == f"warning: --fleet-secret-file: {file}: others than its owner and group can read or write it (mode 0644)"
    file.chmod(0o640)
    assert checked("--fleet", "redis://h", "--fleet-secret-file", file) == checked("--fleet", "rediss://h") == []
    (clear,) = checked("--fleet", "redis://h")
    assert "the ticket keys cross the network in the clear" in clear
    (seen,) = checked("--fleet", "redis://:SESAME@localhost")
    assert "sees the password" in seen and "SESAME" not in seen


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: dict[str, Any] = {"redis": None}
    for name, value in missing.items():
        monkeypatch.setitem(sys.modules, name, value)
    assert complaint("--fleet", "redis://localhost") == "--fleet: it needs the package redis: pip install 'sslsock[fleet]'"
