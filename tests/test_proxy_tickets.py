"""The proxy's ticket keys: what a key file may look like, when it is read again, and how keys in memory change."""

from __future__ import annotations

import base64
import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from peers import open_descriptors, opened_since
from sslsock.core.context import TICKET_LIFETIME
from sslsock.core.ticket_keys import TicketKeys
from sslsock.proxy.tls.tickets import TicketKeyError, TicketKeyFile, TicketRotation, parse_ticket_keys


def some_key(name: bytes | None = None) -> bytes:
    return (name or os.urandom(16)) + os.urandom(64)


def line(key: bytes) -> bytes:
    return base64.b64encode(key) + b"\n"


def write(path: Path, *keys: bytes, text: bytes = b"", mode: int = 0o600) -> Path:
    """A new file put in the place of the old one at once, as the documentation asks."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(text + b"".join(map(line, keys)))
    fresh.chmod(mode)
    fresh.replace(path)
    return path


def names(*keys: bytes) -> list[bytes]:
    return [key[:16] for key in keys]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ticket.keys"


@pytest.fixture
def keys() -> TicketKeys:
    return TicketKeys()


def load(path: Path) -> TicketKeys:
    keys = TicketKeys()
    TicketKeyFile(str(path), keys).load()
    return keys


# what a file may hold


def test_keys_come_in_the_order_of_the_lines(path: Path) -> None:
    material = [some_key() for _ in range(16)]
    assert load(write(path, *material)).names == names(*material)


def test_comments_blank_lines_and_other_line_ends_are_allowed(path: Path) -> None:
    one, two = some_key(), some_key()
    text = b"# the first seals\r\n\r\n  " + line(one).strip() + b" \t\r\n   # an old one\n\n" + line(two).strip()
    assert load(write(path, text=text)).names == names(one, two)


def test_what_the_documented_command_writes_is_a_key(path: Path) -> None:
    path.touch(0o600)
    subprocess.run(f"openssl rand 80 | base64 -w0 >> {path}; echo >> {path}", shell=True, check=True, timeout=20)
    assert len(load(path).names) == 1


KEY = some_key()
BAD_TEXTS = {
    "empty": (b"", r": no key$"),
    "only comments": (b"# nothing\n\n", r": no key$"),
    "no base64": (b"# keys\n!" + line(KEY), r":2: not base64$"),
    "rubbish": (b"\xff\x00\xfe\n", r":1: not base64$"),
    "a character too few": (line(KEY)[:-2] + b"\n", r":1: not base64$"),
    "words behind it": (line(KEY).strip() + b" # old\n", r":1: not base64$"),
    "two keys in a line": (line(KEY).strip() + line(KEY), r":1: not base64$"),
    "other digits": (b"-_" * 53 + b"-=\n", r":1: not base64$"),
    "hexadecimal": (KEY.hex().encode() + b"\n", r":1: 120 bytes; a ticket key has 80"),
    "48 bytes": (line(KEY) + b"\n" + line(KEY[:48]), r":3: 48 bytes; a ticket key has 80, on one line \(base64 -w0\)$"),
    "one byte less": (line(KEY[:79]), r":1: 79 bytes; "),
    "one byte more": (line(KEY + b"x"), r":1: 81 bytes; "),
    "a wrapped key": (base64.encodebytes(KEY), r":1: 57 bytes; "),
    "seventeen": (b"".join(line(some_key()) for _ in range(17)), r":17: more than 16 keys$"),
    "a name twice": (
        line(KEY) + b"#\n" + line(some_key()) + line(some_key(KEY[:16])),
        r":4: the key's name \(its first 16 bytes\) is that of the key in line 1$",
    ),
    "too long": (b"#" * 70000, r": longer than 65536 bytes$"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_bad_file_is_refused_by_name_and_line(path: Path, keys: TicketKeys, case: str) -> None:
    text, message = BAD_TEXTS[case]
    before = keys.names
    write(path, text=text)
    with pytest.raises(TicketKeyError, match="^" + re.escape(str(path)) + message) as caught:
        TicketKeyFile(str(path), keys).load()
    assert keys.names == before
    for secret in (base64.b64encode(KEY)[40:60].decode(), KEY.hex()[80:100]):
        assert secret not in str(caught.value)


def test_every_cut_of_a_line_is_refused() -> None:
    whole = line(KEY).strip()
    for size in range(1, len(whole)):
        with pytest.raises(TicketKeyError, match=r"^f:1: "):
            parse_ticket_keys(whole[:size], "f")
    assert parse_ticket_keys(whole, "f") == [KEY]


# what a file may be


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640, 0o700])
def test_permissions_that_keep_it_secret(path: Path, mode: int) -> None:
    assert load(write(path, KEY, mode=mode)).names == names(KEY)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o660, 0o620, 0o666, 0o444, 0o777])
def test_permissions_that_expose_it(path: Path, keys: TicketKeys, mode: int) -> None:
    before = keys.names
    write(path, KEY, mode=mode)
    with pytest.raises(TicketKeyError, match=rf"^{re.escape(str(path))}: permissions {mode:04o} expose the keys: "):
        TicketKeyFile(str(path), keys).load()
    assert keys.names == before


def refused(path: Path, message: str) -> None:
    keys = TicketKeys()
    before = keys.names
    for call in (TicketKeyFile.load, TicketKeyFile.check):
        with pytest.raises(TicketKeyError, match=f"^{re.escape(str(path))}: {message}$"):
            call(TicketKeyFile(str(path), keys))
    assert keys.names == before


def test_a_missing_file_is_refused(path: Path) -> None:
    refused(path, "No such file or directory")
    path.symlink_to(path.with_name("nowhere"))
    refused(path, "No such file or directory")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "not a regular file")


def test_a_pipe_is_refused_and_not_waited_for(path: Path) -> None:
    os.mkfifo(path, 0o600)
    refused(path, "not a regular file")


def test_a_socket_is_refused(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))
        refused(path, "No such device or address")


def test_a_device_is_refused() -> None:
    refused(Path("/dev/zero"), "not a regular file")


def test_no_descriptor_is_left_open(path: Path, keys: TicketKeys) -> None:
    file = TicketKeyFile(str(path), keys)
    before = open_descriptors()
    for mode in (0o600, 0o644):
        write(path, KEY, mode=mode)
        for _ in range(3):
            try:
                file.load()
            except TicketKeyError:
                assert mode == 0o644
    assert not opened_since(before)


# when it is read again


def test_an_unchanged_file_is_not_read_again(path: Path, keys: TicketKeys) -> None:
    file = TicketKeyFile(str(write(path, KEY)), keys)
    file.load()
    keys.rotate()
    rotated = keys.names
    assert not file.check() and not file.check()
    assert keys.names == rotated


def test_the_first_check_reads(path: Path, keys: TicketKeys) -> None:
    assert TicketKeyFile(str(write(path, KEY)), keys).check()
    assert keys.names == names(KEY)


def test_a_new_file_is_read(path: Path, keys: TicketKeys) -> None:
    file = TicketKeyFile(str(write(path, KEY)), keys)
    file.load()
    one, two = some_key(), some_key()
    write(path, one, two)
    assert file.check() and not file.check()
    assert keys.names == names(one, two)


def test_a_file_of_the_same_size_and_time_is_read(path: Path, keys: TicketKeys) -> None:
    file = TicketKeyFile(str(write(path, KEY)), keys)
    file.load()
    before = os.stat(path)
    write(path, some_key())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.check()
    assert keys.names != names(KEY)


def test_a_file_written_in_place_is_read(path: Path, keys: TicketKeys) -> None:
    file = TicketKeyFile(str(write(path, KEY)), keys)
    file.load()
    other = some_key()
    with open(path, "ab") as end:
        end.write(line(other))
    assert file.check()
    assert keys.names == names(KEY, other)


def test_a_mounted_secret_is_swapped_by_a_link(tmp_path: Path, keys: TicketKeys) -> None:
    """As Kubernetes does it: the file is a link through ..data, which is a link to a folder that is made anew."""
    old, new = some_key(), some_key()
    for folder, key in (("..1", old), ("..2", new)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "ticket.keys", key, mode=0o440)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "ticket.keys").symlink_to("..data/ticket.keys")
    file = TicketKeyFile(str(tmp_path / "ticket.keys"), keys)
    file.load()
    assert keys.names == names(old)
    (tmp_path / "..fresh").symlink_to("..2")
    (tmp_path / "..fresh").replace(tmp_path / "..data")
    assert file.check()
    assert keys.names == names(new)


def test_a_bad_new_file_leaves_the_keys_and_is_reported_once(path: Path, keys: TicketKeys) -> None:
    file = TicketKeyFile(str(write(path, KEY)), keys)
    file.load()
    for bad in (b"rubbish\n", b"other rubbish\n"):
        write(path, text=bad)
        with pytest.raises(TicketKeyError, match=":1: not base64"):
            file.check()
        assert not file.check()
        assert keys.names == names(KEY)
    other = some_key()
    write(path, other)
    assert file.check()
    assert keys.names == names(other)


def test_new_permissions_are_noticed(path: Path, keys: TicketKeys) -> None:
    file = TicketKeyFile(str(write(path, KEY)), keys)
    file.load()
    path.chmod(0o644)
    with pytest.raises(TicketKeyError, match="permissions 0644"):
        file.check()
    assert not file.check()
    path.chmod(0o600)
    assert file.check()


def test_a_file_that_goes_and_comes_back_is_reported_once_and_read(path: Path, keys: TicketKeys) -> None:
    file = TicketKeyFile(str(write(path, KEY)), keys)
    file.load()
    path.unlink()
    with pytest.raises(TicketKeyError, match="No such file"):
        file.check()
    assert not file.check()
    other = some_key()
    write(path, other)
    assert file.check()
    assert keys.names == names(other)


def test_a_load_reads_in_any_case(path: Path, keys: TicketKeys) -> None:
    file = TicketKeyFile(str(write(path, KEY)), keys)
    file.load()
    keys.rotate()
    file.load()
    assert keys.names == names(KEY)


# in memory


def test_a_key_changes_when_it_is_due_and_not_before(keys: TicketKeys) -> None:
    rotation = TicketRotation(keys, 1000.0)
    first = keys.names
    assert rotation.due == 1000.0 + 4 * 3600
    assert not rotation.turn(1000.0) and not rotation.turn(rotation.due - 0.001)
    assert keys.names == first
    assert rotation.turn(rotation.due)
    assert keys.names[1:] == first and rotation.due == 1000.0 + 8 * 3600
    assert not rotation.turn(1000.0 + 8 * 3600 - 1)


def test_no_key_outlives_its_lifetime(keys: TicketKeys) -> None:
    rotation = TicketRotation(keys, 0.0, key_lifetime=9000.0 * 3)
    born = {keys.names[0]: 0.0}
    now = 0.0
    for _ in range(50):
        now = rotation.due
        assert rotation.turn(now)
        born[keys.names[0]] = now
        assert len(keys.names) <= 3
        assert all(now - born[name] < 27000.0 for name in keys.names)


@pytest.mark.parametrize(("periods", "kept"), [(1.0, 2), (1.9, 2), (2.0, 1), (3.5, 0), (1000.0, 0)])
def test_a_late_turn_makes_up_for_what_it_missed(keys: TicketKeys, periods: float, kept: int) -> None:
    rotation = TicketRotation(keys, 0.0)
    keys.replace([some_key(), some_key()])
    before = keys.names
    assert rotation.turn(periods * rotation.period)
    assert sum(name in keys.names for name in before) == kept
    assert periods * rotation.period < rotation.due <= (periods + 1) * rotation.period


def test_keys_that_would_not_outlive_their_tickets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"with 2 older keys and a lifetime of 10799 s, keys would not outlive"):
        TicketRotation(TicketKeys(), 0.0, key_lifetime=TICKET_LIFETIME * 1.5 - 1)
    assert TicketRotation(TicketKeys(), 0.0, key_lifetime=TICKET_LIFETIME * 1.5).period == TICKET_LIFETIME / 2
    with pytest.raises(ValueError, match="with 0 older keys"):
        TicketRotation(TicketKeys(older=0), 0.0)


# Age


def test_the_age_of_a_file_is_since_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_bytes(base64.b64encode(os.urandom(80)))
    written = time.time() - 1000
    os.utime(path, (written, written))
    file = TicketKeyFile(str(path), TicketKeys())
    file.load()
    assert 999 < file.age() <= time.time() - written + 1
    path.write_bytes(b"no key")
    with pytest.raises(TicketKeyError):
        file.check()
    assert file.age() > 999, "a file that is refused makes the keys in force no younger"
    path.write_bytes(base64.b64encode(os.urandom(80)))
    os.utime(path, (time.time() + 1000, time.time() + 1000))  # a clock that is wrong
    assert file.check() and file.age() == 0


def test_the_age_of_keys_in_memory_is_since_the_last_change() -> None:
    now = time.monotonic()
    rotation = TicketRotation(TicketKeys(), now - 5000)
    assert 5000 <= rotation.age() <= time.monotonic() - now + 5000
    assert rotation.turn(rotation.due)
    assert rotation.age() == 0
