"""Channel bindings, exported keying material, the verified chain: what both sides say, and other implementations."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from core.pairs import client_context, engines, identity, server_context, shake
from judged import DAY, NOW, issue
from peers import make_ssl_pair, silence
from sslsock import Engine, Relay, SslCertificate, SslKey, SslProtocol, SslSocket
from sslsock.core.context import VERIFY_NONE, VERIFY_PEER, VERIFY_QUERY

VERSIONS = [SslProtocol.TLS_1_2, SslProtocol.TLS_1_3]
TLS_1_2, TLS_1_3 = VERSIONS
KINDS = ["tls-exporter", "tls-server-end-point", "tls-unique"]


@pytest.fixture(params=VERSIONS, ids=str)
def version(request):
    return request.param


def resumed_engines(version, server=None):
    client, server = client_context(version), server or server_context(version)
    for expected in (False, True):
        left, right = Engine(client, session_key="one"), Engine(server)
        shake(left, right)
        assert left.session_reused is right.session_reused is expected
    return left, right


def stdlib_pair(version, ours, context, **settings):
    """Our engine and an SSLObject of the interpreter after their handshake."""
    context.minimum_version = context.maximum_version = ssl.TLSVersion(version)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = context.wrap_bio(incoming, outgoing, **settings)
    incoming.write(ours.start())
    done = False
    for _ in range(8):
        if not done:
            try:
                theirs.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
        ours.decrypt(outgoing.read())
        incoming.write(ours.take())
    assert done
    assert ours.handshake_done
    return theirs


# Channel bindings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resumed", [False, True], ids=["full", "resumed"])
def test_both_sides_have_the_same(version, kind, resumed):
    left, right = resumed_engines(version) if resumed else engines(version)
    bound = left.channel_binding(kind)
    assert bound == right.channel_binding(kind)
    if kind == "tls-unique" and version is TLS_1_3:
        assert bound is None
    else:
        assert isinstance(bound, bytes)
        assert len(bound) >= 12


@pytest.mark.parametrize("kind", ["tls-exporter", "tls-unique"])
def test_no_two_connections_have_the_same(kind):
    found = [engines(TLS_1_2)[0].channel_binding(kind) for _ in range(3)]
    found += [engine.channel_binding(kind) for engine in (resumed_engines(TLS_1_2)[0],)]
    assert len(set(found)) == 4


@pytest.mark.parametrize("side", ["client", "server"])
def test_the_standard_library_says_the_same_of_tls_unique(side, tmp_path):
    if side == "client":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        ours, settings = Engine(server_context(TLS_1_2)), {}
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own = issue("localhost")
        pem = own.pem + own.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (tmp_path / "own.pem").write_bytes(pem)
        context.load_cert_chain(tmp_path / "own.pem")
        ours, settings = Engine(client_context(TLS_1_2, verify_mode=VERIFY_NONE)), {"server_side": True}
    theirs = stdlib_pair(TLS_1_2, ours, context, **settings)
    assert ours.channel_binding("tls-unique") == theirs.get_channel_binding("tls-unique") is not None


def pyopenssl_pair(version, **settings):
    pyopenssl = pytest.importorskip("OpenSSL.SSL")
    context = pyopenssl.Context(pyopenssl.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    for option in settings.get("options", ()):
        context.set_options(option)
    theirs = pyopenssl.Connection(context, None)
    theirs.set_connect_state()
    ours = Engine(server_context(version))
    for _ in range(8):
        with contextlib.suppress(pyopenssl.WantReadError):
            theirs.do_handshake()
        with contextlib.suppress(pyopenssl.WantReadError):
            ours.decrypt(theirs.bio_read(65536))
        sent = ours.take()
        if sent:
            theirs.bio_write(sent)
    assert ours.handshake_done
    return ours, theirs


@pytest.mark.parametrize("context", [None, b"", b"what it is for"])
@pytest.mark.parametrize("label", [b"EXPERIMENTAL-test", b"EXPORTER-Channel-Binding"])
def test_pyopenssl_exports_the_same(version, label, context):
    ours, theirs = pyopenssl_pair(version)
    material = ours.export_keying_material(label, 48, context)
    assert material == theirs.export_keying_material(label, 48, context)
    assert ours.channel_binding("tls-exporter") == theirs.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")


def test_without_extended_master_secret_there_is_no_binding():
    ours, _ = pyopenssl_pair(TLS_1_2, options=[1 << 0])  # SSL_OP_NO_EXTENDED_MASTER_SECRET
    assert ours.protocol == TLS_1_2
    assert ours.channel_binding("tls-unique") is None
    assert ours.channel_binding("tls-exporter") is None
    assert ours.channel_binding("tls-server-end-point") is not None


@pytest.mark.parametrize(
    ("algorithm", "name"), [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384"), (hashes.SHA512(), "sha512")]
)
def test_the_end_point_is_the_servers_certificate_by_its_own_hash(version, algorithm, name):
    own = issue("localhost")
    signed = (
        x509.CertificateBuilder()
        .subject_name(own.certificate.subject)
        .issuer_name(own.certificate.subject)
        .public_key(own.key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .sign(own.key, algorithm)
    )
    shown = SslCertificate(signed.public_bytes(serialization.Encoding.PEM))
    server = server_context(version, certificate=shown, private_key=own.our_key)
    left, right = engines(client=client_context(version, verify_mode=VERIFY_NONE), server=server)
    expected = hashlib.new(name, shown.to_der()).digest()
    assert left.channel_binding("tls-server-end-point") == right.channel_binding("tls-server-end-point") == expected


@pytest.mark.parametrize(("digest", "options"), [("sha1", ()), ("md5", ()), ("sha384", ("-sigopt", "rsa_padding_mode:pss"))])
def test_old_hashes_are_replaced_and_pss_has_its_own(tmp_path, digest, options):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=localhost", f"-{digest}", *options]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    certificate = SslCertificate((tmp_path / "cert.pem").read_bytes())
    server = server_context(
        certificate=certificate,
        private_key=SslKey((tmp_path / "key.pem").read_bytes()),
        ciphers="DEFAULT:@SECLEVEL=0",
    )
    client = client_context(verify_mode=VERIFY_NONE, ciphers="DEFAULT:@SECLEVEL=0")
    left, right = engines(client=client, server=server)
    expected = certificate.digest("sha384" if options else "sha256")
    assert left.channel_binding("tls-server-end-point") == right.channel_binding("tls-server-end-point") == expected


def test_a_signature_without_a_hash_has_no_end_point(version):
    left, right = engines(version, "ed25519")
    assert left.channel_binding("tls-server-end-point") is right.channel_binding("tls-server-end-point") is None


def test_a_server_with_several_certificates_says_the_one_it_has_shown(version):
    rsa, ecdsa = identity("rsa"), identity("ecdsa")
    several = [(own.certificate, [], own.key) for own in (rsa, ecdsa)]
    server = server_context(version, certificate=None, private_key=None, certificates=several)
    left, right = engines(client=client_context(version), server=server)
    assert left.channel_binding("tls-server-end-point") == right.channel_binding("tls-server-end-point") is not None
    left, right = resumed_engines(version, server)
    assert left.channel_binding("tls-server-end-point") is not None
    assert right.channel_binding("tls-server-end-point") is None


def test_before_the_handshake_there_is_none_and_of_unknown_kinds_never():
    engine = Engine(client_context())
    assert [engine.channel_binding(kind) for kind in KINDS] == [None] * 3
    left, _ = engines()
    for each in (engine, left, SslSocket()):
        for wrong, error in (("tls-magic", ValueError), ("", ValueError), (b"tls-unique", TypeError), (None, TypeError)):
            with pytest.raises(error):
                each.channel_binding(wrong)


# Keying material


def test_label_length_and_context_make_a_difference(version):
    left, right = engines(version)
    given = [
        ("EXPERIMENTAL-a", 32, None),
        ("EXPERIMENTAL-b", 32, None),
        ("EXPERIMENTAL-a", 33, None),
        ("EXPERIMENTAL-a", 32, b"x"),
        ("EXPERIMENTAL-a", 1, None),
        ("EXPERIMENTAL-a", 4000, None),
    ]
    found = [left.export_keying_material(*each) for each in given]
    assert found == [right.export_keying_material(*each) for each in given]
    assert [len(each) for each in found] == [each[1] for each in given]
    assert len(set(found)) == len(given)
    assert left.export_keying_material(b"EXPERIMENTAL-a", 32, bytearray(b"x")) == found[3]
    none, empty = (left.export_keying_material("EXPERIMENTAL-a", 32, context) for context in (None, b""))
    assert (none == empty) is (version is TLS_1_3)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", 32), ValueError),
        (("a", 0), ValueError),
        (("a", -1), ValueError),
        (("a", 65536), ValueError),
        (("a", 1 << 70), OverflowError),
        (("ä", 32), ValueError),
        ((3, 32), TypeError),
        (("a", "32"), TypeError),
        (("a", 32, "context"), TypeError),
    ],
)
def test_what_cannot_be_exported_raises(arguments, error):
    left, _ = engines()
    with pytest.raises(error):
        left.export_keying_material(*arguments)


def test_what_the_protocol_itself_uses_is_refused():
    left, _ = engines(TLS_1_2)
    with pytest.raises(ValueError, match="master secret"):
        left.export_keying_material("master secret", 48)
    with pytest.raises(ValueError, match="20000"):
        engines(TLS_1_3)[0].export_keying_material("a", 20000)


def test_before_the_handshake_nothing_is_exported():
    for each in (Engine(client_context()), SslSocket()):
        with pytest.raises(RuntimeError, match="before the handshake"):
            each.export_keying_material("a", 32)


# The verified chain

ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
OWN = issue("localhost", MIDDLE)


def shown(version, *links, **settings):
    return server_context(
        version,
        certificate=OWN.ours,
        certificate_chain=[link.ours for link in links],
        private_key=OWN.our_key,
        **settings,
    )


def trusting(version, *authorities, **settings):
    return client_context(version, ca_certificates=[each.ours for each in authorities], **settings)


def test_the_verified_chain_leads_to_the_trusted_root(version):
    left, right = engines(client=trusting(version, ROOT), server=shown(version, MIDDLE))
    assert left.peer_verified_chain() == [OWN.ours, MIDDLE.ours, ROOT.ours]
    assert left.peer_certificate_chain() == [OWN.ours, MIDDLE.ours]
    assert right.peer_verified_chain() == []
    left, _ = engines(client=trusting(version, ROOT, MIDDLE), server=shown(version))
    assert left.peer_verified_chain() == [OWN.ours, MIDDLE.ours, ROOT.ours]
    left, _ = engines(client=trusting(version, MIDDLE, verify_flags=0x80000), server=shown(version, MIDDLE, ROOT))
    assert left.peer_verified_chain() == [OWN.ours, MIDDLE.ours]


def test_a_server_has_its_clients(version):
    client = issue("client", MIDDLE, use="client")
    server = server_context(version, verify_mode=VERIFY_PEER, ca_certificates=[ROOT.ours])
    left = client_context(version, certificate=client.ours, certificate_chain=[MIDDLE.ours], private_key=client.our_key)
    _, right = engines(client=left, server=server)
    assert right.peer_verified_chain() == [client.ours, MIDDLE.ours, ROOT.ours]


def test_what_was_not_verified_has_none(version):
    left, _ = engines(client=trusting(version, ROOT, verify_mode=VERIFY_NONE), server=shown(version, MIDDLE))
    assert left.peer_verified_chain() == []
    left, _ = engines(client=trusting(version, verify_mode=VERIFY_QUERY), server=shown(version, MIDDLE))
    assert left.verify_errors != []
    assert left.peer_verified_chain() == []
    left, _ = engines(client=trusting(version, ROOT), server=shown(version), verify_handler=lambda errors: True)
    assert left.peer_verified_chain() == []
    assert Engine(trusting(version, ROOT)).peer_verified_chain() == []
    left, right = resumed_engines(version)
    assert left.peer_verified_chain() == right.peer_verified_chain() == []


# Sockets


def test_sockets_give_what_their_engines_do(host, certificates, version):
    configuration = certificates.client()
    configuration.minimum_protocol = configuration.maximum_protocol = version
    pair = make_ssl_pair(host, configuration, certificates.server())
    for kind in KINDS:
        assert pair.client.channel_binding(kind) == pair.server.channel_binding(kind)
    assert pair.client.channel_binding("tls-exporter") is not None
    assert pair.client.export_keying_material("EXPERIMENTAL-a", 32, b"x") == pair.server.export_keying_material(
        "EXPERIMENTAL-a", 32, b"x"
    )
    assert pair.client.peer_verified_chain == [pair.client.peer_certificate, certificates.ca_certificate]
    assert pair.server.peer_verified_chain == SslSocket().peer_verified_chain == []
    bound = pair.client.channel_binding("tls-exporter")
    pair.client.abort()
    assert pair.client.channel_binding("tls-exporter") == bound  # what was agreed on can be asked for after the end
    pair.server.abort()
    assert SslSocket().channel_binding("tls-exporter") is None


def test_in_the_handlers_of_a_connection(host, certificates):
    found = []
    pair = make_ssl_pair(host, certificates.client(), certificates.server())
    pair.server.ready_read_handler = lambda sock: (sock.read_all(), found.append(sock.channel_binding("tls-exporter")))
    pair.client.write(b"x")
    host.wait_for(lambda: found)
    assert found == [pair.client.channel_binding("tls-exporter")]
    silence(pair)
    pair.client.abort()
    pair.server.abort()


def test_inside_the_handshake_it_is_refused():
    said = []

    def ask(errors):
        for call in (lambda: left.channel_binding("tls-exporter"), lambda: left.export_keying_material("a", 32)):
            with pytest.raises(RuntimeError):
                call()
        said.append(left.peer_verified_chain())
        return True

    left = Engine(client_context(by="second"), verify_handler=ask)
    shake(left, Engine(server_context()))
    assert said == [[]]


def test_in_a_relay_a_connection_is_not_asked(host, certificates):
    first = make_ssl_pair(host, certificates.client(), certificates.server())
    second = make_ssl_pair(host, certificates.client(), certificates.server())
    relay = Relay(first.server, second.client)
    host.wait_for(lambda: relay.joined)
    with pytest.raises(RuntimeError, match="relay"):
        first.server.channel_binding("tls-exporter")
    assert second.client.peer_verified_chain[-1] == certificates.ca_certificate
    relay.close()
    for pair in (first, second):
        silence(pair)
        pair.client.abort()
        pair.server.abort()
