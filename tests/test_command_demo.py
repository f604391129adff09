"""`python -m sslsock demo`, as a process."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time

from command_helpers import ENVIRONMENT, TIMEOUT, command, run


def test_it_shows_everything_and_ends_clean() -> None:
    begin = time.monotonic()
    result = run("demo")
    took = time.monotonic() - begin
    shown = result.stdout.decode()
    assert (result.returncode, result.stderr) == (0, b""), shown
    assert "\x1b" not in shown
    for words in (
        "DNS:localhost, IP:127.0.0.1, IP:::1",
        "state_changed_handler    HOST_LOOKUP_STATE",
        "host_found_handler",
        "state_changed_handler    CONNECTING_STATE",
        "state_changed_handler    CONNECTED_STATE",
        "mode_changed_handler     SSL_CLIENT_MODE",
        "mode_changed_handler     SSL_SERVER_MODE",
        "encrypted_handler        TLS 1.3, ",
        "ready_read_handler",
        "bytes_written_handler",
        "ssl_errors_handler       the certificate is not for bank.example",
        "error_handler            SSL_HANDSHAKE_FAILED_ERROR",
        "session_reused is False",
        "session_reused is True",
        "b'STARTTLS\\r\\n'",
        "mode_changed_handler     UNENCRYPTED_MODE",
        "disconnected_handler",
    ):
        assert words in shown, words
    assert re.search(r"rate +\d+ MiB in [\d.]+ s: \d+ MiB/s", shown)
    if "SSLSOCK_SANITIZE" not in os.environ:
        assert took < 20


def on_terminal(**environment: str) -> bytes:
    """What the demonstration writes to a terminal."""
    master, slave = pty.openpty()
    env = {**ENVIRONMENT, "TERM": "xterm", **environment}
    with subprocess.Popen(command("demo"), stdin=slave, stdout=slave, stderr=slave, env=env) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                shown += os.read(master, 65536)
            except OSError:  # EIO: the last one on the other side has gone
                break
        os.close(master)
        assert process.wait(TIMEOUT) == 0, shown
    return shown


def test_a_terminal_gets_colour_and_progress() -> None:
    shown = on_terminal()
    assert b"\x1b[36mclient" in shown
    assert re.search(rb"\r  \[#* *\] +\d+ MiB, \d+ MiB/s", shown)


def test_no_color_is_respected() -> None:
    assert b"\x1b[3" not in on_terminal(NO_COLOR="1")


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(command("demo"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT) == 0
