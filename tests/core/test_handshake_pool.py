"""Handshakes whose dear steps are done by the threads of a HandshakePool.

A step is held up in a thread by the key log: libssl calls it in the midst, and the thread waits in it, without the GIL,
until the test lets it go on.
"""

import gc
import os
import random
import socket
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from sslsock.core import channel as core
from sslsock.core.engine import Engine
from sslsock.core.handshake_pool import HandshakePool
from sslsock.core.loop import Loop

from .pairs import (
    DEADLINE,
    TLS_1_2,
    TLS_1_3,
    VERSIONS,
    Recorder,
    channel_on,
    channel_pair,
    client_context,
    client_context_of,
    descriptors,
    drive,
    exchange,
    identity,
    server_context,
    tls_channel_pair,
)


class Gate:
    """A key log that holds up whatever thread comes but the one that has made it."""

    def __init__(self):
        self.own = threading.get_ident()
        self.way = threading.Event()
        self.inside = 0
        self.threads = set()

    def __call__(self, line):
        self.threads.add(threading.get_ident())
        if threading.get_ident() != self.own and not self.way.is_set():
            self.inside += 1
            self.way.wait(DEADLINE)
            self.inside -= 1


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.way.set()


@pytest.fixture
def pool():
    return HandshakePool(1)


