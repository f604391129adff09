"""`python -m sslsock serve`, as a process, against clients of the ssl module and curl."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Optional

import pytest

from command_helpers import TIMEOUT, Identity, identity, one_line, run, started
from peers import echoed
from sslsock.commands.www import HttpError, parse_request, parse_target

__all__ = ["identity"]

BIG = 24 << 20


class Served:
    """A server that runs, and how to reach it."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, ca: Path) -> None:
        self.process = process
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.context = ssl.create_default_context(cafile=str(ca))

    def connect(self, name: str = "localhost", context: Optional[ssl.SSLContext] = None) -> ssl.SSLSocket:
        raw = socket.create_connection((self.host.strip("[]"), self.port), TIMEOUT)
        return (context or self.context).wrap_socket(raw, server_hostname=name)

    def http(self) -> HTTPSConnection:
        return HTTPSConnection("localhost", self.port, timeout=TIMEOUT, context=self.context)

    def get(self, path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
        with contextlib.closing(self.http()) as connection:
            connection.request(method, path)
            response = connection.getresponse()
            return response, response.read()

    def raw(self, request: bytes) -> bytes:
        """All that comes for these bytes, until the server closes."""
        with self.connect() as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextlib.contextmanager
def serving(folder: Path, *arguments: object, listen: str = "127.0.0.1:0", ca: Optional[Path] = None) -> Iterator[Served]:
    """A server; with its own certificate unless `ca` is given."""
    if ca is None:
        arguments = (*arguments, "--ca-out", folder / "made-ca.pem")
    log = folder / "log"
    with (
        open(log, "wb") as errors,
        started("serve", "--listen", listen, *arguments, lifetime=10 * TIMEOUT, stderr=errors) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith("Serving "), log.read_text()
        yield Served(process, line.rstrip().rpartition(" on ")[2], ca or folder / "made-ca.pem")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to serve, with traps around it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("secret")
    root = outside / "site"
    root.mkdir()
    (root / "a.txt").write_text("hello\n")
    (root / "empty").write_bytes(b"")
    (root / "page.html").write_text("<p>hi")
    (root / "archive.tar.gz").write_bytes(b"\x1f\x8b")
    (root / "big").write_bytes(os.urandom(1 << 20) * (BIG >> 20))
    (root / "with space & <b>").write_text("odd name")
    (root / "sub").mkdir()
    (root / "sub" / "index.html").write_text("index of sub")
    (root / "list").mkdir()
    (root / "list" / "x<y>").write_text("")
    (root / "evil.txt").symlink_to(outside / "secret.txt")
    (root / "evil").symlink_to(outside)
    (root / "good.txt").symlink_to("a.txt")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    (outside / "site-beside").mkdir()
    (outside / "site-beside" / "secret.txt").write_text("secret")
    return root


@pytest.fixture(scope="module")
def www(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("www"), "--www", site) as served:
        yield served


# ---- echo --------------------------------------------------------------------------------------------------


def test_echo_of_more_than_all_buffers(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 16
    with serving(tmp_path, "--echo") as served, served.connect() as connection:
        assert echoed(connection, data) == data
        connection.settimeout(TIMEOUT)
        connection.unwrap()  # raises unless the server says goodbye too


def test_echo_does_not_collect_what_the_peer_does_not_take(tmp_path: Path) -> None:
    with serving(tmp_path, "--echo") as served, served.connect() as connection:
        connection.settimeout(1.0)
        sent = 0
        with pytest.raises(OSError, match="timed out"):
            while sent < 256 << 20:
                sent += connection.send(bytes(1 << 16))
        assert sent < 64 << 20


def test_several_clients_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--echo") as served, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(served.connect()) for _ in range(20)]
        for number, connection in enumerate(connections):
            connection.sendall(b"%d" % number)
        assert [connection.recv(10) for connection in connections] == [b"%d" % number for number in range(20)]


def test_own_certificate_and_key(tmp_path: Path, identity: Identity) -> None:
    arguments = ["--echo", "--cert", identity.cert, "--key", identity.key]
    with serving(tmp_path, *arguments, ca=identity.ca) as served, served.connect() as connection:
        assert ("DNS", "localhost") in connection.getpeercert()["subjectAltName"]  # type: ignore[index]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_the_certificate_made_in_memory_is_good_for_localhost(tmp_path: Path, name: str) -> None:
    with serving(tmp_path, "--echo") as served, served.connect(name) as connection:
        assert connection.version() == "TLSv1.3"
    made = (tmp_path / "made-ca.pem").read_bytes()
    assert made.count(b"BEGIN") == 1
    assert b"PRIVATE" not in made


def test_a_client_that_does_not_trust_is_logged_and_harms_nobody(tmp_path: Path) -> None:
    with serving(tmp_path, "--echo") as served:
        with pytest.raises(ssl.SSLCertVerificationError):
            served.connect(context=ssl.create_default_context())
        with served.connect() as connection:
            connection.sendall(b"still here")
            assert connection.recv(100) == b"still here"
    assert "unknown ca" in (tmp_path / "log").read_text().lower()


def test_ipv6_and_every_address(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on the loopback")
    with serving(tmp_path, "--echo", listen="[::1]:0") as served:
        assert served.host == "[::1]"
        served.connect().close()
    with serving(tmp_path, "--echo", listen="*:0") as served:
        served.host = "127.0.0.1"
        served.connect().close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_connections_open(tmp_path: Path, number: signal.Signals) -> None:
    with started("serve", "--listen", "localhost:0", "--echo", "--ca-out", tmp_path / "ca.pem") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        served = Served(process, process.stdout.readline().decode().split()[-1], tmp_path / "ca.pem")
        with served.connect() as connection:
            connection.sendall(b"x")
            connection.recv(1)
            process.send_signal(number)
            assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == b""


# ---- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/a.txt", "text/plain", b"hello\n"),
        ("/a.txt?query#x", "text/plain", b"hello\n"),
        ("/%61.txt", "text/plain", b"hello\n"),
        ("//a.txt", "text/plain", b"hello\n"),
        ("/./a.txt", "text/plain", b"hello\n"),
        ("/good.txt", "text/plain", b"hello\n"),
        ("/empty", "application/octet-stream", b""),
        ("/page.html", "text/html", b"<p>hi"),
        ("/archive.tar.gz", "application/gzip", b"\x1f\x8b"),
        ("/with%20space%20&%20%3Cb%3E", "application/octet-stream", b"odd name"),
        ("/sub/", "text/html", b"index of sub"),
    ],
)
def test_a_file(www: Served, path: str, kind: str, body: bytes) -> None:
    response, got = www.get(path)
    assert (response.status, response.headers["Content-Type"], got) == (200, kind, body)
    assert response.headers["Content-Length"] == str(len(body))
    response, got = www.get(path, "HEAD")
    assert (response.status, response.headers["Content-Length"], got) == (200, str(len(body)), b"")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/a.txt/",
        "/a.txt/b",
        "/../secret.txt",
        "/../site-beside/secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/sub/%2E%2E/%2E%2E/secret.txt",
        "/evil.txt",
        "/evil/secret.txt",
        "/evil/",
        "/evil",
        "/loop",
        "/pipe",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/%ff%fe",
        "/a.txt%20",
        "/%",
    ],
)
def test_what_is_not_in_the_folder_is_not_found(www: Served, path: str) -> None:
    response, body = www.get(path)
    assert (response.status, body) == (404, b"404 Not Found\n")
    assert response.headers["Content-Length"] == str(len(body))


