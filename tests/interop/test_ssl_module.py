"""The standard library's `ssl` as the peer: blocking and asyncio, in a thread, and what is built on it."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import poplib
import smtplib
import socket
import ssl
import threading

import pytest

from peers import DEADLINE, echoed, reset
from sslsock import SocketError, SslProtocol

from .ours import (
    PAYLOAD,
    OurServer,
    client_configuration,
    connected,
    dial,
    echo,
    ended,
    exchange,
    server_configuration,
)
from .pki import NAME
from .programs import in_thread
from .ssl_peers import SslModuleServer, blocking_client, client_context, server_context
from .starttls import ImapServer, PopServer, SmtpServer

LOCAL = ("127.0.0.1", 0)


# We are the client


def test_a_client_of_a_blocking_server(host, pki, version, algorithm):
    with SslModuleServer(server_context(pki, pki.servers[algorithm], version)) as server:
        client = connected(host, server.port, client_configuration(pki))
        sock = client.socket
        assert sock.session_protocol is SslProtocol[version]
        assert sock.peer_certificate == pki.servers[algorithm].ours
        assert sock.peer_certificate_chain == [pki.servers[algorithm].ours, pki.middle.ours]
        exchange(host, client, b"question")
        sock.disconnect()
        ended(host, client)
        host.wait_for(lambda: server.seen)
        assert server.seen[0].clean
        assert server.seen[0].error is None
        assert client.names()[-1] == "disconnected"
        assert sock.clean_close


def test_a_client_moves_much_data_both_ways(host, pki, version):
    with SslModuleServer(server_context(pki, version=version)) as server:
        client = connected(host, server.port, client_configuration(pki))
        exchange(host, client, PAYLOAD)
        assert client.written == len(PAYLOAD)
        client.socket.disconnect()
        host.wait_for(lambda: server.seen)
        assert server.seen[0].clean


def test_a_client_and_a_server_that_says_goodbye(host, pki, version):
    def talk(tls: ssl.SSLSocket) -> None:
        tls.sendall(b"that was all")

    with SslModuleServer(server_context(pki, version=version), talk) as server:
        client = dial(server.port, client_configuration(pki))
        ended(host, client)
        assert client.data == b"that was all"
        assert client.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
        assert client.socket.clean_close


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_client_notices_that_it_was_cut_off(host, pki, version, end):
    def talk(tls: ssl.SSLSocket) -> None:
        tls.sendall(b"that was not all")
        tls.recv(1)
        raw = socket.socket(fileno=tls.detach())
        raw.close() if end == "close" else reset(raw)
        raise ConnectionAbortedError

    with SslModuleServer(server_context(pki, version=version), talk) as server:
        client = dial(server.port, client_configuration(pki))
        host.wait_for(lambda: client.data == b"that was not all", client.events)
        client.socket.write(b"!")
        ended(host, client)
        assert client.data == b"that was not all"
        assert client.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
        assert not client.socket.clean_close
        assert client.names()[-1] == "disconnected"


def test_a_client_asks_for_a_name_and_agrees_on_a_protocol(host, pki, version):
    asked = []
    context = server_context(pki, version=version)
    context.set_alpn_protocols(["two", "one"])
    context.sni_callback = lambda tls, name, context: asked.append(name)
    with SslModuleServer(context) as server:
        configuration = client_configuration(pki)
        configuration.allowed_next_protocols = ["one", "two"]
        client = connected(host, server.port, configuration)
        assert client.socket.next_negotiated_protocol == "two", "the server's wish comes first"
        client.socket.disconnect()
        configuration.allowed_next_protocols = ["three"]
        client = connected(host, server.port, configuration, name="127.0.0.1")
        assert client.socket.next_negotiated_protocol is None
        client.socket.disconnect()
        host.wait_for(lambda: len(server.seen) == 2)
        assert asked == [NAME, None], "an address is not asked for (RFC 6066, 3)"
        assert [seen.protocol for seen in server.seen] == ["two", None]


def test_a_client_that_is_too_old_or_too_new_is_told_so(host, pki):
    for ours, theirs in (("TLS_1_2", "TLS_1_3"), ("TLS_1_3", "TLS_1_2")):
        with SslModuleServer(server_context(pki, version=theirs)) as server:
            client = dial(server.port, client_configuration(pki, ours))
            ended(host, client)
            assert client.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
            assert "protocol version" in client.socket.error_string
            host.wait_for(lambda server=server: server.seen)
            assert server.seen[0].error is not None


class AsyncioServer:
    """An echo server of asyncio's streams, in a thread."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.clean = 0
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self.thread.start()
        assert self.ready.wait(DEADLINE)

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        server = await asyncio.start_server(self._serve, *LOCAL, ssl=self.context)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            self.ready.set()
            await asyncio.wait_for(self.over.wait(), 60)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            data = await reader.read(65536)
            if not data:
                break
            writer.write(data)
            await writer.drain()
        self.clean += 1
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def __enter__(self) -> AsyncioServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(DEADLINE)


