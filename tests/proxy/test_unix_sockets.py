"""UNIX sockets at both ends of the proxy: spelled `unix:PATH` and `tls+unix:PATH`; the file, its rights and its end; the
programs that listen on one in practice.

The proxy runs in the test's folder, for a path has 107 bytes at the most.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_helpers import ENVIRONMENT, Identity, command
from sslsock.proxy_protocol import parse

from .running import TIMEOUT, accept, listener, running, serving

LINUX = sys.platform.startswith("linux")
ABSTRACT = pytest.mark.skipif(not LINUX, reason="only Linux has an abstract namespace")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def origin(path: str, backlog: int = 16) -> Iterator[socket.socket]:
    """A back end at a path."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{path[1:]}" if path.startswith("@") else path)
        sock.listen(backlog)
        sock.settimeout(TIMEOUT)
        yield sock


def client(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT)
    try:
        sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
    except OSError:
        sock.close()
        raise
    return sock


def exchange(near: socket.socket, far: socket.socket) -> None:
    """Both directions, and an end of each."""
    near.sendall(b"question")
    assert far.recv(100) == b"question"
    far.sendall(b"answer")
    assert near.recv(100) == b"answer"
    near.close()
    assert far.recv(100) == b""
    far.close()


def refused(*options: object) -> str:
    done = subprocess.run(command("proxy", *options), env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode, done
    return done.stderr


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("near, far", [("front.sock", "back.sock"), pytest.param("@front-{}", "@back-{}", marks=ABSTRACT)])
def test_both_ends(near: str, far: str, threads: int) -> None:
    near, far = (f"{name.format(os.getpid())}" for name in (near, far))
    options = ("--listen", f"unix:{near}", "--to", f"unix:{far}")
    with origin(far) as back, running(*options, threads=threads) as proxy:
        for _ in range(3):
            exchange(client(near), accept(back))
            record = proxy.record()
            assert record["peer"] == "unix:"
            assert record["listener"] == f"unix:{near}"
            assert record["backend"] == f"unix:{far}"
    assert not os.path.exists(near)


def test_tls_at_both_ends(identity: Identity) -> None:
    options = ("--listen", "tls+unix:front.sock", "--cert", identity.cert, "--key", identity.key)
    to = ("--to", "tls+unix:back.sock", "--to-ca", identity.ca, "--to-server-name", "localhost")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(identity.cert, identity.key)
    trusting = ssl.create_default_context(cafile=str(identity.ca))
    with origin("back.sock") as back, running(*options, *to):
        near = trusting.wrap_socket(client("front.sock"), server_hostname="localhost", do_handshake_on_connect=False)
        shaking = threading.Thread(target=near.do_handshake)
        shaking.start()
        far = accept(back, server)
        shaking.join(TIMEOUT)
        near.sendall(b"question")
        assert far.recv(100) == b"question"
        far.sendall(b"answer")
        assert near.recv(100) == b"answer"
        near.close()
        far.close()


def test_from_a_port_to_a_path_with_a_header() -> None:
    options = ("--listen", "tcp://127.0.0.1:0", "--to", "unix:back.sock", "--proxy-protocol-out", "v1")
    with origin("back.sock") as back, running(*options) as proxy:
        near = socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT)
        far = accept(back)
        source, target = near.getsockname(), near.getpeername()
        assert far.recv(200) == f"PROXY TCP4 127.0.0.1 127.0.0.1 {source[1]} {target[1]}\r\n".encode()
        exchange(near, far)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_client_without_an_address_is_told_as_such(version: str) -> None:
    with listener() as back:
        to = f"tcp://127.0.0.1:{back.getsockname()[1]}"
        with running("--listen", "unix:front.sock", "--to", to, "--proxy-protocol-out", version):
            near, far = client("front.sock"), accept(back)
            head = far.recv(200)
            if version == "v1":
                assert head == b"PROXY UNKNOWN\r\n"
            else:  # version 2, LOCAL, unspecified; behind it a unique id, which receivers step over
                assert head[:14] == b"\r\n\r\n\0\r\nQUIT\n\x20\0"
                header = parse(head)
                assert header is not None and header.local and header.size == len(head)
            exchange(near, far)


def test_a_header_at_a_path() -> None:
    options = ("--listen", "unix:front.sock", "--to", "unix:back.sock", "--proxy-protocol-in")
    with origin("back.sock") as back, running(*options) as proxy:
        near = client("front.sock")
        near.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n")
        exchange(near, accept(back))
        assert proxy.record()["peer"] == "192.0.2.7:4711"


def test_mode_and_owner(folder: Path) -> None:
    options = ["--listen", "unix:front.sock", "--to", "tcp://127.0.0.1:1", "--listen-mode", "0620"]
    if os.geteuid() == 0:
        options += ["--listen-owner", "1234:4321"]
    with running(*options):
        status = os.stat("front.sock")
        assert stat.S_IMODE(status.st_mode) == 0o620
        if os.geteuid() == 0:
            assert (status.st_uid, status.st_gid) == (1234, 4321)


