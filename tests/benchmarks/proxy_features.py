"""What the proxy's keep-alive, watched files, bounds, limits, rates and metrics cost where nothing ever reaches them.

The same proxy, with one thread, under the loads of `proxy.py`: with none of them, with its defaults, and with all. A round
starts all three and has them serve in turn, a slice of the load each, for what else the machine does changes within a round.
Its figure is the median of its slices; ratios are taken within a round.
"""

from __future__ import annotations

import contextlib
import sys

import harness
from application import GIB, Load
from harness import Report

from proxy import SLICES, SSLSOCK, Proxy, back_end, in_turn

NONE = "none"
WITH = {
    NONE: "--keepalive 0 --watch off --idle-timeout 0",
    "the defaults": "",
    "all": "--metrics 127.0.0.1:0 --max-connections 10000 --max-connections-per-source 10000"
    " --connection-rate 100000 --handshake-rate 100000 --connection-rate-per-source 100000 --handshake-rate-per-source 100000"
    " --half-closed-timeout 30 --connection-lifetime 3600",
}
MOST = 1.02  # of the cost with none


def main() -> int:
    options = harness.begin(harness.arguments(__doc__ or "", rounds=7))
    report = Report("features of the proxy", options)
    slices = 1 if options.quick else SLICES
    bulk = Load("sent", 2, 1 << 20) if options.quick else Load("sent", 4, 64 << 20)
    small = Load("request", 4_096 if options.quick else 8_000)
    new = Load("connection", 16 if options.quick else 400)
    report.head()

    def measure(name: str, unit: str) -> harness.Measure:
        return report.measure(name, unit, less=True, baseline=NONE, targets=dict.fromkeys(WITH, MOST))

    measures = {
        bulk: (measure("GiB", "s of CPU"), GIB / bulk.size),
        small: (measure("request of 1 KiB", "us of CPU"), 1e6),
        new: (measure("connection with one request", "us of CPU"), 1e6),
    }

    with back_end(report) as target:
        for _ in range(options.rounds):
            with contextlib.ExitStack() as stack:
                proxies = {
                    name: stack.enter_context(Proxy(SSLSOCK, target, options=more.split())) for name, more in WITH.items()
                }
                for load, (costs, scale) in measures.items():
                    for name, seconds in zip(proxies, in_turn(load, list(proxies.values()), slices)):
                        costs.add(name, None if seconds is None else seconds * scale)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
