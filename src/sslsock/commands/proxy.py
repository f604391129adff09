"""`proxy`: joins the connections of its listeners to back ends, with TLS on either side, until a signal ends it."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence
from typing import Optional, Union

from ..proxy.check import Warn, check_files
from ..proxy.files.reading import Reader, Reading
from ..proxy.files.watch import obstacles_to, told
from ..proxy.observability.access_log import ERROR, MESSAGES, LineWriter
from ..proxy.observability.process_log import log, process_log
from ..proxy.service.privileges import PrivilegeError, acting_as, replaceable_for
from ..proxy.settings.model import ProxySettings, SettingsError
from ..proxy.settings.options import make_settings
from .common import CommandError, print_result


def load(arguments: argparse.Namespace, warn: Warn, reading: Reading) -> ProxySettings:
    """The settings as options and files say, with all files checked. warn, reading: of `check_files`. SettingsError."""
    settings = make_settings(arguments, reading)
    check_files(settings, warn, reading)
    return settings


def reload(arguments: argparse.Namespace, warn: Warn, before: Reading) -> tuple[ProxySettings, Reading]:
    """The same for SIGHUP. before: what was read for the settings in force."""
    reading = Reading(starting=False, before=before)
    return load(arguments, warn, reading), reading


def summary(settings: ProxySettings) -> str:
    routes = sum(len(listener.routes) for listener in settings.listeners)
    certificates = sum(len(listener.key_pairs) for listener in settings.listeners)
    counts = [(len(settings.listeners), "listener"), (routes, "route"), (certificates, "certificate")]
    if settings.acme is not None:
        counts.append((len(settings.acme_names()), "certificate by ACME"))
    parts = [plural(count, name) for count, name in counts]
    return ", ".join(filter(None, [*parts, settings.processes_text]))


def plural(count: int, name: str) -> str:
    first, space, rest = name.partition(" ")
    return f"{count} {first}{'s' if count != 1 else ''}{space}{rest}"


class StartSignals:
    """Signals while files are read that may take their time, until the server has handlers of its own: SIGTERM ends with status
    0 as it does later, SIGINT is the interpreter's KeyboardInterrupt. hung_up: SIGHUP has come, so what was read may be old."""

    def __init__(self) -> None:
        self.hung_up = False
        # At once: an exception could get lost in whatever runs. Nothing has been begun that would need an end.
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
        signal.signal(signal.SIGHUP, self._on_hangup)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)

    def _on_hangup(self, number: int, frame: object) -> None:
        self.hung_up = True

    def end(self) -> None:
        """Nothing is left to be ended or read. The interpreter's own end would give handlers back to the system, and a signal
        then would change the status."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def log_format_of(check: bool, chosen: Optional[str], config: Optional[str], reading: Reading) -> str:
    """That of the messages about settings too, which may be wrong in every other respect. `--check` answers whoever asks it.

    chosen: by `--log-format`. config: the file, whose word holds where that is None."""
    if check:
        return "text"
    if chosen is None and config is not None:
        from ..proxy.settings.config_file import log_format_in

        chosen = log_format_in(config, reading)
    return chosen if chosen in MESSAGES else "text"


def tell_wrong_usage(words: Sequence[str], message: str) -> bool:
    """Tell what is wrong with the command line as a line of the log, where that is to be JSON. False: it is not."""
    options = value_of(words, "--log-format"), value_of(words, "--config")
    if log_format_of("--check" in words, *options, Reading(starting=False)) != "json":  # which waits for nobody
        return False
    with open(2, "wb", closefd=False) as stream:
        writer = LineWriter(stream)
    writer.message = MESSAGES["json"]
    writer.write(f"{message}; --help tells how it is used", ERROR)
    writer.close()
    return True


def value_of(words: Sequence[str], option: str) -> Optional[str]:
    """What a command line gives for an option, however wrong it is otherwise; None: nothing."""
    for word, following in zip(words, [*words[1:], None]):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def run(arguments: argparse.Namespace) -> int:
    signals = StartSignals()
    reading = Reading()
    reader: Optional[Reader] = None
    settings: Union[ProxySettings, SettingsError]  # or what is wrong with them
    try:
        settings = make_settings(arguments, reading)
        if settings.keep_reading and not hasattr(arguments, "check"):
            reader = Reader(guarded_files(settings))  # before there are threads, of which the log is the first
    except SettingsError as exc:
        settings = exc
    except OSError as exc:
        settings = SettingsError(None, 0, f"--keep-reading: {exc.strerror or exc}")
    with open(2, "wb", closefd=False) as stream:  # sys.stderr is None where the descriptor was closed at the start
        writer = LineWriter(stream)
    chosen, config = getattr(arguments, "log_format", None), getattr(arguments, "config", None)
    if isinstance(settings, ProxySettings):
        chosen, config = settings.log_format, None
    writer.message = MESSAGES[log_format_of(hasattr(arguments, "check"), chosen, config, reading)]
    try:
        with process_log(writer):
            try:
                if isinstance(settings, SettingsError):
                    raise settings
                return start(arguments, settings, reading, signals, writer)
            except SettingsError as exc:
                writer.write(f"sslsock: {exc}", ERROR)
                return 2
            except (CommandError, BrokenPipeError):  # the answer of --check, which nobody takes
                raise
            except Exception:
                log.exception("the proxy has ended by a mistake of its own: please report it")
                return 1
    finally:
        signals.end()
        writer.close()
        if reader is not None:
            reader.close()


def guarded_files(settings: ProxySettings) -> list[str]:
    """What the reader of --keep-reading may open: nothing that the user could have lead elsewhere."""
    found = list(settings.files())
    assert settings.user is not None
    if os.geteuid() != 0:  # it will not start
        return found
    try:
        loose = replaceable_for(settings.user, found)
    except PrivilegeError:  # neither
        return []
    return [path for path in found if path not in loose]


def unwatched_files(settings: ProxySettings, reading: Reading) -> dict[str, str]:
    """Files that --watch auto has to look at, as the user of --user: path → why."""
    if settings.watch != "auto":
        return {}
    if settings.user is None or os.geteuid() != 0:
        return obstacles_to(reading.marks())
    with acting_as(settings.user):
        return obstacles_to(reading.marks())


def start(
    arguments: argparse.Namespace, settings: ProxySettings, reading: Reading, signals: StartSignals, writer: LineWriter
) -> int:
    """settings: as options and files say, with none of the other files read yet."""

    def warn(text: str) -> None:
        writer.write(f"sslsock: {text}")

    check_files(settings, warn, reading)
    while signals.hung_up:
        signals.hung_up = False
        reading = reading.renewed()
        settings = load(arguments, warn, reading)
    if getattr(arguments, "check", False):
        for line in told(unwatched_files(settings, reading)):
            warn(line)
        print_result(f"The settings are good: {summary(settings)}")
        return 0
    from ..proxy import server  # not for --check

    return server.run(settings, reading, lambda warn, before: reload(arguments, warn, before), writer)
