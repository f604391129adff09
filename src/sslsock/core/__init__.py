"""Layers 1 and 2: the loop, the TLS engine and the channels, all in Cython.

Owns the loading of the compiled modules, its own and those of `sslsock._ssl`. They live in one shared object (`setup.py` says
why), while Python's import system expects one object a module, so a finder points each name at that object; the interpreter
then looks up `PyInit_<name>` in it.
"""

import os
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec

NAMES = (
    "build",
    "folder_watch",
    "ownership",
    "nesting",
    "schedule",
    "planner",
    "scratch",
    "reactor",
    "watch",
    "loop",
    "encoded",
    "loaded",
    "loading",
    "certificate",
    "crl",
    "key",
    "ticket_keys",
    "files",
    "system_store",
    "file_store",
    "key_log",
    "session",
    "error_words",
    "new_bytes",
    "context",
    "identity_check",
    "client_hello",
    "pre_shared_key",
    "agreed",
    "binding",
    "verification",
    "bare_engine",
    "engine",
    "descriptor",
    "input_buffer",
    "output_queue",
    "handshake_pool",
    "link",
    "consumer",
    "output_link",
    "input_link",
    "ending_link",
    "channel",
    "endpoint",
    "acceptor",
    "network_list",
    "source_limits",
    "shared_rooms",
    "rate_limits",
    "door",
    "listener",
    "dial",
    "relay",
    "issue",
    "asyncio_handle",
    "asyncio_loop",
    "awaited_call",
    "stream_state",
    "stream_classes",
    "stream_reading",
    "stream_writing",
    "foreign_engine",
    "tls_start",
    "socket_names",
    "protocol_transport",
    "transport",
    "carried_channel",
    "layered_transport",
    "protocol_listener",
)
# Each name once in both folders, for the shared object has one PyInit_<name>.
SSL_NAMES = (
    "ssl_error",
    "ssl_certificate",
    "ssl_values",
    "ssl_session",
    "ssl_arguments",
    "ssl_attributes",
    "ssl_cipher",
    "ssl_hooks",
    "ssl_identity",
    "ssl_trust",
    "ssl_context",
    "memory_bio",
    "ssl_steps",
    "ssl_io",
    "ssl_inspection",
    "ssl_connection",
    "ssl_methods",
    "ssl_engine",
)
MODULES = frozenset(f"{__name__}.{name}" for name in NAMES) | frozenset(f"sslsock._ssl.{name}" for name in SSL_NAMES)


class _NativeFinder:
    """Finds the modules of `MODULES` in the shared object that lies in this folder.

    Not derived from importlib.abc.MetaPathFinder, which it is by its method: to import that takes as long as everything here.
    """

    def __init__(self) -> None:
        here = os.path.dirname(__file__)
        found = [path for suffix in EXTENSION_SUFFIXES if os.path.exists(path := os.path.join(here, f"_native{suffix}"))]
        if not found:
            name = f"_native{EXTENSION_SUFFIXES[0]}"
            raise ImportError(f"sslsock was not built for this interpreter: no {name} in {here}")
        self._path = found[0]

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        if fullname not in MODULES:
            return None
        spec = ModuleSpec(fullname, ExtensionFileLoader(fullname, self._path), origin=self._path)
        spec.has_location = True  # as importlib.util has it, which takes as long to import
        return spec


def _refuse_subinterpreters() -> None:
    """The modules' state exists once in the process, as OpenSSL's does. Whichever interpreter came first would have it, and the
    main one could never again."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # from CPython 3.13 on, and before
        try:
            interpreters = import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError("sslsock works in the main interpreter of a process only, and this is a subinterpreter")
        return


_refuse_subinterpreters()
sys.meta_path.insert(0, _NativeFinder())
