"""Relays to test with: what is far of each side is a socket, with TLS an engine beside it."""

import contextlib
import socket
import struct
import weakref

from sslsock.core.engine import Engine, TlsError
from sslsock.core.relay import ChannelRelay

from .pairs import (
    DEADLINE,
    TLS_1_2,
    TLS_1_3,
    Recorder,
    channel_on,
    client_context_of,
    drive,
    server_context_of,
    socket_pair,
)

KINDS = ("fd", "channel", "tls1.2", "tls1.3")
VERSION = {"tls1.2": TLS_1_2, "tls1.3": TLS_1_3}


class Far:
    """The peer of one side. `pump` moves what can be moved."""

    alive = weakref.WeakSet()

    def __init__(self, sock, engine=None):
        self.alive.add(self)
        self.sock, self.engine = sock, engine
        self.out = bytearray()
        self.received = bytearray()
        self.reading = True
        self.ended = False  # FIN has come
        self.error = None
        self.alert = None
        self.finishing = False

    def __del__(self):
        self.sock.close()

    def write(self, data):
        self.out += self.engine.encrypt(data) if self.engine is not None else data

    def finish(self, notify=True):
        """The end of what it sends; with TLS, `notify`: with close_notify."""
        if self.engine is not None and notify:
            self.out += self.engine.close()
        self.finishing = True

    def give_up(self):
        """With TLS: take what it hears for damaged, and say so by a fatal alert."""
        with contextlib.suppress(TlsError):
            self.engine.decrypt(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.out += self.engine.take()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    @property
    def clean(self):
        """The end was said, as far as it can be said."""
        return self.ended and (self.engine is None or self.engine.peer_closed)

    def pump(self, most=1 << 40):
        """most: bytes to read."""
        with contextlib.suppress(BlockingIOError):
            while self.out:
                del self.out[: self.sock.send(self.out)]
        if self.finishing and not self.out:
            self.finishing = False
            self.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(BlockingIOError):
            while self.reading and not self.ended and most:
                data = self.sock.recv(min(1 << 18, most))
                most -= len(data)
                self.ended = not data
                if self.engine is None:
                    self.received += data
                elif data and self.alert is None:
                    try:
                        self.received += self.engine.decrypt(data)
                    except TlsError as error:
                        self.alert = error.alert
                    self.out += self.engine.take()


class Observer:
    """Writes down how a relay ends, and calls `hook`."""

    def __init__(self, hook=None):
        self.reasons = []
        self.hook = hook

    def _on_relay_closed(self, reason):
        self.reasons.append(reason)
        if self.hook is not None:
            self.hook()

    @property
    def reason(self):
        assert len(self.reasons) == 1, "a relay ends once"
        return self.reasons[0]


def end(loop, kind, server, pair=socket_pair, consumer=None, **settings):
    """(what ChannelRelay is given, Far). server: whether the relay's side is the TLS server; consumer: the channel's, one that
    reads nothing by itself; settings: of its engine."""
    near, far = pair()
    if kind == "fd":
        return near.detach(), Far(far)
    channel, _ = channel_on(loop, near, consumer or Recorder(greedy=False))
    if kind == "channel":
        return channel, Far(far)
    client, accepting = client_context_of(VERSION[kind]), server_context_of(VERSION[kind])
    names = {"server_name": "localhost", "verify_name": "localhost"}
    mine = Engine(accepting) if server else Engine(client, **names, **settings)
    peer = Far(far, Engine(client, **names) if server else Engine(accepting))
    channel.start_tls(mine, DEADLINE)
    peer.out += peer.engine.start()

    def shaken():
        peer.pump()
        return channel.encrypted and peer.engine.handshake_done and not peer.out

    drive(loop, shaken, "the handshake", 0)
    return channel, peer


class Joined:
    """A relay, its observer and both peers."""

    def __init__(self, loop, front, back, observer=None, idle_seconds=0.0, head=b""):
        self.loop = loop
        self.observer = observer or Observer()
        self.front, self.back = front[1], back[1]
        self.relay = ChannelRelay(loop, front[0], back[0], self.observer, idle_seconds, head)

    def drive(self, condition, what="what was waited for"):
        def look():
            for peer in (self.front, self.back):
                if peer.error is None and peer.sock.fileno() >= 0:
                    try:
                        peer.pump()
                    except OSError as error:
                        peer.error = error.with_traceback(None)  # which holds the frames that hold the peer
            return condition()

        drive(self.loop, look, what, 0)

    def turns(self, count=50):
        for _ in range(count):
            self.drive(lambda: True)
            self.loop.dispatch(0)

    def until_closed(self):
        self.drive(lambda: self.relay.closed, "the relay's end")
        self.drive(lambda: True)


def join(loop, kinds=("fd", "fd"), pair=socket_pair, **settings):
    return Joined(loop, end(loop, kinds[0], True, pair), end(loop, kinds[1], False, pair), **settings)
