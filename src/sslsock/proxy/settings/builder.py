"""Settings made of named values, whoever wrote them: `options` (the command line) and `config_file` (TOML).

Here are all names, the kind of value each takes, and what cannot stand together; modules named `…_values` know a part of it.
Nothing is opened: `check` does that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Optional

from ...core.cpu_count import default_threads
from ...sockets.host_port import parse_connect_address, parse_listen_address
from ...sockets.local_path import checked_path, is_abstract
from . import hosts
from .acme_values import ACME, acme_names, acme_of
from .allowed import NameList
from .back_end_values import CHOICE, balance_of, check_of
from .directory_values import resolver_of, service_of
from .fleet_values import FLEET, fleet_of
from .limit_values import BOUNDS, limits_of, own_limits, require_alike
from .model import (
    PROTOCOL_NAMES,
    Address,
    BackTls,
    KeyPair,
    ListenerSettings,
    Network,
    ProxySettings,
    Route,
    TlsPolicy,
)
from .table import Part, Table, kind
from .tls_profiles import PROFILES, profile

__all__ = ["ACME", "LISTENER", "ROUTE", "TOP", "settings_of"]

SOURCES = ("allow-source", "deny-source", "allow-source-file", "deny-source-file")
TOP = (
    *("threads", "processes", *BOUNDS, *FLEET, "resolver", "ticket-key-file"),
    *("metrics", "log-format", "log-probes", "user", "keep-reading", "watch"),
)
ALGORITHMS = ("minimum-protocol", "maximum-protocol", "ciphers", "ciphersuites", "groups", "signature-algorithms")
VERIFICATION = ("crl", "partial-chain", "verify-depth")
BACK_TLS = (
    *("to-ca", "to-cert", "to-key", "to-server-name", "to-allow-name", "to-alpn", "to-insecure"),
    *(f"to-{key}" for key in (*ALGORITHMS, *VERIFICATION)),
)
TARGET = ("to", "passthrough", *CHOICE, *BACK_TLS)
FRONT_TLS = ("cert", "key", "acme", "ca-out", "client-ca", "allow-name", "alpn", "tls-profile", *ALGORITHMS, *VERIFICATION)
ADDRESSES = ("proxy-protocol-in", "trusted-proxy", "proxy-protocol-out", "transparent")
LISTENER = ("listen", "listen-mode", "listen-owner", *SOURCES, *FRONT_TLS, *ADDRESSES, *TARGET)
ROUTE = ("server-names", "alpn", *TARGET)

MOST_THREADS = 1024
MOST_PROCESSES = 256
MOST_DEPTH = 100  # OpenSSL's own bound: SSL_CTX_set_verify_depth(3)

PROTOCOL = re.compile(r"(?:tls ?v?)?1(?:\.([0-3]))?", re.ASCII | re.IGNORECASE)  # TLSv1.2, 1.2, and TLSv1 as OpenSSL has it


def settings_of(
    top: Table, listeners: Sequence[tuple[Table, Sequence[Table]]], acme: Optional[Table] = None
) -> ProxySettings:
    """The settings of a whole proxy. listeners: each with its routes. acme: what is said of ACME. SettingsError."""
    made = tuple(listener_of(listener, routes) for listener, routes in listeners)
    seen: dict[tuple[str, int], Table] = {}
    named: dict[str, ListenerSettings] = {}
    for (table, _), settings in zip(listeners, made):
        path = settings.listen.path
        where = hosts.spelled_alike(settings.listen.host), settings.listen.port
        if path is not None:
            where = path if is_abstract(path) else os.path.realpath(path), -1
        # SO_REUSEPORT would let both have it, and the kernel deal connections to either.
        if where in seen and where[1]:
            table.fail("another listener has this address", "listen")
        seen[where] = table
        require_alike(table, settings, named.setdefault(str(settings.listen), settings))
    asking = [(table, settings.listen) for (table, _), settings in zip(listeners, made) if settings.acme]
    wanted, listening = asking[0][0] if asking else None, [address for _, address in asking]
    return ProxySettings(
        listeners=made,
        limits=limits_of(top),
        threads=workers(top),
        processes="processes" in top,
        ticket_key_file=top.file("ticket-key-file"),
        fleet=fleet_of(top),
        resolver=resolver_of(top),
        metrics=plain_address(top, "metrics"),
        log_format=top.choice("log-format", "text", "json"),
        log_probes=log_probes(top),
        user=top.text("user"),
        keep_reading=keep_reading(top),
        watch=top.choice("watch", "auto", "poll", "off") or "auto",
        acme=acme_of(acme, wanted, listening, plain_address(acme, "http") if acme is not None else None),
        places=top.places,
    )


def workers(top: Table) -> int:
    """How many, of whichever kind."""
    if "processes" in top:
        if "threads" in top:
            top.fail(f"workers are threads or processes: {top.name('threads')} is set too", "processes")
        return top.count("processes", 1, MOST_PROCESSES, 1)
    return top.count("threads", 1, MOST_THREADS, default_threads())


def log_probes(top: Table) -> bool:
    wanted = top.flag("log-probes")
    if wanted and "log-format" not in top:
        top.fail(f"it needs {top.name('log-format')}", "log-probes")
    return wanted


def keep_reading(top: Table) -> bool:
    wanted = top.flag("keep-reading")
    if wanted and "user" not in top:
        top.fail(f"it needs {top.name('user')}: without, this process keeps its rights", "keep-reading")
    return wanted


def plain_address(table: Table, key: str) -> Optional[Address]:
    """Where plain HTTP is spoken, so that there is no scheme to choose."""
    text = table.text(key)
    if text is not None and "://" in text:
        table.fail(f"{text!r}: HOST:PORT is needed, without a scheme", key)
    return None if text is None else parse_address(table, f"tcp://{text}", True, key)


def parse_address(table: Table, text: str, listening: bool, *parts: Part) -> Address:
    for prefix, scheme in (("unix:", "tcp"), ("tls+unix:", "tls")):
        if text[: len(prefix)].lower() == prefix:
            return Address(scheme, "", 0, socket_path(table, text, text[len(prefix) :], *parts))
    service = None if listening else service_of(table, text, *parts)
    if service is not None:
        return service
    scheme, separator, rest = text.partition("://")
    if not separator:
        table.fail(f"{text!r} has no scheme: tls://HOST:PORT or tcp://HOST:PORT is needed, or unix:PATH", *parts)
    if scheme.lower() not in ("tls", "tcp"):
        table.fail(f"{text!r}: the scheme is tls or tcp, not {scheme!r}", *parts)
    try:
        host, port = parse_listen_address(rest) if listening else parse_connect_address(rest)
        if host:
            (hosts.listening if listening else hosts.back_end)(host)
    except ValueError as exc:
        table.fail(str(exc), *parts)
    return Address(scheme.lower(), host, port)


def socket_path(table: Table, text: str, path: str, *parts: Part) -> str:
    """The path of a UNIX socket, in a file relative to that file's folder. Also as in a URL: unix:///run/app.sock."""
    if path.startswith("//"):
        if not path.startswith("///"):
            table.fail(f"{text!r}: a path follows the colon, as in unix:/run/app.sock", *parts)
        path = path[2:]
    try:
        path = checked_path(path)
        return path if is_abstract(path) else checked_path(table.located(path, *parts))
    except ValueError as exc:
        table.fail(str(exc), *parts)


