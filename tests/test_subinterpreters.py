"""Subinterpreters: refused at import, in words, and the main interpreter is none the worse for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peers import DEADLINE

PROGRAM = """
import importlib, sys

for name in ("_interpreters", "_xxsubinterpreters"):
    try:
        interpreters = importlib.import_module(name)
        break
    except ImportError:
        pass

INSIDE = f'''
import sys
sys.path[:] = {sys.path!r}
for _ in range(2):
    try:
        import sslsock
    except ImportError as exc:
        print(exc, flush=True)
    else:
        print("imported", flush=True)
'''

before, config = sys.argv[1] == "before", sys.argv[2]
if not before:
    import sslsock
one = interpreters.create(config) if name == "_interpreters" else interpreters.create(isolated=config == "isolated")
interpreters.run_string(one, INSIDE)
interpreters.destroy(one)
import sslsock
sslsock.run(lambda: print("the main one works", flush=True))
"""


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("config", ["legacy", "isolated"])
def test_a_subinterpreter_is_refused_and_the_main_one_works(order, config):
    done = subprocess.run([sys.executable, "-c", PROGRAM, order, config], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    refused = "sslsock works in the main interpreter of a process only, and this is a subinterpreter"
    assert done.stdout.splitlines() == [refused, refused, "the main one works"]
    assert done.stderr == ""
