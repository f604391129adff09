"""The loop alone: calls, timers, watched descriptors, nesting, threads, forks."""

import contextlib
import errno
import gc
import itertools
import math
import os
import random
import select
import signal
import socket
import threading
import weakref

import pytest

from sslsock.core.channel import Channel
from sslsock.core.listener import Listener
from sslsock.core.loop import Loop
from sslsock.core.reactor import Watcher
from sslsock.core.schedule import Timer
from sslsock.core.watch import Watch

from .pairs import Recorder, channel_pair, descriptors, drive, exchange, socket_pair, tls_channel_pair, turns

IN, OUT = select.EPOLLIN, select.EPOLLOUT


@pytest.fixture
def pipe():
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield read_end, write_end
    for end in (read_end, write_end):
        try:
            os.close(end)
        except OSError as error:
            assert error.errno == errno.EBADF


# calls


def test_calls_come_in_the_order_they_were_planned(loop):
    seen = []
    for number in range(100):
        loop.call_soon(seen.append, number)
    loop.dispatch(0)
    assert seen == list(range(100))


def test_a_call_planned_in_a_call_comes_in_the_next_turn(loop):
    seen = []

    def again():
        seen.append(1)
        loop.call_soon(again)

    loop.call_soon(again)
    loop.dispatch(0)
    assert len(seen) == 1
    loop.dispatch(0)
    assert len(seen) == 2


def test_calls_take_arguments(loop):
    seen = []
    loop.call_soon(lambda *args: seen.append(args), 1, "two", None)
    loop.dispatch(0)
    assert seen == [(1, "two", None)]


@pytest.mark.parametrize("plan", ["call_soon", "call_soon_threadsafe"])
def test_what_cannot_be_called_is_a_type_error(loop, plan):
    with pytest.raises(TypeError, match="callable"):
        getattr(loop, plan)(7)
    with pytest.raises(TypeError, match="callable"):
        loop.call_later(1, None)


def test_a_callback_is_let_go_after_its_call(loop):
    class Thing:
        def __call__(self):
            pass

    thing = Thing()
    gone = weakref.ref(thing)
    loop.call_soon(thing)
    loop.call_later(0, thing)
    loop.call_soon_threadsafe(thing)
    del thing
    drive(loop, lambda: loop.idle)
    turns(loop, 2)
    assert gone() is None


# exceptions


def test_an_exception_goes_to_the_handler_and_harms_no_other_call(loop):
    seen = []
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(seen.append, "next")
    loop.dispatch(0)
    assert seen == ["next"]
    assert [type(error) for error in loop.exception_handler.take()] == [ZeroDivisionError]


def test_the_exception_handler_is_told_where_it_came_from():
    loop, told = Loop(), []
    loop.exception_handler = lambda loop, context: told.append((loop, context))
    callback = [].pop
    loop.call_soon(callback)
    loop.dispatch(0)
    assert told[0][0] is loop
    assert told[0][1]["source"] is callback
    assert isinstance(told[0][1]["exception"], IndexError) and told[0][1]["message"]
    loop.close()


def test_without_an_exception_handler_it_is_logged(caplog):
    loop = Loop()
    loop.call_soon(lambda: 1 / 0)
    loop.dispatch(0)
    assert caplog.records[0].name == "sslsock" and caplog.records[0].exc_info[0] is ZeroDivisionError
    loop.close()


def test_an_exception_in_the_exception_handler_is_logged(caplog):
    loop = Loop()
    loop.exception_handler = lambda loop, context: {}["missing"]
    loop.call_soon(lambda: 1 / 0)
    loop.dispatch(0)
    assert {record.exc_info[0] for record in caplog.records} == {ZeroDivisionError, KeyError}
    loop.close()


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_soon_threadsafe", "watch", "handler"])
def test_one_that_ends_programs_leaves_dispatch(loop, pipe, exception, how):
    def leave(*_):
        raise exception

    if how == "watch":
        watch = loop.watch(pipe[1], OUT, leave)
    elif how == "call_later":
        loop.call_later(0, leave)
    elif how == "handler":
        complaints, loop.exception_handler = loop.exception_handler, leave
        loop.call_soon(lambda: 1 / 0)
    else:
        getattr(loop, how)(leave)
    seen = []
    loop.call_soon(seen.append, "others are called first")
    with pytest.raises(exception):
        drive(loop, lambda: False)
    assert seen
    if how == "watch":
        watch.close()
    elif how == "handler":
        loop.exception_handler = complaints
    loop.dispatch(0)


