"""Those who watch a test: a pair of sockets that must not notice it, and an inventory of what it leaves behind."""

from __future__ import annotations

import contextlib
import gc
import os
from collections import Counter

import sslsock.sockets.connector as connector
from peers import HANDLERS, Certificates, Host, end_lookups, make_ssl_pair, open_descriptors
from sslsock import Context, Engine, Relay, SocketState, SslSocket, TcpServer, TcpSocket
from sslsock.core.channel import Channel
from sslsock.core.listener import Listener
from sslsock.core.relay import ChannelRelay, RelaySide
from sslsock.core.schedule import Timer
from sslsock.core.watch import Watch
from sslsock.sockets.hello_wait import HelloWait
from sslsock.sockets.states import MOVES

KINDS = (
    TcpSocket, TcpServer, Relay, ChannelRelay, RelaySide, Channel, Listener, Watch, Timer, Engine, Context,
    connector.Connector, connector.Attempt, HelloWait,
)  # fmt: skip

ROUNDS = 2  # that the bystander makes to prove that it is well


def live_objects() -> Counter[str]:
    """How many objects of ours there are, by the kind."""
    counts: Counter[str] = Counter()
    for one in gc.get_objects():
        kind = type(one)
        if issubclass(kind, KINDS):
            counts[kind.__name__] += 1
    return counts


class Inventory:
    """What there is before, to be compared with what is left."""

    def __init__(self, host: Host) -> None:
        self.host = host
        gc.collect()
        self.descriptors = open_descriptors()
        self.objects = live_objects()
        self.watching = host.loop.watching

    def check(self) -> None:
        """Nothing is left: not a descriptor, not a watcher, not an object of ours."""
        loop = self.host.loop
        with contextlib.suppress(AssertionError):  # the assertions below say more
            self.host.wait_for(lambda: loop.closed or loop.watching <= self.watching, "connections that linger")
        gc.collect()
        if len(open_descriptors()) > len(self.descriptors):
            end_lookups()
        extra = {key: name for key, name in open_descriptors().items() if self.descriptors.get(key) != name}
        assert len(open_descriptors()) <= len(self.descriptors), f"descriptors were left open: {extra}"
        left = live_objects() - self.objects
        left.pop("Context", None)  # shared by equal configurations, and kept by those that made it
        assert not left, f"objects were left: {dict(left)}"


class Bystander:
    """A pair whose ends throw a number back and forth, one higher each time, for the whole length of a test."""

    def __init__(self, host: Host, certificates: Certificates) -> None:
        self.host = host
        self.pair = make_ssl_pair(host, certificates.client(), certificates.server())
        self.rounds = 0
        self.wrong: list[bytes] = []
        self.pair.server.ready_read_handler = lambda s: s.write(s.read_all())
        self.pair.client.ready_read_handler = self._on_echo
        for recorder in (self.pair.left, self.pair.right):
            recorder.clear()
        self._throw()

    def _throw(self) -> None:
        self.pair.client.write(b"%12d" % self.rounds)

    def _on_echo(self, sock: SslSocket) -> None:
        if sock.bytes_available >= 12:
            echo = sock.read_all()
            if echo != b"%12d" % self.rounds:
                self.wrong.append(echo)
            self.rounds += 1
            self._throw()

    def wait_inside(self) -> None:
        """In a handler: turn the loop until the pair has made some rounds. The own loop only."""
        aim = self.rounds + ROUNDS
        for _ in range(10_000):
            if self.rounds >= aim:
                return
            self.host.loop.dispatch(0.01)
        raise AssertionError("a connection is not served inside a nested dispatch")

    def check(self) -> None:
        """It goes on, and has noticed nothing."""
        aim = self.rounds + ROUNDS
        self.host.wait_for(lambda: self.rounds >= aim, "the bystander's next round")
        assert not self.wrong, f"the bystander received {self.wrong[:3]}"
        assert not self.pair.left.events, self.pair.left.events
        assert not self.pair.right.events, self.pair.right.events

    def end(self) -> None:
        for sock in (self.pair.client, self.pair.server):
            for name in HANDLERS:
                setattr(sock, name, None)
            sock.abort()


STEPS = {(old, new) for (old, _), new in MOVES.items() if new is not old}


def check_states(states: list[SocketState], first: SocketState, last: SocketState) -> None:
    """States as the handlers told them: each follows from the one before, and the last is the one that holds."""
    chain = [first, *states]
    for old, new in zip(chain, chain[1:]):
        assert (old, new) in STEPS, f"{new} cannot follow {old}: {states}"
    assert chain[-1] is last, f"the last state told was {chain[-1]}, but it is {last}"


def check_consistent(sock: TcpSocket) -> None:
    """What a socket says of itself fits together."""
    state = sock.state
    said = repr(sock), sock.error_string
    mode = getattr(sock, "mode", 0)
    if getattr(sock, "encrypted", False):
        assert mode != 0, said
        assert state in (SocketState.CONNECTED_STATE, SocketState.CLOSING_STATE), said
    if state is SocketState.UNCONNECTED_STATE:
        assert (sock.remote_address, sock.remote_port, sock.local_address, sock.local_port) == ("", 0, "", 0), said
        assert mode == 0, said
        assert not sock.valid, said
        assert sock.bytes_to_write == 0, said
    elif state is SocketState.CONNECTED_STATE:
        assert sock.valid and sock.remote_port and sock.remote_address, said
    assert bool(sock.error_string) is (sock.error is not None), said
    assert sock.at_end is (sock.bytes_available == 0), said
    assert sock.is_open is (sock.open_mode != 0), said


def resident_bytes() -> int:
    """What the process has in memory, without pages of files, which the system drops and reads again when it likes."""
    with open("/proc/self/statm") as statm:
        _, resident, shared, *_ = map(int, statm.read().split())
    return (resident - shared) * os.sysconf("SC_PAGESIZE")
