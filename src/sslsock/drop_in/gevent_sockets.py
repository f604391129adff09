"""Contexts of ours below gevent, which has put its own class of sockets into `ssl`: it is made and called in another way."""

from __future__ import annotations

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time that `typing` takes
if TYPE_CHECKING:
    from typing import Any


class GeventSocket:
    """A base that comes first, for contexts make sockets with `_create`."""

    @classmethod
    def _create(cls, sock: Any, context: Any = None, session: Any = None, **options: Any) -> Any:
        make: Any = cls
        return make(sock=sock, _context=context, _session=session, **options)


def adapt(context: Any) -> None:
    """context: our class. gevent names its inner socket as the owner of a connection; callbacks are to get the outer one."""
    wrap_socket = context._wrap_socket

    def _wrap_socket(self: Any, *arguments: Any, owner: Any = None, **options: Any) -> Any:
        outer = getattr(owner, "_sslsock", None)
        return wrap_socket(self, *arguments, owner=owner if outer is None else outer(), **options)

    context._wrap_socket = _wrap_socket
