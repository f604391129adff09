"""Callbacks for keys and passwords: that raise, return what is none, use their own connection or change its context."""

from __future__ import annotations

import contextlib
import ssl as stdlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from tls_pairs import Files, connected, in_memory

from sslsock import ssl

KEY = b"a key that both ends have"
versions = pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
# Since CPython 3.13 its `ssl` has pre-shared keys, too.
modules = [ssl, stdlib] if hasattr(stdlib.SSLContext, "set_psk_client_callback") else [ssl]
with_keys = pytest.mark.parametrize("module", modules, ids=lambda module: "ours" if module is ssl else "the interpreter's")


def keyed(module: Any, version: str) -> tuple[Any, Any]:
    """Contexts that have no certificates."""
    client, server = module.SSLContext(module.PROTOCOL_TLS_CLIENT), module.SSLContext(module.PROTOCOL_TLS_SERVER)
    client.check_hostname = False
    client.verify_mode = module.CERT_NONE
    for context in client, server:
        context.minimum_version = context.maximum_version = module.TLSVersion[version]
        if version == "TLSv1_2":
            context.set_ciphers("PSK")
    client.set_psk_client_callback(lambda hint: ("client", KEY))
    server.set_psk_server_callback(lambda identity: KEY, "hint")
    return client, server


def works(client: Any, server: Any, module: Any = ssl) -> None:
    one, other = in_memory(client, server, module)
    one.write(b"works")
    assert other.read(10) == b"works"


@contextlib.contextmanager
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The types of what is reported as unraisable."""
    found: list[type] = []
    with monkeypatch.context() as patched:
        patched.setattr(sys, "unraisablehook", lambda told: found.append(told.exc_type))
        yield found


class Raised(BaseException):
    """Not even an Exception."""


def raises(*_: object) -> Any:
    raise Raised


WRONG: dict[str, Any] = {
    "raises": raises,
    "None": lambda *_: None,
    "a number": lambda *_: 5,
    "text": lambda *_: "text",
    "too long": lambda *_: b"x" * 100_000,
    "no key": lambda *_: b"",
}


@with_keys
@versions
@pytest.mark.parametrize("answer", WRONG)
def test_a_server_whose_callback_is_wrong(module: Any, version: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = keyed(module, version)
    server.set_psk_server_callback(WRONG[answer], "hint")
    with unraisable(monkeypatch) as found, pytest.raises(module.SSLError):
        in_memory(client, server, module)
    assert found == {"raises": [Raised], "too long": [], "no key": []}.get(answer, [TypeError])
    server.set_psk_server_callback(lambda identity: KEY, "hint")
    works(client, server, module)


@with_keys
@versions
@pytest.mark.parametrize(
    "answer",
    [
        *WRONG,
        "a pair of wrong things",
        "three things",
        "no identity",
        "an identity with NUL",
        "a long identity",
        "a lone surrogate",
    ],
)
def test_a_client_whose_callback_is_wrong(module: Any, version: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        **WRONG,
        "too long": lambda *_: ("client", b"x" * 100_000),
        "no key": lambda *_: ("client", b""),
        "a pair of wrong things": lambda *_: (1, 2),
        "three things": lambda *_: ("client", KEY, None),
        "no identity": lambda *_: (None, KEY),
        "an identity with NUL": lambda *_: ("cli\0ent", KEY),
        "a long identity": lambda *_: ("x" * 10_000, KEY),
        "a lone surrogate": lambda *_: ("\ud800", KEY),
    }
    client, server = keyed(module, version)
    client.set_psk_client_callback(answers[answer])
    with unraisable(monkeypatch) as found:
        if answer == "no identity":  # an empty one
            with contextlib.suppress(module.SSLError):
                in_memory(client, server, module)
        elif module is not ssl and answer == "an identity with NUL":  # it is cut off there
            pass
        else:
            with pytest.raises(module.SSLError):
                in_memory(client, server, module)
            silent = answer in ("too long", "no key", "a long identity")
            assert bool(found) != silent, found
    client.set_psk_client_callback(lambda hint: ("client", KEY))
    works(client, server, module)


@versions
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_callback_that_uses_its_connection_and_changes_its_context(version: str, side: str) -> None:
    client, server = keyed(ssl, version)
    context = client if side == "client" else server
    ends: list[Any] = []
    told: list[Any] = []

    def callback(_: Any) -> Any:
        for call in (
            lambda: ends[0].read(1),
            lambda: ends[0].write(b"x"),
            lambda: ends[0].do_handshake(),
            lambda: ends[0].unwrap(),
        ):
            with pytest.raises(RuntimeError, match="in use by the callback"):
                call()
        told.append((ends[0].version(), ends[0].cipher(), ends[0].pending(), ends[0].session_reused))
        context.set_ciphers("PSK" if version == "TLSv1_2" else "ECDHE+AESGCM")
        context.set_alpn_protocols(["h2"])
        context.options |= ssl.OP_NO_TICKET
        if side == "client":
            context.set_psk_client_callback(None)
            return "client", KEY
        context.set_psk_server_callback(None)
        return KEY

    if side == "client":
        client.set_psk_client_callback(callback)
    else:
        server.set_psk_server_callback(callback, "hint")
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    made = client.wrap_bio(one, other), server.wrap_bio(other, one, server_side=True)
    ends.append(made[0] if side == "client" else made[1])
    waiting = list(made)
    while waiting:
        for end in list(waiting):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                waiting.remove(end)
    assert told
    made[0].write(b"works")
    assert made[1].read(10) == b"works"


@versions
def test_a_callback_that_connects_with_its_own_context(version: str) -> None:
    """A whole other connection in the middle of one."""
    client, server = keyed(ssl, version)
    depth: list[int] = []

    def callback(_: Any) -> Any:
        if len(depth) < 5:
            depth.append(len(depth))
            works(client, server)
        return KEY

    server.set_psk_server_callback(callback, "hint")
    works(client, server)
    assert depth == [0, 1, 2, 3, 4]


def test_keys_for_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = keyed(ssl, "TLSv1_2")
    failed: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(20):
                with connected(client, server, None) as (one, other):
                    one.sendall(b"works")
                    assert other.recv(10) == b"works"
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=use, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


# ---- passwords -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(files: Files, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate, and its key under the password "secret"."""
    issued = files.ca.issue_cert("localhost")
    folder = tmp_path_factory.mktemp("locked")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    secret = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
        )
    )
    return chain, key


