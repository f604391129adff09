"""Snapshot: the settings of one libssl context, as a configuration has them at a handshake.

Equal snapshots share a context: a weak table for the process finds it, each configuration holds those made from it, and the
`KEPT` that were asked for last are held besides. So sessions survive between two sockets that use it one after the other, also
where a program makes an equal configuration for each.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Callable, NamedTuple, Optional, Union
from weakref import WeakValueDictionary

from ..core.certificate import SslCertificate
from ..core.context import Context
from ..core.crl import SslCrl
from ..core.key import SslKey
from ..core.system_store import system_stamp

__all__ = ["KeyLogTarget", "Snapshot", "context_of"]

KeyLogTarget = Union[str, Callable[[str], object]]

KEPT = 16  # contexts that live on when no configuration holds them, with their private keys and sessions


class Snapshot(NamedTuple):
    """The settings of one libssl context: the arguments of `Context`."""

    server_side: bool
    certificate: Optional[SslCertificate]
    certificate_chain: tuple[SslCertificate, ...]
    private_key: Optional[SslKey]
    verify_mode: int
    verify_depth: int
    ca_certificates: tuple[SslCertificate, ...]
    use_system_ca: bool
    minimum_protocol: int
    maximum_protocol: int
    ciphers: str
    ciphersuites: str
    groups: str
    signature_algorithms: str
    next_protocols: tuple[bytes, ...]
    key_log: Optional[KeyLogTarget]
    verify_flags: int
    crls: tuple[SslCrl, ...]
    pre_shared_keys: bool
    pre_shared_key_identity_hint: str
    post_handshake_authentication: bool
    legacy_server_connect: bool
    prefer_server_ciphers: bool


Key = tuple[Snapshot, Hashable]

contexts: WeakValueDictionary[Key, Context] = WeakValueDictionary()
recent: OrderedDict[Key, Context] = OrderedDict()  # those used last, which live on a while; the latest last
lock = threading.RLock()  # for both; reentrant: to compare keys may run anything


def _new_lock() -> None:
    """In a forked child: whoever held it is gone."""
    global lock
    lock = threading.RLock()


os.register_at_fork(after_in_child=_new_lock)


def key_of(snapshot: Snapshot) -> Key:
    """What a context is found by: the settings, and the state of the system's authorities where they count."""
    return snapshot, system_stamp() if snapshot.use_system_ca else None


def context_of(snapshot: Snapshot) -> Context:
    """The context for these settings, made if there is none. ConfigurationError."""
    key = key_of(snapshot)
    with lock:
        context = contexts.get(key)
    if context is None:
        made = Context(**snapshot._asdict())  # it may read many files
        with lock:
            context = contexts.setdefault(key, made)
    with lock:
        recent.pop(key, None)
        recent[key] = context
        while len(recent) > KEPT:
            recent.popitem(last=False)
    return context
