"""What a proxy is told to do: the settings, whichever way they came (options, a TOML file).

Plain values, checked by whoever makes them (`builder`, for `options` and `config_file`); nothing here opens a file or a socket.
What may be wrong with a value later on, when its file is opened, is told by the place where it was written (`Places`).
"""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, Optional, Union

__all__ = [
    "PROTOCOL_NAMES",
    "AcmeSettings",
    "Address",
    "BackTls",
    "Balance",
    "Fleet",
    "HealthCheck",
    "KeyPair",
    "Limits",
    "ListenerSettings",
    "Place",
    "Places",
    "ProxySettings",
    "Rate",
    "Route",
    "SettingsError",
    "TlsPolicy",
]

Network = Union[IPv4Network, IPv6Network]
Path = tuple[Union[str, int], ...]
Rate = tuple[int, int]  # nanoseconds for one, and how many at once; (0, 1): no limit

PROTOCOL_NAMES = {0x0301: "TLSv1.0", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}


class SettingsError(Exception):
    """Settings that cannot be, or cannot be used.

    file: the file they are in, None for the command line. line: int, its line, counted from 1; 0: none. reason: what is wrong.
    As text: FILE:LINE: reason.
    """

    def __init__(self, file: Optional[str], line: int, reason: str) -> None:
        super().__init__(file, line, reason)
        self.file = file
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        where = "" if self.file is None else f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return where + self.reason


class Place(NamedTuple):
    """Where a value was written.

    name: what it is called there ("--cert", "cert"; "" for a whole table). file, line: as in SettingsError.
    """

    name: str = ""
    file: Optional[str] = None
    line: int = 0

    def error(self, reason: str) -> SettingsError:
        return SettingsError(self.file, self.line, f"{self.name}: {reason}" if self.name else reason)


class Places(dict[Path, Place]):
    """The place of every value, by its path as in the TOML file: ("threads",), ("listener", 0, "cert", 1), and
    ("listener", 0, "route", 2, "to-ca") also where route 2 is the listener's own `to`."""

    def of(self, *path: Union[str, int]) -> Place:
        """The place of a value, or of the smallest thing around it that has one."""
        while path and path not in self:
            path = path[:-1]
        return self.get(path) or Place()


class Address(NamedTuple):
    """One end of `--listen`, `--to` or `--metrics`.

    scheme: "tls" or "tcp". host: str without brackets, "" for every address (listening only). port: int. path: of a UNIX
    socket, "@name" for one without a file; then there is neither host nor port. None: TCP. service: host is the name of SRV
    records ("_http._tcp.example.com"), which have the ports; then port is 0.
    """

    scheme: str
    host: str
    port: int
    path: Optional[str] = None
    service: bool = False

    @property
    def tls(self) -> bool:
        return self.scheme == "tls"

    @property
    def place(self) -> str:
        """Without its scheme: "example.com:443", "[::1]:443", "unix:/run/app.sock"."""
        if self.path is not None:
            return f"unix:{self.path}"
        if self.service:
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """What its certificate is for: of a service the domain, not the hosts that DNS names (RFC 6125, 1.7.2 and 6.2.1)."""
        labels = self.host.split(".")
        while self.service and len(labels) > 1 and labels[0].startswith("_"):
            del labels[0]
        return ".".join(labels)

    def __str__(self) -> str:
        if self.path is not None:
            return f"tls+{self.place}" if self.tls else self.place
        return f"{self.scheme}{'+srv' * self.service}://{self.place}"


class KeyPair(NamedTuple):
    """A certificate with its chain and its key: two PEM files, which may be the same."""

    certificate: str
    key: str


