"""Who may in: the names of a client certificate against a list of globs (`--allow-name`).

What an entry looks like says what kind of name it is for:

- ``10.0.0.7``, ``10.0.0.0/24``, ``fd00::/8``: an address or a network, for names of kind IP. No globs.
- ``spiffe://example.org/ns/*/sa/web``: it starts with a scheme; for URIs. Scheme and host without regard to case (RFC 5280,
  7.4), the path as it is written.
- ``*@example.org``: it has an @; for e-mail addresses. The host without regard to case, the local part as it is written
  (RFC 5280, 7.5).
- ``*.example.org``: anything else; for DNS names, without regard to case or to a dot at the end.

``*`` stands for any number of characters within one part of a name (a label of a host, a segment of a path, a local part), and
for one at least where it is the whole part. So ``*.example.org`` lets in neither ``example.org`` nor ``a.b.example.org``, and
``spiffe://example.org/*`` no deeper path. ``**`` stands for any number of any characters. Nothing else is special.

A certificate without any subject alternative name is known by its common names, which are held against entries of every kind.
One that has alternative names is never known by its common name (RFC 6125, 6.4.4).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple, Optional, Union

from ...core.certificate import SslCertificate

__all__ = ["NameList"]

NAME_LIMIT = 2048  # characters, as SPIFFE-ID, 2.3 has it: bounds the time that a glob of many stars can take

LIKE_ADDRESS = re.compile(r"[0-9][0-9*]*(\.[0-9*]+){3}(/.*)?|[0-9A-Fa-f*]*:[0-9A-Fa-f*]*:[0-9A-Fa-f:.*]*(/.*)?")
URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:(?://[^/?#]*)?)(.*)", re.DOTALL)  # RFC 3986: scheme and authority; the rest

# What a `*` never stands for. In a host neither for a star: a wildcard certificate is not each of the hosts that it is good
# for; nor for a backslash, by which `SslCertificate` shows what does not print.
IN_HOST = "./:@?#*\\"
IN_PATH = "/?#"
IN_LOCAL_PART = "@"


class Entry(NamedTuple):
    """One glob, ready to be used: a pattern, or a network for the kind IP."""

    kind: str
    wanted: Union[re.Pattern[str], ipaddress.IPv4Network, ipaddress.IPv6Network]

    def fits(self, name: str) -> bool:
        if isinstance(self.wanted, re.Pattern):
            return self.wanted.fullmatch(name[:-1] if self.kind == "DNS" and name.endswith(".") else name) is not None
        try:
            return ipaddress.ip_address(name) in self.wanted
        except ValueError:
            return False


def expression(glob: str, ends: str) -> str:
    """A piece of a glob as a regular expression. ends: the characters that end its parts."""
    pieces = []
    for match in re.finditer(r"\*\*|\*|[^*]+", glob):
        text = match.group()
        if text == "**":
            pieces.append(".*")
        elif text == "*":
            before, after = glob[: match.start()][-1:], glob[match.end() :][:1]
            whole = (not before or before in ends) and (not after or after in ends)
            pieces.append(f"[^{re.escape(ends)}]{'+' if whole else '*'}")
        else:
            pieces.append(re.escape(text))
    return "".join(pieces)


def parse(glob: str) -> Entry:
    if LIKE_ADDRESS.fullmatch(glob):
        try:
            return Entry("IP", ipaddress.ip_network(glob))
        except ValueError as exc:
            hint = "; a network is written as in 10.0.0.0/24" if "*" in glob else ""
            raise ValueError(f"{glob!r} looks like an address, but {exc}{hint}") from None
    uri = URI.fullmatch(glob)
    if uri is not None:
        kind, pattern = "URI", f"(?i:{expression(uri[1], IN_HOST)}){expression(uri[2], IN_PATH)}"
    elif "@" in glob:
        local, _, host = glob.rpartition("@")
        kind, pattern = "email", f"{expression(local, IN_LOCAL_PART)}@(?i:{expression(host, IN_HOST)})"
    else:
        kind, pattern = "DNS", f"(?i:{expression(glob[:-1] if glob.endswith('.') else glob, IN_HOST)})"
    # ASCII: without it, letters elsewhere in Unicode equal some of those that host names are made of (the Kelvin sign, k).
    return Entry(kind, re.compile(pattern, re.DOTALL | re.ASCII))


class NameList:
    """The clients that are let in; see the top of the file for the globs. An empty list lets in nobody.

    ValueError: an entry is empty, or looks like an address and is none.
    """

    def __init__(self, globs: Iterable[str]) -> None:
        self._entries: list[Entry] = []
        for glob in globs:
            if not glob:
                raise ValueError("an allowed name is empty")
            self._entries.append(parse(glob))

    def match(self, certificate: SslCertificate) -> Optional[str]:
        """The first name of the certificate that is on the list, as "KIND:name" (kinds: DNS, IP, email, URI, CN); else None.

        The certificate has to be verified already: that also keeps out one whose alternative names do not parse, which would
        look here as if it had none.
        """
        names = certificate.subject_alternative_names or [("CN", name) for name in certificate.subject.get("CN", ())]
        for kind, name in names:
            if len(name) <= NAME_LIMIT and any(kind in (entry.kind, "CN") and entry.fits(name) for entry in self._entries):
                return f"{kind}:{name}"
        return None
