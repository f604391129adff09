"""Runs the example of a page of docs/libraries, which names no certificate and no port of a test: `python page.py EXAMPLE`.

Nothing of `ssl` is imported before it. Standard output tells of each connection over TLS, `TLS ours` or `TLS stdlib`, and of
each socket that listens, `listening PORT`.
"""

import builtins
import socket
import sys
from pathlib import Path


def tell(name, context):
    """Have each connection of a class of contexts told."""

    def telling(original):
        def wrap(self, *arguments, **options):
            print("TLS", name, flush=True)
            return original(self, *arguments, **options)

        return wrap

    context._wrap_socket = telling(context._wrap_socket)
    context._wrap_bio = telling(context._wrap_bio)


def import_and_look(*arguments, **options):
    module = plain_import(*arguments, **options)
    ours = sys.modules.get("sslsock.ssl")
    if ours is not None and hasattr(ours, "install"):  # it is there now: it has loaded `ssl`, and nothing is installed yet
        builtins.__import__ = plain_import
        tell("ours", ours.SSLContext)
        tell("stdlib", sys.modules["ssl"].SSLContext)
    return module


def listen(self, *arguments):
    plain_listen(self, *arguments)
    if self.family == socket.AF_INET:
        print("listening", self.getsockname()[1], flush=True)


plain_import, builtins.__import__ = builtins.__import__, import_and_look
plain_listen, socket.socket.listen = socket.socket.listen, listen
source = Path(sys.argv[1]).read_text()
del sys.argv[1:]
exec(compile(source, "example", "exec"), {"__name__": "__main__"})
