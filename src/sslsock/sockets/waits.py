"""What tasks wait for: the part of `await` that sockets, servers and relays have in common.

A wait is a question and a future. The question is asked when the wait begins, and then whenever something has happened to the
object; its answer, or what it raises, settles the future. So there is no event to be missed, and whoever comes late is answered
at once. The object knows its waits as long as they last (`_waits`, None without any: that is all that a socket pays for which
nobody awaits), and a task that is cancelled takes its own away.

The futures are those of the asyncio loop that runs. asyncio is not imported for that: who awaits has done so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from ..core.nesting import running_host
from .loop_object import LoopObject

if TYPE_CHECKING:
    from asyncio import Future

__all__ = ["PENDING", "Wait", "Waits"]

PENDING: Any = object()  # the answer of a question that has none yet


class Wait:
    """One task that waits. `writes`: its answer depends on what has been sent. `hears`: a failure is raised in it."""

    __slots__ = ("future", "hears", "question", "writes")

    def __init__(self, question: Callable[[], Any], future: Future[Any], writes: bool, hears: bool) -> None:
        self.question = question
        self.future = future
        self.writes = writes
        self.hears = hears

    def ask(self) -> bool:
        """Settle it if there is an answer. False: nobody will ever take that, for its asyncio loop is closed."""
        future = self.future
        if future.done():  # its task has been cancelled, or has the answer and has not run yet
            return True
        try:
            try:
                answer = self.question()
            except Exception as exc:
                future.set_exception(exc)
            else:
                if answer is not PENDING:
                    self.hears = False
                    future.set_result(answer)
        except RuntimeError:
            return False
        return True


class Waits(LoopObject):
    """Base of what can be awaited."""

    if TYPE_CHECKING:
        __slots__ = ("_waits",)  # which the class has that derives
        _waits: Optional[list[Wait]]
    else:
        __slots__ = ()

    async def _answer(self, question: Callable[[], Any], *, writes: bool = False, hears: bool = True) -> Any:
        """The answer of `question()`: at once, or when there is one. RuntimeError in a foreign thread, on a closed loop, and
        where no asyncio loop runs."""
        loop = self.loop
        loop.check()
        answer = question()
        if answer is not PENDING:
            return answer
        host = running_host()
        if host is None:
            raise RuntimeError("awaiting needs an asyncio loop that runs: asyncio.run(), or sslsock.aio.run()")
        loop._follow_host()
        wait = Wait(question, host.create_future(), writes, hears)
        if self._waits is None:
            self._waits = []
        self._waits.append(wait)
        loop._remember_awaited(wait.future)
        self._waits_changed()
        try:
            return await wait.future
        finally:
            loop._forget_awaited(wait.future)
            self._forget_wait(wait)

    def _ask_waits(self) -> None:
        """Something has happened: perhaps it is what somebody waits for. For places that have seen that there are waits."""
        for wait in tuple(self._waits or ()):
            if not wait.ask():
                self._forget_wait(wait)

    def _forget_wait(self, wait: Wait) -> None:
        waits = self._waits
        if waits is not None and wait in waits:
            waits.remove(wait)
            if not waits:
                self._waits = None
            self._waits_changed()

    def _waits_changed(self) -> None:
        """For a class that is told of some things only while somebody wants to know."""
