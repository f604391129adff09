"""Threads: one connection read and written by two at once, and contexts that change while others use them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tls_pairs import NAME, Files, connected, python

from sslsock import ssl


def together(*tasks: Callable[[], object]) -> None:
    """Run each in a thread; what one raises fails the test."""
    raised: list[BaseException] = []

    def run(task: Callable[[], object]) -> None:
        try:
            task()
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def pieces(total: int, seed: int) -> list[int]:
    chosen = random.Random(seed)
    sizes = []
    while total > 0:
        sizes.append(min(total, chosen.choice([1, 100, 1460, 16384, 16385, 65536, 300_000, 1_000_000])))
        total -= sizes[-1]
    return sizes


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_two_threads_move_much_both_ways(files: Files, version: str) -> None:
    """Each end is read by one thread and written by another, in all sizes of pieces."""
    client, server = files.client(ssl), files.server(ssl)
    client.maximum_version = ssl.TLSVersion[version]
    total = 100 << 20
    block = random.Random(1).randbytes(2_000_000)
    sums = {}

    def send(end: Any, seed: int) -> None:
        digest = hashlib.blake2b()
        for size in pieces(total, seed):
            end.sendall(memoryview(block)[seed : seed + size])
            digest.update(memoryview(block)[seed : seed + size])
        sums["sent", seed] = digest.digest()

    def receive(end: Any, seed: int) -> None:
        digest = hashlib.blake2b()
        memory = bytearray(256 << 10)
        left = total
        chosen = random.Random(seed)
        while left:
            count = end.recv_into(memory, min(left, chosen.choice([1000, 16384, len(memory)])))
            assert count, "the end came too early"
            digest.update(memoryview(memory)[:count])
            left -= count
        sums["received", seed] = digest.digest()

    with connected(client, server) as (one, other):
        together(lambda: send(one, 1), lambda: receive(other, 1), lambda: send(other, 2), lambda: receive(one, 2))
        assert sums["sent", 1] == sums["received", 1]
        assert sums["sent", 2] == sums["received", 2]


def test_a_request_is_written_while_tickets_are_read(files: Files) -> None:
    """RFC 8446, 4.6.1: they come right behind the handshake, when a library's reading thread waits already and its first
    request is on the way. With CPython's module it is lost half the time, both being in libssl at once (gh-143756)."""
    client, server = files.client(ssl), files.server(ssl)
    server.num_tickets = 8
    for _ in range(150):
        with connected(client, server) as (one, other):
            answers: list[bytes] = []
            together(
                lambda end=one, answers=answers: answers.append(end.recv(100)),  # type: ignore[misc]
                lambda end=one: end.sendall(b"request"),  # type: ignore[misc]
                lambda end=other: end.sendall(b"answer to " + end.recv(100)),  # type: ignore[misc]
            )
            assert answers == [b"answer to request"]


def handshake(client: Any, server: Any) -> None:
    """A connection in one thread, of which a few bytes come through."""
    left, right = socket.socketpair()
    one = client.wrap_socket(left, server_hostname=NAME, do_handshake_on_connect=False)
    other = server.wrap_socket(right, server_side=True, do_handshake_on_connect=False)
    with one, other:
        waiting = [one, other]
        for end in waiting:
            end.setblocking(False)
        while waiting:
            for end in list(waiting):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                    waiting.remove(end)
        one.setblocking(True)
        other.setblocking(True)
        one.sendall(b"hello")
        assert other.recv(100) == b"hello"