def threads_of_pools():
    """Their ids; one of an earlier test's pool may be about to end."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as comm:
                if comm.read().strip() == "sslsock-shake":
                    found.add(task)
        except OSError:
            pass  # it has ended
    return found


def wait_until(condition, what):
    """For what happens in another thread."""
    waited = threading.Event()
    for _ in range(int(DEADLINE * 100)):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError(f"{what} did not come in {DEADLINE:.0f} s")


def shaken(loop, near, near_record, far, far_record):
    drive(loop, lambda: near.encrypted and far.encrypted, "the handshake")


def begin(loop, near, far, pool, context, version=0, **handlers):
    """The handshake: `far` is the server."""
    engine = Engine(context, **handlers)
    far.start_tls(engine, DEADLINE, pool)
    near.start_tls(Engine(client_context_of(version), server_name="localhost", verify_name="localhost"), DEADLINE)
    return engine


def held(loop, gate, pool, **hooks):
    """A handshake whose server is in a thread of the pool: the client's channel and its recorder, the server's."""
    near, near_record, far, far_record = channel_pair(loop, far=Recorder(**hooks))
    before = gate.inside
    begin(loop, near, far, pool, server_context(TLS_1_3, key_log=gate))
    drive(loop, lambda: gate.inside > before, "the step in a thread")
    return near, near_record, far, far_record


def queued(loop, gate, pool):
    """A handshake that waits behind one that is held."""
    near, near_record, far, far_record = channel_pair(loop)
    before = pool.waiting
    begin(loop, near, far, pool, server_context(TLS_1_3))
    drive(loop, lambda: pool.waiting > before, "the step that waits for a thread")
    return near, near_record, far, far_record


@pytest.mark.parametrize("version", VERSIONS)
def test_the_handshake_is_done_in_a_thread(loop, pool, version):
    lines = Gate()
    lines.way.set()
    near, near_record, far, far_record = channel_pair(loop)
    begin(loop, near, far, pool, server_context(version, key_log=lines), version)
    assert pool.running == 0, "threads are made when there is something to do"
    drive(loop, lambda: near.encrypted and far.encrypted, "the handshake")
    assert pool.running == 1
    if version == TLS_1_3:  # the secrets of TLS 1.2 come with the client's answer, which costs little
        assert lines.threads - {threading.get_ident()}, "libssl was in the loop's thread alone"
    exchange(loop, near, near_record, far, far_record)
    assert not far_record.count("failed")
    near.abort()
    far.abort()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("accepts", [True, False])
def test_a_clients_certificate_is_judged_in_the_loops_thread(loop, pool, version, accepts):
    judged = []

    def judge(errors):
        judged.append(threading.get_ident())
        return accepts

    own = identity("ecdsa", "second")
    near, near_record, far, far_record = channel_pair(loop)
    far.start_tls(Engine(server_context(version, verify_mode=1), verify_handler=judge), DEADLINE, pool)
    client = client_context(version, certificate=own.certificate, private_key=own.key)
    near.start_tls(Engine(client, server_name="localhost", verify_name="localhost"), DEADLINE)
    drive(loop, lambda: far.encrypted or far_record.failure is not None, "the handshake")
    assert judged == [threading.get_ident()]
    if accepts:
        drive(loop, lambda: near.encrypted, "the client's handshake")
        exchange(loop, near, near_record, far, far_record)
    else:
        assert far_record.failure == core.FAILURE_HANDSHAKE
        drive(loop, lambda: near_record.failure is not None or near_record.has("peer_closed", False), "the alert")
        assert "alert" in near_record.message
    near.abort()
    far.abort()


def test_the_loop_serves_others_meanwhile(loop, gate, pool):
    others = tls_channel_pair(loop)
    near, near_record, far, far_record = held(loop, gate, pool)
    waiting = queued(loop, gate, pool)
    for _ in range(3):
        exchange(loop, *others)
    assert not far.encrypted
    assert not waiting[2].encrypted
    gate.way.set()
    drive(loop, lambda: near.encrypted and far.encrypted and waiting[0].encrypted, "the handshakes")
    exchange(loop, near, near_record, far, far_record)
    exchange(loop, *waiting)


def test_they_are_done_in_the_order_in_which_they_came(loop, gate, pool):
    first = held(loop, gate, pool)
    done = []
    waiting = []
    for number in range(5):
        waiting.append(queued(loop, gate, pool))
        waiting[-1][1].hooks["encrypted"] = lambda record, number=number: done.append(number)
    assert (pool.running, pool.waiting) == (1, 5)
    gate.way.set()
    drive(loop, lambda: first[0].encrypted and len(done) == 5, "the handshakes")
    assert done == list(range(5))


def test_as_many_threads_as_were_asked_for(loop, gate):
    pool = HandshakePool(3)
    for number in range(1, 4):
        held(loop, gate, pool)
        assert (pool.running, gate.inside) == (number, number)
    queued(loop, gate, pool)
    assert pool.running == 3
    gate.way.set()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumption_costs_little_and_stays_in_the_loop(loop, version):
    server, client = server_context(version), client_context(version)
    for resumed in (False, True):
        pool = HandshakePool(1)
        near, near_record, far, far_record = channel_pair(loop)
        engine = Engine(server)
        far.start_tls(engine, DEADLINE, pool)
        near.start_tls(Engine(client, server_name="localhost", verify_name="localhost", session_key="same"), DEADLINE)
        shaken(loop, near, near_record, far, far_record)
        exchange(loop, near, near_record, far, far_record)
        assert (engine.session_reused, pool.running) == (resumed, 0 if resumed else 1)
        near.abort()
        far.abort()


def test_the_handshake_of_a_client_that_signs_nothing_we_have_fails_with_its_alert(loop, pool):
    """What fails is found out in the thread."""
    near, near_record, far, far_record = channel_pair(loop)
    far.start_tls(Engine(server_context(TLS_1_2, kind="ecdsa", ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")), DEADLINE, pool)
    near.start_tls(Engine(client_context(TLS_1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256")), DEADLINE)
    drive(loop, lambda: far_record.failure is not None and near_record.failure is not None, "the failure")
    assert far_record.failure == core.FAILURE_HANDSHAKE
    assert "no shared cipher" in far_record.message
    assert "handshake failure" in near_record.message
    assert pool.running == 1


def test_a_hello_that_is_asked_for_again(loop, pool):
    near, near_record, far, far_record = channel_pair(loop)
    far.start_tls(Engine(server_context(TLS_1_3, groups="P-384")), DEADLINE, pool)
    near.start_tls(Engine(client_context(TLS_1_3, groups="X25519:P-384"), server_name="localhost"), DEADLINE)
    drive(loop, lambda: near.encrypted and far.encrypted, "the handshake")
    exchange(loop, near, near_record, far, far_record)


def test_without_an_event_loops_thread_for_keys_there_is_no_pool(loop, pool):
    """A handler for pre-shared keys is asked in the midst of what is dear: the loop's thread does it all."""
    asked = []

    def key_of(said):
        asked.append(threading.get_ident())
        return ("", b"k" * 32)

    server = server_context(pre_shared_keys=True)
    client = client_context(pre_shared_keys=True)
    near, near_record, far, far_record = channel_pair(loop)
    far.start_tls(Engine(server, pre_shared_key_handler=key_of), DEADLINE, pool)
    near.start_tls(Engine(client, pre_shared_key_handler=lambda said: ("me", b"k" * 32)), DEADLINE)
    shaken(loop, near, near_record, far, far_record)
    assert set(asked) == {threading.get_ident()}
    assert pool.running == 0


