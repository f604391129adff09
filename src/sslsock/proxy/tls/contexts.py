"""The contexts that end a listener's TLS: one for each identity and list of protocols, made when the first client needs it.

A proxy may have thousands of certificates, of which few are asked for at any time. What OpenSSL could refuse of any of them is
tried beforehand, which takes a hundredth of a context's time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Optional

from ...core.context import ConfigurationError, Context
from ...core.identity_check import check_identity
from .certificates import CertificateStore, Identity, Pair

__all__ = ["ServerContexts"]

Protocols = tuple[str, ...]


class ServerContexts:
    """From any thread.

    arguments: of `Context`, all that do not depend on whom a client asks for. store: of the identities. offers: the lists of
    protocols, of which there is at least one. before: those whose place they take; what would be made anew as it is is kept.
    checked: another process has made the same, so nothing will be refused. ConfigurationError names the file.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        store: CertificateStore,
        offers: Collection[Protocols],
        before: Optional[ServerContexts] = None,
        checked: bool = False,
    ) -> None:
        self._arguments = arguments
        self._made: dict[tuple[str, Protocols], tuple[list[Pair], Context]] = {}
        if before is not None and before._arguments == arguments:
            pairs = {(identity.key, protocols): identity.pairs for identity in store.identities for protocols in offers}
            self._made = {
                place: made for place, made in before._made.copy().items() if place in pairs and are_same(pairs[place], made[0])
            }
        for protocols in offers:
            context = self.of(store.default, protocols)
        for identity in store.identities if not checked else ():
            for pair, expiry in zip(identity.pairs, identity.expiries):
                try:
                    check_identity(context, *pair)
                except ConfigurationError as exc:
                    raise refused(expiry.path, exc) from exc

    def of(self, identity: Identity, protocols: Protocols) -> Context:
        """For a client that is shown this identity and agrees on one of these protocols."""
        place = identity.key, protocols
        made = self._made.get(place)
        if made is None:  # two threads may make it at once: both go by the first that is done
            made = self._made.setdefault(place, (identity.pairs, self._make(identity, protocols)))
        return made[1]

    def _make(self, identity: Identity, protocols: Protocols) -> Context:
        try:
            return Context(
                server_side=True,
                certificates=identity.pairs,
                next_protocols=[name.encode("utf-8", "surrogateescape") for name in protocols],
                # Not the certificates, which are renewed: a session of before is as good.
                session_context=identity.key.encode("utf-8", "surrogateescape"),
                **self._arguments,
            )
        except ConfigurationError as exc:
            raise refused(identity.expiries[0].path, exc) from exc


def are_same(pairs: Sequence[Pair], others: Sequence[Pair]) -> bool:
    """Whether they were loaded once. Keys with the same public half are equal, though one may have a damaged private half."""
    return [*map(id, pairs)] == [*map(id, others)]


def refused(path: str, reason: ConfigurationError) -> ConfigurationError:
    return ConfigurationError(f"{path or 'the certificate made in memory'}: {reason}")
