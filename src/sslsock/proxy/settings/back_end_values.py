"""Of `builder`: which back end a connection goes to, and how they are checked."""

from __future__ import annotations

import re
from typing import Optional

from .model import Address, Balance, HealthCheck
from .table import Table

__all__ = ["CHOICE", "METHODS", "balance_of", "check_of"]

REQUEST = ("to-check-method", "to-check-path", "to-check-host", "to-check-status")
PACE = ("to-check-interval", "to-check-timeout", "to-check-rise", "to-check-fall")
CHOICE = ("balance", "to-check", *PACE, *REQUEST)
METHODS = ("round-robin", "least-connections", "hash-source", "hash-sni")
KINDS = ("tcp", "tls", "http")

MOST_WEIGHT = 256
MOST_IN_A_ROW = 100
LEAST_SECONDS = 0.01  # for an interval or a timeout
STATUS = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?")
VISIBLE = re.compile(r"[!-~]+")  # what can stand in a request line and a Host field (RFC 9112, 3.2; RFC 9110, 7.2)


def balance_of(table: Table, listen: Address) -> tuple[tuple[str, ...], Balance]:
    """The addresses of `to`, without the words behind them, and the choice among them."""
    texts: list[str] = []
    weights: list[int] = []
    backups: list[bool] = []
    for index, text in enumerate(table.texts("to")):
        address, *words = text.split(" ")
        weight, backup = 1, False
        for word in words:
            key, equals, value = word.partition("=")
            if word == "backup":
                backup = True
            elif key == "weight" and equals:
                if not (value.isascii() and value.isdigit()) or not 1 <= int(value[:10]) <= MOST_WEIGHT:
                    table.fail(f"{text!r}: a weight is a whole number from 1 to {MOST_WEIGHT}", "to", index)
                weight = int(value)
            elif word:
                table.fail(f"{text!r}: behind the address stand weight=N or backup, not {word!r}", "to", index)
        texts.append(address)
        weights.append(weight)
        backups.append(backup)
    if texts and all(backups):
        table.fail("every one of them is a backup: one at least has to be none", "to")
    method = table.choice("balance", *METHODS) or METHODS[0]
    if method == "hash-sni" and not listen.tls:
        table.fail("a tcp:// listener does not see what name TLS asks for; hash-source goes by addresses", "balance")
    plain = not any(backups) and len(set(weights)) < 2
    return tuple(texts), Balance(method) if plain else Balance(method, tuple(weights), tuple(backups))


def check_of(table: Table) -> Optional[HealthCheck]:
    kind = table.choice("to-check", *KINDS)
    name = table.name("to-check")
    if kind is None:
        table.refuse((*PACE, *REQUEST), f"it needs {name}")
        return None
    if kind != "http":
        table.refuse(REQUEST, f"it is for a request of HTTP: {name} http")
    defaults = HealthCheck(kind)
    interval = seconds_of(table, "to-check-interval", defaults.interval)
    return HealthCheck(
        kind=kind,
        method=table.choice("to-check-method", "GET", "HEAD") or defaults.method,
        path=path_of(table),
        host=visible(table, "to-check-host"),
        status=status_of(table) or defaults.status,
        interval=interval,
        timeout=seconds_of(table, "to-check-timeout", interval),
        rise=table.count("to-check-rise", 1, MOST_IN_A_ROW, defaults.rise),
        fall=table.count("to-check-fall", 1, MOST_IN_A_ROW, defaults.fall),
    )


def seconds_of(table: Table, key: str, default: float) -> float:
    seconds = table.seconds(key, default)
    if seconds < LEAST_SECONDS:
        table.fail(f"{seconds:g} is too short: {LEAST_SECONDS:g} s at least", key)
    return seconds


def visible(table: Table, key: str) -> Optional[str]:
    text = table.text(key)
    if text is not None and not VISIBLE.fullmatch(text):
        table.fail(f"{text!r}: only visible ASCII can stand in a request, without blanks", key)
    return text


def path_of(table: Table) -> str:
    path = visible(table, "to-check-path")
    if path is None:
        return "/"
    if not path.startswith("/") or "#" in path:
        table.fail(f"{path!r}: a path begins with / and has no #", "to-check-path")
    return path


def status_of(table: Table) -> tuple[tuple[int, int], ...]:
    """As "200-299,304", or a list of such."""
    ranges = []
    for index, text in enumerate(table.texts("to-check-status")):
        for part in text.split(","):
            found = STATUS.fullmatch(part.strip())
            low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
            if low > high:
                reason = f"{part!r}: a status is a number from 100 to 599, or a range as in 200-399"
                table.fail(reason, "to-check-status", index)
            ranges.append((low, high))
    return tuple(ranges)
