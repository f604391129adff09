"""Workers that are processes (`--processes`): one front, and what becomes of the rest when one of them dies."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_helpers import ENVIRONMENT, command
from peers import open_descriptors
from sslsock.core.event_loop import EventLoop
from sslsock.proxy.files.reading import Reading
from sslsock.proxy.processes.line import Line, pickled
from sslsock.proxy.processes.member import Member
from sslsock.proxy.processes.plan import Catalogue

from .operations import (
    DEADLINE,
    Origin,
    Proxy,
    Site,
    Traffic,
    children,
    common_name,
    connect,
    fetch,
    proxy,
    put,
    say,
    wait_until,
    write_ticket_keys,
)

LOCAL = "127.0.0.1:0"


def nursery_of(running: Proxy) -> int:
    """The process that forks the others."""
    found = children(running.pid)
    assert len(found) == 1, f"the front has the children {found}"
    return found[0]


def members_of(running: Proxy) -> list[int]:
    return children(nursery_of(running))


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def owner_of(running: Proxy, client: socket.socket) -> int:
    """The member that serves a client: the one that has the other end of its connection."""
    ours, theirs = (f":{name[1]:04X}" for name in (client.getsockname(), client.getpeername()))
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(theirs) and words[2].endswith(ours):
            inode = words[9]
    found = []
    for pid in members_of(running):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}") == f"socket:[{inode}]":
                    found.append(pid)
    assert len(found) == 1, f"the connection belongs to {found}"
    return found[0]


@contextlib.contextmanager
def one_of_each(running: Proxy, context: ssl.SSLContext, count: int = 2) -> Iterator[dict[int, socket.socket]]:
    """A connection in each of the members."""
    with contextlib.ExitStack() as stack:
        found: dict[int, socket.socket] = {}
        for _ in range(200):  # the system deals them by a hash of their ports
            client = stack.enter_context(connect(running.port, context))
            say(client)
            found.setdefault(owner_of(running, client), client)
            if len(found) == count:
                break
        assert len(found) == count, f"200 connections came to {len(found)} of {count} processes"
        yield found


def metrics(running: Proxy) -> dict[str, float]:
    """The numbers, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.metrics_port}/metrics", timeout=DEADLINE) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def total(running: Proxy, name: str, **labels: str) -> float:
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        value
        for key, value in metrics(running).items()
        if key.partition("{")[0] == name and all(word in key for word in wanted)
    )


@pytest.fixture
def running(site: Site, back: Origin) -> Iterator[Proxy]:
    """Two of them, with metrics."""
    words = ("--cert", site.issue(), "--processes", 2, "--metrics", LOCAL, "--drain-timeout", 5)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words) as made:
        yield made


def test_all_of_them_serve_and_are_counted_together(running: Proxy, site: Site) -> None:
    with one_of_each(running, site.context) as clients:
        assert sorted(clients) == members_of(running)
        for client in clients.values():
            say(client, b"still there\n")
        opened = total(running, "sslsock_proxy_connections_total")
        assert total(running, "sslsock_proxy_connections_active") == opened >= 2
        assert total(running, "sslsock_proxy_backend_connections_active") == opened
    wait_until(lambda: total(running, "sslsock_proxy_connections_active") == 0, "that the connections have ended")
    assert total(running, "sslsock_proxy_connections_closed_total") == opened
    assert running.end() == 0


