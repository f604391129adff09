"""The options of `python -m sslsock proxy`, and the settings they make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

if TYPE_CHECKING:
    from ..files.reading import Reading
    from .model import ProxySettings

__all__ = ["add_arguments", "make_settings"]

DESCRIPTION = """\
Accept connections and join each to one of its own to a back end: every byte moves in C, in both directions. The
schemes say where TLS is spoken:

  --listen tls://…  --to tcp://…   TLS ends here
  --listen tcp://…  --to tls://…   TLS begins here
  --listen tls://…  --to tls://…   both: what passes is seen here only
  --listen tcp://…  --to tcp://…   everything passes as it is

Several listeners, and routes by the name or protocol a client asks for, are written in a TOML file (--config).
All of this, with examples: docs/proxy.md.
"""

EPILOG = """\
examples:
  %(prog)s --listen tls://:8443 --to tcp://127.0.0.1:8080 --ca-out ca.pem
  %(prog)s --listen tls://:443 --cert site.pem --key site.key --to tcp://10.0.0.1:80 --to tcp://10.0.0.2:80
  %(prog)s --listen tcp://127.0.0.1:5432 --to tls://db.example.com:5432 --to-ca ca.pem
  %(prog)s --listen tls://:443 --cert site.pem --key site.key --to unix:/run/app.sock
  %(prog)s --config proxy.toml --check

signals: SIGHUP reads certificates, keys, routes and limits again; SIGTERM drains and ends; SIGINT ends at once
exit status: 0 clean, 1 a failure of TLS, the network or a file, 2 wrong usage or settings, 130 interrupted
"""

USAGE = """\
%(prog)s --listen SCHEME://HOST:PORT --to SCHEME://HOST:PORT [options]
       %(prog)s --config FILE [--check] [options]
