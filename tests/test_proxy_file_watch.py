"""Files that are watched: every way in which one changes is told, by the system or by a look, and nothing else is."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from peers import needs_inotify, open_descriptors, opened_since
from sslsock.core.folder_watch import FolderWatch, is_remote
from sslsock.proxy.files import watch as file_watch
from sslsock.proxy.files.paths import way_to
from sslsock.proxy.files.watch import FileWatch, Ways, obstacles_to, told

TIMEOUT = 90.0  # seconds
NEVER = (0,)  # a mark that no file has: so the first change is told as soon as all is watched


class Seen:
    """What was told. contents: of the files at the last time. end_quiet: the wait for a quiet moment ends, if there is one."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self.end_quiet: Callable[[], object] = int
        self.count = 0
        self.contents: list[bytes | None] = []
        self.lines: list[str] = []
        self.gate = threading.Event()  # while it is not set, the watch is held up
        self.gate.set()
        self._news = threading.Condition()

    def on_change(self) -> None:
        with self._news:
            self.count += 1
            self.contents = [path.read_bytes() if path.exists() else None for path in self.paths]
            self._news.notify_all()
        assert self.gate.wait(TIMEOUT)

    def comes(self, condition: Callable[[], bool], seconds: float = TIMEOUT) -> bool:
        with self._news:
            return self._news.wait_for(condition, seconds)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        assert self.comes(condition), (what, self.count, self.contents)


