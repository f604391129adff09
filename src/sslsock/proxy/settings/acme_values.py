"""Of `builder`: what is said of ACME."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from . import hosts
from .model import AcmeSettings, Address
from .table import Table

__all__ = ["ACME", "IN_FLEET", "acme_names", "acme_of"]

ACME = (
    *("terms-agreed", "storage", "email", "directory", "directory-ca", "key-type", "challenge", "http"),
    *("eab-kid", "eab-key-file"),
)
IN_FLEET = "fleet"  # in the place of a folder
DIRECTORY = "https://acme-v02.api.letsencrypt.org/directory"
KEY_TYPES = ("ecdsa", "rsa")
CHALLENGES = ("tls-alpn-01", "http-01")
URL = re.compile(r"https://[!-~]+")
MAILBOX = re.compile(r"[^@\s,?&]+@[^@\s,?&]+")  # RFC 8555, 7.3: one address, without header fields


def acme_names(table: Table) -> tuple[str, ...]:
    """The names of a listener that certificates are obtained for."""
    names = [acme_name(table, text, index) for index, text in enumerate(table.texts("acme"))]
    for index, name in enumerate(names):
        if name in names[:index]:
            table.fail(f"{name} stands here twice", "acme", index)
    return tuple(names)


def acme_name(table: Table, text: str, index: int) -> str:
    """As it stands in a ClientHello: ASCII, lower case, no dot at the end."""
    if "*" in text:
        table.fail(f"{text!r}: for wildcards an authority wants the challenge dns-01, which is not made here", "acme", index)
    try:
        name = hosts.host(text).server_name
        if name is None:
            raise ValueError(f"{text!r} is an address: certificates are obtained for names")
    except ValueError as exc:
        table.fail(str(exc), "acme", index)
    return name.lower().rstrip(".")


def acme_of(
    table: Optional[Table], wanted: Optional[Table], listening: Sequence[Address], http: Optional[Address]
) -> Optional[AcmeSettings]:
    """table: where all else is said of ACME. wanted: the first listener with names, None where there is none. listening: where
    the listeners with names listen. http: where http-01 is answered."""
    if wanted is None:
        if table is not None and table.values:
            needed = "--acme NAME" if table.prefix else "acme = [NAME, …] in a [[listener]]"
            table.fail(f"no listener asks for certificates: it needs {needed}", next(iter(table.values)))
        return None
    if table is None or not table.values:
        needed = "a table [acme], with terms-agreed and storage in it"
        if wanted.prefix:
            needed = "--acme-terms-agreed and --acme-storage FOLDER"
        wanted.fail(f"it needs {needed}", "acme")
    name = table.name
    if not table.flag("terms-agreed"):
        where = table.text("directory") or DIRECTORY
        table.fail(f"{name('terms-agreed')} is missing: an authority ({where}) wants its terms of service agreed to")
    in_fleet = table.text("storage") == IN_FLEET
    storage = "" if in_fleet else table.file("storage")
    if storage is None:
        table.fail(f"{name('storage')} is missing: the folder for the account, the keys and the certificates")
    email = table.text("email")
    if email is not None and not MAILBOX.fullmatch(email):
        table.fail(f"{email!r} is no mail address, as in ops@example.com", "email")
    directory = table.text("directory") or DIRECTORY
    if not URL.fullmatch(directory):
        table.fail(f"{directory!r}: the address of an ACME directory is needed, as in {DIRECTORY}", "directory")
    challenge = table.choice("challenge", *CHALLENGES) or ("tls-alpn-01" if http is None else "http-01")
    if challenge == "http-01" and http is None:
        table.fail(f"http-01 needs {name('http')}: where it is asked for, as in :80", "challenge")
    if challenge == "tls-alpn-01" and not any(address.path is None for address in listening):
        wanted.fail("tls-alpn-01 needs a listener with names that is no UNIX socket", "acme")
    eab_kid, eab_key_file = table.text("eab-kid"), table.file("eab-key-file")
    if (eab_kid is None) != (eab_key_file is None):
        here, other = ("eab-kid", "eab-key-file") if eab_key_file is None else ("eab-key-file", "eab-kid")
        table.fail(f"it needs {name(other)}", here)
    return AcmeSettings(
        storage=storage,
        in_fleet=in_fleet,
        directory=directory,
        directory_ca=table.file("directory-ca"),
        email=email,
        key_type=table.choice("key-type", *KEY_TYPES) or KEY_TYPES[0],
        challenge=challenge,
        http=http,
        eab_kid=eab_kid,
        eab_key_file=eab_key_file,
    )