def told(call: Any) -> Any:
    try:
        return call()
    except BaseException as exc:
        return type(exc), getattr(exc, "reason", None), str(exc) if not isinstance(exc, OSError) else None


PASSWORDS: dict[str, Any] = {
    "right": lambda: "secret",
    "right, in bytes": lambda: b"secret",
    "right, in a bytearray": lambda: bytearray(b"secret"),
    "wrong": lambda: "wrong",
    "empty": lambda: "",
    "raises": raises,
    "None": lambda: None,
    "a number": lambda: 5,
    "too long": lambda: "x" * 5000,
    "as long as goes": lambda: "x" * 1024,
    "a lone surrogate": lambda: "\ud800",
    "takes an argument": lambda argument: "secret",
    "with NUL": lambda: "sec\0ret",
}


@pytest.mark.parametrize(
    ("password", "called"),
    [
        *((name, True) for name in PASSWORDS),
        # None would be asked for on a terminal.
        *((name, False) for name in PASSWORDS if name not in ("raises", "takes an argument", "None")),
    ],
)
def test_a_password_is_taken_or_refused_as_by_the_interpreter(locked: Any, password: str, called: bool) -> None:
    answer = PASSWORDS[password] if called else PASSWORDS[password]()
    said = []
    for module in ssl, stdlib:
        context = module.SSLContext(module.PROTOCOL_TLS_SERVER)
        said.append(told(lambda context=context: context.load_cert_chain(*locked, answer)))
    assert said[0] == said[1]


def test_a_password_callback_that_uses_its_context(files: Files, locked: Any) -> None:
    """It loads another certificate into it, connects with it, and calls itself."""
    server = files.server(ssl)
    depth: list[None] = []

    def password() -> str:
        depth.append(None)
        if len(depth) < 4:
            server.load_cert_chain(*locked, password)
            server.set_ciphers("ECDHE+AESGCM")
            works(files.client(ssl), server)
        return "secret"

    server.load_cert_chain(*locked, password)
    assert len(depth) == 4
    works(files.client(ssl), server)


def test_a_password_callback_for_a_context_that_others_use(files: Files, locked: Any) -> None:
    server, client = files.server(ssl), files.client(ssl)
    asked, go_on = threading.Event(), threading.Event()

    def password() -> str:
        asked.set()
        assert go_on.wait(60)
        return "secret"

    loading = threading.Thread(target=server.load_cert_chain, args=(*locked, password), daemon=True)
    loading.start()
    assert asked.wait(60)
    works(client, server)  # with the certificate that it has
    server.set_ciphers("ECDHE+AESGCM")
    go_on.set()
    loading.join()
    works(client, server)