def test_one_that_ends_programs_leaves_run_and_the_loop_can_run_again(loop):
    def leave():
        raise KeyboardInterrupt

    loop.call_soon(leave)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert not loop.running
    loop.run()


def test_a_signal_handlers_exception_leaves_run(loop):
    def on_signal(number, frame):
        raise TimeoutError("the alarm")

    before = signal.signal(signal.SIGALRM, on_signal)
    woken = signal.set_wakeup_fd(loop.wake_fd)  # the alarm may come just before the loop begins to wait
    try:
        loop._hold()
        with pytest.raises(TimeoutError, match="the alarm"):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            loop.run()
    finally:
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGALRM, before)
        loop._release()


def test_an_interrupt_in_a_nested_turn_leaves_the_nested_dispatch(loop):
    caught = []

    def leave():
        raise KeyboardInterrupt

    def outer():
        loop.call_soon(leave)
        try:
            loop.dispatch(0)
        except KeyboardInterrupt:
            caught.append(True)

    loop.call_soon(outer)
    loop.dispatch(0)
    assert caught


# timers


def test_timers_come_in_order_of_time(loop):
    seen = []
    delays = [number / 200 for number in range(20)]
    random.Random(1).shuffle(delays)
    earliest, latest = {}, {}  # when each is due, however long this thread was kept waiting between two lines
    for delay in delays:
        earliest[delay] = loop.time() + delay
        loop.call_later(delay, seen.append, delay)
        latest[delay] = loop.time() + delay
    drive(loop, lambda: len(seen) == 20)
    assert sorted(seen) == sorted(delays)
    assert all(earliest[one] <= latest[other] for number, one in enumerate(seen) for other in seen[number:]), seen


def test_a_timer_does_not_come_early(loop):
    begin, seen = loop.time(), []
    loop.call_later(0.02, lambda: seen.append(loop.time()))
    drive(loop, lambda: seen)
    assert seen[0] - begin >= 0.02


@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan])
def test_a_time_in_the_past_is_a_value_error(loop, seconds):
    with pytest.raises(ValueError):
        loop.call_later(seconds, print)
    with pytest.raises(ValueError):
        loop.dispatch(seconds)


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 10**12])
def test_a_time_in_the_far_future_is_fine(loop, seconds):
    timer = loop.call_later(seconds, print)
    loop.dispatch(0)
    assert not timer.cancelled
    timer.cancel()
    assert timer.cancelled


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_timers_are_cancelled_in_any_order(loop, order):
    seen = []
    timers = [loop.call_later(number / 1000, seen.append, number) for number in range(4)]
    last = loop.call_later(0.005, seen.append, "last")
    for number in order[:3]:
        timers[number].cancel()
    drive(loop, lambda: last.cancelled)
    assert seen == [order[3], "last"]


def test_the_heap_survives_random_plans_and_cancellations(loop):
    choice, seen, planned = random.Random(7), [], {}
    for number in range(3000):
        when = choice.random() / 50
        planned[number] = (when, loop.call_later(when, seen.append, number))
        if choice.random() < 0.5:
            victim = choice.choice(list(planned))
            planned.pop(victim)[1].cancel()
    for number in [number for number in planned if choice.random() < 0.5]:
        planned.pop(number)[1].cancel()
    drive(loop, lambda: loop.idle)
    assert sorted(seen) == sorted(planned)


def test_a_timer_may_cancel_itself_and_others(loop):
    seen = []

    def first():
        seen.append("first")
        for timer in timers:
            timer.cancel()

    timers = [loop.call_later(0, first), *(loop.call_later(0, seen.append, number) for number in range(9))]
    turns(loop, 3)
    drive(loop, lambda: loop.idle)
    assert seen == ["first"]


def test_cancelling_twice_and_late_does_nothing(loop):
    seen = []
    timer = loop.call_later(0, seen.append, 1)
    drive(loop, lambda: seen)
    assert timer.cancelled
    timer.cancel()
    timer.cancel()
    other = loop.call_later(100, print)
    other.cancel()
    other.cancel()
    assert loop.idle


