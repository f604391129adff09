"""Name lookup off the loop's thread: getaddrinfo, which the system offers no way to stop, on threads that nobody waits for.

Owns the table of the names that are being looked up in this process. Each has one thread, however many ask for it, so that a
name whose servers do not answer holds up nobody but those who want that very name. A lookup that nobody wants any more goes on
in its thread and is forgotten; the threads are daemons, so that neither the interpreter nor a loop waits for one at its end.

At most `LIMIT` names that somebody waits for are looked up at a time, and at most `MOST_THREADS` with those that were given up.
More names wait for their turn, but not for ever: after `PATIENCE` seconds the answer is EAI_AGAIN.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, Callable, Optional, Union

from ..core.event_loop import EventLoop
from ..core.schedule import Timer

__all__ = ["Address", "Answer", "Lookup", "addresses_of", "numeric_addresses"]

LIMIT = 256  # each may need a descriptor or two, and a process often has no more than 1,024
MOST_THREADS = 2 * LIMIT
PATIENCE = 5.0  # seconds that a name waits for a thread

Address = tuple[int, Any]
"""Address family, and the address as `socket.connect` takes it."""
Answer = Union[list[Address], Exception]
Find = Callable[[str, int], Any]
"""Finds the answer for a name and a port, in a thread where it may block. What it raises is the answer too."""


def addresses_of(name: str, port: int, flags: int = 0) -> list[Address]:
    """What getaddrinfo(3) says. OSError, of which socket.gaierror is one."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror:
        check_descriptors()
        raise
    return [(entry[0], entry[4]) for entry in found if entry[0] in (socket.AF_INET, socket.AF_INET6)]


def check_descriptors() -> None:
    """OSError when none is left. The C library then can neither open /etc/hosts nor ask a server, and says that the name is
    unknown."""
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()


def numeric_addresses(address: str, port: int) -> list[Address]:
    """Addresses of a host that is written as one: no question goes out. OSError for an unknown scope."""
    return addresses_of(address, port, socket.AI_NUMERICHOST)


class Question:
    """A name that is to be looked up, and who waits for the answer."""

    __slots__ = ("answered", "begun", "find", "key", "name", "port", "waiting")

    def __init__(self, key: Hashable, name: str, port: int, find: Optional[Find]) -> None:
        self.key = key
        self.find = find
        self.name = name
        self.port = port  # of who asked first; addresses come with it
        self.begun = False  # a thread has it
        self.answered = False
        self.waiting: dict[Lookup, None] = {}