def test_a_certificate_in_one_record_with_the_hello_is_not_judged_in_a_thread(loop, pool):
    judged = []
    own = identity("ecdsa", "second")
    hello = Engine(client_context(TLS_1_2)).start()
    der = own.certificate.to_der()
    certificates = len(der).to_bytes(3, "big") + der
    message = len(certificates).to_bytes(3, "big") + certificates
    message = b"\x0b" + len(message).to_bytes(3, "big") + message
    record = hello[5:] + message
    near, peer = socket.socketpair()
    near.setblocking(False)
    far, far_record = channel_on(loop, near)
    engine = Engine(server_context(TLS_1_2, verify_mode=1), verify_handler=lambda errors: judged.append(1))
    far.start_tls(engine, DEADLINE, pool)
    peer.sendall(hello[:3] + len(record).to_bytes(2, "big") + record)
    drive(loop, lambda: far_record.failure is not None, "the failure")
    assert far_record.failure == core.FAILURE_HANDSHAKE
    assert "before it was asked for" in far_record.message
    assert judged == []
    assert pool.running == 1
    peer.close()


# ends: of one that waits for a thread (`queued`), and of one that is in a thread (`held`)


def abort(loop, near, near_record, far, far_record):
    far.abort()
    assert far_record.events == []


def finish(loop, near, near_record, far, far_record):
    far.finish()
    assert far_record.has("drained")


def refuse(loop, near, near_record, far, far_record):
    far.refuse(80)
    assert far_record.events == []


def peer_aborts(loop, near, near_record, far, far_record):
    near.abort()
    drive(loop, lambda: far_record.failure is not None, "the peer's end")
    assert far_record.failure in (core.FAILURE_HANDSHAKE_CLOSED, core.FAILURE_RESET)


def peer_finishes(loop, near, near_record, far, far_record):
    near.finish()
    drive(loop, lambda: far_record.failure is not None, "the peer's end")
    assert far_record.failure == core.FAILURE_HANDSHAKE_CLOSED


def ended(loop, near, near_record, far, far_record):
    near.abort()
    drive(loop, lambda: far.fileno() < 0, "the channel's end")
    return weakref.ref(far)


ENDS = (abort, finish, refuse, peer_aborts, peer_finishes)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", ["queued", "held"])
def test_an_end_meanwhile(loop, gate, pool, where, end):
    number = descriptors()
    blocking = held(loop, gate, pool) if where == "queued" else None
    four = queued(loop, gate, pool) if where == "queued" else held(loop, gate, pool)
    end(loop, *four)
    assert pool.waiting == 0
    gone = ended(loop, *four)
    del four
    gc.collect()
    assert gone() is None, "the channel waits for a thread"
    gate.way.set()
    if blocking is not None:
        drive(loop, lambda: blocking[0].encrypted and blocking[2].encrypted, "the other handshake")
        exchange(loop, *blocking)
        blocking[0].abort()
        blocking[2].abort()
    wait_until(lambda: gate.inside == 0, "the thread's end of the step")
    assert descriptors() == number


