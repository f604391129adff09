"""docs/how-to/troubleshooting.md says what our faces say: each of its errors is provoked, and compared with the page. "…" on
the page stands for anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import re
import socket
import ssl as standard
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
import trustme

import sslsock.aio
from command_helpers import ENVIRONMENT, TIMEOUT, Identity, command, heeding_cuts
from sslsock import ssl

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "troubleshooting.md"
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.M | re.S)
ROW = re.compile(r"^- (SslSocket|`sslsock\.ssl`|asyncio|the proxy): `(.*)`$", re.M)
OR = "`, or `"  # where versions of OpenSSL differ

Script = Callable[[socket.socket], object]


@contextlib.contextmanager
def serving(script: Script) -> Iterator[int]:
    """A server whose connections are each a thread's, with `script`, whatever it raises."""

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(TIMEOUT)
            script(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity(tmp_path_factory.mktemp("troubleshooting"))


class Trouble:
    """What the clients and servers of our faces say of a peer."""

    def __init__(self, files: Identity) -> None:
        self.files = files

    # Clients

    def clients(self, port: int, ca: Optional[Path] = None, *, name: str = "localhost", alter: Any = None) -> dict[str, str]:
        """alter(face, settings): what is changed in a context, or in a configuration."""
        ca = ca or self.files.ca
        return {
            "SslSocket": self.socket_client(port, ca, name, alter),
            "`sslsock.ssl`": self.ssl_client(port, ca, name, alter),
            "asyncio": self.asyncio_client(port, ca, name, alter),
        }

    def socket_client(self, port: int, ca: Path, name: str, alter: Any) -> str:
        s = sslsock.SslSocket()
        s.peer_verify_name = name
        s.configuration.use_system_ca = False
        s.configuration.add_ca_file(ca)
        if alter is not None:
            alter("socket", s)
        said: list[str] = []
        s.error_handler = lambda s, error: said.append(s.error_string)
        s.encrypted_handler = lambda s: s.write(b"hello\n")
        s.connect_encrypted("127.0.0.1", port)
        sslsock.run()
        return said[0]

    def context(self, ca: Path, alter: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(ca))
        heeding_cuts(context)
        if alter is not None:
            alter("context", context)
        return context

    def ssl_client(self, port: int, ca: Path, name: str, alter: Any) -> str:
        with contextlib.ExitStack() as stack:
            failed = stack.enter_context(pytest.raises(OSError))
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT))
            connection = stack.enter_context(self.context(ca, alter).wrap_socket(plain, server_hostname=name))
            connection.sendall(b"hello\n")
            connection.recv(100)
        return told(failed)

    def asyncio_client(self, port: int, ca: Path, name: str, alter: Any) -> str:
        async def main() -> None:
            context = self.context(ca, alter)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
            try:
                writer.write(b"hello\n")
                await reader.read(100)
            finally:
                writer.close()

        with pytest.raises(OSError) as failed:
            sslsock.aio.run(main())
        return told(failed)

    def proxy(self, *words: object, ask: Callable[[int], object]) -> str:
        """`reason=…  error=…` of the line that the proxy logs of a connection."""
        words = ("proxy", *words, "--threads", "1", "--log-format", "json")
        with subprocess.Popen(
            command(*words), env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            watchdog = threading.Timer(TIMEOUT, process.kill)
            watchdog.start()
            try:
                assert process.stdout is not None and process.stderr is not None
                port = int(process.stdout.readline().partition(",")[0].rpartition(":")[2])
                with contextlib.suppress(OSError):
                    ask(port)
                line = next(line for line in map(json.loads, process.stderr) if "reason" in line)
                return f"reason={line['reason']} error={line['error']}"
            finally:
                watchdog.cancel()
                process.kill()
                process.communicate()

    def proxy_to(self, port: int, *words: object, name: str = "localhost") -> str:
        """Of one that is a client."""

        def ask(front: int) -> None:
            with socket.create_connection(("127.0.0.1", front), TIMEOUT) as plain:
                plain.sendall(b"hello\n")
                plain.recv(100)

        words = ("--listen", "tcp://127.0.0.1:0", "--to", f"tls://127.0.0.1:{port}", "--to-server-name", name, *words)
        if "--to-ca" not in words:
            words += ("--to-ca", self.files.ca)
        return self.proxy(*words, ask=ask)

    # Servers

    def servers(self, ask: Callable[[int], object], alter: Any = None) -> dict[str, str]:
        return {"SslSocket": self.socket_server(ask, alter), "`sslsock.ssl`": self.ssl_server(ask, alter)}

    def socket_server(self, ask: Callable[[int], object], alter: Any) -> str:
        said: list[str] = []

        def error(s: sslsock.SslSocket, error: sslsock.SocketError) -> None:
            said.append(s.error_string)
            server.close()

        def accept(server: sslsock.SslServer) -> None:
            s = server.next_pending_secure_connection()
            assert s is not None
            s.error_handler = error

        server = sslsock.SslServer()
        server.configuration.set_identity(self.files.both.read_bytes())
        if alter is not None:
            alter("socket", server)
        server.new_connection_handler = accept
        assert server.listen(0, "127.0.0.1"), server.error_string
        asking = self.in_thread(ask, server.port)
        sslsock.run()
        asking.join(TIMEOUT)
        return said[0]

    def ssl_server(self, ask: Callable[[int], object], alter: Any) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files.both)
        if alter is not None:
            alter("context", context)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            asking = self.in_thread(ask, listener.getsockname()[1])
            plain = listener.accept()[0]
            plain.settimeout(TIMEOUT)
            with pytest.raises(OSError) as failed, plain, context.wrap_socket(plain, server_side=True) as tls:
                tls.recv(100)
            asking.join(TIMEOUT)
        return told(failed)

    @staticmethod
    def in_thread(ask: Callable[[int], object], port: int) -> threading.Thread:
        def run() -> None:
            with contextlib.suppress(OSError):
                ask(port)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def proxy_server(self, ask: Callable[[int], object], *words: object) -> str:
        words = ("--listen", "tls://127.0.0.1:0", "--to", "tcp://127.0.0.1:1", "--cert", self.files.both, *words)
        return self.proxy(*words, ask=ask)

    def asking(self, context: Optional[standard.SSLContext] = None, name: str = "localhost") -> Callable[[int], object]:
        """A client of the standard library's."""

        def ask(port: int) -> None:
            plain = socket.create_connection(("127.0.0.1", port), TIMEOUT)
            shaken(context or self.files.client_context(), plain, self.talk, server_hostname=name)

        return ask

    @staticmethod
    def talk(connection: standard.SSLSocket) -> None:
        connection.sendall(b"hello\n")
        connection.recv(100)