def test_contexts_change_while_200_threads_use_them(files: Files, tmp_path: Any) -> None:
    """What a handshake reads of a context is never freed below it, and each works with the one or the other setting."""
    client, server = files.client(ssl), files.server(ssl)
    log = tmp_path / "keys"
    pem = files.ca.cert_pem.bytes().decode()
    changes: list[Callable[[Any, int], object]] = [
        lambda context, turn: context.set_ciphers(["ECDHE+AESGCM", "ALL:@SECLEVEL=1", "DEFAULT"][turn % 3]),
        lambda context, turn: context.set_alpn_protocols([["h2"], ["a" * 200, "h2"] * 2, ["http/1.1"]][turn % 3]),
        lambda context, turn: server.load_cert_chain(files.server_file),
        lambda context, turn: setattr(context, "verify_flags", [ssl.VERIFY_DEFAULT, ssl.VERIFY_X509_TRUSTED_FIRST][turn % 2]),
        lambda context, turn: setattr(server, "sni_callback", [None, lambda *_: None][turn % 2]),
        lambda context, turn: setattr(context, "_msg_callback", [None, lambda *_: None][turn % 2]),
        lambda context, turn: setattr(context, "keylog_filename", [None, log][turn % 2]),
        lambda context, turn: setattr(client, "maximum_version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3][turn % 2]),
        lambda context, turn: setattr(context, "options", context.options ^ ssl.OP_NO_TICKET),
        lambda context, turn: context.load_verify_locations(files.ca_file),
        lambda context, turn: context.load_verify_locations(cadata=pem),
        lambda context, turn: (context.get_ca_certs(), context.cert_store_stats(), context.get_ciphers()),
    ]
    finished = threading.Event()

    def change() -> None:
        turn = 0
        while not finished.is_set():
            for one in changes:
                one((client, server)[turn % 2], turn // 2)
            turn += 1

    def use() -> None:
        for _ in range(10):
            handshake(client, server)

    changer = threading.Thread(target=change, daemon=True)
    changer.start()
    try:
        together(*[use] * 200)
    finally:
        finished.set()
        changer.join()


@pytest.mark.parametrize("setting", ["ciphers", "key log", "authorities"])
def test_a_setting_changes_below_a_handshake(files: Files, setting: str) -> None:
    """One setting at a time, as fast as it goes: in a process of its own, for a fault would end it."""
    assert (
        python(
            """
            import os, sys, threading
            sys.path[:0] = sys.argv[3:5]
            from sslsock import ssl
            from test_ssl_threads import handshake, together

            setting, folder = sys.argv[1:3]
            def server():
                made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                made.load_cert_chain(os.path.join(folder, "server.pem"))
                return made
            client, serving = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), server()
            client.load_verify_locations(os.path.join(folder, "ca.pem"))
            finished = threading.Event()
            def change():
                while not finished.is_set():
                    if setting == "ciphers":
                        client.set_ciphers("ECDHE+AESGCM"), serving.set_ciphers("ECDHE+AESGCM")
                    elif setting == "key log":
                        for name in os.devnull, None:
                            client.keylog_filename = serving.keylog_filename = name
                    else:
                        client.load_verify_locations(os.path.join(folder, "ca.pem"))
                        client.get_ca_certs()
            changer = threading.Thread(target=change, daemon=True)
            changer.start()
            together(*[lambda: [handshake(client, serving) for _ in range(50)]] * 20)
            finished.set()
            changer.join()
            print("done")
            """,
            setting,
            files.ca_file.parent,
            os.path.dirname(__file__),
            os.path.dirname(os.path.dirname(__file__)),
        )
        == "done\n"
    )


def test_a_key_log_gets_whole_lines_and_no_other_file_any(files: Files, tmp_path: Any) -> None:
    """The log goes on and off, and its descriptor's number to another file, while handshakes write."""
    client, server = files.client(ssl), files.server(ssl)
    log, other = tmp_path / "keys", tmp_path / "other"
    finished = threading.Event()

    def change() -> None:
        while not finished.is_set():
            client.keylog_filename = log
            client.keylog_filename = None
            with open(other, "ab"):  # has the number that was the log's
                pass

    changer = threading.Thread(target=change, daemon=True)
    changer.start()
    try:
        together(*[lambda: [handshake(client, server) for _ in range(30)]] * 10)
    finally:
        finished.set()
        changer.join()
    assert other.read_bytes() == b""
    for line in log.read_text().splitlines():
        assert line.startswith("#") or len(line.split()) == 3, line


def test_threads_that_write_at_once_mix_no_writes(files: Files) -> None:
    """Also when signals interrupt one of them: what it has begun is not taken for the other's."""
    client, server = files.client(ssl), files.server(ssl)
    sizes = {b"a": 700_000, b"b": 900_001}
    with connected(client, server) as (one, other):
        writers = [threading.Thread(target=lambda: [one.sendall(b"b" * sizes[b"b"]) for _ in range(20)], daemon=True)]
        counts = {b"a": 0, b"b": 0}

        def receive() -> None:
            left = 20 * sum(sizes.values())
            while left:
                data = other.recv(65536)
                assert data
                for letter in counts:
                    counts[letter] += data.count(letter)
                left -= len(data)

        reader = threading.Thread(target=receive, daemon=True)
        before = signal.signal(signal.SIGALRM, lambda *_: None)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            for thread in (*writers, reader):
                thread.start()
            for _ in range(20):
                one.sendall(b"a" * sizes[b"a"])  # in the main thread, which the signals interrupt
            for thread in writers:
                thread.join()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        reader.join()
    assert counts == {letter: 20 * size for letter, size in sizes.items()}


def unwrap_while_reading(files: Files) -> None:
    with connected(files.client(ssl), files.server(ssl)) as (one, other):
        reading = threading.Event()

        def read() -> None:
            reading.set()
            with contextlib.suppress(OSError, ValueError):
                while one.recv(10):
                    pass

        def end() -> None:
            reading.wait()
            with contextlib.suppress(OSError, ValueError):
                one.unwrap()

        def answer() -> None:
            other.sendall(b"some data" * 10)
            with contextlib.suppress(OSError):
                while other.recv(100):
                    pass
                other.unwrap()

        together(read, end, answer)


def test_unwrap_while_another_thread_reads(files: Files) -> None:
    for _ in range(30):
        unwrap_while_reading(files)
