"""ACME in the proxy, without an authority: settings, when something is done, where it is kept."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from command_helpers import ENVIRONMENT, one_line, run
from sslsock.proxy.acme.manager import below
from sslsock.proxy.acme.plan import Pace, Window, next_question, renewal_moment
from sslsock.proxy.acme.storage import FileStorage
from sslsock.proxy.check import check_files
from sslsock.proxy.settings.config_file import read_settings
from sslsock.proxy.settings.model import AcmeSettings, Address, ProxySettings, SettingsError
from sslsock.proxy.settings.options import add_arguments, make_settings

DAY = 86400.0
TLS = ["--listen", "tls://:443", "--to", "tcp://127.0.0.1:80"]
GOOD = ["--acme", "a.example.com", "--acme-terms-agreed", "--acme-storage", "/var/lib/acme"]


def settings(*arguments: str) -> ProxySettings:
    parser = ArgumentParser()
    add_arguments(parser)
    return make_settings(parser.parse_args(arguments))


# Settings


def test_what_is_said_on_the_command_line() -> None:
    made = settings(*TLS, *GOOD, "--acme", "B.Example.com.", "--acme", "bücher.example")
    assert made.listeners[0].acme == made.acme_names() == ("a.example.com", "b.example.com", "xn--bcher-kva.example")
    assert made.acme == AcmeSettings("/var/lib/acme", "https://acme-v02.api.letsencrypt.org/directory")
    made = settings(*TLS, *GOOD, "--acme-http", ":80", "--acme-key-type", "rsa", "--acme-email", "ops@example.com")
    assert made.acme is not None and made.acme.challenge == "http-01" and made.acme.http == Address("tcp", "", 80)


def test_what_is_said_in_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    file = tmp_path / "proxy.toml"
    file.write_text(
        '[acme]\nterms-agreed = true\nstorage = "acme"\nchallenge = "tls-alpn-01"\nhttp = ":80"\n'
        '[[listener]]\nlisten = "tls://:443"\nacme = ["a.test", "b.test"]\nto = "tcp://a:1"\n'
        '[[listener]]\nlisten = "tls://:444"\nacme = ["b.test", "c.test"]\nto = "tcp://a:1"\n'
        '[[listener]]\nlisten = "tls://:445"\nto = "tcp://a:1"\n'
    )
    made = read_settings(str(file))
    assert made.acme_names() == ("a.test", "b.test", "c.test")
    assert made.acme is not None
    assert (made.acme.storage, made.acme.challenge) == (str(tmp_path / "acme"), "tls-alpn-01")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--acme", "a.test"], "--acme: it needs --acme-terms-agreed and --acme-storage FOLDER"),
        (["--acme-storage", "x"], "--acme-storage: no listener asks for certificates: it needs --acme NAME"),
        (["--acme", "a.test", "--acme-storage", "x"], "--acme-terms-agreed is missing: an authority (https://acme-v02.api."),
        (["--acme", "a.test", "--acme-terms-agreed"], "--acme-storage is missing: the folder for"),
        ([*GOOD, "--acme", "*.test"], "--acme: '*.test': for wildcards an authority wants the challenge dns-01"),
        ([*GOOD, "--acme", "192.0.2.1"], "--acme: '192.0.2.1' is an address: certificates are obtained for names"),
        ([*GOOD, "--acme", "[::1]"], "--acme: "),
        ([*GOOD, "--acme", "../x"], "--acme: "),
        ([*GOOD, "--acme", "a.Example.com"], "--acme: a.example.com stands here twice"),
        ([*GOOD, "--acme-email", "ops"], "--acme-email: 'ops' is no mail address"),
        ([*GOOD, "--acme-email", "a@b.test,c@d.test"], "--acme-email: "),
        ([*GOOD, "--acme-directory", "http://a.test/"], "--acme-directory: 'http://a.test/': the address of an ACME directory"),
        ([*GOOD, "--acme-key-type", "dsa"], "--acme-key-type: 'dsa' is neither ecdsa nor rsa"),
        ([*GOOD, "--acme-challenge", "dns-01"], "--acme-challenge: 'dns-01' is neither tls-alpn-01 nor http-01"),
        ([*GOOD, "--acme-challenge", "http-01"], "--acme-challenge: http-01 needs --acme-http"),
        ([*GOOD, "--acme-http", "http://:80"], "--acme-http: 'http://:80': HOST:PORT is needed, without a scheme"),
        ([*GOOD, "--acme-eab-kid", "x"], "--acme-eab-kid: it needs --acme-eab-key-file"),
        ([*GOOD, "--acme-eab-key-file", "x"], "--acme-eab-key-file: it needs --acme-eab-kid"),
        ([*GOOD, "--ca-out", "x"], "--ca-out: it is for the certificate that is made without --acme"),
    ],
)
def test_what_cannot_be(options: list[str], complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(*TLS, *options)
    assert str(caught.value).startswith(complaint)


def test_where_it_cannot_be() -> None:
    with pytest.raises(SettingsError, match="--acme: TLS does not end at a tcp:// listener"):
        settings("--listen", "tcp://:1", "--to", "tls://a:1", *GOOD)
    with pytest.raises(SettingsError, match="--acme: tls-alpn-01 needs a listener with names that is no UNIX socket"):
        settings("--listen", "tls+unix:/run/x", "--to", "tcp://a:1", *GOOD)
    with pytest.raises(SettingsError, match="--acme-email is a listener's, and with --config the file describes those"):
        settings("--config", "x", "--acme-email", "a@b.test")


# --check


def check(*options: object) -> str:
    """What is wrong, "" for nothing."""
    try:
        check_files(settings(*TLS, "--acme", "a.test", "--acme-terms-agreed", *map(str, options)), pytest.fail)
    except SettingsError as exc:
        return str(exc)
    return ""


def test_check_asks_nobody_and_makes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("acme", reason="the package acme is not installed")
    storage, open_to_all, key = tmp_path / "new" / "acme", tmp_path / "open", tmp_path / "key"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    key.write_text("no key!\n")
    directory = ("--acme-directory", "https://127.0.0.1:1/dir")
    assert check("--acme-storage", storage, *directory) == ""
    assert not storage.parent.exists()
    assert check("--acme-storage", open_to_all).endswith("others than its owner may look into it: chmod 0700")
    assert check("--acme-storage", key).endswith("it is no folder")
    eab = ("--acme-eab-kid", "x", "--acme-eab-key-file")
    assert check("--acme-storage", storage, *eab, key).endswith(f"--acme-eab-key-file: {key}: it holds no key in base64url")
    assert check("--acme-storage", storage, *eab, "none").endswith("--acme-eab-key-file: none: No such file or directory")
    assert "--acme-directory-ca: none: " in check("--acme-storage", storage, "--acme-directory-ca", "none")


def test_without_the_package(tmp_path: Path) -> None:
    """A module of that name that cannot be imported stands in for none."""
    (tmp_path / "acme.py").write_text("raise ImportError('it is not here')\n")
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    done = run("proxy", *TLS, *GOOD, "--check", env={"PYTHONPATH": path})
    assert done.returncode == 2
    assert one_line(done) == "sslsock: --acme: it needs the package acme: pip install 'sslsock[acme]' (it is not here)"


# When


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_without_a_window_two_thirds_and_a_spread(chance: float) -> None:
    assert renewal_moment(100 * DAY, 190 * DAY, None, chance) == pytest.approx((160 + 4.5 * chance) * DAY)
    assert 160 * DAY <= renewal_moment(100 * DAY, 190 * DAY) <= 164.5 * DAY


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_within_the_window_but_not_too_young(chance: float) -> None:
    window = Window(150 * DAY, 152 * DAY)
    assert renewal_moment(100 * DAY, 190 * DAY, window, chance) == (150 + 2 * chance) * DAY
    past = Window(1 * DAY, 2 * DAY)
    assert renewal_moment(100 * DAY, 190 * DAY, past, chance) == 100.25 * DAY
    assert renewal_moment(100 * DAY, 101 * DAY, past, chance) == 100.1 * DAY


def test_how_often_the_window_is_asked_for() -> None:
    waits = {None: 6 * 3600.0, 1.0: 60.0, 7200.0: 7200.0, 1e9: DAY}
    assert {after: next_question(1000.0, after) - 1000.0 for after in waits} == waits


def test_failures_are_waited_out() -> None:
    pace = Pace()
    assert [pace.wait(failures, None, 0.5) for failures in (1, 2, 3, 4)] == [60.0, 120.0, 240.0, 480.0]
    assert pace.wait(1000, None, 0.5) == 6 * 3600.0
    assert (pace.wait(1, None, 0.0), pace.wait(1, None, 1.0)) == (45.0, 75.0)
    assert 86400.0 <= pace.wait(1, 86400.0) <= 86400.0 * 1.1, "what the authority says, and not before"
    assert pace.wait(4, 10.0, 0.5) == 480.0


# Where


def test_what_is_written_is_whole_and_its_owners_alone(tmp_path: Path) -> None:
    storage = FileStorage(str(tmp_path / "a" / "acme"))
    storage.prepare()
    storage.prepare()
    part = below(storage, "https://CA.example:14000/acme/../dir")
    assert part.read("certificates/a.test.pem") is None
    part.write("certificates/a.test.pem", b"one")
    part.write("certificates/a.test.pem", b"two")
    assert part.read("certificates/a.test.pem") == b"two"
    assert below(storage, "https://other.example/").read("certificates/a.test.pem") is None
    files = [path for path in (tmp_path / "a" / "acme").rglob("*") if path.is_file()]
    (path,) = files
    assert path == tmp_path / "a" / "acme" / "ca.example-14000-acme-..-dir" / "certificates" / "a.test.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    part.remove("certificates/a.test.pem")
    part.remove("certificates/a.test.pem")
    assert part.read("certificates/a.test.pem") is None
    (tmp_path / "a" / "acme").chmod(0o750)
    with pytest.raises(PermissionError, match="others than its owner may look into it"):
        storage.prepare()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_fails_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A full disk, a folder that was taken away: the old value stands, and nothing is left lying."""
    storage = FileStorage(str(tmp_path))
    storage.write("a", b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        storage.write("a", b"new")
    monkeypatch.undo()
    assert storage.read("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_the_value_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FileStorage(str(tmp_path))
    steps: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*args: object, name: str = name, real: object = real) -> None:
            kind = "folder" if name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode) else "file"  # type: ignore[arg-type]
            steps.append(f"{name} {kind}")
            real(*args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, noted)
    storage.write("a", b"value")
    assert steps == ["fsync file", "replace file", "fsync folder"]


def test_one_holds_the_lock_and_its_end_frees_it(tmp_path: Path) -> None:
    storage = FileStorage(str(tmp_path))
    with storage.lock() as ours, storage.lock() as another:
        assert ours and not another
    program = (
        "import sys; from sslsock.proxy.acme.storage import FileStorage\n"
        f"with FileStorage({str(tmp_path)!r}).lock() as ours: print(ours, flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], env=ENVIRONMENT, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        with storage.lock() as ours:
            assert not ours
        process.kill()
    (tmp_path / ".new-half").write_bytes(b"of a crash")
    with storage.lock() as ours:
        assert ours
    assert os.listdir(tmp_path) == ["lock"]
    with contextlib.suppress(OSError):
        os.unlink(tmp_path / "lock")