"""

# What belongs to the command line itself; all else are values.
OWN = ("command", "config", "check", "identities")


class Once(argparse.Action):
    """Stores a value; a second one would silently win."""

    hint = ""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Union[str, Sequence[Any], None],
        option_string: Union[str, None] = None,
    ) -> None:
        if hasattr(namespace, self.dest):
            raise argparse.ArgumentError(self, f"it may be given once only{self.hint}")
        setattr(namespace, self.dest, values)


class OnceWithoutConfig(Once):
    hint = "; several listeners are written in a file: --config"


def tagged(option: str) -> Callable[[str], tuple[str, str]]:
    """The type of an option that shares its list with another: their order says what belongs together."""
    return lambda value: (option, value)


def whole(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text[:20])
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")


def seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only what is given gets into the namespace: that tells it from defaults, also from those of a file."""
    parser.argument_default = argparse.SUPPRESS
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.allow_abbrev = False  # a shortened name in a unit file would break with the next option
    parser.usage = USAGE
    parser.description = DESCRIPTION
    parser.epilog = EPILOG

    group = parser.add_argument_group("a file in place of options")
    add = group.add_argument
    add("--config", metavar="FILE", action=Once,
        help="read all of this from a TOML file; of the options, those from the group \"limits\" on may stand beside it, and "
        "count before what it says")
    add("--check", action="store_true", help="look whether all settings and files are good, and end")

    group = parser.add_argument_group("where from, where to")
    add = group.add_argument
    add("--listen", metavar="SCHEME://HOST:PORT", action=OnceWithoutConfig,
        help="tls:// or tcp://; port 0: any free one; no HOST: every address. A UNIX socket is tls+unix:PATH or unix:PATH, "
        "@NAME one without a file")
    add("--listen-mode", metavar="MODE", action=Once,
        help="of the file of a UNIX socket, in octal, as in 0660 (as the umask has it)")
    add("--listen-owner", metavar="[USER][:GROUP]", action=Once, help="whose that file becomes; ids will do")
    add("--to", metavar="SCHEME://HOST:PORT", action="append",
        help="back end, spelled alike; repeat it for several, which take turns; one that cannot be reached is left out for a "
        "while; behind a blank may stand weight=N (1 to 256, its share) and backup (used when none of the others is left)")
    add("--balance", metavar="METHOD", action=Once,
        help="which back end a connection goes to: round-robin (if nothing is said), least-connections, hash-source, hash-sni")

    group = parser.add_argument_group("who may connect, and who the client is")
    add = group.add_argument
    add("--allow-source", metavar="NETWORK", action="append",
        help="let in clients from here only; repeatable. Of the networks that hold an address the smallest decides")
    add("--deny-source", metavar="NETWORK", action="append", help="refuse clients from here; repeatable")
    add("--allow-source-file", metavar="FILE", action="append",
        help="let in clients from the networks in this file, one a line; repeatable")
    add("--deny-source-file", metavar="FILE", action="append",
        help="refuse clients from the networks in this file, one a line; repeatable")
    add("--proxy-protocol-in", action="store_true",
        help="connections begin with a PROXY header, which says who the client is")
    add("--trusted-proxy", metavar="NETWORK", action="append",
        help="who may send that header (10.0.0.0/8, 192.0.2.1, fd00::/8); repeatable")
    add("--proxy-protocol-out", metavar="v1|v2", action=Once,
        help="tell back ends who the client is, by such a header; v2 also tells them what TLS has agreed on")
    add("--transparent", action="store_true",
        help="connect to back ends from the client's address; needs routes that lead their answers here, and a right")

    group = parser.add_argument_group("checks of back ends")
    add = group.add_argument
    add("--to-check", metavar="tcp|tls|http", action=Once,
        help="look every few seconds whether each back end takes a connection, a TLS handshake or a request of HTTP/1.1")
    add("--to-check-interval", metavar="SECONDS", type=seconds, action=Once, help="from one check to the next (2)")
    add("--to-check-timeout", metavar="SECONDS", type=seconds, action=Once, help="time for a check (as the interval)")
    add("--to-check-rise", metavar="N", type=whole, action=Once, help="good checks in a row until one that was down is up (2)")
    add("--to-check-fall", metavar="N", type=whole, action=Once, help="bad checks in a row until one that was up is down (3)")
    add("--to-check-method", metavar="GET|HEAD", action=Once, help="method of the request (GET)")
    add("--to-check-path", metavar="PATH", action=Once, help="path of the request (/)")
    add("--to-check-host", metavar="NAME", action=Once, help="its Host (host and port of --to)")
    add("--to-check-status", metavar="A,B-C", action=Once, help="status codes that are good (200-399)")

    group = parser.add_argument_group("TLS with clients (--listen tls://…)")
    add = group.add_argument
    add("--cert", metavar="FILE", dest="identities", action="append", type=tagged("cert"),
        help="certificate (PEM), with its chain after it; repeatable: the name that the client asks for chooses. "
        "Without any, one for localhost is made in memory")
    add("--key", metavar="FILE", dest="identities", action="append", type=tagged("key"),
        help="private key (PEM) of the --cert before it, or one for each --cert in their order; "
        "may be missing if it is in that file")
    add("--ca-out", metavar="FILE", action=Once,
        help="write the authority of the certificate made in memory here (PEM)")
    add("--client-ca", metavar="FILE", action=Once,
        help="demand a certificate of clients, from one of the authorities in this PEM file")
    add("--allow-name", metavar="GLOB", action="append",
        help="of those, let in whose subject alternative name or common name is like this, as in *.example.com; repeatable")
    add("--alpn", metavar="A,B", action=Once, help="protocols to agree on, best first")
    add("--tls-profile", metavar="modern|intermediate|old", action=Once,
        help="begin with what Mozilla's guidelines for servers (5.7) recommend; the options below go before it")
    add_policy(add, "", "clients")

    group = parser.add_argument_group("certificates that are obtained and renewed by themselves (ACME)")
    add = group.add_argument
    add("--acme", metavar="NAME", nargs="+", action="extend",
        help="obtain a certificate for each of these names; needs the package acme: the extra `acme`")
    add("--acme-terms-agreed", action="store_true", help="I agree to the terms of service of the authority; has to be said")
    add("--acme-storage", metavar="FOLDER|fleet", action=Once,
        help="where the account, the keys and the certificates are kept; proxies may share it. fleet: in the fleet's Redis, "
        "sealed by --fleet-secret-file")
    add("--acme-email", metavar="ADDRESS", action=Once, help="for the authority, whom it may concern")
    add("--acme-directory", metavar="URL", action=Once, help="of the authority (Let's Encrypt)")
    add("--acme-directory-ca", metavar="FILE", action=Once,
        help="trust the authorities in this PEM file for that URL, in place of the usual ones")
    add("--acme-key-type", metavar="ecdsa|rsa", action=Once,
        help="of the keys that are made: P-256, or RSA of 2048 bits (ecdsa)")
    add("--acme-challenge", metavar="tls-alpn-01|http-01", action=Once,
        help="how the authority sees that a name leads here (tls-alpn-01: on the listener itself; http-01 with --acme-http)")
    add("--acme-http", metavar="[HOST]:PORT", action=Once,
        help="answer http-01 here, and send everybody else to https; the authority asks at port 80")
    add("--acme-eab-kid", metavar="ID", action=Once, help="external account, for authorities that ask for one")
    add("--acme-eab-key-file", metavar="FILE", action=Once, help="its HMAC key, in base64url")

    group = parser.add_argument_group("TLS with back ends (--to tls://…)")
    add = group.add_argument
    add("--to-ca", metavar="FILE", action=Once,
        help="trust the authorities in this PEM file, in place of the system's")
    add("--to-cert", metavar="FILE", action=Once, help="own certificate (PEM), with its chain after it")
    add("--to-key", metavar="FILE", action=Once,
        help="its private key (PEM); may be missing if it is in the --to-cert file")
    add("--to-server-name", metavar="NAME", action=Once,
        help="ask for and verify this name in place of the host in --to")
    add("--to-allow-name", metavar="GLOB", action="append",
        help="verify a name like this, as in spiffe://example.org/*, in place of the host in --to; repeatable")
    add("--to-alpn", metavar="A,B", action=Once, help="protocols to offer, best first")
    add("--to-insecure", action="store_true", help="go on in spite of verification errors")
    add_policy(add, "to-", "back ends")

    group = parser.add_argument_group("limits")
    add = group.add_argument
    add("--max-connections", metavar="N", type=whole, action=Once,
        help="connections at the same time; the others wait (0: as many as descriptors allow)")
    add("--max-handshakes", metavar="N", type=whole, action=Once,
        help="of these, those whose handshake is not done; the others wait (0: three quarters of the connections)")
    add("--connection-rate", metavar="RATE", action=Once,
        help="connections that begin in a time, as in 500, 500/s or 30/m, perhaps with burst=N; the others wait (0: no limit)")
    add("--handshake-rate", metavar="RATE", action=Once, help="the same for TLS handshakes, from the ClientHello")
    add("--max-connections-per-source", metavar="N", type=whole, action=Once,
        help="connections from one IPv4 address or IPv6 /64 network; further ones are reset (0: no limit)")
    add("--max-handshakes-per-source", metavar="N", type=whole, action=Once,
        help="of these, those whose handshake is not done (0: no limit)")
    add("--connection-rate-per-source", metavar="RATE", action=Once,
        help="connections that begin in a time, from one such source; further ones are reset (0: no limit)")
    add("--handshake-rate-per-source", metavar="RATE", action=Once, help="the same for TLS handshakes")
    add("--source-ipv4-prefix", metavar="BITS", type=whole, action=Once, help="how much of an IPv4 address is a source (32)")
    add("--source-ipv6-prefix", metavar="BITS", type=whole, action=Once, help="how much of an IPv6 address is a source (64)")
    add("--source-table-size", metavar="N", type=whole, action=Once,
        help="sources whose rates are known at the same time, in 24 bytes each (65536)")

    group = parser.add_argument_group("times")
    add = group.add_argument
    for name, default, what in (
        ("handshake", 10, "for a client's TLS handshake, with its PROXY header if one is expected"),
        ("connect", 5, "for reaching a back end, with the TLS handshake there"),
        ("idle", 300, "without a byte in either direction"),
        ("drain", 30, "for open connections after SIGTERM"),
    ):
        add(f"--{name}-timeout", metavar="SECONDS", type=seconds, action=Once,
            help=f"time {what} ({default}; 0: no limit)")
    add("--half-closed-timeout", metavar="SECONDS", type=seconds, action=Once,
        help="time without a byte once one side has ended what it sends (0: as --idle-timeout)")
    add("--connection-lifetime", metavar="SECONDS", type=seconds, action=Once,
        help="time for a connection from accept to end, whatever it does (0: no limit)")
    add("--shutdown-delay", metavar="SECONDS", type=seconds, action=Once,
        help="take new connections for so long after SIGTERM, until whoever sends them here has heard of the end (0)")
    add("--keepalive", metavar="SECONDS", type=whole, action=Once,
        help="silence on a connection, of a client or to a back end, until TCP asks whether the other side is still there; "
        "given up after as many again (60; 0: never)")

    group = parser.add_argument_group("session tickets, and a fleet")
    add = group.add_argument
    add("--ticket-key-file", metavar="FILE", action=Once,
        help="keys for session tickets that several processes or machines share; without it, keys live in memory")
    add("--fleet", metavar="URL", action=Once,
        help="share those keys by a Redis server, where they are made and changed without anybody's hand: "
        "redis[s]://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE], or unix:PATH; needs redis: the extra `fleet`")
    add("--fleet-name", metavar="NAME", action=Once, help="what their name begins with there, one for each fleet (sslsock)")
    add("--fleet-ca", metavar="FILE", action=Once,
        help="trust the authorities in this PEM file for rediss://, in place of the system's")
    add("--fleet-password-file", metavar="FILE", action=Once, help="the password for Redis")
    add("--fleet-secret-file", metavar="FILE", action=Once,
        help="32 random bytes or more, the same for all members: who sees what Redis holds cannot make the keys without them")

    group = parser.add_argument_group("operation")
    add = group.add_argument
    add("--threads", metavar="N", type=whole, action=Once,
        help="threads, each with a loop (as many as there are cores to use)")
    add("--processes", metavar="N", type=whole, action=Once,
        help="in place of threads: processes, which use all of their cores and take more memory; "
        "one that dies is replaced, and its connections alone are lost")
    add("--resolver", metavar="system|dns|ADDRESS,…", action=Once,
        help="who is asked for the names of back ends: the system (kept for 30 s), DNS (by its TTL), or these name servers; "
        "DNS, and back ends as in tcp+srv://_http._tcp.example.com, need dnspython: the extra `dns`")
    add("--metrics", metavar="HOST:PORT", action=Once,
        help="answer Prometheus here, and probes (/healthz, /readyz); needs prometheus_client: the extra `proxy`")
    add("--log-format", metavar="text|json", action=Once,
        help="write a line for each connection to standard error; it says why a client was refused (off)")
    add("--log-probes", action="store_true",
        help="also for connections that closed without a word, as those of load balancers which look whether somebody listens")
    add("--user", metavar="NAME[:GROUP]", action=Once, help="become this user once all addresses are bound; ids will do")
    add("--keep-reading", action="store_true",
        help="with --user: a second process keeps root's rights, to open the files that were named at the start, for SIGHUP")
    add("--watch", metavar="auto|poll|off", action=Once,
        help="take certificates, keys, authorities and CRLs that have changed, without a signal (auto: as the system tells of "
        "it, or by looking where it does not; poll: by looking at all of them; off: SIGHUP alone reads them again)")


