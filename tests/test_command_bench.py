"""`python -m sslsock bench`: that it runs, and what it writes. Figures are nobody's business here."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

import sslsock
from command_helpers import one_line, run
from sslsock.commands.bench import proxies
from sslsock.commands.bench.proxies import lacking

TINY = ("bench", "--quick", "--rounds", "2", "--seconds", "0.005")


def test_the_smallest_run_of_all_peers_and_its_json(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    result = run(*TINY, "--json", path)
    assert result.returncode == 0, result.stderr.decode()
    shown = result.stdout.decode()
    assert sslsock.openssl_version() in shown
    for words in ("Engine over memory (TLSv1.3 TLS_", "writes of 64 B", "writes of 1 MiB", "resumed", "x asyncio"):
        assert words in shown
    assert "All use the cipher suite TLS_AES_256_GCM_SHA384." in shown.splitlines()[-1]
    assert result.stderr.decode() == f"written: {path}\n"

    report = json.loads(path.read_text())
    assert report["schema"] == 1
    assert report["versions"]["sslsock"] == sslsock.__version__
    assert report["versions"]["OpenSSL of sslsock"] == sslsock.openssl_version()
    assert report["machine"]["cores"] >= 1
    assert report["settings"] == {"rounds": 2, "seconds": 0.005, "suite": "TLS_AES_256_GCM_SHA384"}
    rows = report["results"]
    measured = {(row["group"].split()[0], row["measure"], row["peer"]) for row in rows}
    for peer in ("sslsock", "sslsock-ssl", "ssl"):
        for size in ("64 B", "1 KiB", "16 KiB", "1 MiB"):
            assert ("Engine", f"writes of {size}", peer) in measured
        for kind in ("full", "resumed"):
            assert ("Handshakes", kind, peer) in measured
    for peer in ("sslsock", "sslsock-asyncio", "sslsock-aio", "sslsock-ssl-threads", "ssl-threads", "asyncio"):
        for count in ("1 connection", "32 connections"):
            assert ("Echo", count, peer) in measured
        for direction in ("client to server", "server to client"):
            assert ("Bulk", direction, peer) in measured
    for row in rows:
        assert len(row["rates"]) == len(row["cpu"]) == 2
        assert min(row["rates"]) > 0
        assert min(row["rates"]) <= row["median"] <= max(row["rates"])
        assert row["protocol"] == "TLSv1.3"
        assert row["cipher"] == "TLS_AES_256_GCM_SHA384"


@pytest.mark.parametrize("peer", ["sslsock-proxy", "haproxy", "nginx"])
def test_a_proxy(peer: str, tmp_path: Path) -> None:
    if lacking(peer):
        pytest.skip(f"{peer} is not installed")
    path = tmp_path / "bench.json"
    result = run(*TINY, "--peers", peer, "--json", path)
    assert result.returncode == 0, result.stderr.decode()
    report = json.loads(path.read_text())
    assert [row["peer"] for row in report["results"]] == [peer] * 3
    assert {row["cipher"] for row in report["results"]} == {"TLS_AES_256_GCM_SHA384"}
    assert peer == "sslsock-proxy" or report["versions"][peer][0].isdigit(), report["versions"]
    for row in report["results"]:
        assert min(row["cpu"]) > 0, "the processor time is not the proxy's"


@pytest.mark.parametrize(
    ("built", "lacks"),
    [("--with-stream=dynamic", "stream module of nginx"), ("--with-stream", ""), ("", "stream module of nginx")],
)
def test_nginx_counts_only_where_it_can_pass_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str, lacks: str
) -> None:
    nginx = tmp_path / "nginx"
    nginx.write_text(f"#!/bin/sh\necho 'configure arguments: --prefix=/usr {built} --with-http_ssl_module' >&2\n")
    nginx.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(proxies, "STREAM_MODULES", (str(tmp_path / "ngx_stream_module.so"),))
    assert lacking("nginx") == lacks
    (tmp_path / "ngx_stream_module.so").touch()
    assert lacking("nginx") == ""


def test_each_library_with_its_own_cipher_suite(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    result = run(*TINY, "--own-ciphers", "--peers", "sslsock,ssl", "--json", path)
    assert result.returncode == 0, result.stderr.decode()
    rows = json.loads(path.read_text())["results"]
    suites = {(row["peer"], row["cipher"]) for row in rows}
    assert ("sslsock", "TLS_AES_128_GCM_SHA256") in suites
    assert ("ssl", "TLS_AES_256_GCM_SHA384") in suites
    assert "Cipher suites differ (TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384)" in result.stdout.decode().splitlines()[-1]


def test_a_proxy_that_does_not_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "haproxy"
    broken.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    broken.chmod(0o755)
    result = run(*TINY, "--peers", "haproxy", env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert result.returncode == 1
    assert one_line(result) == "sslsock: bench: haproxy does not start: no such thing; leave it out with --peers"


def test_only_the_peers_asked_for() -> None:
    result = run(*TINY, "--peers", "sslsock,ssl")
    assert result.returncode == 0, result.stderr.decode()
    assert "asyncio" not in result.stdout.decode().partition("Engine")[2]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--peers", "gnutls"], 2, "'gnutls' is not one of"),
        (["--rounds", "0"], 2, "not a positive whole number"),
        (["--seconds", "x"], 2, "not a positive number"),
        (["--json", "/nowhere/b.json"], 1, "--json: /nowhere/b.json: No such file"),
    ],
)
def test_wrong_usage_is_told_before_the_measuring(arguments: list[str], status: int, words: str) -> None:
    result = run("bench", *arguments)
    assert (result.returncode, result.stdout) == (status, b"")
    assert words in one_line(result)


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError")  # never run: it must only be looked for
    if importlib.util.find_spec("matplotlib") is not None:
        pytest.skip("matplotlib is installed")
    result = run("bench", "--plot", tmp_path / "x.png")
    assert (result.returncode, result.stdout) == (1, b"")
    assert "pip install 'sslsock[bench]'" in one_line(result)


def test_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "x.png"
    result = run(*TINY, "--peers", "sslsock,ssl,asyncio", "--plot", path, env={"PYTHONWARNINGS": "default"})
    assert result.returncode == 0, result.stderr.decode()
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_optional_modules_are_not_imported_by_the_other_commands() -> None:
    code = "import sys, sslsock.__main__ as m; m.main(['version']); print('asyncio' in sys.modules, 'ssl' in sys.modules)"
    import subprocess

    from command_helpers import ENVIRONMENT

    shown = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True).stdout
    assert shown.splitlines()[-1] == "False False"
