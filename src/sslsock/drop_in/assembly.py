"""`sslsock.ssl` put together: the interpreter's `ssl.py` over our `_ssl`, shared classes, own sockets."""

from __future__ import annotations

from types import ModuleType

from .shared import adopt, claimed_by, stdlib_ssl, with_claim
from .sockets import complete
from .stdlib_code import execute

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time that `typing` takes
if TYPE_CHECKING:
    from typing import Any

# What newer versions of ssl.py have, and is there with every interpreter.
NEWER = ("HAS_PHA", "HAS_PSK", "HAS_PSK_TLS13", "get_sigalgs")


def assemble(space: dict[str, Any], private: ModuleType) -> None:
    """Fill `space`, the globals of `sslsock.ssl`. private: `sslsock._ssl`. ImportError, as `execute` has it."""
    stdlib = stdlib_ssl()
    if stdlib is None or vars(stdlib) is space:
        execute(space, private)
    else:
        execute(space, with_claim(private, claimed_by(stdlib)))
        space["_ssl"] = private
        space["SSLContext"]._passes = True  # not what others derive from it
        adopt(space, stdlib)
    complete(space)
    for name in NEWER:
        space.setdefault(name, getattr(private, name))
    # aiofastnet reads the SSL_CTX of whatever passes for a context of the interpreter, and would use ours with another libssl.
    space["SSLContext"]._aiofastnet_force_fallback_ssl = True
