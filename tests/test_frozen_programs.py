"""Programs that PyInstaller has put into a folder of their own: all modules are there, those that are compiled too."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sslsock
from peers import SOURCES, needs_sources
from sslsock import _pyinstaller

PACKAGE = Path(sslsock.__file__).parent
LIMIT = 300.0  # seconds to freeze a program

PROGRAM = """
import sys
import sslsock
from sslsock.core.issue import LOCALHOST, issue_certificate, make_authority

assert sys.frozen
authority, key = make_authority()
certificate, own_key = issue_certificate(authority, key, [*LOCALHOST, "b\\u00fccher.example"])

server = sslsock.SslServer()
settings = sslsock.SslConfiguration()
settings.local_certificate, settings.private_key = certificate, own_key
server.configuration = settings

def serve(server):
    sock = server.next_pending_secure_connection()
    sock.ready_read_handler = lambda sock: sock.write(sock.read())

server.new_connection_handler = serve
assert server.listen(0, "127.0.0.1"), server.error_string

client = sslsock.SslSocket()
trust = sslsock.SslConfiguration()
trust.add_ca_certificate(authority)
trust.use_system_ca = False
client.configuration = trust
client.encrypted_handler = lambda sock: sock.write(b"hello")
client.ready_read_handler = lambda sock: (print(sock.read().decode()), sslsock.stop())
client.error_handler = lambda sock, error: sys.exit(sock.error_string)
client.connect_encrypted("localhost", server.port)
sslsock.run()

relay = sslsock.Relay  # and what else is loaded late
sslsock.Engine(sslsock.Context(server_side=False), verify_name="b\\u00fccher.example")

import ssl as stdlib
from sslsock import ssl  # made from the code of the interpreter's
assert isinstance(ssl.create_default_context(), stdlib.SSLContext)
print(sslsock.build_info()["openssl"] == sslsock.openssl_version(), certificate.not_after.year > 2000)
"""


def distribution() -> importlib.metadata.Distribution | None:
    """None: what runs is a checkout, and nobody has installed it."""
    try:
        return importlib.metadata.distribution("sslsock")
    except importlib.metadata.PackageNotFoundError:
        return None


def test_the_hook_is_where_its_entry_point_says() -> None:
    installed = distribution()
    if installed is not None:
        (found,) = [entry for entry in installed.entry_points if entry.group == "pyinstaller40"]
        assert found.load() is _pyinstaller.hook_folders
    (folder,) = _pyinstaller.hook_folders()
    assert os.listdir(folder).count("hook-sslsock.core.py") == 1


@pytest.mark.slow
def test_a_program_runs_from_a_folder_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    # Of a wheel the entry point names the hook; a checkout has none.
    hooks = [] if distribution() is not None else ["--additional-hooks-dir", *_pyinstaller.hook_folders()]
    made = subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--log-level", "WARN", "--onedir", "--name", "program",
         "--paths", str(PACKAGE.parent), *hooks, "--distpath", str(tmp_path / "made"),
         "--workpath", str(tmp_path / "work"), "--specpath", str(tmp_path), str(program)],
        env={**os.environ, "PYINSTALLER_CONFIG_DIR": str(tmp_path / "config")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, cwd=tmp_path,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout
    assert "sslsock" not in made.stdout, f"PyInstaller has missed something:\n{made.stdout}"
    program.unlink()
    ran = subprocess.run(
        [tmp_path / "made" / "program" / "program"], env={}, cwd="/", capture_output=True, text=True, timeout=LIMIT
    )
    assert (ran.returncode, ran.stdout.split("\n")[:2]) == (0, ["hello", "True True"]), ran.stderr


IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]|import[ \t]+([\w.]+))(.*)", re.M)


@needs_sources
def test_all_that_compiled_modules_import_is_named() -> None:
    paths = [path for folder in ("core", "_ssl") for path in (SOURCES / folder).glob("*.pyx")]
    modules = {f"sslsock.{path.parent.name}.{path.stem}" for path in paths}
    wanted = set()
    for path in paths:
        for origin, plain, rest in IMPORT.findall(path.read_text()):
            names = [plain] if plain else [origin]
            if origin in ("sslsock.core", "sslsock._ssl"):
                names = [f"{origin}.{name.strip()}" for name in rest.partition("#")[0].split(",")]
            wanted |= {name for name in names if name not in modules}
    tree = ast.parse((SOURCES / "core" / "compiled_imports.py").read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert named == wanted | {"sslsock.core._native"}
