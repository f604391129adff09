"""Run tests with our loop in the place of asyncio's, as `python -m unittest` does:

    asyncio_suite.py [--ssl] MODULE ...

--ssl: with our `ssl` in the place of the interpreter's, too.
"""

from __future__ import annotations

import sys

if "--ssl" in sys.argv:
    sys.argv.remove("--ssl")
    import sslsock.ssl

    sslsock.ssl.install()

import asyncio
import unittest
import warnings
from typing import Any

from sslsock.aio import EventLoop

warnings.simplefilter("ignore", DeprecationWarning)


class Selecting(EventLoop):
    """Called as SelectorEventLoop is; a class, for isinstance."""

    def __init__(self, selector: Any = None) -> None:
        super().__init__()


unix: Any = asyncio.unix_events
policy = getattr(unix, "_UnixDefaultEventLoopPolicy", None) or unix._DefaultEventLoopPolicy
policy._loop_factory = Selecting
for module in (asyncio, unix):
    module.SelectorEventLoop = Selecting
    if hasattr(module, "EventLoop"):
        module.EventLoop = Selecting


if __name__ == "__main__":
    unittest.main(None)
