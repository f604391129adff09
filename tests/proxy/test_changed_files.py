"""Files that change while the proxy runs, without a signal: as certbot, Kubernetes and hands change them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from command_helpers import Identity, command, heeding_cuts, run
from peers import needs_inotify, open_descriptors

from .operations import (
    Origin,
    Proxy,
    Site,
    Traffic,
    answer_of,
    common_name,
    connect,
    fetch,
    proxy,
    put,
    say,
    wait_until,
)

LOCAL = "127.0.0.1:0"
TAKEN = "read again after a change"

in_full = pytest.mark.skipif(not os.environ.get("SSLSOCK_FULL"), reason="it takes its time; SSLSOCK_FULL=1 runs it")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def shown(running: Proxy, context: ssl.SSLContext, listener: int = 0) -> str:
    with connect(running.ports[listener], context) as client:
        return common_name(client)


def watches(running: Proxy) -> list[str]:
    """The descriptors of inotify that it has."""
    return [target for target in open_descriptors(running.pid).values() if "inotify" in target]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """That other users may look into, which pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


class Pair:
    """A certificate and its key in files of their own."""

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        self.folder = folder
        self.authority = authority
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"

    def write(self, name: str, folder: Path | None = None) -> None:
        folder = folder or self.folder
        folder.mkdir(parents=True, exist_ok=True)
        issued = self.authority.issue_cert("localhost", "127.0.0.1", common_name=name)
        (folder / self.cert.name).write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(folder / self.key.name)
        (folder / self.key.name).chmod(0o640)


def test_a_secret_of_kubernetes_that_is_swapped(site: Site, back: Origin, tmp_path: Path) -> None:
    """With the authorities of clients in it; and its result in log and metrics."""
    secret = tmp_path / "secret"
    pair = Pair(secret, site.authority)
    clients = [trustme.CA(), trustme.CA()]
    for name, authority in zip(("first", "second"), clients):
        pair.write(name, secret / f"..{name}")
        authority.cert_pem.write_to_path(secret / f"..{name}" / "ca.crt")
    (secret / "..data").symlink_to("..first")
    for file in ("tls.crt", "tls.key", "ca.crt"):
        (secret / file).symlink_to(f"..data/{file}")
    contexts = []
    for authority in clients:
        context = heeding_cuts(ssl.create_default_context(cafile=str(site.ca)))
        authority.issue_cert("client@example.org").configure_cert(context)
        contexts.append(context)
    arguments = ["--cert", pair.cert, "--key", pair.key, "--client-ca", secret / "ca.crt", "--metrics", LOCAL]
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *arguments, "--threads", 2) as running:
        in_force = {("sslsock_proxy_file_in_force", str(path)): 1.0 for path in (pair.cert, pair.key, secret / "ca.crt")}
        assert in_force.items() <= running.metrics().items()
        with connect(running.port, contexts[0]) as live:
            say(live)
            (secret / "..data_tmp").symlink_to("..second")
            (secret / "..data_tmp").replace(secret / "..data")
            shutil.rmtree(secret / "..first")
            running.wait_for_line(f"{pair.cert} and {pair.key}: {TAKEN}")
            running.wait_for_line(f"{secret / 'ca.crt'}: {TAKEN}")
            for port in running.ports * 4:  # whichever thread takes it
                with connect(port, contexts[1]) as client:
                    assert common_name(client) == "second"
                    say(client)
            say(live)
            assert common_name(live) == "first"
        with pytest.raises((ssl.SSLError, ConnectionResetError)), connect(running.port, contexts[0]) as refused:
            say(refused)
        metrics = running.metrics()
        assert in_force.items() <= metrics.items()
        assert metrics["sslsock_proxy_file_changes_total", "taken"] == 2
        assert metrics["sslsock_proxy_file_changes_total", "refused"] == 0
        assert running.end() == 0


