"""The modules declare that they need no GIL: free-threaded CPython turns it on when it imports one that does not."""

from __future__ import annotations

import os
import subprocess
import sys

IMPORT_ALL = """
import sys
from importlib import import_module

has_gil = getattr(sys, "_is_gil_enabled", lambda: True)  # CPython 3.13
before = has_gil()
compiled = sorted(import_module("sslsock.core").MODULES)
assert "sslsock.core.loop" in compiled and "sslsock._ssl.ssl_context" in compiled
for name in [*compiled, "sslsock", "sslsock.aio", "sslsock.ssl", "sslsock.proxy", "sslsock.__main__"]:
    import_module(name)
    assert has_gil() is before, f"{name} turns the GIL on"
"""


def test_no_module_turns_the_gil_on() -> None:
    environment = dict(os.environ)
    environment.pop("PYTHON_GIL", None)  # it keeps the GIL off in any case
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
