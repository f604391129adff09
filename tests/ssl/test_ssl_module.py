"""`sslsock.ssl` as a module: its names, what it shares with the interpreter's `ssl`, its contexts and sockets."""

from __future__ import annotations

import array
import asyncio
import contextlib
import copy
import enum
import pickle
import socket
import ssl as stdlib
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tls_pairs import NAME, Files, connected, in_memory, python, reasons

from sslsock import ssl

MODULES = pytest.mark.parametrize("other", [ssl, stdlib], ids=["own peer", "stdlib's peer"])
ENUMS = [name for name, value in vars(stdlib).items() if isinstance(value, type) and issubclass(value, enum.Enum)]


@pytest.fixture(params=["SSLSocket", "SSLObject"])
def ends(request: pytest.FixtureRequest, files: Files) -> Any:
    """A client and a server after their handshake: sockets, or objects over memory."""
    client, server = files.client(ssl), files.server(ssl)
    if request.param == "SSLObject":
        yield in_memory(client, server, ssl)
    else:
        with connected(client, server) as both:
            yield both


# Names


def test_every_name_of_the_interpreters_ssl_is_there() -> None:
    assert not set(dir(stdlib)) - set(dir(ssl))


def test_what_is_there_besides() -> None:
    newer = {"HAS_PHA", "HAS_PSK", "HAS_PSK_TLS13", "get_sigalgs", "install", "uninstall"}
    more = set(dir(ssl)) - set(dir(stdlib)) - newer
    assert {name for name in more if not name.startswith(("OP_", "VERIFY_", "ALERT_DESCRIPTION_"))} == set()


def test_the_module_says_what_it_is() -> None:
    assert (ssl.__name__, ssl.__package__) == ("sslsock.ssl", "sslsock")
    assert Path(ssl.__file__).parent == Path(sys.modules["sslsock"].__file__ or "").parent
    assert ssl.__spec__ is not None and ssl.__spec__.name == "sslsock.ssl"
    assert (ssl.__doc__ or "").startswith("The interface of the standard library's `ssl`")
    assert ssl.SSLContext.__module__ == "sslsock.ssl"
    assert ssl._ssl.__name__ == "sslsock._ssl"


def test_the_interpreters_module_is_left_alone() -> None:
    shown = python(
        """
        import sys, ssl
        before = dict(vars(ssl))
        import sslsock.ssl
        assert vars(ssl) == before and sys.modules["ssl"] is ssl
        assert sys.modules["_ssl"] is ssl._ssl and sslsock.ssl._ssl is not ssl._ssl
        print("ok")
        """
    )
    assert shown == "ok\n"


def test_it_is_there_after_an_import_of_the_package() -> None:
    shown = python(
        """
        import sslsock, sys
        assert "sslsock.ssl" not in sys.modules and "ssl" in dir(sslsock)
        print(sslsock.ssl.install, sslsock.ssl is sys.modules["sslsock.ssl"])
        """
    )
    assert shown.startswith("<function install ") and shown.endswith(" True\n")


def test_star_import() -> None:
    space: dict[str, Any] = {}
    exec("from sslsock.ssl import *", space)
    assert space["create_default_context"] is ssl.create_default_context


# What is shared


@pytest.mark.parametrize(
    "name",
    [name for name, value in vars(stdlib).items() if isinstance(value, type) and issubclass(value, Exception)],
)
def test_exceptions_are_the_interpreters(name: str) -> None:
    assert getattr(ssl, name) is getattr(stdlib, name)


@pytest.mark.parametrize("name", ["SSLSocket", "SSLObject", "DefaultVerifyPaths", "_ASN1Object"])
def test_classes_are_the_interpreters(name: str) -> None:
    assert getattr(ssl, name) is getattr(stdlib, name)


@pytest.mark.parametrize("name", ENUMS)
def test_enums_are_the_interpreters_or_have_more(name: str) -> None:
    own, theirs = getattr(ssl, name), getattr(stdlib, name)
    for member in theirs.__members__:
        assert own[member] == theirs[member] and hash(own[member]) == hash(theirs[member])
    if own is theirs:
        assert all(getattr(ssl, member, own[member]) is theirs[member] for member in theirs.__members__)
    else:
        assert set(own.__members__) > set(theirs.__members__), "it has the same members, and is another class all the same"


