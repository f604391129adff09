"""What the newest CPython's `ssl` has and does is there on every interpreter."""

from __future__ import annotations

import _ssl
import contextlib
import gc
import ssl as stdlib
import sys
import weakref
from types import GetSetDescriptorType
from typing import Any

import pytest
from tls_pairs import NAME, Files, in_memory

from peers import SOURCES, needs_sources
from sslsock import _ssl as ours
from sslsock import ssl

# In 3.15, and not in 3.9. Of SSLSocket and SSLObject: what contexts hand out.
ADDED = {
    "ssl": """HAS_PHA HAS_PSK HAS_PSK_TLS13 OP_ENABLE_KTLS OP_LEGACY_SERVER_CONNECT VERIFY_ALLOW_PROXY_CERTS
        VERIFY_X509_PARTIAL_CHAIN get_sigalgs""",
    "Options": "OP_ENABLE_KTLS OP_LEGACY_SERVER_CONNECT",
    "VerifyFlags": "VERIFY_ALLOW_PROXY_CERTS VERIFY_X509_PARTIAL_CHAIN",
    "SSLContext": """get_groups security_level set_ciphersuites set_client_sigalgs set_groups set_psk_client_callback
        set_psk_server_callback set_server_sigalgs""",
    "SSLSocket": "client_sigalg get_unverified_chain get_verified_chain group server_sigalg",
    "SSLObject": "client_sigalg get_unverified_chain get_verified_chain group server_sigalg",
}
CLASSES = ["Certificate", "MemoryBIO", "SSLSession", "_SSLContext", "_SSLSocket"]
HANDED_OUT = {"SSLSocket": ssl.SSLContext.sslsocket_class, "SSLObject": ssl.SSLContext.sslobject_class}


def named(place: str, module: Any) -> Any:
    return module if place == "ssl" else getattr(module, place)


@pytest.mark.parametrize("place", ADDED)
def test_names_that_newer_pythons_have(place: str) -> None:
    found = HANDED_OUT.get(place) or named(place, ssl)
    assert [name for name in ADDED[place].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("place", [*ADDED, "MemoryBIO", "SSLSession"])
def test_names_that_this_python_has(place: str) -> None:
    found = HANDED_OUT.get(place) or named(place, ssl)
    names = [name for name in dir(named(place, stdlib)) if not name.startswith("__")]
    assert [name for name in names if not hasattr(found, name)] == []


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if hasattr(_ssl, kind)])
def test_what_this_pythons_ssl_py_may_call(kind: str) -> None:
    names = {name for name in dir(getattr(_ssl, kind)) if not name.startswith("__")}
    names -= {"sendfile"}  # of 3.15, where the kernel encrypts (uses_ktls_for_send), as it never does here
    assert [name for name in names if not hasattr(getattr(ours, kind), name)] == []


@needs_sources
def test_the_document_names_what_is_added() -> None:
    text = (SOURCES.parent.parent / "docs" / "ssl.md").read_text()
    chapter = text[text.index("## What it has in addition") :].partition("\n## ")[0]
    assert [name for place in ADDED for name in ADDED[place].split() if f"`{name}`" not in chapter] == []


def test_signature_algorithms(files: Files) -> None:
    client, server = files.client(ssl), files.server(ssl)
    client.set_server_sigalgs("ecdsa_secp256r1_sha256")
    with pytest.raises(ssl.SSLError, match="unrecognized signature algorithm"):
        client.set_server_sigalgs("no such algorithm")
    left, right = in_memory(client, server, ssl)
    newer = ssl.OPENSSL_VERSION_INFO >= (3, 5)
    for end in (left, right):
        if newer:
            assert (end.server_sigalg(), end.client_sigalg()) == ("ecdsa_secp256r1_sha256", None)
        else:
            with pytest.raises(NotImplementedError, match=r"OpenSSL 3\.5"):
                end.server_sigalg()
    client.set_server_sigalgs("rsa_pss_rsae_sha256")  # the server has no such key
    with pytest.raises(ssl.SSLError):
        in_memory(client, server, ssl)


