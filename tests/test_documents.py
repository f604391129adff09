"""What the documents say is so: the snippets of the README and of docs/ run, the files that the README names are there, the
reference has every public name.
"""

import contextlib
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trustme

import sslsock
import sslsock.aio
import sslsock.proxy_protocol
from peers import needs_sources
from sslsock.__main__ import make_parser
from sslsock.proxy.settings import builder
from sslsock.proxy.settings.limit_values import OF_LISTENERS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLE = re.compile(r"^## (.+?)\n(?:(?!^## )[\s\S])*?```python\n([\s\S]*?)```", re.M)
EXAMPLES = dict(EXAMPLE.findall(README))
SERVER = EXAMPLES["A server"].replace("server.listen(4433,", "server.listen(0,")
RELAYS = dict(EXAMPLE.findall((ROOT / "docs" / "relay.md").read_text()))
PAGES = sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))
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
    server = start(SERVER, folder)
    try:
        said = server.stdout.readline()
        assert re.fullmatch(r"listening on port \d+\n", said)
        yield int(said.split()[-1])
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


def there(title, port):
    """A snippet of the README, for a server of ours."""
    assert EXAMPLES[title].count('"www.python.org", 443') == 1
    return EXAMPLES[title].replace('"www.python.org", 443', f'"localhost", {port}')


def nobodys_port():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return closed.getsockname()[1]


def test_the_client_talks_to_the_server(folder, echo_port):
    said = output(there("A client", echo_port), folder)
    assert re.fullmatch(r"encrypted: TLS 1\.3 TLS_\w+\nanswer: HEAD / HTTP/1\.0\n", said)


def test_the_client_says_what_is_wrong(folder):
    said = output(there("A client", nobodys_port()), folder)
    assert re.fullmatch(r"failed: no connection to localhost port \d+: Connection refused.*\n", said)


def test_the_server_says_what_is_wrong(folder, tmp_path, echo_port):
    for code, there, said in (
        (SERVER, tmp_path, "no certificate: [Errno 2] No such file or directory: 'server.pem'\n"),
        (EXAMPLES["A server"].replace("4433", str(echo_port)), folder, "in use"),
    ):
        program = start(code, there)
        assert said in program.communicate(timeout=30)[1] and program.returncode == 1


def test_the_asyncio_program_runs(folder, echo_port):
    assert output(there("An asyncio program", echo_port), folder) == "answer: HEAD / HTTP/1.0\n"
    assert output(there("An asyncio program", nobodys_port()), folder).startswith("failed: ")


def test_the_server_serves_the_command_of_the_readme(folder, echo_port):
    line = re.search(r"`python (-m sslsock connect localhost:4433 --ca client\.pem)`", README)[1]
    words = line.replace("4433", str(echo_port)).replace("client.pem", "ca.pem").split()
    done = subprocess.run([sys.executable, *words], cwd=folder, input=b"hello\n", capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stdout == b"hello\n", done


@needs_sources
def test_what_the_readme_names_is_there():
    names = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert len(names) > 10 and [name for name in names if not (ROOT / name).exists()] == []


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


def test_every_public_name_is_in_the_reference():
    # `::: NAME` is an entry: ci/docs makes it of the docstring, and fails where there is none.
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    entries = re.findall(r"^::: (sslsock\.[\w.]+)$", pages, re.M)
    names = {f"sslsock.{name}" for name in sslsock.__all__ if name != "__version__"}
    for module in (sslsock.aio, sslsock.proxy_protocol):
        names |= {f"{module.__name__}.{name}" for name in module.__all__ if not name.isupper()}  # constants: in a table
    assert names <= set(entries), f"no entry in docs/reference: {sorted(names - set(entries))}"
    assert len(entries) == len(set(entries)), "an entry stands twice"


def test_every_command_is_in_the_reference():
    listed = re.findall(r"^::: --help (\w+)$", (ROOT / "docs" / "reference" / "command-line.md").read_text(), re.M)
    commands = next(action for action in make_parser()._actions if action.dest == "command")
    assert sorted(listed) == sorted(commands.choices)


def test_every_key_of_the_proxys_file_is_in_the_reference():
    page = (ROOT / "docs" / "reference" / "proxy-file.md").read_text()
    sections = dict(re.findall(r"^## (.+)\n([\s\S]*?)(?=^## |\Z)", page, re.M))
    cells = {title: re.findall(r"^\|([^|]*)\|", text, re.M) for title, text in sections.items()}
    listed = {title: re.findall(r"`([\w-]+)`", " ".join(found)) for title, found in cells.items()}
    targets = listed["Back ends"]
    assert sorted(listed["`[acme]`"]) == sorted(builder.ACME)
    assert sorted(listed["In front of the first table"]) == sorted(builder.TOP)
    assert sorted(listed["`[[listener]]`"] + targets) == sorted(builder.LISTENER + OF_LISTENERS)
    assert sorted(listed["`[[listener.route]]`"] + targets) == sorted(builder.ROUTE)


def proxys_options():
    """Each option of `sslsock proxy`, with the title of its group in --help."""
    commands = next(action for action in make_parser()._actions if action.dest == "command")
    for group in commands.choices["proxy"]._action_groups:
        for action in group._group_actions:
            yield from ((option, group.title) for option in action.option_strings)


def test_the_page_of_the_proxy_has_every_option_once():
    page = (ROOT / "docs" / "proxy.md").read_text()
    section = page[page.index("\n## Options\n") : page.index("\n## Several certificates\n")]
    cells = " ".join(re.findall(r"^\| (`--.*?)(?<!\\) \|", section, re.M))
    listed = re.findall(r"`(--[\w-]+)", cells)
    assert sorted(listed) == sorted(option for option, _ in proxys_options() if option not in ("-h", "--help"))


def test_the_options_that_go_with_a_file_are_those_that_the_help_says():
    titles = list(dict.fromkeys(title for _, title in proxys_options()))
    after = titles[titles.index("limits") :]
    assert sorted(option[2:] for option, title in proxys_options() if title in after) == sorted(builder.TOP)


def test_each_how_to_page_stands_in_their_index():
    pages = ROOT / "docs" / "how-to"
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (pages / "index.md").read_text())
    assert sorted(["index.md", *listed]) == sorted(page.name for page in pages.glob("*.md"))


