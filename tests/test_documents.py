"""What the documents say is so: the examples of the README run, the reference has every public name."""

import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

import sslsock
import sslsock.aio
from sslsock.__main__ import make_parser
from sslsock.proxy import builder

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLE = re.compile(r"^## (.+?)\n(?:(?!^## )[\s\S])*?```python\n([\s\S]*?)```", re.M)
EXAMPLES = dict(EXAMPLE.findall(README))
RELAYS = dict(EXAMPLE.findall((ROOT / "docs" / "relay.md").read_text()))
AWAITING = dict(EXAMPLE.findall((ROOT / "docs" / "awaiting.md").read_text()))

needs_tasks = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has no such time limit before CPython 3.11")


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
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
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


@contextlib.contextmanager
def serving(title, folder):
    """The port of a server of docs/awaiting.md, which runs meanwhile."""
    code = AWAITING[title]
    assert code.count("server.listen(4433)") == 1
    program = start(code.replace("server.listen(4433)", "(server.listen(0), print(server.port))[0]"), folder)
    try:
        yield int(program.stdout.readline())
    finally:
        program.kill()
        _, err = program.communicate()
        assert "Traceback" not in err and "Warning" not in err, err  # the client may be gone before it has heard of the end


@needs_tasks
@pytest.mark.parametrize(("title", "reply"), [("A server", b"HELLO\n"), ("Handlers that are coroutines", b"done: hello\n")])
def test_the_servers_of_coroutines_run(folder, title, reply):
    with serving(title, folder) as port, encrypted(socket.create_connection(("localhost", port)), folder) as sock:
        for _ in range(2):
            assert echoed(sock, b"hello\n", len(reply)) == reply


@needs_tasks
def test_the_client_of_coroutines_runs(folder):
    server = """
import socket, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("server.pem", "server.key")
listener = socket.create_server(("127.0.0.1", 0)); print(listener.getsockname()[1])
c, _ = listener.accept(); c = context.wrap_socket(c, server_side=True); c.sendall(b"* OK ready\\r\\n")
assert c.recv(99) == b"a LOGOUT\\r\\n"; c.sendall(b"* BYE\\r\\na OK\\r\\n"); c.unwrap()
"""
    peer = start(server, folder)
    try:
        port = peer.stdout.readline().strip()
        code = AWAITING["A client"].replace('"mail.example.com", 993', f'"localhost", {port}')
        assert output(code, folder) == "TLS_1_3 b'* OK ready\\r\\n'\nb'* BYE\\r\\n'\nb'a OK\\r\\n'\n"
    finally:
        peer.kill()
        peer.communicate()


@contextlib.contextmanager
def relaying(title, folder, listen, *changes):
    """The port of an example of docs/relay.md, which runs meanwhile."""
    code = RELAYS[title]
    own = (f"server.listen({listen},", "server.listen(0,"), ("sslsock.run()", "print(server.port)\nsslsock.run()")
    for old, new in (*own, *changes):
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    program = start(code, folder)
    try:
        yield int(program.stdout.readline())
    finally:
        program.kill()
        _, err = program.communicate()
        assert err == "", err


@pytest.fixture
def plain_echo_port(folder):
    """A server of the standard library."""
    code = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096): self.request.sendall(data)
with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
    print(server.server_address[1]); server.serve_forever()
"""
    server = start(code, folder)
    try:
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.communicate()


def echoed(sock, text=b"good morning", size=None):
    """`text`, as it comes back, or what comes in its place: `size` bytes."""
    sock.settimeout(30)
    sock.sendall(text)
    heard = b""
    while len(heard) < (size or len(text)) and (piece := sock.recv(4096)):
        heard += piece
    return heard


def encrypted(sock, folder):
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    return context.wrap_socket(sock, server_hostname="localhost")


def connected(port):
    return socket.create_connection(("127.0.0.1", port), 30)


def test_the_relay_that_terminates(folder, plain_echo_port):
    assert EXAMPLES["A relay"] == RELAYS["Terminate"]
    with relaying("Terminate", folder, 8443, ("8080", str(plain_echo_port))) as port:
        with connected(port) as plain, encrypted(plain, folder) as sock:
            assert echoed(sock) == b"good morning"
        connected(port).close()  # one that leaves at once


def test_the_relay_that_originates(folder, echo_port):
    with relaying("Originate", folder, 8000, ('"www.example.com", 443', f'"localhost", {echo_port}')) as port:
        with connected(port) as sock:
            assert echoed(sock) == b"good morning"
        connected(port).close()


def test_the_relay_after_connect(folder, plain_echo_port):
    change = ('b"www.example.com:443": ("www.example.com", 443)', f'b"echo:7": ("127.0.0.1", {plain_echo_port})')
    with relaying("Hand over", folder, 3128, change) as port:
        with connected(port) as sock:
            answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
            sock.sendall(b"CONNECT echo:7 HTTP/1.1\r\nHost: echo\r\n\r\nearly ")
            heard = b""
            while len(heard) < len(answer) + 6 and (piece := sock.recv(4096)):
                heard += piece
            assert heard == answer + b"early "
            assert echoed(sock) == b"good morning"
        for wrong in (b"CONNECT other:7 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\r\n"):
            with connected(port) as sock:
                sock.sendall(wrong)
                assert sock.recv(4096).startswith(b"HTTP/1.1 403 ")


def test_the_relay_by_name(folder, echo_port):
    with relaying("Pass through by name", folder, 443, ("8443", str(echo_port))) as port:
        with connected(port) as plain, encrypted(plain, folder) as sock:
            assert echoed(sock) == b"good morning"
        with connected(port) as plain, pytest.raises(OSError):
            context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            context.wrap_socket(plain, server_hostname="other.example")


@pytest.mark.parametrize("title", sorted(RELAYS))
def test_every_example_of_the_relay_compiles(title):
    compile(RELAYS[title], title, "exec")


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


def test_the_example_of_a_certificate_that_is_asked_for_later(folder):
    code = (
        EXAMPLES["A certificate that is asked for later"]
        + """
