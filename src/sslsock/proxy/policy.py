"""What one listener does with its connections: its settings, with every file of theirs loaded.

A policy never changes. To read the files again is to make a new one; connections keep the one that they began with.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from datetime import datetime
from typing import Any, Optional, Protocol

from ..core.certificate import SslCertificate
from ..core.client_hello import ClientHello
from ..core.context import VERIFY_NONE, VERIFY_PEER, Context
from ..core.crl import SslCrl
from ..core.engine import Engine
from ..core.hostname import parse_host
from ..core.network_list import NetworkList
from ..core.ticket_keys import TicketKeys
from ..sockets.certificate_text import all_names_text
from ..sockets.constants import VerifyFlag
from .acme.challenges import ACME_TLS, Challenges
from .files.reading import Reading
from .limits.networks import make_list, read_networks
from .settings.allowed import NameList
from .settings.model import ListenerSettings, Route, TlsPolicy
from .tls.certificates import (
    CertificateError,
    CertificateStore,
    Identity,
    Pair,
    load_checked,
    normal,
    read_certificates,
    read_crls,
    wildcard_of,
    without_doubles,
    write_authority,
)
from .tls.contexts import ServerContexts

__all__ = ["ListenerPolicy", "Obtains", "RoutePolicy"]


def arguments_of(policy: TlsPolicy, crls: Mapping[str, list[SslCrl]]) -> dict[str, Any]:
    """A policy as arguments of `Context`. crls: what its files hold."""
    lists = [crl for found in crls.values() for crl in found]
    flags = VerifyFlag.VERIFY_DEFAULT
    if policy.partial_chain:
        # Not the whole chain then: for the authority that is trusted OpenSSL wants a list too, and with it the issuer of that
        # authority, who is not there (X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER). The peer's own certificate is looked up.
        flags |= VerifyFlag.VERIFY_X509_PARTIAL_CHAIN
    elif lists:
        flags |= VerifyFlag.VERIFY_CRL_CHECK_CHAIN
    return {
        "minimum_protocol": policy.minimum_protocol,
        "maximum_protocol": policy.maximum_protocol,
        "ciphers": policy.ciphers,
        "ciphersuites": policy.ciphersuites,
        "groups": policy.groups,
        "signature_algorithms": policy.signature_algorithms,
        "prefer_server_ciphers": policy.prefer_server_ciphers,
        "verify_depth": policy.verify_depth,
        "verify_flags": int(flags),
        "crls": lists,
    }


class RoutePolicy:
    """One route, and how its TLS back ends are spoken to.

    proxy_protocol: of the PROXY header that they get, or None. manner: all that decides, beside the address, whether a
    connection to a back end comes about. What is known of one by one route holds for another only where this is the same.
    connecting: that, and among which back ends one is chosen, and how.
    """

    def __init__(self, route: Route, proxy_protocol: Optional[str] = None, reading: Optional[Reading] = None) -> None:
        self.route = route
        self.passthrough = route.passthrough
        self._server_names, self._alpn = route.server_names, route.alpn
        tls = route.back_tls
        self._authorities = read_certificates(tls.ca, reading) if tls.ca is not None else []
        self.crls = {file: read_crls(file, reading) for file in tls.policy.crls}
        self._allowed = NameList(tls.allow_names) if tls.allow_names else None
        self._pairs = [load_checked(tls.key_pair, reading)] if tls.key_pair is not None else []
        self._contexts: dict[tuple[str, ...], Context] = {}
        self.proxy_protocol = proxy_protocol
        self.manner: Hashable = (
            *(tls, proxy_protocol, route.check and route.check.question),
            tuple(authority.digest() for authority in self._authorities),  # the files may say something else by now
            tuple(certificate.digest() for certificate, _, _ in self._pairs),
            tuple(map(tuple, self.crls.values())),
        )
        self.connecting: Hashable = (route.to, route.balance, self.manner)
        if any(address.tls for address in route.to):
            self.back_context(tls.alpn)  # now, so that what does not hold is told at the start

    def fits(self, server_name: str, protocols: tuple[str, ...]) -> bool:
        """server_name: as `normal` makes it, "" for none. protocols: those the client offers."""
        if self._server_names and server_name not in self._server_names:
            label, _, rest = server_name.partition(".")
            if not label or f"*.{rest}" not in self._server_names:
                return False
        return not self._alpn or any(name in self._alpn for name in protocols)

    def back_context(self, protocols: tuple[str, ...]) -> Context:
        """For connections to a TLS back end that offer `protocols` by ALPN. ConfigurationError."""
        context = self._contexts.get(protocols)
        if context is None:
            tls = self.route.back_tls
            context = self._contexts[protocols] = Context(
                server_side=False,
                certificates=self._pairs,
                verify_mode=VERIFY_NONE if tls.insecure else VERIFY_PEER,
                ca_certificates=self._authorities,
                use_system_ca=tls.ca is None,
                next_protocols=[name.encode("utf-8", "surrogateescape") for name in protocols],
                **arguments_of(tls.policy, self.crls),
            )
        return context

    def names(self, host: str) -> tuple[Optional[str], Optional[str]]:
        """What to send as SNI, and the name to verify in the handshake if there is one, for a back end given as `host`."""
        tls = self.route.back_tls
        if not host and tls.server_name is None:  # a path, whose back end nobody verifies
            return None, None
        parsed = parse_host(tls.server_name or host)
        return parsed.server_name, None if tls.insecure or self._allowed is not None else parsed.verify_name

    def refusal(self, engine: Engine) -> str:
        """What is wrong with the names of a back end with whom the handshake is done; "" for nothing."""
        if self._allowed is None:
            return ""
        chain = engine.peer_certificate_chain()
        if chain and self._allowed.match(chain[0]) is not None:
            return ""
        return f"not among the allowed names: {all_names_text(chain[0]) if chain else 'no certificate'}"


class Obtains(Protocol):
    """Who obtains certificates (`acme.manager`), as far as connections need it."""

    challenges: Challenges
    pairs: Mapping[str, Pair]

    @property
    def names(self) -> Collection[str]: ...


class ListenerPolicy:
    """Everything that decides about a listener's connections.

    settings: ListenerSettings. keys: the session ticket keys that all listeners share. before: the policy whose place it
    takes; a certificate made in memory is kept, and contexts that would be the same. reading: that the settings were checked
    with. acme: who obtains the certificates of settings that ask for it. own: what was made in memory already. checked: another
    process has made a policy of the same, and so knows that OpenSSL takes each certificate. CertificateError (a file, also that
    of `--ca-out`), ConfigurationError (what OpenSSL refuses), ValueError.

    What is asked for at each connection is an attribute. shakes: whether it begins with something that the client has to say.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        keys: TicketKeys,
        before: Optional[ListenerPolicy] = None,
        reading: Optional[Reading] = None,
        acme: Optional[Obtains] = None,
        own: Optional[CertificateStore] = None,
        checked: bool = False,
    ) -> None:
        self.settings = settings
        self.acme = acme
        self.obtained = self._to_be_used()
        self.name = str(settings.listen)
        self.local = (settings.listen.path or settings.listen.host, settings.listen.port)
        self.tls = settings.listen.tls
        self.proxy_protocol_in, self.proxy_protocol_out = settings.proxy_protocol_in, settings.proxy_protocol_out
        self.transparent = settings.transparent
        self.shakes = self.tls or self.proxy_protocol_in
        self.asks_clients = settings.client_ca is not None
        self._awaited = {name for name in settings.acme if name not in self.obtained}
        self.routes = tuple(RoutePolicy(route, settings.proxy_protocol_out, reading) for route in settings.routes)
        # To agree on with the clients of a route: if it is chosen by a protocol, then on no other one.
        self._protocols = {route: route.route.alpn or settings.alpn for route in self.routes}
        self.allowed = NameList(settings.allow_names) if settings.allow_names else None
        self.store: Optional[CertificateStore] = None
        self.made_in_memory = False
        self.crls: dict[str, list[SslCrl]] = {}
        self._contexts: Optional[ServerContexts] = None
        self.networks: Optional[NetworkList] = None  # from where clients may connect; None: from everywhere
        self._load_networks(reading or Reading())
        if self.tls and not all(route.passthrough for route in self.routes):
            self._load(keys, before, own, reading, checked)

    def _load_networks(self, reading: Reading) -> None:
        settings = self.settings
        allowed, denied = list(settings.allowed_sources), list(settings.denied_sources)
        for files, networks in ((settings.allowed_files, allowed), (settings.denied_files, denied)):
            for file in files:
                networks += read_networks(file, reading)
        only_allowed = bool(settings.allowed_sources or settings.allowed_files)
        if only_allowed or settings.denied_sources or settings.denied_files:
            self.networks = make_list(allowed, denied, only_allowed)

    def _load(
        self,
        keys: TicketKeys,
        before: Optional[ListenerPolicy],
        own: Optional[CertificateStore],
        reading: Optional[Reading],
        checked: bool,
    ) -> None:
        settings = self.settings
        authority: Optional[SslCertificate] = None
        if settings.key_pairs or settings.acme:
            pairs = [(load_checked(pair, reading), pair.certificate) for pair in settings.key_pairs]
            pairs = without_doubles(pairs, [(pair, f"acme:{name}") for name, pair in self.obtained.items()])
            self.store = CertificateStore(pairs) if pairs else None
        else:
            self.made_in_memory = True
            self.store = own or (before.store if before is not None and before.made_in_memory else None)
            if self.store is None:
                self.store, authority = CertificateStore.for_localhost(settings.listen.host)
        client_authorities = read_certificates(settings.client_ca, reading) if settings.client_ca is not None else []
        self.crls = {file: read_crls(file, reading) for file in settings.policy.crls}
        if self.store is not None:
            arguments = {
                "verify_mode": VERIFY_PEER if client_authorities else VERIFY_NONE,
                "ca_certificates": client_authorities,
                "use_system_ca": False,
                "ticket_keys": keys,
                **arguments_of(settings.policy, self.crls),
            }
            offers = dict.fromkeys(self._protocols[route] for route in self.routes if not route.passthrough)
            contexts = before._contexts if before is not None else None
            self._contexts = ServerContexts(arguments, self.store, offers, contexts, checked)
        if authority is not None and settings.ca_out is not None:
            try:
                write_authority(settings.ca_out, authority)
            except OSError as exc:
                raise CertificateError(settings.ca_out, exc.strerror or str(exc)) from exc

    def context(self, route: RoutePolicy, identity: Identity) -> Context:
        """What terminates TLS on a route that is no passthrough."""
        assert self._contexts is not None
        return self._contexts.of(identity, self._protocols[route])

    def choose(self, hello: ClientHello) -> tuple[Optional[RoutePolicy], Optional[Context]]:
        """The route for a connection, and the context that terminates its TLS. No route: nobody is meant. No context: TLS is
        passed through, or there is none, or the certificate for this name has yet to be obtained."""
        name = normal(hello.server_name or "")
        for route in self.routes:
            if route.fits(name, hello.next_protocols):
                identity = self._identity(name) if not route.passthrough else None
                if identity is None:
                    return route, None
                return route, self.context(route, identity)
        return None, None

    def _identity(self, name: str) -> Optional[Identity]:
        """None: it is to come, or no TLS ends here."""
        if self.store is None:
            return None
        identity = self.store.of(name)
        if name in self._awaited:
            # Not the certificate of another name: it would look as if somebody listened in.
            return identity if {name, wildcard_of(name)} & {*identity.names} else None
        return identity

    # ACME

    def _to_be_used(self) -> dict[str, Pair]:
        """What has been obtained, by name."""
        pairs = self.acme.pairs if self.acme is not None else {}
        return {name: pairs[name] for name in self.settings.acme if name in pairs}

    @property
    def outdated(self) -> bool:
        """Whether another certificate has been obtained since it was made."""
        now = self._to_be_used()
        return now.keys() != self.obtained.keys() or any(now[name] is not pair for name, pair in self.obtained.items())

    def is_challenge(self, hello: ClientHello) -> bool:
        """Whether a client asks as authorities do: RFC 8737, 3."""
        if ACME_TLS not in hello.next_protocols or self.acme is None:
            return False
        # The name may be another listener's: authorities ask at port 443, wherever the certificate is shown.
        return normal(hello.server_name or "") in self.settings.acme or self.challenge(hello) is not None

    def challenge(self, hello: ClientHello) -> Optional[Context]:
        """What answers it; None: nobody has reason to ask."""
        if self.acme is None or hello.next_protocols != (ACME_TLS,):  # "MUST contain only one protocol"
            return None
        name = normal(hello.server_name or "")
        return self.acme.challenges.context(name) if name in self.acme.names else None

    def crl_ends(self) -> dict[str, datetime]:
        """When each file of revocation lists, for clients or back ends, has the first one that goes out of date."""
        files = dict(self.crls)
        for route in self.routes:
            files.update(route.crls)
        ends = {file: [crl.next_update for crl in found if crl.next_update is not None] for file, found in files.items()}
        return {file: min(times) for file, times in ends.items() if times}
