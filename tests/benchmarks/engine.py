"""TLS over memory: `sslsock.Engine` beside libssl called from C, `ssl.SSLObject` and pyOpenSSL.

Bulk, 64 B to 1 MiB. Inside the timer: a client encrypts the bytes, what comes out is handed to a server,
which decrypts it into memory that is used again (`sslsock, bytes`: into new bytes objects, as most programs
would); over and over, in one thread. Not inside: handshake, sockets, a kernel. The value is plaintext per CPU
second, both sides together.

Handshakes, full and resumed, both sides. Inside the timer: two connections are made, shake hands, the client
verifies certificate and name (pyOpenSSL: the certificate only) and reads the session tickets, both are
dropped. Not inside: contexts, loading of certificates.

The yardstick is engine_limit.c: the same calls in C over OpenSSL's own memory BIOs, compiled here when there
is a compiler with OpenSSL's headers, and used when it comes to run with the same OpenSSL as sslsock.

--instructions: instead of time, instructions per record and per handshake, as `valgrind --tool=callgrind`
counts them: two runs of different length, the difference divided. What runs outside of those rounds cancels
out, and what else the machine does has no influence; but an instruction is not a nanosecond, and valgrind's
processor lacks the newest vector units. Takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional

import harness
from harness import CIPHER, FOLDER, GROUP, LIMIT, Report

SIZES = (64, 256, 1024, 4096, 16384, 65536, 262144, 1 << 20)
QUICK_SIZES = (64, 1024, 16384)
TARGETS = {1024: 0.90, 16384: 0.98}
SHAKES = {0: "full handshakes", 1: "resumed handshakes"}


def size_name(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB" if size >= 1024 else f"{size} B"


# The peers. Each has bulk(size, count) and shake(resume, count), which return CPU seconds, and agreed(): cipher.


class Sslsock:
    def __init__(self) -> None:
        import sslsock

        chain = sslsock.SslCertificate.from_path(FOLDER / "server.pem")
        settings: dict[str, Any] = {"minimum_protocol": 0x0304, "ciphersuites": CIPHER, "groups": GROUP}
        self.make_engine = sslsock.Engine
        self.client_context = sslsock.Context(
            server_side=False,
            ca_certificates=sslsock.SslCertificate.from_path(FOLDER / "ca.pem"),
            use_system_ca=False,
            **settings,
        )
        self.server_context = sslsock.Context(
            server_side=True,
            certificate=chain[0],
            certificate_chain=chain[1:],
            private_key=sslsock.SslKey((FOLDER / "server.key").read_bytes()),
            verify_mode=0,
            **settings,
        )

    def pair(self, session_key: Optional[str] = None) -> tuple[Any, Any]:
        client = self.make_engine(
            self.client_context, server_name="localhost", verify_name="localhost", session_key=session_key
        )
        server = self.make_engine(self.server_context)
        server.decrypt(client.start())
        client.decrypt(server.take())
        server.decrypt(client.take())
        client.decrypt(server.take())  # the tickets
        return client, server

    def agreed(self) -> str:
        client, server = self.pair()
        assert client.handshake_done and server.handshake_done
        return str(client.cipher)

    def bulk(self, size: int, count: int) -> float:
        client, server = self.pair()
        data, room = b"\7" * size, bytearray(size)
        encrypt, decrypt_into = client.encrypt, server.decrypt_into
        begin = time.process_time()
        for _ in range(count):
            got = decrypt_into(encrypt(data), room)
        spent = time.process_time() - begin
        assert got == size
        return spent

    def shake(self, resume: int, count: int) -> float:
        session_key = "the server" if resume else None
        self.pair(session_key)
        begin = time.process_time()
        for _ in range(count):
            client, _server = self.pair(session_key)
        spent = time.process_time() - begin
        assert client.session_reused == bool(resume)
        return spent


class SslsockBytes(Sslsock):
    def bulk(self, size: int, count: int) -> float:
        client, server = self.pair()
        data = b"\7" * size
        encrypt, decrypt = client.encrypt, server.decrypt
        begin = time.process_time()
        for _ in range(count):
            got = decrypt(encrypt(data))
        spent = time.process_time() - begin
        assert len(got) == size
        return spent


class Standard:
    """`ssl.SSLObject`; both share the two memory BIOs, so that no byte passes through Python."""

    def __init__(self) -> None:
        import ssl

        self.client_context = harness.client_context()
        self.server_context = harness.server_context()
        self.MemoryBIO, self.WantRead = ssl.MemoryBIO, ssl.SSLWantReadError

    def pair(self, session: Any = None) -> tuple[Any, Any]:
        up, down = self.MemoryBIO(), self.MemoryBIO()
        client = self.client_context.wrap_bio(down, up, server_hostname="localhost", session=session)
        server = self.server_context.wrap_bio(up, down, server_side=True)
        left = [client, server]
        while left:
            for side in tuple(left):
                try:
                    side.do_handshake()
                    left.remove(side)
                except self.WantRead:
                    pass
        with contextlib.suppress(self.WantRead):
            client.read(1)  # the tickets
        return client, server

    def agreed(self) -> str:
        return str(self.pair()[0].cipher()[0])

    def bulk(self, size: int, count: int) -> float:
        client, server = self.pair()
        data, room = b"\7" * size, bytearray(size)
        write, read = client.write, server.read
        begin = time.process_time()
        for _ in range(count):
            write(data)
            got = 0
            while got < size:
                got += read(size - got, room)
        return time.process_time() - begin

    def shake(self, resume: int, count: int) -> float:
        client, _server = self.pair()
        begin = time.process_time()
        for _ in range(count):
            client, _server = self.pair(client.session if resume else None)
        spent = time.process_time() - begin
        assert client.session_reused == bool(resume)
        return spent


class PyOpenSsl:
    def __init__(self) -> None:
        from OpenSSL import SSL

        self.client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.client_context.load_verify_locations(str(FOLDER / "ca.pem"))
        self.client_context.set_verify(SSL.VERIFY_PEER)
        self.server_context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.server_context.use_certificate_chain_file(str(FOLDER / "server.pem"))
        self.server_context.use_privatekey_file(str(FOLDER / "server.key"))
        self.server_context.set_session_id(b"x")
        self.Connection, self.WantRead = SSL.Connection, SSL.WantReadError

    def move(self, source: Any, target: Any) -> None:
        try:
            while True:
                target.bio_write(source.bio_read(1 << 18))
        except self.WantRead:
            pass

    def pair(self, session: Any = None) -> tuple[Any, Any]:
        client, server = self.Connection(self.client_context), self.Connection(self.server_context)
        client.set_connect_state()
        server.set_accept_state()
        client.set_tlsext_host_name(b"localhost")
        client.set_verify(1)
        if session is not None:
            client.set_session(session)
        left = [(client, server), (server, client)]
        while left:
            for side, other in tuple(left):
                try:
                    side.do_handshake()
                    left.remove((side, other))
                except self.WantRead:
                    pass
                self.move(side, other)
        with contextlib.suppress(self.WantRead):
            client.recv(1)
        return client, server

    def agreed(self) -> str:
        return str(self.pair()[0].get_cipher_name())

    def bulk(self, size: int, count: int) -> float:
        client, server = self.pair()
        data, room = b"\7" * size, bytearray(size)
        begin = time.process_time()
        for _ in range(count):
            client.sendall(data)
            self.move(client, server)
            got = 0
            while got < size:
                got += server.recv_into(room)
        return time.process_time() - begin

    def shake(self, resume: int, count: int) -> float:
        client, _server = self.pair()
        begin = time.process_time()
        for _ in range(count):
            client, _server = self.pair(client.get_session() if resume else None)
        return time.process_time() - begin


class Limit:
    """engine_limit.c, in a process of its own that measures itself."""

    program = FOLDER / "engine_limit"

    def agreed(self) -> str:
        return self.run("bulk", 64, 1)[1]

    def bulk(self, size: int, count: int) -> float:
        return float(self.run("bulk", size, count)[0])

    def shake(self, resume: int, count: int) -> float:
        words = self.run("handshake", resume, count)
        assert int(words[2]) == resume * count
        return float(words[0])

    def run(self, what: str, argument: int, count: int) -> list[str]:
        command = [str(self.program), str(FOLDER), what, str(argument), str(count)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


PEERS = {
    LIMIT: Limit,
    "sslsock": Sslsock,
    "sslsock, bytes": SslsockBytes,
    "ssl": Standard,
    "pyOpenSSL": PyOpenSsl,
}


def available_peers(report: Report) -> dict[str, Any]:
    """The peers that are there and agree on the common cipher suite."""
    found: dict[str, Any] = {}
    for name, make in PEERS.items():
        if name == LIMIT and harness.compile_limit("engine_limit", report) is None:
            continue
        if name == "pyOpenSSL":
            missing = harness.installed(("OpenSSL",))
            if missing:
                report.leave_out(name, f"no {missing}")
                continue
            from OpenSSL import SSL

            report.add_version("pyOpenSSL", harness.version_of("pyOpenSSL"))
            report.add_version("OpenSSL of pyOpenSSL", SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode())
        peer = make()
        agreed = peer.agreed()
        if agreed == CIPHER:
            found[name] = peer
        else:
            report.leave_out(name, f"it agrees on {agreed}")
    return found


def compare(report: Report, quick: bool, rounds: int) -> None:
    peers = available_peers(report)
    report.head()
    baseline = LIMIT if LIMIT in peers else "ssl"
    wanted = ("sslsock", "sslsock, bytes") if baseline == LIMIT else ()
    bulk = {
        size: report.measure(
            size_name(size),
            "MiB per CPU second",
            less=False,
            baseline=baseline,
            targets=dict.fromkeys(wanted, TARGETS[size]) if size in TARGETS else {},
        )
        for size in (QUICK_SIZES if quick else SIZES)
    }
    shakes = {resume: report.measure(name, "per CPU second", less=False, baseline=baseline) for resume, name in SHAKES.items()}
    with harness.no_collection():
        for number in range(-1 if not quick else 0, rounds):  # the first round warms up
            for size, measure in bulk.items():
                count = max(1, min(60_000, (128 << 20) // size) // (200 if quick else 4 if number < 0 else 1))
                for name, peer in harness.rotated(list(peers.items()), number):
                    spent = peer.bulk(size, count)
                    if number >= 0:
                        measure.add(name, size * count / spent / (1 << 20))
            for resume, measure in shakes.items():
                count = 5 if quick else 200
                for name, peer in harness.rotated(list(peers.items()), number):
                    if name == "sslsock, bytes":
                        continue  # its handshakes are the same
                    spent = peer.shake(resume, count)
                    if number >= 0:
                        measure.add(name, count / spent)


# Instructions


def instructions(name: str, what: str, argument: int, count: int) -> int:
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}"]
    if name == LIMIT:
        command += [str(Limit.program), str(FOLDER), what, str(argument), str(count)]
    else:
        work = ["--work", name, what, str(argument), str(count)]
        command += [sys.executable, str(Path(__file__).resolve()), *work]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"valgrind has failed:\n{done.stderr[-2000:]}")
    return int(found[1])


def compare_instructions(report: Report, quick: bool, rounds: int) -> None:
    peers = [name for name in available_peers(report) if name != "pyOpenSSL"]
    if shutil.which("valgrind") is None:
        report.leave_out("--instructions", "no valgrind")
        peers = []
    report.head()
    works = [("bulk", size, f"one write and read of {size_name(size)}") for size in QUICK_SIZES]
    works += [("handshake", resume, name) for resume, name in SHAKES.items()]
    if quick:
        works, peers = works[1:2], peers[:2]
    for what, argument, title in works:
        measure = report.measure(
            title,
            "instructions",
            less=True,
            baseline=LIMIT if LIMIT in peers else "ssl",
        )
        count = 1000 if what == "bulk" else 10
        for _ in range(rounds):
            for name in peers:
                if not (what == "handshake" and name == "sslsock, bytes"):
                    longer = instructions(name, what, argument, 2 * count)
                    measure.add(name, (longer - instructions(name, what, argument, count)) / count)


def main() -> int:
    parser = harness.arguments(__doc__ or "", rounds=7)
    parser.add_argument("--instructions", action="store_true", help="count instructions with valgrind")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = harness.begin(parser)
    if options.work:
        name, what, argument, count = options.work
        with harness.no_collection():
            peer = PEERS[name]()
            (peer.bulk if what == "bulk" else peer.shake)(int(argument), int(count))
        return 0
    if options.instructions:
        if options.rounds == parser.get_default("usual_rounds"):
            options.rounds = 1  # the counts hardly differ from run to run
        report = Report("engine over memory, instructions", options)
        compare_instructions(report, options.quick, options.rounds)
    else:
        report = Report("engine over memory", options)
        compare(report, options.quick, options.rounds)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
