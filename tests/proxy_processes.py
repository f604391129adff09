"""Worker processes that share limits. A worker is told by its parent what to do, call by call; or it works by itself.

For programs that fork: tests/shared_limits.py.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from typing import Any, Callable, Optional

from sslsock.core.event_loop import EventLoop
from sslsock.proxy.limits.gate import Place, Room
from sslsock.proxy.limits.shared_gate import SharedGate
from sslsock.proxy.limits.shares import Shares

DEADLINE = 30.0


class Numbers:
    """64-bit numbers that processes see; each is written by one of them."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, 8 * count)
        self.count = count

    def __getitem__(self, index: int) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * index)[0])

    def __setitem__(self, index: int, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * index, value)

    def sum(self) -> int:
        return sum(self[index] for index in range(self.count))


class Session:
    """An occupant: a connection, as its gate sees it."""

    def __init__(self, door: Door, place: Place, silent: bool) -> None:
        self.door, self.place, self.silent = door, place, silent
        self.gone = self.gave_way = False
        place.occupant = self

    def give_way(self) -> None:
        self.gave_way = True
        self.leave()

    def leave(self) -> None:
        self.gone = True
        self.age = self.place.age
        self.place.occupant = None
        self.door.gate.leave(self.place)

    def settle(self) -> None:
        self.door.gate.settle(self.place)


class Door:
    """A listener of a worker, with clients in its queue as its owner says."""

    def __init__(self, gate: SharedGate, loop: EventLoop, name: str, shakes: bool) -> None:
        self.gate, self.loop, self.shakes = gate, loop, shakes
        self.room: Room = gate.room(name)
        self.waiting = self.pressing = False
        self.silent = True
        self.sessions: list[Session] = []

    def take_place(self, place: Place) -> None:
        self.sessions.append(Session(self, place, self.silent))
        self.on_session(self.sessions[-1])

    def enter(self) -> bool:
        place = self.gate.enter(self)
        if place is not None:
            self.take_place(place)
        return place is not None

    def on_session(self, session: Session) -> None:
        pass


class Worker:
    """In its process. limits: of connections and handshakes, of each room; "" is the whole. What it is told are its methods."""

    def __init__(self, shares: Shares, limits: dict[str, tuple[int, int]], shakes: bool) -> None:
        self.loop = EventLoop.current()
        self.gate = SharedGate(0, 0, shares)
        self.shares = shares
        self.shakes = shakes
        self.doors: dict[str, Door] = {}
        for name, (limit, handshakes) in limits.items():
            self.gate.change(limit, handshakes, self.gate.room(name) if name else None)
        self.loop.watch_level(shares.fileno(), select.POLLIN, lambda events: self.gate.on_poke())

    def door(self, name: str, shakes: Optional[bool] = None) -> Door:
        key = f"{name} {shakes}"
        if key not in self.doors:
            self.doors[key] = Door(self.gate, self.loop, name, self.shakes if shakes is None else shakes)
        return self.doors[key]

    def obey(self, commands: socket.socket) -> None:
        def on_command(events: int) -> None:
            name, *args = json.loads(commands.recv(1 << 16))
            commands.send(json.dumps(getattr(self, name)(*args)).encode())

        self.loop.watch_level(commands.fileno(), select.POLLIN, on_command)
        self.loop.run()

    # Commands

    def enter(self, name: str, shakes: Optional[bool] = None, silent: bool = True) -> bool:
        door = self.door(name, shakes)
        door.silent = silent
        return door.enter()

    def fill(self, name: str, shakes: Optional[bool] = None) -> int:
        door = self.door(name, shakes)
        before = len(door.sessions)
        while door.enter():
            pass
        return len(door.sessions) - before

    def leave_and_enter(self, name: str) -> bool:
        door = self.door(name)
        self.live(door)[0].leave()
        return door.enter()

    def leave(self, name: str, shakes: Optional[bool] = None) -> None:
        self.live(self.door(name, shakes))[0].leave()

    def settle(self, name: str, shakes: Optional[bool] = None) -> None:
        for session in self.live(self.door(name, shakes)):
            session.settle()

    def await_turn(self, name: str) -> None:
        for session in self.live(self.door(name)):
            self.gate.await_turn(session.place)

    def begin_turn(self, name: str) -> None:
        self.gate.begin_turn(self.live(self.door(name))[0].place)

    def change_own(self, limit: int) -> None:
        self.gate.change_own(limit)

    def change(self, limit: int, handshakes: int) -> None:
        self.gate.change(limit, handshakes)

    def there(self, name: str, shakes: Optional[bool] = None) -> int:
        return len(self.live(self.door(name, shakes)))

    def waits(self, name: str, shakes: Optional[bool] = None) -> bool:
        return self.door(name, shakes).waiting

    def gave_way(self) -> int:
        return sum(session.gave_way for door in self.doors.values() for session in door.sessions)

    def ages_of_gone(self, name: str) -> list[float]:
        return [session.age for session in self.door(name).sessions if session.gone]

    def hold(self) -> None:
        self.shares.rooms.hold()

    def stop_with_lock(self) -> None:
        """Stops itself, and lets go when it goes on."""
        self.shares.rooms.hold()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.shares.rooms.release()

    @staticmethod
    def live(door: Door) -> list[Session]:
        return [session for session in door.sessions if not session.gone]


