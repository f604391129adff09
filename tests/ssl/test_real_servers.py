"""Libraries of other people with `sslsock.ssl` below them, and the servers that they are for: each program `real_*.py` of
`libraries/` with the interpreter's `ssl` and with ours. What comes of it must be the same.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_libraries import ALL, INSTALLED, compare, need, run

from interop import dovecot, postfix, servers
from interop.pki import Pki

# Program, the modules that it needs, the ways to switch.
REAL = {
    "real_nginx": (["aiohttp", "httpx", "requests", "tornado", "urllib3"], ALL),
    "real_redis": (["redis"], INSTALLED),
    "real_mosquitto": (["paho"], ALL),
    "real_slapd": (["ldap3"], INSTALLED),
    "real_postgresql": (["asyncpg", "uvloop"], ALL),
    "real_mariadb": (["pymysql"], ALL),
    "real_mail": ([], ALL),
    "real_vsftpd": ([], ALL),
}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@contextlib.contextmanager
def mail(pki: Pki) -> Iterator[list[int]]:
    with postfix.running(pki) as smtp, dovecot.running(pki, pop3=True) as boxes:
        yield [*smtp[:3], *boxes[:4]]


@contextlib.contextmanager
def two_vsftpd(pki: Pki) -> Iterator[list[int]]:
    with servers.vsftpd(pki, reuse=False) as lenient, servers.vsftpd(pki, reuse=True) as strict:
        yield [*lenient, *strict]


SERVERS = {"real_mail": mail, "real_vsftpd": two_vsftpd}


class Peers:
    """The servers, each started when the first test asks for it; what each program comes to with the interpreter's `ssl`."""

    def __init__(self, pki: Pki, stack: contextlib.ExitStack) -> None:
        chain, key = pki.files(pki.client)
        self.ca_file, self.client_file = Path(pki.root_file), pki.folder / "client.pem"
        self.client_file.write_text(Path(chain).read_text() + Path(key).read_text())
        self.pki, self.stack = pki, stack
        self.ports = functools.cache(self._ports)
        self.stdlib = functools.cache(lambda name: self.run(name, "stdlib"))

    def _ports(self, name: str) -> list[int]:
        start: Any = SERVERS.get(name) or getattr(servers, name[len("real_") :])
        ports: list[int] = self.stack.enter_context(start(self.pki))
        return ports

    def run(self, name: str, how: str) -> dict[str, Any]:
        return run(name, how, self.ca_file, self.client_file, *self.ports(name))


@pytest.fixture(scope="module")
def peers(pki: Pki) -> Iterator[Peers]:
    with contextlib.ExitStack() as stack:
        yield Peers(pki, stack)


@pytest.mark.parametrize(("name", "how"), [(name, how) for name, (_, ways) in REAL.items() for how in ways])
def test_a_server(name: str, how: str, peers: Peers) -> None:
    need(REAL[name][0])
    if name == "real_postgresql" and sys.version_info < (3, 10):
        pytest.skip("asyncpg's copy_from_query fails on CPython 3.9, with any ssl")
    compare(peers.stdlib(name), peers.run(name, how), how)
