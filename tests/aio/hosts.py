"""Programs of the family in each asyncio loop: ours, asyncio's and uvloop's. What a program leaves behind fails its test."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Callable, Optional

from peers import DEADLINE, Certificates
from sslsock import EventLoop, SslServer, SslSocket, TcpSocket, aio

HOSTS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"ours": aio.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
with contextlib.suppress(ImportError):
    import uvloop

    HOSTS["uvloop"] = uvloop.new_event_loop


class Runner:
    """Runs coroutines in a loop of one kind, and looks at what is left afterwards."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.told: list[dict[str, Any]] = []  # what asyncio's exception handler was given
        self.reported: list[dict[str, Any]] = []  # what that of the sockets' loop was given

    def __call__(self, main: Coroutine[Any, Any, Any]) -> Any:
        host = HOSTS[self.kind]()
        host.set_exception_handler(lambda loop, context: self.told.append(context))
        asyncio.set_event_loop(host)
        try:
            return host.run_until_complete(asyncio.wait_for(self._run(main), 2 * DEADLINE))
        finally:
            host.run_until_complete(host.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            host.close()
            gc.collect()

    async def _run(self, main: Coroutine[Any, Any, Any]) -> Any:
        loop = EventLoop.current()
        loop.exception_handler = lambda loop, context: self.reported.append(context)
        before = asyncio.all_tasks()
        result = await main
        for _ in range(3):
            await asyncio.sleep(0)
        assert not loop._awaited, "somebody still waits"
        assert asyncio.all_tasks() <= before, "a task is left"
        assert not loop._tasks, "a handler's task is remembered"
        return result

    def take_reported(self) -> list[BaseException]:
        reported, self.reported = self.reported, []
        return [context["exception"] for context in reported]


@contextlib.asynccontextmanager
async def connected(sock: Optional[TcpSocket] = None) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A socket of ours, connected to one of the standard library."""
    near = TcpSocket() if sock is None else sock
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near.connect("127.0.0.1", listener.getsockname()[1])
        await near.connected()
        far, _ = listener.accept()
    with far:
        try:
            yield near, far
        finally:
            near.abort()
            assert near._waits is None


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """The loop turns until it is so."""
    end = asyncio.get_running_loop().time() + DEADLINE
    while not condition():
        assert asyncio.get_running_loop().time() < end, "waited in vain"
        await asyncio.sleep(0.001)


async def begun(awaitable: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Its task, which waits."""
    task = asyncio.get_running_loop().create_task(awaitable)
    await turns(2)
    assert not task.done()
    return task


async def secure_pair(certificates: Certificates) -> tuple[SslSocket, SslSocket]:
    """Both ends of an encrypted connection."""
    server = SslServer()
    server.configuration = certificates.server()
    assert server.listen(0, "127.0.0.1")
    client = SslSocket()
    client.configuration = certificates.client()
    client.connect_encrypted("localhost", server.port)
    await until(lambda: server.has_pending_connections)
    taken = server.next_pending_secure_connection()
    server.close()
    assert taken is not None
    await asyncio.gather(client.encrypted(), taken.encrypted())
    return client, taken
