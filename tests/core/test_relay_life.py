"""Relays that come and go: close() at every moment, observers, nested turns, threads, forks, and what all of it costs."""

import contextlib
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import weakref

import pytest

from sslsock.core.engine import Engine
from sslsock.core.loop import Loop
from sslsock.core.relay import RELAY_ABORTED, RELAY_ENDED, ChannelRelay

from .far import Far, Joined, Observer, end, join
from .libssl import Libssl, calls_libssl
from .pairs import (
    DEADLINE,
    MIB,
    TLS_1_3,
    Recorder,
    channel_on,
    client_context,
    client_context_of,
    descriptors,
    drive,
    resident,
    server_context_of,
    socket_pair,
    turns,
)

SOME = [("fd", "fd"), ("channel", "tls1.3"), ("tls1.2", "channel"), ("tls1.3", "tls1.3")]


@pytest.fixture(params=SOME, ids="-".join)
def some(request):
    return request.param


# close


@pytest.mark.parametrize("rounds", [0, 1, 2, 5, 20])
def test_close_at_every_moment(loop, some, rounds):
    joined = join(loop, some)
    joined.front.write(bytes(2 * MIB))
    joined.back.write(bytes(2 * MIB))
    joined.turns(rounds)
    joined.relay.close()
    assert joined.relay.closed and joined.observer.reason == RELAY_ABORTED and loop.idle
    joined.relay.close()
    turns(loop, 3)
    assert joined.observer.reasons == [RELAY_ABORTED]


def test_close_after_the_loop_has_gone():
    loop = Loop()
    joined, ended = join(loop), join(loop)
    ended.relay.close()
    loop.close()
    assert joined.relay.closed and joined.observer.reasons == []
    joined.relay.close()
    ended.relay.close()
    assert joined.relay.bytes_forward == 0 and joined.relay.seconds >= 0


@pytest.mark.parametrize("ended", ["front", "back"])
@pytest.mark.parametrize("how", ["abort", "finish"])
def test_the_garbage_collector_ends_a_channel_that_is_being_joined(loop, ended, how):
    """A collection at any allocation of the making, and in it the program ends one of the two: they are not joined, and the
    other is as it was."""
    refused = 0
    for collection in range(1, 40):
        front, back = end(loop, "channel", True), end(loop, "tls1.3", False)
        ending = {"front": front, "back": back}[ended][0]
        other, peer = back if ended == "front" else front
        collections = []

        def collected(phase, info, ending=ending, collections=collections, collection=collection):
            collections.append(phase)
            if len(collections) == collection:
                getattr(ending, how)()

        before = gc.get_threshold()
        observer = Observer()
        try:
            gc.callbacks.append(collected)
            gc.set_threshold(1, 1000, 1000)
            relay = ChannelRelay(loop, front[0], back[0], observer)
        except ValueError:
            refused += 1
            assert other.is_open and not ending.is_open
            other.write(b"still there")
            drive(loop, lambda peer=peer: peer.pump() or peer.received == b"still there", "what the other sends", 0)
            other.abort()
        else:
            relay.close()
            assert observer.reasons == [RELAY_ABORTED]
        finally:
            gc.set_threshold(*before)
            gc.callbacks.remove(collected)
        for one in (front, back):
            one[1].sock.close()
        drive(loop, lambda ending=ending: ending.fileno() < 0, "the end", 0.01)
        if len(collections) < collection:
            break
    else:
        raise AssertionError("it takes more collections than were tried")
    assert refused or sys.version_info >= (3, 12), (
        "nothing was ended while it was being joined"
    )  # there it runs between bytecodes


def test_another_thread_may_not_close_it(loop):
    joined, errors = join(loop), []

    def close():
        try:
            joined.relay.close()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert errors and not joined.relay.closed
    joined.relay.close()