@pytest.mark.parametrize("name", ["TLSVersion", "VerifyMode", "Purpose", "SSLErrorNumber", "AlertDescription", "_SSLMethod"])
def test_enums_that_no_openssl_adds_to_are_the_same(name: str) -> None:
    assert getattr(ssl, name) is getattr(stdlib, name)


def test_members_of_either_module_are_taken() -> None:
    for module in (ssl, stdlib):
        context = ssl.SSLContext(module.PROTOCOL_TLS_CLIENT)
        context.minimum_version = module.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = module.CERT_OPTIONAL
        context.options |= module.OP_NO_TICKET
        context.verify_flags |= module.VERIFY_X509_STRICT
        assert context.minimum_version is stdlib.TLSVersion.TLSv1_3
        assert context.verify_mode is stdlib.CERT_OPTIONAL
        assert context.options & stdlib.OP_NO_TICKET and context.options & ssl.OP_NO_TICKET
        assert context.verify_flags & stdlib.VERIFY_X509_STRICT
        context.load_default_certs(module.Purpose.CLIENT_AUTH)
        assert type(ssl.create_default_context(module.Purpose.CLIENT_AUTH)) is ssl.SSLContext


# Contexts


def test_a_context_passes_for_the_interpreters() -> None:
    context = ssl.create_default_context()
    assert isinstance(context, stdlib.SSLContext) and isinstance(context, ssl.SSLContext)
    assert type(context) is ssl.SSLContext
    assert isinstance(stdlib.create_default_context(), ssl.SSLContext)
    assert not isinstance(ssl.MemoryBIO(), (stdlib.SSLContext, ssl.SSLContext))
    assert not isinstance(object(), (stdlib.SSLContext, ssl.SSLContext))
    assert (type(context).__module__, repr(context)) == ("sslsock.ssl", "<SSLContext PROTOCOL_TLS_CLIENT, CERT_REQUIRED>")


def test_a_class_derived_from_it() -> None:
    class Own(ssl.SSLContext):
        @property
        def options(self) -> Any:
            return super().options

        @options.setter
        def options(self, value: int) -> None:
            super(Own, Own).options.__set__(self, value)  # type: ignore[attr-defined]

    context = Own(ssl.PROTOCOL_TLS_CLIENT)
    context.options |= ssl.OP_NO_TICKET
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_TICKET and context.maximum_version is ssl.TLSVersion.TLSv1_2
    assert isinstance(context, Own) and isinstance(context, stdlib.SSLContext)
    assert not isinstance(ssl.create_default_context(), Own) and not isinstance(stdlib.create_default_context(), Own)


def test_a_context_cannot_be_copied_as_the_interpreters_cannot() -> None:
    context = ssl.create_default_context()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot pickle 'SSLContext' object"):
            pickle.dumps(context, protocol)
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.copy(context)
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.deepcopy(context)


def test_enum_members_can_be_pickled() -> None:
    for member in (ssl.TLSVersion.TLSv1_3, ssl.OP_NO_TICKET, ssl.CERT_REQUIRED, ssl.VERIFY_X509_STRICT, ssl.PROTOCOL_TLS):
        loaded = pickle.loads(pickle.dumps(member))
        assert loaded == member and type(loaded) is type(member)


def test_aiofastnet_is_told_to_keep_off() -> None:
    assert ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)._aiofastnet_force_fallback_ssl is True


def test_a_wrong_purpose() -> None:
    with pytest.raises(TypeError):
        ssl.create_default_context("server")  # type: ignore[arg-type]


# Sockets and objects


@MODULES
def test_sockets_talk(files: Files, other: Any) -> None:
    for client, server in ((ssl, other), (other, ssl)):
        with connected(files.client(client), files.server(server)) as (left, right):
            assert isinstance(left, stdlib.SSLSocket) and isinstance(right, stdlib.SSLSocket)
            left.sendall(b"question")
            assert right.recv(100) == b"question"
            right.sendall(b"answer")
            assert left.recv(100) == b"answer"


