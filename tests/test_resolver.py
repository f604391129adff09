"""Name lookup: no name holds up another, nobody waits for a thread, and what is missing is said."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading

import pytest

from peers import DEADLINE, Recorder, end_lookups
from sslsock import SocketError, SocketState, TcpSocket
from sslsock.sockets import resolver
from sslsock.sockets.resolver import Lookup


class Servers:
    """In place of getaddrinfo: names that begin with "silent" are not answered before `free` is set."""

    def __init__(self):
        self.free = threading.Event()
        self.asked = []

    def __call__(self, name, port, family=0, type=0, proto=0, flags=0):
        self.asked.append(name)
        if name.startswith("silent") and not self.free.wait(DEADLINE):
            raise AssertionError("the test has not ended")
        if name.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name.startswith("broken"):
            raise ValueError("the resolver's own trouble")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))]  # fmt: skip


@pytest.fixture
def servers(monkeypatch):
    servers = Servers()
    monkeypatch.setattr(socket, "getaddrinfo", servers)
    yield servers
    servers.free.set()
    end_lookups()


class Answers:
    """Lookups and what they came to."""

    def __init__(self, host):
        self.host = host
        self.got = {}

    def ask(self, name, port=80):
        return Lookup(self.host.loop, name, port, lambda answer: self.got.setdefault((name, port), answer))

    def wait(self, *keys):
        self.host.wait_for(lambda: all(key in self.got for key in keys), self.got)


@pytest.fixture
def answers(own_host):
    return Answers(own_host)


@pytest.mark.parametrize("count", [1, 8, 100])
def test_silent_names_hold_up_no_other(answers, servers, count):
    lookups = [answers.ask(f"silent{number}.example") for number in range(count)]
    answers.ask("good.example")
    answers.wait(("good.example", 80))
    assert answers.got == {("good.example", 80): [(socket.AF_INET, ("127.0.0.1", 80)), (socket.AF_INET6, ("::1", 80, 0, 0))]}
    servers.free.set()
    answers.wait(*((f"silent{number}.example", 80) for number in range(count)))
    assert answers.host.loop.idle
    assert len(lookups) == count


def test_all_who_ask_for_a_name_share_one_thread(answers, servers):
    before = threading.active_count()
    for port in (1, 2, 3):
        answers.ask("silent.example", port)
    answers.ask("silent.example", 3)
    assert threading.active_count() == before + 1
    servers.free.set()
    answers.wait(("silent.example", 1), ("silent.example", 2), ("silent.example", 3))
    assert servers.asked == ["silent.example"]
    for port in (1, 2, 3):
        assert answers.got["silent.example", port] == [
            (socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))
        ]  # fmt: skip


def test_a_name_is_asked_anew_when_the_answer_is_there(answers, servers):
    for port in (1, 2):
        answers.ask("good.example", port)
        answers.wait(("good.example", port))
    assert servers.asked == ["good.example"] * 2


def test_one_of_several_may_give_up(answers, servers):
    gone = answers.ask("silent.example", 1)
    answers.ask("silent.example", 2)
    gone.cancel()
    gone.cancel()
    servers.free.set()
    answers.wait(("silent.example", 2))
    assert ("silent.example", 1) not in answers.got
    assert answers.host.loop.idle


def test_what_was_given_up_keeps_no_loop_going_and_no_other_name_waiting(answers, servers):
    for number in range(20):
        answers.ask(f"silent{number}.example").cancel()
    assert answers.host.loop.idle
    answers.ask("good.example")
    answers.wait(("good.example", 80))


@pytest.mark.parametrize("call", ["abort", "disconnect", "close"])
def test_a_socket_that_was_given_up_may_look_up_another_name(own_host, servers, call):
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = TcpSocket()
        for number in range(20):
            sock.connect(f"silent{number}.example", 80)
            getattr(sock, call)()
            assert sock.state is SocketState.UNCONNECTED_STATE
        recorder = Recorder(sock)
        sock.connect("good.example", server.getsockname()[1])
        own_host.wait_for(lambda: recorder.has("connected") or recorder.has("error"), recorder.events)
        assert recorder.has("connected"), sock.error_string
        sock.abort()


def test_any_exception_is_an_answer(answers, servers):
    for name in ("unknown.example", "broken.example"):
        answers.ask(name)
        answers.wait((name, 80))
    assert isinstance(answers.got["unknown.example", 80], socket.gaierror)
    assert isinstance(answers.got["broken.example", 80], ValueError)
    assert answers.host.loop.idle


def test_what_ends_a_thread_is_an_answer_too(answers, servers, monkeypatch):
    """The name can be asked for again, and the thread's place is free."""
    monkeypatch.setattr(resolver, "LIMIT", 1)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", lambda *arguments, **options: sys.exit("the thread's own end"))
        answers.ask("ends.example")
        answers.wait(("ends.example", 80))
    assert "SystemExit the thread's own end" in str(answers.got.pop(("ends.example", 80)))
    answers.ask("ends.example")
    answers.wait(("ends.example", 80))
    assert len(answers.got["ends.example", 80]) == 2