def told(failed: pytest.ExceptionInfo[BaseException]) -> str:
    name = type(failed.value).__name__
    return f"{'TimeoutError' if name == 'timeout' else name}: {failed.value}"  # CPython 3.9 has two


@pytest.fixture
def trouble(files: Identity) -> Trouble:
    return Trouble(files)


def shaken(
    context: standard.SSLContext, plain: socket.socket, then: Callable[[standard.SSLSocket], object], **words: Any
) -> None:
    """A handshake of the standard library's. When it fails, the peer's last words are still awaited: a socket that is closed
    before would have the system reset the connection, and the alert might be lost."""
    with context.wrap_socket(plain, do_handshake_on_connect=False, **words) as connection:
        try:
            connection.do_handshake()
            then(connection)
        except standard.SSLError:
            socket.socket.shutdown(connection, socket.SHUT_WR)
            while socket.socket.recv(connection, 1000):
                pass


def tls(context: standard.SSLContext) -> Script:
    """A TLS server of the standard library's."""
    return lambda plain: shaken(context, plain, lambda connection: connection.recv(100), server_side=True)


def server_context(files: Identity, certificate: Optional[trustme.LeafCert] = None) -> standard.SSLContext:
    context = standard.SSLContext(standard.PROTOCOL_TLS_SERVER)
    (certificate or files.issued).configure_cert(context)
    return context