def add_policy(add: Callable[..., object], prefix: str, peers: str) -> None:
    """The options of one side: what is agreed to, and how certificates of its `peers` are verified."""
    add(f"--{prefix}minimum-protocol", metavar="TLSv1.x", action=Once, help="oldest protocol (TLSv1.2)")
    add(f"--{prefix}maximum-protocol", metavar="TLSv1.x", action=Once, help="newest protocol (the newest there is)")
    add(f"--{prefix}ciphers", metavar="LIST", action=Once,
        help="cipher suites up to TLS 1.2, as in openssl-ciphers(1) (forward secrecy and authenticated encryption)")
    add(f"--{prefix}ciphersuites", metavar="A:B", action=Once, help="cipher suites of TLS 1.3 (all three, AES-128 first)")
    add(f"--{prefix}groups", metavar="A:B", action=Once, help="groups of the key exchange, as in X25519:P-256")
    add(f"--{prefix}signature-algorithms", metavar="A:B", action=Once,
        help="what handshakes are signed with, as in ECDSA+SHA256:rsa_pss_rsae_sha256 (OpenSSL's own)")
    add(f"--{prefix}crl", metavar="FILE", action="append",
        help=f"refuse {peers} whose certificate, or whose authority's, these revocation lists (PEM) revoke; repeatable")
    add(f"--{prefix}partial-chain", action="store_true",
        help=f"trust each certificate in --{prefix or 'client-'}ca as it is, also one that is no root")
    add(f"--{prefix}verify-depth", metavar="N", type=whole, action=Once,
        help="most intermediate certificates between the peer's and a trusted one (100)")


