"""What an asyncio loop costs without any connection: ours, uvloop and asyncio.

 - sleep(0): a task gives way once
 - future: made, set by `call_soon`, awaited
 - call_later: planned and cancelled
 - call_soon: planned and run, 100 a turn

CPU of the thread, nanoseconds for each; the loops take turns in one process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Callable

import harness
from harness import Report

import sslsock

WORK = ("sleep(0)", "future", "call_later", "call_soon")
BASELINE = "uvloop"


def nothing() -> None:
    pass


async def sleep_zero(loop: Any, count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def future(loop: Any, count: int) -> None:
    for _ in range(count):
        made = loop.create_future()
        loop.call_soon(made.set_result, None)
        await made


async def call_later(loop: Any, count: int) -> None:
    for _ in range(count):
        loop.call_later(1, nothing).cancel()


async def call_soon(loop: Any, count: int) -> None:
    for number in range(count):
        loop.call_soon(nothing)
        if number % 100 == 99:
            await asyncio.sleep(0)


COROUTINES = dict(zip(WORK, (sleep_zero, future, call_later, call_soon)))


def loops(report: Report) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {"sslsock": sslsock.new_event_loop}
    missing = harness.installed(("uvloop",))
    if missing is None:
        import uvloop

        found["uvloop"] = uvloop.new_event_loop
        report.add_version("uvloop", harness.version_of("uvloop"))
    else:
        report.leave_out("uvloop", f"no {missing}")
    found["asyncio"] = asyncio.SelectorEventLoop
    return found


def main() -> int:
    options = harness.begin(harness.arguments(__doc__ or "", rounds=7))
    report = Report("asyncio's loop", options)
    made = {name: make() for name, make in loops(report).items()}
    report.head()
    count = 1000 if options.quick else 100_000
    for name in WORK:
        measure = report.measure(name, "ns", less=True, baseline=BASELINE, targets={"sslsock": 1.0})
        for number in range(options.rounds):
            for peer in harness.rotated(list(made), number):
                loop = made[peer]
                with harness.no_collection():
                    begun = time.thread_time_ns()
                    loop.run_until_complete(COROUTINES[name](loop, count))
                    measure.add(peer, (time.thread_time_ns() - begun) / count)
    for loop in made.values():
        loop.close()
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
