"""The fleet's Redis as the storage of ACME (`acme.storage`): the account, certificates with their keys, questions under way.

Each value is sealed with a key that is made of the fleet's secret (AES-256-GCM, the name is part of what is sealed), so Redis
sees none of them. One lock is for all: a token that runs out by itself, is prolonged by its owner while he works, and removed
by nobody else. Every write goes through only if the lock is still the writer's at that moment, so one that has slept
overwrites nothing.

The answers to questions are asked for in handshakes, which must not wait for Redis. A thread keeps a copy of them, and who
publishes one waits until all members have had the time to see it.
"""

from __future__ import annotations

import hmac
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Callable, Optional, TypeVar

from .keys import expand
from .member import Access, client_of, import_redis

__all__ = ["RedisStorage"]

COPY_SECONDS = 0.5  # from one look at the questions to the next
SEEN_SECONDS = 3 * COPY_SECONDS  # after which every member has a new one that can
LOCK_SECONDS = 30.0  # until the lock of a member that has stopped runs out
PROLONGED = LOCK_SECONDS / 3
MOST_TRIES = 8
NONCE = 12  # bytes
QUESTIONS = "challenges"  # a part of the names of answers

Made = TypeVar("Made")


class RedisStorage:
    """access: with a secret. ValueError without one."""

    def __init__(self, access: Access) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # comes with the package acme

        if not access.secret:
            raise ValueError("the fleet has no secret, so its Redis would hold private keys as they are")
        self._redis = import_redis()
        self._access = access
        self._client = client_of(access)
        self._prefix = f"{access.fleet.name}:acme"
        self._sealing = AESGCM(expand(hmac.digest(b"", access.secret, "sha256"), b"sslsock storage", 32))
        self._token = b""
        self._copy: dict[bytes, bytes] = {}
        self._following: Optional[threading.Thread] = None

    def start(self) -> None:
        """Keep a copy of the questions from now on."""
        if self._following is None:
            self._following = threading.Thread(target=self._follow, name="fleet-questions", daemon=True)
            self._following.start()

    def log_in(self, access: Access) -> None:
        """By this from now on; its secret is the same."""
        if access != self._access:
            self._access, self._client = access, client_of(access)

    def read(self, name: str) -> Optional[bytes]:
        """Of an answer: the copy."""
        if is_question(name):
            sealed: Optional[bytes] = self._copy.get(name.encode())
        else:
            sealed = self._do(lambda: self._client.hget(self._prefix, name))
        return None if sealed is None else self._open(name, sealed)

    def write(self, name: str, data: bytes) -> None:
        nonce = os.urandom(NONCE)
        sealed = nonce + self._sealing.encrypt(nonce, data, name.encode())
        self._change(lambda pipe: pipe.hset(self._place(name), name, sealed))
        if is_question(name):
            time.sleep(SEEN_SECONDS)

    def remove(self, name: str) -> None:
        self._change(lambda pipe: pipe.hdel(self._place(name), name))

    @contextmanager
    def lock(self) -> Iterator[bool]:
        token, milliseconds = os.urandom(16).hex().encode(), int(LOCK_SECONDS * 1000)
        if not self._do(lambda: self._client.set(f"{self._prefix}:lock", token, nx=True, px=milliseconds)):
            yield False
            return
        self._token = token
        done = threading.Event()
        keeper = threading.Thread(target=self._prolong, args=(token, done), name="fleet-lock", daemon=True)
        keeper.start()
        try:
            yield True
        finally:
            done.set()
            keeper.join()
            with suppress(OSError):  # it runs out then
                self._change(lambda pipe: pipe.delete(f"{self._prefix}:lock"))
            self._token = b""

    def _prolong(self, token: bytes, done: threading.Event) -> None:
        while not done.wait(PROLONGED):
            with suppress(OSError):  # what is written then tells it
                self._change(lambda pipe: pipe.pexpire(f"{self._prefix}:lock", int(LOCK_SECONDS * 1000)), token)

    def _follow(self) -> None:
        while True:
            with suppress(OSError):
                self._copy = self._do(lambda: self._client.hgetall(f"{self._prefix}:{QUESTIONS}"))
            time.sleep(COPY_SECONDS)

    def _place(self, name: str) -> str:
        return f"{self._prefix}:{QUESTIONS}" if is_question(name) else self._prefix

    def _open(self, name: str, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._sealing.decrypt(sealed[:NONCE], sealed[NONCE:], name.encode()))
        except (InvalidTag, ValueError):
            raise OSError(0, f"what {self._prefix} holds was sealed with another secret, or has been changed") from None

    def _change(self, change: Callable[[Any], object], token: Optional[bytes] = None) -> None:
        """One change, if the lock is ours at that very moment."""
        token = self._token if token is None else token
        self._do(lambda: self._change_once(change, token))

    def _change_once(self, change: Callable[[Any], object], token: bytes) -> None:
        lock = f"{self._prefix}:lock"
        with self._client.pipeline() as pipe:
            for _ in range(MOST_TRIES):
                pipe.watch(lock)
                if not token or pipe.get(lock) != token:
                    raise OSError(0, "the lock of the storage is not held any more")
                pipe.multi()
                change(pipe)
                with suppress(self._redis.WatchError):  # it was prolonged meanwhile, for one
                    pipe.execute()
                    return
        raise OSError(0, "the lock of the storage changes all the time")

    def _do(self, ask: Callable[[], Made]) -> Made:
        """OSError for whatever Redis or the way to it has."""
        try:
            return ask()
        except self._redis.RedisError as exc:
            raise OSError(0, f"the fleet's Redis: {exc}") from None


def is_question(name: str) -> bool:
    return QUESTIONS in name.split("/")[:-1]
