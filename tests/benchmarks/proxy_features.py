"""What the proxy's keep-alive, watched files, bounds, limits, rates and metrics cost where nothing ever reaches them.

The same proxy, with one thread, under the loads of `proxy.py`: with none of them, with its defaults, and with all. A round
starts each anew and measures all loads; ratios are taken within a round.
"""

from __future__ import annotations

import sys

import harness
from application import GIB, Load
from harness import Report

from proxy import SSLSOCK, Proxy, back_end

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
    bulk = Load("sent", 2, 1 << 20) if options.quick else Load("sent", 16, 64 << 20)
    small = Load("request", 4_096 if options.quick else 40_000)
    new = Load("connection", 16 if options.quick else 2_000)
    report.head()

    def measure(name: str, unit: str) -> harness.Measure:
        return report.measure(name, unit, less=True, baseline=NONE, targets=dict.fromkeys(WITH, MOST))

    measures = {
        bulk: (measure("GiB", "s of CPU"), GIB / bulk.size),
        small: (measure("request of 1 KiB", "us of CPU"), 1e6),
        new: (measure("connection with one request", "us of CPU"), 1e6),
    }
    with back_end(report) as target:
        for number in range(options.rounds):
            for features in harness.rotated(list(WITH), number):
                with Proxy(SSLSOCK, target, options=WITH[features].split()) as proxy:
                    for load, (costs, scale) in measures.items():
                        load.cpu_seconds(proxy, max(1, load.count // 20))  # warms up
                        cost = load.cpu_seconds_of_requests(proxy) if load is small else load.cpu_seconds(proxy)
                        costs.add(features, None if cost is None else cost * scale)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