# The limit of threads


def test_beyond_the_limit_a_name_waits_for_a_thread(answers, servers, monkeypatch):
    monkeypatch.setattr(resolver, "LIMIT", 3)
    before = threading.active_count()
    for number in range(3):
        answers.ask(f"silent{number}.example")
    waiting = ["good.example", "unknown.example", "silent.example"]
    for name in waiting:
        answers.ask(name)
    answers.ask("silent1.example", 443)  # is being asked for already
    assert threading.active_count() == before + 3
    assert not set(waiting) & set(servers.asked)
    servers.free.set()
    waiting += [f"silent{number}.example" for number in range(3)]
    answers.wait(*((name, 80) for name in waiting), ("silent1.example", 443))
    assert answers.host.loop.idle


def test_names_that_were_given_up_keep_no_other_from_a_thread(answers, servers, monkeypatch):
    monkeypatch.setattr(resolver, "LIMIT", 3)
    for number in range(3):
        answers.ask(f"silent{number}.example").cancel()
    answers.ask("good.example")
    answers.wait(("good.example", 80))
    hanging = [answers.ask(f"silent{number}.example") for number in (2, 3, 4)]  # one of them is being looked up already
    answers.ask("good.example", 443)  # so this one waits
    assert ("good.example", 443) not in answers.got
    assert servers.asked.count("silent2.example") == 1
    hanging[0].cancel()
    answers.wait(("good.example", 443))
    answers.ask("silent2.example", 443)  # wanted again
    for lookup in hanging[1:]:
        lookup.cancel()
    answers.ask("unknown.example")
    answers.wait(("unknown.example", 80))
    servers.free.set()
    answers.wait(("silent2.example", 443))
    assert answers.host.loop.idle


def test_threads_that_hang_have_a_bound(answers, servers, monkeypatch):
    monkeypatch.setattr(resolver, "MOST_THREADS", 4)
    before = threading.active_count()
    for number in range(8):
        answers.ask(f"silent{number}.example").cancel()
    assert threading.active_count() == before + 4
    answers.ask("good.example")
    servers.free.set()
    answers.wait(("good.example", 80))
    assert answers.host.loop.idle


def test_a_name_does_not_wait_for_a_thread_for_ever(own_host, servers, monkeypatch):
    monkeypatch.setattr(resolver, "LIMIT", 3)
    monkeypatch.setattr(resolver, "PATIENCE", 0.01)
    held = [TcpSocket() for _ in range(3)]
    for number, sock in enumerate(held):
        sock.connect(f"silent{number}.example", 80)
    late = TcpSocket()
    recorder = Recorder(late)
    late.connect("good.example", 80)
    own_host.wait_for(lambda: recorder.has("error"), recorder.events)
    assert recorder.of("error") == [SocketError.TEMPORARY_ERROR]
    assert "3 other names" in late.error_string and "good.example" in late.error_string
    for sock in held:  # these had a thread, and have been waiting all the while
        assert sock.state is SocketState.HOST_LOOKUP_STATE
        sock.abort()
    assert "good.example" not in servers.asked
    assert own_host.loop.idle


def test_a_name_that_was_given_up_while_it_waited_is_never_asked_for(answers, servers, monkeypatch):
    monkeypatch.setattr(resolver, "LIMIT", 1)
    answers.ask("silent.example")
    answers.ask("unwanted.example").cancel()
    answers.ask("good.example")
    servers.free.set()
    answers.wait(("silent.example", 80), ("good.example", 80))
    assert servers.asked == ["silent.example", "good.example"]


# What the system does not give


