"""The pages of docs/libraries: their examples run as they stand, but for the peer's address; the table of docs/ssl.md, the
pages and the programs of `libraries/` belong together.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_libraries import CASES, OURS, PROGRAMS, SERVERS, answers, need
from test_real_servers import REAL
from tls_pairs import Files

from command_helpers import ENVIRONMENT, TIMEOUT

DOCS = Path(__file__).resolve().parents[2] / "docs"
WORK = {path.stem for path in (DOCS.parent / "tests/aio/libraries").glob("*_work.py")}
PAGES = {path.stem: path.read_text() for path in sorted((DOCS / "libraries").glob("*.md"))}
HTTPS = {"www.example.com": "localhost:{port}"}
APART = {'"www.example.com", 443': '"localhost", {port}'}

# Page: the modules that its example needs, the server of page_peer.py that it meets, what stands there for its address.
CLIENTS: dict[str, tuple[list[str], list[str], dict[str, str]]] = {
    "http-client": ([], ["https"], HTTPS),
    "mail": ([], ["smtp", "imap"], {'"mail.example.com", 587': '"localhost", {port}',
                                    '"mail.example.com", 143': '"localhost", {port}'}),
    "asyncio": ([], ["https"], APART),
    "requests": (["requests"], ["https"], HTTPS),
    "urllib3": (["urllib3"], ["https"], HTTPS),
    "httpx": (["httpx"], ["https"], HTTPS),
    "aiohttp": (["aiohttp"], ["https"], HTTPS),
    "tornado": (["tornado"], ["https"], HTTPS),
    "trio": (["trio"], ["https"], APART),
    "anyio": (["anyio"], ["https"], APART),
    "websockets": (["websockets"], ["websocket"], HTTPS),
    "websocket-client": (["websocket"], ["websocket"], HTTPS),
    "grpclib": (["grpclib"], ["grpc"], APART),
    "pymysql": (["pymysql"], ["mysql"], {'host="db.example.com"': 'host="localhost", port={port}'}),
    "asyncpg": (["asyncpg"], ["postgres"], {'host="db.example.com"': 'host="localhost", port={port}'}),
    "redis": (["redis"], ["redis"], {'host="cache.example.com"': 'host="localhost", port={port}'}),
    "paho-mqtt": (["paho"], ["mqtt"], {'"mqtt.example.com", 8883': '"localhost", {port}'}),
    "aiosmtplib": (["aiosmtplib"], ["smtp"], {'"mail.example.com"': '"localhost"', "587": "{port}"}),
    "aioimaplib": (["aioimaplib"], ["imaps"], {'"mail.example.com", 993': '"localhost", {port}'}),
    "aiomqtt": (["aiomqtt"], ["mqtt"], {'"mqtt.example.com", 8883': '"localhost", {port}'}),
    "pika": (["pika"], ["amqp"], {'"mq.example.com", 5671': '"localhost", {port}', '"mq.example.com")': '"localhost")'}),
    "ldap3": (["ldap3"], ["ldap"], {'"ldap.example.com", 636': '"localhost", {port}'}),
    "kafka-python": (["kafka"], ["kafka"], {"kafka.example.com:9093": "localhost:{port}"}),
    "gevent": (["gevent"], ["https"], {'("www.example.com", 443)': '("localhost", {port})',
                                        'server_hostname="www.example.com"': 'server_hostname="localhost"'}),
}  # fmt: skip
# What an example prints, where it is not the answer 200 of HTTPS.
PRINTED = {
    "mail": "(250, b'ok')\n('OK', [b'done'])",
    "websockets": "hello", "websocket-client": "hello", "grpclib": "h2", "pymysql": "", "asyncpg": "SELECT 0",
    "redis": "True", "paho-mqtt": "True", "pika": "True", "ldap3": "True",
    "aiosmtplib": "250", "aioimaplib": "OK", "aiomqtt": "published",
}  # fmt: skip
LISTENING = {"http-server": [], "werkzeug": ["werkzeug"]}
COMMANDS = ("uvicorn", "hypercorn", "gunicorn")


def block(page: str, language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.M | re.S)
    assert len(found) == 1, f"docs/libraries/{page}.md has {len(found)} blocks of {language}"
    return str(found[0])


def start(*arguments: object, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """A program that trusts the authority of the tests as its system's."""
    trust = {"SSL_CERT_FILE": str(folder / "ca.pem"), "REQUESTS_CA_BUNDLE": str(folder / "ca.pem")}
    return subprocess.Popen(
        [sys.executable, "-u", *map(str, arguments)], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**ENVIRONMENT, **trust, "PYTHONWARNINGS": "ignore"}, **options,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, files: Files) -> Path:
    """Where examples run: with the certificates that they name."""
    os.symlink(files.ca_file, tmp_path / "ca.pem")
    os.symlink(files.server_file, tmp_path / "server.pem")
    return tmp_path


