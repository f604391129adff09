"""What may stand in place of a file: pipes, devices, folders, sockets, and files that never end; at a start and at a reload."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import pytest

from command_helpers import Identity, run, started
from sslsock.proxy.files import reading as files
from sslsock.proxy.files.reading import MOST_BYTES, Reader, Reading

from .running import TIMEOUT, connect, listener, running

TOO_LONG = "it is longer than 16 MiB, the most that is read of a file"
LISTEN = ("--listen", "tls://127.0.0.1:0", "--to", "tcp://127.0.0.1:1")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(64 << 30)  # no more than a block on the disk


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


# How to put it there, and what a reload says of it.
KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe without a writer": (os.mkfifo, "it is a pipe that nobody writes to"),
    "a folder": (Path.mkdir, "Is a directory"),
    "a socket": (bound_socket, "it is a socket"),
    "a device without an end": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "an empty device": (lambda path: path.symlink_to("/dev/null"), "it is a device"),
    "a sparse file": (sparse, TOO_LONG),
    "nothing": (lambda path: None, "No such file or directory"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
}


@contextlib.contextmanager
def writing(path: Path, data: bytes, ends: bool) -> Iterator[None]:
    """A pipe whose writer waits for a reader, and then keeps it open unless it `ends`."""
    os.mkfifo(path)
    over = threading.Event()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), path.open("wb", buffering=0) as pipe:
            pipe.write(data)
            if not ends:
                over.wait(TIMEOUT)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # for who still waits
        over.set()
        thread.join(TIMEOUT)


# One reading


@pytest.fixture(params=["directly", "by the reader"])
def by(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    reader: Optional[Reader] = None
    if request.param == "by the reader":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which pytest has
            reader = Reader([str(tmp_path / "file")])
    yield request.param
    if reader is not None:
        reader.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_fails_at_a_reload(tmp_path: Path, kind: str, by: str) -> None:
    put, words = KINDS[kind]
    path = tmp_path / "file"
    put(path)
    if by == "by the reader" and words.startswith("it is a "):
        words = "it is no regular file, and --keep-reading opens no other"
    with pytest.raises(OSError) as caught:
        Reading(starting=False).read(str(path))
    assert caught.value.strerror is not None and caught.value.strerror.startswith(words)
    assert caught.value.filename == str(path)


@pytest.mark.parametrize("size", [0, 1, files.PIECE, MOST_BYTES])
@pytest.mark.parametrize("starting", [True, False])
def test_a_file_is_read_up_to_the_bound(tmp_path: Path, size: int, starting: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert Reading(starting).read(str(path)) == b"x" * size


@pytest.mark.parametrize("starting", [True, False])
def test_a_byte_more_than_the_bound(tmp_path: Path, starting: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MOST_BYTES + 1))
    with pytest.raises(OSError, match="longer than 16 MiB"):
        Reading(starting).read(str(path))


@pytest.mark.parametrize("starting", [True, False])
def test_a_pipe_with_a_writer_is_read_to_its_end(tmp_path: Path, starting: bool) -> None:
    path = tmp_path / "pipe"
    data = os.urandom(3 * files.PIECE)
    with writing(path, data, True):
        reading = Reading(starting)
        while not (told := read_or_nothing(reading, path)):
            assert not starting  # a reload may come before the writer
        assert told == data
        assert reading.read(str(path)) == data and stat.S_ISFIFO(reading.mode(str(path)))  # though it is empty now


def read_or_nothing(reading: Reading, path: Path) -> bytes:
    try:
        return reading.read(str(path))
    except OSError as exc:
        assert exc.strerror == "it is a pipe that nobody writes to"
        return b""


def test_a_reload_does_not_wait_for_a_writer_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_SECONDS", 0.01)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with path.open("r+b", buffering=0) as both:
        for _ in range(2):  # before it has written, and then
            with pytest.raises(OSError, match="whose writer does not come to an end"):
                Reading(starting=False).read(str(path))
            both.write(b"x")


def test_what_was_read_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    reading = Reading()
    assert reading.read(str(path)) == b"one"
    path.write_text("two")
    assert reading.read(str(path)) == b"one"
    assert reading.renewed().read(str(path)) == b"two"
    reading.forget()
    assert reading.read(str(path)) == b"two"


def test_a_start_that_reads_again_keeps_what_a_pipe_has_told(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    with writing(path, b"one", True):
        reading = Reading()
        assert reading.read(str(path)) == b"one"
    again = reading.renewed()
    assert again.read(str(path)) == b"one" and stat.S_ISFIFO(again.mode(str(path)))
    path.unlink()
    path.write_text("two")
    assert again.renewed().read(str(path)) == b"two"


# A start


def test_a_start_takes_what_a_pipe_tells_once(identity: Identity, tmp_path: Path) -> None:
    """`--config <(…)`, `--cert <(…)`, in bash's words; and a pipe with a name, whose writer comes late."""
    key, cert, config = tmp_path / "key", tmp_path / "cert", tmp_path / "config"
    text = f'[[listener]]\nlisten = "tls://127.0.0.1:0"\nto = "tcp://127.0.0.1:1"\ncert = "{cert}"\nkey = "{key}"\n'
    for path in (key, cert, config):
        os.mkfifo(path)
    for check in (["--check"], []):
        with started("proxy", "--config", config, *check) as process:
            for path, data in ((config, text.encode()), (cert, identity.cert.read_bytes()), (key, identity.key.read_bytes())):
                path.write_bytes(data)  # which waits until it is read
            assert process.stdout is not None
            first = process.stdout.readline().decode()
            if check:
                assert first.startswith("The settings are good") and process.wait(TIMEOUT) == 0
                continue
            port = int(first.partition(", to ")[0].rpartition(":")[2])
            connect(port, identity.client_context()).close()
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            while b"SIGHUP" not in (said := process.stderr.readline()):
                assert said, "it has ended"
            assert f"the old settings stay in force: {config}: it is a pipe that nobody writes to".encode() in said
            connect(port, identity.client_context()).close()
            process.terminate()
            assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize(("file", "check"), [("/dev/zero", []), ("sparse", ["--check"])], ids=["start", "check"])