def test_a_cancelled_timer_lets_its_callback_go(loop):
    class Thing:
        def __call__(self):
            pass

    thing = Thing()
    gone = weakref.ref(thing)
    timer = loop.call_later(100, thing)
    del thing
    timer.cancel()
    assert gone() is None


def test_objects_that_no_loop_made_do_no_harm():
    Timer().cancel()
    assert Timer().cancelled
    Watch().close()
    assert Watcher().loop is None


# other threads


def test_calls_from_other_threads_arrive_in_each_ones_order(loop):
    seen = []
    threads = [
        threading.Thread(target=lambda name=name: [loop.call_soon_threadsafe(seen.append, (name, n)) for n in range(500)])
        for name in range(4)
    ]
    for thread in threads:
        thread.start()
    drive(loop, lambda: len(seen) == 2000)
    for thread in threads:
        thread.join()
    for name in range(4):
        assert [n for who, n in seen if who == name] == list(range(500))


def test_a_call_from_another_thread_wakes_a_waiting_loop(loop):
    seen = []
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(seen.append, 1))
    thread.start()
    while not seen:
        loop.dispatch(None)
    thread.join()


def test_a_nested_turn_may_take_the_calls_of_other_threads(loop):
    seen = []

    def nested():
        loop.dispatch(0)
        seen.append("outer")

    loop.call_soon_threadsafe(nested)
    loop.call_soon_threadsafe(seen.append, "inner")
    loop.dispatch(0)
    assert seen == ["inner", "outer"]


def test_every_method_raises_in_a_foreign_thread(loop, pipe):
    near, near_record, far, _ = channel_pair(loop)
    watch = loop.watch(pipe[1], OUT, lambda events: None)
    level = loop.watch_level(pipe[0], IN, print)
    uses = [
        loop.check,
        loop.run,
        loop.stop,
        loop.dispatch,
        loop.close,
        loop.fileno,
        lambda: loop.call_soon(print),
        lambda: loop.call_later(0, print),
        lambda: loop.watch(pipe[0], IN, print),
        lambda: loop.watch_level(pipe[0], IN, print),
        watch.close,
        level.close,
        lambda: level.change(IN),
        lambda: near.write(b"x"),
        near.read,
        near.peek,
        near.read_line,
        lambda: near.read_into(bytearray(1)),
        near.discard,
        near.flush,
        near.finish,
        near.abort,
        lambda: setattr(near, "read_bound", 5),
        lambda: setattr(near, "halted", True),
        near.end_output,
    ]
    results = []

    def foreign():
        assert not loop.in_thread()
        for use in uses:
            try:
                use()
                results.append((use, "nothing"))
            except RuntimeError as error:
                results.append(str(error))

    thread = threading.Thread(target=foreign)
    thread.start()
    thread.join()
    assert all("another thread" in str(result) for result in results), results
    assert len(results) == len(uses)
    exchange(loop, near, near_record, far, _)
    watch.close()


# turns


def test_run_ends_when_nothing_is_left(loop):
    seen = []
    loop.call_later(0.001, seen.append, 1)
    loop.run()
    assert seen == [1] and loop.idle and not loop.running


def test_run_returns_at_once_when_there_is_nothing(loop):
    loop.run()


def test_hold_keeps_run_going_until_release(loop):
    loop._hold()
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop._release))
    thread.start()
    loop.run()
    thread.join()
    assert loop.idle


def test_stop_ends_run_and_leaves_things_as_they_are(loop, pipe):
    seen = []
    watch = loop.watch(pipe[0], IN, lambda events: seen.append(1))
    loop.call_soon(loop.stop)
    loop.run()
    assert loop.watching == 1
    os.write(pipe[1], b"x")
    drive(loop, lambda: seen)
    watch.close()


def test_stop_before_run_ends_it_at_once(loop):
    loop.call_later(100, print).cancel()
    timer = loop.call_later(100, print)
    loop.stop()
    loop.run()
    timer.cancel()


def test_stop_does_not_make_later_turns_spin(loop):
    loop.stop()
    loop.dispatch(0)
    begin = loop.time()
    loop.dispatch(0.02)
    loop.dispatch(0.02)
    assert loop.time() - begin >= 0.02


def test_run_inside_run_is_refused(loop):
    loop.call_soon(loop.run)
    loop.run()
    assert "running already" in str(loop.exception_handler.take()[0])


