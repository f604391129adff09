"""What the kernel holds already is read before a deadline counts: whoever has said something in time is not cut off, however
late the loop comes to hear it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from itertools import count

import pytest

from peers import DEADLINE, Recorder, make_tcp_pair, plain_listener
from sslsock import Context, Engine, Relay, SslSocket, TcpSocket

MANY = 300  # descriptors: more than the loop takes at once
SECONDS = 0.05


@contextlib.contextmanager
def watched_pairs(host, callback):
    """MANY socket pairs: one end is watched, `callback(number)` told when it is readable; the other ends are given."""
    with contextlib.ExitStack() as stack:
        far = []
        for number in range(MANY):
            left, right = socket.socketpair()
            stack.enter_context(left)
            far.append(stack.enter_context(right))
            left.setblocking(False)
            watch = host.call(host.loop.watch, left.fileno(), select.EPOLLIN, lambda events, number=number: callback(number))
            stack.callback(watch.close)
        yield far


@pytest.fixture
def crowd(host):
    """`crowd()` makes more descriptors ready than the loop takes at once: what becomes ready after that is not among them."""

    def fill():
        for end in far:
            end.send(b"x")

    with watched_pairs(host, lambda number: None) as far:
        yield fill


def sit_out(loop, seconds):
    """Keep the loop's thread until a deadline of so many seconds has passed."""
    end = loop.time() + seconds
    while (left := end - loop.time()) > 0:
        select.select([], [], [], left)


@pytest.mark.parametrize("nested", [False, True])
def test_whoever_speaks_in_time_is_not_cut(host, nested):
    cut, timers = [], []

    def late():
        timers.extend(host.loop.call_later(SECONDS, cut.append, number) for number in range(MANY))
        for end in far:
            end.send(b"x")
        sit_out(host.loop, SECONDS)
        while nested and not all_over():
            host.loop.dispatch(0)

    def all_over():
        return timers and all(timer.cancelled for timer in timers)

    with watched_pairs(host, lambda number: timers[number].cancel()) as far:
        host.loop.call_soon(late)
        host.wait_for(all_over)
    assert cut == []


def test_what_is_planned_to_be_read_again_is_read_before_a_deadline_counts(own_host):
    """A connection's end that lies behind more than one receive: it is reached in time, without another edge."""
    pair = make_tcp_pair(own_host, reads=False)
    pair.client.write(bytes(1000))
    own_host.wait_for(lambda: pair.server.bytes_available == 1000)
    pair.server.read_buffer_size = 1000
    pair.client.write(b"more")
    own_host.turn()
    late = []

    def act():
        timer = own_host.loop.call_later(SECONDS, lambda: late.append(len(pair.server.read_all())))
        sit_out(own_host.loop, SECONDS)
        assert pair.server.read() == bytes(1000)  # there is room again, and nothing that the kernel would announce
        return timer

    own_host.call(act)
    own_host.wait_for(lambda: late)
    assert late == [4]
    pair.client.abort()


def test_a_relay_whose_peer_speaks_in_time_is_not_idle(host, crowd):
    one, two = make_tcp_pair(host), make_tcp_pair(host)
    ends = []

    def late():
        relay = Relay(one.server, two.client, idle_timeout=SECONDS)
        relay.closed_handler = lambda relay, reason: ends.append(reason)
        crowd()
        one.client.write(b"in time")
        one.client._channel.flush()
        sit_out(host.loop, SECONDS)
        return relay

    relay = host.call(late)
    host.wait_for(lambda: two.right.data == b"in time" or ends, lambda: ends)
    assert two.right.data == b"in time"
    relay.close()
    for sock in (one.client, two.server):
        sock.abort()


def test_a_connection_that_stands_in_time_is_made(host, crowd):
    with plain_listener() as listener:
        client = TcpSocket()
        client.connect_timeout = SECONDS
        recorder = Recorder(client)

        def late():
            host.loop.call_soon(crowd)
            client.connect("127.0.0.1", listener.getsockname()[1])  # it plans its next step too
            host.loop.call_soon(sit_out, host.loop, SECONDS)

        host.call(late)
        host.wait_for(lambda: recorder.has("connected") or recorder.has("error"))
        assert not recorder.has("error"), client.error_string
        client.abort()


