"""Workers that are threads. The main thread is the first of them.

To the server it is what `processes.Crew` is, which says what each method is for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Callable, Optional

from ..core.event_loop import EventLoop
from .back_ends.backends import News
from .back_ends.directory import Directory
from .back_ends.health import Health
from .files.reading import Reading
from .fleet.member import Access
from .observability.pulse import SILENCE_SECONDS, Pulse
from .policy import ListenerPolicy
from .settings.model import ProxySettings
from .worker import Worker

__all__ = ["WorkerThreads"]

Make = Callable[[Sequence[Sequence[int]], int, Callable[[Worker], object]], Worker]


class WorkerThreads:
    """rows: of each worker the listening descriptors of each listener. make: makes a worker in its thread, of its row, its
    number and what is called when it has drained. ended: called in the main thread when a worker has ended."""

    def __init__(self, rows: Sequence[Sequence[Sequence[int]]], make: Make, ended: Callable[[], object]) -> None:
        self._loop = EventLoop.current()
        self._rows = rows
        self._make = make
        self._ended = ended
        self._workers = [make(rows[0], 0, self._on_drained)]
        self._threads: list[threading.Thread] = []
        self._pulse = Pulse(())
        self.counters = [self._workers[0].counters]
        self.failure: Optional[Exception] = None
        """That has ended one of them."""

    @property
    def main(self) -> Worker:
        return self._workers[0]

    def start(self) -> None:
        """Returns when all of them accept. RuntimeError, OSError."""
        for number, row in enumerate(self._rows[1:], 1):
            ready = threading.Semaphore(0)
            thread = threading.Thread(target=self._work, args=(row, number, ready), name=f"worker-{number}")
            thread.start()
            self._threads.append(thread)
            ready.acquire()
            if self.failure is not None:
                raise self.failure
        self._pulse = Pulse(worker.loop for worker in self._workers)

    def _work(self, row: Sequence[Sequence[int]], number: int, ready: threading.Semaphore) -> None:
        try:
            try:
                worker = self._make(row, number, self._on_drained)
                self._workers.append(worker)
                self.counters.append(worker.counters)
            finally:
                ready.release()
            worker.run()
        except Exception as exc:
            self.failure = exc
        finally:
            with suppress(RuntimeError):  # the main thread's loop was closed first, for all is to end
                self._loop.call_soon_threadsafe(self._ended)

    def _on_drained(self, worker: Worker) -> None:
        """In the worker's thread. The main one goes on: signals and timers are for all."""
        if worker.loop is self._loop:
            self._ended()
        else:
            worker.loop.stop()

    @staticmethod
    def _tell(worker: Worker, method: Callable[..., object], *args: object) -> None:
        with suppress(RuntimeError):  # it has ended
            worker.loop.call_soon_threadsafe(method, *args)

    # What they are told

    def follow(
        self,
        settings: ProxySettings,
        policies: Sequence[ListenerPolicy],
        reading: Reading,
        access: Optional[Access],
        directory: Optional[Directory],
        then: Callable[[], object],
    ) -> None:
        for worker in self._workers:
            self._tell(worker, worker.follow, policies, settings.limits, directory)
        then()

    def note(self, health: Health) -> None:
        """They see it themselves."""

    def checked(self) -> None:
        for worker in self._workers:
            self._tell(worker, worker.on_checked)

    def count_progress(self) -> None:
        for worker in self._workers:
            self._tell(worker, worker.count_progress)

    def drain(self) -> None:
        for worker in self._workers:
            self._tell(worker, worker.drain)

    def stop(self, reason: str) -> None:
        for worker in self._workers:
            self._tell(worker, worker.stop, reason)

    # What they have seen

    def backend_news(self) -> list[News]:
        return [item for worker in self._workers for item in worker.backend_news()]

    def names_found(self) -> Iterator[dict[str, bool]]:
        return (worker.names_found() for worker in self._workers)

    def sessions(self) -> int:
        return sum(len(worker.sessions) for worker in self._workers)

    def dropped(self) -> int:
        return 0

    def lives(self) -> None:
        """None of them dies alone."""

    def silence(self) -> float:
        return self._pulse.silence()

    def unwell(self) -> str:
        silence = self.silence()
        return f"a worker has given no sign of life for {silence:.0f} s" if silence > SILENCE_SECONDS else ""

    def refresh(self) -> None:
        """It is always of now."""

    def ask(self, then: Callable[[], object] = bool) -> None:
        self._pulse.ask()
        then()

    def close(self) -> None:
        for thread in self._threads:
            thread.join()
