"""The intermediate certificates that are sent with one's own: those that were given, or else those that are trusted."""

import shutil
import subprocess

import pytest
import trustme

from sslsock.core.certificate import SslCertificate
from sslsock.core.context import VERIFY_QUERY, Context
from sslsock.core.key import SslKey

from .pairs import engines, server_context

ROOT = trustme.CA(organization_name="sslsock tests, root authority")
MIDDLE = ROOT.create_child_ca()
ISSUED = MIDDLE.issue_cert("localhost")


def certificate(pem):
    return SslCertificate(pem.bytes())


root, middle, own = certificate(ROOT.cert_pem), certificate(MIDDLE.cert_pem), certificate(ISSUED.cert_chain_pems[0])
SETTINGS = {"certificate": own, "private_key": SslKey(ISSUED.private_key_pem.bytes())}


def anyone():
    """A context for the other side, which takes any certificate."""
    return Context(server_side=False, verify_mode=VERIFY_QUERY, use_system_ca=False)


def sent_by_server(**settings):
    near, _ = engines(client=anyone(), server=server_context(**{**SETTINGS, "verify_mode": VERIFY_QUERY, **settings}))
    return near.peer_certificate_chain()


def sent_by_client(**settings):
    settings = {**SETTINGS, "verify_mode": VERIFY_QUERY, "use_system_ca": False, **settings}
    _, far = engines(client=Context(server_side=False, **settings), server=server_context(verify_mode=VERIFY_QUERY))
    return far.peer_certificate_chain()


@pytest.fixture(params=[sent_by_server, sent_by_client], ids=["server", "client"])
def sent(request):
    return request.param


def test_what_was_given(sent):
    assert sent(certificate_chain=[middle], ca_certificates=[root, middle]) == [own, middle]


def test_what_is_trusted_and_no_root(sent):
    assert sent(ca_certificates=[root, middle]) == [own, middle]


def test_without_the_root(sent):
    assert sent(ca_certificates=[middle]) == [own, middle]


def test_nothing_that_is_trusted(sent):
    assert sent(ca_certificates=[root]) == [own]
    assert sent() == [own]


def test_a_certificate_that_is_its_own_authority(sent):
    alone = trustme.CA()
    key = SslKey(alone.private_key_pem.bytes())
    assert sent(certificate=certificate(alone.cert_pem), private_key=key, ca_certificates=[certificate(alone.cert_pem)]) == [
        certificate(alone.cert_pem)
    ]


def test_each_of_several(sent):
    other = ROOT.issue_cert("localhost", key_type=trustme.KeyType.RSA)
    second = (certificate(other.cert_chain_pems[0]), [], SslKey(other.private_key_pem.bytes()))
    assert sent(certificates=[second], ca_certificates=[root, middle]) == [own, middle]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program to make the hash")
def test_the_systems_folder_is_not_read_in_a_handshake(sent, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    settings = {**SETTINGS, "verify_mode": VERIFY_QUERY, "use_system_ca": True}
    server = server_context(**settings)
    MIDDLE.cert_pem.write_to_path(tmp_path / "middle.pem")
    hashing = ["openssl", "x509", "-noout", "-hash", "-in", str(tmp_path / "middle.pem")]
    name = subprocess.run(hashing, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / f"{name}.0").symlink_to("middle.pem")
    near, _ = engines(client=anyone(), server=server)
    assert near.peer_certificate_chain() == [own]
    assert sent(use_system_ca=True) == [own, middle]