def test_one_that_is_killed_takes_its_own_connections_and_no_other(running: Proxy, site: Site) -> None:
    with one_of_each(running, site.context) as clients:
        before = metrics(running)
        victim, survivor = sorted(clients)
        os.kill(victim, signal.SIGKILL)
        running.wait_for_line(f"(pid {victim}) has ended by SIGKILL")
        with pytest.raises((ConnectionError, ssl.SSLError, AssertionError)):
            say(clients[victim])
        say(clients[survivor], b"as if nothing had been\n")
        wait_until(lambda: len(members_of(running)) == 2, "another worker process")
        (successor,) = {*members_of(running)} - {survivor}
        assert survivor in members_of(running) and successor != victim
        running.wait_for_line(f"(pid {successor}) accepts connections")
        with one_of_each(running, site.context) as later:
            assert set(later) == set(members_of(running))
        after = metrics(running)
        fallen = [
            name for name, value in before.items()
            if name.partition("{")[0].endswith(("_total", "_count", "_sum", "_bucket"))
            and name.startswith("sslsock") and after.get(name, 0) < value
        ]  # fmt: skip
        assert not fallen, f"these have fallen: {fallen}"
        lost = total(running, "sslsock_proxy_connections_closed_total", reason="worker_died")
        assert lost >= 1, "the connections of the one that died are counted"
        assert total(running, "sslsock_proxy_worker_process_deaths_total") == 1
        wanted, accepting = (total(running, f"sslsock_proxy_worker_processes{end}") for end in ("", "_accepting"))
        assert (wanted, accepting) == (2, 2)
    assert running.end() == 0


def test_bytes_of_live_connections_are_counted_in_one_that_came_later_too(site: Site, back: Origin) -> None:
    words = ("--cert", site.issue(), "--processes", 1, "--metrics", LOCAL)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words) as made:
        os.kill(members_of(made)[0], signal.SIGKILL)
        with connect(made.port, site.context) as client:  # of the next one
            say(client)
            wait_until(lambda: total(made, "sslsock_proxy_bytes_total") > 0, "the bytes of a connection that lives")
            say(client)
        assert made.end() == 0


def test_connections_that_come_while_one_is_dead_wait_for_the_next(running: Proxy, site: Site) -> None:
    with Traffic(running.ports, site.context) as traffic:
        traffic.wait_for(20)
        for _ in range(2):  # the second is not replaced at once
            victim = members_of(running)[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda dead=victim: len(members_of(running)) == 2 and dead not in members_of(running), "another one")
        traffic.wait_for(traffic.answers + 50)
        traffic.stop()
        assert not traffic.refused, "the listening sockets stay open"
        cut = len(traffic.failures)
        assert cut <= 2 * 4, f"only what a dead process had: {traffic.failures}"
    assert running.end() == 0


def test_all_go_by_the_new_settings_once_a_reload_is_told(site: Site, back: Origin) -> None:
    pairs = [site.issue("first", "first.pem"), site.issue("second", "second.pem")]
    used = site.folder / "used.pem"
    put(pairs[0], used)
    words = ("--cert", used, "--processes", 3, "--watch", "off")
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words) as made:
        for number in range(1, 7):
            put(pairs[number % 2], used)
            made.reload()
            names = set()
            for _ in range(12):
                with connect(made.port, site.context) as client:
                    names.add(common_name(client))
            assert names == {("first", "second")[number % 2]}, f"after reload {number}"
        assert made.end() == 0


def test_one_that_takes_a_place_later_goes_by_the_settings_of_then(site: Site, back: Origin) -> None:
    pairs = [site.issue("first", "first.pem"), site.issue("second", "second.pem")]
    used = site.folder / "used.pem"
    put(pairs[0], used)
    words = ("--cert", used, "--processes", 1, "--watch", "off")
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words) as made:
        put(pairs[1], used)
        made.reload()
        used.unlink()  # no file is read for it
        os.kill(members_of(made)[0], signal.SIGKILL)
        with connect(made.port, site.context) as client:  # waits for the next one
            assert common_name(client) == "second"
            say(client)
        assert made.end() == 0


def test_a_changed_certificate_comes_to_all_without_a_signal(site: Site, back: Origin) -> None:
    used = site.issue("first", "used.pem")
    words = ("--cert", used, "--processes", 2)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words) as made:
        put(site.issue("second", "second.pem"), used)
        made.wait_for_line("new connections go by")
        for _ in range(12):
            with connect(made.port, site.context) as client:
                assert common_name(client) == "second"
        assert made.end() == 0


