"""The sockets and objects that contexts hand out: the interpreter's own classes, with what newer Pythons have besides, and, for
sockets, a shorter way for the bytes.

They are made from the classes that stand in `ssl` at the time, so that a program under gevent gets gevent's.
"""

from __future__ import annotations

from sslsock._ssl.ssl_methods import FastObject, FastSocket

from .gevent_sockets import GeventSocket, adapt

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time that `typing` takes
if TYPE_CHECKING:
    from typing import Any, Optional


def complete(space: dict[str, Any]) -> None:
    """Have the contexts of `space`, the globals of an executed ssl.py, hand out classes that have everything."""
    socket, sslobject, context = space["SSLSocket"], space["SSLObject"], space["SSLContext"]
    bases: tuple[type, ...] = (socket, NewerSocket)
    if not hasattr(socket, "_create"):
        bases = (GeventSocket, *bases)
        adapt(context)
    elif socket.__module__ in ("ssl", space["__name__"]):
        bases = (FastSocket, *bases)
    context.sslsocket_class = subclass(socket, bases)
    context.sslobject_class = subclass(sslobject, (FastObject, sslobject, NewerObject))


def subclass(named: type, bases: tuple[type, ...]) -> type:
    """Its name and place are those of `named`, for they stand in the repr of each socket."""
    return type(named.__name__, bases, {"__module__": named.__module__, "__doc__": named.__doc__})


def der_chain(chain: Optional[list[Any]]) -> list[bytes]:
    return [certificate.public_bytes(ENCODING_DER) for certificate in chain or ()]


ENCODING_DER = 2  # in every _ssl


class NewerObject:
    """What `SSLObject` has in the newest Python: a base that comes last, so that the interpreter's own method goes first."""

    _sslobj: Any

    def get_verified_chain(self) -> list[bytes]:
        """Return the verified certificate chain of the other end as a list of DER-encoded bytes.

        If certificate verification was disabled, the same as get_unverified_chain().
        """
        return der_chain(self._sslobj.get_verified_chain())

    def get_unverified_chain(self) -> list[bytes]:
        """Return the raw certificate chain that the other end has sent as a list of DER-encoded bytes."""
        return der_chain(self._sslobj.get_unverified_chain())

    def group(self) -> Optional[str]:
        """Return the name of the key agreement group that is in use."""
        name: Optional[str] = self._sslobj.group()
        return name

    def client_sigalg(self) -> Optional[str]:
        """Return the signature algorithm with which the client has authenticated itself."""
        name: Optional[str] = self._sslobj.client_sigalg()
        return name

    def server_sigalg(self) -> Optional[str]:
        """Return the signature algorithm of the server's handshake."""
        name: Optional[str] = self._sslobj.server_sigalg()
        return name


class NewerSocket(NewerObject):
    """The same for `SSLSocket`, which may have no TLS yet, or any more."""

    def group(self) -> Optional[str]:
        return None if self._sslobj is None else super().group()

    def client_sigalg(self) -> Optional[str]:
        return None if self._sslobj is None else super().client_sigalg()

    def server_sigalg(self) -> Optional[str]:
        return None if self._sslobj is None else super().server_sigalg()