@contextlib.contextmanager
def peer(name: str, files: Files, folder: Path) -> Iterator[str]:
    """The port of a server that does not have its TLS from us."""
    process = start(PROGRAMS / "page_peer.py", "page", files.ca_file, files.server_file, name, folder=folder)
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port.isdigit(), f"the server {name} has not started"
        yield port
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("page", CLIENTS)
def test_the_example_of_a_client(page: str, files: Files, folder: Path) -> None:
    modules, peers, changes = CLIENTS[page]
    need(modules)
    code = block(page, "python")
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(peer(name, files, folder)) for name in peers]
        for number, (old, new) in enumerate(changes.items()):
            assert old in code, f"docs/libraries/{page}.md has no {old}"
            code = code.replace(old, new.replace("{port}", ports[min(number, len(ports) - 1)]))
        (folder / "example.py").write_text(code)
        program = start(PROGRAMS / "page.py", "example.py", folder=folder, stderr=subprocess.PIPE)
        try:
            out, err = program.communicate(timeout=TIMEOUT)
        finally:
            program.kill()
    assert program.returncode == 0, err
    tls = {line for line in out.splitlines() if line.startswith("TLS ")}
    assert tls == {"TLS ours"}, out + err
    printed = "\n".join(line for line in out.splitlines() if not line.startswith(("TLS ", "listening ")))
    if page in PRINTED:
        assert printed == PRINTED[page]
    else:
        assert printed.startswith("no broker:") if page == "kafka-python" else "200" in printed


@pytest.mark.parametrize("page", LISTENING)
def test_the_example_of_a_server(page: str, files: Files, folder: Path) -> None:
    need(LISTENING[page])
    code = block(page, "python")
    assert code.count("8443") == 1
    (folder / "example.py").write_text(code.replace("8443", "0"))
    program = start(PROGRAMS / "page.py", "example.py", folder=folder, stderr=subprocess.DEVNULL)
    assert program.stdout is not None
    try:
        line = program.stdout.readline()
        assert line.startswith("listening "), line
        context = ssl.create_default_context(cafile=files.ca_file)
        connection = http.client.HTTPSConnection("localhost", int(line.split()[1]), context=context, timeout=TIMEOUT)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        program.kill()
        out, _ = program.communicate()
    assert "TLS ours" in out and "TLS stdlib" not in out


@pytest.mark.parametrize("page", COMMANDS)
def test_the_command_of_a_page_is_the_one_that_is_tested(page: str) -> None:
    words = shlex.split(block(page, "sh"))
    assert words[:4] == ["python", "-m", "sslsock", "run"] and words[4] == "-m"
    changed = [{"server.pem": "FILE", "8443": "0", "127.0.0.1:8443": "127.0.0.1:0"}.get(word, word) for word in words[5:]]
    tested = [word.replace("served:asgi", "app:app").replace("served:wsgi", "app:app") for word in SERVERS[page]]
    assert changed == [word for word in tested if word not in ("--host", "127.0.0.1")]


def test_gunicorn_with_its_configuration(files: Files, folder: Path) -> None:
    need(["gunicorn"])
    (folder / "gunicorn.conf.py").write_text(block("gunicorn", "python"))
    assert answers(["-m", *SERVERS["gunicorn"], "-c", str(folder / "gunicorn.conf.py")], files) == {OURS}


# What belongs together


def test_each_page_is_tested_and_named_in_the_table() -> None:
    table = re.findall(r"\(libraries/([a-z0-9-]+)\.md\)", (DOCS / "ssl.md").read_text())
    assert sorted(table) == sorted(PAGES)
    assert sorted([*CLIENTS, *LISTENING, *COMMANDS, "twisted"]) == sorted(PAGES)


def test_each_program_is_named_by_a_page() -> None:
    named = {name for page in PAGES.values() for name in re.findall(r"`(\w+)\.py`", page)} - {"app"}
    assert named == {*CASES, *REAL, *WORK}


def test_each_library_of_asyncio_is_named_in_its_table() -> None:
    """Those whose pages say what was tested on our loop."""
    table = re.findall(r"\(libraries/([a-z0-9-]+)\.md\)", (DOCS / "asyncio.md").read_text())
    assert sorted(table) == sorted(page for page, text in PAGES.items() if "**asyncio**" in text and page != "asyncio")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short_and_says_what_was_tested_and_what_differs(page: str) -> None:
    assert len(PAGES[page].splitlines()) <= 30
    for part in ("**Tested**", "**Differs**", "**Own contexts**"):
        assert part in PAGES[page]
