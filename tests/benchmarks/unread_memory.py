"""Memory that a proxy keeps for a TLS connection whose client asks for much and never reads.

The growth of the proxy's PSS without files while 400 clients ask for 64 MiB each, through TLS, of a back end that sends
as fast as it can, divided by their number; once it stays, so when every buffer on the way is full. Not counted: the kernel's
buffers, and what the first 20 of them have made the process keep for ever. Two kinds of back end: a plain one, and one with
TLS, whose connection is the proxy's second.
"""

from __future__ import annotations

import contextlib
import shutil
import sys

import harness
from harness import LIMIT, Report
from idle_memory import settled

from proxy import HAPROXY, SSLSOCK, Proxy, available, back_end

PEERS = (SSLSOCK, LIMIT, HAPROXY)
WITH_TLS = (SSLSOCK, HAPROXY)  # that speak TLS with back ends
FIRST = 20  # clients before the memory is looked at for the first time
REQUEST = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (64 << 20)
LIMIT_KIB = 64.0


def kib_per_client(peer: str, target: int, tls: bool, count: int) -> float:
    context = harness.client_context()
    with Proxy(peer, target, tls=tls) as proxy, contextlib.ExitStack() as stack:
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
    kinds = [(False, "plain back end", peers)]
    if shutil.which("nginx"):
        kinds.append((True, "back end with TLS", [peer for peer in peers if peer in WITH_TLS]))
    else:
        report.leave_out("back end with TLS", "nginx is not installed")
    report.head()
    print(f"  {count} clients")
    for tls, name, present in kinds:
        with back_end(report, tls) as target:
            measure = report.measure(
                f"client that never reads, {name}",
                "KiB",
                less=True,
                baseline=HAPROXY if HAPROXY in present else None,
                limits={SSLSOCK: LIMIT_KIB},
            )
            for number in range(options.rounds):
                for peer in harness.rotated(present, number):
                    value = None
                    with report.forgiving(peer):
                        value = kib_per_client(peer, target, tls, count)
                    measure.add(peer, value)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
