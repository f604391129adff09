"""Seeded disorder: tasks that wait for anything, on connections to which anything happens. Every wait ends, by an answer, by
SocketFailure or by its cancellation; every byte that is read is the next one; nothing is left."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from hosts import HOSTS, Runner, secure_pair, turns, until

from sslsock import EventLoop, SocketFailure, SslSocket

SEEDS = range(int(os.environ.get("SSLSOCK_SEEDS", 12)))
LINE = b"0123456789abcdef\n"

WAITS = [
    lambda s, dice: s.connected(),
    lambda s, dice: s.encrypted(),
    lambda s, dice: s.disconnected(),
    lambda s, dice: s.ready_read(),
    lambda s, dice: s.bytes_written(dice.choice((0, 1000))),
]
READS = [
    lambda s, dice: s.read_exactly(len(LINE)),
    lambda s, dice: s.read_until(b"\n", dice.choice((len(LINE), 1000))),
    lambda s, dice: s.lines(len(LINE)).__anext__(),
    lambda s, dice: s.read_until(LINE),
]


class Disorder:
    """One pair of sockets, and what is done with it."""

    def __init__(self, dice: random.Random, client: SslSocket, taken: SslSocket) -> None:
        self.dice = dice
        self.socks = [client, taken]
        self.tasks: list[asyncio.Task[None]] = []
        for sock in self.socks:
            sock.error_handler = lambda s, error: None

    async def wait(self, sock: SslSocket) -> None:
        dice = self.dice
        try:
            for _ in range(dice.randrange(1, 4)):
                if dice.random() < 0.5:
                    await dice.choice(WAITS)(sock, dice)
                else:
                    line = await dice.choice(READS)(sock, dice)
                    assert line == LINE
        except (SocketFailure, StopAsyncIteration):
            pass

    async def handler(self, sock: SslSocket, *args: object) -> None:
        await self.wait(sock)

    def act(self) -> None:
        dice, sock = self.dice, self.dice.choice(self.socks)
        roll = dice.random()
        if roll < 0.4:
            task = asyncio.get_running_loop().create_task(self.wait(sock))
            self.tasks.append(task)
        elif roll < 0.65:
            if sock.encrypted:
                sock.write(LINE * dice.choice((1, 2, 300)))
        elif roll < 0.8:
            if self.tasks:
                dice.choice(self.tasks).cancel()
        elif roll < 0.9:
            name = dice.choice(("ready_read_handler", "bytes_written_handler", "disconnected_handler", "state_changed_handler"))
            setattr(sock, name, dice.choice((None, self.handler, lambda s, *args: None)))
        elif roll < 0.94:
            sock.read_buffer_size = dice.choice((0, 17, 1000))
        elif roll < 0.96:
            sock.disconnect()
        elif roll < 0.98:
            sock.close()
        else:
            sock.abort()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", HOSTS)
def test_disorder(kind, seed, certificates):
    run = Runner(kind)

    async def main():
        dice = random.Random(seed)
        for _ in range(5):
            disorder = Disorder(dice, *await secure_pair(certificates))
            for _ in range(150):
                disorder.act()
                await turns(dice.choice((0, 0, 1, 3)))
            for sock in disorder.socks:
                sock.abort()
                for name in ("ready_read_handler", "disconnected_handler", "state_changed_handler", "bytes_written_handler"):
                    setattr(sock, name, None)
            results = await asyncio.wait_for(asyncio.gather(*disorder.tasks, return_exceptions=True), 30)
            assert not [one for one in results if one is not None and not isinstance(one, asyncio.CancelledError)]
            await until(lambda disorder=disorder: not disorder.socks[0].loop._tasks)
            assert [sock._waits for sock in disorder.socks] == [None, None]

    run(main())
    EventLoop.current().close()
    assert run.told == []
    assert run.reported == []
