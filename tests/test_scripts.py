"""The scripts of ci/ say what they do, before they set anything up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from peers import needs_sources

CI = Path(__file__).resolve().parent.parent / "ci"
# `ci/demo --help` is the proxy's own help, which needs the package.
SCRIPTS = sorted(path.name for path in CI.glob("*") if os.access(path, os.X_OK) and path.is_file() and path.name != "demo")

pytestmark = needs_sources


def run(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    script = CI / name
    python = [sys.executable] if "python" in script.read_text().partition("\n")[0] else ["sh"]
    bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path), "HOME": "/nowhere", "PYTHON": "/nowhere/python3"}
    bare.update(variables)
    return subprocess.run([*python, str(script), *arguments], env=bare, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_each_says_how_it_is_used(name: str, option: str) -> None:
    done = run(name, option)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ci/{name}" in done.stdout or f"usage: {name}" in done.stdout
    assert "set -eu" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    ["--first", "--first x", "--first 1 2 3", "--first 1 x", "--seed", "--input", "--input file", "--seconds 10", "10 20", "x"],
)
def test_arguments_that_the_fuzzer_does_not_know(arguments: str) -> None:
    done = run("fuzz", *arguments.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fuzz: usage: ci/fuzz ")


@pytest.mark.parametrize("releases", ["3.8", "3.16", "3.14 2.7", "cp314", "/usr/bin/python3"])
def test_a_release_of_cpython_that_no_wheel_is_for(releases: str) -> None:
    done = run("build-wheels", PYTHONS=releases)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"build-wheels: not a release of CPython that has a wheel: {releases.split()[-1]}\n"


def test_metadata_and_wheels_name_the_same_releases_of_cpython() -> None:
    project, script = ((CI.parent / name).read_text() for name in ("pyproject.toml", "ci/build-wheels"))
    named = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', project)
    built = re.findall(r"3\.(\d+t?)", re.findall(r"^pythons=\$\{PYTHONS:-(.*)\}$", script, re.M)[0])
    public = re.findall(r'^build = "cp\{(.*?)\}-', project, re.M)[0].split(",")
    every = [*named, *(f"{number}t" for number in named if int(number) >= 14)]  # and the free-threaded ones
    assert built == every
    assert sorted(public) == sorted(f"3{number}" for number in every)
    assert f'requires-python = ">=3.{named[0]}"' in project
