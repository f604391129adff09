"""A free-threaded interpreter keeps its GIL off when it imports the package."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

PROGRAM = """
import importlib, sys
import sslsock.core
for name in sorted(sslsock.core.MODULES):
    importlib.import_module(name)
print(getattr(sys, "_is_gil_enabled", lambda: True)())
"""


def test_no_module_brings_the_gil_back() -> None:
    said = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (said.stderr, said.returncode) == ("", 0)
    assert said.stdout.strip() == str(not sysconfig.get_config_var("Py_GIL_DISABLED"))
