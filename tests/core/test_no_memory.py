"""No memory at all, from some allocation on: whatever ends then is closed, and the process lives.

The interpreter's own test module has every allocation of Python fail (`set_nomemory`; OpenSSL's and ours by malloc go on). A
child does that, from its first, second, ... allocation on, for as long as something ends; then there is memory again, and what
has raised is done again. It must be closed by then. A crash shows as the child's signal.
"""

import contextlib
import errno
import gc
import os
import signal
import socket

import pytest

from sslsock.core.channel import Channel
from sslsock.core.dial import Dial, pack_address
from sslsock.core.engine import Engine
from sslsock.core.listener import Listener
from sslsock.core.loop import Loop

from .far import end, join
from .pairs import DEADLINE, Recorder, client_context_of, drive, server_context_of, tcp_pair

testcapi = pytest.importorskip("_testcapi")  # not every distribution has it

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

ALLOCATIONS = 16
TURNS = 6


def new_loop():
    loop = Loop()
    loop.exception_handler = ignore  # the default writes to the log: the interpreter's `logging` hangs without memory
    return loop


def ignore(loop, context):
    pass


class Nasty(Recorder):
    """Raises wherever it is told something, which takes memory of its own."""

    def _call(self, name, *args):
        raise ValueError(name)


class Scene:
    """act: what is done without memory. ended: whether all is closed; peers: what else must move for that."""

    def __init__(self, loop, act, ended, peers=()):
        self.loop, self.act, self.ended, self.peers = loop, act, ended, peers


def channel_scene(kind, act, consumer=Recorder):
    loop = new_loop()
    channel, far = end(loop, kind, True, tcp_pair, consumer())
    if act == "finish unsent":
        channel.write(b"unsent")
    elif act == "peer ends":
        far.finish()
    elif act == "peer resets":
        far.reset()
    elif act == "peer sends":
        far.write(b"some bytes")
    elif act == "peer damages":
        far.out += b"\x17\x03\x03\x00\x20" + bytes(32)
    if not act.startswith("peer resets"):
        far.pump()
    acts = {"finish": channel.finish, "finish unsent": channel.finish, "abort": channel.abort, "refuse": channel.refuse}
    acts["loop closes"] = loop.close
    done = acts.get(act, lambda: None)

    def ended():
        return channel.fileno() < 0

    return Scene(loop, done, ended if act in acts else lambda: True, [far])


def handshake_scene(act):
    loop = new_loop()
    near, far = tcp_pair()
    channel = Channel(loop, Recorder())
    channel.attach(near.detach())
    channel.start_tls(Engine(server_context_of(0)), DEADLINE)
    sent = Engine(client_context_of(0), server_name="localhost").start() if act == "goes on" else b"\x16\x03\x01\x00\x05hello"
    far.send(sent)
    if act == "goes on":
        return Scene(loop, channel.abort, lambda: channel.fileno() < 0)
    far.shutdown(socket.SHUT_WR)
    return Scene(loop, lambda: None, lambda: channel.fileno() < 0)


def relay_scene(kind, act):
    joined = join(new_loop(), (kind, kind), tcp_pair)
    loop = joined.loop
    joined.turns(4)
    if act == "peer ends":
        joined.front.finish()
        joined.back.finish()
    elif act == "peer resets":
        joined.front.reset()
        joined.back.finish()
    if act != "peer resets":
        joined.front.pump()
    joined.back.pump()
    done = {"close": joined.relay.close, "loop closes": loop.close}.get(act, lambda: None)
    return Scene(
        loop, done, lambda: joined.relay.closed, [joined.back] if act == "peer resets" else [joined.front, joined.back]
    )


def listener_scene(act):
    loop = new_loop()
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    address = bound.getsockname()
    listener = Listener(loop, bound.detach(), None, 16)
    client = socket.create_connection(address)
    if act == "close":
        drive(loop, lambda: listener.pending)
    scene = Scene(loop, listener.close, lambda: listener.fileno() < 0)
    scene.client = client
    return scene


def dial_scene(act):
    loop = new_loop()

    class Consumer:
        told = False

        def on_dialed(self, descriptor):
            self.told = True

        def on_dial_failed(self, number):
            self.told = True

    with socket.create_server(("127.0.0.1", 0)) as bound:
        dial = Dial(loop, pack_address(socket.AF_INET, bound.getsockname()), Consumer())
        assert dial.start(DEADLINE) == -errno.EINPROGRESS
    return Scene(loop, dial.cancel, lambda: loop.idle)


ACTS = ("finish", "finish unsent", "abort", "refuse", "loop closes", "peer ends", "peer resets", "peer sends", "peer damages")

SCENES = {}
for kind in ("channel", "tls1.3"):
    for act in ACTS:
        SCENES[f"{kind}, {act}"] = (channel_scene, kind, act)
        if act.startswith(("finish", "peer")):
            SCENES[f"{kind}, {act}, handlers raise"] = (channel_scene, kind, act, Nasty)
for act in ("goes on", "fails"):
    SCENES[f"handshake {act}"] = (handshake_scene, act)
for kind in ("channel", "tls1.3"):
    for act in ("close", "loop closes", "peer ends", "peer resets"):
        SCENES[f"relay of {kind}, {act}"] = (relay_scene, kind, act)
for act in ("accept", "close"):
    SCENES[f"listener, {act}"] = (listener_scene, act)
SCENES["dial, cancel"] = (dial_scene, "cancel")


def without_memory(scene, allocations):
    """What is to be done, and some turns, with nothing more to be had after so many allocations. Whether it has raised."""
    act, dispatch, turns = scene.act, scene.loop.dispatch, iter(bytes(TURNS))  # what takes memory is made before
    raised = False
    gc.disable()
    testcapi.set_nomemory(allocations)
    try:
        try:
            act()
        except MemoryError:
            raised = True
        for _ in turns:
            try:  # noqa: SIM105 - `suppress` takes memory
                dispatch(0)
            except (MemoryError, RuntimeError):  # RuntimeError: it is closed
                pass
    finally:
        testcapi.remove_mem_hooks()
        gc.enable()
    return raised


def look_after(scene, allocations):
    raised = without_memory(scene, allocations)
    if raised:
        scene.act()
    for peer in scene.peers:
        if peer.sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_WR)

    def ended():
        for peer in scene.peers:
            if peer.sock.fileno() >= 0:
                with contextlib.suppress(OSError, ValueError):
                    peer.pump()
        return scene.ended()

    if not scene.loop.closed:
        drive(scene.loop, ended, "the end", 0.01)
        scene.loop.close()
    assert scene.ended(), "it is closed with its loop"


def ended_child(work):
    """How a child has ended that does `work`, and what it has said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(writing, 2)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(DEADLINE))
            work()
            status = 0
        except BaseException as exc:
            os.write(writing, f"\n{type(exc).__name__}: {exc}".encode())
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    return os.waitpid(child, 0)[1], said


@pytest.mark.parametrize("name", SCENES)
def test_an_end_without_memory(name):
    make, *arguments = SCENES[name]
    server_context_of(0), client_context_of(0)
    for allocations in range(1, ALLOCATIONS):
        status, said = ended_child(lambda n=allocations: look_after(make(*arguments), n))
        assert not os.WIFSIGNALED(status), f"killed by signal {os.WTERMSIG(status)} after {allocations} allocations: {said}"
        assert status == 0, f"after {allocations} allocations: {said}"