def test_a_client_of_an_asyncio_server(host, pki, version):
    with AsyncioServer(server_context(pki, version=version)) as server:
        client = connected(host, server.port, client_configuration(pki))
        exchange(host, client, b"small")
        exchange(host, client, PAYLOAD)
        client.socket.disconnect()
        host.wait_for(lambda: server.clean == 1)


# We are the server


def test_a_server_of_a_blocking_client(host, pki, version, algorithm):
    identity = pki.servers[algorithm]
    server = OurServer(server_configuration(pki, identity=identity), echo)

    def talk() -> tuple[object, ...]:
        with blocking_client(client_context(pki, version=version), server.port) as tls:
            tls.sendall(b"question")
            answer = tls.recv(100)
            agreed = tls.version(), tls.getpeercert(True)
            tls.unwrap().close()
            return (answer, *agreed)

    result = in_thread(talk)
    host.wait_for(result.done)
    assert result.result() == (b"question", version.replace("TLS_1_", "TLSv1."), identity.ours.to_der())
    taken = server.last(host)
    ended(host, taken)
    assert taken.socket.session_protocol is SslProtocol[version]
    assert taken.socket.requested_server_name == NAME
    assert taken.socket.peer_certificate is None
    assert taken.socket.clean_close
    assert taken.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    server.close()


def test_a_server_moves_much_data_both_ways(host, pki, version):
    server = OurServer(server_configuration(pki), echo)

    def talk() -> bytes:
        with blocking_client(client_context(pki, version=version), server.port) as tls:
            received = echoed(tls, PAYLOAD)
            tls.unwrap().close()
            return received

    result = in_thread(talk)
    host.wait_for(result.done, "the echo", 30)
    assert result.result() == PAYLOAD
    ended(host, server.last(host))
    assert server.last(host).socket.clean_close
    server.close()


def test_a_server_says_goodbye_after_all_that_it_has_written(host, pki, version):
    def serve(recorder):
        recorder.socket.write(PAYLOAD)
        recorder.socket.disconnect()

    server = OurServer(server_configuration(pki), serve)

    def talk() -> bytes:
        with blocking_client(client_context(pki, version=version), server.port) as tls:
            tls.suppress_ragged_eofs = False  # without close_notify recv raises
            received = bytearray()
            while True:
                data = tls.recv(65536)
                if not data:
                    return bytes(received)
                received += data

    result = in_thread(talk)
    host.wait_for(result.done, "the download", 30)
    assert result.result() == PAYLOAD
    server.close()


def test_a_server_that_aborts_does_not_look_like_the_end(host, pki, version):
    server = OurServer(server_configuration(pki))
    context = client_context(pki, version=version)
    context.options &= ~0x80  # SSL_OP_IGNORE_UNEXPECTED_EOF: CPython 3.9 sets it

    def talk() -> bytes:
        with blocking_client(context, server.port) as tls:
            tls.suppress_ragged_eofs = False
            tls.sendall(b"go")
            return tls.recv(100)

    result = in_thread(talk)
    taken = server.last(host)
    host.wait_for(lambda: taken.data == b"go", taken.events)
    taken.socket.abort()
    host.wait_for(result.done)
    with pytest.raises(OSError):
        result.result()
    server.close()


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_server_notices_that_it_was_cut_off(host, pki, version, end):
    server = OurServer(server_configuration(pki))

    def talk() -> None:
        with blocking_client(client_context(pki, version=version), server.port) as tls:
            tls.sendall(b"half of it")
            raw = socket.socket(fileno=tls.detach())
            raw.close() if end == "close" else reset(raw)

    result = in_thread(talk)
    taken = server.last(host)
    ended(host, taken)
    host.wait_for(result.done)
    assert taken.data == b"half of it" or end == "reset"
    assert taken.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert not taken.socket.clean_close
    server.close()


def test_a_server_agrees_on_a_protocol_or_refuses(host, pki, version):
    configuration = server_configuration(pki)
    configuration.allowed_next_protocols = ["h2", "http/1.1"]
    server = OurServer(configuration, echo)

    def talk(names: list[str]) -> object:
        context = client_context(pki, version=version)
        if names:
            context.set_alpn_protocols(names)
        with blocking_client(context, server.port) as tls:
            tls.sendall(b"x")
            tls.recv(1)
            return tls.selected_alpn_protocol()

    for offered, agreed in ((["http/1.1", "h2"], "h2"), (["http/1.1", "spdy/1"], "http/1.1"), ([], None)):
        result = in_thread(talk, offered)
        host.wait_for(result.done)
        assert result.result() == agreed
        assert server.last(host).socket.next_negotiated_protocol == agreed
    result = in_thread(talk, ["gopher"])
    host.wait_for(result.done)
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):  # RFC 7301, 3.2
        result.result()
    assert server.last(host).of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    server.close()


