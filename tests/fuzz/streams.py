"""What the seeded fuzzers send: an endless text whose every place is known, so that a byte lost, doubled or moved shows."""

from __future__ import annotations

import random

# A prime length, so that no period of records, pieces or buffers falls together with it.
TEXT = random.Random(1).randbytes(65521)


class Mistake(Exception):
    """What handlers raise on purpose."""


def text(stream: int, position: int, count: int) -> bytes:
    """`count` bytes of a stream from `position` on."""
    start = (stream * 7919 + position) % len(TEXT)
    whole = TEXT[start:] + TEXT * (count // len(TEXT) + 1)
    return whole[:count]


def check_text(stream: int, position: int, data: bytes, who: str) -> None:
    """AssertionError unless `data` is what stands at `position`."""
    wanted = text(stream, position, len(data))
    if data != wanted:
        at = next(i for i, (a, b) in enumerate(zip(data, wanted)) if a != b)
        found = TEXT.find(data[at : at + 24])
        place = f"it stands at {found} of the text" if found >= 0 else "it is none of it"
        raise AssertionError(f"{who}: byte {position + at} of the stream is not what was written ({place})")


def check_records(data: bytes, who: str) -> None:
    """AssertionError unless `data` is TLS records, the last one perhaps cut short (RFC 8446, 5.1)."""
    at = 0
    while at + 5 <= len(data):
        kind, major, size = data[at], data[at + 1], int.from_bytes(data[at + 3 : at + 5], "big")
        if not 20 <= kind <= 24 or major != 3 or size > 16384 + 2048:
            raise AssertionError(f"{who}: {data[at : at + 16]!r}, no TLS record, was sent after encryption was asked for")
        at += 5 + size
