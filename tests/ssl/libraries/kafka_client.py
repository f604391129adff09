"""kafka-python: `ssl_context=context`, or `ssl_cafile=` with `install()`."""

from common import CA_FILE, HOW, NAME, client_context, outcome, report, scripted, switch
from peers import serve_kafka
import kafka

switch()

given = {"ssl_cafile": CA_FILE} if HOW in ("install", "late") else {"ssl_context": client_context()}
with scripted(serve_kafka) as (port, served):
    ended = outcome(
        lambda: kafka.KafkaProducer(
            bootstrap_servers=f"{NAME}:{port}", security_protocol="SSL", bootstrap_timeout_ms=2000, **given
        )
    )
report(first=served[:1], ended=ended[:1])