# Attributes of classes in C


def an_object_of_each(module: Any, private: Any, files: Files) -> dict[str, Any]:
    left, right = in_memory(files.client(module), files.server(module), module)
    made = {"MemoryBIO": private.MemoryBIO(), "_SSLContext": private._SSLContext(private.PROTOCOL_TLS_SERVER)}
    made.update(SSLSession=left.session, _SSLSocket=left._sslobj, kept=(left, right))
    if hasattr(private, "Certificate"):
        made["Certificate"] = left._sslobj.get_unverified_chain()[0]
    return made


def attributes(kind: type) -> set[str]:
    found = {name for base in kind.__mro__[:-1] for name, value in vars(base).items() if type(value) is GetSetDescriptorType}
    return {name for name in found if not name.startswith("__")}


@pytest.mark.parametrize("kind", CLASSES)
def test_no_attribute_can_be_deleted(kind: str, files: Files) -> None:
    pairs = [(ssl, ours)] + ([(stdlib, _ssl)] if sys.version_info >= (3, 15, 2) else [])  # older ones crash, or worse
    names = attributes(getattr(ours, kind)) | attributes(getattr(_ssl, kind, object))
    for module, private in pairs:
        objects = an_object_of_each(module, private, files)
        for name in names:
            if not hasattr(objects[kind], name):
                continue  # ours alone
            before = getattr(objects[kind], name)
            with pytest.raises(AttributeError):
                delattr(objects[kind], name)
            with pytest.raises(AttributeError):
                getattr(type(objects[kind]), name).__delete__(objects[kind])
            after = getattr(objects[kind], name)
            assert after == before or name == "session"


# A second ClientHello, after a HelloRetryRequest, and a connection that was given another context by then


def handshake(module: Any, client: Any, server: Any) -> tuple[Any, Any]:
    """`server`: makes the server's end of two MemoryBIO. In a function, so that nothing here holds its context."""
    one, other = module.MemoryBIO(), module.MemoryBIO()
    ends = [client.wrap_bio(one, other, server_hostname=NAME), server(other, one)]
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(module.SSLWantReadError):
                end.do_handshake()
    assert ends[0].version() == "TLSv1.3", "the handshake has come to no end"
    return ends[0], ends[1]


HAS_THE_MEND = sys.version_info >= (3, 15, 2) or (3, 14, 10) <= sys.version_info < (3, 15)


@pytest.mark.parametrize("own_callback", [False, True], ids=["", "own callback"])
@pytest.mark.parametrize("kept", [False, True], ids=["first forgotten", "first kept"])
def test_a_second_hello_after_a_change_of_context(files: Files, own_callback: bool, kept: bool) -> None:
    def calls(module: Any) -> list[str]:
        heard: list[str] = []
        second = files.server(module)
        client = files.client(module)
        firsts: list[Any] = []

        def on_first(tls: Any, name: str, context: Any) -> None:
            heard.append(f"first {name}")
            tls.context = second

        def make(incoming: Any, outgoing: Any) -> Any:
            first = files.server(module)
            first.set_ecdh_curve("secp521r1")  # the client begins with another
            second.set_ecdh_curve("secp521r1")
            first.sni_callback = on_first
            if own_callback:
                second.sni_callback = lambda tls, name, context: heard.append(f"second {name} {context is second}")
            firsts.append(first if kept else weakref.ref(first))
            return first.wrap_bio(incoming, outgoing, server_side=True)

        _, right = handshake(module, client, make)
        gc.collect()
        assert right.context is second
        assert kept or firsts[0]() is None
        return heard

    wanted = [f"first {NAME}", *([f"second {NAME} True"] if own_callback else [])]
    assert calls(ssl) == wanted
    if HAS_THE_MEND:  # others ask the first one again, which may be gone
        assert calls(stdlib) == wanted
