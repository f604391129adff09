"""Datagrams: asyncio's transport, with what it does not know of peers that have no name."""

from __future__ import annotations

from asyncio import selector_events
from typing import Any

__all__ = ["DatagramTransport"]


class NoName(str):
    """The name of a peer that has none. asyncio would take an empty one for no peer at all."""

    def __bool__(self) -> bool:
        return True


class DatagramTransport(selector_events._SelectorDatagramTransport):  # type: ignore[name-defined, misc]
    """asyncio's, which cannot send to the peer of a UNIX socket that has no name: one of `socket.socketpair()`."""

    _extra: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._extra.get("peername") == "":
            self._extra["peername"] = NoName()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = super().get_extra_info(name, default)
        return "" if isinstance(found, NoName) else found
