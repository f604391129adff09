"""Faults: an exception at one chosen step of the sockets' own code.

A step is a line of one of the modules that hold the state machines. The test that uses it plays a scene again and again, with
the fault one step later each time, until the scene ends before the fault.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from sslsock.sockets import tcp_socket

HOME = Path(tcp_socket.__file__).parent
MODULES = frozenset(
    str(HOME / f"{name}.py")
    for name in (
        *("stream", "connection", "tcp_socket", "ssl_socket", "tcp_server", "ssl_server", "hello_wait", "accepted", "states"),
        *("configuration", "loop_object", "checked", "relay", "connector"),
    )
)
# No steps: the guards of them and what they do when one has raised.
SPARED = frozenset(("guarded", "_break_off", "_tell_break_off", "__del__", "_on_relay_closed", "_on_end_left"))


class Fault(MemoryError):
    """What is raised: as if there were no memory."""


class LineFault:
    """Raises before line number `at` (from 1) that is reached inside `with`."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.place = ""

    @property
    def raised(self) -> bool:
        return bool(self.place)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in MODULES or frame.f_code.co_name in SPARED:
            return None
        return self._trace_lines

    def _trace_lines(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and not self.place:
            self.left -= 1
            if self.left == 0:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
                raise Fault(self.place)
        return self._trace_lines

    def __enter__(self) -> LineFault:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(self._before)