def test_dispatch_waits_no_longer_than_it_is_told(loop):
    begin = loop.time()
    assert loop.dispatch(0.01) == 0
    assert 0.009 < loop.time() - begin < 5


def test_states_tell_where_the_loop_is(loop):
    seen = []
    loop.call_soon(lambda: seen.append((loop.running, loop.dispatching)))
    assert not loop.dispatching
    loop.dispatch(0)
    loop.call_soon(lambda: seen.append((loop.running, loop.dispatching)))
    loop.run()
    assert seen == [(False, True), (True, True)]
    assert loop.thread_id == threading.get_ident() and loop.in_thread()


# nesting


def test_a_nested_turn_does_the_calls_that_the_outer_one_has_still_to_do(loop):
    seen = []

    def wait_for_the_other():
        drive(loop, lambda: "other" in seen)
        seen.append("waited")

    loop.call_soon(wait_for_the_other)
    loop.call_soon(seen.append, "other")
    loop.call_soon(seen.append, "third")
    loop.dispatch(0)
    assert seen == ["other", "third", "waited"]


def test_a_nested_turn_gets_the_events_that_the_outer_one_has_still_to_do(loop):
    """Each is an edge: the kernel does not tell it twice."""
    seen, ends = [], [os.pipe2(os.O_NONBLOCK) for _ in range(5)]

    def wait_for_all(number, events):
        seen.append(number)
        drive(loop, lambda: len(seen) == 5)

    watches = [
        loop.watch(read_end, IN, lambda events, number=number: wait_for_all(number, events))
        for number, (read_end, _) in enumerate(ends)
    ]
    for _, write_end in ends:
        os.write(write_end, b"x")
    loop.dispatch(1)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    for watch, pair in zip(watches, ends):
        watch.close()
        for end in pair:
            os.close(end)


def test_a_handler_may_nest_deeply(loop):
    depth = []

    def deeper(level):
        if level:
            loop.call_soon(deeper, level - 1)
            loop.dispatch(0)
        depth.append(level)

    loop.call_soon(deeper, 30)
    loop.dispatch(0)
    assert depth == list(range(31))


def test_nested_turns_free_what_was_closed_in_them(loop):
    """A program that lives in a handler must not keep every connection it ever had."""
    gone = []

    def live():
        for _ in range(20):
            near, _, far, _ = channel_pair(loop)
            gone.extend([weakref.ref(near), weakref.ref(far)])
            loop.dispatch(0)
            near.abort()
            far.abort()
            del near, far, _
            loop.dispatch(0)
        gc.collect()
        gone.append(sum(reference() is not None for reference in gone))

    loop.call_soon(live)
    loop.dispatch(0)
    assert gone[-1] <= 2


# descriptors


def test_a_pipe_is_watched(loop, pipe):
    seen = []
    watch = loop.watch(pipe[0], IN, seen.append)
    turns(loop, 2)
    assert seen == [] and loop.watching == 1
    os.write(pipe[1], b"x")
    drive(loop, lambda: seen)
    assert seen == [IN]
    turns(loop, 2)
    assert seen == [IN], "an edge is told once"
    watch.close()
    os.write(pipe[1], b"y")
    turns(loop, 2)
    assert seen == [IN] and loop.watching == 0
    watch.close()


def test_a_watch_may_close_itself_and_others_in_its_callback(loop):
    ends = [os.pipe2(os.O_NONBLOCK) for _ in range(4)]
    seen, watches = [], []

    def close_all(events):
        seen.append(events)
        while watches:
            watches.pop().close()

    watches.extend(loop.watch(read_end, IN, close_all) for read_end, _ in ends)
    for _, write_end in ends:
        os.write(write_end, b"x")
    loop.dispatch(1)
    turns(loop, 3)
    assert len(seen) == 1
    for pair in ends:
        for end in pair:
            os.close(end)


def test_what_cannot_be_watched_is_an_os_error(loop, tmp_path):
    with pytest.raises(OSError, match="Bad file descriptor"):
        loop.watch(-1, IN, print)
    with open(tmp_path / "file", "w") as file:
        for watch in loop.watch, loop.watch_level:
            with pytest.raises(PermissionError):
                watch(file.fileno(), IN, print)
    assert loop.watching == 0


