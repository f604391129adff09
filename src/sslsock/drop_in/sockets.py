"""The sockets and objects that contexts hand out: the interpreter's own classes, with what newer Pythons have besides, and, for
sockets, a shorter way for the bytes.

They are made from the classes that stand in `ssl` at the time, so that a program under gevent gets gevent's.
"""

from __future__ import annotations

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
        bases = (fast_socket(space["SSLError"], space["SSL_ERROR_EOF"]), *bases)
    context.sslsocket_class = subclass(socket, bases)
    context.sslobject_class = subclass(sslobject, (sslobject, NewerObject))


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


def fast_socket(SSLError: type[OSError], SSL_ERROR_EOF: int) -> type:
    """A base that comes first: moving bytes is one call of Python, where the stdlib's goes through two or three."""

    class FastSocket:
        __slots__ = ()
        _sslobj: Any
        suppress_ragged_eofs: bool

        def recv(self, buflen: int = 1024, flags: int = 0) -> Any:
            sslobj = self._sslobj
            if sslobj is None or flags:
                return super().recv(buflen, flags)  # type: ignore[misc]
            try:
                return sslobj.read(buflen)
            except SSLError as exc:
                if exc.args[0] == SSL_ERROR_EOF and self.suppress_ragged_eofs:
                    return b""
                raise

        def recv_into(self, buffer: Any, nbytes: Optional[int] = None, flags: int = 0) -> Any:
            sslobj = self._sslobj
            if sslobj is None or flags or buffer is None:
                return super().recv_into(buffer, nbytes, flags)  # type: ignore[misc]
            try:
                return sslobj.read(nbytes or 0, buffer)  # 0: as much as there is room for
            except SSLError as exc:
                if exc.args[0] == SSL_ERROR_EOF and self.suppress_ragged_eofs:
                    return 0
                raise

        def send(self, data: Any, flags: int = 0) -> Any:
            sslobj = self._sslobj
            if sslobj is None or flags:
                return super().send(data, flags)  # type: ignore[misc]
            return sslobj.write(data)

        def sendall(self, data: Any, flags: int = 0) -> Any:
            sslobj = self._sslobj
            if sslobj is None or flags or type(data) is not bytes or not data:
                return super().sendall(data, flags)  # type: ignore[misc]
            sent = sslobj.write(data)
            if sent == len(data):
                return None
            return super().sendall(memoryview(data)[sent:])  # type: ignore[misc]

    return FastSocket
