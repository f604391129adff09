"""The tutorial, from its first line to its last: its files are written, its commands are run, each terminal's in turn, and what
they print is compared with the page. "…" on a page stands for anything.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_helpers import ENVIRONMENT, TIMEOUT

TUTORIAL = Path(__file__).resolve().parent.parent / "docs" / "tutorial"
CHAPTERS = ("index", "client", "server", "verification", "protocol", "asyncio", "proxy")
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]*)")?(?: hl_lines="\d+")?\n(.*?)^```$', re.M | re.S)
PORTS = ("4433", "8080", "8443")  # which are somebody else's, perhaps

# They would run for ever: a command that a terminal leaves running until its next one.
SERVERS = ("serve ", "server.py", "store.py", "store2.py", "http.server", "proxy ")


def free_ports() -> dict[str, str]:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        return {port: str(one.getsockname()[1]) for port, one in zip(PORTS, opened)}


def pattern(expected: str) -> str:
    """A line of "…" alone stands for any number of lines."""
    return "".join(
        "(?:.*\n)*" if line == "…\n" else re.escape(line).replace("…", ".*") for line in expected.splitlines(keepends=True)
    )


class Terminal:
    """Runs commands one after another, as a shell does; the last may still run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def run(self, command: str, expected: str) -> None:
        self.interrupt()
        self.process = subprocess.Popen(
            ["sh", "-c", f"exec {command}" if "|" not in command and ">" not in command else command],
            cwd=self.folder,
            # On a terminal, each line is shown as it is printed.
            env={**ENVIRONMENT, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self.collect, args=(self.process, self.lines), daemon=True).start()
        if any(server in command for server in SERVERS):
            self.compare(expected)
            return
        said = "".join(iter(self.next_line, ""))
        process, self.process = self.process, None
        status = process.wait(TIMEOUT)
        assert re.fullmatch(pattern(expected), said), f"$ {command}\n{said}instead of\n{expected}"
        assert status == 0, command

    @staticmethod
    def collect(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")  # its end
        process.stdout.close()

    def next_line(self) -> str:
        return self.lines.get(timeout=TIMEOUT)

    def compare(self, expected: str) -> None:
        """The next lines of what runs."""
        for wanted in expected.splitlines(keepends=True):
            line = self.next_line()
            assert re.fullmatch(pattern(wanted) if wanted != "…\n" else ".*\n", line), f"{line!r} instead of {wanted!r}"

    def interrupt(self) -> None:
        """Ctrl-C."""
        if self.process is not None:
            process, self.process = self.process, None
            process.send_signal(signal.SIGINT)
            try:
                process.wait(TIMEOUT)
            finally:
                process.kill()
                process.wait()
            while self.next_line():
                pass


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[dict[str, Terminal]]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "pip").write_text("#!/bin/sh\n# trustme is there: the tests need it themselves\n")
    for name in ("python", "pip"):
        (tmp_path / "bin" / name).chmod(0o755)
    terminals = {name: Terminal(tmp_path) for name in ("", "Terminal 1", "Terminal 2", "Terminal 3")}
    try:
        yield terminals
    finally:
        for terminal in terminals.values():
            terminal.interrupt()
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.slow
def test_the_tutorial_is_true(terminals: dict[str, Terminal], tmp_path: Path) -> None:
    ports = free_ports()
    steps = 0
    for chapter in CHAPTERS:
        for language, title, text in BLOCK.findall((TUTORIAL / f"{chapter}.md").read_text()):
            for port, free in ports.items():
                text = text.replace(port, free)
            if language == "python":
                (tmp_path / title).write_text(text)
            elif language == "console":
                terminal = terminals[title]
                before, *commands = re.split(r"^\$ ", text, flags=re.M)
                terminal.compare(before)
                for one in commands:
                    command, _, expected = one.partition("\n")
                    terminal.run(command, expected)
                    steps += 1
    assert steps > 25


def test_each_chapter_is_of_the_tutorial() -> None:
    assert sorted(path.stem for path in TUTORIAL.glob("*.md")) == sorted(CHAPTERS)
