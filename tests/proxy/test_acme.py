"""Certificates that the proxy obtains by itself, from pebble."""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from .authority import EAB_KEY, EAB_KID, TIMEOUT, Authority, authority
from .operations import Origin, wait_until
from .running import Proxy, connect, receive_exactly, running

NAME, OTHER = "www.example.test", "shop.example.test"
NEW = "new connections go by a new certificate"


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """With its faults on: it refuses a third of the nonces, and forgets half of what it has seen of names."""
    faults = {"PEBBLE_WFE_NONCEREJECT": "33", "PEBBLE_AUTHZREUSE": "50"}
    with authority(tmp_path_factory.mktemp("pebble"), faults) as made:
        yield made


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "acme"


@contextlib.contextmanager
def obtaining(
    pebble: Authority, storage: Path, back: Origin, *names: str, options: tuple[object, ...] = (), threads: int = 1,
    found: bool = True,
) -> Iterator[Proxy]:
    """A proxy that the authority finds under each name; or, if not `found`, does not."""
    to = f"tcp://127.0.0.1:{back.port}"
    arguments = ["--listen", "tls://127.0.0.1:0", "--to", to, *pebble.options(storage, *names), *options]
    pebble.tls.target = None if found else 0
    with running(*arguments, threads=threads) as proxy:
        if found:
            pebble.tls.target = proxy.port
        yield proxy


def serves(proxy: Proxy, pebble: Authority, name: str) -> bytes:
    """What a client sees that verifies: the certificate."""
    with connect(proxy.port, pebble.client_context(), name) as client:
        client.sendall(b"hello\n")
        assert receive_exactly(client, 6) == b"hello\n"
        certificate: bytes = client.getpeercert(binary_form=True)
    return certificate


def challenged(port: int, name: str, *protocols: str) -> str:
    """What becomes of a client that asks as an authority does: the protocol that is agreed on, or the alert's number."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    with contextlib.suppress(ssl.SSLError), connect(port, context, name) as client:
        return client.selected_alpn_protocol() or "nothing"
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=name).do_handshake()
    with connect(port) as client:
        client.sendall(hello.read())
        return f"alert {receive_exactly(client, 7)[6]}"


def test_certificates_for_names(pebble: Authority, storage: Path, back: Origin) -> None:
    """From nothing, on two threads, with nonces refused: each name has its certificate, nothing of it reaches a back end, and
    what is kept is its owner's alone."""
    with obtaining(pebble, storage, back, NAME, OTHER, threads=2) as proxy:
        for name in (NAME, OTHER):
            proxy.wait_for_message(f"{name}: {NEW}")
        wait_until(lambda: can_be_reached(proxy, pebble, OTHER), "that the workers have heard of it")
        certificates = {name: serves(proxy, pebble, name) for name in (NAME, OTHER)}
        assert certificates[NAME] != certificates[OTHER]
        seen = [proxy.record()["reason"] for _ in range(pebble.tls.taken)]
        assert "acme_challenge" in seen
    assert not [line for line in proxy.messages if "PRIVATE" in line]
    paths = [storage, *storage.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}
    assert not list(storage.rglob("orders/*.json")) + list(storage.rglob("challenges/*.json")) + list(storage.rglob(".*"))


def can_be_reached(proxy: Proxy, pebble: Authority, name: str) -> bool:
    with contextlib.suppress(ssl.SSLError):
        serves(proxy, pebble, name)
        return True
    return False


def test_before_the_first_certificate(pebble: Authority, storage: Path, back: Origin, tmp_path: Path) -> None:
    """It is up, says so and is not ready; clients get an alert. Nobody is told that a name leads here who has no reason to ask.
    SIGHUP tries at once what has failed."""
    metrics = ("--metrics", "127.0.0.1:0")
    with obtaining(pebble, storage, back, "blocked.example.test", options=metrics, found=False) as proxy:
        told = proxy.wait_for_message("(validation)")
        assert "the next attempt is at" in told and '"error"' in told
        client_context = pebble.client_context()
        with pytest.raises(ssl.SSLError, match=r"(?i)internal.error"):
            connect(proxy.port, client_context, "blocked.example.test")
        assert proxy.record()["reason"] == "no_certificate"
        assert challenged(proxy.port, "blocked.example.test", "acme-tls/1") == "alert 120"
        assert proxy.record()["reason"] == "handshake_failed"
        ready = proxy_url(proxy).replace("/metrics", "/readyz")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(ready, timeout=TIMEOUT)
        assert refused.value.code == 503 and b"no certificate yet" in refused.value.read()
        refused.value.close()
        failures = [line for line in proxy.metrics() if line.startswith("sslsock_proxy_acme_failures_total")]
        assert failures == ['sslsock_proxy_acme_failures_total{name="blocked.example.test",reason="validation"} 1.0']

        pebble.tls.target = proxy.port
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message(f"blocked.example.test: {NEW}")
        wait_until(lambda: can_be_reached(proxy, pebble, "blocked.example.test"), "that it is in force")
        assert urllib.request.urlopen(ready, timeout=TIMEOUT).read() == b"ok\n"
        values = dict(line.rsplit(" ", 1) for line in proxy.metrics() if "acme" in line and not line.startswith("#"))
        assert float(values['sslsock_proxy_acme_success_timestamp_seconds{name="blocked.example.test"}']) > 0
        assert float(values['sslsock_proxy_acme_renewal_timestamp_seconds{name="blocked.example.test"}']) > 0
        expiry = 'sslsock_proxy_certificate_expiry_timestamp_seconds{certificate="acme:blocked.example.test"}'
        assert any(line.startswith(expiry) for line in proxy.metrics())