def test_a_handshake_that_is_answered_in_time_is_done(host, certificates, crowd):
    configuration = certificates.server()
    context = Context(
        server_side=True,
        certificate=configuration.local_certificate_chain[0],
        private_key=configuration.private_key,
        verify_mode=0,
        use_system_ca=False,
    )

    def attempt(client, recorder, seconds):
        """False when this machine took longer than that to make the answer."""
        with plain_listener() as listener:
            client.connect("127.0.0.1", listener.getsockname()[1])
            host.wait_for(lambda: recorder.has("connected"), recorder.events)
            with listener.accept()[0] as connection:
                connection.settimeout(DEADLINE)
                client.handshake_timeout = seconds
                host.call(client.start_client_encryption)
                host.turn()
                engine = Engine(context)
                engine.start()
                engine.decrypt(connection.recv(65536))
                if recorder.has("error"):
                    return False

                def late():
                    crowd()
                    connection.sendall(engine.take())
                    sit_out(host.loop, seconds)

                host.call(late)
                host.wait_for(lambda: recorder.has("encrypted") or recorder.has("error"), recorder.events)
                return True

    for doubling in count():
        client = SslSocket()
        client.configuration = certificates.client()
        client.peer_verify_name = "localhost"
        recorder = Recorder(client)
        in_time = attempt(client, recorder, SECONDS * 2**doubling)
        client.abort()
        if in_time:
            break
    assert recorder.has("encrypted"), client.error_string


RELAYS = """
import os, signal, socket, sys, threading
from sslsock.core.loop import Loop
from sslsock.core.relay import ChannelRelay

seconds, listening = float(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))

class Observer:
    def _on_relay_closed(self, reason):
        if not stopping.is_set():
            os._exit(3)  # this machine is too busy for so short a time
        os._exit(4)

loop, stopping, relays = Loop(), threading.Event(), []
ends = [listening.accept()[0] for _ in range(int(sys.argv[3]) * 2)]
for end in ends:
    end.setblocking(False)
relays = [
    ChannelRelay(loop, front.detach(), back.detach(), Observer(), idle_seconds=seconds)
    for front, back in zip(ends[::2], ends[1::2])
]

def stop():
    for _ in range(10000):  # to be stopped in its wait is what is of interest here, and no more than that
        with open(f"/proc/self/task/{os.getpid()}/wchan") as place:
            if "ep" in place.read():
                break
    stopping.set()
    os.kill(os.getpid(), signal.SIGSTOP)

loop.call_soon(threading.Thread(target=stop, daemon=True).start)
loop.run()
"""


def test_a_process_that_was_stopped_finds_nobody_idle_who_has_spoken():
    """A virtual machine that was paused, a laptop that slept, Ctrl-Z: the wait ends by a signal, with every deadline past."""
    relays = 20
    for doubling in count(1):
        seconds = SECONDS * 2**doubling
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listener, contextlib.ExitStack() as stack:
            child = subprocess.Popen(
                [sys.executable, "-c", RELAYS, str(seconds), str(listener.fileno()), str(relays)],
                pass_fds=[listener.fileno()],
            )
            stack.callback(child.wait)
            stack.callback(child.kill)
            ends = []
            for _ in range(relays * 2):  # one after the other: it accepts them in that order
                end = stack.enter_context(socket.create_connection(listener.getsockname(), DEADLINE))
                ends.append(end)
            status = os.waitpid(child.pid, os.WUNTRACED)[1]
            if not os.WIFSTOPPED(status):
                child.returncode = os.waitstatus_to_exitcode(status)
                assert child.returncode == 3
                continue
            for front in ends[::2]:
                front.sendall(b"in time")
            select.select([], [], [], seconds)
            child.send_signal(signal.SIGCONT)
            assert [back.recv(100) for back in ends[1::2]] == [b"in time"] * relays
            return
