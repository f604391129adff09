"""libssl's record buffers, 33 KiB a connection: the few busy connections keep theirs, all others own none."""

from __future__ import annotations

import ctypes
import os
import threading
import tracemalloc
from typing import Any

import pytest
from tls_pairs import Files, connected, in_memory

from sslsock import ssl

SEATS = 64  # include/record_buffers.h
ROTATION = 8 * SEATS  # uses of others after which a connection counts as quiet
BOTH = 33 << 10


class MallocInfo(ctypes.Structure):
    """mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
if mallinfo2 is not None:
    mallinfo2.restype = MallocInfo
counted = pytest.mark.skipif(
    mallinfo2 is None or "libasan" in os.environ.get("LD_PRELOAD", ""), reason="glibc's malloc is not what is used"
)


def in_use() -> int:
    """Bytes."""
    assert mallinfo2 is not None
    found: int = mallinfo2().uordblks
    return found


def exchange(pair: tuple[Any, Any], data: bytes = b"x" * 100) -> None:
    for near, far in (pair, pair[::-1]):
        near.write(data)
        assert far.read(len(data)) == data


def pairs(files: Files, count: int) -> list[tuple[Any, Any]]:
    client, server = files.client(ssl), files.server(ssl)
    made = [in_memory(client, server, ssl) for _ in range(count)]
    for pair in made:
        exchange(pair)  # with it the session tickets
    return made


@counted
def test_many_connections_keep_no_more_than_there_are_seats(files: Files) -> None:
    made = pairs(files, 3 * SEATS)
    before = in_use()
    for pair in made:
        for _ in range(20):
            exchange(pair)
    assert in_use() - before < (SEATS + 2) * BOTH


@counted
def test_connections_that_take_turns_keep_none(files: Files) -> None:
    made = pairs(files, ROTATION)
    before = in_use()
    for _ in range(12):
        for pair in made:
            exchange(pair)
    assert in_use() - before < 8 * BOTH


@counted
def test_a_connection_that_ends_leaves_its_seat(files: Files) -> None:
    before = 0
    for number in range(4 * SEATS):
        (pair,) = pairs(files, 1)
        for _ in range(20):
            exchange(pair)
        del pair
        if number == SEATS:
            before = in_use()
    assert in_use() - before < 4 * BOTH


def occupy(made: list[tuple[Any, Any]]) -> None:
    """Have each take a seat, of others that have been quiet long enough."""
    for _ in range(3):
        for pair in made:
            for _ in range(2 * ROTATION // len(made)):
                exchange(pair)


def test_half_read_records_outlive_a_seat(files: Files) -> None:
    made = pairs(files, 2 * SEATS)
    ours, others = made[:SEATS], made[SEATS:]
    data = bytes(range(256)) * 40
    for near, far in ours:
        for _ in range(20):
            exchange((near, far))
        near.write(data)
        assert far.read(1) == data[:1]
        far.write(data)  # in the MemoryBIO
    occupy(others)
    for near, far in ours:
        assert far.read(len(data)) == data[1:]
        assert near.read(len(data)) == data
        exchange((near, far))


def test_a_child_goes_on_without_seats(files: Files) -> None:
    made = pairs(files, SEATS)
    for pair in made:
        for _ in range(20):
            exchange(pair)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            occupy(made)
            occupy(pairs(files, SEATS))
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    occupy(made)


def test_threads_that_want_each_others_seats(files: Files) -> None:
    client, server = files.client(ssl), files.server(ssl)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with connected(client, server) as (one, other):
                for number in range(300):
                    data = bytes([number % 256]) * (1 + number * 37)
                    one.sendall(data)
                    left = len(data)
                    while left:
                        left -= len(other.recv(left))
            mine = pairs(files, 40)
            for _ in range(6):
                for pair in mine:
                    for _ in range(12):
                        exchange(pair)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_read_takes_room_for_what_there_is(files: Files) -> None:
    """Not for all that was asked for: asyncio asks for 256 KiB, and once more at the end of each message."""
    ((near, far),) = pairs(files, 1)
    near.write(b"hello")
    tracemalloc.start()
    try:
        assert far.read(1 << 28) == b"hello"
        with pytest.raises(ssl.SSLWantReadError):
            far.read(1 << 28)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    near.write(b"more")
    assert far.read(2) + far.read(1 << 28) == b"more"


class Stranger:
    """What a program may put in the place of a connection."""

    def read(self, size: int, buffer: Any = None) -> Any:
        return size if buffer is None else len(buffer)

    def write(self, data: bytes) -> int:
        return len(data) + 1


def test_what_stands_in_the_place_of_a_connection_is_asked(files: Files) -> None:
    ((near, _),) = pairs(files, 1)
    near._sslobj = Stranger()
    assert near.read(7) == 7
    assert near.read(7, bytearray(3)) == 3
    assert near.write(b"four") == 5
    with connected(files.client(ssl), files.server(ssl)) as (one, _):
        one._sslobj, kept = Stranger(), one._sslobj
        try:
            assert one.recv(7) == 7
            assert one.recv_into(bytearray(3)) == 3
            assert one.send(b"four") == 5
        finally:
            one._sslobj = kept