def make_settings(arguments: argparse.Namespace, reading: Optional[Reading] = None) -> ProxySettings:
    """The settings that the command line, and the file it names, ask for. reading: that this file is part of. SettingsError."""
    from .builder import ACME, LISTENER, TOP, settings_of
    from .model import Place, Places, SettingsError
    from .table import Table

    given = {key.replace("_", "-"): value for key, value in vars(arguments).items() if key not in OWN}
    identities = getattr(arguments, "identities", [])
    top = {key: value for key, value in given.items() if key in TOP}
    acme = {key: given[f"acme-{key}"] for key in ACME if f"acme-{key}" in given}
    listener = {key: value for key, value in given.items() if key in LISTENER}
    if hasattr(arguments, "config"):
        if listener or identities or acme:
            key = next(iter(listener), None) or (identities[0][0] if identities else f"acme-{next(iter(acme))}")
            raise SettingsError(None, 0, f"--{key} is a listener's, and with --config the file describes those")
        from .config_file import read_settings

        return read_settings(arguments.config, top, reading)
    if identities:
        listener["cert"], listener["key"] = paired(identities)
    places = Places({(key,): Place(f"--{key}") for key in top})
    places.update({("listener", 0, key): Place(f"--{key}") for key in listener})
    places.update({("acme", key): Place(f"--acme-{key}") for key in acme})
    table = Table(listener, places, ("listener", 0), "--")
    about_acme = Table(acme, places, ("acme",), "--acme-")
    return settings_of(Table(top, places, (), "--"), [(table, ())], about_acme)


def paired(identities: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The files of --cert, and for each the file of its key. SettingsError.

    As many of one as of the other: the first to the first, and so on. Fewer keys: each belongs to the certificate before it.
    """
    from .model import SettingsError

    certificates = [file for option, file in identities if option == "cert"]
    keys = [file for option, file in identities if option == "key"]
    if len(keys) == len(certificates):
        return certificates, keys
    owners = list(certificates)
    latest, owned = -1, True
    for option, file in identities:
        if option == "cert":
            latest, owned = latest + 1, False
        elif owned:
            raise SettingsError(None, 0, f"--key {file}: there is no --cert before it that it could belong to")
        else:
            owners[latest], owned = file, True
    return certificates, owners
