"""The fleet's Redis as the storage of ACME: one lock, sealed values, answers that nobody waits for."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from sslsock.__main__ import make_parser
from sslsock.proxy.check import check_files
from sslsock.proxy.files.reading import Reading
from sslsock.proxy.fleet import storage as fleet_storage
from sslsock.proxy.fleet.member import access_to
from sslsock.proxy.settings.model import Address, Fleet, SettingsError
from sslsock.proxy.settings.options import make_settings

from .authority import Authority, authority
from .operations import Origin, proxy, wait_until
from .redis_server import RedisServer
from .test_acme import NAME, NEW, OTHER, can_be_reached, challenged, obtaining, serves

pytest.importorskip("cryptography")

in_full = pytest.mark.skipif(not os.environ.get("SSLSOCK_FULL"), reason="it takes its time; SSLSOCK_FULL=1 runs it")
NOWHERE = "https://127.0.0.1:1/directory"  # of an authority that is not there
ANSWER = "part/challenges/a.json"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def storage_at(
    store: RedisServer, secret: bytes = b"s" * 40, password: Optional[str] = None
) -> fleet_storage.RedisStorage:
    file = store.socket.parent / f"secret-{secret[:1].decode()}"
    file.write_bytes(secret)
    fleet = Fleet(Address("tcp", "", 0, str(store.socket)), secret_file=str(file), password=password)
    return fleet_storage.RedisStorage(access_to(fleet, Reading()))


def test_values_are_sealed(store: RedisServer) -> None:
    one, other, stranger = storage_at(store), storage_at(store), storage_at(store, b"x" * 40)
    with one.lock() as ours:
        assert ours
        one.write("part/certificates/a.pem", b"a private key")
        one.write("part/account.json", b"")
        one.write("part/account.json", b"new")
    assert other.read("part/certificates/a.pem") == b"a private key" and other.read("part/account.json") == b"new"
    assert other.read("part/other") is None
    with pytest.raises(OSError, match="another secret"):
        stranger.read("part/account.json")
    with store.client() as client:
        (sealed, *_) = client.hmget("sslsock:acme", "part/certificates/a.pem")
        assert sealed is not None and b"private" not in sealed and client.ttl("sslsock:acme") == -1
        client.hset("sslsock:acme", "part/account.json", sealed)
        with pytest.raises(OSError, match="or has been changed"):  # one value in the place of another
            other.read("part/account.json")
    with other.lock():
        other.remove("part/account.json")
        other.remove("part/account.json")
    assert one.read("part/account.json") is None


def put_question(store: RedisServer, password: str, name: str) -> None:
    """As a member of the fleet does that has `name` looked at by an authority."""
    storage = storage_at(store, password=password)
    question = {"type": "tls-alpn-01", "token": "t", "answer": "t.key"}

    def put() -> bool:
        with storage.lock() as ours:
            if ours:
                storage.write(f"127.0.0.1-1-directory/challenges/{name}.json", json.dumps(question).encode())
            return ours

    wait_until(put, "that no other member holds the lock")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--threads", 2), ("--processes", 2)], ids=["threads", "processes"])
def test_a_password_that_has_changed_is_read_by_a_reload(back: Origin, tmp_path: Path, words: tuple[object, ...]) -> None:
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(RedisServer(tmp_path, "--requirepass", "old"))
        put_question(store, "old", NAME)
        password, secret = tmp_path / "password", tmp_path / "secret-s"
        password.touch(0o600)
        password.write_text("old")
        secret.chmod(0o600)
        acme = ("--acme", NAME, OTHER, "--acme-terms-agreed", "--acme-storage", "fleet", "--acme-directory", NOWHERE)
        fleet = ("--fleet", store.url, "--fleet-password-file", password, "--fleet-secret-file", secret)
        made = stack.enter_context(proxy("--listen", "tls://127.0.0.1:0", "--to", back.url, *words, *acme, *fleet))
        wait_until(lambda: challenged(made.port, NAME, "acme-tls/1") == "acme-tls/1", "that the answer is known")
        with store.client(password="old") as client:
            client.config_set("requirepass", "new")
            client.client_kill_filter(_type="normal", skipme=True)
        password.write_text("new")
        made.reload()
        put_question(store, "new", OTHER)
        wait_until(lambda: challenged(made.port, OTHER, "acme-tls/1") == "acme-tls/1", "that the answer is known")
        wait_until(
            lambda: [challenged(made.port, OTHER, "acme-tls/1") for _ in range(8)] == ["acme-tls/1"] * 8, "that all know it"
        )
        assert made.end() == 0


def test_without_a_secret_there_is_no_storage(store: RedisServer) -> None:
    fleet = Fleet(Address("tcp", "", 0, str(store.socket)))
    with pytest.raises(ValueError, match="no secret"):
        fleet_storage.RedisStorage(access_to(fleet, Reading()))


def test_one_holds_the_lock(store: RedisServer) -> None:
    one, other = storage_at(store), storage_at(store)
    with one.lock() as first, other.lock() as second:
        assert (first, second) == (True, False)
        with pytest.raises(OSError, match="not held"):
            other.write("a/b", b"1")
    with other.lock() as free:
        assert free
    with pytest.raises(OSError, match="not held"), one.lock():
        raise_after_loss(one, other, store)
    with store.client() as client:
        assert client.get("sslsock:acme:lock") == b"of another", "nobody but its owner removes it"


def raise_after_loss(one: fleet_storage.RedisStorage, other: fleet_storage.RedisStorage, store: RedisServer) -> None:
    """It slept until its lock had run out, and another works."""
    with store.client() as client:
        client.set("sslsock:acme:lock", "of another")
    one.write("a/b", b"late")


def test_a_lock_is_prolonged_while_its_owner_works_and_runs_out_when_he_has_died(
    store: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_storage, "PROLONGED", 0.02)
    one, other = storage_at(store), storage_at(store)
    with store.client() as client:
        with one.lock():
            client.pexpire("sslsock:acme:lock", 5000)
            wait_until(lambda: client.pttl("sslsock:acme:lock") > 20_000, "that the lock is prolonged")
            one.write("a/b", b"1")
        assert client.get("sslsock:acme:lock") is None
        client.set("sslsock:acme:lock", "of one that has died", px=50)

    def free() -> bool:
        with other.lock() as ours:
            return ours

    wait_until(free, "the end of the lock")


def test_answers_come_to_all_and_nobody_waits_for_redis(store: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_storage, "SEEN_SECONDS", 0.0)
    monkeypatch.setattr(fleet_storage, "COPY_SECONDS", 0.02)
    one, other = storage_at(store), storage_at(store)
    for storage in (one, other):
        storage.start()
    with one.lock():
        one.write(ANSWER, b"answer")
        wait_until(lambda: one.read(ANSWER) == other.read(ANSWER) == b"answer", "the answer at both")
        one.write("part/certificates/challenges", b"x")  # a name like that
        assert other.read("part/certificates/challenges") == b"x"
        store.kill()
        assert other.read(ANSWER) == b"answer"
        with pytest.raises(OSError, match="the fleet's Redis: "):
            other.read("part/account.json")
        with pytest.raises(OSError, match="the fleet's Redis: "):
            one.remove(ANSWER)
    store.start()
    wait_until(lambda: other.read(ANSWER) is None, "that it is gone")


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with authority(tmp_path_factory.mktemp("pebble")) as running:
        yield running


@in_full
def test_two_proxies_obtain_one_certificate_and_keep_it_in_redis(
    pebble: Authority, store: RedisServer, back: Origin, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 40)
    secret.chmod(0o600)
    fleet = ("--fleet", store.url, "--fleet-secret-file", secret)
    with obtaining(pebble, Path("fleet"), back, NAME, options=fleet) as one:
        with obtaining(pebble, Path("fleet"), back, NAME, options=fleet) as other:
            wait_until(lambda: can_be_reached(one, pebble, NAME) and can_be_reached(other, pebble, NAME), "that both have it")
            assert serves(one, pebble, NAME) == serves(other, pebble, NAME)
            assert sum(NEW in line for line in one.messages + other.messages) == 1
        store.kill()
        with obtaining(pebble, Path("fleet"), back, NAME, options=fleet) as late:
            late.wait_for_message("certificates are not there yet: the fleet's Redis: ")
            assert can_be_reached(one, pebble, NAME), "what is in force stays"


@pytest.mark.parametrize("more", [(), ("--fleet", "redis://localhost")])
def test_it_needs_a_secret(tmp_path: Path, more: tuple[str, ...]) -> None:
    options = ("--listen", "tls://127.0.0.1:0", "--to", "tcp://127.0.0.1:9", "--acme", "a.test", "--acme-terms-agreed")
    settings = make_settings(make_parser().parse_args(["proxy", *options, "--acme-storage", "fleet", *more]))
    assert settings.acme is not None and settings.acme.in_fleet
    with pytest.raises(SettingsError, match="keeps private keys only with --fleet and --fleet-secret-file"):
        check_files(settings, lambda text: None)
    there = make_settings(make_parser().parse_args(["proxy", *options, "--acme-storage", f"{tmp_path}/fleet"]))
    assert there.acme is not None and not there.acme.in_fleet