def test_a_socket_looks_like_the_interpreters(files: Files) -> None:
    with (
        connected(files.client(ssl), files.server(ssl)) as (own, _),
        connected(files.client(stdlib), files.server(stdlib)) as (
            theirs,
            _,
        ),
    ):
        assert repr(own).replace(str(own.fileno()), "N", 1) == repr(theirs).replace(str(theirs.fileno()), "N", 1)
        assert type(own).__name__ == "SSLSocket" and type(own).__module__ == type(theirs).__module__
        with pytest.raises(NotImplementedError, match=r"Can't dup\(\) SSLSocket instances"):
            own.dup()
        with pytest.raises(TypeError, match="SSLSocket does not have a public constructor"):
            type(own)()
        with pytest.raises(TypeError, match="cannot pickle 'SSLSocket' object"):
            pickle.dumps(own)


@pytest.mark.parametrize("connect", [False, True], ids=["wrapped", "accept and connect"])
def test_accept_and_connect(files: Files, connect: bool) -> None:
    plain = socket.create_server(("127.0.0.1", 0))
    listener = files.server(ssl).wrap_socket(plain, server_side=True)
    accepted: list[Any] = []
    thread = threading.Thread(target=lambda: accepted.append(listener.accept()))
    thread.start()
    client = files.client(ssl)
    if connect:
        tls = client.wrap_socket(socket.socket(), server_hostname=NAME)
        tls.connect(listener.getsockname())
    else:
        tls = client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname=NAME)
    thread.join()
    server, address = accepted[0]
    with listener, tls, server:
        assert type(server) is ssl.SSLContext.sslsocket_class and address == tls.getsockname()
        tls.sendall(b"x")
        assert server.recv(1) == b"x"


def test_a_class_of_ones_own_for_sockets_and_objects(files: Files) -> None:
    class Socket(ssl.SSLSocket):
        pass

    class Object(ssl.SSLObject):
        pass

    client, server = files.client(ssl), files.server(ssl)
    client.sslsocket_class, client.sslobject_class = Socket, Object
    with connected(client, server) as (left, right):
        assert type(left) is Socket and type(right) is not Socket
    assert type(in_memory(client, server, ssl)[0]) is Object


@pytest.mark.parametrize("memory", [False, True], ids=["SSLSocket", "SSLObject"])
def test_callbacks_get_what_the_context_has_handed_out(files: Files, memory: bool) -> None:
    other = files.server(ssl)
    client, server = files.client(ssl), files.server(ssl)
    seen: list[Any] = []

    def on_name(tls: Any, name: str, context: Any) -> None:
        seen.append((tls, name, context))
        tls.context = other

    server.sni_callback = on_name
    messages: list[Any] = []
    client._msg_callback = lambda *arguments: messages.append(arguments)
    with contextlib.ExitStack() as stack:
        if memory:
            left, right = in_memory(client, server, ssl)
        else:
            left, right = stack.enter_context(connected(client, server))
        assert len(seen) == 1
        assert seen[0][0] is right and seen[0][1:] == (NAME, server)
        assert right.context is other and left.context is client
        assert {message[0] for message in messages} == {left}
        assert isinstance(messages[0][2], stdlib.TLSVersion)
        seen.clear()
        messages.clear()


def test_what_newer_pythons_have(ends: tuple[Any, Any], files: Files) -> None:
    client, server = ends
    verified, sent = client.get_verified_chain(), client.get_unverified_chain()
    assert sent[0] == verified[0] == client.getpeercert(True)
    assert verified[-1] == ssl.PEM_cert_to_DER_cert(files.ca_file.read_text())
    assert server.get_unverified_chain() == server.get_verified_chain() == []


def test_settings_of_newer_pythons(files: Files) -> None:
    client, server = files.client(ssl), files.server(ssl)
    client.set_ciphersuites("TLS_CHACHA20_POLY1305_SHA256")
    client.set_groups("secp384r1")
    with connected(client, server) as (left, right):
        assert left.cipher()[0] == right.cipher()[0] == "TLS_CHACHA20_POLY1305_SHA256"
        assert left.group() == right.group() == "secp384r1"


def test_psk(files: Files) -> None:
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for context in (client, server):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("PSK")
    client.set_psk_client_callback(lambda hint: ("somebody", b"secret"))
    server.set_psk_server_callback(lambda identity: b"secret" if identity == "somebody" else b"")
    with connected(client, server, name=None) as (left, right):
        left.sendall(b"x")
        assert right.recv(1) == b"x" and "PSK" in left.cipher()[0]


def test_before_the_handshake_there_is_no_group(files: Files) -> None:
    tls = files.client(ssl).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=NAME)
    assert tls.group() is None