def test_a_file_says_the_same(folder: Path) -> None:
    """Relative to the file's folder, as all files."""
    (folder / "conf").mkdir()
    (folder / "conf" / "proxy.toml").write_text(
        '[[listener]]\nlisten = "unix:front.sock"\nlisten-mode = 0o600\nto = ["unix:back.sock"]\n'
    )
    with origin("conf/back.sock") as back, running("--config", "conf/proxy.toml") as proxy:
        assert stat.S_IMODE(os.stat("conf/front.sock").st_mode) == 0o600
        exchange(client("conf/front.sock"), accept(back))
        (folder / "conf" / "proxy.toml").write_text('[[listener]]\nlisten = "unix:front.sock"\nto = ["unix:back.sock"]\n')
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message("which needs a restart")
    assert not os.path.exists("conf/front.sock")


def test_an_abandoned_socket_is_replaced_and_a_live_one_refused() -> None:
    with origin("front.sock"):
        pass
    options = ("--listen", "unix:front.sock", "--to", "unix:back.sock")
    with origin("back.sock") as back, running(*options):
        said = refused(*options)
        assert said == "sslsock: cannot listen on unix:front.sock: another program listens there\n"
        accept(back).close()  # of the look whether somebody listens
        exchange(client("front.sock"), accept(back))  # it is still there


def test_what_is_killed_leaves_a_file_that_the_next_one_replaces() -> None:
    options = ("--listen", "unix:front.sock", "--to", "unix:back.sock")
    with contextlib.suppress(AssertionError), running(*options) as proxy:
        proxy.process.kill()
        proxy.process.wait(TIMEOUT)
    assert os.path.exists("front.sock")
    with origin("back.sock") as back, running(*options):
        exchange(client("front.sock"), accept(back))


def test_a_file_that_somebody_else_has_made_since_stays() -> None:
    options = ("--listen", "unix:front.sock", "--to", "unix:back.sock")
    with contextlib.ExitStack() as stack:
        with running(*options):
            os.unlink("front.sock")
            other = stack.enter_context(origin("front.sock"))
        near = client("front.sock")
        other.accept()[0].close()
        near.close()


def test_a_back_end_that_is_not_there_yet() -> None:
    """It is left out, and the other one taken."""
    options = ("--listen", "unix:front.sock", "--to", "unix:missing.sock", "--to", "unix:back.sock")
    with origin("back.sock") as back, running(*options) as proxy:
        exchange(client("front.sock"), accept(back))
        proxy.wait_for_message("unix:missing.sock (unix:missing.sock) is left out: No such file or directory")


@pytest.mark.skipif(not LINUX, reason="a full queue refuses there")
def test_a_back_end_whose_queue_is_full_is_waited_for() -> None:
    with origin("back.sock", 0) as back, running("--listen", "unix:front.sock", "--to", "unix:back.sock"):
        clients = [client("front.sock") for _ in range(5)]
        for _ in clients:
            far = accept(back)
            far.sendall(b"here")
            far.close()
        for near in clients:
            assert near.recv(100) == b"here"
            near.close()


def test_metrics_name_the_path() -> None:
    pytest.importorskip("prometheus_client")
    options = ("--listen", "unix:front.sock", "--to", "unix:back.sock", "--metrics", "127.0.0.1:0")
    with origin("back.sock") as back, running(*options) as proxy:
        exchange(client("front.sock"), accept(back))
        proxy.record()
        lines = proxy.metrics()
        assert any('listener="unix:front.sock"' in line for line in lines)
        assert any('backend="unix:back.sock"' in line and line.endswith(" 1.0") for line in lines), lines


