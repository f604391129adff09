"""The stream between two sockets, cut anywhere: the same events in the same order, and the same data."""

from __future__ import annotations

import random
import socket

import pytest

from peers import Pair, Recorder, accept, listening, silence
from sslsock import SocketError, SocketState, SslMode, SslProtocol, SslServer, SslSocket

from .relay import CUTS, SIZES, SMALL, Relay

HANDSHAKE_FAILED = SocketError.SSL_HANDSHAKE_FAILED_ERROR
CLOSED = ("error", SocketError.REMOTE_HOST_CLOSED_ERROR)

CONNECTING = [
    ("state", SocketState.HOST_LOOKUP_STATE),
    ("host_found",),
    ("state", SocketState.CONNECTING_STATE),
    ("state", SocketState.CONNECTED_STATE),
    ("connected",),
    ("mode", SslMode.SSL_CLIENT_MODE),
    ("encrypted",),
]
ENDING = [("state", SocketState.UNCONNECTED_STATE), ("mode", SslMode.UNENCRYPTED_MODE), ("disconnected",)]
CLOSING = [("state", SocketState.CLOSING_STATE)]

# Who closes, and when; then the events of client and server.
ENDS = {
    "client": (CONNECTING + ENDING, [("encrypted",), CLOSED, *ENDING]),
    "server": ([*CONNECTING, CLOSED, *ENDING], [("encrypted",), *ENDING]),
    "client at once": (CONNECTING + CLOSING + ENDING, [("encrypted",), CLOSED, *ENDING]),
    "server at once": ([*CONNECTING, CLOSED, *ENDING], [("encrypted",), *CLOSING, *ENDING]),
}


@pytest.fixture(params=CUTS)
def cut(request):
    return request.param


def some_data(cut, seed):
    return random.Random(seed).randbytes(SIZES.get(cut, 200_000))


def shrink(sock):
    """Have the kernel take little at a time from a socket under test."""
    borrowed = socket.socket(fileno=sock._channel.fileno())
    borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    borrowed.detach()


class Conversation:
    """Client, relay and server."""

    def __init__(self, host, certificates, cut, version="TLS_1_3", encrypted=True, prepare=lambda left, right: None):
        self.host = host
        self.cut = cut
        self.server = SslServer()
        self.server.configuration = certificates.server()
        listening(self.server)
        self.relay = Relay(host, self.server.port, CUTS[cut])
        self.client = SslSocket()
        self.client.configuration = certificates.client()
        self.client.configuration.maximum_protocol = SslProtocol[version]
        self.left = Recorder(self.client)
        if cut == "small buffers":
            note = self.client.connected_handler
            self.client.connected_handler = lambda s: (note(s), shrink(s))
        (self.client.connect_encrypted if encrypted else self.client.connect)("127.0.0.1", self.relay.port)
        if encrypted:
            self.right = accept(host, self.server)
        else:
            host.wait_for(lambda: self.server.has_pending_connections)
            self.right = Recorder(self.server.next_pending_connection())
        self.taken = self.right.socket
        prepare(self.left, self.right)
        if cut == "small buffers":
            shrink(self.taken)

    def wait(self, condition):
        self.host.wait_for(condition, (self.left.events, len(self.left.data), self.right.events, len(self.right.data)))

    def both_over(self):
        return self.left.has("disconnected") and self.right.has("disconnected")

    def end(self):
        for sock in (self.client, self.taken):
            sock.abort()
        self.relay.close()
        self.server.close()
        for recorder in (self.left, self.right):
            silence(Pair(self.host, recorder.socket, recorder.socket, recorder, recorder))


@pytest.mark.parametrize("end", ENDS)
def test_every_split_gives_the_same_events_and_data(host, certificates, bystander, cut, version, end):
    up, down = some_data(cut, 1), some_data(cut, 2)

    def speak(recorder, data, at_once):
        note = recorder.socket.encrypted_handler

        def encrypted(s):
            note(s)
            s.write(data)
            if at_once:
                s.disconnect()

        recorder.socket.encrypted_handler = encrypted

    def prepare(left, right):
        speak(left, up, end == "client at once")
        speak(right, down, end == "server at once")

    conversation = Conversation(host, certificates, cut, version, prepare=prepare)
    left, right = conversation.left, conversation.right
    if "at once" not in end:
        conversation.wait(lambda: len(left.data) == len(down) and len(right.data) == len(up))
        (conversation.client if end == "client" else conversation.taken).disconnect()
    conversation.wait(conversation.both_over)
    if end != "client at once":
        assert left.data == down
    if end != "server at once":
        assert right.data == up
    assert (left.events, right.events) == ENDS[end]
    assert conversation.client.clean_close and conversation.taken.clean_close
    if cut in ("single bytes", "7-byte pieces"):
        assert {max(flow.pieces) for flow in conversation.relay.flows} == {1 if cut == "single bytes" else 7}
    conversation.end()