class Questions:
    """The questions of the process, and the threads that work on them. From any thread."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may run anything inside, and so another lookup.
        self._lock = threading.RLock()
        self._asked: dict[Hashable, Question] = {}
        self._queue: deque[Question] = deque()
        self._threads = 0
        self._wanted = 0  # of the names that threads have, those that somebody waits for

    def ask(self, lookup: Lookup, name: str, port: int, find: Optional[Find]) -> Question:
        """Add `lookup` to those who wait for the name. RuntimeError, MemoryError: no thread can be started."""
        key = name if find is None else (find, name, port)
        with self._lock:
            question = self._asked.get(key)
            if question is not None:
                if question.begun and not question.waiting:
                    self._wanted += 1
                question.waiting[lookup] = None
                return question
            question = Question(key, name, port, find)
            question.waiting[lookup] = None
            self._asked[key] = question
            if not self._has_room():
                self._queue.append(question)
                return question
            try:
                self._begin(question)
            except (RuntimeError, MemoryError):
                self._forget(question)
                raise
            return question

    def leave(self, lookup: Lookup, question: Question) -> None:
        """`lookup` waits no more."""
        with self._lock:
            question.waiting.pop(lookup, None)
            if question.waiting or question.answered:
                return
            if question.begun:
                self._wanted -= 1
                self._begin_next()
            else:
                self._forget(question)
                with suppress(ValueError):
                    self._queue.remove(question)

    def _has_room(self) -> bool:
        return self._wanted < LIMIT and self._threads < MOST_THREADS

    def _begin(self, question: Question) -> None:
        """Give it a thread of its own."""
        question.begun = True
        self._threads += 1
        self._wanted += 1
        try:
            threading.Thread(target=self._work, args=(question,), name="sslsock-resolver", daemon=True).start()
        except (RuntimeError, MemoryError):
            question.begun = False
            self._threads -= 1
            self._wanted -= 1
            raise

    def _begin_next(self) -> None:
        """A name is not wanted any more: another may have its place."""
        if self._queue and self._has_room():
            with suppress(RuntimeError, MemoryError):  # then it waits on
                self._begin(self._queue[0])
                self._queue.popleft()

    def _forget(self, question: Question) -> None:
        if self._asked.get(question.key) is question:
            del self._asked[question.key]

    def _work(self, question: Optional[Question]) -> None:
        """In a thread: this question, and then those that wait for a thread."""
        while question is not None:
            answer: Any
            try:
                answer = (question.find or addresses_of)(question.name, question.port)
            except Exception as exc:
                answer = exc
            except BaseException as exc:  # somebody waits for an answer, whatever it is
                answer = RuntimeError(f"{type(exc).__name__} {exc}")
            with self._lock:
                self._forget(question)
                question.answered = True
                waiting = list(question.waiting)
                self._wanted -= bool(waiting)
            for lookup in waiting:
                lookup.tell(answer, question.port)
            del answer, waiting
            with self._lock:
                question = self._queue.popleft() if self._queue and self._wanted < LIMIT else None
                if question is None:
                    self._threads -= 1
                else:
                    question.begun = True
                    self._wanted += 1


_questions = Questions()


def _forget_questions() -> None:
    """In a forked child: threads do not survive a fork, and the lock may have been held by one of them."""
    global _questions
    _questions = Questions()


os.register_at_fork(after_in_child=_forget_questions)


class Lookup:
    """One question. `callback(answer)` comes on the loop, with the addresses in the system's order or the
    exception: an OSError as a rule, EAI_AGAIN where it may go better later, EAGAIN where no thread can be had. find: who is
    asked in place of getaddrinfo; then the answer is whatever that one tells."""

    __slots__ = ("_callback", "_limit", "_loop", "_port", "_question")

    def __init__(
        self, loop: EventLoop, name: str, port: int, callback: Callable[[Any], object], find: Optional[Find] = None
    ) -> None:
        self._loop = loop
        self._port = port
        self._callback: Optional[Callable[[Any], object]] = callback
        self._question: Optional[Question] = None
        self._limit: Optional[Timer] = None
        loop._hold()
        try:
            self._question = _questions.ask(self, name, port, find)
        except (RuntimeError, MemoryError) as exc:
            loop.call_soon(self._deliver, OSError(errno.EAGAIN, f"no thread can be had for it ({exc})"))
            return
        if not self._question.begun:
            self._limit = loop.call_later(PATIENCE, self._give_up)

    def cancel(self) -> None:
        """No answer is wanted any more. No effect once it has come."""
        if self._callback is None:
            return
        self._callback = None
        if self._limit is not None:
            self._limit.cancel()
        if self._question is not None:
            _questions.leave(self, self._question)
        self._loop._release()

    def tell(self, answer: Any, port: int) -> None:
        """In the thread of the question: here is the answer, with addresses for `port`."""
        if isinstance(answer, list) and port != self._port:
            answer = [(family, (name[0], self._port, *name[2:])) for family, name in answer]
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._deliver, answer)

    def _give_up(self) -> None:
        assert self._question is not None
        if not self._question.begun:
            words = f"{LIMIT} other names are being looked up, and none was found or given up for {PATIENCE:g} s"
            self._deliver(socket.gaierror(socket.EAI_AGAIN, words))

    def _deliver(self, answer: Any) -> None:
        callback = self._callback
        if callback is not None:
            self.cancel()
            callback(answer)