def outcome(host, name, port=80):
    sock = TcpSocket()
    recorder = Recorder(sock)
    sock.connect(name, port)
    assert sock.state is SocketState.HOST_LOOKUP_STATE
    host.wait_for(lambda: recorder.has("error"), recorder.events)
    assert sock.state is SocketState.UNCONNECTED_STATE
    return sock.error, sock.error_string


def test_without_threads_a_lookup_says_so(own_host, servers):
    before = threading.stack_size(1 << 46)  # which no system can give
    try:
        assert outcome(own_host, "good.example")[0] is SocketError.SOCKET_RESOURCE_ERROR
        assert "thread" in outcome(own_host, "good.example")[1]
        assert own_host.loop.idle
    finally:
        threading.stack_size(before)
    sock = TcpSocket()
    recorder = Recorder(sock)
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock.connect("good.example", server.getsockname()[1])  # nothing is left of it
        own_host.wait_for(lambda: recorder.has("connected"), recorder.events)
        sock.abort()


@contextlib.contextmanager
def no_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    os.close(lowest)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["localhost", "no-such-name.invalid", "127.0.0.1", "::1", "fe80::1%lo"])
@pytest.mark.parametrize("bound", [False, True])
def test_without_descriptors_every_host_fails_for_want_of_them(own_host, host, bound):
    with no_descriptors():
        for _ in range(3):
            if bound:
                assert not TcpSocket().bind(0)
            error, words = outcome(own_host, host)
            assert (error, "Too many open files" in words) == (SocketError.SOCKET_RESOURCE_ERROR, True), words
    end_lookups()
    assert own_host.loop.idle


def test_the_systems_memory_is_a_resource(own_host, servers, monkeypatch):
    for exc in (MemoryError(), socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"), OSError(23, "x")):

        def fail(name, port, flags=0, exc=exc):
            raise exc

        monkeypatch.setattr(resolver, "addresses_of", fail)
        assert outcome(own_host, "good.example")[0] is SocketError.SOCKET_RESOURCE_ERROR


# The end of the process, and its children

SILENT = """
import os, socket, sys, threading, time
real = socket.getaddrinfo
asked = threading.Event()
def silent(name, *arguments, **more):
    if str(name).startswith("silent"):
        asked.set()
        time.sleep(1_000_000)
    return real(name, *arguments, **more)
socket.getaddrinfo = silent
import sslsock
"""


@contextlib.contextmanager
def program(text):
    """A program of its own, which is killed in the end: one that hangs must not hang the test."""
    command = [sys.executable, "-c", SILENT + text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise SystemExit(3)", "sslsock.EventLoop.current().close()"])
def test_the_interpreter_does_not_wait_for_a_lookup(ending):
    with program(f"""
for number in range(10):
    s = sslsock.TcpSocket(); s.connect(f"silent{{number}}.example", 80)
asked.wait()
{ending}
""") as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (3 if "3" in ending else 0, "", "")


def test_run_ends_when_the_lookup_was_given_up():
    with program("""
s = sslsock.TcpSocket(); s.connect("silent.example", 80)
sslsock.EventLoop.current().call_soon(lambda: (asked.wait(), s.abort()))
sslsock.run()
""") as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, "", "")


def test_sigterm_ends_a_proxy_whose_back_end_is_not_found(tmp_path):
    with program("""
threading.Thread(target=lambda: (asked.wait(), print("asked", flush=True)), daemon=True).start()
from sslsock.__main__ import main
sys.exit(main(["proxy", "--listen", "tcp://127.0.0.1:0", "--to", "tcp://silent.example:80", "--threads", "2"]))
""") as process:
        assert "asked\n" in iter(process.stdout.readline, ""), process.stderr.read()  # the proxy says something, too
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert "Traceback" not in err and "ignored" not in err


def test_a_forked_child_looks_up_what_its_parent_is_waiting_for():
    with program("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # CPython 3.12 and newer: of a fork beside the lookup's thread
s = sslsock.TcpSocket(); s.connect("silent.example", 80)
asked.wait()
child = os.fork()
if not child:
    socket.getaddrinfo = real
    s = sslsock.TcpSocket(); s.error_handler = lambda s, e: (print(e.name, flush=True), sslsock.stop())
    s.connect("localhost", 1); sslsock.run()
    s.connect_timeout = 0.1
    s.error_handler = lambda s, e: (print(s.error_string, flush=True), sslsock.stop())
    s.connect("silent.example", 80); sslsock.run()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""") as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("CONNECTION_REFUSED_ERROR\n") and "silent.example" in out
