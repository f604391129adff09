"""The way of one session to a back end: one after the other is dialled, and shaken hands with where it speaks TLS, until one
is there or none is left.

An attempt is the consumer of the dial and of the channel to a TLS back end. Nothing of the client is sent before it is over, so
the next back end may have the session. It ends once: the session gets the connection, or is failed, or has it cancelled.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Hashable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Optional, Union

from ...core.channel import Channel
from ...core.dial import Dial, set_keepalive
from ...core.engine import Engine
from ...core.schedule import Timer
from ...sockets.certificate_text import all_names_text
from ..back_ends.backends import Backend, BackendPool
from ..limits.sources import source_of
from ..observability import record, stages
from ..observability.stages import DIALING, GREETING, reason_of
from ..policy import RoutePolicy

if TYPE_CHECKING:
    from ...core.descriptor import Descriptor
    from ..worker import Worker
    from .session import Session

__all__ = ["Attempt", "reset"]

RESET = struct.pack("ii", 1, 0)  # struct linger
LEAST_SECONDS = 0.001  # 0 would be no limit
BAD_CERTIFICATE = 42  # alert: RFC 8446, 6

# What is the back end's fault, or that of the way to it: what Linux makes of ICMP and of a reset (EPIPE if behind a FIN). All
# else that a dial may fail of (no local port is left: connect(2), EADDRNOTAVAIL) says nothing about it.
THEIR_TROUBLE = frozenset(
    (
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT),
        *(errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPROTO),
        *(errno.ENOENT, errno.ENOTDIR, errno.EPROTOTYPE),  # UNIX sockets: there is none at this path
        *(errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENONET),
    )
)


def reset(fd: int) -> None:
    """Close a connection so that its peer does not take that for an end in order (socket(7): SO_LINGER)."""
    with socket.socket(fileno=fd) as connection, suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


class Attempt:
    """The attempt of `session` to be connected to a back end of `route`."""

    __slots__ = (
        "_as_client",
        "_back",
        "_backend",
        "_deadline",
        "_dial",
        "_dialed_at",
        "_engine",
        "_over",
        "_pool",
        "_route",
        "_tried",
        "_trouble",
        "_why",
        "_worker",
        "session",
    )

    def __init__(self, session: Session, worker: Worker, route: RoutePolicy) -> None:
        self.session = session
        self._worker = worker
        self._route = route
        self._pool: BackendPool = worker.pool(route)
        self._tried: tuple[Backend, ...] = ()
        self._trouble, self._why = record.NO_BACKEND, ""  # what the last of them has failed of
        self._backend: Optional[Backend] = None  # the one in turn
        self._as_client = False  # it is dialled from the client's address
        self._dial: Optional[Dial] = None
        self._dialed_at = 0.0
        self._back: Union[Channel, int] = -1
        self._engine: Optional[Engine] = None  # of the one in turn
        self._deadline: Optional[Timer] = None  # of a lookup
        self._over = False

    def dial_next(self) -> None:
        """Connect to the next back end."""
        if self._over:
            return
        worker, pool = self._worker, self._pool
        if self._deadline is not None:
            self._drop_deadline()
        while True:
            backend = pool.next(self._tried, self._hash_key() if pool.hashes else "")
            if backend is None:
                self._wait_or_give_up()
                return
            self._backend = backend
            self._dialed_at = worker.loop.time()
            backend.begin(self._dialed_at)
            try:
                local = self.session.own_address(backend.family)
            except ValueError as exc:
                self._pass_over(record.NO_BACKEND, str(exc), blamed=False)
                continue
            self._as_client = bool(local)
            self._dial = Dial(worker.loop, backend.packed, self, local, self._as_client)
            result = self._dial.start(worker.limits.connect_timeout)
            if not isinstance(result, int):
                self.on_dialed(result)
                return
            if result == -errno.EINPROGRESS:
                return
            if stages.kind_of_errno(-result) == stages.RESOURCE:
                text = f"no connection to {backend.peer} can be begun: {os.strerror(-result)}"
                self.session.fail(record.INTERNAL_ERROR, text)
                return
            self._unreached(-result)

    def cancel(self) -> None:
        """It is not wanted any more. No effect once it is over."""
        if self._over:
            return
        self._over = True
        self._drop_deadline()
        if self._dial is not None:
            self._dial.cancel()
        if self._backend is not None:
            self._let_go(self._backend)
            self._pool.abandoned(self._backend)
        back, self._back = self._back, -1
        if isinstance(back, Channel):
            back.abort()
        elif back >= 0:
            reset(back)

    def _hash_key(self) -> str:
        """What the client is known by, where that decides which back end it gets."""
        told = self.session.record
        if self._pool.by_name and told.server_name:
            return told.server_name.lower()
        return str(source_of(told.peer[0]))

    def _source(self) -> Hashable:
        """Of the client. Who comes by a UNIX socket is taken for a source of its own."""
        client = self.session.record.peer[0]
        return source_of(client) if client else object()

    def _let_go(self, backend: Backend) -> None:
        backend.answered(self._worker.loop.time())
        backend.leave()

    def _wait_or_give_up(self) -> None:
        """There is no back end that was not tried."""
        worker, pool = self._worker, self._pool
        if pool.waiting:
            seconds = worker.limits.connect_timeout
            if seconds > 0:
                self._deadline = worker.loop.call_later(seconds, self._overdue)
            # Each in a call of its own: what goes wrong in one of those that wait is not the next one's.
            pool.call_when_known(partial(worker.loop.call_soon, self.dial_next))
            return
        why = self._why if self._tried else "its name was not found"
        self.session.fail(self._trouble, f"no back end of {', '.join(map(str, self._route.route.to))}: {why}")

    def _pass_over(self, trouble: str, why: str, blamed: bool) -> None:
        """No connection to the back end in turn; the next one may have more luck. blamed: it is left out for a while."""
        backend, self._backend, self._dial = self._backend, None, None
        assert backend is not None
        self._let_go(backend)
        self._tried = (*self._tried, backend)
        self._trouble, self._why = trouble, why
        if blamed:
            self._worker.backend_failed(self._pool, backend, why)
        else:
            self._pool.abandoned(backend)
            self._worker.say_once(f"{backend.address} ({backend.peer}): {why}")

    def _unreached(self, number: int) -> None:
        assert self._backend is not None
        trouble = reason_of(DIALING, stages.kind_of_errno(number), of_client=False)
        blamed = number in THEIR_TROUBLE
        if blamed and self._as_client and number != errno.ECONNREFUSED:
            # It may be the way back to this client alone that leads elsewhere.
            blamed = self._pool.doubted(self._backend, self._source())
        self._pass_over(trouble, os.strerror(number), blamed)

    def _connected(self, back: Union[Channel, int], head: bytes) -> None:
        backend = self._backend
        assert backend is not None
        self._over = True
        now = self._worker.loop.time()
        backend.answered(now)
        self._worker.backend_succeeded(self._pool, backend)
        self.session.on_connected(backend, now - self._dialed_at, back, head)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _overdue(self) -> None:
        self._deadline = None
        reason = reason_of(DIALING, stages.LATE, of_client=False)
        self.session.fail(reason, "the name of the back end was not found in time")

    # What the dial tells

    def on_dial_failed(self, number: int) -> None:
        if self._over:
            return
        if stages.kind_of_errno(number) == stages.RESOURCE:
            self._dial = None
            self.session.fail(record.INTERNAL_ERROR, f"the connection to a back end failed: {os.strerror(number)}")
            return
        self._unreached(number)
        self.dial_next()

    def on_dialed(self, descriptor: Descriptor) -> None:
        if self._over:
            return
        backend = self._backend
        assert backend is not None
        self._dial = None
        self._back = fd = descriptor.take()
        keepalive = self._worker.limits.keepalive
        if keepalive:
            set_keepalive(fd, keepalive)
        try:
            head = self.session.proxy_header()
            if backend.tls:
                self._greet(backend, fd, head)
                return
        except (OSError, ValueError) as exc:
            self.session.fail(record.INTERNAL_ERROR, f"{backend.peer}: {exc}")
            return
        self._connected(fd, head)

    # TLS with the back end

    def _greet(self, backend: Backend, fd: int, head: bytes) -> None:
        """Begin it. OSError, ValueError."""
        worker, route = self._worker, self._route
        offer = route.route.back_tls.alpn or self.session.agreed_protocols  # the same all the way
        server_name, verify_name = route.names(backend.name)
        self._engine = engine = Engine(
            route.back_context(offer),
            server_name=server_name,
            verify_name=verify_name,
            session_key=(backend.peer, server_name, verify_name, offer),
        )
        channel = Channel(worker.loop, self)
        channel.attach(fd)
        self._back = channel
        if head:
            channel.write(head)
        timeout = worker.limits.connect_timeout  # it began with the dial
        if timeout > 0:
            timeout = max(self._dialed_at + timeout - worker.loop.time(), LEAST_SECONDS)
        channel.start_tls(engine, timeout)

    def _on_encrypted(self) -> None:
        if self._over:
            return
        assert self._engine is not None
        refusal = self._route.refusal(self._engine)
        if refusal:
            back, self._back = self._back, -1
            assert isinstance(back, Channel)
            back.refuse(BAD_CERTIFICATE)
            self._ungreeted(record.BACKEND_HANDSHAKE_FAILED, refusal)
            return
        self._worker.counters.back_handshake(self.session.policy.name, self._engine.session_reused)
        self._connected(self._back, b"")

    def _on_failed(self, failure: int, message: str) -> None:
        if self._over:
            return
        back, self._back = self._back, -1
        assert isinstance(back, Channel) and self._backend is not None
        certificate = self._engine.refused_certificate if self._engine is not None else None
        if certificate is not None:
            message = f"{message}; its names: {all_names_text(certificate)}"
        self._worker.see_out(back)
        reason = reason_of(GREETING, stages.kind_of_failure(failure), of_client=False)
        if reason is record.INTERNAL_ERROR:
            self.session.fail(reason, message)
            return
        self._ungreeted(reason, message)

    def _ungreeted(self, reason: str, message: str) -> None:
        """TLS with the back end in turn does not stand."""
        assert self._backend is not None
        blamed = reason is record.CONNECT_TIMEOUT or self._pool.doubted(self._backend, self._source())
        self._pass_over(reason, message, blamed)
        self.dial_next()

    def _on_readable(self) -> None:
        """It waits for the relay."""

    def _on_written(self, count: int) -> None:
        pass

    def _on_drained(self) -> None:
        pass

    def _on_peer_closed(self, clean: bool) -> None:
        """The relay passes it on."""