@pytest.mark.parametrize(
    ("trusted", "name", "alert"),
    [(False, NAME, "unknown ca"), (True, "other.example.test", "bad certificate")],
    ids=["unknown authority", "wrong host"],
)
def test_a_server_is_told_why_a_client_does_not_like_it(host, pki, version, trusted, name, alert):
    server = OurServer(server_configuration(pki))
    context = client_context(pki, version=version)
    if not trusted:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def talk() -> None:
        with blocking_client(context, server.port, name):
            pass

    result = in_thread(talk)
    host.wait_for(result.done)
    with pytest.raises(ssl.SSLCertVerificationError):
        result.result()
    taken = server.last(host)
    ended(host, taken)
    assert taken.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    assert f'the peer sent the alert "{alert}"' in taken.socket.error_string.lower()
    server.close()


def test_a_server_of_an_asyncio_client(host, pki, version):
    server = OurServer(server_configuration(pki), echo)

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=client_context(pki, version=version), server_hostname=NAME
        )
        writer.write(PAYLOAD)
        answer = await asyncio.wait_for(reader.readexactly(len(PAYLOAD)), 30)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return answer

    result = in_thread(lambda: asyncio.run(talk()))
    host.wait_for(result.done, "the echo", 30)
    assert result.result() == PAYLOAD
    ended(host, server.last(host))
    server.close()


# STARTTLS, by the library's clients of the protocols that have it


def test_smtplib_starts_tls_with_our_server(host, pki, version):
    server = SmtpServer(server_configuration(pki))
    message = b"Subject: test\r\n\r\n" + b"a line of the message\r\n" * 20000

    def talk() -> list[object]:
        with smtplib.SMTP("127.0.0.1", server.port, NAME, DEADLINE) as smtp:
            smtp._host = NAME  # what starttls() checks the certificate against
            codes = [smtp.ehlo()[0], smtp.has_extn("starttls")]
            codes += [smtp.starttls(context=client_context(pki, version=version))[0], smtp.ehlo()[0]]
            codes += [smtp.has_extn("starttls"), smtp.sock.version()]
            smtp.sendmail("a@example.test", ["b@example.test"], message)
            return codes

    result = in_thread(talk)
    host.wait_for(result.done)
    assert result.result() == [250, True, 220, 250, False, version.replace("TLS_1_", "TLSv1.")]
    assert server.messages == [message]
    ended(host, server.last(host))
    server.close()


def test_imaplib_starts_tls_with_our_server(host, pki, version):
    server = ImapServer(server_configuration(pki))

    def talk() -> list[object]:
        imap = imaplib.IMAP4("127.0.0.1", server.port)
        imap.host = NAME
        before = "STARTTLS" in imap.capabilities
        answer = imap.starttls(client_context(pki, version=version))[0]
        found = [before, answer, imap.login("user", "secret")[0], imap.sock.version()]
        imap.logout()
        return found

    result = in_thread(talk)
    host.wait_for(result.done)
    assert result.result() == [True, "OK", "OK", version.replace("TLS_1_", "TLSv1.")]
    assert server.log == ["LOGIN encrypted"]
    server.close()


def test_poplib_starts_tls_with_our_server(host, pki, version):
    server = PopServer(server_configuration(pki))

    def talk() -> list[object]:
        pop = poplib.POP3("127.0.0.1", server.port, DEADLINE)
        pop.host = NAME
        found = ["STLS" in pop.capa(), pop.stls(client_context(pki, version=version))[:3]]
        found += [pop.user("user")[:3], pop.sock.version()]
        pop.quit()
        return found

    result = in_thread(talk)
    host.wait_for(result.done)
    assert result.result() == [True, b"+OK", b"+OK", version.replace("TLS_1_", "TLSv1.")]
    server.close()


def test_imaplib_on_the_tls_port_of_our_server(host, pki, version):
    server = ImapServer(server_configuration(pki, version), encrypted=True)
    context = client_context(pki)
    context.check_hostname = False  # it asks for the address

    def talk() -> str:
        imap = imaplib.IMAP4_SSL("127.0.0.1", server.port, ssl_context=context)
        answer = imap.login("user", "secret")[0]
        imap.logout()
        return answer

    result = in_thread(talk)
    host.wait_for(result.done)
    assert result.result() == "OK"
    server.close()
