"""A TLS peer that writes records which no library would: the handshake is the `ssl` module's, what comes after it is made here.

The keys come from the key log (SSLKEYLOGFILE); the cipher suites are those with AES-128-GCM.
"""

import hmac
import socket
import ssl
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sslsock.core.engine import Engine

from .pairs import (
    DEADLINE,
    TLS_1_2,
    Recorder,
    authority,
    channel_on,
    client_context,
    drive,
    server_context_of,
    socket_pair,
)

HANDSHAKE, DATA = 22, 23


def sha256(key, data):
    return hmac.digest(key, data, "sha256")


def expand_label(secret, label, size):
    """RFC 8446, 7.1, for up to 32 bytes and an empty context."""
    full = b"tls13 " + label
    return sha256(secret, struct.pack("!HB", size, len(full)) + full + b"\0\1")[:size]


def key_block(master, seed, size):
    """RFC 5246, 5 and 6.3."""
    seed = b"key expansion" + seed
    block, state = b"", seed
    while len(block) < size:
        state = sha256(master, state)
        block += sha256(master, state + seed)
    return block[:size]


class Forger:
    """The peer of `channel`, which is the other role. sock: its end, non-blocking. What `sock` brings is not read by itself."""

    def __init__(self, loop, version, server_side, folder):
        near, self.sock = socket_pair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)  # the kernel holds little that is not read
        self.channel, self.recorder = channel_on(loop, near, Recorder())
        self.version, self.server_side = version, server_side
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = context.maximum_version = ssl.TLSVersion(version)
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        context.keylog_filename = str(folder / "keys")
        if server_side:
            context.num_tickets = 0
            authority("first").issue_cert("localhost").configure_cert(context)
            ours = client_context(version, ciphersuites="TLS_AES_128_GCM_SHA256")  # the `ssl` module's server prefers another
            self.channel.start_tls(Engine(ours, verify_name="localhost"), DEADLINE)
        else:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.channel.start_tls(Engine(server_context_of(version)), DEADLINE)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side)
        self.heard, self.said, self.done = b"", b"", False
        drive(loop, self.shake, "the handshake", 0)
        self.find_keys(folder)

    def shake(self):
        try:
            piece = self.sock.recv(65536)
            self.heard += piece
            self.incoming.write(piece)
        except BlockingIOError:
            pass
        try:
            self.tls.do_handshake()
            self.done = True
        except ssl.SSLWantReadError:
            pass
        piece = self.outgoing.read()
        self.said += piece
        self.sock.send(piece)
        return self.done and self.channel.encrypted

    def find_keys(self, folder):
        assert self.tls.cipher()[0] in ("TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"), self.tls.cipher()
        lines = [line.split() for line in (folder / "keys").read_text().splitlines() if not line.startswith("#")]
        secrets = {words[0]: words[2] for words in lines}
        hellos = (self.heard, self.said) if self.server_side else (self.said, self.heard)
        if self.version == TLS_1_2:
            client_random, server_random = (hello[11:43] for hello in hellos)
            block = key_block(bytes.fromhex(secrets["CLIENT_RANDOM"]), server_random + client_random, 40)
            self.key = AESGCM(block[16:32] if self.server_side else block[:16])
            self.salt = block[36:40] if self.server_side else block[32:36]
            self.sequence = 1  # Finished was the first
        else:
            self.use_secret(bytes.fromhex(secrets[("SERVER" if self.server_side else "CLIENT") + "_TRAFFIC_SECRET_0"]))

    def use_secret(self, secret):
        self.secret = secret
        self.key = AESGCM(expand_label(secret, b"key", 16))
        self.salt = expand_label(secret, b"iv", 12)
        self.sequence = 0

    def record(self, kind, body):
        """The next record, encrypted."""
        sequence = self.sequence.to_bytes(8, "big")
        self.sequence += 1
        if self.version == TLS_1_2:  # RFC 5288, 3
            header = struct.pack("!BHH", kind, 0x0303, len(body))
            sealed = sequence + self.key.encrypt(self.salt + sequence, body, sequence + header)
        else:  # RFC 8446, 5.2 and 5.3
            kind, body = DATA, body + bytes([kind])
            header = struct.pack("!BHH", kind, 0x0303, len(body) + 16)
            nonce = (int.from_bytes(self.salt, "big") ^ int.from_bytes(sequence, "big")).to_bytes(12, "big")
            sealed = self.key.encrypt(nonce, body, header)
        return struct.pack("!BHH", kind, 0x0303, len(sealed)) + sealed

    def key_update(self):
        """RFC 8446, 4.6.3 and 7.2: with the wish for one in return."""
        record = self.record(HANDSHAKE, b"\x18\0\0\1\1")
        self.use_secret(expand_label(self.secret, b"traffic upd", 32))
        return record

    def read(self):
        """What has come, as it is on the wire."""
        data = b""
        try:
            while piece := self.sock.recv(1 << 18):
                data += piece
        except BlockingIOError:
            pass
        return data


def kinds(stream):
    """Of the records in `stream`, in order: what their headers say."""
    found, place = [], 0
    while place < len(stream):
        found.append(stream[place])
        place += 5 + int.from_bytes(stream[place + 3 : place + 5], "big")
    assert place == len(stream), "half a record"
    return found