@pytest.mark.parametrize("where", ["queued", "held"])
def test_a_deadline_meanwhile(loop, gate, pool, where):
    _, _, far, far_record = held(loop, gate, pool)
    if where == "queued":
        _, _, far, far_record = queued(loop, gate, pool)
    far._handshake_overdue()  # its timer's callback: no test depends on how long a thread takes to come
    assert far_record.failure == core.FAILURE_HANDSHAKE_TIMEOUT
    assert pool.waiting == 0
    gate.way.set()


def test_written_meanwhile_is_sent_behind_the_handshake(loop, gate, pool):
    near, near_record, far, _ = held(loop, gate, pool)
    far.write(b"early")
    far.flush()
    near.write(b"bird")
    far.finish()
    gate.way.set()
    drive(loop, lambda: near_record.has("peer_closed", True), "the data")
    assert near_record.received == b"early"


@pytest.mark.parametrize("where", ["queued", "held"])
@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_that_ends_meanwhile(gate, pool, where, closed):
    number = descriptors()
    loop = Loop()
    four = held(loop, gate, pool)
    if where == "queued":
        four = queued(loop, gate, pool)
    channel, gone = weakref.ref(four[2]), weakref.ref(loop)
    if closed:
        loop.close()
        assert descriptors() == number
    del four, loop
    gc.collect()
    assert gone() is None, "the loop waits for a thread"
    assert channel() is None
    assert descriptors() == number
    gate.way.set()
    wait_until(lambda: gate.inside == 0, "the thread's end of the step")


def test_a_step_that_is_done_when_nobody_turns_the_loop(gate, pool):
    loop = Loop()
    four = held(loop, gate, pool)
    gate.way.set()
    wait_until(lambda: gate.inside == 0, "the thread's end of the step")
    gone = weakref.ref(loop)
    del four, loop
    gc.collect()
    assert gone() is None


def engines_left():
    gc.collect()
    return sum(type(each) is Engine for each in gc.get_objects())


def test_the_engine_is_let_go_of_when_the_thread_is_out(loop, gate, pool):
    before = engines_left()
    near, near_record, far, far_record = held(loop, gate, pool)
    far.abort()
    near.abort()
    del near, far, near_record, far_record
    assert engines_left() == before + 1, "it was freed while a thread was in it"
    gate.way.set()
    wait_until(lambda: engines_left() == before, "the engine's end")


def test_threads_end_with_their_pool(loop, gate):
    before = threads_of_pools()
    pool = HandshakePool(2)
    four = held(loop, gate, pool)
    mine = threads_of_pools() - before
    assert len(mine) == 1
    del pool
    gate.way.set()
    shaken(loop, *four)
    four[0].abort()
    four[2].abort()
    del four
    gc.collect()
    wait_until(lambda: not threads_of_pools() & mine, "the threads' end")


def test_two_loops_in_two_threads_with_one_pool(loop, gate):
    pool = HandshakePool(1)
    here = held(loop, gate, pool)
    failed = []
    ready = threading.Event()

    def other():
        try:
            second = Loop()
            near, near_record, far, far_record = channel_pair(second)
            begin(second, near, far, pool, server_context(TLS_1_3))
            drive(second, lambda: pool.waiting == 1, "the step that waits for a thread")
            ready.set()
            drive(second, lambda: near.encrypted and far.encrypted, "the handshake")
            exchange(second, near, near_record, far, far_record)
            second.close()
        except BaseException as exc:
            failed.append(exc)
            ready.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert ready.wait(DEADLINE)
    gate.way.set()
    drive(loop, lambda: here[0].encrypted and here[2].encrypted, "the handshake")
    thread.join(DEADLINE)
    assert failed == []


