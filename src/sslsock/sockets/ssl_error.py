"""SslError: one thing that is wrong with a peer's certificates. A value."""

from typing import Optional

from ..core.certificate import SslCertificate

__all__ = ["SslError"]


class SslError:
    """A verification error. Read-only, hashable; equal when code and certificate are.

    code: int, OpenSSL's X509_V_ERR_ number. depth: int, the place in the chain, 0 for the peer's own
    certificate. error_string: str, the error in words. certificate: SslCertificate the error is about, or
    None.
    """

    __slots__ = ("_certificate", "_code", "_depth", "_error_string")

    def __init__(
        self, code: int, depth: int = 0, error_string: str = "", certificate: Optional[SslCertificate] = None
    ) -> None:
        self._code = code
        self._depth = depth
        self._error_string = error_string
        self._certificate = certificate

    @property
    def code(self) -> int:
        """OpenSSL's number of the error: int."""
        return self._code

    @property
    def depth(self) -> int:
        """Place of the certificate in the chain, 0 for the peer's own: int."""
        return self._depth

    @property
    def error_string(self) -> str:
        """The error in words: str."""
        return self._error_string

    @property
    def certificate(self) -> Optional[SslCertificate]:
        """The certificate that the error is about: SslCertificate or None."""
        return self._certificate

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SslError):
            return NotImplemented
        return self._code == other._code and self._certificate == other._certificate

    def __hash__(self) -> int:
        return hash((self._code, self._certificate))

    def __str__(self) -> str:
        return self._error_string

    def __repr__(self) -> str:
        return f"SslError({self._code}, depth {self._depth}, {self._error_string!r}, {self._certificate!r})"