def accept(server):
    s = server.next_pending_secure_connection()
    s.ready_read_handler, s.peer_certificate_handler = ready, answered

def show(s):
    print(s.read_all().decode())
    sslsock.stop()

read = lambda name: open(name, "rb").read()
server = sslsock.SslServer()
server.configuration = later(sslsock.SslConfiguration())
server.configuration.set_identity(read("server.pem"), read("server.key"))
server.configuration.peer_verify_mode = sslsock.SslSocket.QUERY_PEER
server.new_connection_handler = accept
server.listen(0, "127.0.0.1")
client = sslsock.SslSocket()
client.configuration = later(sslsock.SslConfiguration())
client.ready_read_handler = show
client.connect_encrypted("localhost", server.port)
client.write(b"who am I?")
sslsock.run()
"""
    )
    assert output(code, folder) == "nobody\n"


def test_the_example_of_pre_shared_keys_shakes_hands(folder):
    code = EXAMPLES["Pre-shared keys"] + (
        "def accept(server):\n"
        "    s = server.next_pending_secure_connection()\n"
        "    s.disconnected_handler = lambda s: sslsock.stop()\n"
        "show = client.encrypted_handler\n"
        "client.encrypted_handler = lambda s: (show(s), s.disconnect())\n"
        "server.new_connection_handler = accept\n"
        "server.listen(0, '127.0.0.1')\n"
        "client.connect_encrypted('127.0.0.1', server.port)\n"
        "sslsock.run()\n"
    )
    assert output(code, folder) == "TLS 1.3 TLS_AES_128_GCM_SHA256 True\n"


def test_the_example_of_a_session_resumes_it(folder, echo_port):
    code = EXAMPLES["A session that is kept"].replace('"www.example.com", 443', f'"localhost", {echo_port}')
    assert [output(code, folder) for _ in range(3)] == ["a full handshake\n", "resumed\n", "resumed\n"]
    (folder / "session").write_bytes(b"rubbish")
    assert output(code, folder) == "a full handshake\n"


def test_the_server_of_the_readme_chooses_by_name(folder):
    code = EXAMPLES["A configuration by name"].replace('"www.example.com", "chat.example.com"', '"localhost", "server"')
    (folder / "localhost.pem").write_bytes((folder / "server.pem").read_bytes())
    (folder / "localhost.key").write_bytes((folder / "server.key").read_bytes())
    code += """
def client(name):
    s = sslsock.SslSocket()
    s.peer_verify_name = name
    s.peer_verify_mode = sslsock.SslSocket.VERIFY_NONE
    s.encrypted_handler = lambda s: print("encrypted", name)
    s.error_handler = lambda s, error: print(error.name, name)
    s.disconnected_handler = lambda s: (done.append(s), len(done) == 3 and sslsock.stop())
    s.connect_encrypted("127.0.0.1", server.port)

def accept(server):
    while (s := server.next_pending_secure_connection()) is not None:
        s.encrypted_handler = lambda s: s.disconnect()

done = []
server.new_connection_handler = accept
server.listen(0, "127.0.0.1")
for name in ("localhost", "LOCALHOST", "other.example"):
    client(name)
sslsock.run()
"""
    lines = sorted(output(code, folder).splitlines())
    assert [line for line in lines if line.startswith("encrypted")] == ["encrypted LOCALHOST", "encrypted localhost"]
    assert next(line for line in lines if "other" in line) == "SSL_HANDSHAKE_FAILED_ERROR other.example"


def test_the_engine_example_shakes_hands(folder, echo_port):
    code = EXAMPLES["Without sockets"] + (
        "import socket\n"
        f"engine = handshake(socket.create_connection(('localhost', {echo_port})), 'localhost')\n"
        "print(engine.handshake_done, hex(engine.protocol))\n"
    )
    assert output(code, folder) == "True 0x304\n"


def test_every_public_name_is_in_the_reference():
    # `::: NAME` is an entry: ci/docs makes it of the docstring, and fails where there is none.
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    entries = re.findall(r"^::: (sslsock\.[\w.]+)$", pages, re.M)
    names = {f"sslsock.{name}" for name in sslsock.__all__ if name != "__version__"}
    names |= {f"sslsock.aio.{name}" for name in sslsock.aio.__all__}
    assert names <= set(entries), f"no entry in docs/reference: {sorted(names - set(entries))}"
    assert len(entries) == len(set(entries)), "an entry stands twice"


def test_every_command_is_in_the_reference():
    listed = re.findall(r"^::: --help (\w+)$", (ROOT / "docs" / "reference" / "command-line.md").read_text(), re.M)
    commands = next(action for action in make_parser()._actions if action.dest == "command")
    assert sorted(listed) == sorted(commands.choices)


def test_every_key_of_the_proxys_file_is_in_the_reference():
    page = (ROOT / "docs" / "reference" / "proxy-file.md").read_text()
    sections = dict(re.findall(r"^## (.+)\n([\s\S]*?)(?=^## |\Z)", page, re.M))
    listed = {title: re.findall(r"^\| `([\w-]+)` \|", text, re.M) for title, text in sections.items()}
    targets = listed["Back ends"]
    assert sorted(listed["In front of the first table"]) == sorted(builder.TOP)
    assert sorted(listed["`[[listener]]`"] + targets) == sorted(builder.LISTENER)
    assert sorted(listed["`[[listener.route]]`"] + targets) == sorted(builder.ROUTE)