class TlsPolicy(NamedTuple):
    """What is agreed to on one side of the proxy, and how certificates are verified there.

    minimum_protocol, maximum_protocol: version numbers as 0x0303 (TLS 1.2); maximum 0: the newest. ciphers (up to TLS 1.2),
    ciphersuites (TLS 1.3), groups, signature_algorithms: OpenSSL's syntax, "" for the defaults of `Context`.
    prefer_server_ciphers: whose order counts. crls: files of revocation lists, PEM. partial_chain: whether authorities are
    trusted that are no roots. verify_depth: most intermediate certificates, -1 for OpenSSL's own bound.
    """

    minimum_protocol: int = 0x0303
    maximum_protocol: int = 0
    ciphers: str = ""
    ciphersuites: str = ""
    groups: str = ""
    signature_algorithms: str = ""
    prefer_server_ciphers: bool = True
    crls: tuple[str, ...] = ()
    partial_chain: bool = False
    verify_depth: int = -1


class BackTls(NamedTuple):
    """How a back end is spoken to when its scheme is tls.

    ca: PEM file of authorities, None for the system's. key_pair: the client certificate to show, or None. server_name: the
    name to ask for and to verify, None for the host of `--to`. insecure: go on in spite of verification errors. alpn: offered.
    allow_names: globs for the names of its certificate, in place of the name to verify; empty: that name.
    """

    ca: Optional[str] = None
    key_pair: Optional[KeyPair] = None
    server_name: Optional[str] = None
    insecure: bool = False
    alpn: tuple[str, ...] = ()
    allow_names: tuple[str, ...] = ()
    policy: TlsPolicy = TlsPolicy()


class Balance(NamedTuple):
    """Which of a route's back ends a connection goes to.

    method: "round-robin", "least-connections", "hash-source" or "hash-sni". weights: of each `to`, empty: all 1. backups:
    whether it is a spare, used when no other is left; empty: none is.
    """

    method: str = "round-robin"
    weights: tuple[int, ...] = ()
    backups: tuple[bool, ...] = ()

    def weight(self, index: int) -> int:
        return self.weights[index] if self.weights else 1

    def is_backup(self, index: int) -> bool:
        return bool(self.backups) and self.backups[index]


class HealthCheck(NamedTuple):
    """How the back ends of a route are checked.

    kind: "tcp" (a connection), "tls" (a handshake) or "http" (a request). method, path, host (None: that of `to`), status
    (ranges, both ends included): of the request and its answer. interval, timeout: seconds. rise, fall: checks in a row that
    make it up or down.
    """

    kind: str
    method: str = "GET"
    path: str = "/"
    host: Optional[str] = None
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    interval: float = 2.0
    timeout: float = 2.0
    rise: int = 2
    fall: int = 3

    @property
    def question(self) -> Hashable:
        """What decides the result."""
        return self.kind, self.method, self.path, self.host, self.status


class Route(NamedTuple):
    """Where connections go that ask for certain names or protocols; the first route that fits is taken.

    server_names: exact names or "*.example.com", lower case; empty: every connection, also one that names none. alpn: fits when
    the client offers one of them, and only these are agreed on then; empty: whatever it offers. passthrough: TLS goes through
    unopened. check: None where back ends are not checked.
    """

    to: tuple[Address, ...]
    server_names: tuple[str, ...] = ()
    alpn: tuple[str, ...] = ()
    passthrough: bool = False
    back_tls: BackTls = BackTls()
    balance: Balance = Balance()
    check: Optional[HealthCheck] = None


