"""What is agreed to and how certificates are verified, as the settings say, towards clients and back ends: against `openssl`
and curl."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any, Callable, NamedTuple, Optional

import pytest

from command_helpers import Identity, openssl, s_server
from interop.programs import program
from judged import DAY, NOW, Issued, issue, revoke
from self_signed import Folder, key_pem

from .running import TIMEOUT, Proxy, accept, connect, end_of, listener, receive_exactly, running
from .test_back_end_tls import shaking, to_option

FRONT = {
    "1.2": 'maximum-protocol = "1.2"\nciphers = "ECDHE-ECDSA-AES256-GCM-SHA384"',
    "1.3": 'minimum-protocol = "TLSv1.3"\nciphersuites = "TLS_CHACHA20_POLY1305_SHA256"\ngroups = "P-384"',
    "1.1": 'minimum-protocol = "tlsv1.1"\nmaximum-protocol = "TLS1.1"',
    "signed": 'signature-algorithms = "RSA-PSS+SHA256:ECDSA+SHA384"',
    "modern": 'tls-profile = "modern"',
    "intermediate": 'tls-profile = "intermediate"',
    "old": 'tls-profile = "old"',
    "modern but": 'tls-profile = "modern"\nminimum-protocol = "1.2"\ngroups = "P-521"',
}


class Listeners(NamedTuple):
    """A proxy with a listener for each name."""

    proxy: Proxy
    ports: dict[str, int]

    def record_of(self, name: str, *options: object) -> dict[str, Any]:
        """What is logged of `openssl s_client`, which connects and goes."""
        s_client(self.ports[name], *options)
        return self.proxy.record()


def s_client(port: int, *options: object) -> subprocess.CompletedProcess[bytes]:
    arguments = [openssl(), "s_client", "-connect", f"127.0.0.1:{port}", *map(str, options)]
    return subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)


@contextlib.contextmanager
def proxy_of(folder: FilePath, listeners: dict[str, str]) -> Iterator[Listeners]:
    """listeners: by name, the tables of the file without their headers."""
    file = folder / "proxy.toml"
    file.write_text("".join(f"[[listener]]\n{text}\n" for text in listeners.values()))
    with running("--config", file, listeners=len(listeners)) as proxy:
        yield Listeners(proxy, dict(zip(listeners, proxy.ports)))


@contextlib.contextmanager
def closing() -> Iterator[str]:
    """A back end that reads to the end of each connection and closes it; yields what `to` has to say."""

    def run(listening: socket.socket) -> None:
        while True:
            try:
                sock = listening.accept()[0]
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(TIMEOUT)
                while sock.recv(65536):
                    pass

    with listener() as listening:
        listening.settimeout(None)
        thread = threading.Thread(target=run, args=(listening,), daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT)


@pytest.fixture(scope="module")
def front(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listeners]:
    with closing() as to:
        common = f'listen = "tls://127.0.0.1:0"\nto = "{to}"\ncert = "{identity.cert}"\nkey = "{identity.key}"\n'
        with proxy_of(tmp_path_factory.mktemp("front"), {name: common + text for name, text in FRONT.items()}) as made:
            yield made


WEAK = ("-cipher", "DEFAULT:@SECLEVEL=0")
AES_128, AES_256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("1.2", [], {"version": "TLSv1.2", "cipher": AES_256}),
        ("1.2", ["-tls1_3"], "unsupported protocol"),
        ("1.2", ["-cipher", AES_128], "no shared cipher"),
        ("1.3", ["-groups", "X25519:P-384"], {"version": "TLSv1.3", "cipher": "TLS_CHACHA20_POLY1305_SHA256"}),
        ("1.3", ["-tls1_2"], "unsupported protocol"),
        ("1.3", ["-ciphersuites", "TLS_AES_128_GCM_SHA256"], "no shared cipher"),
        ("1.3", ["-groups", "X25519"], "no suitable key share"),
        ("1.1", ["-tls1_1", *WEAK], {"version": "TLSv1.1"}),
        ("1.1", ["-tls1", *WEAK], "unsupported protocol"),
        ("1.1", ["-tls1_2"], "unsupported protocol|wrong version number"),
        ("signed", ["-tls1_2"], {"version": "TLSv1.2"}),
        ("signed", ["-tls1_2", "-sigalgs", "ECDSA+SHA256"], "no shared (signature algorithms|cipher)"),
        ("signed", ["-tls1_3"], "no suitable signature algorithm"),  # which for a P-256 key wants SHA-256 (RFC 8446, 4.2.3)
        ("modern", [], {"version": "TLSv1.3"}),
        ("modern", ["-ciphersuites", "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"], {"cipher": "TLS_AES_256_GCM_SHA384"}),
        ("modern", ["-tls1_2"], "unsupported protocol"),
        ("modern", ["-groups", "P-521"], "no suitable key share"),
        ("intermediate", ["-tls1_2", "-cipher", f"{AES_256}:{AES_128}"], {"cipher": AES_256}),
        ("intermediate", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], "no shared cipher"),
        ("intermediate", ["-tls1_1", *WEAK], "unsupported protocol"),
        ("old", ["-tls1", *WEAK], {"version": "TLSv1.0"}),
        ("old", ["-tls1_2", "-cipher", f"{AES_256}:{AES_128}"], {"cipher": AES_128}),
        ("old", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"], {"cipher": "ECDHE-ECDSA-AES256-SHA384"}),
        ("old", [], {"version": "TLSv1.3"}),
        ("modern but", ["-tls1_2", "-groups", "P-521:P-256"], {"version": "TLSv1.2"}),
    ],
)
def test_what_a_client_can_agree_on(front: Listeners, name: str, options: list[str], expected: Any) -> None:
    record = front.record_of(name, *options)
    if isinstance(expected, str):
        assert record["reason"] == "handshake_failed"
        assert re.search(expected, record["error"]), record["error"]
    else:
        assert {key: record[key] for key in expected} == expected, record


def test_the_order_of_the_groups_is_the_servers(front: Listeners) -> None:
    assert front.record_of("1.3", "-groups", "X25519:P-384")["group"].lower() in ("p-384", "secp384r1")


def test_the_signature_that_is_agreed_on(front: Listeners) -> None:
    assert b"Peer signing digest: SHA384" in s_client(front.ports["signed"], "-tls1_2").stdout
    front.proxy.record()


def test_curl_is_refused_with_a_protocol_that_is_too_old(front: Listeners, identity: Identity) -> None:
    arguments = [program("curl", "curl"), "-sS", "--cacert", str(identity.ca), "--tls-max", "1.2"]
    url = f"https://localhost:{front.ports['modern']}/"
    result = subprocess.run([*arguments, url], capture_output=True, timeout=TIMEOUT)
    assert result.returncode == 35, result  # CURLE_SSL_CONNECT_ERROR
    assert "unsupported protocol" in front.proxy.record()["error"]


# Certificates of clients


class Clients:
    """Clients below a root: of the root itself, of an authority of it, of one that is revoked; and lists of revocations."""

    def __init__(self, folder: FilePath) -> None:
        self.folder = folder
        self.root = issue("root", ca=True)
        self.middle = issue("middle", self.root, ca=True)
        self.bad_middle = issue("bad middle", self.root, ca=True)
        self.members: dict[str, Sequence[Issued]] = {
            "of the root": [issue("one", self.root, use="client")],
            "good": [issue("good", self.middle, use="client"), self.middle],
            "revoked": [issue("revoked", self.middle, use="client"), self.middle],
            "under a revoked one": [issue("under", self.bad_middle, use="client"), self.bad_middle],
        }
        for name, chain in self.members.items():
            self.file(name, key_pem(chain[0].key) + b"".join(each.pem for each in chain))
        self.file("root.pem", self.root.pem)
        self.file("middle.pem", self.middle.pem)
        self.file("root.crl", revoke(self.root, self.bad_middle))
        self.file("middle.crl", revoke(self.middle, self.members["revoked"][0]))
        lists = [(folder / name).read_bytes() for name in ("root.crl", "middle.crl")]
        self.file("all.crl", b"".join(lists) + revoke(self.bad_middle))

    def file(self, name: str, text: bytes) -> FilePath:
        path = self.folder / name
        path.write_bytes(text)
        path.chmod(0o600)
        return path

    def options(self, name: str) -> list[object]:
        """Of s_client."""
        file = self.folder / name
        return ["-cert", file, "-key", file, "-cert_chain", file]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(tmp_path_factory.mktemp("clients"))


GUARDED = {
    "any": 'client-ca = "root.pem"',
    "lists": 'client-ca = "root.pem"\ncrl = ["root.crl", "middle.crl"]',
    "one list": 'client-ca = "root.pem"\ncrl = "all.crl"',
    "a list short": 'client-ca = "root.pem"\ncrl = "middle.crl"',
    "partial": 'client-ca = "middle.pem"\npartial-chain = true',
    "whole": 'client-ca = "middle.pem"',
    "partial, lists": 'client-ca = "middle.pem"\npartial-chain = true\ncrl = "middle.crl"',
    "depth 0": 'client-ca = "root.pem"\nverify-depth = 0',
    "depth 1": 'client-ca = "root.pem"\nverify-depth = 1',
}


@pytest.fixture(scope="module")
def guarded(identity: Identity, clients: Clients) -> Iterator[Listeners]:
    with closing() as to:
        common = f'listen = "tls://127.0.0.1:0"\nto = "{to}"\ncert = "{identity.cert}"\nkey = "{identity.key}"\n'
        with proxy_of(clients.folder, {name: common + text for name, text in GUARDED.items()}) as made:
            yield made


@pytest.mark.parametrize(
    ("name", "client", "error"),
    [
        ("any", "revoked", None),
        ("any", "under a revoked one", None),
        ("lists", "good", None),
        ("lists", "of the root", None),
        ("lists", "revoked", "certificate revoked"),
        ("lists", "under a revoked one", "revoked|unable to get certificate CRL"),
        ("one list", "good", None),
        ("one list", "revoked", "certificate revoked"),
        ("one list", "under a revoked one", "certificate revoked"),
        ("a list short", "good", "unable to get certificate CRL"),
        ("partial", "good", None),
        ("partial", "of the root", "unable to get"),
        ("whole", "good", "unable to get"),
        ("partial, lists", "good", None),
        ("partial, lists", "revoked", "certificate revoked"),
        ("depth 0", "of the root", None),
        ("depth 0", "good", "chain too long|unable to get"),
        ("depth 1", "good", None),
    ],
)
def test_which_clients_are_let_in(guarded: Listeners, clients: Clients, name: str, client: str, error: Optional[str]) -> None:
    record = guarded.record_of(name, *clients.options(client))
    if error is None:
        assert record["client"] == clients.members[client][0].certificate.subject.rfc4514_string().partition("=")[2], record
    else:

        assert record["reason"] == "client_certificate_refused", record
        assert re.search(error, record["error"]) and "its names: CN:" in record["error"], record["error"]


@pytest.mark.parametrize("told", [True, False], ids=["SIGHUP", "by itself"])
def test_a_client_that_was_revoked_meanwhile_is_not_resumed(
    identity: Identity, clients: Clients, start: Callable[..., Proxy], tmp_path: FilePath, told: bool
) -> None:
    crl = tmp_path / "now.crl"
    crl.write_bytes(revoke(clients.root))
    context = identity.client_context()
    member = clients.folder / "of the root"
    context.load_cert_chain(member)
    with listener() as back:
        guard = ("--client-ca", clients.folder / "root.pem", "--crl", crl)
        to = f"tcp://127.0.0.1:{back.getsockname()[1]}"
        options = ("--metrics", "127.0.0.1:0", "--watch", "off" if told else "auto")
        proxy = start("--listen", "tls://127.0.0.1:0", "--cert", identity.both, *guard, "--to", to, *options)
        assert any(line.startswith("sslsock_proxy_crl_next_update_timestamp_seconds{") for line in proxy.metrics())
        session = None
        for again in (False, True):
            with connect(proxy.port, context, session=session) as client, accept(back) as server:
                server.sendall(b"x")
                assert receive_exactly(client, 1) == b"x"
                session = client.session
            assert proxy.record()["resumed"] is again
        (tmp_path / "new").write_bytes(revoke(clients.root, clients.members["of the root"][0]))
        (tmp_path / "new").replace(crl)
        if told:
            proxy.process.send_signal(signal.SIGHUP)
            proxy.wait_for_message("SIGHUP: read again")
        else:
            proxy.wait_for_message(f"{crl}: read again after a change")
        with pytest.raises((ssl.SSLError, ConnectionError)), connect(proxy.port, context, session=session) as client:
            client.recv(1)
        record = proxy.record()
        assert record["reason"] == "client_certificate_refused" and "certificate revoked" in record["error"]
        causes = [line for line in proxy.metrics() if line.startswith("sslsock_proxy_handshake_failures_total{")]
        assert len(causes) == 1 and 'cause="certificate"' in causes[0] and causes[0].endswith(" 1.0"), causes


# Back ends

OLD_SERVER = ("-tls1_2", "-cipher", AES_128)
NEW_SERVER = ("-tls1_3", "-groups", "P-384", "-ciphersuites", "TLS_AES_256_GCM_SHA384")
BACK = {
    "no more than 1.2": ("old", 'to-maximum-protocol = "TLSv1.2"\nto-ciphers = "ECDHE+AESGCM"', None),
    "no less than 1.3": ("new", 'to-minimum-protocol = "1.3"\nto-groups = "P-256:P-384"', None),
    "too new": ("new", 'to-maximum-protocol = "TLSv1.2"', "protocol version"),
    "too old": ("old", 'to-minimum-protocol = "1.3"', "protocol version|unsupported protocol"),
    "another cipher": ("old", f'to-ciphers = "{AES_256}"', "handshake failure"),
    "another suite": ("new", 'to-ciphersuites = "TLS_AES_128_GCM_SHA256"', "handshake failure"),
    "another group": ("new", 'to-groups = "P-256"', "handshake failure"),
    "another signature": ("new", 'to-signature-algorithms = "ECDSA+SHA384"', "handshake failure"),
    "a signature that it has": ("new", 'to-signature-algorithms = "ECDSA+SHA256"', None),
}


@pytest.fixture(scope="module")
def back(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listeners]:
    with s_server(identity, *OLD_SERVER, "-rev") as old, s_server(identity, *NEW_SERVER, "-rev") as new:
        ports = {"old": old, "new": new}
        listeners = {
            name: f'listen = "tcp://127.0.0.1:0"\nto = "tls://127.0.0.1:{ports[server]}"\nto-ca = "{identity.ca}"\n{text}'
            for name, (server, text, _) in BACK.items()
        }
        with proxy_of(tmp_path_factory.mktemp("back"), listeners) as made:
            yield made


@pytest.mark.parametrize("name", BACK)
def test_what_a_back_end_can_agree_on(back: Listeners, name: str) -> None:

    error = BACK[name][2]
    try:
        client = connect(back.ports[name])
        with client:
            if error is None:
                client.sendall(b"abc\n")
                assert receive_exactly(client, 4) == b"cba\n"
            else:
                assert end_of(client) == "reset"
    except ConnectionResetError:
        assert error is not None
    record = back.proxy.record()
    if error is not None:
        assert record["reason"] == "backend_handshake_failed"
        assert re.search(error, record["error"]), record["error"]


NAMED = {
    # names of the certificate, globs, whether they fit
    "a glob in a URI": (["URI:spiffe://example.org/ns/prod/sa/web"], ["spiffe://example.org/ns/*/sa/web"], True),
    "a glob that is too short": (["URI:spiffe://example.org/ns/prod/sa/web"], ["spiffe://example.org/*"], False),
    "one of several": (["URI:spiffe://example.org/web"], ["*.example.org", "spiffe://example.org/*"], True),
    "another trust domain": (["URI:spiffe://example.com/web"], ["spiffe://example.org/*"], False),
    "another host": (["db.internal"], ["*.internal"], True),
    "in place of the host": (["IP:127.0.0.1"], ["*.internal"], False),
    "a network": (["IP:127.0.0.1"], ["127.0.0.0/8"], True),
}
VERIFIED = {
    "revoked": ('to-crl = "revoked.crl"', "certificate revoked"),
    "not revoked": ('to-crl = ["root.crl", "none.crl"]', None),
    "an expired list": ('to-crl = ["root.crl", "expired.crl"]', "CRL has expired"),
    "no intermediate": ("to-verify-depth = 0", "chain too long|unable to get"),
    "one intermediate": ("to-verify-depth = 1", None),
    "an authority that is no root": ('to-ca = "middle.pem"', "unable to get"),
    "that one, trusted as it is": ('to-ca = "middle.pem"\nto-partial-chain = true', None),
    "its own certificate": ('to-ca = "leaf.pem"', "unable to get"),
    "the same, trusted": ('to-ca = "leaf.pem"\nto-partial-chain = true', None),
    "a name that fits, of nobody known": ('to-ca = "stranger.pem"\nto-allow-name = "localhost"', "certificate"),
}


class BackEnds(NamedTuple):
    """A proxy with a listener for each case, each to a back end that the test plays."""

    listeners: Listeners
    sockets: dict[str, socket.socket]
    contexts: dict[str, ssl.SSLContext]

    def works(self, name: str) -> None:
        with connect(self.listeners.ports[name]) as client, accept(self.sockets[name], self.contexts[name]) as server:
            server.sendall(b"x")
            assert receive_exactly(client, 1) == b"x"
        self.listeners.proxy.record()

    def error(self, name: str) -> str:
        """Of a connection that the back end does not get."""
        with contextlib.suppress(ConnectionResetError), connect(self.listeners.ports[name]) as client:
            with contextlib.suppress(OSError):  # with TLS 1.3 its own handshake is done
                accept(self.sockets[name], self.contexts[name]).close()
            assert end_of(client) == "reset"
        record = self.listeners.proxy.record()
        assert record["reason"] == "backend_handshake_failed", record
        text: str = record["error"]
        return text


@pytest.fixture(scope="module")
def back_ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackEnds]:
    folder = tmp_path_factory.mktemp("back-ends")
    root = issue("root", ca=True)
    middle = issue("middle", root, ca=True)
    own = issue("localhost", middle)
    for name, text in {
        "root.pem": root.pem,
        "middle.pem": middle.pem,
        "stranger.pem": issue("root", ca=True).pem,
        "leaf.pem": own.pem,
        "own.pem": key_pem(own.key) + own.pem + middle.pem,
        "root.crl": revoke(root),
        "revoked.crl": revoke(root) + revoke(middle, own),
        "none.crl": revoke(middle),
        "expired.crl": revoke(middle, begin=NOW - 2 * DAY, end=NOW - DAY),
    }.items():
        (folder / name).write_bytes(text)
    pairs = Folder(folder)
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(listener()) for name in (*NAMED, *VERIFIED)}
        contexts, tables = {}, {}
        for name, (names, globs, _) in NAMED.items():
            contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            pair = pairs.pair(*names)
            contexts[name].load_cert_chain(pair.certificate, pair.key)
            allowed = ", ".join(f'"{glob}"' for glob in globs)
            tables[name] = f'to = "{to_option(sockets[name])}"\nto-ca = "{pair.certificate}"\nto-allow-name = [{allowed}]'
        for name, (text, _) in VERIFIED.items():
            contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            contexts[name].load_cert_chain(folder / "own.pem")
            authority = "" if "to-ca" in text else 'to-ca = "root.pem"\n'
            tables[name] = f'to = "{to_option(sockets[name], "localhost")}"\n{authority}{text}'
        listeners = {name: f'listen = "tcp://127.0.0.1:0"\n{text}' for name, text in tables.items()}
        yield BackEnds(stack.enter_context(proxy_of(folder, listeners)), sockets, contexts)


@pytest.mark.parametrize("name", NAMED)
def test_names_of_a_back_end(back_ends: BackEnds, name: str) -> None:
    names, _, good = NAMED[name]
    for _ in range(2):  # the second time a session is resumed
        if good:
            back_ends.works(name)
        else:
            told = ", ".join(text if ":" in text else f"DNS:{text}" for text in names)
            assert f"not among the allowed names: {told}" in back_ends.error(name)


@pytest.mark.parametrize("name", VERIFIED)
def test_back_ends_are_verified(back_ends: BackEnds, name: str) -> None:
    error = VERIFIED[name][1]
    if error is None:
        back_ends.works(name)
    else:
        said = back_ends.error(name)
        assert re.search(error, said) and "its names: CN:localhost, DNS:localhost" in said, said


def test_a_check_verifies_the_names_too(start: Callable[..., Proxy], tmp_path: FilePath) -> None:
    pair = Folder(tmp_path).pair("URI:spiffe://example.com/web")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with listener() as listening, shaking(listening, context):
        verify = ("--to-ca", pair.certificate, "--to-allow-name", "spiffe://example.org/*", "--to-check", "tls")
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to_option(listening), *verify, "--to-check-interval", "0.1")
        assert "URI:spiffe://example.com/web" in proxy.wait_for_message("not among the allowed names")