def test_a_socket_without_tls_has_no_group(files: Files) -> None:
    with files.client(ssl).wrap_socket(socket.socket(), server_hostname=NAME) as tls:
        assert tls.group() is None and tls.server_sigalg() is None and tls.client_sigalg() is None
        assert tls.cipher() is None and tls.version() is None


# The shorter way of the bytes: as the interpreter's sockets have it


# CPython 3.9's own counts the room of an array by its items, and takes an empty `send` for an end.
SOUND = [ssl, stdlib] if sys.version_info >= (3, 11) else [ssl]


@pytest.fixture(params=SOUND, ids=lambda module: module.__name__)
def pair(request: pytest.FixtureRequest, files: Files) -> Any:
    """Both ends of the same module: a test says what holds for either."""
    with connected(files.client(request.param), files.server(request.param)) as both:
        yield both


def test_recv(pair: tuple[Any, Any]) -> None:
    left, right = pair
    right.sendall(b"0123456789")
    assert (left.recv(3), left.recv(), left.pending()) == (b"012", b"3456789", 0)
    assert left.recv(0) == b""
    with pytest.raises(ValueError, match="non-zero flags not allowed in calls to recv"):
        left.recv(1, socket.MSG_PEEK)
    with pytest.raises(ValueError):
        left.recv(-1)


def test_recv_into(pair: tuple[Any, Any]) -> None:
    left, right = pair
    right.sendall(bytes(range(64)))
    room = bytearray(10)
    assert left.recv_into(room) == 10 and room == bytes(range(10))
    assert left.recv_into(room, 2) == 2 and room[:3] == bytes([10, 11, 2])
    assert left.recv_into(memoryview(room)[4:], 100) == 6 and room[4:] == bytes(range(12, 18))
    numbers = array.array("i", [0, 0])
    assert left.recv_into(memoryview(numbers)) == 8 and numbers.tobytes() == bytes(range(18, 26))
    assert left.recv_into(room, 0) == 10 and room == bytes(range(26, 36))
    assert left.recv_into(bytearray()) == 0
    assert left.recv_into(None) == bytes(range(36, 64))
    with pytest.raises(ValueError, match="non-zero flags not allowed in calls to recv_into"):
        left.recv_into(room, 1, socket.MSG_PEEK)
    with pytest.raises((TypeError, BufferError)):
        left.recv_into(b"read-only")


def test_send(pair: tuple[Any, Any]) -> None:
    left, right = pair
    numbers = array.array("i", [1, 2, 3])
    assert left.send(b"abc") == 3 and left.send(memoryview(b"def")) == 3 and left.send(b"") == 0
    for data in (b"ghi", bytearray(b"jkl"), memoryview(b"mno"), numbers, b"", memoryview(b"")):
        assert left.sendall(data) is None
    left.shutdown(socket.SHUT_WR)
    assert b"".join(iter(lambda: right.recv(100), b"")) == b"abcdefghijklmno" + numbers.tobytes()


@pytest.mark.parametrize("call", ["send", "sendall"])
def test_send_of_what_is_no_data(pair: tuple[Any, Any], call: str) -> None:
    left, _ = pair
    with pytest.raises(TypeError):
        getattr(left, call)("text")
    with pytest.raises(ValueError, match=f"non-zero flags not allowed in calls to {call}"):
        getattr(left, call)(b"x", socket.MSG_OOB)


def test_much_data(pair: tuple[Any, Any]) -> None:
    left, right = pair
    data = bytes(range(256)) * 20000
    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(right.recv(65536))

    thread = threading.Thread(target=read)
    thread.start()
    left.sendall(data)
    thread.join()
    assert got == data


@pytest.mark.parametrize("suppress", [True, False])
def test_an_end_without_close_notify(files: Files, suppress: bool) -> None:
    for module in SOUND:
        client = files.client(module)
        client.options &= ~0x80  # CPython 3.9 sets SSL_OP_IGNORE_UNEXPECTED_EOF
        with connected(client, files.server(module), suppress_ragged_eofs=suppress) as (left, right):
            right.shutdown(socket.SHUT_WR)  # and still open: OpenSSL 3.6 answers with an alert, which CPython's must get rid of
            for read in (lambda: left.recv(10), lambda: left.recv_into(bytearray(10))):
                if suppress:
                    assert not read()
                else:
                    with pytest.raises(stdlib.SSLEOFError):
                        read()


