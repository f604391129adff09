"""One connection through the proxy, from accept to its last word.

Stages, each left for the next or for the end:

    HEADER      the PROXY header, where one is expected
    HELLO       the ClientHello: route and certificate depend on it, and the log tells of it whatever becomes of the handshake
    HANDSHAKE   TLS with the client
    DIALING     a back end is looked up, connected to and, where it speaks TLS, shaken hands with (`attempt`)
    RELAYING    bytes go through in C (core/relay.pyx); nothing happens here
    OVER

A session is the consumer of the client's channel and of the relay, one after the other. Whatever happens, it
ends by `_conclude`, once, with a record.

An end that the proxy decides is not to be taken for one in order: no close_notify, no FIN alone, but an alert where TLS stands,
else a reset.
"""

from __future__ import annotations

import select
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Optional, Union

from ... import proxy_protocol
from ...core.channel import Channel
from ...core.client_hello import ClientHello, ClientHelloError, parse_client_hello
from ...core.context import Context
from ...core.engine import Engine
from ...core.relay import ChannelRelay
from ...core.schedule import Timer
from ...core.source_limits import DENIED
from ...sockets.certificate_text import all_names_text
from ..limits.networks import packed_address
from ..limits.sources import Refused
from ..observability import record, stages
from ..observability.record import ConnectionRecord
from ..observability.stages import DIALING, HANDSHAKE, HEADER, HELLO, OVER, RELAYING, reason_of
from ..policy import ListenerPolicy, RoutePolicy
from ..settings.model import PROTOCOL_NAMES
from .attempt import Attempt, reset
from .client_address import address_of_client
from .header_out import Tlvs, header_for, text_of_id

if TYPE_CHECKING:
    from ..back_ends.backends import Backend
    from ..limits.gate import Place
    from ..limits.lifetime import Lifetime
    from ..worker import Worker

__all__ = ["Session"]

UNREAD_BOUND = 64 * 1024  # bytes kept of a client whose back end is not there yet
ACCESS_DENIED, INTERNAL_ERROR, UNRECOGNIZED_NAME, NO_APPLICATION_PROTOCOL = 49, 80, 112, 120  # alerts: RFC 8446, 6
RECEIVED_AT = 128  # tcpi_bytes_received, 64 bits in tcp_info (linux/tcp.h)


