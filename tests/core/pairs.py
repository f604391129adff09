"""Pairs to test with: two engines joined by hand, two channels joined by sockets, and a loop driven with a deadline.

Nothing here sleeps or fixes a port. Certificates are made once per process.
"""

import datetime
import functools
import os
import socket
import time
from dataclasses import dataclass

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from sslsock.core.certificate import SslCertificate
from sslsock.core.channel import Channel
from sslsock.core.context import VERIFY_NONE, Context, openssl_version
from sslsock.core.engine import Engine
from sslsock.core.key import SslKey

TLS_1_2, TLS_1_3 = 0x0303, 0x0304
VERSIONS = (TLS_1_2, TLS_1_3)
OPENSSL = tuple(map(int, openssl_version().split()[1].split(".")[:2]))  # the release that is linked, as (3, 0)
DEADLINE = 60.0  # seconds until a test that waits has failed
RECORD = 16384
MIB = 1 << 20


# certificates


@dataclass(frozen=True)
class Identity:
    """A certificate for localhost and 127.0.0.1, its key, and the CA that it comes from."""

    certificate: SslCertificate
    key: SslKey
    authority: SslCertificate


@functools.cache
def authority(name):
    return trustme.CA(organization_name=f"sslsock tests, {name} authority")


def identity(kind="ecdsa", by="first"):
    return _identity(kind, by)


@functools.cache
def _identity(kind, by):
    if kind == "ed25519":
        return _own_identity(Ed25519PrivateKey.generate(), None)
    if kind == "p521":
        return _own_identity(ec.generate_private_key(ec.SECP521R1()), hashes.SHA512())
    key_type = {"rsa": trustme.KeyType.RSA, "ecdsa": trustme.KeyType.ECDSA}[kind]
    leaf = authority(by).issue_cert("localhost", "127.0.0.1", key_type=key_type)
    return Identity(
        SslCertificate(leaf.cert_chain_pems[0].bytes()),
        SslKey(leaf.private_key_pem.bytes()),
        SslCertificate(authority(by).cert_pem.bytes()),
    )


def _own_identity(key, hash):
    """For keys that trustme makes none of: one that has signed itself, and is its own CA."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hash)
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity(SslCertificate(pem), SslKey(secret), SslCertificate(pem))


def server_context(version=0, kind="ecdsa", by="first", **settings):
    own = identity(kind, by)
    settings = {
        "certificate": own.certificate,
        "private_key": own.key,
        "verify_mode": VERIFY_NONE,
        "use_system_ca": False,
        **bounds(version),
        **settings,
    }
    return Context(server_side=True, **settings)


def client_context(version=0, kind="ecdsa", by="first", **settings):
    settings = {
        "ca_certificates": [identity(kind, by).authority],
        "use_system_ca": False,
        **bounds(version),
        **settings,
    }
    return Context(server_side=False, **settings)


def bounds(version):
    return {"minimum_protocol": version, "maximum_protocol": version} if version else {}


# engines


def pieces(data, split=None):
    """`data` cut: None: not at all; "records": at record edges; "offset records": one byte after; a number: into so
    many bytes each."""
    if split is None:
        return [data] if data else []
    if isinstance(split, int):
        return [data[start : start + split] for start in range(0, len(data), split)]
    edges = [0]
    while edges[-1] + 5 <= len(data):
        edges.append(edges[-1] + 5 + int.from_bytes(data[edges[-1] + 3 : edges[-1] + 5], "big"))
    if split == "offset records":
        edges = [0, *(edge + 1 for edge in edges)]
    edges.append(len(data))
    return [data[a:b] for a, b in zip(edges, edges[1:]) if a < b]


def feed(engine, data, split=None):
    """Give `data` to `engine` in pieces; returns the plaintext."""
    return b"".join(engine.decrypt(piece) for piece in pieces(data, split))


def shake(client, server, split=None):
    """The handshake, until neither has anything to say; returns how often the direction changed."""
    to_server, to_client, flights = client.start(), server.start(), 0
    while to_server or to_client:
        assert feed(server, to_server, split) == b""
        to_client += server.take()
        assert feed(client, to_client, split) == b""
        to_server, to_client = client.take(), b""
        flights += 1
        assert flights < 10, "the handshake goes round in circles"
    assert client.handshake_done and server.handshake_done
    return flights


def engines(version=0, kind="ecdsa", split=None, client=None, server=None, **client_settings):
    """Two engines after their handshake."""
    client = Engine(client or client_context(version, kind), **client_settings)
    server = Engine(server or server_context(version, kind))
    shake(client, server, split)
    return client, server


# the loop


class Complaints:
    """An exception handler that keeps what it is told. A test takes what it expects."""

    def __init__(self):
        self.unexpected = []

    def __call__(self, loop, context):
        self.unexpected.append(context["exception"])

    def take(self):
        taken, self.unexpected = self.unexpected, []
        return taken


def drive(loop, condition, what="what was waited for", patience=0.1):
    """Turns of `loop` until `condition()` holds. patience: how long one may wait, 0 when the condition moves things."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come in {DEADLINE:.0f} s"
        loop.dispatch(patience)


