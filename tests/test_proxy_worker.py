"""A worker in a thread: what happens to connections when the program itself makes a mistake."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Optional

import pytest

from peers import refused_port
from sslsock.core.ticket_keys import TicketKeys
from sslsock.proxy.observability import record
from sslsock.proxy.observability.access_log import AccessLog, LineWriter
from sslsock.proxy.policy import ListenerPolicy
from sslsock.proxy.settings.model import Address, Limits, ListenerSettings, Route
from sslsock.proxy.worker import Gate, Worker

DEADLINE = 60.0
UNLIMITED = Limits(connect_timeout=0.0, idle_timeout=0.0)


class Broken(LineWriter):
    """Raises where a writer never does; the worker writes a line when a back end fails."""

    def write(self, line: str) -> None:
        raise RuntimeError("a mistake")


def mistakes_with(to: Address, clients: int, back: Optional[socket.socket] = None) -> int:
    """How many clients of a worker without time limits end by a mistake of the program. back: accepts and closes at once."""
    made: list[Worker] = []
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.setblocking(False)
        address = listening.getsockname()
        # Before the worker looks up a name, so that they wait for it.
        connections = [stack.enter_context(socket.create_connection(address, DEADLINE)) for _ in range(clients)]
        writer = Broken(stack.enter_context(open("/dev/null", "wb")))
        stack.callback(writer.close)

        def work() -> None:
            policy = ListenerPolicy(ListenerSettings(Address("tcp", *address), (Route((to,)),)), TicketKeys())
            log = AccessLog(writer, None)
            made.append(
                Worker([policy], [[listening.detach()]], (), UNLIMITED, Gate(0), log, writer, False, lambda worker: None)
            )
            ready.set()
            made[0].run()

        ready = threading.Event()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert ready.wait(DEADLINE)
        try:
            if back is not None:
                back.accept()[0].close()
            for connection in connections:
                with pytest.raises(ConnectionResetError):
                    connection.recv(1)
        finally:
            made[0].loop.call_soon_threadsafe(made[0].stop, record.ABORTED)
            thread.join(DEADLINE)
    return sum(listener.reasons.get(record.INTERNAL_ERROR, 0) for listener in made[0].counters.listeners.values())


@pytest.mark.usefixtures("caplog")
def test_a_mistake_while_a_back_end_is_greeted_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as back:
        back.settimeout(DEADLINE)
        assert mistakes_with(Address("tls", "127.0.0.1", back.getsockname()[1]), 1, back) == 1


@pytest.mark.usefixtures("caplog")
def test_a_mistake_after_a_lookup_is_not_that_of_the_others_who_waited() -> None:
    with refused_port() as port:
        assert mistakes_with(Address("tcp", "localhost", port), 3) == 3