@pytest.mark.parametrize("option", ["--cert", "--key", "--client-ca", "--to-ca", "--to-cert", "--to-key", "--config"])
def test_a_start_says_what_is_too_long(identity: Identity, tmp_path: Path, option: str, file: str, check: list[str]) -> None:
    if file == "sparse":
        file = str(tmp_path / file)
        sparse(Path(file))
    arguments: list[object] = [option, file]
    if option != "--config":
        arguments += ["--listen", "tls://127.0.0.1:0", "--to", "tls://127.0.0.1:1"]
    if option in ("--key", "--to-key"):
        arguments += [option.replace("key", "cert"), identity.cert]
    done = run("proxy", *arguments, *check)
    name = "" if option == "--config" else f"{option}: "
    assert (done.returncode, done.stderr.decode()) == (2, f"sslsock: {name}{file}: {TOO_LONG}\n")


@pytest.mark.parametrize("option", ["--ca", "--cert", "--key"])
def test_connect_says_what_is_too_long(identity: Identity, option: str) -> None:
    more = ["--cert", identity.cert] if option == "--key" else []
    done = run("connect", "127.0.0.1:1", option, "/dev/zero", *more)
    assert (done.returncode, done.stderr.decode()) == (2, f"sslsock: /dev/zero: {TOO_LONG}\n")


def test_a_file_that_cannot_be_written_at_the_start_is_named() -> None:
    done = run("proxy", *LISTEN, "--ca-out", "/dev/full")
    assert (done.returncode, done.stderr) == (2, b"sslsock: /dev/full: No space left on device\n")


# Reloads


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_comes_to_its_end_and_the_next_one_is_good(identity: Identity, tmp_path: Path, kind: str) -> None:
    put, words = KINDS[kind]
    sources = {
        "cert": identity.cert, "key": identity.key, "client-ca": identity.ca,
        "to-ca": identity.ca, "to-cert": identity.client_both, "to-key": identity.client_both,
    }  # fmt: skip
    named = {name: tmp_path / f"{name}.pem" for name in sources}
    for name, path in named.items():
        path.write_bytes(sources[name].read_bytes())
        path.chmod(0o600)
    tickets = named["ticket-key-file"] = tmp_path / "tickets"
    tickets.write_text(subprocess.check_output(["openssl", "rand", "-base64", "80"], text=True).replace("\n", "") + "\n")
    tickets.chmod(0o600)
    config = named[""] = tmp_path / "proxy.toml"
    with listener() as back:
        config.write_text(
            f'ticket-key-file = "{tickets}"\n[[listener]]\nlisten = "tls://127.0.0.1:0"\n'
            f'to = "tls://127.0.0.1:{back.getsockname()[1]}"\n'
            + "".join(f'{name} = "{path}"\n' for name, path in named.items() if path.suffix == ".pem")
        )
        with running("--config", config) as proxy:
            for path in named.values():
                good = path.with_suffix(".good")
                path.replace(good)
                put(path)
                before = len(proxy.messages)
                proxy.process.send_signal(signal.SIGHUP)
                said = proxy.wait_for_message("SIGHUP: the old settings stay in force", before)
                assert str(path) in said and (words in said or path == tickets), said
                if path.is_dir():
                    path.rmdir()
                good.replace(path)
                before = len(proxy.messages)
                proxy.process.send_signal(signal.SIGHUP)
                proxy.wait_for_message("SIGHUP: read again", before)


def test_a_reload_reads_a_pipe_that_has_a_writer(identity: Identity, tmp_path: Path) -> None:
    """As password managers offer secrets: whoever opens it is told."""
    pair = tmp_path / "pair.pem"
    pair.write_bytes(identity.both.read_bytes())
    pair.chmod(0o600)
    with running(*LISTEN, "--cert", pair) as proxy:
        pair.unlink()
        with writing(pair, identity.both.read_bytes(), True):
            said = ""
            while "read again" not in said:
                assert not said or "it is a pipe that nobody writes to" in said  # a reload may come before the writer
                before = len(proxy.messages)
                proxy.process.send_signal(signal.SIGHUP)
                said = proxy.wait_for_message("SIGHUP", before)


def test_keep_reading_says_what_it_does_not_open(identity: Identity, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    path = tmp_path / "sparse"
    sparse(path)
    done = run("proxy", *LISTEN, "--cert", path, "--user", "nobody", "--keep-reading")
    assert (done.returncode, done.stderr.decode()) == (2, f"sslsock: --cert: {path}: {TOO_LONG}\n")
