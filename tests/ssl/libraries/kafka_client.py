"""kafka-python: `ssl_context=context`, or `ssl_cafile=` with `install()`."""

import struct

from common import CA_FILE, HOW, NAME, client_context, outcome, read_exactly, report, scripted, switch
import kafka

switch()


def serve(plain, start_tls):
    """The first request, which asks for the versions of the protocol; what it is answered with ends the connection."""
    stream = start_tls()
    body = read_exactly(stream, struct.unpack("!I", read_exactly(stream, 4))[0])
    return list(struct.unpack("!H", body[:2]))


given = {"ssl_cafile": CA_FILE} if HOW in ("install", "late") else {"ssl_context": client_context()}
with scripted(serve) as (port, served):
    ended = outcome(
        lambda: kafka.KafkaProducer(
            bootstrap_servers=f"{NAME}:{port}", security_protocol="SSL", bootstrap_timeout_ms=2000, **given
        )
    )
report(first=served[:1], ended=ended[:1])
