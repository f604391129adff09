"""`bench`: sslsock against the interpreter's `ssl` and others, on the user's own machine.

`memory` measures engines over memory, `network` a server process and a client over the loopback, both ends by
the same library: `apps` is what they do, `kinds` how each library is asked to do it, `server` the process.
`measures` has what all share, `report` and `plot` show the results. This file is the run: what is measured,
in which order, how often.

Rounds are interleaved: every measure of every peer once, then all again with the peers in another order, so
that what the machine does meanwhile meets all of them alike. What counts is the median; the spread says how
far to trust it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable

from ..common import CommandError, UsageError
from .measures import Measure, Progress, Results, Settings

PEERS = (
    "sslsock",
    "sslsock-asyncio",
    "sslsock-uvloop",
    "ssl",
    "ssl-threads",
    "asyncio",
    "uvloop",
    "aiofastnet",
    "aiofastnet-uvloop",
    "pyopenssl",
)
NEEDED = {"uvloop": "uvloop", "aiofastnet": "aiofastnet", "pyopenssl": "OpenSSL"}


def missing_module(peer: str) -> str:
    """The first module that a peer needs and this interpreter lacks; "" when all are there."""
    for word in peer.split("-"):
        module = NEEDED.get(word)
        if module is not None and importlib.util.find_spec(module) is None:
            return module
    return ""


def choose_peers(wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """The peers to measure, and why others are left out. UsageError."""
    names = list(wanted)
    for name in names:
        if name not in PEERS:
            raise UsageError(f"--peers: {name!r} is not one of {', '.join(PEERS)}")
        if missing_module(name):
            raise UsageError(f"--peers: {name} needs the module {missing_module(name)}, which is not installed")
    if names:
        return [peer for peer in PEERS if peer in names], []
    left_out = [f"{peer} (no module {missing_module(peer)})" for peer in PEERS if missing_module(peer)]
    return [peer for peer in PEERS if not missing_module(peer)], left_out


def check_output(path: str, option: str) -> None:
    """Fail before the measuring rather than after it."""
    try:
        with open(path, "ab"):
            pass
    except OSError as exc:
        raise CommandError(f"{option}: {path}: {exc.strerror or exc}") from None


def run_rounds(measures: list[Measure], results: Results, rounds: int, progress: Progress) -> None:
    for number in range(rounds):
        for measure in measures:
            peers = measure.peers
            turn = number % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                progress.show(f"round {number + 1}: {measure.title}, {peer}")
                results.add(measure, peer, measure.run(peer))
                progress.step()


def run(arguments: argparse.Namespace) -> int:
    from . import memory, network, plot, report

    if arguments.plot is not None:
        plot.check()
        check_output(arguments.plot, "--plot")
    if arguments.json is not None:
        check_output(arguments.json, "--json")
    peers, left_out = choose_peers(arguments.peers)
    settings = Settings(
        rounds=arguments.rounds or (3 if arguments.quick else 5),
        seconds=arguments.seconds or (0.07 if arguments.quick else 1.0),
    )
    results = Results(settings, left_out)
    report.print_head(results)
    with network.Servers(peers) as servers:
        measures = [*memory.make_measures(peers, settings), *network.make_measures(peers, settings, servers)]
        if not measures:
            raise UsageError("--peers: there is nothing to measure")
        steps = settings.rounds * sum(len(measure.peers) for measure in measures)
        with Progress(steps, shown=os.isatty(2)) as progress:
            run_rounds(measures, results, settings.rounds, progress)
    report.print_results(results)
    if arguments.json is not None:
        report.write_json(results, arguments.json)
        print(f"written: {arguments.json}", file=sys.stderr)
    if arguments.plot is not None:
        plot.draw(results, arguments.plot)
        print(f"written: {arguments.plot}", file=sys.stderr)
    return 0
