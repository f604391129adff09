"""The interpreter's `ssl` and this package in one process, used at once by several threads: two OpenSSLs, or a shared one.

Each connection has `ssl` on one side and an Engine on the other, so that every byte passes through both.
"""

import ssl
import threading

import pytest
import trustme

import sslsock

THREADS = 6
CONNECTIONS = 12
SIZES = (1, 100, 1024, 16384, 70_000)


@pytest.fixture(scope="module")
def contexts():
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    chain = [sslsock.SslCertificate(blob.bytes()) for blob in leaf.cert_chain_pems]
    trusted = [sslsock.SslCertificate(authority.cert_pem.bytes())]
    ours = {
        "client": sslsock.Context(server_side=False, ca_certificates=trusted, use_system_ca=False),
        "server": sslsock.Context(
            server_side=True,
            certificate=chain[0],
            certificate_chain=chain[1:],
            verify_mode=0,
            private_key=sslsock.SslKey(leaf.private_key_pem.bytes(), algorithm=None),
        ),
        "stranger": sslsock.Context(server_side=False, use_system_ca=False),
    }
    theirs = {"client": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "server": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}
    authority.configure_trust(theirs["client"])
    leaf.configure_cert(theirs["server"])
    return ours, theirs


class Connection:
    """An Engine as `role`, an SSLObject as its peer."""

    def __init__(self, contexts, role, context=None):
        ours, theirs = contexts
        self.up, self.down = ssl.MemoryBIO(), ssl.MemoryBIO()
        if role == "client":
            self.engine = sslsock.Engine(ours[context or role], server_name="localhost", verify_name="localhost")
            self.peer = theirs["server"].wrap_bio(self.up, self.down, server_side=True)
        else:
            self.engine = sslsock.Engine(ours[context or role])
            self.peer = theirs["client"].wrap_bio(self.up, self.down, server_hostname="localhost")
        self.up.write(self.engine.start())

    def turn(self, call, *arguments):
        """One call of the peer's, and what it has sent handed to the engine: result (None: it wants more), plaintext."""
        try:
            result = call(*arguments)
        except ssl.SSLWantReadError:
            result = None
        plain = self.engine.decrypt(self.down.read())
        self.up.write(self.engine.take())
        return result, plain

    def shake(self):
        peer_done = False
        for _ in range(10):
            if not peer_done:
                try:
                    self.peer.do_handshake()
                    peer_done = True
                except ssl.SSLWantReadError:
                    pass
            self.engine.decrypt(self.down.read())
            self.up.write(self.engine.take())
            if peer_done and self.engine.handshake_done:
                return
        raise AssertionError("no handshake")

    def echo(self, data):
        """`data` to the peer and back."""
        self.up.write(self.engine.encrypt(data))
        got = b""
        while len(got) < len(data):
            part, _ = self.turn(self.peer.read, 65536)
            assert part is not None, "the peer wants more than was sent"
            got += part
        assert got == data
        _, back = self.turn(self.peer.write, got)
        assert back == data


def work(contexts, number):
    for index in range(CONNECTIONS):
        connection = Connection(contexts, "client" if (index + number) % 2 else "server")
        connection.shake()
        for size in SIZES:
            connection.echo(bytes([number * 16 + index]) * size)


def fail(contexts):
    """A handshake that fails in both libraries: each has its error where it belongs."""
    connection = Connection(contexts, "client", "stranger")
    with pytest.raises(sslsock.TlsError, match="certificate verify failed"):
        connection.shake()
    connection.up.write(connection.engine.take())
    with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
        connection.peer.do_handshake()


def test_both_are_used_at_once_by_many_threads(contexts):
    failures = []
    together = threading.Barrier(THREADS)

    def run(number):
        try:
            together.wait(30)
            if number % 3 == 2:  # errors in one thread are nobody else's
                for _ in range(CONNECTIONS):
                    fail(contexts)
            work(contexts, number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    assert failures == []


def test_an_error_of_one_is_not_taken_for_one_of_the_other(contexts):
    connection = Connection(contexts, "client")
    connection.shake()
    with pytest.raises(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers("NO-SUCH-CIPHER")
    connection.echo(b"still well")
    with pytest.raises(sslsock.ConfigurationError):
        sslsock.Context(server_side=False, ciphers="NO-SUCH-CIPHER")
    connection.echo(b"and still")
    fail(contexts)
    connection.echo(b"to the end")


@pytest.mark.parametrize("first", ["ssl", "sslsock"])
def test_either_may_be_imported_first(first):
    import subprocess
    import sys

    second = {"ssl": "sslsock", "sslsock": "ssl"}[first]
    code = (
        f"import {first}; import {second}; sslsock.Context(server_side=False); ssl.create_default_context(); "
        "print(ssl.OPENSSL_VERSION, sslsock.openssl_version(), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    theirs, ours = done.stdout.splitlines()
    assert theirs == ssl.OPENSSL_VERSION
    if sslsock.build_info()["openssl_linked"] == "static":
        assert ours == sslsock.openssl_version()