def test_the_certificate_made_in_memory_is_one_for_all(tmp_path: Path, back: Origin) -> None:
    authority = tmp_path / "ca.pem"
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--ca-out", authority, "--processes", 3) as made:
        context = ssl.create_default_context(cafile=str(authority))
        with one_of_each(made, context, 3) as clients:
            shown = {client.getpeercert(True) for client in clients.values()}  # type: ignore[attr-defined]
            assert len(shown) == 1
        os.kill(members_of(made)[0], signal.SIGKILL)
        made.wait_for_line("has ended by SIGKILL")
        wait_until(lambda: len(members_of(made)) == 3, "another worker process")
        with one_of_each(made, context, 3) as clients:
            assert {client.getpeercert(True) for client in clients.values()} == shown  # type: ignore[attr-defined]
        assert made.end() == 0


def resumes(made: Proxy, context: ssl.SSLContext, session: Any) -> bool:
    with connect(made.port, context, session=session) as client:
        say(client)
        return bool(client.session_reused)  # type: ignore[attr-defined]


@pytest.mark.parametrize("source", ["memory", "file"])
def test_a_session_of_one_is_resumed_at_the_others(site: Site, back: Origin, tmp_path: Path, source: str) -> None:
    words: list[object] = ["--cert", site.issue(), "--processes", 3]
    keys = tmp_path / "tickets"
    if source == "file":
        write_ticket_keys(keys)
        words += ["--ticket-key-file", keys]
    site.context.maximum_version = ssl.TLSVersion.TLSv1_2  # whose tickets may be used more than once
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words) as made:
        with connect(made.port, site.context) as client:
            say(client)
            session = client.session  # type: ignore[attr-defined]
        assert all(resumes(made, site.context, session) for _ in range(24)), "by whichever process"
        if source == "file":
            write_ticket_keys(keys)
            made.reload()
            assert not any(resumes(made, site.context, session) for _ in range(12)), "the key is no longer there"
        assert made.end() == 0


def test_a_drain_waits_for_the_connections_of_all(running: Proxy, site: Site) -> None:
    with one_of_each(running, site.context) as clients:
        everybody = [*members_of(running), nursery_of(running)]
        running.send(signal.SIGTERM)
        running.wait_for_line("SIGTERM: no new connections")
        wait_until(lambda: is_closed(running.port), "that nobody listens any more")
        for client in clients.values():
            say(client, b"to the end\n")
            client.close()
    assert running.process.wait(DEADLINE) == 0
    wait_until(lambda: not any(map(is_alive, everybody)), "that all processes have ended")


def is_closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_the_whole_group_is_the_fronts_to_follow(site: Site, back: Origin, number: signal.Signals) -> None:
    """As a terminal sends SIGINT, and systemd SIGTERM."""
    words = ("--cert", site.issue(), "--processes", 2)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words, start_new_session=True) as made:
        everybody = [*members_of(made), nursery_of(made)]
        fetch(made.port, context=site.context)
        os.killpg(made.pid, signal.SIGHUP)
        made.wait_for_line("SIGHUP: read again")
        os.killpg(made.pid, number)
        assert made.process.wait(DEADLINE) == (0 if number == signal.SIGTERM else 130)
        wait_until(lambda: not any(map(is_alive, everybody)), "that all processes have ended")


def test_a_signal_while_they_begin_ends_all_in_order(site: Site, back: Origin) -> None:
    arguments = command("proxy", "--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--processes", 4)
    for _ in range(3):
        with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                wait_until(lambda pid=process.pid: children(pid), "the nursery")
                everybody = [*children(process.pid), *(pid for nursery in children(process.pid) for pid in children(nursery))]
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=DEADLINE)
                assert (process.returncode, b"Traceback" in said) == (0, False), said
                wait_until(lambda pids=everybody: not any(map(is_alive, pids)), "that all processes have ended")
            finally:
                process.kill()