def test_a_descriptor_that_was_closed_behind_the_loops_back_harms_nobody(loop):
    """Its duplicate keeps the kernel's entry, with the address of the old watch, while its number means another."""
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    seen = []
    first = loop.watch(read_end, IN, lambda events: seen.append("first"))
    duplicate = os.dup(read_end)
    other_read, other_write = os.pipe2(os.O_NONBLOCK)
    os.dup2(other_read, read_end)
    second = loop.watch(read_end, IN, lambda events: seen.append("second"))
    first.close()
    del first
    gc.collect()
    os.write(write_end, b"x")
    os.write(other_write, b"y")
    drive(loop, lambda: "second" in seen)
    assert seen == ["second"]
    second.close()
    for end in (read_end, write_end, duplicate, other_read, other_write):
        os.close(end)


def test_a_watch_of_a_descriptor_that_was_closed_before_it_harms_nobody(loop):
    """The kernel's entry stays with the duplicate, and has the address of the watch."""
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    seen = []
    watch = loop.watch(read_end, IN, seen.append)
    duplicate = os.dup(read_end)
    os.close(read_end)
    watch.close()
    del watch
    gc.collect()
    silent = os.pipe2(os.O_NONBLOCK)
    other = loop.watch(silent[0], IN, seen.append)  # it must not lie where the first one did
    os.write(write_end, b"x")
    turns(loop)
    assert seen == []
    other.close()
    for end in (*silent, write_end, duplicate):
        os.close(end)


def test_a_level_watch_is_told_each_turn_while_it_is_ready(loop, pipe):
    seen = []
    watch = loop.watch_level(pipe[0], IN, seen.append)
    turns(loop, 2)
    assert seen == [] and loop.watching == 1
    os.write(pipe[1], b"xy")
    turns(loop, 3)
    assert seen == [IN] * 3, "its descriptor was ready in each of these turns"
    os.read(pipe[0], 1)
    turns(loop, 1)
    assert seen == [IN] * 4, "there was more to read"
    os.read(pipe[0], 1)
    turns(loop, 2)
    assert seen == [IN] * 4
    watch.close()
    os.write(pipe[1], b"z")
    turns(loop, 2)
    assert seen == [IN] * 4 and loop.watching == 0
    watch.close()


def test_what_a_level_watch_is_told_of_can_be_changed(loop):
    near, far = socket_pair()
    seen = []
    watch = loop.watch_level(near.fileno(), IN, seen.append)
    far.send(b"x")
    for wanted, told in ((OUT, OUT), (IN | OUT, IN | OUT), (IN, IN), (0, None), (OUT, OUT), (0, None)):
        watch.change(wanted)
        del seen[:]
        turns(loop, 2)
        assert seen == ([told] * 2 if told else []), f"{wanted} was wanted"
        assert loop.watching == (told is not None)
    watch.change(IN | OUT)
    far.close()
    del seen[:]
    drive(loop, lambda: seen)
    assert seen[0] & select.EPOLLHUP, "an end is told whatever is wanted"
    watch.close()
    watch.change(IN)
    assert loop.watching == 0
    near.close()


def test_no_number_of_a_level_watch_is_taken_for_the_loops_own():
    near, far = socket_pair()
    numbers = [os.dup(near.fileno()) for _ in range(200)]  # they begin low, and the loops' own descriptors follow
    far.send(b"x")
    for _ in range(4):  # each with other descriptors
        loop, told = Loop(), set()
        for number in numbers:
            loop.watch_level(number, IN, lambda events, number=number, told=told: told.add(number))
        turns(loop, 2)
        assert told == set(numbers), f"the loop's descriptors are {loop.fileno()} to {loop.wake_fd}"
        loop.close()
        numbers.append(os.dup(near.fileno()))
    for number in numbers:
        os.close(number)
    near.close()
    far.close()


@pytest.mark.parametrize("leave", ["close", "change"])
def test_level_watches_may_leave_in_a_callback(loop, leave):
    """None that has left is told of the rest of the batch."""
    pairs = [socket_pair() for _ in range(4)]
    seen, watches = [], []

    def leave_all(events):
        seen.append(events)
        while watches:
            watch = watches.pop()
            watch.close() if leave == "close" else watch.change(0)

    watches.extend(loop.watch_level(near.fileno(), OUT, leave_all) for near, _ in pairs)
    turns(loop, 3)
    assert seen == [OUT] and loop.watching == 0
    for near, far in pairs:
        near.close()
        far.close()