class ListenerSettings(NamedTuple):
    """One listening address.

    key_pairs: chosen by the client's SNI: exact, wildcard, then the first; empty where TLS ends here (`terminates`): a
    certificate for localhost is made in memory. ca_out: file for that certificate's authority. client_ca: demand client
    certificates of these authorities. allow_names: globs for their subject alternative names or common name; empty: all.
    proxy_protocol_out: "v1", "v2" or None. tls_profile: the name of the profile that `policy` begins with, or None.
    acme: names whose certificates are obtained by themselves.
    max_connections, max_handshakes, connection_rate, handshake_rate: of this listener, as in `Limits`. allowed_sources,
    denied_sources: networks; allowed_files, denied_files: with one of them a line.
    transparent: connect to back ends from the client's address.
    mode: of the file of a UNIX socket, None as the umask has it. owner: whose it becomes,
    "user", "user:group" or ":group", None: who starts the proxy.
    routes: at least one.
    """

    listen: Address
    routes: tuple[Route, ...]
    key_pairs: tuple[KeyPair, ...] = ()
    ca_out: Optional[str] = None
    client_ca: Optional[str] = None
    allow_names: tuple[str, ...] = ()
    alpn: tuple[str, ...] = ()
    proxy_protocol_in: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    proxy_protocol_out: Optional[str] = None
    transparent: bool = False
    acme: tuple[str, ...] = ()
    tls_profile: Optional[str] = None
    policy: TlsPolicy = TlsPolicy()
    mode: Optional[int] = None
    owner: Optional[str] = None
    max_connections: int = 0
    max_handshakes: int = 0
    connection_rate: Rate = (0, 1)
    handshake_rate: Rate = (0, 1)
    allowed_sources: tuple[Network, ...] = ()
    denied_sources: tuple[Network, ...] = ()
    allowed_files: tuple[str, ...] = ()
    denied_files: tuple[str, ...] = ()

    @property
    def terminates(self) -> bool:
        """Whether any connection's TLS ends here: scheme tls, and a route that is no passthrough."""
        return self.listen.tls and not all(route.passthrough for route in self.routes)


class AcmeSettings(NamedTuple):
    """How certificates are obtained (RFC 8555).

    storage: folder for the account, keys and certificates; in_fleet: they are in the fleet's Redis. directory: URL;
    directory_ca: PEM file of authorities that its certificate is of, None for the usual ones. email: for the authority, or
    None. key_type: "ecdsa" or "rsa". challenge: "tls-alpn-01" or "http-01". http: where http-01 is answered, or None. eab_kid,
    eab_key_file: an external account, and the file of its HMAC key in base64url, or None.
    """

    storage: str
    directory: str
    directory_ca: Optional[str] = None
    email: Optional[str] = None
    key_type: str = "ecdsa"
    challenge: str = "tls-alpn-01"
    http: Optional[Address] = None
    eab_kid: Optional[str] = None
    eab_key_file: Optional[str] = None
    in_fleet: bool = False


class Limits(NamedTuple):
    """Bounds of the whole process. Numbers of connections and handshakes: 0 for none. Times in seconds, 0 for none. A source is
    an address as far as its prefix goes; source_table_size: how many there are whose rates are known.
    keepalive: whole seconds of silence to the first TCP keepalive probe, 0 for no probes."""

    max_connections: int = 0
    handshake_timeout: float = 10.0
    connect_timeout: float = 5.0
    idle_timeout: float = 300.0
    drain_timeout: float = 30.0
    shutdown_delay: float = 0.0
    max_connections_per_source: int = 0
    keepalive: int = 60
    max_handshakes: int = 0
    max_handshakes_per_source: int = 0
    connection_rate: Rate = (0, 1)
    handshake_rate: Rate = (0, 1)
    connection_rate_per_source: Rate = (0, 1)
    handshake_rate_per_source: Rate = (0, 1)
    source_ipv4_prefix: int = 32
    source_ipv6_prefix: int = 64
    source_table_size: int = 65536
    half_closed_timeout: float = 0.0
    connection_lifetime: float = 0.0


class Fleet(NamedTuple):
    """The Redis server by which several proxies share what they have to.

    address: where it listens; scheme "tls" for rediss://. user, password: to log in with, None: as Redis has it. database: its
    number. name: what the keys there begin with. ca: PEM file of the authorities that its certificate may come from, None for
    the system's. password_file: holds the password. secret_file: holds what ticket keys are made with, beside what Redis holds.
    """

    address: Address
    user: Optional[str] = None
    password: Optional[str] = None
    database: int = 0
    name: str = "sslsock"
    ca: Optional[str] = None
    password_file: Optional[str] = None
    secret_file: Optional[str] = None

    def __repr__(self) -> str:
        return f"<Fleet {self}>"

    def __str__(self) -> str:
        """Without what is secret."""
        if self.address.path is not None:
            return str(self.address)
        return f"redis{'s' if self.address.tls else ''}://{self.address.place}/{self.database}"