def test_after_unwrap_it_is_a_plain_socket(pair: tuple[Any, Any]) -> None:
    left, right = pair
    thread = threading.Thread(target=right.unwrap)
    thread.start()
    left.unwrap()
    thread.join()
    left.sendall(b"in the clear")
    assert right.recv(5, socket.MSG_PEEK) == b"in th" and right.recv(100) == b"in the clear"
    room = bytearray(4)
    assert right.send(b"back") == 4 and left.recv_into(room) == 4 and room == b"back"


def test_makefile(pair: tuple[Any, Any]) -> None:
    left, right = pair
    right.sendall(b"one\ntwo\n")
    with left.makefile("rwb") as file:
        assert file.readline() == b"one\n" and file.readline() == b"two\n"
        file.write(b"three")
        file.flush()
    assert right.recv(10) == b"three"


# Errors


def test_a_failed_verification_is_the_interpreters_error(files: Files) -> None:
    errors = []
    for module in (ssl, stdlib):
        client = module.create_default_context(cafile=files.ca_file)
        server = files.server(module)
        with pytest.raises(stdlib.SSLCertVerificationError) as caught, connected(client, server, name="example.org"):
            pass
        errors.append(caught.value)
    own, theirs = errors
    assert type(own) is type(theirs) and isinstance(own, (OSError, ValueError)) and own.args[0] == theirs.args[0]
    assert (own.reason, own.library, own.verify_code, own.verify_message) == (
        theirs.reason,
        theirs.library,
        theirs.verify_code,
        theirs.verify_message,
    )


# asyncio


def test_asyncio_takes_a_context(files: Files) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def main() -> bytes:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=files.server(ssl))
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=files.client(ssl), server_hostname=NAME)
        assert isinstance(writer.get_extra_info("ssl_object"), stdlib.SSLObject)
        assert writer.get_extra_info("cipher") is not None
        writer.write(b"hello\n")
        data = await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return data

    assert asyncio.run(main()) == b"hello\n"


# How it is made


def test_from_compiled_code_alone(tmp_path: Path) -> None:
    shown = python(
        """
        import importlib.util, py_compile, sys
        py_compile.compile(importlib.util.find_spec("ssl").origin, sys.argv[1] + "/ssl.pyc")
        sys.path.insert(0, sys.argv[1])
        from sslsock import ssl
        import ssl as stdlib
        print(stdlib.__file__, ssl.create_default_context.__code__.co_name)
        """,
        tmp_path,
    )
    assert shown == f"{tmp_path}/ssl.pyc create_default_context\n"