def at_most_tls_1_2(face: str, settings: Any) -> None:
    if face == "socket":
        settings.configuration.maximum_protocol = sslsock.SslProtocol.TLS_1_2
    else:
        settings.maximum_version = ssl.TLSVersion.TLSv1_2


def at_least_tls_1_3(face: str, settings: Any) -> None:
    if face == "socket":
        settings.configuration.minimum_protocol = sslsock.SslProtocol.TLS_1_3
    else:
        settings.minimum_version = ssl.TLSVersion.TLSv1_3


def wrong_version_number(t: Trouble) -> dict[str, str]:
    def script(plain: socket.socket) -> None:
        plain.sendall(b"220 mail.example.com ready\r\n")
        plain.recv(1000)

    with serving(script) as port:
        return {**t.clients(port), "the proxy": t.proxy_to(port)}


def http_request(t: Trouble) -> dict[str, str]:
    def ask(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            plain.recv(1000)

    return {**t.servers(ask), "the proxy": t.proxy_server(ask)}


def unknown_issuer(t: Trouble) -> dict[str, str]:
    with serving(tls(server_context(t.files))) as port:
        other = trustme.CA()
        ca = t.files.ca.with_name("other.pem")
        other.cert_pem.write_to_path(ca)
        return {**t.clients(port, ca), "the proxy": t.proxy_to(port, "--to-ca", ca)}


def self_signed(t: Trouble) -> dict[str, str]:
    from self_signed import EC_KEY, key_pem, make

    both = t.files.ca.with_name("self.pem")
    both.write_bytes(make(["localhost"], ["localhost"]) + key_pem(EC_KEY))
    context = standard.SSLContext(standard.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with serving(tls(context)) as port:
        return {**t.clients(port), "the proxy": t.proxy_to(port)}


def hostname_mismatch(t: Trouble) -> dict[str, str]:
    with serving(tls(server_context(t.files))) as port:
        name = "www.example.com"
        return {**t.clients(port, name=name), "the proxy": t.proxy_to(port, name=name)}


def expired(t: Trouble) -> dict[str, str]:
    end = datetime.datetime(2000, 1, 2, tzinfo=datetime.timezone.utc)
    old = t.files.authority.issue_cert("localhost", common_name="localhost", not_after=end)
    with serving(tls(server_context(t.files, old))) as port:
        return {**t.clients(port), "the proxy": t.proxy_to(port)}


def unknown_ca(t: Trouble) -> dict[str, str]:
    ask = t.asking(standard.create_default_context(cafile=None))
    return {**t.servers(ask), "the proxy": t.proxy_server(ask)}


def no_shared_cipher(t: Trouble) -> dict[str, str]:
    context = t.files.client_context()
    context.maximum_version = standard.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")  # for a server with an ECDSA key
    ask = t.asking(context)
    return {**t.servers(ask), "the proxy": t.proxy_server(ask)}


def handshake_failure(t: Trouble) -> dict[str, str]:
    context = server_context(t.files)
    context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
    context.maximum_version = standard.TLSVersion.TLSv1_2
    with serving(tls(context)) as port:
        return {**t.clients(port), "the proxy": t.proxy_to(port)}


def unsupported_protocol(t: Trouble) -> dict[str, str]:
    context = t.files.client_context()
    context.maximum_version = standard.TLSVersion.TLSv1_2
    ask = t.asking(context)
    return t.servers(ask, at_least_tls_1_3)


def protocol_version(t: Trouble) -> dict[str, str]:
    context = server_context(t.files)
    context.minimum_version = standard.TLSVersion.TLSv1_3
    with serving(tls(context)) as port:
        return t.clients(port, alter=at_most_tls_1_2)


def key_values_mismatch(t: Trouble) -> dict[str, str]:
    other = t.files.ca.with_name("other.key")
    t.files.client.private_key_pem.write_to_path(other)
    other.chmod(0o600)
    with pytest.raises(ValueError) as refused:
        sslsock.SslConfiguration().set_identity(t.files.cert.read_bytes(), other.read_bytes())
    with pytest.raises(ssl.SSLError) as failed:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(t.files.cert, other)
    words = ("proxy", "--listen", "tls://:0", "--to", "tcp://127.0.0.1:1", "--cert", t.files.cert, "--key", other, "--check")
    checked = subprocess.run(command(*words), env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT)
    return {
        "SslSocket": f"ValueError: {refused.value}",
        "`sslsock.ssl`": f"SSLError: {failed.value}",
        "the proxy": checked.stderr.splitlines()[-1],
    }


def bad_record_mac(t: Trouble) -> dict[str, str]:
    """A server whose records somebody changes: the first of application data."""
    context = server_context(t.files)
    context.maximum_version = standard.TLSVersion.TLSv1_2

    def spoiling(plain: socket.socket) -> None:
        incoming, outgoing = standard.MemoryBIO(), standard.MemoryBIO()
        engine = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            with contextlib.suppress(standard.SSLWantReadError):
                engine.do_handshake()
                break
            plain.sendall(outgoing.read())
            incoming.write(plain.recv(65536))
        plain.sendall(outgoing.read())
        engine.write(b"an answer that is changed")
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        plain.sendall(record)
        while plain.recv(1000):
            pass

    with serving(spoiling) as port:
        return {**t.clients(port), "the proxy": t.proxy_to(port)}


def unexpected_eof(t: Trouble) -> dict[str, str]:
    def hang_up(plain: socket.socket) -> None:
        incoming = plain.makefile("rb")
        incoming.read(int.from_bytes(incoming.read(5)[3:], "big"))  # all of it, or the system resets the connection

    def ask(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
            plain.sendall(b"\x16\x03\x01\x02\x00")
            plain.shutdown(socket.SHUT_WR)
            plain.recv(1000)

    with serving(hang_up) as port:
        return {**t.clients(port), "the proxy": t.proxy_to(port)}


def cut(t: Trouble) -> dict[str, str]:
    def cutting(plain: socket.socket) -> None:
        with server_context(t.files).wrap_socket(plain, server_side=True) as connection:
            connection.recv(100)
            connection.sendall(b"half of it")
            socket.socket.shutdown(connection, socket.SHUT_WR)
            with contextlib.suppress(OSError):
                connection.recv(100)

    with serving(cutting) as port:
        return {"SslSocket": t.socket_client(port, t.files.ca, "localhost", None)}


def address_in_use(t: Trouble) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = sslsock.TcpServer()
        assert not server.listen(port, "127.0.0.1")

        async def main() -> None:
            await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)

        with pytest.raises(OSError) as failed:
            sslsock.aio.run(main())
        words = ("proxy", "--listen", f"tcp://127.0.0.1:{port}", "--to", "tcp://127.0.0.1:1")
        done = subprocess.run(command(*words), env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT)
        return {
            "SslSocket": server.error_string,
            "asyncio": told(failed),
            "the proxy": done.stderr.splitlines()[-1],
        }


def certificate_required(t: Trouble) -> dict[str, str]:
    context = server_context(t.files)
    context.verify_mode = standard.CERT_REQUIRED
    context.load_verify_locations(t.files.ca)
    with serving(tls(context)) as port:
        return {**t.clients(port), "the proxy": t.proxy_to(port)}


def no_certificate(t: Trouble) -> dict[str, str]:
    def demand(face: str, settings: Any) -> None:
        if face == "socket":
            settings.configuration.peer_verify_mode = sslsock.SslSocket.VERIFY_PEER
        else:
            settings.verify_mode = ssl.CERT_REQUIRED

    ask = t.asking()
    return {**t.servers(ask, demand), "the proxy": t.proxy_server(ask, "--client-ca", t.files.ca)}


def handshake_timeout(t: Trouble) -> dict[str, str]:
    def silent(plain: socket.socket) -> None:
        while plain.recv(1000):
            pass

    def hurry(face: str, settings: Any) -> None:
        if face == "socket":
            settings.handshake_timeout = 0.1

    def ask(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
            plain.sendall(b"\x16")
            plain.recv(1000)

    with serving(silent) as port:

        async def main() -> None:
            context = t.context(t.files.ca, None)
            await asyncio.open_connection("127.0.0.1", port, ssl=context, ssl_handshake_timeout=0.1)

        with pytest.raises(OSError) as failed:
            sslsock.aio.run(main())
        with pytest.raises(OSError) as timed, socket.create_connection(("127.0.0.1", port), 0.1) as plain:
            t.context(t.files.ca, None).wrap_socket(plain, server_hostname="localhost")
        return {
            "SslSocket": t.socket_client(port, t.files.ca, "localhost", hurry),
            "`sslsock.ssl`": told(timed),
            "asyncio": told(failed),
            "the proxy": t.proxy_server(ask, "--handshake-timeout", "0.1"),
        }


def no_application_protocol(t: Trouble) -> dict[str, str]:
    context = t.files.client_context()
    context.set_alpn_protocols(["h2"])

    def offer(face: str, settings: Any) -> None:
        if face == "socket":
            settings.configuration.allowed_next_protocols = ["http/1.1"]
        else:
            settings.set_alpn_protocols(["http/1.1"])

    ask = t.asking(context)
    return {"SslSocket": t.socket_server(ask, offer), "the proxy": t.proxy_server(ask, "--alpn", "http/1.1")}


def refused(t: Trouble) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    return {**t.clients(port), "the proxy": t.proxy_to(port)}


CASES = {
    "wrong version number": wrong_version_number,
    "http request": http_request,
    "unable to get local issuer certificate": unknown_issuer,
    "self-signed certificate": self_signed,
    "hostname mismatch": hostname_mismatch,
    "certificate has expired": expired,
    "unknown CA": unknown_ca,
    "no shared cipher": no_shared_cipher,
    "handshake failure": handshake_failure,
    "unsupported protocol": unsupported_protocol,
    "protocol version": protocol_version,
    "key values mismatch": key_values_mismatch,
    "bad record mac": bad_record_mac,
    "unexpected eof": unexpected_eof,
    "cut the connection without close_notify": cut,
    "address already in use": address_in_use,
    "certificate required": certificate_required,
    "peer did not return a certificate": no_certificate,
    "handshake timeout": handshake_timeout,
    "no application protocol": no_application_protocol,
    "connection refused": refused,
}
SECTIONS = dict(SECTION.findall(PAGE.read_text()))


def shown(text: str) -> str:
    """With the port and the folder of the page."""
    return re.sub(r"(port |127\.0\.0\.1:|'127\.0\.0\.1', )\d+", r"\g<1>4433", text)


@pytest.mark.parametrize("title", CASES)
def test_the_page_says_what_we_say(title: str, trouble: Trouble) -> None:
    rows = dict(ROW.findall(SECTIONS[title]))
    said = {face: shown(text) for face, text in CASES[title](trouble).items()}
    assert rows.keys() == said.keys()
    for face, text in said.items():
        wanted = "|".join(".*".join(map(re.escape, one.split("…"))) for one in rows[face].split(OR))
        assert re.fullmatch(wanted, text), f"{face} says {text!r}, the page {rows[face]!r}"


def test_each_error_of_the_page_is_provoked() -> None:
    assert list(SECTIONS) == list(CASES)