def file_mode(table: Table) -> Optional[int]:
    """Octal digits, as chmod(1) has them; in a file also a number, which TOML can write in octal."""
    value = table.values.get("listen-mode")
    if isinstance(value, str):
        if not (0 < len(value) <= 4 and set(value) <= set("01234567")):
            table.fail(f"{value!r} is no mode: octal digits are needed, as in 0660", "listen-mode")
        value = int(value, 8)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        table.fail(f"a string of octal digits is needed, as in \"0660\", not {kind(value)}", "listen-mode")
    if not 0 <= value <= 0o777:
        table.fail(f"{value:#o} is no mode of a socket: 0 to 0777", "listen-mode")
    return value


def listener_of(table: Table, route_tables: Sequence[Table]) -> ListenerSettings:
    name = table.name
    text = table.text("listen")
    if text is None:
        table.fail(f"{name('listen')} is missing: the address to listen on, as in tls://localhost:8443")
    listen = parse_address(table, text, True, "listen")
    routes = routes_of(table, route_tables, listen)
    if not listen.tls:
        table.refuse(FRONT_TLS, f"TLS does not end at a tcp:// listener; {name('listen')} tls://… does that")
    elif all(route.passthrough for route in routes):
        table.refuse(FRONT_TLS, "no TLS ends here: every route of this listener is a passthrough")
    for given in ("cert", "acme"):
        if given in table:
            table.refuse(["ca-out"], f"it is for the certificate that is made without {name(given)}")
    if "client-ca" not in table:
        table.refuse(["allow-name"], f"names are known of client certificates only: it needs {name('client-ca')}")
        table.refuse(VERIFICATION, f"it is about the certificates of clients: it needs {name('client-ca')}")
    profile_name = table.choice("tls-profile", *PROFILES)
    policy = tls_policy(table, TlsPolicy() if profile_name is None else profile(profile_name).policy)
    networks = parse_networks(table, "trusted-proxy")
    proxy_protocol_in = table.flag("proxy-protocol-in")
    if listen.path is None:
        table.refuse(["listen-mode", "listen-owner"], "it is for the file of a UNIX socket")
    elif is_abstract(listen.path):
        table.refuse(["listen-mode", "listen-owner"], "an abstract name has no file, and so neither mode nor owner")
    if listen.path is not None and networks:
        table.fail("clients of a UNIX socket have no address: its mode and owner say who may connect", "trusted-proxy")
    if listen.path is not None and not proxy_protocol_in:
        table.refuse(SOURCES, "clients of a UNIX socket have no address: its mode and owner say who may connect")
    if proxy_protocol_in and not networks and listen.path is None:
        table.fail(
            "anybody could claim any address: name who may send the header by "
            f"{name('trusted-proxy')} NETWORK, as in 10.0.0.0/8",
            "proxy-protocol-in",
        )
    if networks and not proxy_protocol_in:
        table.fail(f"it needs {name('proxy-protocol-in')}", "trusted-proxy")
    return ListenerSettings(
        listen=listen,
        routes=routes,
        key_pairs=key_pairs(table, "cert", "key"),
        acme=acme_names(table),
        ca_out=table.file("ca-out"),
        client_ca=table.file("client-ca"),
        allow_names=allowed_names(table, "allow-name"),
        alpn=table.protocols("alpn"),
        proxy_protocol_in=proxy_protocol_in,
        trusted_proxies=networks,
        proxy_protocol_out=table.choice("proxy-protocol-out", "v1", "v2"),
        transparent=transparent(table, listen, routes, proxy_protocol_in),
        tls_profile=profile_name,
        policy=policy,
        mode=file_mode(table),
        owner=table.text("listen-owner"),
        allowed_sources=parse_networks(table, "allow-source"),
        denied_sources=parse_networks(table, "deny-source"),
        allowed_files=table.files("allow-source-file"),
        denied_files=table.files("deny-source-file"),
        **own_limits(table),
    )