def proxy_url(proxy: Proxy) -> str:
    proxy.metrics()
    return proxy._metrics_at


def test_only_an_authority_gets_the_answer(pebble: Authority, storage: Path, back: Origin, tmp_path: Path) -> None:
    """While a question is under way, which a file in the storage stands for: who asks by acme-tls/1 alone gets the certificate
    of RFC 8737, and no other client does."""
    with obtaining(pebble, storage, back, NAME) as proxy:
        proxy.wait_for_message(f"{NAME}: {NEW}")
        wait_until(lambda: can_be_reached(proxy, pebble, NAME), "that it is in force")
        part = next(storage.glob("*/certificates")).parent
        (part / "challenges" / f"{NAME}.json").write_text(json.dumps({"type": "tls-alpn-01", "token": "t", "answer": "t.key"}))
        assert challenged(proxy.port, NAME, "acme-tls/1") == "acme-tls/1"
        assert challenged(proxy.port, NAME.upper(), "acme-tls/1") == "acme-tls/1"
        assert challenged(proxy.port, NAME, "acme-tls/1", "http/1.1") == "alert 120"
        assert challenged(proxy.port, NAME, "http/1.1") == "nothing"
        serves(proxy, pebble, NAME)  # verifies: it is no certificate of a question
        served = back.connections
        assert challenged(proxy.port, NAME, "acme-tls/1") == "acme-tls/1"
        while proxy.record()["reason"] != "acme_challenge":
            pass
        assert back.connections == served


def test_certificate_is_kept(pebble: Authority, storage: Path, back: Origin) -> None:
    """The next start takes what is stored, and asks nobody."""
    with obtaining(pebble, storage, back, NAME) as proxy:
        proxy.wait_for_message(f"{NAME}: {NEW}")
    asked = pebble.count("new-order") + pebble.count("newOrder") + pebble.tls.taken
    with obtaining(pebble, storage, back, NAME) as proxy:
        serves(proxy, pebble, NAME)
        assert not proxy.messages, proxy.messages
    assert pebble.count("new-order") + pebble.count("newOrder") + pebble.tls.taken == asked


def test_two_proxies_share_a_folder(pebble: Authority, storage: Path, back: Origin) -> None:
    """One of them orders, and the other takes what it finds; a question may come to either."""
    with obtaining(pebble, storage, back, NAME) as one, obtaining(pebble, storage, back, NAME) as other:
        wait_until(lambda: can_be_reached(one, pebble, NAME) and can_be_reached(other, pebble, NAME), "that both have it")
        assert serves(one, pebble, NAME) == serves(other, pebble, NAME)
        assert sum(NEW in line for line in one.messages + other.messages) == 1


def test_http_01(pebble: Authority, storage: Path, back: Origin) -> None:
    """The same by http-01, with a key of RSA; everybody else is sent to https."""
    options = ("--acme-http", "127.0.0.1:0", "--acme-key-type", "rsa")
    pebble.http.target = None
    with obtaining(pebble, storage, back, NAME, options=options) as proxy:
        assert proxy.process.stdout is not None
        told = proxy.process.stdout.readline().decode()
        assert told.startswith("http-01 is answered at http://127.0.0.1:")
        pebble.http.target = port = int(told.rpartition(":")[2])
        proxy.wait_for_message(f"{NAME}: {NEW}")
        wait_until(lambda: can_be_reached(proxy, pebble, NAME), "that it is in force")
        assert pebble.http.taken
        x509 = pytest.importorskip("cryptography.x509")
        assert x509.load_der_x509_certificate(serves(proxy, pebble, NAME)).public_key().key_size == 2048
        answers = {
            ("GET", "/a?b=c", NAME): (308, f"https://{NAME}/a?b=c"),
            ("POST", "/", f"{NAME}:8080"): (308, f"https://{NAME}/"),
            ("HEAD", "/", "[::1]:80"): (308, "https://[::1]/"),
            ("GET", "/.well-known/acme-challenge/abc", NAME): (404, None),
            ("GET", "/.well-known/acme-challenge/..%2faccount.json", NAME): (404, None),
            ("GET", "/.well-known/acme-challenge/abc", "../account"): (400, None),
            ("GET", "*", NAME): (400, None),
            ("GET", "/", "evil.test/?"): (400, None),
        }
        for (method, path, host), expected in answers.items():
            connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
            connection.request(method, path, headers={"Host": host})
            with connection.getresponse() as answer:
                assert (answer.status, answer.headers["Location"]) == expected, (method, path, host)
                answer.read()
            connection.close()


def test_external_account(tmp_path: Path, storage: Path, back: Origin) -> None:
    """An authority that wants an account of its own bound; and, started anew, one that has forgotten ours."""
    key = tmp_path / "eab.key"
    key.write_text(f"{EAB_KEY}\n")
    binding = {"externalAccountBindingRequired": True, "externalAccountMACKeys": {EAB_KID: EAB_KEY}}
    with authority(tmp_path / "pebble", **binding) as pebble:
        with obtaining(pebble, storage, back, NAME) as proxy:
            assert "externalAccountRequired" in proxy.wait_for_message("(account)")
        eab = ("--acme-eab-kid", EAB_KID, "--acme-eab-key-file", key, "--acme-email", "ops@example.com")
        with obtaining(pebble, storage, back, NAME, options=eab) as proxy:
            proxy.wait_for_message(f"{NAME}: {NEW}")
            assert EAB_KEY not in "".join(proxy.messages)
