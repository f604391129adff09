"""What the end of a session is called: every stage, side and kind of failure; and every failure that the core can tell."""

from __future__ import annotations

import errno
from typing import Optional

import pytest

from sslsock.core import channel, relay
from sslsock.proxy.observability import record, stages
from sslsock.proxy.observability.stages import handshake_result, kind_of_errno, kind_of_failure, reason_of, reason_of_relay_end

STAGES = ("header", "hello", "handshake", "dialing", "greeting", "relaying", "over")
KINDS = ("reset", "network", "timed_out", "closed", "truncated", "tls", "certificate", "late", "resource", "aborted")

# A dash: it cannot happen there, and would be a bug of the proxy's.
CLIENT = """
            header               hello              handshake                   dialing       greeting      relaying
reset       client_reset         client_reset       client_reset                client_reset  -             client_reset
network     client_reset         client_reset       client_reset                client_reset  -             client_reset
timed_out   client_reset         client_reset       client_reset                client_reset  -             client_reset
closed      bad_proxy_header     handshake_failed   handshake_failed            -             -             ended
truncated   -                    -                  -                           -             -             truncated
tls         -                    handshake_failed   handshake_failed            tls_failed    -             tls_failed
certificate -                    -                  client_certificate_refused  -             -             -
late        proxy_header_timeout handshake_timeout  handshake_timeout           -             -             idle_timeout
resource    -                    -                  -                           -             -             -
aborted     -                    -                  -                           -             -             aborted
"""
BACK_END = """
            header  hello  handshake  dialing          greeting                  relaying
reset       -       -      -          no_backend       backend_handshake_failed  backend_reset
network     -       -      -          no_backend       backend_handshake_failed  backend_reset
timed_out   -       -      -          connect_timeout  connect_timeout           backend_reset
closed      -       -      -          -                backend_handshake_failed  ended
truncated   -       -      -          -                -                         truncated
tls         -       -      -          -                backend_handshake_failed  tls_failed
certificate -       -      -          -                -                         -
late        -       -      -          connect_timeout  connect_timeout           idle_timeout
resource    -       -      -          -                -                         -
aborted     -       -      -          -                -                         aborted
"""


def rows(table: str) -> list[tuple[int, int, str]]:
    """(stage, kind, reason) of every cell."""
    head, *lines = (line.split() for line in table.strip("\n").splitlines())
    assert tuple(head) == STAGES[:-1] and tuple(line[0] for line in lines) == KINDS
    return [
        (getattr(stages, stage.upper()), getattr(stages, kind.upper()), "internal_error" if word == "-" else word)
        for kind, *words in lines
        for stage, word in zip(head, words)
    ]


@pytest.mark.parametrize("of_client", [True, False], ids=["client", "back end"])
def test_every_kind_of_failure_has_a_name_in_every_stage(of_client: bool) -> None:
    cells = rows(CLIENT if of_client else BACK_END)
    assert len(cells) == len(KINDS) * (len(STAGES) - 1)
    for stage, kind, reason in cells:
        assert reason_of(stage, kind, of_client) == reason, (STAGES[stage], KINDS[kind])
        assert reason in record.REASONS


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_said_nothing_and_goes_is_a_probe(kind: str) -> None:
    number = getattr(stages, kind.upper())
    for stage in range(stages.RELAYING + 1):
        probe = stage <= stages.HELLO and kind in ("reset", "network", "timed_out", "closed")
        assert (reason_of(stage, number, silent=True) == "probe") == probe, STAGES[stage]
        if not probe:
            assert reason_of(stage, number, silent=True) == reason_of(stage, number)


RESULTS = {
    **dict.fromkeys(("reset", "network", "timed_out", "closed", "tls"), "failed"),
    "certificate": "refused",
    "late": "timeout",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", range(stages.OVER + 1))
def test_a_handshake_that_has_begun_has_a_result(kind: str, stage: int) -> None:
    number = getattr(stages, kind.upper())
    begun = stage in (stages.HELLO, stages.HANDSHAKE)
    assert handshake_result(stage, number) == (RESULTS.get(kind) if begun else None)
    expected: Optional[str] = "timeout" if begun and kind == "late" else None  # a probe makes none
    assert handshake_result(stage, number, silent=True) == expected


def told_by(module: object, prefix: str) -> dict[str, int]:
    told = {name: value for name, value in vars(module).items() if name.startswith(prefix)}
    assert len(told) == 8
    return told


def test_every_failure_that_a_channel_tells_is_known() -> None:
    for name, value in told_by(channel, "FAILURE_").items():
        assert 0 <= kind_of_failure(value) < len(KINDS), name


@pytest.mark.parametrize("of_client", [True, False], ids=["client", "back end"])
def test_every_end_that_a_relay_tells_is_known(of_client: bool) -> None:
    kinds = {"ended": "closed", "idle": "late"}  # where a relay has another word for it
    for name, value in told_by(relay, "RELAY_").items():
        word = name[len("RELAY_") :].lower()
        kind = getattr(stages, kinds.get(word, word).upper())
        assert reason_of_relay_end(value, of_client) == reason_of(stages.RELAYING, kind, of_client), name


def test_why_a_connection_could_not_be_made() -> None:
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        assert kind_of_errno(number) == stages.RESOURCE
    assert kind_of_errno(errno.ETIMEDOUT) == stages.TIMED_OUT
    for number in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EPERM):
        assert kind_of_errno(number) == stages.NETWORK