def test_an_observer_closes_the_others_starts_new_ones_and_raises(loop):
    others = [join(loop) for _ in range(20)]
    made = []

    def hook():
        for other in others:
            other.relay.close()
        made.append(join(loop, ("tls1.3", "fd")))
        raise ZeroDivisionError

    first = join(loop, observer=Observer(hook))
    others.insert(10, first)
    for one in others:
        one.front.write(bytes(MIB))
    first.front.sock.close()
    first.back.sock.close()
    drive(loop, lambda: made, "the end of the first")
    assert all(other.relay.closed for other in others)
    assert [type(error) for error in loop.exception_handler.take()] == [ZeroDivisionError]
    made[0].front.write(b"new")
    made[0].drive(lambda: made[0].back.received == b"new")


def test_an_observer_that_runs_turns_of_its_own(loop):
    busy = join(loop, ("tls1.3", "fd"))
    busy.front.write(bytes(3 * MIB))
    short = join(loop, observer=Observer(lambda: busy.drive(lambda: len(busy.back.received) == 3 * MIB)))
    short.front.finish()
    short.back.finish()
    short.until_closed()
    assert short.observer.reason == RELAY_ENDED and len(busy.back.received) == 3 * MIB


def test_a_relay_nobody_holds_lives_on_and_goes(loop):
    front, back, observer = end(loop, "tls1.3", True), end(loop, "fd", False), Observer()
    relay = ChannelRelay(loop, front[0], back[0], observer)
    gone = weakref.ref(relay)
    del relay
    gc.collect()
    front[1].write(b"through")
    drive(loop, lambda: front[1].pump() or back[1].pump() or back[1].received == b"through", "data", 0)
    front[1].sock.close()
    back[1].sock.close()
    drive(loop, lambda: observer.reasons, "the end")
    assert gone() is None, "it goes without the garbage collector"


def test_a_loop_that_is_dropped_takes_its_relays_along():
    gc.collect()
    before = descriptors()
    loop = Loop()
    joined = join(loop, ("tls1.3", "channel"))
    joined.front.write(b"under way")
    joined.turns(2)
    gone = weakref.ref(joined.relay)
    joined.front.sock.close()
    joined.back.sock.close()
    del joined, loop
    gc.collect()
    assert gone() is None and descriptors() == before


def test_a_forked_child_leaves_it_alone(loop, some):
    joined = join(loop, some)
    joined.front.write(b"before ")
    joined.turns(3)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in (joined.relay.close, lambda: loop.dispatch(0)):
                try:
                    call()
                except RuntimeError:
                    status = 0
                else:
                    os._exit(2)
            loop.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    joined.front.write(b"after")
    joined.drive(lambda: joined.back.received == b"before after")
    joined.back.write(b"back")
    joined.drive(lambda: joined.front.received == b"back")


# turns


def test_a_nested_turn_that_waits_sees_what_relays_do(loop):
    joined, seen = join(loop), []

    def handler():
        joined.front.sock.send(b"x")
        while joined.relay.bytes_forward == 0:
            loop.dispatch(None)  # what a relay does is "something happens", too
        seen.append(joined.relay.bytes_forward)

    loop.call_soon(handler)
    loop.dispatch(0)
    assert seen == [1]


def test_the_others_get_their_turns_beside_a_busy_relay():
    loop = Loop()
    ends = socket.socketpair(), socket.socketpair()
    relay = ChannelRelay(loop, ends[0][0].detach(), ends[1][0].detach(), Observer())
    done, counts = threading.Event(), {"timer": 0, "foreign": 0, "small": 0}
    small = join(loop)

    def pour():
        try:
            while not done.is_set():
                ends[0][1].send(bytes(MIB))
        except OSError:
            pass

    def drink():
        while ends[1][1].recv(MIB):
            pass

    def tick():
        counts["timer"] += 1
        small.front.write(b"x")
        small.front.pump()
        small.back.pump()
        counts["small"] = len(small.back.received)
        loop.call_later(0, tick)

    def foreign():
        counts["foreign"] += 1
        if min(counts.values()) < 20:
            threading.Thread(target=loop.call_soon_threadsafe, args=(foreign,)).start()
        else:
            loop.stop()

    threads = [threading.Thread(target=pour), threading.Thread(target=drink)]
    for thread in threads:
        thread.start()
    tick()
    loop.call_soon_threadsafe(foreign)
    loop.run()
    assert relay.bytes_forward > 0
    done.set()
    for thread, sock in zip(threads, (ends[0][1], ends[1][1])):
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        sock.close()
    loop.close()