def test_one_that_is_stopped_while_it_begins_does_not_hold_up_the_end(site: Site, back: Origin) -> None:
    arguments = command("proxy", "--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--processes", 2)
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: any(len(children(nursery)) == 2 for nursery in children(process.pid)), "the worker processes")
            member, _ = children(children(process.pid)[0])  # once there is a second, the front can know of this one
            os.kill(member, signal.SIGSTOP)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
            wait_until(lambda: not is_alive(member), "that the worker process has ended")
        finally:
            process.kill()


def test_none_outlives_a_front_that_is_killed(running: Proxy, site: Site) -> None:
    with one_of_each(running, site.context) as clients:
        everybody = [*members_of(running), nursery_of(running)]
        running.process.kill()
        wait_until(lambda: not any(map(is_alive, everybody)), "that all processes have ended")
        for client in clients.values():
            with pytest.raises((ConnectionError, ssl.SSLError, AssertionError)):
                say(client)
    wait_until(lambda: is_closed(running.port), "that the port is closed: the last thread of a process may end a little later")


def test_without_the_nursery_the_others_serve_on(running: Proxy, site: Site) -> None:
    with one_of_each(running, site.context) as clients:
        members = sorted(clients)
        os.kill(nursery_of(running), signal.SIGKILL)
        running.wait_for_line("the process that forks workers has ended")
        for client in clients.values():
            say(client)
        fetch(running.port, context=site.context)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{running.metrics_port}/healthz", timeout=DEADLINE)
        assert refused.value.code == 503 and b"forks workers" in refused.value.read()
        refused.value.close()
        os.kill(members[0], signal.SIGKILL)
        running.wait_for_line("worker process")
        say(clients[members[1]])
        clients[members[1]].close()
    assert running.end() == 0


def test_when_the_last_one_has_died_and_none_can_follow_the_front_ends(running: Proxy) -> None:
    everybody = members_of(running)
    os.kill(nursery_of(running), signal.SIGKILL)
    running.wait_for_line("the process that forks workers has ended")
    for pid in everybody:
        os.kill(pid, signal.SIGKILL)
    assert running.wait() == 1, running.lines
    assert running.lines[-1] == "sslsock: all worker processes have ended"


def test_a_life_and_a_death_leave_no_descriptor_behind(running: Proxy, site: Site) -> None:
    def reborn() -> None:
        victim = members_of(running)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(members_of(running)) == 2 and victim not in members_of(running), "another worker process")
        with one_of_each(running, site.context):
            pass

    reborn()
    pids = [running.pid, nursery_of(running)]
    before = [len(open_descriptors(pid)) for pid in pids]
    for _ in range(3):
        reborn()
    wait_until(lambda: [len(open_descriptors(pid)) for pid in pids] == before, f"{before} descriptors again")
    assert running.end() == 0


def test_each_holds_its_own_listening_sockets_and_the_front_none(running: Proxy) -> None:
    listening = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[1].endswith(f":{running.port:04X}"):
            listening.add(f"socket:[{words[9]}]")
    assert len(listening) == 2
    wait_until(lambda: not listening & set(open_descriptors(running.pid).values()), "that the front has closed its own")
    assert sorted(len(listening & set(open_descriptors(pid).values())) for pid in members_of(running)) == [1, 1]


def test_what_cannot_begin_says_so(site: Site, back: Origin) -> None:
    words = ("--cert", site.issue(), "--processes", 2, "--threads", 2)
    with pytest.raises(AssertionError) as said, proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words):
        pass
    assert "--processes: workers are threads or processes: --threads is set too" in str(said.value)


def test_a_nursery_that_is_stopped_does_not_hold_up_the_end(running: Proxy, site: Site) -> None:
    with one_of_each(running, site.context):
        everybody = [*members_of(running), nursery_of(running)]
        os.kill(nursery_of(running), signal.SIGSTOP)
        running.send(signal.SIGTERM)
        running.wait_for_line("SIGTERM: no new connections")
    assert running.wait() == 0
    wait_until(lambda: not any(map(is_alive, everybody)), "that all processes have ended")