class ProxySettings(NamedTuple):
    """All of it.

    threads: int, at least 1: the workers. processes: whether they are processes, not threads. metrics: where Prometheus may
    ask, or None. log_format: "text", "json" or None for no line a connection. log_probes: whether connections that said nothing
    get one too. user: to become after binding, or None. keep_reading: whether a process keeps root's rights to open these files
    again. watch: how files are watched for changes:
    "auto" (the kernel tells, where it can), "poll" or "off". acme: where names of listeners ask for it, else None. fleet: with
    whom ticket keys are shared, or None. resolver: name servers (address, port) that are asked for back ends, (): those of the
    system, None: getaddrinfo is. file: the TOML file that they come from, or None. places: where each value was
    written, for messages.
    """

    listeners: tuple[ListenerSettings, ...]
    limits: Limits = Limits()
    threads: int = 1
    processes: bool = False
    ticket_key_file: Optional[str] = None
    metrics: Optional[Address] = None
    log_format: Optional[str] = None
    log_probes: bool = False
    user: Optional[str] = None
    keep_reading: bool = False
    watch: str = "auto"
    acme: Optional[AcmeSettings] = None
    fleet: Optional[Fleet] = None
    resolver: Optional[tuple[tuple[str, int], ...]] = None
    file: Optional[str] = None
    places: Places = Places()

    def acme_names(self) -> tuple[str, ...]:
        """Of all listeners, each once."""
        return tuple(dict.fromkeys(name for listener in self.listeners for name in listener.acme))

    @property
    def processes_text(self) -> str:
        """How many of them work; "" for none."""
        return f"{self.threads} worker process{'es' if self.threads != 1 else ''}" if self.processes else ""

    @property
    def asks_dns(self) -> bool:
        """Whether names of back ends are looked up in DNS and not by the system alone."""
        addresses = (address for listener in self.listeners for route in listener.routes for address in route.to)
        return self.resolver is not None or any(address.service for address in addresses)

    def files(self) -> dict[str, Place]:
        """What a reload reads: the path of each file, and where it was named."""
        found: dict[str, Place] = {}

        def note(path: Optional[str], *where: Union[str, int]) -> None:
            if path is not None:
                found.setdefault(path, self.places.of(*where))

        note(self.file)
        note(self.ticket_key_file, "ticket-key-file")
        if self.fleet is not None:
            note(self.fleet.ca, "fleet-ca")
            note(self.fleet.password_file, "fleet-password-file")
            note(self.fleet.secret_file, "fleet-secret-file")
        for number, listener in enumerate(self.listeners):
            here = ("listener", number)
            for index, pair in enumerate(listener.key_pairs):
                note(pair.certificate, *here, "cert", index)
                note(pair.key, *here, "key", index)
            note(listener.client_ca, *here, "client-ca")
            for key, listed in (("allow-source-file", listener.allowed_files), ("deny-source-file", listener.denied_files)):
                for index, path in enumerate(listed):
                    note(path, *here, key, index)
            for index, crl in enumerate(listener.policy.crls):
                note(crl, *here, "crl", index)
            for index, route in enumerate(listener.routes):
                note(route.back_tls.ca, *here, "route", index, "to-ca")
                for place, crl in enumerate(route.back_tls.policy.crls):
                    note(crl, *here, "route", index, "to-crl", place)
                if route.back_tls.key_pair is not None:
                    note(route.back_tls.key_pair.certificate, *here, "route", index, "to-cert", 0)
                    note(route.back_tls.key_pair.key, *here, "route", index, "to-key", 0)
        return found