def turns(loop, count=8):
    """Some turns that do not wait: enough for all that is under way on loopback."""
    for _ in range(count):
        loop.dispatch(0)


with open("/proc/self/maps") as maps:
    SANITIZED = "libasan" in maps.read()  # it keeps freed memory for a while, which looks like growth


def resident():
    """Memory of this process in KiB, without pages of files, which the system drops and reads again when it likes."""
    with open("/proc/self/status") as status:
        return sum(int(line.split()[1]) for line in status if line.startswith(("RssAnon", "VmSwap")))


def descriptors():
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


# channels


def socket_pair():
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return ends


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    for end in (near, far):
        end.setblocking(False)
    return near, far


class Recorder:
    """A ChannelConsumer that writes down what it is told, reads what comes, and calls the hook of that name, if any."""

    def __init__(self, greedy=True, **hooks):
        self.greedy = greedy
        self.hooks = hooks
        self.events = []
        self.received = bytearray()
        self.written = 0
        self.failure = self.message = None
        self.channel = None

    def _call(self, name, *args):
        self.events.append((name, *args))
        hook = self.hooks.get(name)
        if hook is not None:
            hook(self)

    def count(self, name):
        return sum(event[0] == name for event in self.events)

    def has(self, *event):
        return event in self.events

    def _on_readable(self):
        if self.greedy and self.channel is not None:
            self.received += self.channel.read()
        self._call("readable")

    def _on_written(self, count):
        self.written += count
        self._call("written", count)

    def _on_encrypted(self):
        self._call("encrypted")

    def on_output_ended(self):
        self._call("output_ended")

    def _on_drained(self):
        self._call("drained")

    def _on_peer_closed(self, clean):
        self._call("peer_closed", clean)

    def _on_failed(self, failure, message):
        self.failure, self.message = failure, message
        self._call("failed")


def channel_on(loop, end, recorder=None):
    """A channel that owns `end` (a socket), and its recorder."""
    recorder = recorder or Recorder()
    recorder.channel = channel = Channel(loop, recorder)
    channel.attach(end.detach())
    return channel, recorder


def channel_pair(loop, near=None, far=None, pair=socket_pair):
    """Two channels joined in the clear: (channel, recorder) twice."""
    ends = pair()
    return (*channel_on(loop, ends[0], near), *channel_on(loop, ends[1], far))


def start_tls_pair(loop, near, far, version=0, timeout=DEADLINE, wait=True):
    """TLS on both: `near` is the client."""
    far.start_tls(Engine(server_context_of(version)), timeout)
    near.start_tls(Engine(client_context_of(version), server_name="localhost", verify_name="localhost"), timeout)
    if wait:
        drive(loop, lambda: near.encrypted and far.encrypted, "the handshake")


def tls_channel_pair(loop, version=0, near=None, far=None, pair=socket_pair):
    """Two channels joined by TLS."""
    result = channel_pair(loop, near, far, pair)
    start_tls_pair(loop, result[0], result[2], version)
    return result


@functools.cache
def server_context_of(version):
    return server_context(version)


@functools.cache
def client_context_of(version):
    return client_context(version)


def exchange(loop, near, near_record, far, far_record, data=b"are you there?"):
    """Both send and both get it: the connection works."""
    before_near, before_far = len(near_record.received), len(far_record.received)
    near.write(data)
    far.write(data[::-1])
    drive(
        loop,
        lambda: len(far_record.received) >= before_far + len(data) and len(near_record.received) >= before_near + len(data),
        "the answer",
    )
    assert far_record.received[before_far:] == data
    assert near_record.received[before_near:] == data[::-1]