def test_a_level_watch_whose_descriptor_was_closed_behind_it_serves_the_next_with_its_number(loop):
    near, far = socket_pair()
    seen = []
    watch = loop.watch_level(near.fileno(), IN, seen.append)
    other_near, other_far = socket_pair()
    number = near.fileno()
    os.dup2(other_near.fileno(), number)
    other_far.send(b"x")
    turns(loop, 2)
    assert seen == [], "the set does not know the new one yet"
    watch.change(IN | OUT)
    turns(loop, 1)
    assert seen == [IN | OUT]
    second = loop.watch_level(number, 0, print)
    second.close()
    os.close(near.detach())
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch.change(IN)
    watch.close()
    assert loop.watching == 0
    for end in (far, other_near, other_far):
        end.close()


def test_events_of_a_descriptor_that_is_only_a_duplicate_now_reach_nobody(loop):
    """The set goes on to announce what was closed while it was watched; its number may be another's."""
    near, far = socket_pair()
    seen = []
    watch = loop.watch_level(near.fileno(), IN, seen.append)
    duplicate = os.dup(near.fileno())
    near.close()
    watch.close()
    del watch
    gc.collect()
    far.send(b"x")
    turns(loop)
    assert seen == [] and loop.watching == 0
    os.close(duplicate)
    far.close()


def test_a_forked_child_leaves_the_descriptors_of_level_watches_open(loop, pipe):
    loop.watch_level(pipe[0], IN, print)
    os.write(pipe[1], b"x")
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            loop.close()
            status = 0 if os.read(pipe[0], 1) == b"x" else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_more_descriptors_than_one_batch_are_all_served(loop):
    near, _ = zip(*(socket_pair() for _ in range(300)))
    seen = set()
    watches = [loop.watch(end.fileno(), OUT, lambda events, n=n: seen.add(n)) for n, end in enumerate(near)]
    drive(loop, lambda: len(seen) == 300)
    for watch in watches:
        watch.close()
    for end in (*near, *_):
        end.close()


# the descriptor of the loop


def ready(loop):
    return bool(select.select([loop.fileno()], [], [], 0)[0])


def test_the_descriptor_is_readable_when_there_is_work(loop, pipe):
    turns(loop, 2)
    assert not ready(loop)
    for plan in (
        lambda: loop.call_soon(int),
        lambda: loop.call_soon_threadsafe(int),
        lambda: loop.call_later(0, int),
    ):
        plan()
        assert select.select([loop.fileno()], [], [], 5)[0]
        drive(loop, lambda: loop.idle)
        turns(loop, 2)
        assert not ready(loop)
    watch = loop.watch(pipe[0], IN, lambda events: None)
    os.write(pipe[1], b"x")
    assert ready(loop)
    loop.dispatch(0)
    assert not ready(loop)
    watch.close()


def test_what_a_turn_leaves_keeps_the_descriptor_readable(loop):
    def again(count):
        if count:
            loop.call_soon(again, count - 1)

    loop.call_soon(again, 3)
    for _ in range(4):
        assert ready(loop)
        loop.dispatch(0)
    loop.dispatch(0)
    assert not ready(loop)


def test_a_byte_on_wake_fd_wakes(loop):
    turns(loop, 2)
    os.write(loop.wake_fd, b"\0" * 1000)
    assert ready(loop)
    turns(loop, 2)
    assert not ready(loop)


def test_a_host_is_asked_for_a_turn_once(loop):
    asked, seen = [], []
    loop._host_call_soon = asked.append
    loop.call_soon(seen.append, 1)
    loop.call_soon(seen.append, 2)
    assert len(asked) == 1 and not ready(loop)
    asked.pop()()
    assert seen == [1, 2] and asked == []
    loop.call_soon(loop.call_soon, seen.append, 3)
    asked.pop()()
    if 3 not in seen:
        asked.pop()()
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("exception", [RuntimeError, ValueError])
def test_a_host_that_refuses_is_replaced_by_the_descriptor(loop, exception):
    def refuse(callback):
        raise exception("closed")

    seen = []
    loop._host_call_soon = refuse
    loop.call_soon(seen.append, 1)
    assert loop._host_call_soon is None and ready(loop)
    loop.dispatch(0)
    assert seen == [1]


