"""Of `builder`: the Redis server of a fleet."""

from __future__ import annotations

import re
from typing import Optional
from urllib.parse import unquote

from ...sockets.host_port import parse_connect_address
from ...sockets.local_path import checked_path, is_abstract
from . import hosts
from .model import Address, Fleet
from .table import Table

__all__ = ["FLEET", "fleet_of"]

DETAILS = ("fleet-name", "fleet-ca", "fleet-password-file", "fleet-secret-file")
FLEET = ("fleet", *DETAILS)
PORT = 6379
MOST_DATABASES = 2**31
NAME = re.compile(r"[A-Za-z0-9._:{}-]{1,200}")
SCHEMES = {"redis": "tcp", "rediss": "tls"}


def fleet_of(top: Table) -> Optional[Fleet]:
    """Messages name no URL: there may be a password in it."""
    text = top.text("fleet")
    if text is None:
        top.refuse(DETAILS, f"it needs {top.name('fleet')}")
        return None
    top.refuse(["ticket-key-file"], f"either this or {top.name('fleet')}: both say where the keys come from")
    user = password = None
    database = 0
    if text[:5].lower() == "unix:":
        address = Address("tcp", "", 0, path_of(top, text[5:]))
    else:
        scheme, separator, rest = text.partition("://")
        if not separator or scheme.lower() not in SCHEMES:
            top.fail("redis://HOST:PORT, rediss://HOST:PORT or unix:PATH is needed", "fleet")
        if "?" in rest or "#" in rest:
            top.fail("nothing follows the number of the database, as in redis://localhost:6379/0", "fleet")
        login, at, rest = rest.rpartition("@")
        if at:
            user, colon, password = (unquote(part) for part in login.partition(":"))
            user, password = user or None, password if colon else None
        place, _, number = rest.partition("/")
        if number and not (number.isascii() and number.isdigit() and int(number[:10]) < MOST_DATABASES):
            top.fail("behind the port stands the number of a database, as in redis://localhost:6379/0", "fleet")
        database = int(number or 0)
        address = address_of(top, SCHEMES[scheme.lower()], place)
    if not address.tls:
        top.refuse(["fleet-ca"], "it is for rediss://, which is TLS")
    if password is not None:
        top.refuse(["fleet-password-file"], f"there is a password in {top.name('fleet')} already")
    name = top.text("fleet-name") or Fleet._field_defaults["name"]
    if not NAME.fullmatch(name):
        top.fail(f"{name!r}: up to 200 letters, digits and ._:{{}}- are needed", "fleet-name")
    return Fleet(
        address=address,
        user=user,
        password=password,
        database=database,
        name=name,
        ca=top.file("fleet-ca"),
        password_file=top.file("fleet-password-file"),
        secret_file=top.file("fleet-secret-file"),
    )


def address_of(top: Table, scheme: str, place: str) -> Address:
    host, _, port = place.rpartition(":")
    if not host or "]" in port:  # as in "localhost" and "[::1]"
        place = f"{place}:{PORT}"
    try:
        host, number = parse_connect_address(place)
        hosts.back_end(host)
    except ValueError as exc:
        top.fail(str(exc), "fleet")
    return Address(scheme, host, number)


def path_of(top: Table, path: str) -> str:
    if path.startswith("//"):
        path = path[2:]
    try:
        path = checked_path(path)
        if is_abstract(path):
            top.fail("Redis listens on a UNIX socket that has a file", "fleet")
        return checked_path(top.located(path, "fleet"))
    except ValueError as exc:
        top.fail(str(exc), "fleet")
