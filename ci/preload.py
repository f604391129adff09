"""Starts the interpreter again with the sanitizer's runtime loaded before it, for `ci/sanitize`.

It lies in that script's virtual environment, where a .pth file imports it at each start of Python. An
instrumented extension needs the runtime preloaded, but LD_PRELOAD in the environment of the tests would reach
curl, Postfix and every other child too. So it is set for the one program started here, and taken away in it.
"""

import os
import sys

RUNTIME = os.environ.get("SSLSOCK_PRELOAD", "")
LOADED = "SSLSOCK_PRELOADED"  # names the process that was started again: the mark is not its children's


def start():
    if not RUNTIME:
        return
    if os.environ.pop(LOADED, None) == str(os.getpid()):
        os.environ.pop("LD_PRELOAD", None)
        return
    with open("/proc/self/cmdline", "rb") as file:
        arguments = file.read().split(b"\0")[1:-1]
    os.environ.update({LOADED: str(os.getpid()), "LD_PRELOAD": RUNTIME})
    os.execv(sys.executable, [os.fsencode(sys.executable), *arguments])


start()