def test_each_example_stands_on_a_page():
    pages = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    examples = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")} - {"examples/certificates.py"}
    shown = set(re.findall(r'^ *--8<-- "(examples/\w+\.py)"$', pages, re.M))
    assert examples - {"examples/server.py"} == shown  # which the tutorial has, step by step


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "how-to").glob("*.md")), ids=lambda page: page.stem)
def test_every_snippet_of_the_how_to_pages_compiles(page):
    for code in re.findall(r"^( *)```python\n(.*?)^\1```$", page.read_text(), re.M | re.S):
        if "--8<--" not in code[1]:
            compile(textwrap.dedent(code[1]), page.name, "exec")


def commands_of(text):
    """What a reader would type: `sslsock …` or `python -m sslsock …`, alone on a line or between backquotes."""
    joined = re.sub(r" *\\\n +", " ", text)
    lines = re.findall(r"^(?:\$ .*?| *)(?:python -m )?sslsock ([a-z].*)$", joined, re.M)
    for words in [*lines, *re.findall(r"`(?:python -m )?sslsock ([a-z][^`]*)`", joined)]:
        if not words.startswith("run"):  # whose arguments are another program's
            yield re.split(r"  +#| [|>] | 2>|…", words)[0]


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{page}" for page in PAGES)])
def test_the_commands_of_the_pages_are_those_that_there_are(page):
    for words in commands_of((ROOT / page).read_text()):
        words = shlex.split(re.sub(r"HOST:PORT|HOST:\d+", "localhost:1", words))
        try:
            make_parser(words).parse_args(words)
        except SystemExit as end:
            assert end.code == 0, f"{page}: {words}"


LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:|#)([^)\s#]+)(?:#[\w-]+)?\)")


@needs_sources  # else they lie alone
@pytest.mark.parametrize("page", sorted(page.relative_to(ROOT).as_posix() for page in ROOT.glob("*.md")))
def test_files_that_are_linked_to_are_there(page):
    """Of the pages beside docs/, whose links ci/docs looks at."""
    text = re.sub(r"```[\s\S]*?```", "", (ROOT / page).read_text())
    lost = [path for path in LINK.findall(text) if not (ROOT / path).exists()]
    assert not lost, f"{page} links to what is not there: {lost}"


# The README on an index


@needs_sources
def test_an_index_gets_no_relative_link():
    code = "import runpy; print(runpy.run_path('setup.py', run_name='setup')['description']())"
    text = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(targets) == len(re.findall(r"\]\([^)\s]+\)", README)) > 10
    for target in targets:
        home, _, path = target.partition("/blob/main/" if "/blob/" in target else "/raw/main/")
        assert home.startswith("https://") and (not path or (ROOT / path).exists()), target