def test_a_signal_is_seen_while_only_relays_are_busy():
    loop = Loop()
    ends = socket.socketpair(), socket.socketpair()
    relay = ChannelRelay(loop, ends[0][0].detach(), ends[1][0].detach(), Observer())
    for _, end_of_cat in ends:
        end_of_cat.setblocking(True)  # cat knows no other; a default time limit makes sockets that do not block
    # cat sends back what it gets: the relay is never without work, and nothing but the signal ends it.
    cats = [
        subprocess.Popen(["sh", "-c", "cat"], stdin=ends[0][1], stdout=ends[0][1]),
        subprocess.Popen(["sh", "-c", "head -c 60000 /dev/zero; exec cat"], stdin=ends[1][1], stdout=ends[1][1]),
    ]
    ends[0][1].close()
    ends[1][1].close()

    def seen(number, frame):
        raise InterruptedError

    drive(loop, lambda: relay.bytes_forward and relay.bytes_back, "the cats at work")
    before = signal.signal(signal.SIGPROF, seen)
    try:
        with pytest.raises(InterruptedError):
            signal.setitimer(signal.ITIMER_PROF, 0.05)  # seconds of work, which the loop alone does
            loop.run()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        loop.close()
    for cat in cats:
        cat.wait(DEADLINE)


def test_other_threads_run_while_a_relay_is_busy():
    """The counter can only move while the relay's thread has no GIL: that thread does nothing else."""
    loop, total = Loop(), 256 * MIB
    ends = socket.socketpair(), socket.socketpair()
    observer = Observer()
    relay = ChannelRelay(loop, ends[0][0].detach(), ends[1][0].detach(), observer)
    for one in ends:
        one[1].setblocking(True)  # as above
    pour = subprocess.Popen(["head", "-c", str(total), "/dev/zero"], stdout=ends[0][1])
    drink = subprocess.Popen(["cat"], stdin=ends[1][1], stdout=subprocess.DEVNULL)
    for one in ends:
        one[1].close()
    counted, stop = [0], []

    def count():
        while not stop:
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    before = counted[0]
    loop.run()
    progress = counted[0] - before
    stop.append(True)
    thread.join()
    assert pour.wait(DEADLINE) == drink.wait(DEADLINE) == 0
    assert relay.bytes_forward == total and observer.reason == RELAY_ENDED
    assert progress > 100_000, "the counter stood still"
    loop.close()


def test_loops_in_several_threads_share_contexts():
    failures = []

    def work(seed):
        try:
            loop = Loop()
            for number in range(6):
                joined = join(loop, ("tls1.3", "tls1.2") if (seed + number) % 2 else ("tls1.3", "tls1.3"))
                data = os.urandom(200_000)
                joined.front.write(data)
                joined.back.write(data[::-1])
                joined.front.finish()
                joined.back.finish()
                joined.until_closed()
                assert joined.back.received == data and joined.front.received == data[::-1]
                assert joined.observer.reason == RELAY_ENDED
            loop.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# TLS after the handshake


