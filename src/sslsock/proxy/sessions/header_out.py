"""The PROXY header that a back end gets in front of all else: what this proxy knows of the client, and what one before it
has told.

Of one thing one says something. What this proxy knows itself goes before what came in (`--proxy-protocol-in`): where TLS ends
here, all that is about TLS, also what it leaves open, for half of one connection's TLS and half of another's would be nobody's.
The unique id alone is that which came in, so that a connection has one id all the way.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator
from itertools import count
from typing import Any, Optional

from ...core.engine import Engine
from ...proxy_protocol import (
    MAXIMUM_TLVS,
    PP2_TYPE_ALPN,
    PP2_TYPE_AUTHORITY,
    PP2_TYPE_CLIENT_NAME,
    PP2_TYPE_CRC32C,
    PP2_TYPE_NOOP,
    PP2_TYPE_SSL,
    PP2_TYPE_UNIQUE_ID,
    TlsFields,
    encode_v1,
    encode_v2,
)
from ..observability.record import ConnectionRecord
from ..settings.model import PROTOCOL_NAMES

__all__ = ["Tlvs", "header_for", "text_of_id", "unique_ids"]

Tlvs = tuple[tuple[int, bytes], ...]

# They are of a header, not of a connection: section 2.2 of HAProxy's doc/proxy-protocol.txt. The id is an argument.
NEVER = frozenset((PP2_TYPE_CRC32C, PP2_TYPE_NOOP, PP2_TYPE_UNIQUE_ID))
ABOUT_TLS = frozenset((PP2_TYPE_ALPN, PP2_TYPE_AUTHORITY, PP2_TYPE_SSL, PP2_TYPE_CLIENT_NAME))


def unique_ids() -> Iterator[bytes]:
    """Ids that nobody else gives, now and later: of this maker, and a number."""
    maker = secrets.token_hex(8)
    for number in count(1):
        yield b"%s-%x" % (maker.encode(), number)


def text_of_id(unique_id: bytes) -> str:
    """An id for people: as it is if it is visible ASCII, as our own are, else in hexadecimal."""
    text = unique_id.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else "0x" + unique_id.hex()


def header_for(
    version: str, told: ConnectionRecord, engine: Optional[Engine], chosen: bool, came: Tlvs, unique_id: bytes
) -> bytes:
    """The header. ValueError: it cannot be told.

    version: "v1" or "v2". told: of the connection. engine: of the client's TLS, None where it does not end here. chosen: the
    client's name is the one that `NameList` has found, with its kind. came: what TLVs the client's connection began with;
    those that do not fit any more are left out.
    """
    if version == "v1":
        return encode_v1(told.peer, told.local)
    own: dict[str, Any] = {"unique_id": unique_id}
    further: Tlvs = ()
    stopped = NEVER
    if engine is not None:
        certificates = engine.peer_certificate_chain()
        common_name = certificates[0].subject.get("CN", ()) if certificates else ()
        own["tls"] = TlsFields(
            version=PROTOCOL_NAMES.get(engine.protocol),
            cipher=engine.cipher,
            client_certificate=bool(certificates) and not engine.session_reused,
            in_session=bool(certificates),
            verified=bool(certificates),
            common_name=common_name[0] if common_name else None,
        )
        own["alpn"], own["authority"] = engine.next_protocol, engine.requested_server_name
        if told.client_name is not None:
            name = told.client_name if chosen else f"CN:{told.client_name}"
            further = ((PP2_TYPE_CLIENT_NAME, name.encode("utf-8", "surrogateescape")),)
        stopped |= ABOUT_TLS
    elif told.server_name is not None:
        own["authority"] = told.server_name
        stopped |= {PP2_TYPE_AUTHORITY}
    if came:
        room = MAXIMUM_TLVS - (len(encode_v2(None, None, tlvs=further, **own)) - 16)  # a header without addresses has 16 bytes
        further += that_fit(came, stopped, room)
    return encode_v2(told.peer, told.local, tlvs=further, **own)


def that_fit(came: Tlvs, stopped: Collection[int], room: int) -> Tlvs:
    """Those that are handed on, in their order."""
    fitting = []
    for kind, value in came:
        size = 3 + len(value)
        if kind not in stopped and size <= room:
            room -= size
            fitting.append((kind, value))
    return tuple(fitting)
