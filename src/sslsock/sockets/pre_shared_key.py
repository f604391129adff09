"""Pre-shared keys: both sides of a connection know a key, and need no certificates. The program is asked for it in the middle
of the handshake, and fills in an SslPreSharedKeyAuthenticator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NoReturn, Optional, Union

from ..core.pre_shared_key import MOST_IDENTITY, MOST_KEY
from .identity import encoded_psk_identity
from .loop_object import Handler
from .resumption import Resumption

if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import Self

__all__ = ["PreSharedKeys", "SslPreSharedKeyAuthenticator"]


class Secret(bytearray):
    """Wiped by whoever has it last."""

    __slots__ = ()

    def __del__(self) -> None:
        self[:] = bytes(len(self))


class SslPreSharedKeyAuthenticator:
    """What `pre_shared_key_handler` is given, to fill in the key. A client sets `identity` and `pre_shared_key`, a server
    `pre_shared_key` alone. TypeError and ValueError for what cannot be. The key is wiped when it has been used.
    """

    __slots__ = ("_client", "_hint", "_identity", "_key")

    def __init__(self, said: Optional[str], client: bool) -> None:
        self._client = client
        self._hint = said or "" if client else ""
        self._identity = b"" if client else (said or "").encode("utf-8", "surrogateescape")
        self._key = Secret()

    @property
    def identity_hint(self) -> str:
        """What the server says for the client to choose its key by: str, "" when it says nothing, as always in TLS 1.3."""
        return self._hint

    @property
    def identity(self) -> str:
        """Whose key it is: str; what is not UTF-8 is there as lone surrogates ("surrogateescape"). A client sets it (str
        or bytes), to a server it is what the client says: AttributeError."""
        return self._identity.decode("utf-8", "surrogateescape")

    @identity.setter
    def identity(self, identity: Union[str, bytes]) -> None:
        if not self._client:
            raise AttributeError("the identity is what the client says")
        self._identity = encoded_psk_identity(identity, "identity")

    @property
    def pre_shared_key(self) -> bytes:
        """The key: bytes, empty at first. Any buffer may be assigned; what is assigned is copied."""
        return bytes(self._key)

    @pre_shared_key.setter
    def pre_shared_key(self, key: Union[bytes, bytearray, memoryview]) -> None:
        view = memoryview(key)
        if view.nbytes > MOST_KEY:
            raise ValueError(f"pre_shared_key is at most {MOST_KEY} bytes, not {view.nbytes}")
        self._key = Secret(view)

    @property
    def maximum_identity_length(self) -> int:
        """Most bytes of `identity`: int."""
        return MOST_IDENTITY

    @property
    def maximum_pre_shared_key_length(self) -> int:
        """Most bytes of `pre_shared_key`: int."""
        return MOST_KEY

    def __repr__(self) -> str:
        return f"<SslPreSharedKeyAuthenticator of {self.identity!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an SslPreSharedKeyAuthenticator is neither copied nor pickled: it holds a secret")


class PreSharedKeys(Resumption):
    """Base of SslSocket."""

    __slots__ = ("_pre_shared_key_handler",)

    pre_shared_key_handler: Handler[Callable[[Self, SslPreSharedKeyAuthenticator], object]] = Handler(
        """`pre_shared_key_handler(socket, authenticator)`: called in the middle of the handshake, on a client perhaps twice,
        to fill in a key that both sides know (SslPreSharedKeyAuthenticator). Set it before the handshake. It cannot be an
        `async def`. Where it fills in no key, certificates decide, if both sides can (in TLS 1.3), and else the handshake
        fails. It fails if the handler raises, or ends the connection. A server may be asked for identities that are nobody's,
        and then leaves the key out.""",
        decides=True,
    )

    @property
    def pre_shared_key_used(self) -> bool:
        """Whether a pre-shared key has authenticated both sides, in place of certificates: bool."""
        return self._engine.pre_shared_key_used if self._engine is not None else False

    def _key_asker(
        self, client: bool
    ) -> Callable[[Optional[str]], Union[tuple[bytes, Secret], Literal[False], None]]:
        """What the engine calls in the middle of the handshake."""

        def find(said: Optional[str]) -> Union[tuple[bytes, Secret], Literal[False], None]:
            channel = self._channel
            asked = SslPreSharedKeyAuthenticator(said, client)
            decided = self._emit("_pre_shared_key_handler", asked)
            key, asked._key = asked._key, Secret()
            if not decided or self._channel is not channel:
                return False
            if not key:
                return None
            if client and not asked._identity:
                raise ValueError("pre_shared_key_handler has given a key without its identity")
            return asked._identity, key

        return find