class Session:
    """A connection that `worker` has accepted by `policy`.

    fd: the descriptor, taken over. peer: the client's (address, port). place: of the gate. source: what `Sources` counts it
    as, which a PROXY header may still tell; shakes: as a handshake too.
    """

    __slots__ = (
        "_attempt",
        "_backend",
        "_deadline",
        "_due",
        "_engine",
        "_front",
        "_heard",
        "_lifetime",
        "_relay",
        "_route",
        "_stage",
        "_tlvs",
        "_turn",
        "_unique_id",
        "_worker",
        "place",
        "policy",
        "record",
        "shakes",
        "source",
        "started",
    )

    def __init__(
        self, worker: Worker, policy: ListenerPolicy, fd: int, peer: tuple[str, int], place: Place, source: Optional[bytes]
    ) -> None:
        self._worker = worker
        self.policy = policy
        self.place = place
        self.source = source
        self.record = ConnectionRecord(policy.name, peer, policy.local)
        self._front: Union[Channel, int] = fd
        self._heard = False  # a part of what the stage waits for: the PROXY header, the ClientHello
        self._engine: Optional[Engine] = None
        self._relay: Optional[ChannelRelay] = None
        self._attempt: Optional[Attempt] = None
        self._backend: Optional[Backend] = None  # that it is connected to
        self._deadline: Optional[Timer] = None  # from the accept to the end of the handshake
        self._due: Optional[float] = None  # when that is, by the clock of the loop
        self._turn: Optional[tuple[Timer, Context]] = None  # set while the handshake waits for its turn
        self._lifetime: Optional[Lifetime] = None
        self.shakes = policy.shakes
        self._route: Optional[RoutePolicy] = None
        self.started = place.moment
        self._stage = HEADER
        self._tlvs: Tlvs = ()  # of the PROXY header that came
        self._unique_id: Optional[bytes] = None

    @property
    def relaying(self) -> bool:
        return self._stage == RELAYING

    def start(self) -> None:
        """Begin. What goes wrong ends the session, not the caller."""
        policy, worker, fd = self.policy, self._worker, self._front
        assert isinstance(fd, int)
        limits = worker.limits
        if worker.lifetime is not None:
            self._lifetime = worker.lifetime
            self._lifetime.add(self)
        # Settings may name every address, any port, or a name.
        if worker.wants_details or policy.proxy_protocol_out is not None:
            self.record.local = worker.local_name(fd)
        if not self.shakes:
            self._route = policy.routes[0]
            self._start_dialing()
            return
        if limits.handshake_timeout:
            self._deadline = worker.loop.call_later(limits.handshake_timeout, self._overdue)
            self._due = worker.loop.time() + limits.handshake_timeout
        channel = Channel(worker.loop, self)
        channel.read_bound = UNREAD_BOUND
        try:
            channel.attach(fd)
        except OSError as exc:
            self.fail(record.INTERNAL_ERROR, f"the connection cannot be watched: {exc.strerror}")
            return
        self._front = channel
        if not policy.proxy_protocol_in:
            self._stage = HELLO
        elif policy.settings.listen.path is None and not any(
            ip_address(self.record.peer[0]) in network for network in policy.settings.trusted_proxies
        ):
            self.fail(record.UNTRUSTED_PROXY, "it is not among the trusted proxies")

    # Before TLS

    def _begin(self, context: Optional[Context]) -> None:
        """Route and context are known."""
        if context is None:
            self._start_dialing()
        elif self._may_shake(context):
            self._shake(context)

    def _may_shake(self, context: Context) -> bool:
        """Whether the handshake may be made now. Otherwise it is made later, or the connection has ended."""
        worker = self._worker
        try:
            worker.sources.shake(self.source)
        except Refused as exc:
            self.fail(exc.reason, str(exc))
            return False
        return not worker.rates.handshakes[self.policy.name].limited or self._take_turn(context)

    def _take_turn(self, context: Context) -> bool:
        """By the rates. Whether it is now; otherwise it comes later, or the connection has ended."""
        worker = self._worker
        wait = worker.rates.handshakes[self.policy.name].take(None if self._due is None else self._due - worker.loop.time())
        if wait is None:
            self.fail(record.HANDSHAKE_RATE, "so many handshakes wait that its turn would come too late")
        elif wait:
            worker.gate.await_turn(self.place)
            self._turn = worker.loop.call_later(wait, self._on_turn, context), context
        return wait == 0

    def _on_turn(self, context: Context) -> None:
        self._turn = None
        self._worker.gate.begin_turn(self.place)
        self._shake(context)

    @property
    def waits(self) -> bool:
        """Whether its handshake waits for its turn."""
        return self._turn is not None

    def take_another_turn(self) -> None:
        """If it waits: the rates have changed."""
        if self._turn is not None:
            (timer, context), self._turn = self._turn, None
            timer.cancel()
            if self._take_turn(context):
                self._on_turn(context)

    def _shake(self, context: Context) -> None:
        assert isinstance(self._front, Channel)
        self._stage = HANDSHAKE
        self._engine = Engine(context)
        self._front.start_tls(self._engine, 0)  # its deadline is that of the session

    def _on_readable(self) -> None:
        front = self._front
        assert isinstance(front, Channel)
        if self._turn is not None:
            return
        if self._stage == HEADER:
            self._read_header(front)
        elif self._stage == HELLO:
            self._read_hello(front)

    def _read_header(self, front: Channel) -> None:
        self._heard = True
        try:
            header = proxy_protocol.parse(front.peek())
        except proxy_protocol.ProxyProtocolError as exc:
            self.fail(record.BAD_PROXY_HEADER, str(exc))
            return
        if header is None:
            return
        front.read(header.size)
        self._tlvs = header.tlvs
        unique_id = header.tlv(proxy_protocol.PP2_TYPE_UNIQUE_ID)
        if unique_id:
            self._name_it(unique_id)
        if header.source is not None:
            self.record.peer = header.source
            try:
                self._look_at(header.source[0])
            except Refused as exc:
                self.fail(exc.reason, str(exc))
                return
        if header.destination is not None:
            self.record.local = header.destination
        if self.policy.tls:
            self._stage = HELLO
            self._heard = False
            self._read_hello(front)
        else:
            self._route = self.policy.routes[0]
            self._start_dialing()

    def _look_at(self, host: str) -> None:
        """The client that a PROXY header has named. Refused."""
        networks = self.policy.networks
        if networks is not None:
            address = packed_address(host)
            if address is not None and not networks.holds(address):
                raise Refused(DENIED)
        self.source = self._worker.sources.enter(host, self.shakes)

    def _read_hello(self, front: Channel) -> None:
        hello: Optional[ClientHello] = None
        try:
            data = front.peek()
            self._heard = bool(data)
            hello = parse_client_hello(data)
            if hello is None:
                return
        except ClientHelloError as exc:
            # Not for libssl, which might understand what we do not, and shake hands although no route was chosen.
            self._answer(front, exc.alert)
            front.finish(failed=True)
            self._client_ends(stages.TLS, str(exc))
            return
        self.record.server_name = hello.server_name
        self.record.ja4 = hello.ja4 if self._worker.wants_details else None
        if self.policy.acme is not None and self.policy.is_challenge(hello):
            self._answer_challenge(front, hello)
            return
        self._route, context = self.policy.choose(hello)
        if self._route is None:
            self._answer(front, UNRECOGNIZED_NAME)
            self.fail(record.NO_ROUTE, f"no route for the name {hello.server_name!r} and what it offers")
            return
        if context is None and not self._route.passthrough:
            self._answer(front, INTERNAL_ERROR)
            self.fail(record.NO_CERTIFICATE, f"there is no certificate for the name {hello.server_name!r} yet")
            return
        self._begin(context)

    def _answer_challenge(self, front: Channel, hello: ClientHello) -> None:
        """An authority looks whether a name leads here, or somebody who wants to seem so. No back end hears of it."""
        context = self.policy.challenge(hello)
        if context is None:
            self._answer(front, NO_APPLICATION_PROTOCOL)
            front.finish(failed=True)
            self._client_ends(stages.TLS, f"no authority has reason to ask for {hello.server_name!r}")
        else:
            self._begin(context)

    @staticmethod
    def _answer(front: Channel, alert: int) -> None:
        """Answer a ClientHello with a fatal alert, in the clear: no handshake has begun that could send it. 0: with none."""
        if alert:
            front.write(bytes((0x15, 3, 3, 0, 2, 2, alert)))

    # What the client's channel tells

    def _on_encrypted(self) -> None:
        engine, told = self._engine, self.record
        if engine is None:  # it is over
            return
        told.handshake_seconds = self._worker.loop.time() - self.started
        told.handshake_result = record.HANDSHAKE_OK
        told.protocol = PROTOCOL_NAMES.get(engine.protocol)
        told.resumed = engine.session_reused
        if self._worker.wants_details:
            told.cipher = engine.cipher
            told.group = engine.group
            protocol = engine.next_protocol
            told.next_protocol = None if protocol is None else protocol.decode("utf-8", "surrogateescape")
        if self._route is None:
            self._worker.counters.handshake(told)
            assert isinstance(self._front, Channel)
            self._front.finish()  # RFC 8737, 3: no data comes after the handshake
            self._end(record.ACME_CHALLENGE, None)
            return
        if self.policy.asks_clients and not self._admit_client(engine):
            return
        self._worker.counters.handshake(told)  # now, for the connection may live for days
        self._start_dialing()

    def _admit_client(self, engine: Engine) -> bool:
        chain = engine.peer_certificate_chain()
        certificate = chain[0] if chain else None
        allowed = self.policy.allowed
        if allowed is not None:
            name = allowed.match(certificate) if certificate is not None else None
            if name is None:
                who = "no certificate" if certificate is None else all_names_text(certificate)
                self.record.handshake_result = record.HANDSHAKE_REFUSED
                self.fail(record.CLIENT_CERTIFICATE_REFUSED, f"not among the allowed names: {who}", ACCESS_DENIED)
                return False
            self.record.client_name = name
        elif certificate is not None:
            self.record.client_name = ",".join(certificate.subject.get("CN", ())) or None
        return True

    def _on_written(self, count: int) -> None:
        pass

    def _on_drained(self) -> None:
        pass

    def _on_peer_closed(self, clean: bool) -> None:
        """A client may have said all it wants to say; the relay passes the end on."""
        if self._stage >= HANDSHAKE:
            return
        assert isinstance(self._front, Channel)
        self._front.finish()
        what = "the PROXY header" if self._stage == HEADER else "the ClientHello"
        self._client_ends(stages.CLOSED, f"the connection ended within {what}")

    def _on_failed(self, failure: int, message: str) -> None:
        if self._stage == OVER:
            return
        kind = stages.kind_of_failure(failure)
        engine = self._engine
        if engine is not None and self._stage == HANDSHAKE and kind in (stages.TLS, stages.CLOSED):
            self.record.protocol = PROTOCOL_NAMES.get(engine.protocol)
            certificate = engine.refused_certificate
            if certificate is not None:
                message = f"{message}; its names: {all_names_text(certificate)}"
            if certificate is not None or engine.certificate_missing:
                kind = stages.CERTIFICATE
        self._client_ends(kind, message)

    def _client_ends(self, kind: int, message: str) -> None:
        """The client has ended it, or its side has failed, before there was a relay."""
        silent = not self._heard
        self.record.handshake_result = stages.handshake_result(self._stage, kind, silent) or self.record.handshake_result
        reason = reason_of(self._stage, kind, silent=silent)
        self._end(reason, "the client said nothing" if reason is record.PROBE else message)

    # The back end

    def _start_dialing(self) -> None:
        assert self._route is not None
        self._stage = DIALING
        self._worker.gate.settle(self.place)
        if self.shakes:
            self.shakes = False
            self._worker.sources.settle(self.source)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._attempt = Attempt(self, self._worker, self._route)
        self._attempt.dial_next()

    @property
    def agreed_protocols(self) -> tuple[str, ...]:
        """The protocol that the client's TLS has agreed on, if any."""
        protocol = self._engine.next_protocol if self._engine is not None else None
        return () if protocol is None else (protocol.decode("utf-8", "surrogateescape"),)

    def on_connected(self, backend: Backend, seconds: float, back: Union[Channel, int], head: bytes) -> None:
        """The back end is there: `back`, taken over, to which `head` has to be sent yet. `backend` is left at the end."""
        self._attempt = None
        self._backend = backend
        self.record.backend = backend.peer
        self.record.connect_seconds = seconds
        front, self._front = self._front, -1
        self._stage = RELAYING
        worker = self._worker
        limits = worker.limits
        try:
            self._relay = ChannelRelay(worker.loop, front, back, self, limits.idle_timeout, head, limits.half_closed_timeout)
        except (OSError, ValueError) as exc:
            self._front = front
            if isinstance(back, Channel):
                back.refuse(INTERNAL_ERROR)
            else:
                reset(back)
            self.fail(record.INTERNAL_ERROR, f"the connections cannot be joined: {exc}")
        except MemoryError:  # both are closed
            self._end(record.INTERNAL_ERROR, "the connections cannot be joined: no memory")

    def proxy_header(self) -> bytes:
        """What the back end gets in front of all else. ValueError: it cannot be told."""
        version = self.policy.proxy_protocol_out
        if version is None:
            return b""
        if self._unique_id is None and version != "v1":
            self._name_it(next(self._worker.unique_ids))
        chosen = self.policy.allowed is not None
        return header_for(version, self.record, self._engine, chosen, self._tlvs, self._unique_id or b"")

    def _name_it(self, unique_id: bytes) -> None:
        self._unique_id = unique_id
        self.record.unique_id = text_of_id(unique_id)

    def own_address(self, family: int) -> bytes:
        """What the connection to a back end of that family comes from: the client's address, as `pack_address` makes it, or b""
        for the proxy's own. ValueError: the client has none of that family."""
        client = self.record.peer[0]
        if not self.policy.transparent or packed_address(client) is None:  # a UNIX socket's, of a PROXY header
            return b""
        return address_of_client(client, family)

    # The relay

    def progress(self) -> ConnectionRecord:
        """The record, with what has gone through so far."""
        relay = self._relay
        if relay is not None:
            self.record.bytes_forward = relay.bytes_forward
            self.record.bytes_back = relay.bytes_back
        return self.record

    def _on_relay_closed(self, reason: int) -> None:
        relay = self._relay
        assert relay is not None
        told = self.progress()
        word = stages.reason_of_relay_end(reason, relay.failed_side != "back")
        if word is record.IDLE_TIMEOUT and relay.half_closed:
            word = record.HALF_CLOSED_TIMEOUT
        if word is record.ABORTED and told.reason is not record.ENDED:
            word = told.reason
        backend = self._backend
        assert backend is not None and self._route is not None
        if told.bytes_back:
            backend.heard, backend.mute = True, False
        elif word is record.IDLE_TIMEOUT and told.bytes_forward:
            self._worker.backend_silent(self._route, backend)
        self._conclude(word, relay.error_text or None)

    # The end

    @property
    def silent(self) -> bool:
        """Whether the client has sent nothing yet."""
        front = self._front
        fd = front.fileno() if isinstance(front, Channel) else front
        if fd < 0 or not hasattr(socket, "TCP_INFO"):  # not known on macOS
            return False
        with socket.socket(fileno=fd) as connection:
            try:
                if connection.family == socket.AF_UNIX:
                    return not self._heard and not select.select([fd], [], [], 0)[0]
                told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RECEIVED_AT + 8)
            finally:
                connection.detach()
        return not any(told[RECEIVED_AT:])

    def give_way(self) -> None:
        """Others wait for its place, and it is still shaking hands."""
        if self._stage <= HANDSHAKE:
            if self._stage != HEADER:
                self.record.handshake_result = record.HANDSHAKE_LATE
            self.fail(record.HANDSHAKE_EVICTED, "all places for handshakes were taken, and others waited")

    def abort(self, reason: str) -> None:
        """End it at once."""
        if self._stage == RELAYING and self._relay is not None:
            self.record.reason = reason
            self._relay.abort()
        elif self._stage != OVER:
            self.fail(reason, None)

    def fail(self, reason: str, error: Optional[str], alert: int = INTERNAL_ERROR) -> None:
        """End what has not come to a relay, as the proxy has decided. alert: for a client with whom TLS stands."""
        if self._stage == OVER:
            return
        front = self._front
        if isinstance(front, Channel):
            front.refuse(alert)
        elif front >= 0:
            reset(front)
        self._end(reason, error)

    def _end(self, reason: str, error: Optional[str]) -> None:
        """End what has not come to a relay."""
        if self._stage == OVER:
            return
        self._stage = OVER
        for timer in (self._deadline, self._turn and self._turn[0]):
            if timer is not None:
                timer.cancel()
        self._deadline = self._turn = None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        front, self._front = self._front, -1
        if isinstance(front, Channel):
            self._worker.see_out(front)
        self._conclude(reason, error)

    def _conclude(self, reason: str, error: Optional[str]) -> None:
        """It is over: what a relay has left, or `_end`."""
        self._stage = OVER
        if self._lifetime is not None:
            self._lifetime.discard(self)
            self._lifetime = None
        told = self.record
        told.reason = reason
        told.error = error
        told.seconds = self._worker.loop.time() - self.started
        if self._backend is not None:
            self._backend.leave()
            self._backend = None
        self._relay = self._engine = None
        self._worker.ended(self)

    def _overdue(self) -> None:
        self._deadline = None
        if self._stage == HEADER:
            self.fail(reason_of(HEADER, stages.LATE), "no PROXY header came in time")
            return
        if self._stage == HANDSHAKE:
            late = "the TLS handshake was not done in time"
        else:
            late = "no ClientHello came in time" if self._turn is None else "its turn for a handshake did not come in time"
        assert isinstance(self._front, Channel)
        self._front.finish(failed=True)
        self._client_ends(stages.LATE, late)

    def __repr__(self) -> str:
        return f"<Session of {self.policy.name} with {self.record.peer[0]} port {self.record.peer[1]}>"