def test_one_that_is_stopped_does_not_outlive_the_front_and_keep_connections_waiting(running: Proxy) -> None:
    everybody = [*members_of(running), nursery_of(running)]
    os.kill(everybody[0], signal.SIGSTOP)
    running.process.kill()
    wait_until(lambda: not any(map(is_alive, everybody)), "that all processes have ended")
    wait_until(lambda: is_closed(running.port), "that the port is closed: the last thread of a process may end a little later")


def test_a_nursery_that_hears_of_the_fronts_death_last_ends_who_is_stopped(running: Proxy) -> None:
    """It learns first that the other member has ended, and has nobody to tell it to."""
    stopped, other = members_of(running)
    nursery = nursery_of(running)
    for pid in (nursery, stopped):
        os.kill(pid, signal.SIGSTOP)
    running.process.kill()
    wait_until(lambda: not is_alive(other), "that the other one ends")
    os.kill(nursery, signal.SIGCONT)
    wait_until(lambda: not any(map(is_alive, (nursery, stopped))), "that all processes have ended")


def test_a_front_that_has_no_descriptors_tries_again(running: Proxy, site: Site) -> None:
    least, most = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (3, most))
    os.kill(members_of(running)[0], signal.SIGKILL)
    running.wait_for_line("the system gives no descriptors")
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (least, most))
    with one_of_each(running, site.context):
        pass
    assert running.end() == 0


def test_a_reload_tells_who_does_not_follow_and_he_does_so_later(site: Site, back: Origin) -> None:
    pairs = [site.issue("first", "first.pem"), site.issue("second", "second.pem")]
    used = site.folder / "used.pem"
    put(pairs[0], used)
    words = ("--cert", used, "--processes", 1, "--watch", "off")
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words) as made:
        member = members_of(made)[0]
        os.kill(member, signal.SIGSTOP)
        made.reload()
        assert any(f"worker process 1 (pid {member}) has not answered" in line for line in made.lines), made.lines
        put(pairs[1], used)
        made.send(signal.SIGHUP)
        os.kill(member, signal.SIGCONT)
        made.wait_for_line("SIGHUP: read again", 2)
        with connect(made.port, site.context) as client:
            assert common_name(client) == "second"
        assert made.end() == 0


def test_how_many_there_are_is_changed_by_a_restart(site: Site, back: Origin, tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    lines = f'[[listener]]\nlisten = "tls://{LOCAL}"\nto = "{back.url}"\ncert = "{site.issue()}"\n'
    file.write_text(f"processes = 1\n{lines}")
    with proxy("--config", file) as made:
        file.write_text(f"processes = 2\n{lines}")
        made.send(signal.SIGHUP)
        made.wait_for_line("processes has changed, which needs a restart")
        assert made.end() == 0


def test_one_that_is_killed_while_all_end_is_told(running: Proxy, site: Site) -> None:
    with one_of_each(running, site.context) as clients:
        running.send(signal.SIGTERM)
        running.wait_for_line("SIGTERM: no new connections")
        victim, survivor = clients
        number = sorted(clients).index(victim) + 1
        os.kill(victim, signal.SIGKILL)
        told = running.wait_for_line(f"worker process {number} (pid {victim}) has ended, with ")
        assert int(told.rpartition("with ")[2].split()[0]) >= 1, told
        say(clients[survivor])
    assert running.wait() == 0
    assert sum("has ended" in line for line in running.lines) == 1, "the other one has ended as it was told to"


def healthz(running: Proxy) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{running.metrics_port}/healthz", timeout=DEADLINE) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as exc:
        with exc:
            return f"{exc.code}: {exc.read().decode()}"


@pytest.mark.slow
def test_one_that_hangs_is_told(running: Proxy) -> None:
    hung = members_of(running)[1]
    os.kill(hung, signal.SIGSTOP)
    running.wait_for_line(f"worker process 2 (pid {hung}) has not answered for 1")
    assert healthz(running).startswith(f"503: worker process 2 (pid {hung}) has given no sign of life for 1")
    os.kill(hung, signal.SIGCONT)
    running.wait_for_line(f"worker process 2 (pid {hung}) answers again, after 1")
    assert healthz(running) == "ok\n"
    assert sum("worker process" in line for line in running.lines) == 2, running.lines
    assert running.end() == 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_healthz_says_that_there_are_none_while_the_system_gives_no_process(back: Origin) -> None:
    words = ("--user", "nobody", "--processes", 1, "--metrics", LOCAL)
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, *words) as made:
        nursery = nursery_of(made)
        allowed = re.findall(r"Max processes +(\w+)", Path(f"/proc/{nursery}/limits").read_text())[0]

        def allow(number: str) -> None:
            """By the same user: a root without CAP_SYS_RESOURCE may not."""
            user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
            subprocess.run([*user, "prlimit", f"--pid={nursery}", f"--nproc={number}:"], check=True)

        allow("1")
        os.kill(members_of(made)[0], signal.SIGKILL)
        made.wait_for_line("the system gives no process")
        wait_until(lambda: healthz(made).startswith("503: no worker process accepts connections for 1"), "that none is there")
        allow(allowed)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with connect(made.port, context) as client:
            say(client)
        assert healthz(made) == "ok\n"
        assert total(made, "sslsock_proxy_worker_process_deaths_total") == 1, "what was never there has not died"
        assert made.end() == 0


