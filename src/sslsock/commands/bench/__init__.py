"""`bench`: sslsock against the interpreter's `ssl` and others, on the user's own machine.

`memory` measures engines over memory, `network` a server process and a client over the loopback, both ends by
the same library: `apps` is what they do, `kinds` how each library is asked to do it, `server` the process.
`proxies` measures proxies in the same way, each a process between the two.
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
    "sslsock-aio",
    "sslsock-ssl",
    "sslsock-ssl-threads",
    "ssl",
    "ssl-threads",
    "asyncio",
    "uvloop",
    "aiofastnet",
    "aiofastnet-uvloop",
    "pyopenssl",
    "sslsock-proxy",
    "haproxy",
    "nginx",
)
MODULES = {"uvloop": "uvloop", "aiofastnet": "aiofastnet", "pyopenssl": "OpenSSL"}
PROGRAMS = ("haproxy", "nginx")


def what_lacks(peer: str) -> str:
    """The first module or program that a peer needs and that is not installed; "" when all are there."""
    from .proxies import lacking

    for word in peer.split("-"):
        module = MODULES.get(word)
        if module is not None and importlib.util.find_spec(module) is None:
            return f"module {module}"
    return lacking(peer) if peer in PROGRAMS else ""


def choose_peers(wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """The peers to measure, and why others are left out. UsageError."""
    names = list(wanted)
    for name in names:
        if name not in PEERS:
            raise UsageError(f"--peers: {name!r} is not one of {', '.join(PEERS)}")
        if what_lacks(name):
            raise UsageError(f"--peers: {name} needs the {what_lacks(name)}, which is not installed")
    if names:
        return [peer for peer in PEERS if peer in names], []
    left_out = [f"{peer} (no {what_lacks(peer)})" for peer in PEERS if what_lacks(peer)]
    return [peer for peer in PEERS if not what_lacks(peer)], left_out


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
    from . import memory, network, plot, proxies, report
    from .kinds import SHARED_SUITE

    if arguments.plot is not None:
        plot.check()
        check_output(arguments.plot, "--plot")
    if arguments.json is not None:
        check_output(arguments.json, "--json")
    peers, left_out = choose_peers(arguments.peers)
    settings = Settings(
        rounds=arguments.rounds or (3 if arguments.quick else 5),
        seconds=arguments.seconds or (0.07 if arguments.quick else 1.0),
        suite="" if arguments.own_ciphers else SHARED_SUITE,
    )
    results = Results(settings, peers, left_out)
    report.print_head(results)
    with network.Servers(settings.suite) as servers, proxies.Proxies(servers) as running:
        measures = [
            *memory.make_measures(peers, settings),
            *network.make_measures(peers, settings, servers),
            *proxies.make_measures(peers, settings, running),
        ]
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