@pytest.fixture(autouse=True)
def no_help_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found by looking at everything now and then; and an end is waited for."""
    monkeypatch.setattr(file_watch, "ROUND", 10 * TIMEOUT)
    monkeypatch.setattr(file_watch, "END_SECONDS", TIMEOUT)


@contextlib.contextmanager
def watched(*paths: Path, **options: Any) -> Iterator[Seen]:
    """Once every way is watched, and `Seen.count` is 1."""
    before, threads = open_descriptors(), threading.active_count()
    seen = Seen(paths)
    watch = FileWatch(seen.on_change, seen.lines.append, **{"quiet": 0.02, **options})
    seen.end_quiet = watch._wake
    try:
        watch.start({str(path): NEVER for path in paths})
        seen.wait_for(lambda: seen.count == 1, "the beginning")
        yield seen
    finally:
        seen.gate.set()
        watch.close()
    assert not opened_since(before)
    assert threading.active_count() == threads


# Ways in which a file changes. Each is made, and gives the path that is watched and what changes it.

Change = Callable[[], object]


def put(path: Path, data: bytes) -> None:
    path.with_name("fresh").write_bytes(data)
    path.with_name("fresh").replace(path)


def swap(link: Path, target: str) -> None:
    """As `ln -sfn` and the kubelet do it: no moment without a link."""
    link.with_name("fresh-link").symlink_to(target)
    link.with_name("fresh-link").replace(link)


def make(path: Path, data: bytes = b"old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def moved_over(folder: Path) -> tuple[Path, Change]:
    path = make(folder / "file")
    return path, lambda: put(path, b"new")


def written_in_place(folder: Path) -> tuple[Path, Change]:
    path = make(folder / "file")
    return path, lambda: path.write_bytes(b"new")


def written_in_two_halves(folder: Path) -> tuple[Path, Change]:
    path = make(folder / "file")

    def change() -> None:
        path.write_bytes(b"n")
        with path.open("ab") as file:
            file.write(b"ew")

    return path, change


def deleted_and_back(folder: Path) -> tuple[Path, Change]:
    path = make(folder / "file")

    def change() -> None:
        path.unlink()
        path.write_bytes(b"new")

    return path, change


def back_after_a_while(folder: Path) -> tuple[Path, Change]:
    path = make(folder / "file")
    path.unlink()
    return path, lambda: path.write_bytes(b"new")


def into_a_folder_that_comes(folder: Path) -> tuple[Path, Change]:
    return folder / "a" / "b" / "file", lambda: make(folder / "a" / "b" / "file", b"new")


def hard_link(folder: Path) -> tuple[Path, Change]:
    path, other = make(folder / "file"), make(folder / "other", b"new")

    def change() -> None:
        path.unlink()
        os.link(other, path)

    return path, change


def kubernetes(folder: Path) -> tuple[Path, Change]:
    make(folder / "..2026_11_28" / "file")
    (folder / "..data").symlink_to("..2026_11_28")
    (folder / "file").symlink_to("..data/file")

    def change() -> None:
        make(folder / "..2026_11_29" / "file", b"new")
        swap(folder / "..data", "..2026_11_29")
        (folder / "..2026_11_28" / "file").unlink()
        (folder / "..2026_11_28").rmdir()

    return folder / "file", change


def certbot(folder: Path) -> tuple[Path, Change]:
    make(folder / "archive" / "example.com" / "file1")
    live = folder / "live" / "example.com"
    live.mkdir(parents=True)
    (live / "file").symlink_to("../../archive/example.com/file1")

    def change() -> None:
        make(folder / "archive" / "example.com" / "file2", b"new")
        (live / "file").unlink()
        (live / "file").symlink_to("../../archive/example.com/file2")

    return live / "file", change


def what_a_link_leads_to(folder: Path) -> tuple[Path, Change]:
    target = make(folder / "elsewhere" / "deep" / "file")
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to(folder / "elsewhere")
    return folder / "one" / "deep" / "file", lambda: put(target, b"new")


def a_link_to_the_folder(folder: Path) -> tuple[Path, Change]:
    make(folder / "old" / "file")
    make(folder / "new" / "file", b"new")
    (folder / "current").symlink_to("old")
    return folder / "current" / "file", lambda: swap(folder / "current", "new")


def a_link_far_behind(folder: Path) -> tuple[Path, Change]:
    make(folder / "old" / "file")
    make(folder / "new" / "file", b"new")
    (folder / "last").symlink_to("old")
    (folder / "first").mkdir()
    (folder / "first" / "link").symlink_to("../last/../last")
    return folder / "first" / "link" / "file", lambda: swap(folder / "last", "new")


def folder_replaced(folder: Path) -> tuple[Path, Change]:
    path = make(folder / "certs" / "file")
    make(folder / "fresh" / "file", b"new")

    def change() -> None:
        (folder / "certs").rename(folder / "gone")
        (folder / "fresh").rename(folder / "certs")

    return path, change


def folder_far_above_replaced(folder: Path) -> tuple[Path, Change]:
    path = make(folder / "a" / "b" / "c" / "file")
    make(folder / "fresh" / "b" / "c" / "file", b"new")

    def change() -> None:
        (folder / "a").rename(folder / "gone")
        (folder / "fresh").rename(folder / "a")

    return path, change


def file_in_place_of_a_folder(folder: Path) -> tuple[Path, Change]:
    make(folder / "a")

    def change() -> None:
        (folder / "a").unlink()
        make(folder / "a" / "file", b"new")

    return folder / "a" / "file", change


def loop_of_links_opened(folder: Path) -> tuple[Path, Change]:
    make(folder / "real", b"new")
    (folder / "file").symlink_to("loop")
    (folder / "loop").symlink_to("file")
    return folder / "file", lambda: swap(folder / "file", "real")


WAYS = [
    moved_over,
    written_in_place,
    written_in_two_halves,
    deleted_and_back,
    back_after_a_while,
    into_a_folder_that_comes,
    hard_link,
    kubernetes,
    certbot,
    what_a_link_leads_to,
    a_link_to_the_folder,
    a_link_far_behind,
    folder_replaced,
    folder_far_above_replaced,
    file_in_place_of_a_folder,
    loop_of_links_opened,
]
KINDS = [pytest.param({}, id="told", marks=needs_inotify), pytest.param({"polling": True, "interval": 0.02}, id="looked at")]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_change_is_told_and_the_next_one_too(
    tmp_path: Path, way: Callable[[Path], tuple[Path, Change]], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if way is loop_of_links_opened and not options:
        monkeypatch.setattr(file_watch, "INTERVAL", 0.02)
        options = {"interval": 0.02}  # no way can be watched that does not end
    path, change = way(tmp_path)
    with watched(path, **options) as seen:
        change()
        seen.wait_for(lambda: seen.contents == [b"new"], "the change")
        path.write_bytes(b"newer")  # where the way leads by now
        seen.wait_for(lambda: seen.contents == [b"newer"], "the change after it")
        put(Path(os.path.realpath(path)), b"newest")
        seen.wait_for(lambda: seen.contents == [b"newest"], "the last change")


@needs_inotify
def test_relative_paths_are_those_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "deep" / "file")
    (tmp_path / "link").symlink_to("deep")
    with watched(Path("link/../deep/file")) as seen:
        put(tmp_path / "deep" / "file", b"new")
        seen.wait_for(lambda: seen.contents == [b"new"], "the change")


@needs_inotify
def test_who_may_read_it_is_a_change(tmp_path: Path) -> None:
    path = make(tmp_path / "file")
    path.chmod(0o600)
    with watched(path) as seen:
        path.chmod(0o640)
        seen.wait_for(lambda: seen.count == 2, "the change")


@needs_inotify
def test_what_is_of_no_interest_is_not_told(tmp_path: Path) -> None:
    """Thousands of events beside the file and above it; then one that counts."""
    path = make(tmp_path / "secret" / "file")
    with watched(path) as seen:
        for number in range(2000):
            os.mkdir(tmp_path / "secret" / f"other-{number % 7}")
            os.rmdir(tmp_path / "secret" / f"other-{number % 7}")
            (tmp_path / f"above-{number % 7}").touch()
        put(path, b"new")
        seen.wait_for(lambda: seen.contents == [b"new"], "the change")
        assert seen.count == 2


@needs_inotify
def test_thousands_of_changes_are_told_in_a_few_and_the_last_one_is_seen(tmp_path: Path) -> None:
    paths = tuple(make(tmp_path / f"file-{number}") for number in range(10))
    fresh = tmp_path / "fresh"
    with watched(*paths, quiet=0.2) as seen:
        start = time.monotonic()
        for number in range(2000):
            fresh.write_bytes(b"%d" % number)
            fresh.replace(paths[number % 10])
        seen.wait_for(lambda: seen.contents == [b"%d" % number for number in range(1990, 2000)], "the last state")
        assert seen.count <= (time.monotonic() - start) / 0.2 + 2


@needs_inotify
def test_files_that_change_together_are_told_together(tmp_path: Path) -> None:
    certificate, key = make(tmp_path / "certificate"), make(tmp_path / "key")
    with watched(certificate, key, quiet=TIMEOUT) as seen:
        put(certificate, b"new")
        assert not seen.comes(lambda: seen.count > 1, 0.05)
        put(key, b"new")
        while not seen.comes(lambda: seen.count > 1, 0.01):
            seen.end_quiet()
        assert (seen.count, seen.contents) == (2, [b"new", b"new"])


@needs_inotify
def test_a_change_while_another_one_is_followed_is_told_after_it(tmp_path: Path) -> None:
    path = make(tmp_path / "file")
    with watched(path) as seen:
        seen.gate.clear()
        put(path, b"new")
        seen.wait_for(lambda: seen.contents == [b"new"], "the first change")
        put(path, b"newer")  # nobody waits for events at this moment
        seen.gate.set()
        seen.wait_for(lambda: seen.contents == [b"newer"], "the second change")


@needs_inotify
def test_events_that_were_lost_are_made_up_for(tmp_path: Path) -> None:
    """The kernel queues so many, and drops the others."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 100_000:
        pytest.skip("the queue of events is longer here")
    path = make(tmp_path / "file")
    with watched(path) as seen:
        seen.gate.clear()
        put(path, b"new")
        seen.wait_for(lambda: seen.contents == [b"new"], "the first change")
        names = [tmp_path / "a", tmp_path / "b"]
        for name in names:
            name.touch()
        for number in range(most + 2):  # the same event twice in a row would be one
            os.utime(names[number % 2])
        put(path, b"newer")
        seen.gate.set()
        seen.wait_for(lambda: seen.contents == [b"newer"], "the change of which the event was lost")


