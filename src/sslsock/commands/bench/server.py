"""The server process of a network measure: `python -m sslsock.commands.bench.server KIND`.

Reads certificate, key and cipher suite from standard input (JSON), prints its port, and serves until that input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from .kinds import serve


def leave_with_parent() -> None:
    """The end of standard input is the end of the benchmark, whichever way it has come to it."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    identity = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=leave_with_parent, daemon=True).start()
    serve(
        sys.argv[1],
        identity["certificate"].encode("ascii"),
        identity["key"].encode("ascii"),
        identity["suite"],
        lambda port: print(port, flush=True),
    )


if __name__ == "__main__":
    main()