def test_check() -> None:
    done = subprocess.run(
        command("proxy", "--listen", "unix:front.sock", "--to", "unix:///run/app.sock", "--check"),
        env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done


BACK = ("--to", "unix:back.sock")
FRONT = ("--listen", "unix:front.sock")


@pytest.mark.parametrize(
    "options, words",
    [
        (("--listen", "unix:", *BACK), "no name"),
        (("--listen", "unix:@", *BACK), "no name"),
        (("--listen", "unix://front.sock", *BACK), "a path follows the colon"),
        (("--listen", f"unix:{'x' * 200}", *BACK), "bytes at the most"),
        (("--listen", "unix:missing/front.sock", *BACK), "there is no folder missing"),
        (("--listen", "front.sock", *BACK), "or unix:PATH"),
        ((*FRONT, *BACK, "--listen-mode", "0888"), "octal digits are needed"),
        ((*FRONT, *BACK, "--listen-mode", "4777"), "no mode of a socket"),
        ((*FRONT, *BACK, "--listen-owner", "nobody-of-this-name"), "there is no user"),
        ((*FRONT, *BACK, "--listen-owner", ":nobody-of-this-name"), "there is no group"),
        (("--listen", "tcp://127.0.0.1:0", *BACK, "--listen-mode", "0600"), "it is for the file of a UNIX socket"),
        (("--listen", "unix:@front", *BACK, "--listen-mode", "0600"), "an abstract name has no file"),
        ((*FRONT, *BACK, "--proxy-protocol-in", "--trusted-proxy", "10.0.0.0/8"), "have no address"),
        ((*FRONT, "--to", "tls+unix:back.sock"), "it needs --to-server-name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be(options: tuple[str, ...], words: str) -> None:
    assert words in refused(*options, "--check")


def test_one_path_for_two_listeners(folder: Path) -> None:
    (folder / "proxy.toml").write_text(
        '[[listener]]\nlisten = "unix:front.sock"\nto = "unix:a"\n[[listener]]\nlisten = "unix:./front.sock"\nto = "unix:b"\n'
    )
    assert "another listener has this address" in refused("--config", "proxy.toml", "--check")


# Programs that listen on UNIX sockets in practice


def answer_of(identity: Identity, port: int) -> bytes:
    """Of a request by HTTP over TLS."""
    trusting = ssl.create_default_context(cafile=str(identity.ca))
    with trusting.wrap_socket(socket.create_connection(("127.0.0.1", port), TIMEOUT), server_hostname="localhost") as near:
        near.sendall(b"GET /path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := near.recv(65536):
            answer += data
    return answer


def http_options(identity: Identity) -> tuple[object, ...]:
    return ("--listen", "tls://127.0.0.1:0", "--cert", identity.cert, "--key", identity.key, "--to", "unix:app.sock")


def test_gunicorn(folder: Path, identity: Identity) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    (folder / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [b'gunicorn: ' + environ['PATH_INFO'].encode()]\n"
    )
    arguments = (sys.executable, "-m", "gunicorn", "--bind", "unix:app.sock", "--workers", "1", "app:app")
    with serving(arguments, lambda: client("app.sock")), running(*http_options(identity)) as proxy:
        for _ in range(3):
            assert answer_of(identity, proxy.port).endswith(b"\r\ngunicorn: /path\r\n0\r\n\r\n")  # chunked


def test_uvicorn(folder: Path, identity: Identity) -> None:
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    (folder / "app.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'uvicorn: ' + scope['path'].encode()})\n"
    )
    arguments = (sys.executable, "-m", "uvicorn", "--uds", "app.sock", "--lifespan", "off", "app:app")
    with serving(arguments, lambda: client("app.sock")), running(*http_options(identity)) as proxy:
        for _ in range(3):
            assert b"uvicorn: /path" in answer_of(identity, proxy.port)


def php_fpm() -> str:
    """The program; "": it is not installed."""
    places = (*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/usr/local/sbin")
    found = sorted(str(path) for place in places if place for path in Path(place).glob("php-fpm*"))
    return next((path for path in found if os.access(path, os.X_OK)), "")


def fast_cgi(kind: int, body: bytes) -> bytes:
    """A record of request 1: FastCGI specification, 3.3."""
    return struct.pack("!BBHHBB", 1, kind, 1, len(body), 0, 0) + body


def test_php_fpm(folder: Path, identity: Identity) -> None:
    """FastCGI, from a client that speaks TLS, to a pool behind a UNIX socket."""
    fpm = php_fpm()
    if not fpm:
        pytest.skip("PHP-FPM is not installed")
    (folder / "page.php").write_text("<?php echo 'php: ', $_SERVER['QUERY_STRING'];")
    user = "user = nobody\n" if os.geteuid() == 0 else ""
    (folder / "fpm.conf").write_text(
        f"[global]\nerror_log = {folder}/fpm.log\n[www]\n{user}listen = {folder}/app.sock\npm = static\npm.max_children = 1\n"
    )
    (folder / "page.php").chmod(0o644)
    for place in (folder, *folder.parents):
        if os.stat(place).st_uid == os.geteuid() and len(place.parts) > 2:
            place.chmod(0o755)  # the pool's user reads the page
    params = {
        "SCRIPT_FILENAME": str(folder / "page.php"), "REQUEST_METHOD": "GET", "QUERY_STRING": "asked",
    }  # fmt: skip
    pairs = b"".join(
        struct.pack("!BI", len(name), len(value) | 1 << 31) + name.encode() + value.encode() for name, value in params.items()
    )
    arguments = (fpm, "--nodaemonize", "--fpm-config", str(folder / "fpm.conf"))
    with serving(arguments, lambda: client("app.sock")), running(*http_options(identity)) as proxy:
        trusting = ssl.create_default_context(cafile=str(identity.ca))
        raw = socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT)
        with trusting.wrap_socket(raw, server_hostname="localhost") as near:
            near.sendall(fast_cgi(1, b"\0\1\0\0\0\0\0\0") + fast_cgi(4, pairs) + fast_cgi(4, b"") + fast_cgi(5, b""))
            answer = b""
            while data := near.recv(65536):
                answer += data
    assert b"php: asked" in answer, answer
