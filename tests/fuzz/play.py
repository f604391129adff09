"""Runs the seeded fuzzers, seed after seed: python -m fuzz.play [--seconds N] [--first N] [--seed N] [--mark FILE]
[sockets | engines | transports]

--seconds   for how long; 60
--first     from this seed on, in place of one that is drawn
--seed      this one only
--mark      a file that always names the run under way, for one that ends the process
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Union

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.engines import EnginePlay
from fuzz.sockets import SocketPlay
from fuzz.transports import TransportPlay

PLAYS: dict[str, type[Union[EnginePlay, SocketPlay, TransportPlay]]] = {
    "sockets": SocketPlay,
    "engines": EnginePlay,
    "transports": TransportPlay,
}
SHARES = {"sockets": 0.6, "engines": 0.1, "transports": 0.3}  # of the time
LIMIT = 200.0  # seconds for one run, which has a limit of its own


class Trace(logging.Handler):
    """What a run logs (errors that no handler takes) is one of its steps: told when something does not hold, else not."""

    def __init__(self, trace: list[str]) -> None:
        super().__init__()
        self.trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        self.trace.append(f"log: {record.levelname} {record.getMessage()}")


def run(kind: str, seed: int) -> bool:
    """One run. False, and why, when something does not hold."""
    play = PLAYS[kind](seed)
    log, trace = logging.getLogger("sslsock"), Trace(play.trace)
    log.addHandler(trace)
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    try:
        play.run()
    except Exception:
        print(f"== {kind} {seed}: its steps, and what does not hold", *play.trace[-200:], sep="\n")
        traceback.print_exc(file=sys.stdout)
        print(f"== to repeat: ci/fuzz --seed {seed} {kind}")
        return False
    finally:
        faulthandler.cancel_dump_traceback_later()
        log.removeHandler(trace)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--mark", type=Path)
    parser.add_argument("kind", nargs="?", choices=PLAYS)
    options = parser.parse_args()
    kinds = [options.kind] if options.kind else list(PLAYS)
    mark = os.open(options.mark, os.O_WRONLY | os.O_CREAT, 0o600) if options.mark else -1
    gc.freeze()
    begin = time.monotonic()
    failed = False
    for kind in kinds:
        seed = options.first if options.seed is None else options.seed
        if seed is None:
            seed = random.SystemRandom().randrange(1 << 31)
        end = time.monotonic() + options.seconds * (SHARES[kind] if len(kinds) > 1 else 1)
        count = 0
        while not count or (options.seed is None and time.monotonic() < end):
            if mark >= 0:
                os.pwrite(mark, f"--seed {seed + count} {kind}\n".ljust(40).encode(), 0)
            failed |= not run(kind, seed + count)
            count += 1
        print(f"{kind}: {count} runs from seed {seed} on in {time.monotonic() - begin:.0f} s")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
