"""Where the proxy's words go: standard output and the log that nobody reads or that are full, and the form of every line."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Union

import pytest

from command_helpers import ENVIRONMENT, Identity, command, run
from self_signed import END, Folder
from sslsock.proxy.settings.model import KeyPair

from .operations import inherited, wait_until
from .running import TIMEOUT, connect, listener, receive_exactly

Output = Union[int, IO[bytes]]
CLOSED = -100  # none of subprocess's own numbers


@pytest.fixture(params=["a full disk", "a full pipe", "a pipe that nobody holds", "closed"])
def useless(request: pytest.FixtureRequest) -> Iterator[Output]:
    """What can be no output."""
    if request.param == "a full disk":
        with open("/dev/full", "wb") as full:
            yield full
        return
    if request.param == "closed":
        yield CLOSED
        return
    reading, writing = os.pipe()
    if request.param == "a full pipe":
        flags = fcntl.fcntl(writing, fcntl.F_GETFL)
        fcntl.fcntl(writing, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        try:
            while True:
                os.write(writing, bytes(4096))
        except BlockingIOError:
            fcntl.fcntl(writing, fcntl.F_SETFL, flags)
    else:
        os.close(reading)
    yield writing
    os.close(writing)
    if request.param == "a full pipe":
        os.close(reading)


def begun(arguments: list[str], streams: dict[int, Output], **more: Any) -> subprocess.Popen[bytes]:
    """A command, with some of its standard descriptors replaced, or CLOSED."""
    closed = [number for number, stream in streams.items() if stream == CLOSED]
    others = {{1: "stdout", 2: "stderr"}[number]: stream for number, stream in streams.items() if stream != CLOSED}
    if closed:
        redirects = " ".join(f"{number}>&-" for number in closed)
        arguments = ["sh", "-c", f'exec "$@" {redirects}', "sh", *arguments]
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **others, **more}
    return subprocess.Popen(arguments, env=ENVIRONMENT, **options)


@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 2)], ids=["output", "log", "both"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_and_heeds_signals_without_anybody_to_read(
    tmp_path: Path, useless: Output, numbers: tuple[int, ...], number: signal.Signals
) -> None:
    folder = Folder(tmp_path)
    soon = folder.pair("soon.example", end=datetime.datetime.now(datetime.timezone.utc))  # a warning
    first, second = folder.pair("localhost"), folder.pair("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def shown() -> str:
        """The certificate that a client gets, which also gets through to the back end."""
        with connect(port, context) as client, back.accept()[0] as server:
            server.sendall(b"x")
            assert receive_exactly(client, 1) == b"x"
            return ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True))

    # The socket is passed in: a port that nobody listens at yet might connect to itself.
    with listener() as back, socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        arguments = inherited(
            listening,
            *("--listen", f"tls://127.0.0.1:{port}", "--to", f"tcp://127.0.0.1:{back.getsockname()[1]}"),
            *("--cert", first.certificate, "--key", first.key, "--cert", soon.certificate, "--key", soon.key),
            *("--log-format", "json", "--log-probes", "--drain-timeout", 0.1, "--threads", 2),
        )
        with begun(arguments, dict.fromkeys(numbers, useless), pass_fds=[listening.fileno()]) as process:
            try:
                assert shown() == Path(first.certificate).read_text()
                renewed = Path(second.certificate).read_text()
                Path(first.key).write_bytes(Path(second.key).read_bytes())
                Path(first.certificate).write_text(renewed)
                process.send_signal(signal.SIGHUP)
                wait_until(lambda: shown() == renewed, "the new certificate")
                process.send_signal(number)
                assert process.wait(TIMEOUT) == (0 if number == signal.SIGTERM else 130)
            finally:
                process.kill()


def test_settings_that_are_wrong_are_told_whatever_happens_to_standard_output() -> None:
    with open("/dev/full", "wb") as full:
        done = run("proxy", "--listen", "tls://127.0.0.1:0", stdout=full)
    assert (done.returncode, done.stderr) == (
        2,
        b"sslsock: --to is missing: where connections go, as in tcp://localhost:8080\n",
    )


def test_a_check_whose_answer_finds_no_room_fails(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = run("proxy", "--listen", "tcp://127.0.0.1:0", "--to", "tcp://127.0.0.1:1", "--check", stdout=full)
    assert (done.returncode, done.stderr) == (1, b"sslsock: standard output: No space left on device\n")


# JSON


def parsed(output: bytes) -> list[dict[str, Any]]:
    """Every line is an object with a time."""
    found = [json.loads(line) for line in output.decode("ascii").splitlines()]
    for line in found:
        datetime.datetime.strptime(line["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
        assert ("message" in line) != ("reason" in line)
        assert "message" not in line or line["level"] in ("info", "warning", "error")
    return found


def gauge(address: str, name: str) -> float:
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"sslsock_proxy_{name} "):
                return float(line.split()[1])
    raise AssertionError(f"no {name}")


def test_every_line_of_the_log_is_json(identity: Identity, tmp_path: Path) -> None:
    """Start, warnings, connections, a back end that is away, reloads good and bad, and the end."""
    soon = Folder(tmp_path).pair("soon.example", end=END.replace(year=2020))
    file = tmp_path / "proxy.toml"
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens there
        told_lines(identity, soon, file, bound.getsockname()[1])


def told_lines(identity: Identity, soon: KeyPair, file: Path, nobody: int) -> None:
    good = (
        f'log-format = "json"\nmetrics = "127.0.0.1:0"\nthreads = 1\n[[listener]]\nlisten = "tls://127.0.0.1:0"\n'
        f'cert = ["{identity.cert}", "{soon.certificate}"]\nkey = ["{identity.key}", "{soon.key}"]\nto = "tcp://127.0.0.1:{nobody}"\n'
    )
    file.write_text(good)
    with tempfile.TemporaryFile() as log, begun(command("proxy", "--config", file), {1: subprocess.PIPE, 2: log}) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline().decode()
            assert first.startswith("listening on tls://127.0.0.1:")
            port = int(first.partition(", to ")[0].rpartition(":")[2])
            metrics = process.stdout.readline().decode().partition("metrics at ")[2].strip()

            def lines() -> list[dict[str, Any]]:
                return parsed(os.pread(log.fileno(), 1 << 20, 0))

            def wait_for(text: str) -> dict[str, Any]:
                wait_until(lambda: any(text in json.dumps(line) for line in lines()), text)
                return next(line for line in lines() if text in json.dumps(line))

            warning = wait_for("has expired")
            assert warning["level"] == "warning" and not warning["message"].startswith(("sslsock", "warning"))
            with connect(port, identity.client_context()) as client:
                client.settimeout(TIMEOUT)
                with pytest.raises(OSError):
                    assert client.recv(1), "it was ended in order"
                    raise OSError
            wait_for('"reason": "no_backend"')
            assert wait_for("is left out")["level"] == "warning"
            before = gauge(metrics, "reload_success_timestamp_seconds")
            assert gauge(metrics, "reload_success") == 1
            assert 0 <= gauge(metrics, "ticket_key_age_seconds") < TIMEOUT
            process.send_signal(signal.SIGHUP)
            assert wait_for("SIGHUP: read again")["level"] == "info"
            assert gauge(metrics, "reload_success_timestamp_seconds") > before
            assert gauge(metrics, "reload_success") == 1
            file.write_text(good + "no-such-key = 1\n")
            process.send_signal(signal.SIGHUP)
            failed = wait_for("the old settings stay in force")
            assert failed["level"] == "error" and f"{file}:9: no-such-key" in failed["message"]
            assert gauge(metrics, "reload_success") == 0
            last = gauge(metrics, "reload_success_timestamp_seconds")
            assert last > before
            file.write_text(good)
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: gauge(metrics, "reload_success") == 1, "that it is good again")
            assert gauge(metrics, "reload_success_timestamp_seconds") > last
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
            wait_for("SIGTERM")
        finally:
            process.kill()


def test_output_and_log_in_one_stream_are_json_throughout() -> None:
    with begun(
        command("proxy", "--listen", "tcp://127.0.0.1:0", "--to", "tcp://127.0.0.1:1", "--log-format", "json", "--threads", 1),
        {1: subprocess.PIPE, 2: subprocess.STDOUT},
    ) as process:
        try:
            assert process.stdout is not None
            (first,) = parsed(process.stdout.readline())
            assert first["message"].startswith("listening on tcp://127.0.0.1:")
            process.send_signal(signal.SIGTERM)
            assert [line["level"] for line in parsed(process.stdout.read())] == ["info", "info"], "SIGTERM, and the end"
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("where", ["option", "file"])
def test_errors_at_the_start_are_json_too(tmp_path: Path, where: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if where == "option":
            wrong: list[object] = ["--listen", "tls://a", "--to", "tcp://a:1", "--log-format", "json"]
            late: list[object] = ["--listen", f"tcp://127.0.0.1:{port}", "--to", "tcp://a:1", "--log-format", "json"]
        else:
            (tmp_path / "wrong.toml").write_text('log-format = "json"\n[[listener]]\nlisten = "tls://a"\nto = "tcp://a:1"\n')
            (tmp_path / "late.toml").write_text(
                f'log-format = "json"\n[[listener]]\nlisten = "tcp://127.0.0.1:{port}"\nto = "tcp://a:1"\n'
            )
            wrong, late = ["--config", tmp_path / "wrong.toml"], ["--config", tmp_path / "late.toml"]
        for arguments, status, text in ((wrong, 2, "has no port"), (late, 1, "cannot listen on")):
            done = run("proxy", *arguments)
            (line,) = parsed(done.stderr)
            assert (done.returncode, line["level"]) == (status, "error")
            assert text in line["message"] and not line["message"].startswith("sslsock")


JSON = ("--log-format", "json")
BACK = ("--listen", "tcp://127.0.0.1:0", "--to", "tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*JSON, "--nonsense"), "unrecognized arguments: --nonsense"),
        (("--nonsense", "--log-format=json"), "unrecognized arguments: --nonsense"),
        ((*BACK, *JSON, "--threads", "x"), "argument --threads: 'x' is not a whole number from 0 on"),
        ((*BACK, "--threads", "1", "--threads", "1", *JSON), "argument --threads: it may be given once only"),
        ((*BACK, *JSON, *JSON), "argument --log-format: it may be given once only"),
        ((*BACK, *JSON, "--idle-timeout", "soon"), "argument --idle-timeout: 'soon' is not a number of seconds"),
        ((*JSON, "--to"), "argument --to: expected one argument"),
        ((*JSON, "surplus"), "unrecognized arguments: surplus"),
        (("--config", "json.toml", "--nonsense"), "unrecognized arguments: --nonsense"),
        (("--config=json.toml", "--threads", "x"), "argument --threads: 'x' is not a whole number from 0 on"),
        (("--config", "wrong.toml", "--nonsense"), "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_usage_is_json_too(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "json.toml").write_text('log-format = "json"\n')
    (tmp_path / "wrong.toml").write_text('threads = = 1\nlog-format = "json"\n')
    done = run("proxy", *arguments, cwd=tmp_path)
    (line,) = parsed(done.stderr)
    assert (done.returncode, done.stdout, line["level"]) == (2, b"", "error")
    assert line["message"].startswith(words)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",),
        (*JSON, "--check", "--nonsense"),  # who asks is a person
        ("--log-format", "text", "--config", "json.toml", "--nonsense"),
        ("--log-format=xml", "--nonsense"),
        ("--log-format",),
        ("--config", "none.toml", "--nonsense"),
    ],
)
def test_wrong_usage_is_text_otherwise(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "json.toml").write_text('log-format = "json"\n')
    done = run("proxy", *arguments, cwd=tmp_path)
    assert (done.returncode == 2 and done.stderr.startswith(b"usage: python -m sslsock proxy")) or b"error: " in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'log-format = "json"\nthreads = = 1\n', ":2: "),
        (b'threads = 1 1\n  log-format="json"\n', ":1: "),
        (b"'log-format' = 'json' # so\n\xff", ":2: it is not UTF-8"),
        (b'log-format = "json"\n[[listener]\n', ":2: "),
        (b'log-format = "json"\nlog-format = "json"\n', ":2: "),
        (b'log-format = "json"\nthreads = "x"\n[[listener]]\n', ":3: listen is missing"),
    ],
)
def test_a_file_that_is_wrong_is_told_as_it_wants(tmp_path: Path, text: bytes, words: str) -> None:
    file = tmp_path / "proxy.toml"
    file.write_bytes(text)
    done = run("proxy", "--config", file)
    (line,) = parsed(done.stderr)
    assert (done.returncode, line["level"]) == (2, "error")
    assert line["message"].startswith(f"{file}{words}")
    told = run("proxy", "--config", file, "--log-format", "text").stderr.decode()
    assert told == f"sslsock: {line['message']}\n"


@pytest.mark.parametrize("value", ['["json"]', "5", "true", '"xml"', "{a = 1}", '""'])
def test_a_form_that_is_none_is_told_in_text(tmp_path: Path, value: str) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(f'log-format = {value}\n[[listener]]\nlisten = "tcp://a:1"\nto = "tcp://a:1"\n')
    done = run("proxy", "--config", file)
    assert done.returncode == 2 and done.stderr.decode().startswith(f"sslsock: {file}:1: log-format: "), done.stderr


def test_the_start_is_in_the_log_too() -> None:
    """So who keeps the log alone, with a time in every line, has all."""
    with begun(command("proxy", *BACK, *JSON, "--threads", 1), {1: subprocess.PIPE, 2: subprocess.PIPE}) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            said = process.stdout.readline().decode().strip()
            (line,) = parsed(process.stderr.readline())
            assert (line["level"], line["message"]) == ("info", said)
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


MISTAKE = """
import sys, warnings
from sslsock.__main__ import main
from sslsock.commands import proxy

def broken(*arguments):
    warnings.warn("by the way")
    raise RuntimeError("a mistake")

proxy.check_files = broken
sys.exit(main(sys.argv[1:]))
"""


def test_a_mistake_of_the_program_and_a_warning_are_json() -> None:
    arguments = [sys.executable, "-W", "default", "-c", MISTAKE, "proxy", *BACK, *JSON]
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(arguments, capture_output=True, env=environment, timeout=TIMEOUT)
    warning, mistake = parsed(done.stderr)
    assert done.returncode == 1
    assert warning["level"] == "warning" and "UserWarning: by the way" in warning["message"]
    assert mistake["level"] == "error" and "Traceback" in mistake["message"] and "a mistake" in mistake["message"]
