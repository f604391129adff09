"""What the service manager is told of the proxy's life: systemd's protocol, one datagram with a few lines (sd_notify(3)).

The variables are taken out of the environment when it is made, so that no child believes that they are meant for it; and the
socket is connected then, while the proxy may still do so.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

__all__ = ["ServiceManager"]

PATIENCE = 1.0  # seconds that a manager which reads nothing may take


class ServiceManager:
    """Whoever has started the process, if it wants to hear of it.

    watchdog: float, seconds within which it wants to hear `alive` again and again (sd_watchdog_enabled(3)); 0: it does not.
    problem: str, why it is told nothing although it wants to be, or "".
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        interval, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        self.problem = ""
        self.watchdog = 0.0
        self._socket = self._connected(address) if address else None
        if self._socket is not None and interval.isdecimal() and pid in ("", str(os.getpid())):
            self.watchdog = int(interval) / 1e6

    def _connected(self, address: str) -> socket.socket | None:
        if address[0] not in "/@":
            self.problem = f"NOTIFY_SOCKET={address}: only UNIX sockets are known"
            return None
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.settimeout(PATIENCE)
        try:
            manager.connect("\0" + address[1:] if address[0] == "@" else address)
        except OSError as exc:
            manager.close()
            self.problem = f"NOTIFY_SOCKET={address}: {exc.strerror or exc}"
            return None
        return manager

    def ready(self, status: str) -> None:
        """The start is over, or a reload. status: for people."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` tells its end."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", "STATUS=reloading")

    def stopping(self, seconds: float, status: str) -> None:
        """The end begins. seconds: how long it may take, 0: nobody knows."""
        patience = [f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"] if seconds else []
        self._tell("STOPPING=1", *patience, f"STATUS={status}")

    def alive(self) -> None:
        """All is well; to be repeated within `watchdog` seconds."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it has gone, or does not read: the proxy serves on
                self._socket.send("\n".join(lines).encode())

    def close(self) -> None:
        """Nothing is told from now on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