def test_sessions_that_come_through_a_relay_are_kept(loop):
    context = client_context()
    for reused in (False, True):
        near, far = socket_pair()
        channel, recorder = channel_on(loop, near, Recorder(greedy=False))
        mine = Engine(context, verify_name="localhost", session_key="back end")
        peer, front, made = Far(far, Engine(server_context_of(TLS_1_3))), end(loop, "fd", True), []

        def join_now(recorder, channel=channel, peer=peer, front=front, made=made):
            made.append(Joined(loop, front, (channel, peer)))

        recorder.hooks["encrypted"] = join_now  # before the tickets come
        channel.start_tls(mine, DEADLINE)
        drive(loop, lambda peer=peer, made=made: peer.pump() or made, "the handshake", 0)
        joined = made[0]
        joined.drive(lambda joined=joined: joined.back.engine.handshake_done)
        joined.back.write(b"answer")
        joined.drive(lambda joined=joined: joined.front.received == b"answer")
        joined.turns(3)
        assert mine.session_reused == reused
        with pytest.raises(RuntimeError, match="at work"):
            mine.encrypt(b"behind the relay's back")
        joined.relay.close()


@calls_libssl
def test_an_engine_in_a_relay_can_be_read_in_every_thread(loop):
    """While the relay's thread, without the GIL, has libssl replace and free its session at each ticket."""
    peer = Libssl(TLS_1_3, server_side=True)
    near, sock = socket_pair()
    channel, _ = channel_on(loop, near, Recorder(greedy=False))
    engine = Engine(client_context_of(TLS_1_3), server_name="localhost", verify_name="localhost")
    channel.start_tls(engine, DEADLINE)

    def shaken():
        with contextlib.suppress(BlockingIOError):
            peer.feed(sock.recv(65536))
        if not peer.done:
            peer.shake()
        sock.send(peer.take())
        return peer.done and channel.encrypted

    drive(loop, shaken, "the handshake", 0)
    near, back = socket_pair()
    relay = ChannelRelay(loop, channel, near.detach(), Observer())

    def look():
        return (
            *(engine.protocol, engine.cipher, engine.group, engine.next_protocol, engine.session_reused),
            *(engine.requested_server_name, engine.verify_errors, engine.server_side, engine.handshake_done),
            *(engine.refused_certificate, engine.certificate_missing, engine.peer_certificate_chain()),
        )

    expected, wrong, done = look(), [], threading.Event()
    assert len(expected[-1]) == 1

    def look_on():
        try:
            while not done.is_set():
                wrong.extend(seen for _ in range(100) if (seen := look()) != expected)
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=look_on, daemon=True)
    thread.start()
    try:
        for _ in range(300):
            rest = b"".join(peer.ticket() + peer.write(b"x") for _ in range(10))
            while rest:
                rest = rest[sock.send(rest) :]
            loop.dispatch(0)
            with contextlib.suppress(BlockingIOError):
                back.recv(65536)
        drive(loop, lambda: relay.bytes_forward == 3000, "all of it")
    finally:
        done.set()
        thread.join(DEADLINE)
        relay.close()
        sock.close()
        back.close()
    assert wrong == []


# many


@pytest.mark.slow
def test_a_thousand_at_once_and_many_short_ones_leave_nothing(loop):
    before = descriptors()

    def short(number):
        joined = join(loop)
        joined.front.write(b"question")
        joined.front.finish()
        joined.back.write(b"answer")
        joined.back.finish()
        joined.until_closed()
        assert joined.back.received == b"question" and joined.front.received == b"answer"

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    many = [join(loop) for _ in range(1000)]
    for number, one in enumerate(many):
        one.front.write(b"%d" % number)
        one.front.pump()
    turns(loop, 10)
    for number, one in enumerate(many):
        one.back.pump()
        assert one.back.received == b"%d" % number
    for one in many:
        one.relay.close()
    del many, one
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for number in range(500):
        short(number)
    gc.collect()
    memory, objects = resident(), len(gc.get_objects())
    for number in range(10_000):
        short(number)
    gc.collect()
    assert descriptors() == before and loop.idle
    assert len(gc.get_objects()) <= objects + 50
    assert resident() <= memory + 2048