def test_what_changed_before_it_was_watched_is_told(tmp_path: Path) -> None:
    path = make(tmp_path / "file")
    mark = file_watch.mark_at(str(path))
    put(path, b"new")
    seen = Seen((path,))
    watch = FileWatch(seen.on_change, seen.lines.append)
    try:
        watch.start({str(path): mark})
        seen.wait_for(lambda: seen.contents == [b"new"], "the change")
    finally:
        watch.close()


@pytest.mark.parametrize("options", KINDS)
def test_other_files_can_be_watched_from_now_on(tmp_path: Path, options: dict[str, Any]) -> None:
    one, other = make(tmp_path / "a" / "one"), make(tmp_path / "b" / "other")
    seen = Seen((one, other))
    watch = FileWatch(seen.on_change, seen.lines.append, **{"quiet": 0.02, **options})
    try:
        watch.start({str(one): NEVER})
        seen.wait_for(lambda: seen.count == 1, "the beginning")
        watch.follow({str(other): NEVER})
        seen.wait_for(lambda: seen.count == 2, "the other beginning")
        put(one, b"nobody looks")
        put(other, b"new")
        seen.wait_for(lambda: seen.contents == [b"nobody looks", b"new"], "the change")
        assert seen.count == 3
    finally:
        watch.close()


# Where the kernel tells nothing


def refuse(number: int, after: int = 0) -> Callable[..., int]:
    """A `FolderWatch.add` that fails when it has been called so often."""
    calls = iter(range(10**9))

    class Refusing:
        def __init__(self) -> None:
            self._real = FolderWatch()
            self.fileno, self.close, self.read, self.remove = (
                self._real.fileno, self._real.close, self._real.read, self._real.remove,
            )  # fmt: skip

        def add(self, path: str, contents: bool = False) -> int:
            if next(calls) >= after:
                raise OSError(number, os.strerror(number))
            return self._real.add(path, contents)

    return Refusing  # type: ignore[return-value]


