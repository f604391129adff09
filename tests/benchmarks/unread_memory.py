"""Memory that a proxy keeps for a TLS connection whose client asks for much and never reads.

The growth of the proxy's PSS without files while 400 clients ask for 64 MiB each, through TLS, of a plain back end that sends
as fast as it can, divided by their number; once it stays, so when every buffer on the way is full. Not counted: the kernel's
buffers, and what the first 20 of them have made the process keep for ever.
"""

from __future__ import annotations

import contextlib
import sys

import harness
from harness import LIMIT, Report
from idle_memory import settled

from proxy import HAPROXY, SSLSOCK, Proxy, available, back_end

PEERS = (SSLSOCK, LIMIT, HAPROXY)
FIRST = 20  # clients before the memory is looked at for the first time
REQUEST = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (64 << 20)
LIMIT_KIB = 64.0


def kib_per_client(peer: str, target: int, count: int) -> float:
    context = harness.client_context()
    with Proxy(peer, target) as proxy, contextlib.ExitStack() as stack:
        before = 0.0
        for number in range(FIRST + count):
            if number == FIRST:
                before = settled(proxy)
            stack.enter_context(harness.connect(proxy.port, context)).sendall(REQUEST)
        return (settled(proxy) - before) / count


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=3)
    parser.add_argument("--connections", type=int, default=400)
    options = harness.begin(parser)
    report = Report("memory for clients that never read", options)
    peers = available(list(PEERS), report)
    count = 20 if options.quick else min(options.connections, harness.raise_descriptor_limit() // 2 - FIRST - 100)
    with back_end(report) as target:
        report.head()
        print(f"  {count} clients")
        measure = report.measure(
            "client that never reads",
            "KiB",
            less=True,
            baseline=HAPROXY if HAPROXY in peers else None,
            limits={SSLSOCK: LIMIT_KIB},
        )
        for number in range(options.rounds):
            for peer in harness.rotated(peers, number):
                value = None
                with report.forgiving(peer):
                    value = kib_per_client(peer, target, count)
                measure.add(peer, value)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
