"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import platform
import ssl
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from ... import __version__, openssl_version
from ...core.cpu_count import usable_cpus
from . import proxies
from .measures import Measure, Result, Results

SCHEMA = 1


def versions(peers: list[str]) -> dict[str, str]:
    """Of everything that takes part, and of what it runs on."""
    found = {
        "sslsock": __version__,
        "OpenSSL of sslsock": openssl_version(),
        "OpenSSL of ssl": ssl.OPENSSL_VERSION,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
    }
    for name in ("uvloop", "aiofastnet", "pyOpenSSL", "cryptography"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "pyOpenSSL" in found:
        try:
            from OpenSSL import SSL  # type: ignore[import-not-found, unused-ignore]

            found["OpenSSL of pyOpenSSL"] = SSL.OpenSSL_version(0).decode("ascii")
        except ImportError:
            del found["pyOpenSSL"]
    found.update((peer, proxies.version(peer)) for peer in ("haproxy", "nginx") if peer in peers)
    return found


def machine() -> dict[str, Any]:
    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {"processor": model, "cores": usable_cpus(), "congestion_control": congestion_control()}


def congestion_control() -> str:
    try:
        return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    except OSError:
        return ""


def notes(results: Results) -> list[str]:
    """What a reader should know before comparing."""
    found = [suites_text(results)]
    if openssl_version() != ssl.OPENSSL_VERSION:
        found.append(
            f"sslsock runs on {openssl_version()}, the interpreter's ssl on {ssl.OPENSSL_VERSION}: "
            "part of a difference is OpenSSL's (from 3.5 on a handshake withstands quantum computers, and takes longer)."
        )
    cores = machine()["cores"]
    if cores < 2:
        found.append("One core: client and server take it from each other, rates over the loopback mean little.")
    elif cores < 3 and set(proxies.PEERS) & set(results.peers):
        found.append("Client, proxy and back end share two cores: of proxies compare the processor time, not the rates.")
    if congestion_control() == "bbr":
        found.append("BBR paces the loopback by timers: bulk over it is slower and costs more than with cubic or reno.")
    if results.left_out:
        found.append("Left out: " + ", ".join(results.left_out) + ".")
    return found


def suites_text(results: Results) -> str:
    """One line for people who compare: which cipher suites were spoken, or are to be."""
    spoken = sorted({result.samples[-1].cipher for result in results.all})
    if len(spoken) > 1:
        return f"Cipher suites differ ({', '.join(spoken)}), and so does what a byte costs."
    if spoken or results.settings.suite:
        return f"All use the cipher suite {spoken[0] if spoken else results.settings.suite}."
    return "Each library has its own default cipher suite."


def print_head(results: Results) -> None:
    for name, version in versions(results.peers).items():
        print(f"{name:<22}{version}")
    computer = machine()
    print(f"{'machine':<22}{computer['processor'] or 'unknown processor'}, {computer['cores']} cores")
    print(f"{'rounds':<22}{results.settings.rounds}, interleaved; figures are medians, ± is the farthest round")
    for note in notes(results):
        print(f"Note: {note}")
    sys.stdout.flush()


def agreed_text(results: list[Result]) -> str:
    """The protocol and cipher of all peers, or of each where they differ."""
    agreed = {result.peer: " ".join(result.samples[-1][3:5]) for result in results}
    kinds = sorted(set(agreed.values()))
    if len(kinds) == 1:
        return kinds[0]
    return "; ".join(f"{kind}: {', '.join(peer for peer in agreed if agreed[peer] == kind)}" for kind in kinds)


def figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def print_measure(measure: Measure, results: list[Result]) -> None:
    base = next((result for result in results if result.peer == measure.baseline), None)
    print(f"\n  {measure.title}")
    ratio = f"x {measure.baseline}" if base is not None else ""
    print(f"    {'':<20}{measure.unit:>15} {'±':>6} {'CPU, ' + measure.cost_unit:>16}   {ratio}".rstrip())
    for result in results:
        part = ""
        if base is not None:
            part = f"{result.rate / base.rate:.2f} rate, {result.cost / base.cost:.2f} CPU"
        row = f"{figure(result.rate):>15} {result.spread:>5.0%} {figure(result.cost):>16}   {part}"
        print(f"    {result.peer:<20}{row}".rstrip())


def print_results(results: Results) -> None:
    group = ""
    for measure in results.measures:
        own = results.of(measure)
        if measure.group != group:
            group = measure.group
            print(f"\n{group} ({agreed_text(own)})")
        print_measure(measure, own)
    print(f"\n{suites_text(results)}")
    sys.stdout.flush()


def as_json(results: Results) -> dict[str, Any]:
    rows = []
    for result in results.all:
        measure = result.measure
        rows.append(
            {
                "group": measure.group,
                "measure": measure.title,
                "peer": result.peer,
                "unit": measure.unit,
                "median": result.rate,
                "spread": result.spread,
                "rates": result.rates,
                "cpu_unit": measure.cost_unit,
                "cpu_median": result.cost,
                "cpu": result.costs,
                "protocol": result.samples[-1].protocol,
                "cipher": result.samples[-1].cipher,
            }
        )
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(results.peers),
        "machine": machine(),
        "settings": {"rounds": results.settings.rounds, "seconds": results.settings.seconds, "suite": results.settings.suite},
        "notes": notes(results),
        "results": rows,
    }


def write_json(results: Results, path: str) -> None:
    Path(path).write_text(json.dumps(as_json(results), indent=1) + "\n")
