"""Who may read what: `--user`, `--keep-reading`, and keys that others can read."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import ssl
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_helpers import Identity, run
from peers import open_descriptors
from sslsock.proxy.files import reading as files
from sslsock.proxy.files.reading import Reader, Reading, open_file, status_of
from sslsock.proxy.service.privileges import replaceable_for

from .operations import (
    DEADLINE,
    Origin,
    Proxy,
    Site,
    answer_of,
    children,
    fetch,
    proxy,
    user_ids,
    wait_until,
    write_ticket_keys,
)

LOCAL = "127.0.0.1:0"
USER = "nobody"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """That other users may look into, which pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


# Keys that others can read


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o644, 0o604, 0o602])
@pytest.mark.parametrize("option", ["--key", "--cert", "--to-key"])
def test_a_key_that_others_can_read_is_a_warning(identity: Identity, tmp_path: Path, mode: int, option: str) -> None:
    key = tmp_path / "secret.pem"
    key.write_bytes((identity.both if option == "--cert" else identity.key).read_bytes())
    key.chmod(mode)
    if option == "--to-key":
        arguments: list[Any] = ["--listen", f"tcp://{LOCAL}", "--to", "tls://a:1", "--to-cert", identity.cert, "--to-key", key]
    elif option == "--key":
        arguments = ["--listen", f"tls://{LOCAL}", "--to", "tcp://a:1", "--cert", identity.cert, "--key", key]
    else:
        arguments = ["--listen", f"tls://{LOCAL}", "--to", "tcp://a:1", "--cert", key]
    done = run("proxy", *arguments, "--check")
    assert done.returncode == 0
    said = done.stderr.decode()
    if mode & stat.S_IRWXO:
        assert said.startswith("sslsock: warning: --") and f"{key}: others" in said and f"{mode:04o}" in said, said
    else:
        assert said == ""


# --user


def settings_with(folder: Path, site: Site, identity: Identity) -> tuple[Path, dict[str, Path]]:
    """A file that names one of every kind, each readable by all; and these by their names."""
    named = {name: folder / f"{name}.pem" for name in ("cert", "key", "client-ca", "to-ca", "to-cert", "to-key")}
    for name, path in named.items():
        source = identity.ca if name.endswith("ca") else identity.key if name.endswith("key") else identity.cert
        path.write_bytes(source.read_bytes())
        path.chmod(0o644)
    config = folder / "proxy.toml"
    config.write_text(
        f'user = "{USER}"\nthreads = 1\n[[listener]]\nlisten = "tls://{LOCAL}"\nto = "tls://127.0.0.1:1"\n'
        + "".join(f'{name} = "{path.name}"\n' for name, path in named.items())
    )
    return config, {**named, "": config}


@as_root
@pytest.mark.parametrize("name", ["cert", "key", "client-ca", "to-ca", "to-cert", "to-key", ""])
def test_a_file_that_the_new_user_cannot_read_is_an_error(open_folder: Path, identity: Identity, name: str) -> None:
    config, named = settings_with(open_folder, Site(open_folder), identity)
    assert run("proxy", "--config", config, "--check").returncode == 0
    named[name].chmod(0o600)
    for check in (["--check"], []):
        done = run("proxy", "--config", config, *check)
        said = done.stderr.decode().splitlines()[-1]
        assert done.returncode == 2 and done.stdout == b""
        line = 1 if not name else config.read_text().splitlines().index(f'{name} = "{name}.pem"') + 1
        assert said.startswith(f"sslsock: {config}:{line}: {name + ': ' if name else ''}{named[name]}: user {USER!r} "), said
        assert "Permission denied" in said and "--keep-reading" in said
    if name:
        assert run("proxy", "--config", config, "--check", "--keep-reading").returncode == 0
    named[name].chmod(0o644)
    open_folder.chmod(0o700)  # the way there
    done = run("proxy", "--config", config, "--check")
    assert done.returncode == 2 and b"Permission denied" in done.stderr


def test_keep_reading_needs_a_user() -> None:
    done = run("proxy", "--listen", f"tcp://{LOCAL}", "--to", "tcp://a:1", "--keep-reading")
    assert done.returncode == 2 and b"--keep-reading: it needs --user" in done.stderr


# --keep-reading


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def shown(running: Proxy) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", running.port), DEADLINE) as raw, context.wrap_socket(raw) as client:
        return ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True) or b"")