def test_links_of_certbot_that_are_swapped_one_after_the_other(site: Site, back: Origin, tmp_path: Path) -> None:
    archive, live = tmp_path / "archive" / "example.com", tmp_path / "live" / "example.com"
    live.mkdir(parents=True)
    pair = Pair(live, site.authority)

    def renew(number: int) -> None:
        pair.write(f"number {number}", archive / str(number))
        for path in (pair.cert, pair.key):
            file = archive / f"{path.stem}{number}{path.suffix}"
            (archive / str(number) / path.name).replace(file)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            path.symlink_to(f"../../archive/example.com/{file.name}")

    renew(1)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", pair.cert, "--key", pair.key) as running:
        assert shown(running, site.context) == "number 1"
        for number in (2, 3):
            renew(number)
            running.wait_for_line(TAKEN, number - 1)
            assert shown(running, site.context) == f"number {number}"


def test_a_pair_that_is_half_there_waits_and_hinders_no_other(site: Site, back: Origin, tmp_path: Path) -> None:
    """The new certificate comes first and its key much later; a second pair is renewed in between, in place, in two halves."""
    slow, quick = Pair(tmp_path / "slow", site.authority), Pair(tmp_path / "quick", site.authority)
    slow.write("old slow")
    quick.write("old quick")
    config = tmp_path / "proxy.toml"
    config.write_text(
        "threads = 1\n"
        + "".join(
            f'[[listener]]\nlisten = "tls://{LOCAL}"\nto = "{back.url}"\ncert = "{pair.cert}"\nkey = "{pair.key}"\n'
            for pair in (slow, quick)
        )
    )
    with proxy("--config", config, listeners=2) as running:
        slow.write("new slow", tmp_path / "fresh")
        put(tmp_path / "fresh" / "tls.crt", slow.cert)
        quick.write("new quick", tmp_path / "other")
        for name in ("tls.crt", "tls.key"):
            data = (tmp_path / "other" / name).read_bytes()
            (quick.folder / name).write_bytes(data[: len(data) // 2])
            with (quick.folder / name).open("ab") as file:
                file.write(data[len(data) // 2 :])
        running.wait_for_line(f"{quick.cert} and {quick.key}: {TAKEN}")
        assert shown(running, site.context, 1) == "new quick"
        assert shown(running, site.context, 0) == "old slow"
        put(tmp_path / "fresh" / "tls.key", slow.key)
        running.wait_for_line(f"{slow.cert} and {slow.key}: {TAKEN}")
        assert shown(running, site.context, 0) == "new slow"


def test_what_is_deleted_stays_in_force_until_it_is_back(site: Site, back: Origin, identity: Identity) -> None:
    used, other = site.issue("old", "used.pem"), site.issue("other", "other.pem")
    arguments = ["--cert", used, "--listen", f"tls://{LOCAL}", "--to", back.url, "--metrics", LOCAL]
    with proxy(*arguments) as running:
        used.unlink()
        used.mkdir()
        used.rmdir()
        assert shown(running, site.context) == "old"
        put(other, used)
        running.wait_for_line(f"{used}: {TAKEN}")
        assert shown(running, site.context) == "other"


@in_full
def test_what_stays_bad_is_an_error_until_it_is_good_again(site: Site, back: Origin, tmp_path: Path) -> None:
    used, other = site.issue("old", "used.pem"), site.issue("other", "other.pem")
    good = used.read_bytes()
    config = tmp_path / "proxy.toml"
    config.write_text(f'threads = 1\n[[listener]]\nlisten = "tls://{LOCAL}"\nto = "{back.url}"\ncert = "used.pem"\n')
    with proxy("--config", config, "--metrics", LOCAL) as running:
        in_force = "sslsock_proxy_file_in_force", str(used)
        used.write_bytes(good[:-300])
        line = running.wait_for_line("stays in force")
        assert line.startswith(f"{used}: changed, but what it was stays in force: {config}:5: cert: {used}: "), line
        assert running.metrics()[in_force] == 0
        assert running.metrics()["sslsock_proxy_file_changes_total", "refused"] == 1
        assert shown(running, site.context) == "old"
        used.write_bytes(good)
        running.wait_for_line(f"{used}: as it was when it was read last")
        assert running.metrics()[in_force] == 1
        used.write_bytes(b"")
        running.wait_for_line("stays in force", 2)
        running.send(signal.SIGHUP)  # which is not lenient
        running.wait_for_line("SIGHUP: the old settings stay in force")
        assert running.metrics()[in_force] == 0
        put(other, used)
        running.wait_for_line(f"{used}: {TAKEN}")
        assert running.metrics()[in_force] == 1
        assert shown(running, site.context) == "other"


def test_authorities_for_back_ends_are_taken(site: Site, identity: Identity, tmp_path: Path) -> None:
    """And the client certificate for them: a proxy in front of another one."""
    wrong = trustme.CA()
    ca, clients = tmp_path / "to-ca.pem", tmp_path / "client-ca.pem"
    wrong.cert_pem.write_to_path(ca)
    clients.write_bytes(identity.ca.read_bytes())
    own = site.issue("no client of theirs", "own.pem")
    with contextlib.ExitStack() as stack:
        origin = Origin("origin")
        stack.callback(origin.close)
        behind = stack.enter_context(
            proxy("--listen", f"tls://{LOCAL}", "--to", origin.url, "--cert", site.issue(), "--client-ca", clients)
        )
        front = stack.enter_context(
            proxy("--listen", f"tcp://{LOCAL}", "--to", f"tls://localhost:{behind.port}", "--to-ca", ca, "--to-cert", own)
        )
        with pytest.raises((AssertionError, ConnectionError)):
            assert fetch(front.port) == answer_of("origin", 1000)
        put(site.ca, ca)
        front.wait_for_line(f"{ca}: {TAKEN}")
        with pytest.raises((AssertionError, ConnectionError)):
            assert fetch(front.port) == answer_of("origin", 1000)
        put(identity.client_both, own)
        front.wait_for_line(f"{own}: {TAKEN}")
        assert fetch(front.port) == answer_of("origin", 1000)


def test_what_is_taken_is_warned_of_as_at_a_reload(site: Site, back: Origin) -> None:
    """Once, and of what has changed alone."""
    used, other = site.issue("old", "used.pem"), site.issue("other", "other.pem")
    used.chmod(0o604)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", used, "--client-ca", site.ca) as running:
        warning = "others than its owner and group can read or write"
        running.wait_for_line(warning)  # of the start
        put(site.ca, site.ca)  # the same
        authority = trustme.CA()
        authority.cert_pem.write_to_path(site.ca)
        running.wait_for_line(f"{site.ca}: {TAKEN}")
        assert sum(warning in line for line in running.lines) == 1
        other.chmod(0o606)
        put(other, used)
        running.wait_for_line(f"{used}: {TAKEN}")
        assert sum(warning in line for line in running.lines) == 2


def test_changes_and_reloads_under_traffic_fail_no_connection(site: Site, back: Origin) -> None:
    pairs = [site.issue("first", "first.pem"), site.issue("second", "second.pem")]
    used = site.folder / "used.pem"
    put(pairs[0], used)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", used, "--threads", 2) as running:
        with Traffic(running.ports, site.context) as traffic:
            for number in range(1, 6):
                put(pairs[number % 2], used)
                if number % 2:
                    running.reload()
                name = ("first", "second")[number % 2]
                wait_until(lambda name=name: shown(running, site.context) == name, f"the change to {name}")
                traffic.wait_for(3)
            traffic.stop()
        assert not traffic.failures and not traffic.refused
        assert running.end() == 0


@needs_inotify
def test_settings_wait_for_a_signal_and_then_other_files_are_watched(site: Site, back: Origin, tmp_path: Path) -> None:
    one, other, fresh = site.issue("one", "one.pem"), site.issue("other", "other.pem"), site.issue("fresh", "fresh.pem")
    config = tmp_path / "proxy.toml"
    text = f'threads = 1\n[[listener]]\nlisten = "tls://{LOCAL}"\nto = "{back.url}"\ncert = "%s"\n'
    config.write_text(text % "one.pem")
    with proxy("--config", config) as running:
        config.write_text(text % "other.pem")
        put(fresh, one)
        running.wait_for_line(f"{one}: {TAKEN}")
        assert shown(running, site.context) == "fresh"
        running.reload()
        assert shown(running, site.context) == "other"
        put(fresh, other)
        running.wait_for_line(f"{other}: {TAKEN}")
        assert shown(running, site.context) == "fresh"
        config.write_text('watch = "poll"\n' + text % "other.pem")
        running.send(signal.SIGHUP)
        running.wait_for_line("watch has changed, which needs a restart")


@needs_inotify
@pytest.mark.parametrize("mode", ["auto", pytest.param("poll", marks=in_full), "off"])
def test_how_files_are_watched_is_an_option(site: Site, back: Origin, mode: str) -> None:
    used, other = site.issue("old", "used.pem"), site.issue("new", "new.pem")
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", used, "--watch", mode) as running:
        assert len(watches(running)) == (mode == "auto")
        put(other, used)
        if mode == "off":
            running.reload()
        else:
            running.wait_for_line(f"{used}: {TAKEN}")
        assert shown(running, site.context) == "new"
        assert any(TAKEN in line for line in running.lines) == (mode != "off")


def test_other_modes_are_refused(tmp_path: Path) -> None:
    done = run("proxy", "--listen", f"tcp://{LOCAL}", "--to", "tcp://a:1", "--watch", "on", "--check")
    assert done.returncode == 2
    assert done.stderr == b"sslsock: --watch: 'on' is neither auto nor poll nor off\n"


IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "sh", "-ec"]
NONE_LEFT = 'echo 0 > /proc/sys/user/max_inotify_{what}; exec "$@"'


@pytest.mark.parametrize("what", ["watches", pytest.param("instances", marks=in_full)])
def test_where_the_system_gives_no_watches_files_are_looked_at(site: Site, back: Origin, what: str) -> None:
    words = [*IN_A_NAMESPACE, NONE_LEFT.format(what=what), "sh"]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace is to be had")
    used, other = site.issue("old", "used.pem"), site.issue("new", "new.pem")
    arguments = ["--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", used]
    check = subprocess.run([*words, *command("proxy", *arguments, "--check")], capture_output=True, check=True, timeout=60)
    with proxy(program=[*words, *command("proxy", *arguments)]) as running:
        line = running.wait_for_line(f"{used} is looked at every 2 s")
        assert f"fs.inotify.max_user_{what}" in line
        assert check.stderr.decode() == f"sslsock: {line}\n"
        put(other, used)
        running.wait_for_line(f"{used}: {TAKEN}")
        assert shown(running, site.context) == "new"


# As another user


@as_root
@pytest.mark.parametrize("how", ["readable", "folder not to be listed", "--keep-reading"])
def test_files_are_watched_as_the_user(open_folder: Path, back: Origin, how: str) -> None:
    folder = open_folder / "certs"
    folder.mkdir(0o755)
    site = Site(folder)
    used, other = site.issue("old", "used.pem"), site.issue("new", "new.pem")
    arguments = ["--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", used, "--user", "nobody"]
    if how == "--keep-reading":
        folder.chmod(0o700)
        arguments.append("--keep-reading")
    else:
        used.chmod(0o644)
        other.chmod(0o644)
        folder.chmod(0o755 if how == "readable" else 0o711)
    check = run("proxy", *arguments, "--check")
    assert check.returncode == 0
    with proxy(*arguments) as running:
        put(other, used)
        running.wait_for_line(f"{used}: {TAKEN}")
        assert shown(running, site.context) == "new"
        looked_at = [line for line in running.lines if "is looked at" in line]
        assert len(looked_at) == (how != "readable")
        assert all(f"{used} is looked at every 2 s for changes: {folder}" in line for line in looked_at)
        assert all("Permission denied" in line for line in looked_at)
        assert [line for line in check.stderr.decode().splitlines() if "is looked at" in line] == [
            f"sslsock: {line}" for line in looked_at
        ]