class Family:
    """In the parent. Workers are started by `start`, with limits as `Worker` has them."""

    def __init__(self, workers: int, limits: dict[str, tuple[int, int]], shakes: bool = False) -> None:
        self.limits, self.shakes = limits, shakes
        self.shares = Shares(workers, [name for name in limits if name], 1024)
        self.workers = workers
        self.pids: dict[int, int] = {}
        self.commands: dict[int, socket.socket] = {}

    def __enter__(self) -> Family:
        return self

    def __exit__(self, *details: object) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def start_all(self) -> Family:
        for number in range(self.workers):
            self.start(number)
        return self

    def start(self, number: int, work: Optional[Callable[[Worker], object]] = None) -> None:
        """work: what it does by itself; None: what it is told."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pids[number] = fork(lambda: self._work(number, work, theirs))
        theirs.close()
        ours.settimeout(DEADLINE)
        self.commands[number] = ours

    def _work(self, number: int, work: Optional[Callable[[Worker], object]], commands: socket.socket) -> None:
        self.shares.join(number)
        worker = Worker(self.shares, self.limits, self.shakes)
        if work is None:
            worker.obey(commands)
        else:
            work(worker)

    def tell(self, number: int, *command: Any) -> None:
        self.commands[number].send(json.dumps(command).encode())

    def ask(self, number: int, *command: Any) -> Any:
        self.tell(number, *command)
        return json.loads(self.commands[number].recv(1 << 16))

    def until(self, number: int, expected: Any, *command: Any) -> None:
        """A worker answers so after a while."""
        answer = None
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            answer = self.ask(number, *command)
            if answer == expected:
                return
        raise AssertionError(f"worker {number} says {answer} to {command}, not {expected}")

    def kill(self, number: int, signal_number: int = signal.SIGKILL) -> None:
        pid = self.pids.pop(number)
        os.kill(pid, signal_number)
        os.waitpid(pid, 0)
        self.commands.pop(number).close()

    def sums(self, name: str = "") -> tuple[int, int, int, int]:
        return self.shares.rooms.sums(self.shares.room_numbers[name] if name else 0)

    def join(self, number: int) -> None:
        """It ends by itself, and in order."""
        pid = self.pids.pop(number)
        assert os.waitpid(pid, 0)[1] == 0, f"worker {number} has failed"


def fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def stopped(pid: int) -> None:
    """Waits until it is."""
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])


def fail(text: str) -> None:
    """Anywhere in a worker."""
    print(text, file=sys.stderr, flush=True)
    os._exit(1)
