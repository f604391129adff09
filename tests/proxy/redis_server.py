"""A Redis server of Debian's, on a UNIX socket or with TLS on a port; it keeps nothing when it is killed."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from interop.programs import free_port, program

from .operations import DEADLINE, wait_until

__all__ = ["RedisServer"]


class RedisServer:
    """folder: of its files. pair: certificate and key, for TLS. options: further ones of redis-server. url: for --fleet."""

    def __init__(self, folder: Path, *options: str, pair: Optional[Path] = None) -> None:
        self._folder = folder
        self.socket = folder / "redis.sock"
        self.port = free_port() if pair is not None else 0
        files = [word for kind in ("cert", "key", "ca-cert") for word in (f"--tls-{kind}-file", pair)]
        self._words = [
            *(program("redis-server", "redis-server"), "--port", "0", "--unixsocket", self.socket, "--save", ""),
            *("--dir", folder, "--appendonly", "no", *options),
            *(["--tls-port", self.port, *files, "--tls-auth-clients", "no"] if pair is not None else []),
        ]
        self._process: Optional[subprocess.Popen[bytes]] = None
        self.start()

    @property
    def url(self) -> str:
        return f"rediss://sslsock@localhost:{self.port}/0" if self.port else f"unix:{self.socket}"

    def client(self, **options: Any) -> redis.Redis:
        retry = Retry(NoBackoff(), 0)  # who waits for the server asks again himself, and at once
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=DEADLINE, retry=retry, **options)

    def start(self) -> None:
        self._process = subprocess.Popen([str(word) for word in self._words], stdout=subprocess.DEVNULL)
        wait_until(self._answers, "redis-server")

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, "redis-server has ended; what it said is above"
        with contextlib.suppress(redis.ConnectionError), self.client() as client:
            with contextlib.suppress(redis.AuthenticationError):
                client.ping()
            return True
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._process = None

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.kill()