@as_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_process_keeps_the_rights_to_read(open_folder: Path, back: Origin, number: signal.Signals) -> None:
    folder = open_folder / "secret"
    folder.mkdir(0o700)
    site = Site(folder)
    pair, tickets, config = site.issue(), folder / "tickets", folder / "proxy.toml"
    write_ticket_keys(tickets)
    config.write_text(
        f'user = "{USER}"\nkeep-reading = true\nthreads = 2\nticket-key-file = "tickets"\n'
        f'[[listener]]\nlisten = "tls://{LOCAL}"\nto = "{back.url}"\ncert = "{pair.name}"\n'
    )
    with proxy("--config", config) as running:
        (reader,) = children(running.pid)
        assert "0" not in user_ids(running.pid) and user_ids(reader) == {"0"}
        # What it was asked to read last it may not have closed yet.
        wait_until(lambda: sorted(open_descriptors(reader)) == list("0123"), "that it holds its socket only")
        held = open_descriptors(reader)
        assert {held["0"], held["1"], held["2"]} == {"/dev/null"} and held["3"].startswith("socket:")
        assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)

        before = shown(running)
        site.issue(file="new.pem").replace(pair)
        running.reload()
        after = shown(running)
        assert after != before and after in pair.read_text()

        tickets.write_text("no key\n")
        running.wait_for_line("the old ticket keys stay in force")
        pair.write_text("no certificate\n")
        running.send(signal.SIGHUP)
        assert str(pair) in running.wait_for_line("SIGHUP: the old settings stay in force")
        assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)

        other = site.issue(file="other.pem")
        config.write_text(config.read_text().replace(pair.name, other.name))
        write_ticket_keys(tickets)
        running.send(signal.SIGHUP)
        assert "needs a restart" in running.wait_for_line(str(other))

        os.kill(reader, signal.SIGTERM)  # as a service manager does, to every process of a service
        os.kill(reader, signal.SIGINT)
        pair.write_text(other.read_text())
        config.write_text(config.read_text().replace(other.name, pair.name))
        running.reload()
        running.send(number)
        running.process.wait(DEADLINE)
        wait_until(lambda: gone(reader), "the end of the reader")


def make_loose(folder: Path, how: str, file: Path) -> Path:
    """A path to `file` on which the user could put something else in its place."""
    own = folder / "own"
    own.mkdir()
    if how == "a link in the user's folder":
        (own / "link").symlink_to(file)
        path = own / "link"
    elif how == "a link to the user's folder":
        file.replace(own / file.name)
        (folder / "link").symlink_to("own", target_is_directory=True)
        path = folder / "link" / file.name
    elif how == "below the user's folder":
        (own / "deep").mkdir()
        file.replace(own / "deep" / file.name)
        path = own / "deep" / file.name
    else:
        file.replace(own / file.name)
        path = own / file.name
    if how == "a folder that all can write":
        own.chmod(0o777)
    else:
        shutil.chown(own, USER)
    return path


LOOSE = [
    "the user's folder",
    "a folder that all can write",
    "a link in the user's folder",
    "a link to the user's folder",
    "below the user's folder",
]


@as_root
@pytest.mark.parametrize("how", LOOSE)
def test_the_reader_is_no_way_to_other_files(open_folder: Path, back: Origin, how: str) -> None:
    """A path that the user could lead elsewhere would be any path."""
    site = Site(open_folder)
    pair = make_loose(open_folder, how, site.issue())
    arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", pair, "--user", USER, "--keep-reading")
    done = run("proxy", *arguments)
    assert done.returncode == 2 and b"lead anywhere" in done.stderr and str(pair).encode() in done.stderr
    pair.chmod(0o644)  # what the user reads himself needs no rights
    secret = site.issue(file="secret.pem")
    with proxy(*arguments) as running:
        before = shown(running)
        pair.unlink()
        pair.symlink_to(secret)
        running.send(signal.SIGHUP)
        assert "Permission denied" in running.wait_for_line("the old settings stay in force")
        assert shown(running) == before
        assert running.end() == 0


@as_root
def test_a_folder_with_the_sticky_bit_is_no_ones_else(open_folder: Path) -> None:
    open_folder.chmod(0o1777)
    for name, owner in (("root's", "root"), ("the user's", USER)):
        (open_folder / name).write_text("x")
        shutil.chown(open_folder / name, owner)
    paths = [str(open_folder / name) for name in ("root's", "the user's")]
    assert replaceable_for(USER, paths) == {paths[1]: str(open_folder)}
    assert os.geteuid() == os.getegid() == 0