# STARTTLS

COMMAND = b"STARTTLS\r\n"
REPLY = b"220 go ahead\r\n"
SECRET = b"only for you"


def on_line(recorder, expected, answer):
    """Call `answer(socket)` once a line has come; what follows it stays unread."""
    after = recorder.socket.ready_read_handler
    lines = []

    def ready(s):
        if not lines and s.can_read_line:
            lines.append(s.read_line())
            answer(s)
        elif lines:
            after(s)

    recorder.socket.ready_read_handler = ready
    return lines


def say_encrypted(recorder):
    note = recorder.socket.encrypted_handler
    recorder.socket.encrypted_handler = lambda s: (note(s), s.write(SECRET))


def reply_and_serve(s):
    s.write(REPLY)
    s.start_server_encryption()


STARTTLS = {
    # How the server answers the command, and what the client does: at once, and on the reply.
    "the reply is waited for": (reply_and_serve, None, lambda s: s.start_client_encryption()),
    "the handshake follows the command at once": (
        lambda s: s.start_server_encryption(), lambda s: s.start_client_encryption(), None,
    ),
    "the handshake follows the reply at once": (
        lambda s: (s.write(REPLY), s.start_client_encryption()), None, lambda s: s.start_server_encryption(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STARTTLS)
def test_starttls_survives_every_split(host, certificates, bystander, cut, version, case):
    answer, at_once, on_reply = STARTTLS[case]
    conversation = Conversation(host, certificates, cut, version, encrypted=False)
    left, right = conversation.left, conversation.right
    conversation.taken.peer_verify_name = "localhost"
    conversation.client.configuration = certificates.server()  # both ends may take either role
    conversation.client.configuration.maximum_protocol = SslProtocol[version]
    conversation.client.peer_verify_name = "localhost"
    commands = on_line(right, COMMAND, answer)
    replies = [] if on_reply is None else on_line(left, REPLY, on_reply)
    say_encrypted(left)
    say_encrypted(right)
    conversation.client.write(COMMAND)
    if at_once is not None:
        conversation.wait(lambda: conversation.client.state is SocketState.CONNECTED_STATE)
        at_once(conversation.client)
    conversation.wait(lambda: left.data == right.data == SECRET)
    assert commands == [COMMAND]
    assert replies == ([] if on_reply is None else [REPLY])
    conversation.client.disconnect()
    conversation.wait(conversation.both_over)
    for recorder in (left, right):
        assert recorder.names().count("encrypted") == 1
    assert right.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert conversation.taken.clean_close
    conversation.end()


@pytest.mark.parametrize("victim", ["client", "server"])
def test_what_is_injected_behind_a_starttls_line_never_counts_as_protected(host, certificates, bystander, cut, victim):
    conversation = Conversation(host, certificates, cut, encrypted=False)
    left, right = conversation.left, conversation.right
    if victim == "client":  # its peer is no TLS server at all
        right.socket.ready_read_handler = lambda s: (s.read_all(), s.write(REPLY + b"250 INJECTED\r\n"))
        lines = on_line(left, REPLY, lambda s: s.start_client_encryption())
        conversation.client.write(b"\n")
        harmed = left
    else:
        lines = on_line(right, COMMAND, lambda s: s.start_server_encryption())
        conversation.client.write(COMMAND + b"RCPT TO:<INJECTED>\r\n")
        harmed = right
    conversation.wait(lambda: harmed.has("disconnected"))
    assert lines == [REPLY if victim == "client" else COMMAND]
    assert harmed.of("error") == [HANDSHAKE_FAILED]
    assert not harmed.has("encrypted")
    assert b"INJECTED" not in harmed.data
    assert not harmed.socket.clean_close
    conversation.end()
