"""Where trusted certificates are looked for: simulated trees of the distributions, and OpenSSL's variables."""

import os
import shutil
import subprocess
import sys

import pytest

from command_helpers import Identity
from sslsock.core import build
from sslsock.core.context import Context
from sslsock.core.engine import Engine, TlsError
from sslsock.core.system_store import system_stamp
from sslsock.core.trust_store import bundle_to_add, is_hashed

from .pairs import identity, server_context, shake

FILE, FOLDER = "/etc/ssl/cert.pem", "/etc/ssl/certs"

# What a distribution has, and the file that has to be added for it.
TREES = {
    "Debian, Ubuntu": (["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/3513523f.0"], None),
    "Debian's bundle alone": (["/etc/ssl/certs/ca-certificates.crt"], "/etc/ssl/certs/ca-certificates.crt"),
    "Alpine": (["/etc/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"], None),
    "Fedora 42, Red Hat 9": (
        ["/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/certs/README"],
        "/etc/pki/tls/certs/ca-bundle.crt",
    ),
    "Fedora 43": (["/etc/ssl/certs/3513523f.0", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"], None),
    "Red Hat 10": (["/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"], "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    "SUSE": (["/etc/ssl/ca-bundle.pem", "/etc/ssl/certs/3513523f.0"], None),
    "nothing": ([], None),
}


@pytest.fixture
def no_choice(monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


def plant(root, names):
    for name in names:
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return str(root)


@pytest.mark.parametrize("name", TREES)
def test_each_distribution_has_one_place(name, tmp_path, no_choice):
    files, wanted = TREES[name]
    root = plant(tmp_path, files)
    assert bundle_to_add(FILE, FOLDER, root) == (wanted and root + wanted)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_who_sets_a_variable_has_chosen(variable, tmp_path, no_choice, monkeypatch):
    root = plant(tmp_path, TREES["Fedora 42, Red Hat 9"][0])
    monkeypatch.setenv(variable, "/nonexistent")
    assert bundle_to_add(FILE, FOLDER, root) is None
    monkeypatch.setenv(variable, "")  # OpenSSL takes an empty one for none
    assert bundle_to_add(FILE, FOLDER, root) is not None


@pytest.mark.parametrize(
    ("names", "hashed"),
    [(["3513523f.0"], True), (["README", "0a1b2c3d.12"], True), (["ca.pem"], False), (["3513523F.0", "3513523f.r0"], False)],
)
def test_a_hashed_folder_is_known_by_its_names(names, hashed, tmp_path):
    plant(tmp_path, names)
    assert is_hashed(str(tmp_path)) == hashed


def test_a_folder_that_is_not_there_is_not_hashed(tmp_path):
    assert not is_hashed(str(tmp_path / "missing"))
    assert not is_hashed(str(plant(tmp_path, ["file"])) + "/file")


# One handshake in memory, with the system's store as the only trust.
HANDSHAKE = """
import sys, sslsock
chain = sslsock.SslCertificate.from_path("cert.pem")
server = sslsock.Engine(sslsock.Context(
    server_side=True, certificate=chain[0], private_key=sslsock.SslKey(open("key.pem", "rb").read(), algorithm=None),
    verify_mode=0))
client = sslsock.Engine(sslsock.Context(server_side=False), server_name="localhost", verify_name="localhost")
server.decrypt(client.start())
try:
    client.decrypt(server.take())
    print(client.handshake_done)
except sslsock.TlsError as exc:
    print(exc)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Identity(tmp_path_factory.mktemp("trust")).ca.parent


def handshake(folder, **environment):
    base = {name: value for name, value in os.environ.items() if name not in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", HANDSHAKE], cwd=folder, env={**base, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_a_word_the_authority_is_unknown(folder):
    assert "verify failed" in handshake(folder)


def test_ssl_cert_file_names_the_trusted(folder):
    assert handshake(folder, SSL_CERT_FILE=str(folder / "ca.pem")) == "True"


def test_ssl_cert_dir_names_the_trusted(folder, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program to make the hash")
    command = ["openssl", "x509", "-noout", "-hash", "-in", str(folder / "ca.pem")]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(folder / "ca.pem", tmp_path / f"{name}.0")
    assert handshake(folder, SSL_CERT_DIR=str(tmp_path)) == "True"


def test_the_package_knows_openssls_own_places():
    assert build.default_certificate_file.endswith("cert.pem")
    assert build.default_certificate_folder.endswith("certs")


# What is read once for all contexts


class System:
    """A system's authorities, in a file that SSL_CERT_FILE names or in a folder that SSL_CERT_DIR names."""

    def __init__(self, monkeypatch, folder):
        self.monkeypatch, self.path = monkeypatch, folder / "authorities"
        self.path.mkdir()
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "none"))
        monkeypatch.setenv("SSL_CERT_DIR", str(folder / "none"))

    def in_file(self, *authorities):
        path = self.path / "ca.pem"
        path.write_bytes(b"".join(authority.to_pem() for authority in authorities))
        self.monkeypatch.setenv("SSL_CERT_FILE", str(path))

    def in_folder(self, *authorities):
        for number, authority in enumerate(authorities):
            path = self.path / f"{number}.pem"
            path.write_bytes(authority.to_pem())
            made = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", str(path)], capture_output=True, check=True)
            path.rename(self.path / f"{made.stdout.decode().strip()}.0")
        self.monkeypatch.setenv("SSL_CERT_DIR", str(self.path))


@pytest.fixture
def system(monkeypatch, tmp_path):
    return System(monkeypatch, tmp_path)


def trusts(by, **settings):
    """Whether a client that also trusts the system takes the certificate of the authority `by`."""
    client = Engine(Context(server_side=False, **settings), verify_name="localhost")
    server = Engine(server_context(by=by))
    try:
        shake(client, server)
    except TlsError as exc:
        assert "certificate" in str(exc)
        return False
    return True


FIRST, SECOND = (identity(by=name).authority for name in ("first", "second"))


@pytest.mark.parametrize("place", ["in_file", "in_folder"])
def test_what_one_context_trusts_besides_no_other_trusts(system, place):
    getattr(system, place)(FIRST)
    assert [trusts("first"), trusts("second")] == [True, False]
    assert [trusts(by, ca_certificates=[SECOND]) for by in ("first", "second")] == [True, True]
    assert [trusts("first"), trusts("second")] == [True, False]
    assert not trusts("first", ca_certificates=[SECOND], use_system_ca=False)
    assert not trusts("first", use_system_ca=False)


@pytest.mark.parametrize("place", ["in_file", "in_folder"])
def test_a_change_of_the_systems_authorities_is_seen(system, place):
    put = getattr(system, place)
    put(FIRST)
    before = system_stamp()
    assert system_stamp() == before
    assert [trusts("first"), trusts("second")] == [True, False]
    put(FIRST, SECOND)
    assert system_stamp() != before
    assert [trusts("first"), trusts("second")] == [True, True]
    for path in system.path.iterdir():
        path.unlink()
    put(SECOND)
    assert [trusts("first"), trusts("second")] == [False, True]
    assert [trusts(by, ca_certificates=[FIRST]) for by in ("first", "second")] == [True, True]


def test_without_a_system_of_authorities_nobody_is_trusted(system):
    assert not trusts("first")
    assert trusts("first", ca_certificates=[FIRST])


def test_the_same_authority_twice_is_no_error(system):
    system.in_file(FIRST, FIRST)
    assert trusts("first", ca_certificates=[FIRST, FIRST])
