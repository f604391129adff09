"""The TOML file of `--config`: read, and made into settings.

Every error has the line that it is about. File names in it are relative to its folder.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Optional

from ..files.reading import Reading
from .builder import ACME, LISTENER, ROUTE, TOP, settings_of
from .limit_values import OF_LISTENERS
from .model import Place, Places, ProxySettings, SettingsError
from .table import Table, refuse_unknown
from .toml_lines import lines_of

__all__ = ["log_format_in", "read_settings"]

IN_LISTENER = dict.fromkeys((*LISTENER, "route"), "into a [[listener]]")
IN_ROUTE = dict.fromkeys(ROUTE, "into a [[listener.route]]")
LOG_FORMAT = re.compile(rb"""^[ \t]*(["']?)log-format\1[ \t]*=[ \t]*["']([a-z]+)["']""", re.MULTILINE)
AT_TOP = dict.fromkeys(TOP, "in front of the first table")


def read_settings(
    file: str, overrides: Optional[Mapping[str, object]] = None, reading: Optional[Reading] = None
) -> ProxySettings:
    """The settings in a TOML file. SettingsError.

    overrides: values of the command line that go before the file's top-level ones, by their names there. reading: that the
    file is part of; None: it is read alone.
    """
    document = read_document(file, reading)
    values, lines = parse(file, document)
    places = Places({(): Place("", file, 1)})
    for path, line in lines.items():
        # A member is told by the name of its array. A table is told by none: its line says it.
        name = next((part for part in reversed(path) if isinstance(part, str)), "")
        places[path] = Place("" if name in ("listener", "route") or path == ("acme",) else name, file, line)

    top = Table(values, places)
    refuse_unknown(top, (*TOP, "listener", "acme"), {**IN_ROUTE, **IN_LISTENER})
    acme = table_of(top, "acme")
    if acme is not None:
        refuse_unknown(acme, ACME, {**IN_ROUTE, **IN_LISTENER, **AT_TOP})
    listeners = []
    for listener in tables_of(top, "listener"):
        refuse_unknown(listener, (*LISTENER, *OF_LISTENERS, "route"), {**IN_ROUTE, **AT_TOP})
        routes = tables_of(listener, "route")
        for route in routes:
            refuse_unknown(route, ROUTE, {**IN_LISTENER, **AT_TOP})
        listeners.append((listener, routes))
    if not listeners:
        top.fail("there is no [[listener]]")

    given = overrides or {}
    for key in given:
        places[(key,)] = Place(f"--{key}")
    for key, other in (("threads", "processes"), ("processes", "threads")):
        if key in given and other not in given:  # the one is in place of the other
            values.pop(other, None)
    return settings_of(Table({**values, **given}, places), listeners, acme)._replace(file=file)


def log_format_in(file: str, reading: Optional[Reading] = None) -> Optional[str]:
    """What a file says of log-format, which may be wrong in every other respect: no TOML, or no text."""
    reading = reading or Reading()
    try:
        found = parse(file, read_document(file, reading))[0].get("log-format")
    except SettingsError:
        with suppress(OSError, ValueError):
            line = LOG_FORMAT.search(reading.read(file))
            return line[2].decode("ascii") if line is not None else None
        return None
    return found if isinstance(found, str) else None


def table_of(table: Table, key: str) -> Optional[Table]:
    """One table, None where there is none."""
    found = table.values.get(key)
    if found is not None and not isinstance(found, dict):
        table.fail(f"a table is needed: [{key}]", key)
    return None if found is None else Table(found, table.places, (*table.path, key))


def tables_of(table: Table, key: str) -> list[Table]:
    """An array of tables."""
    header = ".".join([*(part for part in table.path if isinstance(part, str)), key])
    found = table.values.get(key, [])
    if not isinstance(found, list) or not all(isinstance(member, dict) for member in found):
        table.fail(f"it is written with two brackets: [[{header}]]", key)
    return [Table(member, table.places, (*table.path, key, index)) for index, member in enumerate(found)]


def read_document(file: str, reading: Optional[Reading]) -> str:
    try:
        data = (reading or Reading()).read(file)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise SettingsError(file, 0, getattr(exc, "strerror", None) or str(exc)) from None
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        raise SettingsError(file, 1 + data.count(b"\n", 0, exc.start), f"it is not UTF-8: {exc.reason}") from None


def parse(file: str, document: str) -> tuple[dict[str, Any], dict[tuple[Any, ...], int]]:
    """The values, and the lines of their keys."""
    toml = toml_module(file)
    try:
        return toml.loads(document), lines_of(document)
    except toml.TOMLDecodeError as exc:
        text = str(exc)
        found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", text)
        if found is None:
            raise SettingsError(file, 1, text) from None
        if found[1] is None:
            raise SettingsError(file, 1 + document.rstrip("\n").count("\n"), f"{text[: found.start()]} at its end") from None
        raise SettingsError(file, int(found[1]), f"{text[: found.start()]} (column {found[2]})") from None
    except ValueError:  # int() bounds what it converts
        raise SettingsError(file, 0, "a number in it has too many digits") from None
    except RecursionError:
        raise SettingsError(file, 1, "arrays or tables are nested too deeply") from None


def toml_module(file: str) -> Any:
    """Python's own reader of TOML, which came with 3.11, or the package that it was made of."""
    for name in ("tomllib", "tomli"):
        with suppress(ImportError):
            return importlib.import_module(name)
    raise SettingsError(file, 0, "to read TOML, Python before 3.11 needs the package tomli: pip install 'sslsock[proxy]'")
