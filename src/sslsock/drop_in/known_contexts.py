"""Contexts that libraries make for themselves when they are imported, made anew after `install()`.

A library that is not here keeps the context that it has, which goes on working with the interpreter's OpenSSL.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time that `typing` takes
if TYPE_CHECKING:
    from typing import Any, Callable

    Pair = tuple[Any, Any]


def aiohttp_connector(module: Any) -> Iterator[Pair]:
    yield module._SSL_CONTEXT_VERIFIED, module._make_ssl_context(True)
    yield module._SSL_CONTEXT_UNVERIFIED, module._make_ssl_context(False)


def requests_adapters(module: Any) -> Iterator[Pair]:
    """Of 2.32 only."""
    if getattr(module, "_preloaded_ssl_context", None) is not None:
        context = module.create_urllib3_context()
        context.load_verify_locations(module.extract_zipped_paths(module.DEFAULT_CA_BUNDLE_PATH))
        yield module._preloaded_ssl_context, context


def tornado_netutil(module: Any) -> Iterator[Pair]:
    purpose = module.ssl.Purpose
    for name, of in (("_client_ssl_defaults", purpose.SERVER_AUTH), ("_server_ssl_defaults", purpose.CLIENT_AUTH)):
        if callable(getattr(module, name)):  # from 6.6 on: made when first asked for, and kept
            getattr(module, name).cache_clear()
            continue
        context = module.ssl.create_default_context(of)
        context.options |= module.ssl.OP_NO_COMPRESSION
        yield getattr(module, name), context


MAKERS: dict[str, Callable[[Any], Iterator[Pair]]] = {
    "aiohttp.connector": aiohttp_connector,
    "requests.adapters": requests_adapters,
    "tornado.netutil": tornado_netutil,
}


def made_anew(replaced: type) -> list[Pair]:
    """(the one that a loaded library has, a new one) for each of the class `replaced`, while `ssl` makes others."""
    pairs: list[Pair] = []
    for name, make in MAKERS.items():
        module = sys.modules.get(name)
        if module is None:
            continue
        try:
            made = list(make(module))
        except Exception:  # another version of the library, whatever it does: it keeps what it has
            continue
        pairs += [(old, new) for old, new in made if type(old) is replaced and type(new) is not replaced]
    return pairs
