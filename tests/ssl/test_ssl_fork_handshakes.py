"""A fork while other threads are in handshakes: it waits until they are out of libssl, for in the child nobody would ever open
the locks that they held there (those of OpenSSL's random numbers, for one). With the interpreter's `ssl` such children hang at
times.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from test_ssl_fork import in_child
from test_ssl_threads import handshake
from tls_pairs import NAME, Files, connected

from sslsock import Context, Engine, SslCertificate, SslKey, ssl

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
FORKS = 400 if os.environ.get("SSLSOCK_FULL") else 40
amid_threads = pytest.mark.skipif(
    bool(os.environ.get("SSLSOCK_SANITIZE")), reason="AddressSanitizer's own locks are not made anew in a child"
)


@contextlib.contextmanager
def at_work(task: Any, threads: int = 4) -> Iterator[None]:
    """`task` again and again, each time in a thread of its own: a new one takes more of OpenSSL's locks."""
    finished = threading.Event()
    failed: list[BaseException] = []

    def once() -> None:
        try:
            task()
        except BaseException as exc:
            failed.append(exc)

    def run() -> None:
        while not finished.is_set():
            thread = threading.Thread(target=once)
            thread.start()
            thread.join()

    task()  # what is imported at the first time is not to be half done in a child
    running = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for one in running:
        one.start()
    try:
        yield
    finally:
        finished.set()
        for one in running:
            one.join()
    assert not failed


@amid_threads
def test_children_of_forks_amid_handshakes(files: Files) -> None:
    client, server = files.client(ssl), files.server(ssl)

    def task() -> None:
        client.set_ciphers("ECDHE+AESGCM")
        client.load_verify_locations(files.ca_file)
        handshake(client, server)
        handshake(files.client(ssl), files.server(ssl))

    with at_work(lambda: handshake(client, server)):
        for _ in range(FORKS):
            in_child(task)


def shake(client: Context, server: Context) -> None:
    one, other = Engine(client, server_name=NAME, verify_name=NAME), Engine(server)
    other.start()
    data = one.start()
    while not (one.handshake_done and other.handshake_done):
        other.decrypt(data)
        one.decrypt(other.take())
        data = one.take()


@amid_threads
def test_the_same_for_engines(files: Files) -> None:
    chain = SslCertificate.from_path(str(files.server_file))
    key = SslKey(files.server_file.read_bytes(), algorithm=None)
    server = Context(server_side=True, certificate=chain[0], certificate_chain=chain[1:], private_key=key, verify_mode=0)
    client = Context(server_side=False, ca_certificates=SslCertificate.from_path(str(files.ca_file)), use_system_ca=False)
    with at_work(lambda: shake(client, server)):
        for _ in range(FORKS):
            in_child(lambda: shake(client, server))


def test_programs_start_amid_handshakes(files: Files) -> None:
    """A child that runs another program waits for nobody, and has no descriptor of ours, unless it was given one."""
    client, server = files.client(ssl), files.server(ssl)
    program = """
import os, sys
os.write(int(sys.argv[1]), b"given")
listed = os.listdir("/proc/self/fd")
print(*(number for number in listed if int(number) > 2 and os.path.exists("/proc/self/fd/" + number)))
"""
    with at_work(lambda: handshake(client, server)):
        for _ in range(5):
            near, far = socket.socketpair()
            with near, far:
                given = far.fileno()
                command = [sys.executable, "-c", program, str(given)]
                done = subprocess.run(command, pass_fds=[given], capture_output=True, timeout=60)
                assert done.returncode == 0, done.stderr
                assert near.recv(10) == b"given"
                assert done.stdout.decode().split() == [str(given)]


def test_a_connection_whose_descriptor_a_program_has_inherited(files: Files) -> None:
    """It stays open there after we have closed it, so the peer is told by close_notify, not by the end of the socket."""
    with connected(files.client(ssl), files.server(ssl)) as (one, other):
        os.set_inheritable(one.fileno(), True)
        program = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        with subprocess.Popen(program, stdin=subprocess.PIPE, close_fds=False) as child:
            one.sendall(b"data")
            assert other.recv(10) == b"data"
            thread = threading.Thread(target=lambda: other.recv(10) or other.unwrap(), daemon=True)
            thread.start()
            one.unwrap().close()
            thread.join()
            assert child.poll() is None
            other.settimeout(0)
            with pytest.raises(BlockingIOError):
                other.recv(1)
            child.communicate()
        other.settimeout(20)
        assert other.recv(1) == b""


@pytest.mark.parametrize("place", ["sni_callback", "_msg_callback"])
def test_a_fork_in_a_callback(files: Files, place: str) -> None:
    """The child is inside the same call: there the connection is in use, as in the parent, and others are not. What it goes on
    with is the child's own."""
    server = files.server(ssl)
    forked: list[None] = []

    def callback(connection: Any, *_: Any) -> None:
        if forked:
            return
        forked.append(None)

        def task() -> None:
            with pytest.raises(RuntimeError, match="in use by the callback"):
                connection.read(1)
            handshake(files.client(ssl), server)
            server.set_ciphers("ECDHE+AESGCM")

        in_child(task)

    setattr(server, place, callback)
    with connected(files.client(ssl), server) as (one, other):
        one.sendall(b"works")
        assert other.recv(10) == b"works"
    assert forked


def test_a_child_that_returns_from_the_callback(files: Files) -> None:
    """It ends the handshake, in the place of the parent, which waits for it and then gives up."""
    server = files.server(ssl)
    child: list[int] = []
    status: list[int] = []

    def callback(*_: Any) -> Any:
        child.append(os.fork())
        if child[0] == 0:
            return None
        status.append(os.waitstatus_to_exitcode(os.waitpid(child[0], 0)[1]))
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    server.sni_callback = callback
    left, right = socket.socketpair()
    said: list[Any] = []

    def use() -> None:
        with files.client(ssl).wrap_socket(left, server_hostname=NAME) as client:
            client.sendall(b"to whoever is there")
            said.append(client.recv(100))

    thread = threading.Thread(target=use, daemon=True)
    with left, server.wrap_socket(right, server_side=True, do_handshake_on_connect=False) as end:
        thread.start()
        try:
            failed = False
            try:
                end.do_handshake()
            except OSError:
                failed = True
            assert failed == (child[0] != 0)
            if child[0] == 0:
                assert end.recv(100) == b"to whoever is there"
                end.sendall(b"the child")
                os._exit(0)
        finally:
            if child and child[0] == 0:
                os._exit(1)
        thread.join()
    assert (status, said) == ([0], [b"the child"])
