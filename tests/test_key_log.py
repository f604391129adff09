"""The key log: the secrets that both ends and the standard library tell, SSLKEYLOGFILE, and what goes wrong with it."""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
import subprocess
import sys

import pytest

from core.pairs import client_context, engines, server_context, shake
from peers import Recorder, accept, listening, make_ssl_pair, secure_server, wait_for_end
from sslsock import ConfigurationError, Context, Engine, SocketError, SslConfiguration, SslProtocol, SslServer, SslSocket
from sslsock.sockets import snapshot as module

VERSIONS = [SslProtocol.TLS_1_2, SslProtocol.TLS_1_3]
LABELS = {
    SslProtocol.TLS_1_2: {"CLIENT_RANDOM"},
    SslProtocol.TLS_1_3: {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
    },
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)


@pytest.fixture
def unraisable(monkeypatch):
    """What goes to sys.unraisablehook."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_value))
    return told


def of_secrets(lines):
    """The lines as a set, without those of the standard library that are comments."""
    return {line for line in lines if not line.startswith("#")}


@pytest.mark.parametrize("version", VERSIONS)
def test_both_ends_tell_the_same_secrets(version):
    left, right = [], []
    engines(client=client_context(version, key_log=left.append), server=server_context(version, key_log=right.append))
    assert {line.split()[0] for line in left} == LABELS[version]
    assert sorted(left) == sorted(right)
    assert all(line.isprintable() and len(line.split()) == 3 for line in left)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_standard_library_tells_the_same(version, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.keylog_filename = tmp_path / "theirs"
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = context.wrap_bio(incoming, outgoing)
    ours = Engine(server_context(version, key_log=tmp_path / "ours"))
    while not ours.handshake_done or incoming.pending:
        with contextlib.suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
        ours.decrypt(outgoing.read())
        incoming.write(ours.take())
        if ours.handshake_done:
            theirs.do_handshake()
            break
    said = (tmp_path / "ours").read_text().splitlines()
    assert len(said) == len(LABELS[version])
    assert set(said) == of_secrets((tmp_path / "theirs").read_text().splitlines())


def test_a_file_is_added_to_and_is_its_owners_only(tmp_path):
    path = tmp_path / "keys"
    before = os.umask(0)
    try:
        client = client_context(key_log=path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    engines(client=client)
    first = path.read_text()
    assert first.endswith("\n")
    engines(client=client_context(key_log=str(path)))
    assert path.read_text().startswith(first)
    assert len(path.read_text()) > len(first)


def test_sockets_log_by_their_configuration(host, certificates, tmp_path):
    client, server = certificates.client(), certificates.server()
    client.key_log = tmp_path / "keys"
    lines = []
    server.key_log = lines.append
    pair = make_ssl_pair(host, client, server)
    pair.client.abort()
    pair.server.abort()
    module.recent.clear()  # contexts that live on have their files open
    assert sorted((tmp_path / "keys").read_text().splitlines()) == sorted(lines) != []


def test_it_is_a_part_of_what_contexts_are_shared_by(certificates, tmp_path):
    def context(target):
        configuration = certificates.client()
        configuration.key_log = target
        return configuration.context(False, SslConfiguration.VERIFY_PEER)

    lines = []
    assert context(tmp_path / "a") is context(str(tmp_path / "a"))
    assert context(lines.append) is context(lines.append)
    different = [context(target) for target in (tmp_path / "a", tmp_path / "b", lines.append, None)]
    assert len(set(map(id, different))) == 4


def test_the_path_holds_when_the_program_changes_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration = SslConfiguration()
    configuration.key_log = "keys"
    assert configuration.key_log == str(tmp_path / "keys")
    assert SslConfiguration().key_log is None


@pytest.mark.parametrize("wrong", [b"keys", 3, ["keys"], object()])
def test_what_is_neither_path_nor_callable_is_refused(wrong):
    configuration = SslConfiguration()
    with pytest.raises(TypeError):
        configuration.key_log = wrong
    assert configuration.key_log is None


@pytest.mark.parametrize("wrong", ["", "a\0b"])
def test_what_can_be_no_path_is_refused(wrong):
    with pytest.raises(ValueError, match="key_log"):
        SslConfiguration().key_log = wrong


def test_a_callable_that_cannot_be_compared_is_refused():
    class Log(list):
        __call__ = list.append

    with pytest.raises(TypeError, match="hash"):
        SslConfiguration().key_log = Log()


@pytest.mark.parametrize("path", ["missing/keys", "."])
def test_a_file_that_cannot_be_opened_is_told_with_its_name(host, certificates, tmp_path, path):
    with pytest.raises(ConfigurationError, match="key_log.*" + str(tmp_path)):
        Context(server_side=False, key_log=tmp_path / path)
    configuration = certificates.server()
    configuration.key_log = tmp_path / path
    server = SslServer()
    server.configuration = configuration
    assert not server.listen(0, "127.0.0.1")
    assert "key_log" in server.error_string
    working = secure_server(certificates)
    client = SslSocket()
    client.configuration = certificates.client()
    client.configuration.key_log = tmp_path / path
    left = Recorder(client)
    client.connect_encrypted("localhost", working.port)
    wait_for_end(host, left)
    working.close()
    assert left.of("error") == [SocketError.SSL_INVALID_USERDATA_ERROR]
    assert "key_log" in client.error_string


def test_a_pipe_that_nobody_reads_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="pipe"):
        Context(server_side=False, key_log=tmp_path / "pipe")


def test_a_callable_that_raises_harms_no_handshake(unraisable):
    def raises(line):
        raise KeyError(line)

    engines(client=client_context(key_log=raises))
    assert {type(each) for each in unraisable} == {KeyError}
    assert len(unraisable) == len(LABELS[SslProtocol.TLS_1_3])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_harms_no_handshake(unraisable):
    engines(client=client_context(key_log="/dev/full"))
    assert {(type(each), each.filename) for each in unraisable} == {(OSError, "/dev/full")}


def test_a_callable_cannot_use_the_engine_that_it_is_called_by(unraisable):
    client = server = None
    client = Engine(client_context(key_log=lambda line: client.encrypt(b"x")))
    server = Engine(server_context(key_log=lambda line: server.decrypt(b"x")))
    shake(client, server)
    assert {type(each) for each in unraisable} == {RuntimeError}


@pytest.mark.parametrize("act", ["abort", "disconnect", "close"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_callable_may_end_its_own_socket(host, certificates, version, act):
    server = SslServer()
    server.configuration = certificates.server()
    listening(server)
    client = SslSocket()
    client.configuration = certificates.client()
    client.configuration.minimum_protocol = client.configuration.maximum_protocol = version
    client.configuration.key_log = lambda line: getattr(client, act)()
    left = Recorder(client)
    client.connect_encrypted("localhost", server.port)
    right = accept(host, server)
    server.close()
    wait_for_end(host, left)
    wait_for_end(host, right)
    assert not left.has("encrypted")


# The environment


def test_the_environment_names_the_file_of_new_configurations(monkeypatch, tmp_path):
    before = SslConfiguration()
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    configuration = SslConfiguration()
    assert configuration.key_log == str(tmp_path / "keys")
    assert before.key_log is None
    configuration.key_log = None
    assert configuration == before
    configuration.context(False, SslConfiguration.VERIFY_NONE)
    assert not (tmp_path / "keys").exists()
    monkeypatch.setenv("SSLKEYLOGFILE", "")
    assert SslConfiguration().key_log is None


@pytest.mark.parametrize("name", ["geteuid", "getegid"])
def test_a_process_with_raised_rights_does_not_heed_it(monkeypatch, tmp_path, name):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    other = getattr(os, name)() + 1
    monkeypatch.setattr(os, name, lambda: other)
    assert SslConfiguration().key_log is None


@pytest.mark.parametrize(("option", "heeded"), [("-s", True), ("-E", False), ("-I", False)])
def test_an_interpreter_that_ignores_its_environment_does_not_heed_it(tmp_path, option, heeded):
    paths = [path for path in sys.path if path]
    program = f"import sys; sys.path[:] = {paths!r}; import sslsock; print(sslsock.SslConfiguration().key_log)"
    environment = {**os.environ, "SSLKEYLOGFILE": str(tmp_path / "keys")}
    said = subprocess.run([sys.executable, option, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == (str(tmp_path / "keys") if heeded else "None"), said.stderr


def test_a_context_of_its_own_does_not_heed_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    engines(client=client_context(), server=server_context())
    assert not (tmp_path / "keys").exists()
