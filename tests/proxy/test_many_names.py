"""Certificates of several names in a proxy that runs: what a reload changes, in threads and in processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
from pathlib import Path

import pytest

from .operations import Origin, Proxy, Site, common_name, proxy, say
from .test_processes import members_of

LOCAL = "127.0.0.1:0"
CONNECTIONS = 8  # that come to more than one worker


class Names:
    """A TOML file with a certificate for each of some names."""

    def __init__(self, site: Site, back: Origin) -> None:
        self.site = site
        self.file = site.folder / "proxy.toml"
        self._back = back

    def write(self, *names: str) -> None:
        certificates = ", ".join(f'"{name}.pem"' for name in names)
        self.file.write_text(f'[[listener]]\nlisten = "tls://{LOCAL}"\nto = "{self._back.url}"\ncert = [{certificates}]\n')

    def issue(self, name: str, common: str) -> Path:
        path = self.site.folder / f"{name}.pem"
        issued = self.site.authority.issue_cert(name, common_name=common)
        path.write_bytes(issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes())
        path.chmod(0o600)
        return path

    def connect(self, running: Proxy, name: str) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.site.ca))
        context.check_hostname = False  # the default is for another name
        return context.wrap_socket(socket.create_connection(("127.0.0.1", running.port), 60), server_hostname=name)

    def shown(self, running: Proxy, name: str) -> set[str]:
        """The common names of the certificates that clients get who ask for it."""
        found = set()
        for _ in range(CONNECTIONS):
            with self.connect(running, name) as client:
                found.add(common_name(client))
                say(client)
        return found


@pytest.fixture
def names(site: Site, back: Origin) -> Names:
    made = Names(site, back)
    for name in ("a.test", "b.test", "c.test"):
        made.issue(name, f"first {name}")
    made.write("a.test", "b.test", "c.test")
    return made


@pytest.mark.parametrize("workers", ["--threads", "--processes"])
def test_a_reload_changes_what_has_changed_and_nothing_else(names: Names, workers: str) -> None:
    with proxy("--config", names.file, workers, 2, "--watch", "off") as running, contextlib.ExitStack() as stack:
        for name in ("a.test", "b.test", "c.test"):
            assert names.shown(running, name) == {f"first {name}"}
        standing = [stack.enter_context(names.connect(running, name)) for name in ("b.test", "c.test")]
        names.issue("b.test", "second b.test")
        names.write("a.test", "b.test")
        running.reload()
        assert names.shown(running, "a.test") == {"first a.test"}
        assert names.shown(running, "b.test") == {"second b.test"}
        assert names.shown(running, "c.test") == {"first a.test"}, "a certificate that is gone is shown"
        for client in standing:
            say(client)
            client.close()
        names.write("a.test", "b.test", "c.test")
        running.reload()
        assert names.shown(running, "c.test") == {"first c.test"}
        assert running.end() == 0


def test_one_that_takes_a_place_after_a_reload_has_what_is_old_and_what_is_new(names: Names) -> None:
    with proxy("--config", names.file, "--processes", 1, "--watch", "off") as running:
        names.issue("b.test", "second b.test")
        running.reload()
        for name in ("a.test", "b.test", "c.test"):
            (names.site.folder / f"{name}.pem").unlink()  # no file is read for it
        os.kill(members_of(running)[0], signal.SIGKILL)
        found = {name: names.shown(running, name) for name in ("a.test", "b.test", "c.test")}
        assert found == {"a.test": {"first a.test"}, "b.test": {"second b.test"}, "c.test": {"first c.test"}}
        assert running.end() == 0


@pytest.mark.parametrize("workers", ["--threads", "--processes"])
def test_a_bad_pair_among_several_is_told_by_its_line_and_all_stay_in_force(names: Names, workers: str) -> None:
    with proxy("--config", names.file, workers, 2, "--watch", "off") as running:
        other = names.issue("b.test", "second b.test").read_bytes()
        key_of_another = names.issue("x.test", "x").read_bytes().partition(b"-----BEGIN CERTIFICATE-----")[0]
        certificate = other[other.index(b"-----BEGIN CERTIFICATE-----") :]
        (names.site.folder / "b.test.pem").write_bytes(key_of_another + certificate)
        running.send(signal.SIGHUP)
        line = running.wait_for_line("the old settings stay in force")
        assert f"{names.file}:4: cert: " in line and "the private key does not fit the certificate" in line, line
        for name in ("a.test", "b.test", "c.test"):
            assert names.shown(running, name) == {f"first {name}"}
        assert running.end() == 0