def test_from_a_zipped_library(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "library.zip", "w") as library:
        library.write(stdlib.__file__, "ssl.py")
    shown = python(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        from sslsock import ssl
        import ssl as stdlib
        print(stdlib.__file__, isinstance(ssl.create_default_context(), stdlib.SSLContext))
        """,
        tmp_path / "library.zip",
    )
    assert shown == f"{tmp_path}/library.zip/ssl.py True\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [("return None", "Loader has no Python code"), ("raise ImportError(name)", "cannot be read: ssl")],
)
def test_without_code_the_error_says_so(body: str, words: str) -> None:
    shown = python(
        f"""
        import importlib.machinery, ssl
        class Loader:
            def get_code(self, name): {body}
        ssl.__spec__ = importlib.machinery.ModuleSpec("ssl", Loader())
        try:
            import sslsock.ssl
        except ImportError as exc:
            print(exc)
        """
    )
    assert shown.startswith("sslsock.ssl is made from the interpreter's own ssl, ") and words in shown


def test_an_interpreter_without_ssl(files: Files) -> None:
    shown = python(
        """
        import sys
        sys.modules["_ssl"] = None  # as if it could not be imported
        import socket, threading
        from sslsock import ssl
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(sys.argv[2])
        left, right = socket.socketpair()
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(server.wrap_socket(right, server_side=True)))
        thread.start()
        tls = ssl.create_default_context(cafile=sys.argv[1]).wrap_socket(left, server_hostname="localhost")
        thread.join()
        tls.sendall(b"x")
        assert accepted[0].recv(1) == b"x" and isinstance(tls, ssl.SSLSocket)
        assert isinstance(ssl.SSLError(1, "x"), OSError) and ssl.SSLSocket.__module__ == "sslsock.ssl"
        tls.close()
        accepted[0].close()
        ssl.install()
        import ssl as stdlib, _ssl
        assert stdlib is ssl and _ssl is ssl._ssl
        import urllib.request, http.client
        assert isinstance(http.client.HTTPSConnection("localhost"), http.client.HTTPConnection)
        ssl.uninstall()
        assert "ssl" not in sys.modules and sys.modules["_ssl"] is None
        print("ok")
        """,
        files.ca_file,
        files.server_file,
    )
    assert shown == "ok\n"


def test_reload() -> None:
    shown = python(
        """
        import importlib, ssl as stdlib
        from sslsock import ssl
        before, install = ssl.SSLContext, ssl.install
        old = ssl.create_default_context()
        again = importlib.reload(ssl)
        assert again is ssl and ssl.SSLContext is not before and ssl.install is install
        old.options |= ssl.OP_NO_TICKET
        new = ssl.create_default_context()
        assert isinstance(new, stdlib.SSLContext) and ssl.Purpose is stdlib.Purpose
        ssl.install()
        importlib.reload(ssl)
        assert isinstance(ssl.create_default_context(), new.__class__)
        ssl.uninstall()
        assert type(stdlib.create_default_context()) is new.__class__
        print("ok")
        """
    )
    assert shown == "ok\n"


def test_many_threads_import_it_at_once() -> None:
    shown = python(
        """
        import threading
        begin, found = threading.Barrier(20), []
        def load():
            begin.wait()
            from sslsock import ssl
            found.append((ssl.SSLContext, ssl.create_default_context, ssl.install))
        threads = [threading.Thread(target=load) for _ in range(20)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(found), len(set(found)))
        """
    )
    assert shown == "20 1\n"


# What the short ways through must not change


def test_importing_it_loads_no_socket_of_the_family() -> None:
    assert (
        python("""
        import sys
        import sslsock.ssl
        assert not [name for name in sys.modules if name.startswith("sslsock.sockets")]
        import sslsock
        assert all(hasattr(sslsock, name) and name in dir(sslsock) for name in sslsock.__all__)
        assert not hasattr(sslsock, "absent")
        print(sslsock.SslSocket.__module__)
    """)
        == "sslsock.sockets.ssl_socket\n"
    )


def test_a_failure_ends_every_later_read_at_once(files: Files) -> None:
    def read_on(module: Any) -> list[Any]:
        with connected(files.client(module), files.server(module)) as (client, server):
            client.settimeout(30)
            socket.socket.sendall(server, b"\x17\x03\x03\x00\x20" + bytes(32))  # no record of this connection
            found: list[Any] = []
            for _ in range(3):
                try:
                    found.append(client.recv(10))
                except OSError as exc:
                    found.append((type(exc), getattr(exc, "reason", None)))
            return found

    found, theirs = read_on(ssl), read_on(stdlib)
    assert found[1:] == theirs[1:]
    for module, first in ((ssl, found[0]), (stdlib, theirs[0])):
        assert first[0] is ssl.SSLError and first[1] in reasons(module, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC")


def test_the_end_is_read_again_and_again(files: Files) -> None:
    with connected(files.client(ssl), files.server(ssl)) as (client, server):
        client.settimeout(30)
        server.sendall(b"last")
        server.setblocking(False)
        with contextlib.suppress(ssl.SSLError):
            server.unwrap()
        assert [client.recv(10) for _ in range(4)] == [b"last", b"", b"", b""]


@pytest.mark.parametrize("size", [1, 1000, 16384, 70_000])
def test_writes_follow_one_another_in_the_memory_bio(files: Files, size: int) -> None:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = files.client(ssl).wrap_bio(down, up, server_hostname=NAME)
    server = files.server(ssl).wrap_bio(up, down, server_side=True)
    for end in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    sent, carried = b"", b""
    for number in range(12):
        data = bytes([number]) * size
        client.write(data)
        sent += data
        carried += up.read(size // 2 + 1)  # some of it is taken out between
    carried += up.read()
    up.write(carried)
    got = b""
    with contextlib.suppress(ssl.SSLWantReadError):
        while True:
            got += server.read(5000)
    assert got == sent