def transparent(table: Table, listen: Address, routes: Sequence[Route], proxy_protocol_in: bool) -> bool:
    wanted = table.flag("transparent")
    if wanted and listen.path is not None and not proxy_protocol_in:
        table.fail(
            f"clients of a UNIX socket have no address; {table.name('proxy-protocol-in')} would tell one", "transparent"
        )
    if wanted and any(address.path is not None for route in routes for address in route.to):
        table.fail("to a UNIX socket nobody connects from an address", "transparent")
    return wanted


def key_pairs(table: Table, cert: str, key: str) -> tuple[KeyPair, ...]:
    certificates, keys = table.files(cert), table.files(key)
    if not certificates:
        table.refuse([key], f"it needs {table.name(cert)}")
    if keys and len(keys) != len(certificates):
        table.fail(
            f"{len(keys)} for {len(certificates)} in {table.name(cert)}: name one for each, the certificate's "
            "file again where it holds the key",
            key,
        )
    return tuple(KeyPair(*pair) for pair in zip(certificates, keys or certificates))


def allowed_names(table: Table, key: str) -> tuple[str, ...]:
    names = table.texts(key)
    for index, name in enumerate(names):
        try:
            NameList([name])
        except ValueError as exc:
            table.fail(str(exc), key, index)
    return names


