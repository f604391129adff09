"""`python -m sslsock connect`, as a process, against servers of the ssl module and openssl(1)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, Callable

import pytest
import trustme

from command_helpers import (
    ENVIRONMENT,
    TIMEOUT,
    Identity,
    command,
    identity,
    one_line,
    run,
    s_server,
    server,
    started,
    tls_server,
)
from sslsock.commands.common import CommandError
from sslsock.commands.starttls import DIALOGUES

__all__ = ["identity"]

REQUEST = b"GET / HTTP/1.0\r\n\r\n"


def connecting(identity: Identity, port: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """The command while it runs; its input stays open."""
    return started("connect", f"localhost:{port}", "--ca", identity.ca, stdin=subprocess.PIPE)


def answer_and_close(text: bytes) -> Callable[[ssl.SSLSocket], None]:
    """Reads what the client sends first, answers, and closes as TLS wants it."""

    def script(connection: ssl.SSLSocket) -> None:
        connection.recv(100)
        connection.sendall(text)
        connection.unwrap()

    return script


# ---- what it shows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_it_shows_chain_result_and_agreement_and_passes_the_answer(identity: Identity, version: str) -> None:
    with s_server(identity, "-www", f"-tls{version.replace('.', '_')}", "-alpn", "h2,http/1.1") as port:
        result = run("connect", f"localhost:{port}", "--ca", identity.ca, "--alpn", "http/1.1", input=REQUEST)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(b"HTTP/1.0 200 ok\r\n")
    assert result.stdout.rstrip().endswith(b"</HTML>")
    shown = result.stderr.decode()
    assert f"Connected to localhost (127.0.0.1:{port})" in shown
    assert "  0 subject   " in shown
    assert "CN=localhost" in shown
    assert "    issuer    " in shown
    assert "DNS:localhost, IP:127.0.0.1, IP:::1" in shown
    assert "Verification  ok, for localhost" in shown
    assert f"Protocol      TLS {version}" in shown
    assert "AES" in shown or "CHACHA" in shown
    assert "Group         (none)" not in shown
    assert "ALPN          http/1.1" in shown
    assert "Timing        lookup " in shown
    assert "Traceback" not in shown


def test_a_client_certificate_is_sent(identity: Identity) -> None:
    context = identity.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    identity.authority.configure_trust(context)
    names: list[Any] = []

    def script(connection: ssl.SSLSocket) -> None:
        names.append(connection.getpeercert())
        connection.sendall(b"welcome")
        connection.unwrap()

    with tls_server(identity, script, context=context) as port:
        result = run("connect", f"127.0.0.1:{port}", "--ca", identity.ca, "--cert", identity.client_both)
    assert (result.returncode, result.stdout) == (0, b"welcome"), result.stderr
    assert "client@example.org" in str(names)


def test_ipv6_in_brackets(identity: Identity) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on the loopback")
    script = answer_and_close(b"six")
    with tls_server(identity, script, address="::1", family=socket.AF_INET6) as port:
        result = run("connect", f"[::1]:{port}", "--ca", identity.ca, input=b"x")
    assert (result.returncode, result.stdout) == (0, b"six"), result.stderr
    assert b"Verification  ok, for ::1" in result.stderr


def test_text_of_the_certificate_cannot_steer_the_terminal(tmp_path: Path) -> None:
    authority = trustme.CA(organization_name="\x1b[31mred\x07")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    with tls_server(None, answer_and_close(b"ok"), context=context) as port:  # type: ignore[arg-type]
        result = run("connect", f"localhost:{port}", "--ca", path, input=b"x")
    assert result.returncode == 0, result.stderr
    assert b"red" in result.stderr
    assert b"\x1b" not in result.stderr
    assert b"\x07" not in result.stderr


# ---- standard input and output -----------------------------------------------------------------------------


def test_both_ways_at_once_through_pipes(identity: Identity) -> None:
    """More than all buffers on the way hold, so that neither direction may wait for the other."""
    data = os.urandom(1 << 20) * 8

    def script(connection: ssl.SSLSocket) -> None:
        left = len(data)
        while left:
            piece = connection.recv(65536)
            left -= len(piece)
            connection.sendall(piece)
        connection.unwrap()

    with tls_server(identity, script) as port:
        result = run("connect", f"localhost:{port}", "--ca", identity.ca, input=data)
    assert result.returncode == 0, result.stderr
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_regular_files_as_input_and_output(identity: Identity, tmp_path: Path) -> None:
    """epoll refuses regular files, so they have to be read and written in another way."""
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    received: list[bytes] = []

    def script(connection: ssl.SSLSocket) -> None:
        got = b""
        while len(got) < len(data):
            got += connection.recv(65536)
        received.append(got)
        connection.sendall(got[::-1])
        connection.unwrap()

    source, target = tmp_path / "in", tmp_path / "out"
    with tls_server(identity, script) as port, source.open("rb") as input_, target.open("wb") as output:
        result = run("connect", f"localhost:{port}", "--ca", identity.ca, stdin=input_, stdout=output)
    assert result.returncode == 0, result.stderr
    assert received == [data]
    assert (tmp_path / "out").read_bytes() == data[::-1]


def test_after_the_end_of_input_the_answer_is_still_printed(identity: Identity) -> None:
    with tls_server(identity, answer_and_close(b"late answer")) as port:
        result = run("connect", f"localhost:{port}", "--ca", identity.ca, input=b"question")
    assert (result.returncode, result.stdout) == (0, b"late answer"), result.stderr


def test_a_peer_that_stays_silent_is_left_in_good_order(identity: Identity) -> None:
    ends: list[bytes] = []

    def script(connection: ssl.SSLSocket) -> None:
        connection.recv(100)
        connection.sendall(b"only this")
        ends.append(connection.recv(100))  # b"" only after close_notify, else it raises

    with tls_server(identity, script) as port:
        result = run("connect", f"localhost:{port}", "--ca", identity.ca, "--wait", 1.5, input=b"question")
    assert (result.returncode, result.stdout) == (0, b"only this"), result.stderr
    assert ends == [b""]


def test_closed_standard_streams_are_an_empty_input_and_output(identity: Identity) -> None:
    def script(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"hello")
        connection.unwrap()

    with tls_server(identity, script) as port:
        shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
        arguments = [*shell, *command("connect", f"localhost:{port}", "--ca", identity.ca)]
        result = subprocess.run(arguments, env=ENVIRONMENT, timeout=TIMEOUT)
    assert result.returncode == 0


def test_a_slow_reader_slows_the_peer_and_loses_nothing(identity: Identity) -> None:
    size = 96 << 20
    stalled = threading.Event()
    counts: list[int] = []

    def script(connection: ssl.SSLSocket) -> None:
        piece, sent = bytes(65536), 0
        connection.setblocking(False)
        while sent < size:
            try:
                sent += connection.send(piece)
            except ssl.SSLWantWriteError:
                if not select.select([], [connection], [], 1.0)[1]:
                    counts.append(sent)
                    stalled.set()
                    select.select([], [connection], [])
        stalled.set()
        connection.setblocking(True)
        connection.unwrap()

    with tls_server(identity, script) as port, connecting(identity, port) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert stalled.wait(TIMEOUT)
        assert counts, "nothing has slowed the server"
        assert counts[0] < size / 2
        memory = Path(f"/proc/{process.pid}/status").read_text()
        reader = process.stdout
        total = 0
        while count := len(reader.read(1 << 20)):
            total += count
        assert process.wait(TIMEOUT) == 0, process.stderr.read()
    assert total == size
    peak = int(memory.split("VmHWM:")[1].split()[0])
    if "SSLSOCK_SANITIZE" not in os.environ:
        assert peak < 80_000, "KiB"


def test_a_broken_pipe_ends_it_quietly(identity: Identity) -> None:
    def script(connection: ssl.SSLSocket) -> None:
        while True:
            connection.sendall(bytes(65536))

    with tls_server(identity, script) as port, connecting(identity, port) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        shown = process.stderr.read()
        assert process.wait(TIMEOUT) == 0
    assert b"Traceback" not in shown
    assert b"roken pipe" not in shown


def test_interrupt_ends_it_quietly(identity: Identity) -> None:
    def script(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"!")
        connection.recv(1)

    with tls_server(identity, script) as port, connecting(identity, port) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"!"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
        assert b"Traceback" not in process.stderr.read()


# ---- failures ----------------------------------------------------------------------------------------------


def test_an_unknown_authority_is_refused_and_named(identity: Identity) -> None:
    with tls_server(identity, answer_and_close(b"secret")) as port:
        result = run("connect", f"localhost:{port}", input=b"x")
    assert (result.returncode, result.stdout) == (1, b"")
    assert "certificate verify failed" in one_line(result)
    assert b"Verification  FAILED\n" in result.stderr
    assert b"CN=localhost" in result.stderr


def test_a_wrong_name_is_refused(identity: Identity) -> None:
    with tls_server(identity, answer_and_close(b"secret")) as port:
        result = run("connect", f"127.0.0.1:{port}", "--ca", identity.ca, "--server-name", "wrong.example")
    assert (result.returncode, result.stdout) == (1, b"")
    assert "wrong.example" in one_line(result)


def test_insecure_goes_on_and_still_shows_the_errors(identity: Identity) -> None:
    with tls_server(identity, answer_and_close(b"fine")) as port:
        result = run("connect", f"localhost:{port}", "--insecure", input=b"x")
    assert (result.returncode, result.stdout) == (0, b"fine"), result.stderr
    assert b"Verification  FAILED, ignored (--insecure)\n  depth 0: " in result.stderr


def test_a_connection_that_is_cut_is_a_failure_but_its_data_is_printed(identity: Identity) -> None:
    def script(connection: ssl.SSLSocket) -> None:
        connection.recv(100)
        connection.sendall(b"half of i")
        connection.shutdown(socket.SHUT_RDWR)  # without close_notify

    with tls_server(identity, script) as port:
        result = run("connect", f"localhost:{port}", "--ca", identity.ca, input=b"x")
    assert (result.returncode, result.stdout) == (1, b"half of i")
    assert one_line(result).startswith("sslsock: ")


def test_a_peer_that_speaks_no_tls(identity: Identity) -> None:
    def script(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        connection.recv(65536)

    with server(script) as port:
        result = run("connect", f"localhost:{port}", "--ca", identity.ca)
    assert (result.returncode, result.stdout) == (1, b"")
    assert "handshake failed" in one_line(result)


def test_a_peer_that_closes_during_the_handshake(identity: Identity) -> None:
    with server(lambda connection: connection.recv(65536)) as port:
        result = run("connect", f"localhost:{port}", "--ca", identity.ca)
    assert result.returncode == 1
    assert "during the TLS handshake" in one_line(result)


def test_a_port_that_refuses() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        result = run("connect", f"127.0.0.1:{sock.getsockname()[1]}")
    assert result.returncode == 1
    assert "Connection refused" in one_line(result)


def test_a_host_that_is_none() -> None:
    result = run("connect", "no_such_host..invalid:443")
    assert result.returncode == 1
    assert "no_such_host..invalid" in one_line(result)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: HOST:PORT"),
        (["localhost"], "no port"),
        (["localhost:0"], "1 to 65535"),
        (["localhost:70000"], "1 to 65535"),
        (["localhost:http"], "1 to 65535"),
        ([":443"], "no host"),
        (["::1:443"], "brackets"),
        (["localhost:1", "--starttls", "ftp"], "invalid choice"),
        (["localhost:1", "--alpn", "h2,,x"], "1 to 255 bytes"),
        (["localhost:1", "--wait", "-1"], "not a positive number"),
        (["localhost:1", "--ca", "/nowhere/ca.pem"], "/nowhere/ca.pem: No such file"),
        (["localhost:1", "--cert", "/nowhere/cert.pem"], "/nowhere/cert.pem: No such file"),
        (["localhost:1", "--key", "/nowhere/key.pem"], "--key needs --cert"),
        (["localhost:1", "--ca", __file__], "no certificate"),
        (["localhost:1", "--cert", __file__], "BEGIN line"),
        (["localhost:1", "--server-name", "a b"], "--server-name"),
    ],
)
def test_wrong_usage_is_told_apart(arguments: list[str], words: str) -> None:
    result = run("connect", *arguments)
    assert result.returncode == 2
    assert words in one_line(result)


def test_a_certificate_without_its_key(identity: Identity) -> None:
    result = run("connect", "localhost:1", "--cert", identity.cert)
    assert result.returncode == 2
    assert "--key" in one_line(result)


def test_a_key_that_does_not_fit_its_certificate(identity: Identity) -> None:
    arguments = ["--ca", identity.ca, "--cert", identity.client_both, "--key", identity.key]
    result = run("connect", "localhost:1", *arguments)
    assert result.returncode == 2
    assert "key" in one_line(result)


# ---- STARTTLS ----------------------------------------------------------------------------------------------

SMTP = [
    (b"", b"220-mail.example\r\n220 ready\r\n"),
    (b"EHLO ", b"250-mail.example\r\n250-SIZE 1000\r\n250-starttls\r\n250 HELP\r\n"),
    (b"STARTTLS\r\n", b"220 go ahead\r\n"),
]
IMAP = [
    (b"", b"* OK IMAP4rev1 ready\r\n"),
    (b"a1 CAPABILITY\r\n", b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na1 OK done\r\n"),
    (b"a2 STARTTLS\r\n", b"a2 OK begin\r\n"),
]
POP3 = [
    (b"", b"+OK ready\r\n"),
    (b"CAPA\r\n", b"+OK list follows\r\nUSER\r\nSTLS\r\n.\r\n"),
    (b"STLS\r\n", b"+OK begin\r\n"),
]
SCRIPTS = {"smtp": SMTP, "imap": IMAP, "pop3": POP3}


def speak(connection: socket.socket, script: list[tuple[bytes, bytes]], step: int = 0) -> None:
    """The server's part; replies leave in pieces of `step` bytes."""
    reader = connection.makefile("rb")
    for wanted, reply in script:
        if wanted:
            line = reader.readline()
            assert line.startswith(wanted) or not line, line
        for begin in range(0, len(reply), step or len(reply)):
            connection.sendall(reply[begin : begin + (step or len(reply))])