def test_a_host_turn_after_the_end_does_nothing():
    loop, asked = Loop(), []
    loop._host_call_soon = asked.append
    loop.call_soon(print)
    loop.close()
    asked[0]()


# the end


def test_close_gives_everything_back():
    turns(warm := Loop(), 1)
    warm.close()
    before = descriptors()
    loop = Loop()
    near, _, far, _ = channel_pair(loop)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    listener = Listener(loop, listening.detach(), Recorder(), 5)
    timer = loop.call_later(100, print)
    loop.call_soon(print)
    loop.close()
    assert descriptors() == before
    assert loop.closed and timer.cancelled and loop.idle
    assert not near.is_open and near.fileno() == far.fileno() == listener.fileno() == -1
    loop.close()


def test_a_closed_loop_raises(pipe):
    loop = Loop()
    loop.close()
    for use in (
        loop.check,
        loop.run,
        loop.stop,
        loop.dispatch,
        loop.fileno,
        lambda: loop.call_soon(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.watch(pipe[0], IN, print),
        lambda: loop.watch_level(pipe[0], IN, print),
        lambda: Channel(loop, Recorder()).attach(pipe[0]),
        lambda: Channel(loop, Recorder()).write(b""),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_close_inside_a_turn_is_refused(loop):
    loop.call_soon(loop.close)
    loop.dispatch(0)
    assert "from inside a turn" in str(loop.exception_handler.take()[0])
    assert not loop.closed


def test_a_dropped_loop_gives_everything_back():
    gc.collect()
    before = descriptors()
    loop = Loop()
    channel_pair(loop)
    loop.call_later(100, loop.stop)
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None
    assert descriptors() == before


@pytest.mark.parametrize("room", range(4))
def test_a_loop_without_descriptors_left_is_an_os_error(limit_descriptors, room):
    """A loop needs four; what it had of them is given back."""
    with limit_descriptors(room):
        for _ in range(3):
            with pytest.raises(OSError) as caught:
                Loop()
            assert caught.value.errno == errno.EMFILE
        for one in [os.dup(0) for _ in range(room)]:
            os.close(one)


# fork


def in_child(work):
    """Run `work` in a forked child; returns what it says: str."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, str(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as said:
        text = said.read().decode()
    assert os.waitpid(child, 0)[1] == 0, text
    return text


@pytest.mark.parametrize("tls", [False, True])
def test_a_forked_child_can_do_nothing_and_harms_nothing(loop, tls):
    near, near_record, far, far_record = (tls_channel_pair if tls else channel_pair)(loop)
    timer = loop.call_later(100, print)

    def child():
        uses = [
            loop.check,
            loop.run,
            loop.stop,
            loop.dispatch,
            loop.fileno,
            lambda: loop.call_soon(print),
            lambda: loop.call_later(0, print),
            lambda: loop.call_soon_threadsafe(print),
            lambda: near.write(b"from the child"),
            near.read,
            near.flush,
            near.finish,
            near.abort,
        ]
        refused = 0
        for use in uses:
            try:
                use()
            except RuntimeError as error:
                refused += "parent" in str(error)
        timer.cancel()
        loop.close()
        own = Loop()
        own.call_soon(int)
        own.run()
        own.close()
        return f"{refused} of {len(uses)}"

    assert in_child(child) == "13 of 13"
    assert not timer.cancelled
    timer.cancel()
    exchange(loop, near, near_record, far, far_record)


def test_a_fork_inside_a_handler_ends_the_childs_turn(loop):
    """The child returns from the handler into the middle of its parent's turn, with events of its parent in hand."""
    near, near_record, far, far_record = channel_pair(loop)
    turns(loop, 2)
    reading, writing = os.pipe()
    children = []

    def fork():
        child = os.fork()
        if child:
            children.append(child)
            os.waitpid(child, 0)
        else:
            children.append(0)

    loop.call_soon(fork)
    loop.call_soon(lambda: os.write(writing, b"a call of %d;" % os.getpid()))
    loop.call_soon(near.write, b"once")
    with contextlib.suppress(BaseException):
        loop.dispatch(0)
    if children == [0]:
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        assert said.read() == b"a call of %d;" % os.getpid()
    drive(loop, lambda: far_record.received)
    turns(loop)
    assert far_record.received == b"once"
    exchange(loop, near, near_record, far, far_record)
