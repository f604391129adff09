"""What can go wrong on the way to a certificate, in words for the log and in one for the metrics."""

from __future__ import annotations

from typing import Optional

__all__ = ["REASONS", "AcmeFailure", "Stopped"]

NETWORK = "network"  # the authority cannot be reached
SERVER = "server"  # what it answers makes no sense, or is an error of its own
ACCOUNT = "account"  # it does not take the account, its binding or its key
RATE_LIMITED = "rate_limited"
VALIDATION = "validation"  # it has looked, and the name does not lead here
REJECTED = "rejected"  # any other refusal: the name, a CAA record, the request
TIMEOUT = "timeout"  # it comes to no end
STORAGE = "storage"  # nothing can be kept
INTERNAL = "internal"  # a mistake of this program

REASONS = (NETWORK, SERVER, ACCOUNT, RATE_LIMITED, VALIDATION, REJECTED, TIMEOUT, STORAGE, INTERNAL)


class AcmeFailure(Exception):
    """reason: one of `REASONS`. retry_after: seconds that the authority has asked for. code: of its problem document
    (RFC 8555, 6.7), without the namespace; "" for none."""

    def __init__(self, reason: str, text: str, retry_after: Optional[float] = None, code: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.retry_after = retry_after
        self.code = code


class Stopped(Exception):
    """The proxy is ending."""