def in_child(function):
    """What `function` returns in a forked child: 0 where it was all right."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = function() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("where", ["queued", "held"])
def test_a_fork_meanwhile(loop, gate, pool, where):
    """The child has no threads and none of the handshakes; it makes its own. The parent's go on."""
    four = held(loop, gate, pool)
    others = queued(loop, gate, pool) if where == "queued" else None

    def child():
        own = Loop()
        assert (pool.running, pool.waiting) == (0, 0)
        near, near_record, far, far_record = channel_pair(own)
        begin(own, near, far, pool, server_context(TLS_1_3))
        drive(own, lambda: near.encrypted and far.encrypted, "the child's handshake")
        exchange(own, near, near_record, far, far_record)
        assert pool.running == 1

    assert in_child(child) == 0
    gate.way.set()
    for each in (four, others):
        if each is not None:
            drive(loop, lambda each=each: each[0].encrypted and each[2].encrypted, "the parent's handshake")
            exchange(loop, *each)


@pytest.mark.parametrize("threads", [0, 257, -1])
def test_an_impossible_number_of_threads(threads):
    with pytest.raises(ValueError, match=str(threads)):
        HandshakePool(threads)


@pytest.mark.parametrize("threads", ["2", 2.0, None, True])
def test_what_is_no_number_of_threads(threads):
    with pytest.raises(TypeError):
        HandshakePool(threads)


@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_handshakes_and_ends(loop, seed):
    """What is not ended by somebody becomes a connection, and nothing is left of the rest."""
    chance = random.Random(seed)
    number = descriptors()
    pools = [HandshakePool(chance.randint(1, 3)) for _ in range(2)]
    contexts = [(server_context(version), version) for version in VERSIONS]
    alive, done = [], 0

    def settle(four):
        nonlocal done
        exchange(loop, *four)
        four[0].abort()
        four[2].abort()
        done += 1

    for _ in range(150):
        four = channel_pair(loop)
        context, version = chance.choice(contexts)
        hooks = {}
        if chance.random() < 0.2:
            hooks["verify_handler"] = lambda errors: True
        begin(loop, four[0], four[2], chance.choice(pools), context, version, **hooks)
        alive.append(four)
        for _ in range(chance.randint(0, 4)):
            loop.dispatch(0)
        while len(alive) > 8:
            victim = alive.pop(chance.randrange(len(alive)))
            kind = chance.randrange(6)
            if kind == 0:
                victim[2].abort()
            elif kind == 1:
                victim[0].abort()
            elif kind == 2:
                victim[2].finish()
            elif kind == 3:
                victim[0].finish()
            else:
                drive(loop, lambda victim=victim: victim[0].encrypted and victim[2].encrypted, "the handshake")
                settle(victim)
            if chance.random() < 0.1:
                gc.collect()
            if chance.random() < 0.2:
                pools[chance.randrange(2)] = HandshakePool(chance.randint(1, 3))
            victim[0].abort()
            victim[2].abort()
    for four in alive:
        drive(loop, lambda four=four: four[0].encrypted and four[2].encrypted, "the handshake")
        settle(four)
    assert done > 20
    drive(loop, lambda: descriptors() == number, "the descriptors' end")


ENDING = """
import sys, threading
sys.path[:0] = {path!r}
from core.pairs import *
from sslsock.core.engine import Engine
from sslsock.core.handshake_pool import HandshakePool
from sslsock.core.loop import Loop

loop, pool = Loop(), HandshakePool(2)
context = server_context(TLS_1_3, kind="rsa")
pairs = []
for _ in range(40):
    near, near_record, far, far_record = channel_pair(loop)
    far.start_tls(Engine(context), 60, pool)
    near.start_tls(Engine(client_context_of(0)), 60)
    pairs.append((near, far, near_record, far_record))
drive(loop, lambda: pool.running > 0)
{end}
print("ended")
"""


@pytest.mark.parametrize("end", ["", "loop.close()", "del pairs, near, far; loop.close(); del loop", "sys.exit(0)"])
def test_a_program_that_ends_meanwhile(end):
    """OpenSSL cleans up behind it: no thread is in it then."""
    path = [str(Path(__file__).parent.parent), *sys.path]
    code = ENDING.format(path=path, end=end)
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
