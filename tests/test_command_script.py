"""The command `sslsock`, which is `python -m sslsock` by another name: help, its path, versions, completion in shells."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sslsock
from command_helpers import ENVIRONMENT, TIMEOUT, run
from peers import needs_sources
from sslsock._version import DOCUMENTATION

ROOT = Path(__file__).resolve().parent.parent

# What pip writes as the script, in a folder that is none of the package's.
SCRIPT = "import sys\nfrom sslsock.__main__ import script\nsys.exit(script())\n"
COMMANDS = ("connect", "serve", "proxy", "demo", "bench", "run", "version")


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sslsock").write_text(SCRIPT)
    return [sys.executable, str(folder / "sslsock")]


def done(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, **options.pop("env", {})}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=TIMEOUT, **options)


@needs_sources
def test_the_package_installs_it() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^\[project\.scripts\]\nsslsock = "sslsock\.__main__:script"$', settings, re.M)
    assert f'Documentation = "{DOCUMENTATION}"' in settings


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_says_how_it_was_called_and_where_to_read_more(command: str, script: list[str]) -> None:
    words = [*command.split(), "--help"]
    by_name, by_module = done([*script, *words]).stdout, run(*words).stdout.decode()
    assert by_name.startswith(f"usage: sslsock {command}".rstrip())
    assert by_module.startswith(f"usage: python -m sslsock {command}".rstrip())
    assert "python -m sslsock" not in by_name.replace("before -m sslsock", "")
    for text in (by_name, by_module):
        assert text.endswith(f"\ndocumentation: {DOCUMENTATION}\n")


def test_wrong_usage_has_its_name(script: list[str]) -> None:
    ended = done([*script, "nothing"])
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: sslsock [-h]")


def test_the_version_in_a_line() -> None:
    assert run("--version").stdout.decode() == f"sslsock {sslsock.__version__}, {sslsock.openssl_version()}\n"


@pytest.mark.parametrize("safe", [False, True], ids=["", "safe path"])
def test_run_finds_the_modules_that_python_would(safe: bool, script: list[str], tmp_path: Path) -> None:
    """Those of the working directory, and not those beside the script."""
    (tmp_path / "mine.py").write_text("import sys; print(sys.path[0], sys.argv)")
    (tmp_path / "bin" / "theirs.py").write_text("print('found')")
    def run_module(words: list[str], module: str) -> subprocess.CompletedProcess[str]:
        return done([*words, "run", "-m", module], cwd=tmp_path, env={"PYTHONSAFEPATH": "1" if safe else ""})

    safe = safe and sys.version_info >= (3, 11)
    by_name, by_module = (run_module(words, "mine") for words in (script, [sys.executable, "-m", "sslsock"]))
    assert (by_name.returncode, by_name.stdout) == (by_module.returncode, by_module.stdout)
    assert (by_name.stdout == f"{tmp_path} {[str(tmp_path / 'mine.py')]}\n") is not safe
    assert run_module(script, "theirs").returncode == 1


# Completion


def completions(line: str, cwd: Path) -> list[str]:
    """What a shell gets by the protocol of argcomplete for the line typed so far."""
    pytest.importorskip("argcomplete")
    answer = cwd / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'@><=;|&(:",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    done([sys.executable, "-c", SCRIPT], cwd=cwd, env=asked)
    return sorted(word.strip() for word in answer.read_text().splitlines())


def test_commands_and_options_and_values_are_completed(tmp_path: Path) -> None:
    assert completions("sslsock pro", tmp_path) == ["proxy"]
    assert set(COMMANDS) <= set(completions("sslsock ", tmp_path))
    assert completions("sslsock bench --own", tmp_path) == ["--own-ciphers"]
    assert completions("sslsock connect --starttls ", tmp_path) == ["imap", "pop3", "smtp"]
    (tmp_path / "site.pem").touch()
    assert completions("sslsock proxy --cert si", tmp_path) == ["site.pem"]


def test_a_shell_that_asks_without_argcomplete_gets_the_usual(tmp_path: Path) -> None:
    (tmp_path / "argcomplete.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    ended = done([sys.executable, "-m", "sslsock", "--version"], env={"_ARGCOMPLETE": "1", "PYTHONPATH": path})
    assert ended.stdout.startswith("sslsock ")
