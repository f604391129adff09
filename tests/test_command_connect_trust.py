"""`python -m sslsock connect`: revocation lists, chains that end early, sessions from one run to the next."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from command_helpers import Identity, identity, one_line, run, s_server, tls_server
from judged import Issued, issue, revoke

__all__ = ["identity"]

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
OWN = issue("localhost", MIDDLE)
OTHER = issue("localhost", MIDDLE)


def answer(connection: ssl.SSLSocket) -> None:
    connection.recv(100)
    connection.sendall(b"welcome")
    connection.unwrap()


def context_of(folder: Path, own: Issued, *chain: Issued) -> ssl.SSLContext:
    plain = serialization.NoEncryption()
    key = own.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "own.pem").write_bytes(own.pem + b"".join(link.pem for link in chain) + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem")
    return context


@pytest.mark.parametrize("revoked", [True, False])
def test_revocation_lists(tmp_path: Path, revoked: bool) -> None:
    (tmp_path / "root.pem").write_bytes(ROOT.pem)
    (tmp_path / "middle.crl").write_bytes(revoke(MIDDLE, OWN if revoked else OTHER))
    (tmp_path / "root.crl").write_bytes(revoke(ROOT))
    lists = ("--crl", tmp_path / "root.crl", "--crl", tmp_path / "middle.crl")
    with tls_server(None, answer, context=context_of(tmp_path, OWN, MIDDLE)) as port:  # type: ignore[arg-type]
        result = run("connect", f"localhost:{port}", "--ca", tmp_path / "root.pem", *lists, input=b"x")
    if revoked:
        assert result.returncode == 1
        assert b"certificate revoked" in result.stderr
        assert result.stdout == b""
    else:
        assert (result.returncode, result.stdout) == (0, b"welcome"), result.stderr


@pytest.mark.parametrize("content", [None, b"", b"rubbish", ROOT.pem], ids=["missing", "empty", "rubbish", "a certificate"])
def test_a_file_that_holds_no_list_is_wrong_usage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.pem"
    if content is not None:
        path.write_bytes(content)
    result = run("connect", "localhost:1", "--crl", path)
    assert result.returncode == 2
    assert "--crl" in one_line(result)
    assert "list.pem" in one_line(result)


@pytest.mark.parametrize("trusted", [OWN, MIDDLE], ids=["the server's own", "an intermediate authority"])
def test_a_chain_that_ends_early(tmp_path: Path, trusted: Issued) -> None:
    (tmp_path / "ca.pem").write_bytes(trusted.pem)
    for options, status in (((), 1), (("--partial-chain",), 0)):
        with tls_server(None, answer, context=context_of(tmp_path, OWN, MIDDLE)) as port:  # type: ignore[arg-type]
            result = run("connect", f"localhost:{port}", "--ca", tmp_path / "ca.pem", *options, input=b"x")
        assert result.returncode == status, result.stderr


@pytest.mark.parametrize("version", ["1_2", "1_3"])
def test_a_session_is_kept(identity: Identity, tmp_path: Path, version: str) -> None:
    path = tmp_path / "session"
    with s_server(identity, "-www", f"-tls{version}") as port:

        def visit(*options: object) -> str:
            result = run("connect", f"localhost:{port}", "--session-file", path, *options, input=REQUEST)
            assert result.returncode == 0, result.stderr
            return result.stderr.decode()

        trusting = ("--ca", identity.ca)
        assert "Session       new" in visit(*trusting)
        assert path.stat().st_mode & 0o777 == 0o600
        for _ in range(2):
            shown = visit(*trusting)
            assert "Session       resumed" in shown
            assert "Verification  ok, for localhost, when the session began" in shown
            assert "CN=localhost" in shown
        assert "Session       new" in visit(*trusting, "--partial-chain")  # other settings
        path.write_bytes(b"rubbish")
        assert "Session       new" in visit(*trusting)
        assert "Session       resumed" in visit(*trusting)
        path.write_bytes(b"")
        assert "FAILED, ignored" in visit("--insecure")
        assert path.read_bytes() == b""  # what was ignored once is not passed on


def test_a_session_file_that_cannot_be(identity: Identity, tmp_path: Path) -> None:
    result = run("connect", "localhost:1", "--session-file", tmp_path)
    assert result.returncode == 2
    assert "--session-file" in one_line(result)
    with s_server(identity, "-www") as port:
        missing = tmp_path / "no such folder" / "session"
        result = run("connect", f"localhost:{port}", "--ca", identity.ca, "--session-file", missing, input=REQUEST)
    assert result.returncode == 0
    assert b"--session-file" in result.stderr
    assert b"No such file" in result.stderr
