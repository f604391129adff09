"""The interface of the standard library's `ssl`, on the OpenSSL of this package.

    from sslsock import ssl

    context = ssl.create_default_context()

Every public name of the interpreter's `ssl` is here and means the same. Contexts made here pass for that module's
(`isinstance(context, ssl.SSLContext)`) and are taken by whatever takes those; exceptions, sockets and enums are the same
objects. `install()` puts what is here in the place of `ssl` for the whole process, `uninstall()` takes it out again.

docs/ssl.md says more, docs/ssl-differences.md what differs.
"""

from . import _ssl
from .drop_in.assembly import assemble as _assemble

_assemble(globals(), _ssl)
del _assemble

from .drop_in.switch import install, uninstall  # noqa: E402, F401