@as_root
@pytest.mark.parametrize("mode", (0o777, 0o1777), ids=("open", "sticky"))
def test_a_file_that_is_not_there_yet_is_whose_who_may_put_it_there(open_folder: Path, mode: int) -> None:
    for name in ("open", "closed"):
        (open_folder / name).mkdir()
    (open_folder / "open").chmod(mode)
    (open_folder / "closed" / "link").symlink_to(open_folder / "open" / "away")
    away, linked = str(open_folder / "open" / "away"), str(open_folder / "closed" / "link")
    roots = str(open_folder / "closed" / "away")
    assert replaceable_for(USER, [away, linked, roots]) == dict.fromkeys((away, linked), str(open_folder / "open"))


@as_root
def test_without_its_reader_the_proxy_runs_on(open_folder: Path, back: Origin) -> None:
    site = Site(open_folder)
    arguments = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--user", USER, "--keep-reading")
    with proxy(*arguments) as running:
        reader, *_ = children(running.pid)
        os.kill(reader, signal.SIGKILL)
        wait_until(lambda: gone(reader), "its end")
        running.send(signal.SIGHUP)
        assert "--keep-reading has ended" in running.wait_for_line("the old settings stay in force")
        assert fetch(running.port, 1000, site.context) == answer_of("origin", 1000)
        assert running.end() == 0


@as_root
def test_no_reader_stays_when_the_start_fails(open_folder: Path) -> None:
    site = Site(open_folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(
            *("proxy", "--listen", f"tls://127.0.0.1:{taken.getsockname()[1]}", "--to", "tcp://127.0.0.1:1"),
            *("--cert", site.issue(), "--user", USER, "--keep-reading"),
        )
    assert done.returncode == 1 and b"cannot listen" in done.stderr  # and its output has ended, so nobody holds it


# The reader itself


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which pytest has and the proxy has not
        made = Reader([str(tmp_path / name) for name in ("one", "two", "away", "folder", "fifo")])
    try:
        yield made
    finally:
        made.close()


def test_the_reader_opens_what_was_named_and_nothing_else(reader: Reader, tmp_path: Path) -> None:
    assert Reading().read(str(tmp_path / "two")) == b"two"
    assert Reading().read(str(tmp_path / "one")) == b"one"
    assert status_of(str(tmp_path / "one")).st_size == 3
    (tmp_path / "new").write_text("another")
    (tmp_path / "new").replace(tmp_path / "one")
    assert Reading().read(str(tmp_path / "one")) == b"another"
    descriptor = open_file(str(tmp_path / "one"))
    with open(descriptor, "rb") as file:
        assert not os.get_inheritable(descriptor) and flags_of(descriptor) & (os.O_WRONLY | os.O_RDWR) == 0
        assert file.read() == b"another"
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name, number in (("away", errno.ENOENT), ("folder", errno.EISDIR), ("fifo", errno.EINVAL)):
        with pytest.raises(OSError) as caught:
            Reading().read(str(tmp_path / name))
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / name))


def flags_of(descriptor: int) -> int:
    line = next(line for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines() if line.startswith("flags:"))
    return int(line.split()[1], 8)


@pytest.mark.parametrize("request_", [(5).to_bytes(4, "big"), b"\xff\xff\xff\xff", b"\0", b"\0\0\0\0\0", b"/etc/shadow"])
def test_the_reader_ends_at_anything_else(reader: Reader, tmp_path: Path, request_: bytes) -> None:
    reader._socket.send(request_)
    with contextlib.suppress(ConnectionResetError):
        assert reader._socket.recv(100) == b""
    with pytest.raises(OSError, match="has ended"):
        Reading().read(str(tmp_path / "one"))


def test_a_reader_leaves_nothing_behind(reader: Reader, tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(100):
        Reading().read(str(tmp_path / "one"))
        status_of(str(tmp_path / "two"))
        with pytest.raises(FileNotFoundError):
            open_file(str(tmp_path / "away"))
    assert set(os.listdir("/proc/self/fd")) == before
    pid = reader._pid
    reader.close()
    assert not Path(f"/proc/{pid}").exists()
    assert files._reader is None and Reading().read(str(tmp_path / "one")) == b"one"
    assert stat.S_ISREG(status_of(str(tmp_path / "one")).st_mode)
