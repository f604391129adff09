"""What becomes of changed files: which are taken, which wait, and what the operator is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import trustme

from sslsock.__main__ import make_parser
from sslsock.core.ticket_keys import TicketKeys
from sslsock.proxy.check import check_files
from sslsock.proxy.files.reading import Reading, Unit
from sslsock.proxy.policy import ListenerPolicy
from sslsock.proxy.renewal import FileStates, Renewed, renew
from sslsock.proxy.settings.options import make_settings

AUTHORITY = trustme.CA()


class Running:
    """The files of a proxy, and what is in force of them."""

    def __init__(self, *arguments: object) -> None:
        words = ["proxy", "--listen", "tls://:1", "--to", "tcp://a:1", *map(str, arguments)]
        self.settings = make_settings(make_parser().parse_args(words))
        self.reading = Reading()
        self.keys = TicketKeys()
        self.warnings: list[str] = []
        check_files(self.settings, self.warnings.append, self.reading)
        self.policies = [ListenerPolicy(listener, self.keys, None, self.reading) for listener in self.settings.listeners]
        self.reading.forget()

    def renew(self) -> Renewed:
        renewed = renew(self.settings, self.policies, self.keys, self.reading)
        self.policies, self.reading = renewed.policies, renewed.reading
        assert not self.reading._known, "keys stay in memory"
        return renewed

    def names(self) -> list[str]:
        """The common names of the certificates in force."""
        store = self.policies[0].store
        assert store is not None
        return [pair[0].subject["CN"][0] for identity in store.identities for pair in identity.pairs]


def issue(path: Path, *names: str, common_name: str, key: Path | None = None, **options: Any) -> Path:
    issued = AUTHORITY.issue_cert(*names, common_name=common_name, **options)
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    if key is None:
        path.write_bytes(issued.private_key_pem.bytes() + chain)
    else:
        path.write_bytes(chain)
        key.write_bytes(issued.private_key_pem.bytes())
        key.chmod(0o600)
    path.chmod(0o600)
    return path


def pair_of(*paths: Path) -> Unit:
    return Unit("pair", tuple(map(str, paths)))


def test_what_has_not_changed_is_neither_made_again_nor_told(tmp_path: Path) -> None:
    path = issue(tmp_path / "a.pem", "a", common_name="A")
    running = Running("--cert", path)
    before = running.policies
    path.write_bytes(path.read_bytes())
    os.utime(path, (1, 1))
    renewed = running.renew()
    assert (renewed.changed, renewed.problems, renewed.warnings) == ((), {}, ())
    assert running.policies == before
    assert running.reading.loaded().keys() == {pair_of(path)}


def test_each_pair_is_judged_by_itself(tmp_path: Path) -> None:
    files = [(tmp_path / f"{name}.pem", tmp_path / f"{name}.key") for name in "abcd"]
    for (cert, key), name in zip(files, "abcd"):
        issue(cert, name, common_name=f"old {name}", key=key)
    running = Running(*(word for cert, key in files for word in ("--cert", cert, "--key", key)))
    issue(files[0][0], "a", common_name="new a", key=tmp_path / "elsewhere.key")  # its key is not there yet
    issue(*files[1][:1], "b", common_name="new b", key=files[1][1])
    files[2][1].unlink()
    renewed = running.renew()
    assert renewed.changed == (pair_of(*files[1]),)
    assert running.names() == ["old a", "new b", "old c", "old d"]
    assert set(renewed.problems) == {pair_of(*files[0]), pair_of(*files[2])}
    assert renewed.problems[pair_of(*files[0])].startswith("--key: ")
    assert renewed.problems[pair_of(*files[2])] == f"--key: {files[2][1]}: No such file or directory"

    (tmp_path / "elsewhere.key").replace(files[0][1])
    renewed = running.renew()
    assert renewed.changed == (pair_of(*files[0]),)
    assert set(renewed.problems) == {pair_of(*files[2])}
    assert running.names() == ["new a", "new b", "old c", "old d"]


def test_certificates_that_are_good_but_not_together(tmp_path: Path) -> None:
    """Two for the same names: the first one is taken, and the third with it."""
    one, two, three = (issue(tmp_path / f"{name}.pem", name, common_name=f"old {name}") for name in "abc")
    running = Running("--cert", one, "--cert", two, "--cert", three)
    issue(one, "same", common_name="new a")
    issue(two, "same", common_name="new b")
    issue(three, "c", common_name="new c")
    renewed = running.renew()
    assert renewed.changed == (pair_of(one), pair_of(three))
    assert list(renewed.problems) == [pair_of(two)]
    assert "it is for the same names" in renewed.problems[pair_of(two)]
    assert running.names() == ["new a", "old b", "new c"]
    issue(two, "b", common_name="newer b")
    assert running.renew().problems == {}
    assert running.names() == ["new a", "newer b", "new c"]


def test_two_certificates_that_change_their_places(tmp_path: Path) -> None:
    """One after the other would not do."""
    one, two = (issue(tmp_path / f"{name}.pem", name, common_name=name) for name in "ab")
    running = Running("--cert", one, "--cert", two)
    old = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(old)
    renewed = running.renew()
    assert len(renewed.changed) == 2 and not renewed.problems
    assert running.names() == ["b", "a"]


def test_nothing_is_taken_when_nothing_is_good_together(tmp_path: Path) -> None:
    one, two = (issue(tmp_path / f"{name}.pem", name, common_name=name) for name in "ab")
    running = Running("--cert", one, "--cert", two)
    issue(two, "a", common_name="another a")
    before = running.policies
    renewed = running.renew()
    assert not renewed.changed and list(renewed.problems) == [pair_of(two)]
    assert running.policies == before
    issue(two, "b", common_name="b again")
    assert running.renew().changed == (pair_of(two),)


def test_a_file_that_two_pairs_share(tmp_path: Path) -> None:
    """A key of two certificates: it comes with one of them, so the other waits."""
    key = tmp_path / "shared.key"
    one = issue(tmp_path / "a.pem", "a", common_name="A", key=key)
    issued = trustme.CA().issue_cert("b", common_name="B", key_type=trustme.KeyType.ECDSA)
    two, own = tmp_path / "b.pem", tmp_path / "own.key"
    two.write_bytes(issued.cert_chain_pems[0].bytes())
    own.write_bytes(issued.private_key_pem.bytes())
    running = Running("--cert", one, "--key", key, "--cert", two, "--key", own, "--client-ca", one)
    issue(one, "a", common_name="A2", key=key)
    renewed = running.renew()
    assert set(renewed.changed) == {pair_of(one, key), Unit("certificates", (str(one),))}  # the file has both parts
    assert running.names() == ["A2", "B"]


def test_what_is_no_file_any_more_is_left_to_sighup(tmp_path: Path) -> None:
    """Somebody may have put a pipe there for it, which tells what it holds only once."""
    path = issue(tmp_path / "a.pem", "a", common_name="A")
    running = Running("--cert", path)
    path.unlink()
    os.mkfifo(path)
    assert running.renew().problems == {pair_of(path): f"--cert: {path}: it is no regular file, which SIGHUP alone reads"}
    path.unlink()
    path.mkdir()
    assert list(running.renew().problems) == [pair_of(path)]
    path.rmdir()
    issue(path, "a", common_name="A2")
    assert running.renew().changed == (pair_of(path),)


def test_what_was_a_pipe_is_not_watched(tmp_path: Path) -> None:
    path, other = issue(tmp_path / "a.pem", "a", common_name="A"), issue(tmp_path / "b.pem", "b", common_name="B")
    read_end, write_end = os.pipe()
    with open(read_end, "rb"):
        with open(write_end, "wb") as pipe:
            pipe.write(path.read_bytes())
        running = Running("--cert", f"/dev/fd/{read_end}", "--cert", other)
        assert running.reading.marks().keys() == {str(other)}
        issue(other, "b", common_name="B2")
        renewed = running.renew()
        assert renewed.changed == (pair_of(other),) and not renewed.problems
        assert running.names() == ["A", "B2"]


def test_warnings_are_of_what_is_new(tmp_path: Path) -> None:
    one, two = (issue(tmp_path / f"{name}.pem", name, common_name=name) for name in "ab")
    one.chmod(0o604)
    running = Running("--cert", one, "--cert", two)
    assert len(running.warnings) == 1
    issue(two, "b", common_name="b2")
    assert running.renew().warnings == ()
    issue(two, "b", common_name="b3").chmod(0o606)
    (line,) = running.renew().warnings
    assert line.startswith(f"warning: --cert: {two}: others than its owner")


# What the operator is told

ONE, TWO = pair_of(Path("/one")), pair_of(Path("/two"), Path("/two.key"))


def noted(states: FileStates, now: float, *changed: Unit, **problems: str) -> list[str]:
    units = {"one": ONE, "two": TWO}
    renewed = Renewed([], Reading(), changed, {units[name]: text for name, text in problems.items()})
    return [f"{level}: {line}" for line, level in states.note(renewed, now)]


def test_a_change_is_told_at_once_and_a_bad_one_when_it_stays_bad() -> None:
    states = FileStates(patience=10.0)
    assert noted(states, 0.0, ONE) == ["info: /one: read again after a change; new connections go by it"]
    assert states.next_look(0.0) is None
    assert noted(states, 1.0, two="half") == []
    assert states.next_look(1.0) == 10.0 and states.refused_files() == set()
    assert noted(states, 4.0, two="not much better") == []
    assert states.next_look(4.0) == 7.0
    assert noted(states, 11.0, two="bad") == ["error: /two and /two.key: changed, but what it was stays in force: bad"]
    assert states.next_look(11.0) is None and states.refused_files() == {"/two", "/two.key"}
    assert noted(states, 30.0, two="bad") == [] and states.next_look(30.0) is None
    assert (states.taken, states.refused) == (1, 1)


def test_another_mistake_is_told_too_after_its_time() -> None:
    states = FileStates(patience=10.0)
    noted(states, 0.0, one="first")
    assert len(noted(states, 10.0, one="first")) == 1
    assert noted(states, 20.0, one="second") == []
    assert states.next_look(20.0) == 10.0
    assert noted(states, 30.0, one="second") == ["error: /one: changed, but what it was stays in force: second"]


def test_what_is_good_again_is_told_if_it_was_told_to_be_bad() -> None:
    states = FileStates(patience=10.0)
    noted(states, 0.0, one="bad")
    assert noted(states, 5.0) == [] and states.next_look(5.0) is None
    noted(states, 6.0, one="bad", two="bad")
    noted(states, 16.0, one="bad", two="bad")
    assert noted(states, 17.0, TWO) == [
        "info: /two and /two.key: read again after a change; new connections go by it",
        "info: /one: as it was when it was read last",
    ]
    assert states.refused_files() == set()


def test_a_reload_settles_everything() -> None:
    states = FileStates(patience=10.0)
    noted(states, 0.0, one="bad")
    noted(states, 10.0, one="bad")
    states.all_good()
    assert states.refused_files() == set() and states.next_look(10.0) is None
    assert noted(states, 11.0) == []


def test_without_patience_it_is_told_at_once() -> None:
    assert len(noted(FileStates(0.0), 0.0, one="bad")) == 1
