"""What the documents say is so: the examples of the README run, the API reference is that of the docstrings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = dict(re.findall(r"^## (.+?)\n(?:(?!^## )[\s\S])*?```python\n([\s\S]*?)```", README, re.M))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "server.pem", append=True)
    return folder


def start(code, folder):
    """A Python program that trusts the test's authority as its system's."""
    environment = dict(os.environ, SSL_CERT_FILE=str(folder / "ca.pem"), PYTHONUNBUFFERED="1")
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )


@pytest.fixture
def echo_port(folder):
    """The port of the README's server."""
    assert "server.listen(4433," in EXAMPLES["A server"]
    code = EXAMPLES["A server"].replace("4433", "0").replace("sslsock.run()", "print(server.port)\nsslsock.run()")
    server = start(code, folder)
    try:
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.communicate()


def output(code, folder):
    program = start(code, folder)
    try:
        out, err = program.communicate(timeout=30)
    finally:
        program.kill()
    assert program.returncode == 0, err
    return out


def test_the_client_talks_to_the_server(folder, echo_port):
    code = EXAMPLES["A client"].replace('"chat.example.com", 993', f'"localhost", {echo_port}')
    assert str(echo_port) in code
    out = output(code.replace("sslsock.run()", 's.write(b"good morning")\nsslsock.run()'), folder)
    assert "TLS" in out and out.endswith("good morning\n")


def test_the_asyncio_example_runs(folder, echo_port):
    code = EXAMPLES["Inside asyncio"].replace('"www.example.com", 443', f'"localhost", {echo_port}')
    assert "HEAD / HTTP/1.0" in output(code, folder)


def test_the_starttls_example_runs(folder):
    server = """
import imaplib, socket, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("server.pem", "server.key")
listener = socket.create_server(("127.0.0.1", 0)); print(listener.getsockname()[1])
c, _ = listener.accept(); c.sendall(b"* OK ready\\r\\n"); assert c.recv(99) == b"a STARTTLS\\r\\n"; c.sendall(b"a OK\\r\\n")
c = context.wrap_socket(c, server_side=True); assert c.recv(99) == b"b CAPABILITY\\r\\n"; c.sendall(b"* CAPABILITY IMAP4\\r\\n")
c.recv(1)
"""
    peer = start(server, folder)
    try:
        code = EXAMPLES["STARTTLS"].replace('"imap.example.com", 143', f'"localhost", {peer.stdout.readline().strip()}')
        assert "* CAPABILITY IMAP4" in output(code, folder)
    finally:
        peer.kill()
        peer.communicate()


@pytest.mark.parametrize("title", sorted(EXAMPLES))
def test_every_example_compiles(title):
    compile(EXAMPLES[title], title, "exec")


def test_the_configurations_of_the_readme_serve_mutual_tls(folder):
    code = EXAMPLES["Mutual TLS"] + (
        'read = lambda name: open(name, "rb").read()\n'
        'arguments = read("server.pem"), read("server.key"), read("ca.pem")\n'
        "print(client_configuration(*arguments).peer_verify_mode.name, server_configuration(*arguments).use_system_ca)\n"
    )
    assert output(code, folder) == "AUTO_VERIFY_PEER False\n"


def test_the_engine_example_shakes_hands(folder, echo_port):
    code = EXAMPLES["Without sockets"] + (
        "import socket\n"
        f"engine = handshake(socket.create_connection(('localhost', {echo_port})), 'localhost')\n"
        "print(engine.handshake_done, hex(engine.protocol))\n"
    )
    assert output(code, folder) == "True 0x304\n"


def test_the_api_reference_is_that_of_the_docstrings():
    check = subprocess.run(
        [sys.executable, str(ROOT / "ci" / "api-reference"), "--check"], capture_output=True, text=True, timeout=60
    )
    assert check.returncode == 0, check.stderr
