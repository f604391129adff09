"""What a person sees in a REPL and an editor, by rules over all public names: help, completion, signatures, repr."""

from __future__ import annotations

import ast
import asyncio
import enum
import importlib
import inspect
import pydoc
import re
import rlcompleter
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sslsock
import sslsock.aio
import sslsock.proxy_protocol
import sslsock.ssl
from peers import Certificates, Host, make_tcp_pair
from sslsock.sockets.loop_object import Handler

PACKAGE = Path(sslsock.__file__).resolve().parent
NOT_MADE = ("ClientHello", "SSLSession")  # by programs: their constructors refuse, in words


def own(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("sslsock")


def public_things() -> Iterator[tuple[str, Any]]:
    """Every public class and function of ours, by its full name."""
    for module in (sslsock, sslsock.aio, sslsock.proxy_protocol, sslsock.ssl):
        for name in getattr(module, "__all__", None) or dir(module):
            thing = getattr(module, name)
            if not name.startswith("_") and callable(thing) and own(thing):
                yield f"{module.__name__}.{name}", thing


THINGS = dict(public_things())
CLASSES = {name: thing for name, thing in THINGS.items() if inspect.isclass(thing)}
COMPILED = {name: thing for name, thing in CLASSES.items() if not thing.__flags__ & (1 << 9)}  # Py_TPFLAGS_HEAPTYPE


def public_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Of a class those that we have made."""
    for name in dir(cls):
        owner = next((base for base in cls.__mro__ if name in vars(base)), object)
        if not name.startswith("_") and own(owner):
            yield name, inspect.getattr_static(cls, name)


def test_the_names_are_there() -> None:
    assert len(THINGS) > 60
    assert {"sslsock.Engine", "sslsock.Context", "sslsock.SslKey"} <= set(COMPILED)


@pytest.mark.parametrize("name", THINGS)
def test_help_reads_well(name: str) -> None:
    thing = THINGS[name]
    standard = getattr(ssl, name.rpartition(".")[2], None)  # of which sslsock.ssl has the very texts, and some have none
    if name.startswith("sslsock.ssl.") and standard is not None and not standard.__doc__:
        return
    assert inspect.getdoc(thing), f"help({name}) explains nothing"
    standards = pydoc.plain(pydoc.render_doc(int)).splitlines()  # that enumerations inherit
    text = "\n".join(line for line in pydoc.plain(pydoc.render_doc(thing)).splitlines() if line not in standards)
    for noise in ("_cython__", "__pyx_unpickle", "\n |  on_", "<unrepresentable"):
        assert noise not in text
    first = thing.__doc__.strip().splitlines()[0]
    assert not re.match(rf"{name.rpartition('.')[2]}\(.*\)$", first), "a signature in the place of an explanation"


@pytest.mark.parametrize("name", CLASSES)
def test_completion_shows_nothing_internal(name: str) -> None:
    cls = CLASSES[name]
    for member, value in public_members(cls):
        assert not member.startswith("on_"), f"{name}.{member} is called by the core, not by programs"
        described = isinstance(value, (property, classmethod, staticmethod, Handler)) or inspect.isroutine(value)
        if described and name.count(".") == 1:  # else as asyncio's and ssl's, some of which have no text
            assert inspect.getdoc(getattr(cls, member)), f"{name}.{member} is public and not explained"


class Client(sslsock.SslSocket):
    def ready_read_handler(self) -> None:
        """Reads it all."""

    def encrypted_handler(self) -> None:
        pass


def test_help_of_a_handler() -> None:
    text = pydoc.plain(pydoc.render_doc(sslsock.SslSocket))
    assert "`ready_read_handler(stream)`: called when new data can be read." in text

    assert inspect.getdoc(Client.ready_read_handler) == "Reads it all."
    text = pydoc.plain(pydoc.render_doc(Client))
    assert "Reads it all." in text
    assert "`encrypted_handler(socket)`: called when the handshake is done" in text


def test_completion_at_the_prompt() -> None:
    completer = rlcompleter.Completer({"s": sslsock.SslSocket()})
    found = []
    while (word := completer.complete("s.", len(found))) is not None:
        found.append(word.rstrip("()"))
    assert "s.ready_read_handler" in found and "s.connect_encrypted" in found
    assert [word for word in found if word.startswith(("s._", "s.on_"))] == []


# Signatures


def stub_constructors() -> Iterator[tuple[str, ast.arguments]]:
    """Of each compiled public class what its stub says of the constructor, without self or cls."""
    for name, cls in COMPILED.items():
        path = PACKAGE.joinpath(*cls.__module__.split(".")[1:]).with_suffix(".pyi")
        classes = [one for one in ast.parse(path.read_text()).body if isinstance(one, ast.ClassDef)]
        (found,) = (one for one in classes if one.name == cls.__name__)
        for function in found.body:
            if isinstance(function, ast.FunctionDef) and function.name in ("__init__", "__new__"):
                yield name, function.args


@pytest.mark.parametrize("name", [name for name in THINGS if not name.endswith(NOT_MADE)])
def test_every_callable_has_a_signature(name: str) -> None:
    thing = THINGS[name]
    if inspect.isclass(thing) and issubclass(thing, (BaseException, enum.Enum, int)):
        return  # those of the standard library say what they take
    assert str(inspect.signature(thing)) != "(*args, **kwargs)" or not own(thing)
    assert not [parameter for parameter in inspect.signature(thing).parameters if parameter.startswith("_")]
    for member, value in public_members(thing) if inspect.isclass(thing) else ():
        if callable(getattr(thing, member)) and inspect.isroutine(value):
            assert list(inspect.signature(getattr(thing, member)).parameters) is not None


STUBS = {name: arguments for name, arguments in stub_constructors() if not name.endswith(NOT_MADE)}


@pytest.mark.parametrize("name", STUBS)
def test_the_signature_of_a_compiled_class_is_its_stubs(name: str) -> None:
    arguments = STUBS[name]
    given = inspect.signature(COMPILED[name]).parameters
    positional = [one.arg for one in [*arguments.posonlyargs, *arguments.args][1:]]
    keywords = [one.arg for one in arguments.kwonlyargs]
    assert [one.name for one in given.values() if one.kind is not one.KEYWORD_ONLY] == positional
    assert [one.name for one in given.values() if one.kind is one.KEYWORD_ONLY] == keywords
    module = vars(importlib.import_module(COMPILED[name].__module__))
    defaults = dict(zip(reversed(positional), reversed(arguments.defaults)))
    defaults.update((one, default) for one, default in zip(keywords, arguments.kw_defaults) if default is not None)
    for parameter in given.values():
        default = defaults.get(parameter.name)
        assert (parameter.default is not parameter.empty) == (default is not None), parameter.name
        if default is not None and not (isinstance(default, ast.Constant) and default.value is ...):
            assert parameter.default == eval(ast.unparse(default), {**module}), parameter.name


# repr


def engine_pair(certificates: Certificates) -> tuple[sslsock.Engine, sslsock.Engine]:
    """Client and server after their handshake."""
    identity = certificates.server()
    of_client = sslsock.Context(server_side=False, ca_certificates=[certificates.ca_certificate], use_system_ca=False)
    of_server = sslsock.Context(
        server_side=True,
        certificate=identity.local_certificate_chain[0],
        private_key=identity.private_key,
        verify_mode=sslsock.SslSocket.VERIFY_NONE,
        use_system_ca=False,
    )
    client = sslsock.Engine(of_client, server_name="localhost", verify_name="localhost")
    server = sslsock.Engine(of_server)
    server.decrypt(client.start())
    while not (client.handshake_done and server.handshake_done):
        client.decrypt(server.take())
        server.decrypt(client.take())
    return client, server


def made_objects(certificates: Certificates, host: Host) -> Iterator[Any]:
    """An object of every public class that is no enumeration or exception."""
    configuration = certificates.server()
    assert configuration.private_key is not None
    yield from (configuration, configuration.local_certificate_chain[0], configuration.private_key)
    yield from (sslsock.SslCrl(), sslsock.SslSession(), sslsock.TicketKeys(), sslsock.EventLoop.current(), sslsock.SslError(20))
    yield from (sslsock.SslSocket(), sslsock.TcpSocket(), sslsock.TcpServer(), sslsock.SslServer())
    yield sslsock.SslPreSharedKeyAuthenticator("hint", True)
    yield from (sslsock.proxy_protocol.parse(b"PROXY UNKNOWN\r\n"), sslsock.proxy_protocol.TlsFields())
    front, back = make_tcp_pair(host, reads=False), make_tcp_pair(host, reads=False)
    relay = sslsock.Relay(front.client, back.client)
    yield relay
    relay.close()
    for sock in (front.server, back.server):
        sock.abort()
    client, server = engine_pair(certificates)
    yield from (client, server, client.context, server.context)
    context = sslsock.ssl.SSLContext(sslsock.ssl.PROTOCOL_TLS_CLIENT)
    yield from (context, sslsock.ssl.MemoryBIO())
    loop = sslsock.aio.EventLoop()

    async def main() -> list[Any]:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await sslsock.aio.open_connection(loop, *server.sockets[0].getsockname())
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return [server, reader, writer, writer.transport, writer._protocol]  # type: ignore[attr-defined]

    yield from loop.run_until_complete(main())
    yield loop
    loop.close()


def test_repr_says_what_it_is_and_no_secret(certificates: Certificates, own_host: Host) -> None:
    secret = certificates._server.private_key_pem.bytes().decode().splitlines()[2]
    seen = set()
    for thing in made_objects(certificates, own_host):
        text = repr(thing)
        seen |= {cls.__name__ for cls in CLASSES.values() if isinstance(thing, cls)}
        assert " object at 0x" not in text, text
        names = [cls.__name__ for cls in (*type(thing).__mro__, *CLASSES.values()) if isinstance(thing, cls)]
        assert any(text.lstrip("<").startswith(name) for name in names), text
        assert secret not in text
    others = (BaseException, enum.Enum, int)
    needed = {cls.__name__ for cls in CLASSES.values() if not issubclass(cls, others)} - set(NOT_MADE)
    assert needed - seen == set(), "no object of these was looked at"


def test_repr_tells_the_state(certificates: Certificates) -> None:
    client, server = engine_pair(certificates)
    assert re.fullmatch(r"<Engine of a client, TLS 1\.3 TLS_\w+>", repr(client))
    server.decrypt(client.close())
    assert repr(server) == "<Engine of a server, closed by the peer>"
    assert repr(client) == "<Engine of a client, closed by this side>"
    assert repr(server.context).startswith("<Context for servers, VERIFY_")
    fresh = sslsock.Engine(client.context, server_name="localhost", verify_name="localhost")
    assert repr(fresh) == "<Engine of a client, before the end of the handshake>"
    fresh.start()
    with pytest.raises(sslsock.TlsError):
        fresh.decrypt(b"\x16\x03\x01\x00\x05nonsense")
    assert repr(fresh) == "<Engine of a client, failed>"
    loop = sslsock.EventLoop()
    assert repr(loop) == "<EventLoop not running>"
    loop.close()
    assert repr(loop) == "<EventLoop closed>"
    context = sslsock.ssl.SSLContext(sslsock.ssl.PROTOCOL_TLS_SERVER)
    assert repr(context) == "<SSLContext PROTOCOL_TLS_SERVER, CERT_NONE>"


def test_nothing_of_ours_is_completed_on_the_modules() -> None:
    """What `sslsock.` and `sslsock.aio.` offer is what they export, and their own modules."""
    for module in (sslsock, sslsock.aio):
        others = {
            name
            for name in dir(module)
            if not name.startswith("_") and name not in module.__all__ and f"{module.__name__}.{name}" not in sys.modules
        }
        assert others <= {"annotations", "TYPE_CHECKING"}, f"{module.__name__} shows {others}"