def starttls_server(
    identity: Identity, script: list[tuple[bytes, bytes]], after: Callable[[ssl.SSLSocket], object], step: int = 0
) -> Any:
    def run_script(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        speak(connection, script, step)
        with identity.server_context().wrap_socket(connection, server_side=True) as encrypted:
            after(encrypted)

    return server(run_script)


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("protocol", ["smtp", "imap", "pop3"])
def test_starttls(identity: Identity, protocol: str, step: int) -> None:
    with starttls_server(identity, SCRIPTS[protocol], answer_and_close(b"protected\r\n"), step) as port:
        arguments = ["--starttls", protocol, "--ca", identity.ca]
        result = run("connect", f"localhost:{port}", *arguments, input=b"QUIT\r\n")
    assert (result.returncode, result.stdout) == (0, b"protected\r\n"), result.stderr
    assert b"STARTTLS " in result.stderr
    assert b"Verification  ok" in result.stderr


@pytest.mark.parametrize("protocol", ["smtp", "imap", "pop3"])
def test_what_is_put_in_behind_the_reply_is_never_taken_for_protected(identity: Identity, protocol: str) -> None:
    """CVE-2011-0411 and its kin."""
    *before, (wanted, reply) = SCRIPTS[protocol]
    script = [*before, (wanted, reply + b"* INJECTED in the clear\r\n")]
    with starttls_server(identity, script, answer_and_close(b"protected\r\n")) as port:
        result = run("connect", f"localhost:{port}", "--starttls", protocol, "--ca", identity.ca, input=b"QUIT\r\n")
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"INJECTED" not in result.stderr
    assert one_line(result).startswith("sslsock: ")


@pytest.mark.parametrize(
    ("protocol", "at", "reply", "words"),
    [
        ("smtp", 0, b"554 go away\r\n", "554 go away"),
        ("smtp", 0, b"hello\r\n", "no reply: hello"),
        ("smtp", 1, b"502 what?\r\n", "refused EHLO: 502 what?"),
        ("smtp", 1, b"250-mail.example\r\n250 SIZE 10\r\n", "does not offer it"),
        ("smtp", 1, b"250-mail.example\r\n251 STARTTLS\r\n", "no reply"),
        ("smtp", 2, b"454 not \x1b[31mnow\r\n", "refused it: 454 not \\x1b[31mnow"),
        ("smtp", 1, b"250-x\r\n" * 1000, "does not end"),
        ("smtp", 0, b"2" * 20000, "more than 8192 bytes"),
        ("imap", 0, b"* BYE full\r\n", "does not take us"),
        ("imap", 0, b"* PREAUTH you are known\r\n", "authenticated us already"),
        ("imap", 1, b"* CAPABILITY IMAP4rev1\r\na1 OK\r\n", "does not offer it"),
        ("imap", 1, b"a1 NO\r\n", "refused CAPABILITY"),
        ("imap", 2, b"a2 BAD no\r\n", "refused it: BAD no"),
        ("imap", 2, b"what\r\n", "no reply"),
        ("pop3", 0, b"-ERR busy\r\n", "does not take us: -ERR busy"),
        ("pop3", 1, b"+OK\r\nUSER\r\n.\r\n", "does not offer it"),
        ("pop3", 2, b"-ERR not now\r\n", "refused it: -ERR not now"),
    ],
)
def test_a_server_that_does_not_go_along(protocol: str, at: int, reply: bytes, words: str) -> None:
    script = [*SCRIPTS[protocol][:at], (SCRIPTS[protocol][at][0], reply)]

    def run_script(connection: socket.socket) -> None:
        speak(connection, script)
        connection.recv(100)

    with server(run_script) as port:
        result = run("connect", f"localhost:{port}", "--starttls", protocol)
    assert (result.returncode, result.stdout) == (1, b"")
    assert words in one_line(result)
    assert one_line(result).startswith("sslsock: STARTTLS: ")


def test_a_server_that_closes_in_the_middle() -> None:
    with server(lambda connection: connection.sendall(b"220-")) as port:
        result = run("connect", f"localhost:{port}", "--starttls", "smtp")
    assert result.returncode == 1
    assert one_line(result) == "sslsock: STARTTLS: the server closed the connection"


def drive(dialogue: Generator[bytes, bytes, None], *lines: bytes) -> bool:
    """Feed a dialogue; True when it has come to its end."""
    next(dialogue)
    try:
        for line in lines:
            dialogue.send(line)
    except StopIteration:
        return True
    return False


def test_a_pop3_server_without_capa_may_know_stls() -> None:
    assert drive(DIALOGUES["pop3"]("127.0.0.1"), b"+OK", b"-ERR unknown", b"+OK")


def test_smtp_names_itself_by_its_address() -> None:
    for address, literal in (("192.0.2.1", b"[192.0.2.1]"), ("2001:db8::1", b"[IPv6:2001:db8::1]")):
        dialogue = DIALOGUES["smtp"](address)
        next(dialogue)
        assert dialogue.send(b"220 hi") == b"EHLO " + literal + b"\r\n"


def test_an_imap_capability_of_another_name_is_none() -> None:
    with pytest.raises(CommandError, match="does not offer"):
        drive(DIALOGUES["imap"]("127.0.0.1"), b"* OK", b"* CAPABILITY XSTARTTLS", b"* OK STARTTLS", b"a1 OK")


# ---- the program -------------------------------------------------------------------------------------------


def test_without_arguments_it_helps_and_fails() -> None:
    result = run()
    assert result.returncode == 2
    assert b"connect" in result.stderr
    assert b"examples:" in result.stderr


@pytest.mark.parametrize("name", ["connect", "serve", "demo", "bench", "version"])
def test_every_command_helps(name: str) -> None:
    result = run(name, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: python -m sslsock {name}".encode())


def test_version() -> None:
    import sslsock

    result = run("version")
    assert result.returncode == 0
    shown = result.stdout.decode()
    assert sslsock.__version__ in shown
    assert sslsock.openssl_version() in shown
    assert ".".join(map(str, sys.version_info[:3])) in shown
