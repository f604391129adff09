"""The `_async` twins: from any thread, on the object's loop, by callback or by future."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from peers import make_tcp_pair, secure_server
from sslsock import SslServer, SslSocket, TcpServer, TcpSocket

STREAM_TWINS = [
    "read",
    "read_all",
    "peek",
    "read_line",
    "read_into",
    "read_string",
    "read_bytes",
    "read_line_string",
    "read_line_bytes",
    "read_all_string",
    "read_all_bytes",
    "peek_string",
    "peek_bytes",
    "write",
    "write_string",
    "write_bytes",
    "seek",
    "reset",
    "open",
    "close",
]
SOCKET_TWINS = ["bind", "connect", "disconnect", "abort"]
SSL_TWINS = ["connect_encrypted", "start_client_encryption", "start_server_encryption", "continue_handshake"]
SERVER_TWINS = ["listen", "close", "next_pending_connection"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (TcpSocket, STREAM_TWINS + SOCKET_TWINS),
        (SslSocket, STREAM_TWINS + SOCKET_TWINS + SSL_TWINS),
        (TcpServer, SERVER_TWINS),
        (SslServer, [*SERVER_TWINS, "next_pending_secure_connection"]),
    ],
)
def test_every_documented_twin_exists(own_host, kind, names):
    for name in names:
        assert callable(getattr(kind(), f"{name}_async")), name
        assert name in getattr(kind, f"{name}_async").__doc__


def from_thread(host, function):
    """Call in another thread while the loop turns; the result of the call."""
    with ThreadPoolExecutor(1) as threads:
        called = threads.submit(function)
        host.wait_for(called.done)
        return called.result()


def test_a_future_has_the_result(host):
    sock = TcpSocket()
    assert from_thread(host, lambda: sock.bind_async(0).result(10)) is True
    assert sock.state is TcpSocket.BOUND_STATE


def test_a_callback_is_called_on_the_loop_with_object_result_and_error(host):
    server = TcpServer()
    calls = []

    def callback(*arguments):
        calls.append((threading.current_thread(), arguments))

    assert from_thread(host, lambda: server.listen_async(0, "127.0.0.1", callback)) is None
    host.wait_for(lambda: calls)
    assert calls == [(threading.current_thread(), (server, True, None))]
    assert server.listening
    server.close_async(callback=callback)
    assert server.listening  # it waits for the loop even in the loop's own thread
    host.wait_for(lambda: len(calls) == 2)
    assert not server.listening


def test_a_callback_that_nobody_would_await(own_host):
    async def callback(sock, result, error):
        raise AssertionError("it runs")

    for call in (lambda: TcpSocket().bind_async(0, callback), lambda: TcpSocket().bind_async(0, callback=callback)):
        with pytest.raises(TypeError, match="not awaited"):
            call()


def test_an_exception_is_the_callbacks_error_and_the_futures(host):
    sock = TcpSocket()
    errors = []
    sock.bind_async(70000, lambda s, result, error: errors.append((result, error)))
    future = sock.bind_async(70000)
    host.wait_for(lambda: errors and future.done())
    assert errors[0][0] is None
    assert isinstance(errors[0][1], ValueError)
    assert isinstance(future.exception(), ValueError)


def test_a_wrong_number_of_arguments_is_an_error_too(host):
    future = TcpSocket().seek_async()
    host.wait_for(future.done)
    assert isinstance(future.exception(), TypeError)


def test_what_a_callback_raises_goes_to_the_exception_handler(host):
    TcpSocket().reset_async(lambda s, result, error: 1 / 0)
    host.wait_for(lambda: host.failures)
    assert isinstance(host.take_failures()[0], ZeroDivisionError)


def test_a_cancelled_call_is_not_made(own_host):
    sock = TcpSocket()
    future = sock.bind_async(0)
    assert future.cancel()
    own_host.turn()
    assert sock.state is TcpSocket.UNCONNECTED_STATE


def test_a_subclass_that_overrides_a_method_has_overridden_its_twin(own_host):
    class Shouting(TcpSocket):
        def read(self, max=None):
            return b"LOUD"

    future = Shouting().read_async()
    own_host.wait_for(future.done)
    assert future.result() == b"LOUD"


def test_a_whole_conversation_from_another_thread(host):
    pair = make_tcp_pair(host, reads=False)

    def converse():
        buffer = bytearray(b"written")
        written = pair.client.write_async(buffer)
        buffer[:] = b"changed"  # at once: it was copied
        assert written.result(10) == 7
        assert pair.client.write_string_async(" text\nmore").result(10) == 10
        while pair.server.bytes_available < 17:
            pair.server.peek_async().result(10)
        results = [
            pair.server.peek_async(3).result(10),
            pair.server.read_async(8).result(10),
            pair.server.read_line_string_async().result(10),
            pair.server.read_all_async().result(10),
            pair.client.seek_async(0).result(10),
        ]
        into = bytearray(4)
        results.append(pair.server.read_into_async(into).result(10))
        pair.client.disconnect_async().result(10)
        return results

    assert from_thread(host, converse) == [b"wri", b"written ", "text\n", b"more", False, 0]
    host.wait_for(lambda: pair.right.has("disconnected"))


def test_connections_taken_and_made_from_another_thread(host, certificates):
    server = secure_server(certificates)
    client = SslSocket()
    client.configuration = certificates.client()

    def work():
        assert server.next_pending_secure_connection_async().result(10) is None
        client.connect_encrypted_async("localhost", server.port).result(10)
        taken = None
        while taken is None:
            taken = server.next_pending_secure_connection_async().result(10)
        return taken

    taken = from_thread(host, work)
    assert isinstance(taken, SslSocket)
    host.wait_for(lambda: client.encrypted and taken.encrypted)
    client.abort()
    taken.abort()


def test_a_closed_loop_fails_at_once(own_host):
    sock = TcpSocket()
    own_host.loop.close()
    future = sock.bind_async(0)
    assert isinstance(future, Future)
    assert isinstance(future.exception(0), RuntimeError)
    with pytest.raises(RuntimeError):
        sock.bind_async(0, print)


def test_closing_the_loop_settles_what_waits(own_host):
    future = TcpSocket().bind_async(0)
    own_host.loop.close()
    assert isinstance(future.exception(0), RuntimeError)