def test_a_folder_is_listed_and_leads_on(www: Served) -> None:
    response, body = www.get("/list/")
    assert response.status == 200
    assert b'href="./x%3Cy%3E"' in body
    assert b"x&lt;y&gt;" in body
    assert b"x<y>" not in body
    response, _ = www.get("/list")
    assert (response.status, response.headers["Location"]) == (301, "/list/")
    response, _ = www.get("//list")
    assert response.headers["Location"] == "/list/"


def test_a_large_file_arrives_whole_and_is_not_kept_in_memory(site: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--www", site) as served:
        response, body = served.get("/big")
        assert response.status == 200
        assert body == (site / "big").read_bytes()
        # Those who ask and do not read keep nobody else waiting, and cost no more than their buffers.
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                connection = stack.enter_context(served.connect())
                connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
                connection.recv(1)
            assert served.get("/a.txt")[1] == b"hello\n"
            status = Path(f"/proc/{served.process.pid}/status").read_text()
    if "SSLSOCK_SANITIZE" not in os.environ:
        assert int(status.split("VmHWM:")[1].split()[0]) < 80_000, "KiB"


def test_keep_alive_and_pipelining(www: Served) -> None:
    with contextlib.closing(www.http()) as connection:
        sockets = set()
        for _ in range(3):
            connection.request("GET", "/a.txt")
            sockets.add(connection.sock)
            assert connection.getresponse().read() == b"hello\n"
        assert len(sockets) == 1
    one = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = www.raw(one % b"a.txt" + one % b"nothing" + one % b"big" + last)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answers.count(b"HTTP/1.1 404 Not Found\r\n") == 1
    assert answers.endswith(b"Connection: close\r\n\r\nhello\n")
    assert len(answers) > BIG


def test_a_request_in_single_bytes(www: Served) -> None:
    with www.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"\r\nGET /a.txt HTTP/1.0\r\n\r\n":
            connection.sendall(bytes([byte]))
        answer = b"".join(iter(lambda: connection.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhello\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /a.txt HTTP/1.1\r\n\r\n", 400),
        (b"GET /a.txt HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /a.txt\r\n\r\n", 400),
        (b"GET  /a.txt HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET a.txt HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a.txt HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", 400),
        (b"GET /a.txt HTTP/1.1\r\nHost: x\r\nName : x\r\n\r\n", 400),
        (b"GET /a.txt HTTP/1.1\r\nHost: x\r\n folded: x\r\n\r\n", 400),
        (b"G@T /a.txt HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /a.txt HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10000 + b"\r\n", 431),
        (b"POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 405),
    ],
)
def test_a_bad_request_is_answered_once_and_the_connection_ends(www: Served, request_: bytes, status: int) -> None:
    answer = www.raw(request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:100]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in answer


def test_other_methods_are_not_allowed(www: Served) -> None:
    response, _ = www.get("/a.txt", "DELETE")
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_a_nul_in_the_path_is_a_bad_request(www: Served) -> None:
    assert www.get("/a.txt%00.html")[0].status == 400


def test_absolute_form_of_the_target() -> None:
    assert parse_target(b"https://host:1/a%20b?c") == b"/a%20b"
    assert parse_target(b"http://host") == b"/"


def test_keep_alive_rules() -> None:
    host = b"Host: x"
    assert parse_request([b"GET / HTTP/1.1", host]).keep_alive
    assert not parse_request([b"GET / HTTP/1.1", host, b"Connection: foo, Close"]).keep_alive
    assert not parse_request([b"GET / HTTP/1.0"]).keep_alive
    assert parse_request([b"GET / HTTP/1.0", b"Connection: Keep-Alive"]).keep_alive
    assert not parse_request([b"GET / HTTP/1.1", host, b"Content-Length: 1"]).keep_alive
    assert parse_request([b"GET / HTTP/1.1", host, b"Content-Length: 0"]).keep_alive
    with pytest.raises(HttpError):
        parse_request([b"GET / HTTP/1.1", b"Host: x\0"])


def test_a_file_that_shrinks_while_it_is_sent_cuts_the_connection(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "big").write_bytes(bytes(BIG))
    with serving(tmp_path, "--www", site) as served, served.connect() as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        size = len(connection.recv(1000))
        os.truncate(site / "big", 0)
        with contextlib.suppress(OSError):
            while count := len(connection.recv(1 << 16)):
                size += count
        assert size < BIG


def test_curl(www: Served, site: Path, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl")
    url = f"https://localhost:{www.port}"
    www_ca = tmp_path / "ca.pem"
    www_ca.write_text("".join(ssl.DER_cert_to_PEM_cert(der) for der in www.context.get_ca_certs(binary_form=True)))
    arguments = [curl, "-sS", "--cacert", str(www_ca), "-w", "%{http_code} %{num_connects};"]
    outputs = ["-o", str(tmp_path / "1"), "-o", str(tmp_path / "2")]
    result = subprocess.run([*arguments, *outputs, f"{url}/big", f"{url}/a.txt"], capture_output=True, timeout=TIMEOUT)
    assert (result.returncode, result.stdout) == (0, b"200 1;200 0;"), result.stderr
    assert (tmp_path / "1").read_bytes() == (site / "big").read_bytes()


# ---- usage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--echo"], 2, "--listen"),
        (["--listen", "localhost:0"], 2, "--echo --www"),
        (["--listen", "localhost:0", "--echo", "--www", "."], 2, "not allowed with"),
        (["--listen", "localhost", "--echo"], 2, "no port"),
        (["--listen", "localhost:70000", "--echo"], 2, "0 to 65535"),
        (["--listen", "localhost:0", "--www", "/nowhere"], 2, "'/nowhere' is not a folder"),
        (["--listen", "localhost:0", "--echo", "--cert", "/nowhere/c.pem"], 2, "/nowhere/c.pem: No such file"),
        (["--listen", "localhost:0", "--echo", "--key", "/nowhere/k.pem"], 2, "--key needs --cert"),
        (["--listen", "localhost:0", "--echo", "--ca-out", "/nowhere/ca.pem"], 1, "/nowhere/ca.pem: No such file"),
        (["--listen", "host..invalid:0", "--echo"], 1, "cannot listen on 'host..invalid'"),
        (["--listen", "192.0.2.1:0", "--echo"], 1, "cannot listen on 192.0.2.1"),
    ],
)
def test_wrong_usage_is_told_apart(arguments: list[str], status: int, words: str) -> None:
    result = run("serve", *arguments)
    assert result.returncode == status
    assert words in one_line(result)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--echo")
    assert result.returncode == 1
    assert os.strerror(errno.EADDRINUSE) in one_line(result)


def test_a_key_that_does_not_fit_is_refused_at_the_start(identity: Identity) -> None:
    result = run("serve", "--listen", "localhost:0", "--echo", "--cert", identity.client_both, "--key", identity.key)
    assert result.returncode == 2
    assert "key" in one_line(result)


def test_ca_out_with_a_certificate_is_wrong(identity: Identity, tmp_path: Path) -> None:
    result = run("serve", "--listen", "localhost:0", "--echo", "--cert", identity.both, "--ca-out", tmp_path / "ca.pem")
    assert result.returncode == 2
    assert not (tmp_path / "ca.pem").exists()
