"""`proxy`: joins the connections of its listeners to back ends, with TLS on either side, until a signal ends it."""

from __future__ import annotations

import argparse
import os
import signal

from ..proxy.check import Warn, check_files
from ..proxy.options import make_settings
from ..proxy.settings import ProxySettings, SettingsError
from .common import UsageError, print_error


def load(arguments: argparse.Namespace, warn: Warn = print_error, starting: bool = True) -> ProxySettings:
    """The settings as options and files are now, with all files checked. warn, starting: of `check_files`. SettingsError."""
    settings = make_settings(arguments)
    check_files(settings, warn, starting)
    return settings


def summary(settings: ProxySettings) -> str:
    routes = sum(len(listener.routes) for listener in settings.listeners)
    certificates = sum(len(listener.key_pairs) for listener in settings.listeners)
    counts = ((len(settings.listeners), "listener"), (routes, "route"), (certificates, "certificate"))
    return ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for count, name in counts)


class StartSignals:
    """Signals while files are read that may take their time, until the server has handlers of its own: SIGTERM ends with status
    0 as it does later, SIGINT is the interpreter's KeyboardInterrupt. hung_up: SIGHUP has come, so what was read may be old."""

    def __init__(self) -> None:
        self.hung_up = False
        # At once: an exception could get lost in whatever runs. Nothing has been begun that would need an end.
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
        signal.signal(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self, number: int, frame: object) -> None:
        self.hung_up = True


def run(arguments: argparse.Namespace) -> int:
    signals = StartSignals()
    try:
        settings = load(arguments)
        while signals.hung_up:
            signals.hung_up = False
            settings = load(arguments)
    except SettingsError as exc:
        raise UsageError(str(exc)) from None
    if getattr(arguments, "check", False):
        print(f"The settings are good: {summary(settings)}")
        return 0
    from ..proxy import server  # not for --check

    return server.run(settings, reload=lambda warn: load(arguments, warn, starting=False))
