"""Several back ends: turns, the next one when connecting fails, names with several addresses."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Callable

from command_helpers import Identity
from peers import refused_port, stuck_port

from .running import Proxy, accept, connect, end_of_new, listener, receive_exactly

Start = Callable[..., Proxy]


def to_options(*ports: int, host: str = "127.0.0.1") -> list[str]:
    return [word for port in ports for word in ("--to", f"tcp://{host}:{port}")]


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def use(proxy: Proxy, listening: socket.socket) -> None:
    """A connection that has to come out here."""
    with connect(proxy.port) as client, accept(listening) as server:
        server.sendall(b"x")
        assert receive_exactly(client, 1) == b"x"


def test_back_ends_take_turns(start: Start) -> None:
    with listener() as one, listener() as two, listener() as three:
        proxy = start("--listen", "tcp://127.0.0.1:0", *to_options(*map(port_of, (one, two, three))))
        for listening in (one, two, three, one, two, three):
            use(proxy, listening)


def test_one_that_refuses_is_passed_over_and_left_out(start: Start) -> None:
    with refused_port() as port, listener() as good:
        proxy = start("--listen", "tcp://127.0.0.1:0", *to_options(port, port_of(good)))
        for _ in range(6):
            use(proxy, good)
        assert "refused" in proxy.wait_for_message("is left out")
        assert len(proxy.messages) == 1, "told once, not for every connection"


def test_one_that_came_back_is_used_again(start: Start) -> None:
    with socket.socket() as late, listener() as good:
        late.bind(("127.0.0.1", 0))
        late.settimeout(30)
        proxy = start("--listen", "tcp://127.0.0.1:0", *to_options(port_of(late), port_of(good)))
        use(proxy, good)
        late.listen()
        served = threading.Event()

        def serve(listening: socket.socket, is_late: bool) -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listening.accept()[0] as sock:
                        if is_late:
                            served.set()
                        sock.sendall(b"x")

        for listening in (late, good):
            threading.Thread(target=serve, args=(listening, listening is late), daemon=True).start()
        for _ in range(3000):  # it is left out for a second
            with connect(proxy.port) as client:
                assert receive_exactly(client, 1) == b"x"
            if served.wait(0.01):
                break
        assert served.is_set()
        for listening in (late, good):
            listening.shutdown(socket.SHUT_RDWR)


def test_one_that_does_not_answer_is_passed_over(start: Start) -> None:
    with stuck_port() as port, listener() as good:
        options = ("--connect-timeout", 0.2)
        proxy = start("--listen", "tcp://127.0.0.1:0", *to_options(port, port_of(good)), *options)
        use(proxy, good)
        assert proxy.record()["backend"] == f"127.0.0.1:{port_of(good)}"


def fails(proxy: Proxy, context: Any = None) -> dict[str, Any]:
    """A connection that the proxy ends, and not as if all were well; the record of it."""
    assert end_of_new(proxy.port, context) == ("reset" if context is None else "internal_error")
    record: dict[str, Any] = proxy.record()
    return record


def test_none_that_can_be_reached(start: Start, identity: Identity) -> None:
    with refused_port() as one, refused_port() as two:
        proxy = start("--listen", "tls://127.0.0.1:0", "--cert", identity.both, *to_options(one, two))
        record = fails(proxy, identity.client_context())
        assert record["reason"] == "no_backend"
        assert "refused" in record["error"] and str(one) in record["error"] and str(two) in record["error"]
        assert record["backend"] is None


def test_none_that_answers(start: Start) -> None:
    with stuck_port() as port:
        proxy = start("--listen", "tcp://127.0.0.1:0", *to_options(port), "--connect-timeout", 0.2)
        assert fails(proxy)["reason"] == "connect_timeout"


def test_one_comes_back_while_all_are_left_out(start: Start) -> None:
    """There is nothing to lose: it is tried although it is left out."""
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        late.settimeout(30)
        proxy = start("--listen", "tcp://127.0.0.1:0", *to_options(port_of(late)))
        assert fails(proxy)["reason"] == "no_backend"
        late.listen()
        use(proxy, late)


def test_a_name_with_several_addresses(start: Start) -> None:
    """Where localhost is ::1 and 127.0.0.1, and only one of them is listened on."""
    with listener() as four:
        proxy = start("--listen", "tcp://127.0.0.1:0", *to_options(port_of(four), host="localhost"))
        for _ in range(4):
            use(proxy, four)


def test_a_name_that_nobody_knows(start: Start) -> None:
    proxy = start("--listen", "tcp://127.0.0.1:0", "--to", "tcp://nobody.invalid:80")
    record = fails(proxy)
    assert record["reason"] in ("no_backend", "connect_timeout")
    assert "name" in record["error"]


def test_a_client_that_leaves_while_the_back_end_is_dialled(start: Start, identity: Identity) -> None:
    with stuck_port() as port:
        proxy = start("--listen", "tls://127.0.0.1:0", "--cert", identity.both, *to_options(port), "--connect-timeout", 20)
        client = connect(proxy.port, identity.client_context())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert proxy.record()["reason"] == "client_reset"