@needs_inotify
@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("number", [28, 13], ids=["ENOSPC", "EACCES"])
def test_where_no_watch_is_to_be_had_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, after: int
) -> None:
    monkeypatch.setattr(file_watch, "FolderWatch", refuse(number, after))
    path = make(tmp_path / "file")
    with watched(path, interval=0.02) as seen:
        put(path, b"new")
        seen.wait_for(lambda: seen.contents == [b"new"], "the change")
        put(path, b"newer")
        seen.wait_for(lambda: seen.contents == [b"newer"], "the next change")
        (line,) = seen.lines  # once
    assert line.startswith(f"{path} is looked at every 2 s for changes: ")
    assert ("max_user_watches" if number == 28 else "Permission denied") in line


def test_without_inotify_files_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> FolderWatch:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(file_watch, "FolderWatch", none)
    paths = [make(tmp_path / name) for name in ("one", "two")]
    with watched(*paths, interval=0.02) as seen:
        put(paths[1], b"new")
        seen.wait_for(lambda: seen.contents == [b"old", b"new"], "the change")
        (line,) = seen.lines
    assert line.startswith(f"{paths[0]} and 1 more are looked at") and "max_user_instances" in line
    assert list(obstacles_to([str(paths[0])])) == [str(paths[0])]


@needs_inotify
def test_on_a_network_file_system_files_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if only a link on the way lies there."""
    make(tmp_path / "here" / "file")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "link").symlink_to("../here")
    monkeypatch.setattr(file_watch, "is_remote", lambda folder: folder.endswith("/net"))
    assert obstacles_to([str(tmp_path / "here" / "file")]) == {}
    path = str(tmp_path / "net" / "link" / "file")
    assert obstacles_to([path]) == {path: "it is on a network file system"}
    assert told({path: "it is slow"}) == [f"{path} is looked at every 2 s for changes: it is slow"]


@needs_inotify
@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    path = make(tmp_path / "closed" / "file")
    (tmp_path / "closed").chmod(0o100)
    try:
        assert "Permission denied" in obstacles_to([str(path)])[str(path)]
    finally:
        (tmp_path / "closed").chmod(0o700)


# Pieces


def test_the_way_to_a_file_has_every_folder_and_link(tmp_path: Path) -> None:
    path, _ = kubernetes(tmp_path)
    here = str(tmp_path)
    steps = [(step.folder, step.name) for step in way_to(str(path))]
    assert steps[-4:] == [(here, "file"), (here, "..data"), (here, "..2026_11_28"), (f"{here}/..2026_11_28", "file")]
    assert steps[0][0] == "/"
    missing = list(way_to(str(tmp_path / "none" / "file")))[-1]
    assert (missing.folder, missing.name, missing.status) == (here, "none", None)


@needs_inotify
def test_folders_that_are_on_no_way_any_more_are_not_watched(tmp_path: Path) -> None:
    path, _ = kubernetes(tmp_path)
    ways = Ways()
    try:
        assert ways.update([str(path)]) == {}
        count = watches_of(ways)
        make(tmp_path / "..2026_11_29" / "file")
        swap(tmp_path / "..data", "..2026_11_29")
        assert ways.happened()
        assert ways.update([str(path)]) == {}
        assert watches_of(ways) == count
        assert ways.update([]) == {} and watches_of(ways) == 0
        make(tmp_path / "..2026_11_29" / "file")
        assert not ways.happened()
    finally:
        ways.close()


def watches_of(ways: Ways) -> int:
    """As the kernel counts them: proc_pid_fdinfo(5)."""
    return Path(f"/proc/self/fdinfo/{ways.fileno()}").read_text().count("inotify wd:")


@needs_inotify
def test_a_folder_watch_tells_what_it_is_asked_for(tmp_path: Path) -> None:
    watch = FolderWatch()
    try:
        plain, whole = tmp_path / "plain", tmp_path / "whole"
        make(plain / "file")
        make(whole / "file")
        numbers = {watch.add(str(plain)): "plain", watch.add(os.fsencode(whole), contents=True): "whole"}
        assert watch.read() == []
        for folder in (plain, whole):
            (folder / "file").write_bytes(b"new")
            (folder / os.fsdecode(b"\xff")).touch()
        found = {(numbers[number], name) for number, name in watch.read()}
        strange = os.fsdecode(b"\xff")
        assert found == {("whole", "file"), ("plain", strange), ("whole", strange)}
        assert watch.add(str(tmp_path / "plain" / ".." / "plain")) in numbers
        with pytest.raises(NotADirectoryError):
            watch.add(str(plain / "file"))
        with pytest.raises(FileNotFoundError):
            watch.add(str(tmp_path / "none"))
        for number in numbers:
            watch.remove(number)
            watch.remove(number)
        watch.read()
        (plain / "other").touch()
        assert watch.read() == []
        assert is_remote(str(tmp_path)) in (True, False)
        with pytest.raises(FileNotFoundError):
            is_remote(str(tmp_path / "none"))
    finally:
        watch.close()
        watch.close()
    assert watch.fileno() == -1
    with pytest.raises(OSError):
        watch.read()
