"""The process that forks members, and waits for their ends.

A process with threads is not to be forked without an exec: what another thread was about to do is left half done in the child.
The front has threads (metrics, ACME, the fleet, reloads); the nursery never has one. It is forked before they begin, and does
nothing else, so at any time a member can be forked from it as the first ones were.

A request is the number of a member, with the descriptor that will be its line (SCM_RIGHTS, unix(7)); the answers are the number
with its process, and, whenever it has ended, with the status that waitpid(2) gave. The nursery is killed when it is needed no
more. When the front's end is closed before, the front has died: what does not end by itself then is killed.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
import struct
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Callable, NoReturn, Optional

from ..observability.access_log import LineWriter
from ..service.bounds import lacking
from ..service.process_name import name_process

__all__ = ["Nursery", "ending"]

ANSWER = struct.Struct("!iiq")  # number, status of waitpid, process
FORKED = -2  # in the place of a status: it has begun
UNFORKED = -1  # in the place of a status: there was no process to be had, and the third is why
# Which a terminal or systemd sends to all of a group, and the front answers.
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
END_SECONDS = 2.0  # that members are given to end when the front has died


def ending(status: int) -> str:
    """How a process has ended, in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with suppress(ValueError):
            return f"by {signal.Signals(number).name}"
        return f"by signal {number}"
    return f"with status {os.WEXITSTATUS(status)}"


class Nursery:
    """The front's end. While it is made no handler of a signal may raise: hooks of a fork swallow that.

    keep: descriptors that members need. be_member: what a member does, with its number and the descriptor of its line; returns
    its exit status. writer: whose lines are written before the fork. OSError: the system gives no process.
    """

    def __init__(self, keep: Collection[int], be_member: Callable[[int, int], int], writer: LineWriter) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        writer.flush()  # its thread sleeps then: the only one that there is by now
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
            self.pid = os.fork()
        if self.pid == 0:
            serve(theirs, keep, be_member)
        theirs.close()
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def grow(self, number: int) -> Optional[socket.socket]:
        """Have a member forked; returns the front's end of its line, None if the nursery has ended. OSError: no descriptors."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._socket.setblocking(True)
                socket.send_fds(self._socket, [number.to_bytes(4, "big")], [theirs.fileno()])
            except OSError:
                ours.close()
                return None
            finally:
                self._socket.setblocking(False)
        return ours

    def news(self) -> Optional[list[tuple[int, int, str]]]:
        """Since the last call: the number of a member, its process, and how it has ended, "": it has begun; of process 0, why
        there is none. None: the nursery has ended."""
        found: list[tuple[int, int, str]] = []
        while True:
            try:
                answer = self._socket.recv(ANSWER.size)
            except BlockingIOError:
                return found
            except ConnectionResetError:  # it has ended without reading all; what it has said is still there
                continue
            except OSError:
                return found or None
            if len(answer) < ANSWER.size:
                return found or None
            number, status, value = ANSWER.unpack(answer)
            if status == FORKED:
                found.append((number, value, ""))
            elif status == UNFORKED:
                found.append((number, 0, lacking("process", value)))
            else:
                found.append((number, value, ending(status)))

    def end(self) -> str:
        """Even if it is stopped. Members stay, and what it has said can still be heard. Returns how it has ended."""
        with suppress(ChildProcessError, ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
            return ending(os.waitpid(self.pid, 0)[1])
        return ""

    def close(self) -> None:
        self._socket.close()


# In the other process


def serve(requests: socket.socket, keep: Collection[int], be_member: Callable[[int, int], int]) -> NoReturn:
    """Never returns: nothing of the front may run here."""
    status = 1
    try:
        name_process("sslsock-nursery")
        signal.set_wakeup_fd(-1)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        close_all_but({*keep, requests.fileno()})
        gc.freeze()  # members share the pages of what is never looked at again
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        numbers: dict[int, int] = {}  # of members, by process
        poll = select.poll()
        poll.register(requests, select.POLLIN)
        poll.register(reading, select.POLLIN)
        with suppress(ConnectionError):  # an answer that nobody is there to read
            while answer_next(poll, requests, (reading, writing), numbers, be_member):
                pass
        end_all(reading, numbers)
        status = 0
    finally:
        os._exit(status)


def answer_next(
    poll: select.poll,
    requests: socket.socket,
    own: tuple[int, int],
    numbers: dict[int, int],
    be_member: Callable[[int, int], int],
) -> bool:
    """Wait for whatever is next, a request or the end of a member. Returns whether the front is still there.

    own: the pipe whose first end becomes readable when a child has ended. ConnectionError: the front has died.
    """
    ready = [fd for fd, _ in poll.poll()]
    if own[0] in ready:
        with suppress(BlockingIOError):
            os.read(own[0], 4096)
        for values in ended(numbers):
            requests.send(ANSWER.pack(*values))
    if requests.fileno() in ready:
        request, descriptors, _, _ = socket.recv_fds(requests, 4, 1)
        if not request:
            return False
        number = int.from_bytes(request, "big")
        if descriptors:
            start(requests, number, descriptors[0], own, numbers, be_member)
        else:  # this process has none left, and the system has closed it
            requests.send(ANSWER.pack(number, UNFORKED, errno.EMFILE))
    return True


def start(
    requests: socket.socket,
    number: int,
    line: int,
    own: tuple[int, int],
    numbers: dict[int, int],
    be_member: Callable[[int, int], int],
) -> None:
    try:
        pid = os.fork()
    except OSError as exc:
        requests.send(ANSWER.pack(number, UNFORKED, exc.errno or errno.EAGAIN))
        os.close(line)
        return
    if pid:
        numbers[pid] = number
        os.close(line)
        requests.send(ANSWER.pack(number, FORKED, pid))
        return
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in (*own, requests.detach()):
            os.close(fd)
        status = be_member(number, line)
    finally:
        os._exit(status)


def ended(numbers: dict[int, int]) -> Iterator[tuple[int, int, int]]:
    """Members that have ended, which are no longer among `numbers` then: number, status, process."""
    while numbers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        yield numbers.pop(pid), status, pid


def end_all(reading: int, numbers: dict[int, int]) -> None:
    """The front has died. Members see that too; who is stopped does not, and would keep connections waiting for ever.

    reading: becomes readable when a child has ended.
    """
    deadline = time.monotonic() + END_SECONDS
    while numbers and (left := deadline - time.monotonic()) > 0:
        select.select([reading], [], [], left)
        with suppress(BlockingIOError):
            os.read(reading, 4096)
        for _ in ended(numbers):
            pass
    for pid in numbers:
        os.kill(pid, signal.SIGKILL)


def close_all_but(keep: Collection[int]) -> None:
    """Descriptors of the front, the standard ones aside. The objects that own them are never let go here."""
    for name in os.listdir("/dev/fd"):
        fd = int(name)
        if fd > 2 and fd not in keep:
            with suppress(OSError):  # the listing's own
                os.close(fd)