def tls_policy(table: Table, base: TlsPolicy, prefix: str = "") -> TlsPolicy:
    """What the keys with this prefix make of `base`. What only OpenSSL can tell of them is left to `check`."""
    made = base._replace(
        minimum_protocol=protocol(table, f"{prefix}minimum-protocol", base.minimum_protocol),
        maximum_protocol=protocol(table, f"{prefix}maximum-protocol", base.maximum_protocol),
        ciphers=table.text(f"{prefix}ciphers") or base.ciphers,
        ciphersuites=table.text(f"{prefix}ciphersuites") or base.ciphersuites,
        groups=table.text(f"{prefix}groups") or base.groups,
        signature_algorithms=table.text(f"{prefix}signature-algorithms") or base.signature_algorithms,
        crls=table.files(f"{prefix}crl"),
        partial_chain=table.flag(f"{prefix}partial-chain"),
        verify_depth=table.count(f"{prefix}verify-depth", 0, MOST_DEPTH, base.verify_depth),
    )
    if made.maximum_protocol and made.minimum_protocol > made.maximum_protocol:
        oldest, newest = PROTOCOL_NAMES[made.minimum_protocol], PROTOCOL_NAMES[made.maximum_protocol]
        bound = table.name(f"{prefix}minimum-protocol")
        table.fail(f"{newest} is older than the oldest that is allowed, {oldest}; {bound} sets it", f"{prefix}maximum-protocol")
    if made.minimum_protocol >= 0x0304:
        other = table.name(f"{prefix}ciphersuites")
        table.refuse([f"{prefix}ciphers"], f"it is for TLS 1.2 and older, which are not allowed; for TLS 1.3 there is {other}")
    if 0 < made.maximum_protocol < 0x0304:
        other = table.name(f"{prefix}ciphers")
        table.refuse([f"{prefix}ciphersuites"], f"it is for TLS 1.3, which is not allowed; for TLS 1.2 there is {other}")
    return made


def protocol(table: Table, key: str, default: int) -> int:
    """A version number."""
    text = table.text(key)
    if text is None:
        return default
    found = PROTOCOL.fullmatch(text)
    if found is None:
        table.fail(f"{text!r} is none of {', '.join(PROTOCOL_NAMES.values())}", key)
    return 0x0301 + int(found[1] or 0)


def parse_networks(table: Table, key: str) -> tuple[Network, ...]:
    found = []
    for index, text in enumerate(table.texts(key)):
        try:
            found.append(hosts.network(text))
        except ValueError as exc:
            table.fail(str(exc), key, index)
    return tuple(found)


def routes_of(listener: Table, tables: Sequence[Table], listen: Address) -> tuple[Route, ...]:
    """The routes of a listener; its own `to` is the last one and takes what no other does."""
    routes = [route_of(table, listen) for table in tables]
    takes_all: Optional[int] = None
    for number, route in enumerate(routes, 1):
        if takes_all is not None:
            tables[number - 1].fail(f"it is never reached: route {takes_all} takes every connection")
        if not route.server_names and not route.alpn:
            takes_all = number
        for index, name in enumerate(route.server_names):
            for earlier, other in enumerate(routes[: number - 1], 1):
                if takes(other, name, route.alpn):
                    tables[number - 1].fail(f"{name}: it never gets here: route {earlier} takes it", "server-names", index)
    if "to" in listener or not routes:
        if takes_all is not None:
            listener.fail(f"it is never reached: route {takes_all} takes every connection", "to")
        here = (*listener.path, "route", len(routes))
        for key in TARGET:
            if key in listener:
                listener.places[(*here, key)] = listener.places.of(*listener.path, key)
        routes.append(target_of(listener, listen, (), ()))
    else:
        listener.refuse(TARGET, f"it needs {listener.name('to')} beside it; a route has its own")
    return tuple(routes)