def test_for_one_that_does_not_read_only_the_last_of_a_subject_is_kept() -> None:
    ours, theirs = socket.socketpair()
    heard: list[tuple[str, tuple[Any, ...]]] = []
    with contextlib.closing(EventLoop()) as loop, contextlib.closing(EventLoop()) as other:
        line = Line(loop, ours.detach(), lambda name, values: None, lambda: None)
        size, text, kept = 10000, "x" * 1000, []
        for number in range(size):
            line.send_latest(number % 3, "verdict", number, text)
            line.send_latest("checked", "checked", number)
            loop.dispatch(0)
            kept.append(line._channel.bytes_to_write)
        assert max(kept) < 10 * len(text), "no more than one message waits in the process"
        far = Line(other, theirs.detach(), lambda name, values: heard.append((name, values)), lambda: None)
        while not heard or heard[-1] != ("checked", (size - 1,)):
            loop.dispatch(0)
            other.dispatch(0.01)
        assert len(heard) < size, "most were not sent"
        assert [values[0] for name, values in heard if name == "verdict"][-3:] == [size - 3, size - 2, size - 1]
        far.close()
        line.close()


class Witness:
    """Part of a plan, in the place of a key, which takes its time to be loaded."""

    def __reduce__(self) -> Any:
        return note_thread, ()


loaded_in: list[str] = []


def note_thread() -> None:
    loaded_in.append(threading.current_thread().name)


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("threads", [True, False], ids=["with threads", "the system gives none"])
def test_the_keys_of_a_plan_are_loaded_beside_the_loop(monkeypatch: pytest.MonkeyPatch, threads: bool) -> None:
    loaded_in.clear()
    if not threads:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    ours, theirs = socket.socketpair()
    heard: list[str] = []
    inherited = SimpleNamespace(catalogue=Catalogue([], Reading()))
    member = Member(0, theirs.detach(), inherited, None)  # type: ignore[arg-type]
    member._worker = object()  # type: ignore[assignment]
    member._make_policies = lambda plan: None  # type: ignore[assignment, return-value]
    with contextlib.closing(member._loop) as loop:
        front = Line(loop, ours.detach(), lambda name, values: heard.append(name), lambda: None)
        front.send("plan", 1, pickled(Witness()))
        while not heard:
            loop.dispatch(None)
        where = "plan" if threads else threading.current_thread().name
        assert (heard, loaded_in) == (["ready"], [where]), "a loop that loads keys lets its connections wait"
        front.close()
        member._line.close()
