"""What the workflows of releases run, from ci/: a release is one only if all is ready for it, and a newer OpenSSL is seen."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from peers import needs_sources

ROOT = Path(__file__).resolve().parent.parent

pytestmark = needs_sources


def run(folder: Path, name: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = ["sh", str(folder / "ci" / name), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What is read of a project, as it is once `towncrier build` has run for 1.2.0."""
    files = {
        "src/sslsock/_version.py": '"""Of the package."""\n\n__version__ = "1.2.0"\n',
        "changes/template.md": "a template\n",
        "CHANGELOG.md": "# Changes\n\n## 1.2.0 (2027-01-02)\n\n### Security\n\n- Mended.\n\n## 1.1.0 (2026-12-01)\n\n- Old.\n",
        "ci/openssl-release": 'OPENSSL_RELEASE="3.5.9 0123 3.5.9-1 4567"\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("lib.sh", "release-notes", "newer-openssl"):
        shutil.copy(ROOT / "ci" / name, tmp_path / "ci")
    return tmp_path


def test_the_notes_of_a_release_are_its_section_of_the_changelog(project: Path) -> None:
    done = run(project, "release-notes", "1.2.0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "### Security\n\n- Mended.\n", "")


@pytest.mark.parametrize(
    ("version", "file", "text", "complaint"),
    [
        ("1.2.1", "changes/template.md", "", "_version.py has another version than 1.2.1"),
        ("1.2.0", "changes/+more.security.md", "One more.", "news fragments"),
        ("1.2.0", "CHANGELOG.md", "# Changes\n\n## 1.2.00\n\n- No.\n\n## 1.1.0\n\n- Old.\n", "has no section of 1.2.0"),
    ],
)
def test_what_is_not_ready_is_no_release(project: Path, version: str, file: str, text: str, complaint: str) -> None:
    (project / file).write_text(text)
    done = run(project, "release-notes", version)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr


def tags(*names: str) -> str:
    return "".join(f"0123456789abcdef\trefs/tags/{name}\n" for name in names)


@pytest.mark.parametrize(
    ("names", "newer"),
    [
        (["openssl-3.5.8", "openssl-3.5.9"], ""),
        (["openssl-3.5.8"], ""),
        (["openssl-3.5.9", "openssl-3.5.11", "openssl-3.5.10"], "3.5.11\n"),
        (["openssl-3.5.9", "openssl-3.5.10-beta1", "openssl-3.6.1", "openssl-3.50.10", "openssl-13.5.10"], ""),
    ],
)
def test_a_newer_release_of_the_same_series_is_seen(project: Path, names: list[str], newer: str) -> None:
    done = run(project, "newer-openssl", given=tags(*names))
    assert (done.returncode, done.stdout, done.stderr) == (0, newer, "")


def test_tags_without_the_series_are_an_error(project: Path) -> None:
    """Else a change of the tags' names would go unseen for ever."""
    done = run(project, "newer-openssl", given=tags("v3.5.9", "openssl-4.0.0"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "no release of the series 3.5" in done.stderr