def takes(route: Route, name: str, alpn: tuple[str, ...]) -> bool:
    """Whether a route leaves nothing of a server name (which may be a wildcard) to a later one for these protocols."""
    named = name in route.server_names or f"*.{name.partition('.')[2]}" in route.server_names
    return named and (not route.alpn or (bool(alpn) and set(alpn) <= set(route.alpn)))


def route_of(table: Table, listen: Address) -> Route:
    if not listen.tls:
        table.refuse(["server-names", "alpn"], "a tcp:// listener does not see what TLS asks for")
    names = tuple(server_name(table, text, index) for index, text in enumerate(table.texts("server-names")))
    return target_of(table, listen, names, table.protocols("alpn"))


def server_name(table: Table, text: str, index: int) -> str:
    """A name as it stands in a ClientHello: ASCII, lower case, no dot at the end."""
    wildcard = text.startswith("*.")
    try:
        rest = text[2:] if wildcard else text
        if "*" in rest:
            raise ValueError(f"{text!r}: a wildcard is a whole label, the first: *.example.com")
        name = hosts.host(rest).server_name
        if name is None:
            raise ValueError(f"{text!r} is an address, which no client asks for by name (RFC 6066, section 3)")
    except ValueError as exc:
        table.fail(str(exc), "server-names", index)
    return ("*." if wildcard else "") + name.lower()


def target_of(table: Table, listen: Address, names: tuple[str, ...], alpn: tuple[str, ...]) -> Route:
    texts, balance = balance_of(table, listen)
    addresses = tuple(parse_address(table, text, False, "to", index) for index, text in enumerate(texts))
    if not addresses:
        table.fail(f"{table.name('to')} is missing: where connections go, as in tcp://localhost:8080")
    passthrough = table.flag("passthrough")
    if passthrough and not listen.tls:
        table.fail("a tcp:// listener passes everything through as it is: leave it out", "passthrough")
    for index, address in enumerate(addresses):
        if passthrough and address.tls:
            table.fail(f"{address}: what passes through is TLS already: tcp:// is needed", "to", index)
    if not any(address.tls for address in addresses):
        table.refuse(BACK_TLS, f"it is for back ends that are spoken to with TLS: {table.name('to')} tls://…")
    pairs = key_pairs(table, "to-cert", "to-key")
    if len(pairs) > 1:
        table.fail("one certificate only", "to-cert", 1)
    name = table.text("to-server-name")
    if name is not None:
        try:
            name = hosts.back_end(name).verify_name
        except ValueError as exc:
            table.fail(str(exc), "to-server-name")
    if table.flag("to-insecure"):
        keys = ("to-allow-name", *(f"to-{key}" for key in VERIFICATION))
        table.refuse(keys, f"nothing is verified with {table.name('to-insecure')}")
    for index, address in enumerate(addresses):
        verified = name is not None or "to-allow-name" in table or table.flag("to-insecure")
        if address.tls and address.path is not None and not verified:
            hint = f"a path is no name that a certificate could have: it needs {table.name('to-server-name')}"
            table.fail(f"{address}: {hint}", "to", index)
    return Route(
        to=addresses,
        server_names=names,
        alpn=alpn,
        passthrough=passthrough,
        back_tls=BackTls(
            ca=table.file("to-ca"),
            key_pair=pairs[0] if pairs else None,
            server_name=name,
            insecure=table.flag("to-insecure"),
            alpn=table.protocols("to-alpn"),
            allow_names=allowed_names(table, "to-allow-name"),
            policy=tls_policy(table, TlsPolicy(), "to-"),
        ),
        balance=balance,
        check=check_of(table),
    )
