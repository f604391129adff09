"""Contexts with several certificates: one for each type of key, each with its chain; the client's algorithms decide."""

import shutil
import socket
import subprocess

import pytest

from sslsock.core.certificate import SslCertificate
from sslsock.core.context import ConfigurationError
from sslsock.core.engine import Engine

from .pairs import DEADLINE, TLS_1_2, TLS_1_3, client_context, engines, identity, server_context

# The chain of each is told apart by an authority that has nothing to do with it.
CHAINS = {"rsa": [identity().authority], "ecdsa": [identity(by="second").authority]}


def entry(kind, by="first"):
    own = identity(kind, by)
    return own.certificate, CHAINS.get(kind, []), own.key


def both(version=0, first="rsa", second="ecdsa", **settings):
    """A server with two, without one of the single arguments."""
    return server_context(version, certificate=None, private_key=None, certificates=[entry(first), entry(second)], **settings)


ORDERS = [("rsa", "ecdsa"), ("ecdsa", "rsa")]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_tls_1_2_client_of_one_kind_gets_its_certificate_and_chain(kind, order):
    client = client_context(TLS_1_2, kind, ciphers=f"ECDHE-{kind.upper()}-AES128-GCM-SHA256")
    near, _ = engines(client=client, server=both(TLS_1_2, *order), verify_name="localhost")
    assert near.peer_certificate_chain() == [identity(kind).certificate, *CHAINS[kind]]
    assert near.verify_errors == []


@pytest.mark.parametrize("order", ORDERS)
def test_a_client_of_both_kinds_gets_the_faster_one(version, order):
    near, _ = engines(client=client_context(version), server=both(version, *order))
    assert near.peer_certificate_chain() == [identity().certificate, *CHAINS["ecdsa"]]


def test_the_single_arguments_are_one_of_them():
    own = identity("rsa")
    server = server_context(
        TLS_1_2,
        certificate=own.certificate,
        certificate_chain=CHAINS["rsa"],
        private_key=own.key,
        certificates=[entry("ecdsa"), entry("ed25519")],
    )
    for kind in ("rsa", "ecdsa"):
        client = client_context(TLS_1_2, kind, ciphers=f"ECDHE-{kind.upper()}-AES128-GCM-SHA256")
        near, _ = engines(client=client, server=server)
        assert near.peer_certificate_chain() == [identity(kind).certificate, *CHAINS[kind]]


SIGNATURES = {
    ("rsa", TLS_1_2): "RSA+SHA256",
    ("rsa", TLS_1_3): "RSA-PSS+SHA256",
    ("ecdsa", TLS_1_2): "ECDSA+SHA256",
    ("ecdsa", TLS_1_3): "ECDSA+SHA256",
    ("ed25519", TLS_1_2): "ed25519",
    ("ed25519", TLS_1_3): "ed25519",
}


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_the_signature_algorithms_of_a_foreign_client_decide(version, kind):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program")
    server = Engine(server_context(version, "ed25519", certificates=[entry("rsa"), entry("ecdsa")]))
    expected = [identity(kind).certificate, *CHAINS.get(kind, [])]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE)
        host, port = listening.getsockname()
        command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-showcerts", "-ign_eof"]
        command += ["-sigalgs", SIGNATURES[kind, version], "-tls1_2" if version == TLS_1_2 else "-tls1_3"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
            end, _ = listening.accept()
            with end:
                end.settimeout(DEADLINE)
                while not server.handshake_done:
                    data = end.recv(65536)
                    assert data, "the client went away"
                    server.decrypt(data)
                    end.sendall(server.take())
                end.sendall(server.close())
            said = program.communicate(timeout=DEADLINE)[0]
    assert SslCertificate.from_bytes(said)[: len(expected)] == expected, said.decode(errors="replace")


# refused


@pytest.mark.parametrize(("kind", "name"), [("rsa", "RSA"), ("ecdsa", "EC"), ("ed25519", "ED25519")])
def test_two_of_one_type_are_refused(kind, name):
    own = identity(kind)
    pair = (own.certificate, [], own.key)
    other = identity(kind, "second")
    with pytest.raises(ConfigurationError, match=f"two certificates have keys of the same type, {name}$"):
        server_context(certificate=None, private_key=None, certificates=[pair, (other.certificate, [], other.key)])
    with pytest.raises(ConfigurationError, match="the same type"):
        server_context(kind=kind, certificates=[pair])


def test_a_key_that_another_certificate_owns_does_not_fit():
    """libssl alone would take it: the key fits the certificate of its own type, and the other stays without one."""
    first, second = identity("ecdsa"), identity("rsa")
    with pytest.raises(ConfigurationError, match="the private key does not fit the certificate"):
        server_context(certificates=[(second.certificate, [], first.key)])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ((None, [], identity("rsa").key), "without its certificate"),
        ((identity("rsa").certificate, [], None), "without its private key"),
        ((None, [], None), "chain was given without a certificate"),
        ((SslCertificate(b"rubbish"), [], identity("rsa").key), "the certificate did not load"),
        ((identity("rsa").certificate, [SslCertificate(b"")], identity("rsa").key), "of the chain did not load"),
    ],
)
def test_each_is_looked_at(broken, message):
    with pytest.raises(ConfigurationError, match=message):
        server_context(certificates=[broken])


@pytest.mark.parametrize("wrong", [1, [1], [identity().certificate], ["abc"], [("a", [], "b")]])
def test_what_is_no_list_of_triples_is_a_type_error(wrong):
    with pytest.raises(TypeError):
        server_context(certificates=wrong)


def test_a_server_with_none_at_all_is_refused():
    with pytest.raises(ConfigurationError, match="a server needs a certificate"):
        server_context(certificate=None, private_key=None, certificates=[])
