"""Certificates that the proxy obtains by itself, from pebble."""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import pwd
import signal
import ssl
import stat
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Optional

import pytest
import trustme

from command_helpers import one_line, run
from sslsock.proxy.acme.challenges import Challenges
from sslsock.proxy.acme.failure import AcmeFailure
from sslsock.proxy.acme.http import ChallengeServer
from sslsock.proxy.acme.manager import AcmeManager, pair_of
from sslsock.proxy.acme.storage import FileStorage
from sslsock.proxy.settings.model import AcmeSettings

from .authority import EAB_KEY, EAB_KID, TIMEOUT, Authority, Front, authority
from .operations import Origin, Site, wait_until
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
    arguments = ["--listen", "tls://127.0.0.1:0", "--to", to, *merged(pebble.options(storage, *names), options)]
    pebble.tls.target = None if found else 0
    with running(*arguments, threads=threads) as proxy:
        if found:
            pebble.tls.target = proxy.port
        yield proxy


def merged(first: list[object], then: tuple[object, ...]) -> list[object]:
    """Options with a value, of which the second counts."""
    if "--acme-directory" in then:
        place = first.index("--acme-directory")
        first = first[:place] + first[place + 2 :]
    return [*first, *then]


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
    what is kept is its owner's alone. The next start takes it, and asks nobody."""
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
    asked = pebble.count("/order-plz"), pebble.tls.taken
    assert asked[0]
    with obtaining(pebble, storage, back, NAME, OTHER) as proxy:
        assert {name: serves(proxy, pebble, name) for name in (NAME, OTHER)} == certificates
        assert not proxy.messages, proxy.messages
    assert (pebble.count("/order-plz"), pebble.tls.taken) == asked


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
        pebble.http.target = port = int(proxy.announced("http-01 is answered at http://127.0.0.1:"))
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
    """An authority that wants an account of its own bound."""
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


# Renewal


@pytest.fixture
def front(pebble: Authority) -> Iterator[Front]:
    made = Front(pebble)
    yield made
    made.close()


def window(start: float, end: float) -> dict[str, object]:
    """As an authority tells it, days from now."""
    now = datetime.now(timezone.utc)
    times = [(now + timedelta(days=days)).isoformat().replace("+00:00", "Z") for days in (start, end)]
    return {"suggestedWindow": {"start": times[0], "end": times[1]}}


def value_of(proxy: Proxy, metric: str, name: str) -> float:
    return float(next(line for line in proxy.metrics() if line.startswith(f'{metric}{{name="{name}"')).rpartition(" ")[2])


def test_renewed_when_the_authority_says(pebble: Authority, front: Front, storage: Path, back: Origin) -> None:
    """ARI: at a moment in the window, by the name of RFC 9773, 4.1."""
    front.set["renewalInfo"] = 200, {"Retry-After": 21600}, window(10, 12)
    options = ("--acme-directory", front.url + "/dir", "--metrics", "127.0.0.1:0")
    with obtaining(pebble, storage, back, NAME, options=options) as proxy:
        proxy.wait_for_message("suggests to renew it")
        moment = value_of(proxy, "sslsock_proxy_acme_renewal_timestamp_seconds", NAME)
        assert 9.9 < (moment - time.time()) / 86400 < 12
        wait_until(lambda: can_be_reached(proxy, pebble, NAME), "that it is in force")
        first = serves(proxy, pebble, NAME)
    asked = next(path for path in front.asked if path.startswith("/renewalInfo/"))
    authority, serial = (base64.urlsafe_b64decode(part + "==") for part in asked.rpartition("/")[2].split("."))
    assert authority in first and b"\x02" + bytes([len(serial)]) + serial in first  # INTEGER, as it stands in the certificate


def test_renewed_at_once(pebble: Authority, front: Front, storage: Path, back: Origin) -> None:
    """A window that is over, as when certificates have to be revoked. What is in force stays so until the new one is there; and
    that is not renewed again, though the authority says so of it too."""
    first = store_certificate(storage, front, NAME, datetime.now(timezone.utc) - timedelta(days=30))
    front.set["renewalInfo"] = 200, {}, window(-2, -1)
    options = ("--acme-directory", front.url + "/dir", "--metrics", "127.0.0.1:0")
    with obtaining(pebble, storage, back, NAME, options=options, found=False) as proxy:
        proxy.wait_for_message("suggests to renew it")
        told = proxy.wait_for_message("(validation)")
        assert "the one in force stays" in told and '"warning"' in told
        assert shown(proxy, NAME) == first
        pebble.tls.target = proxy.port
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message(f"{NAME}: {NEW}")
        wait_until(lambda: shown(proxy, NAME) != first, "the new certificate")
        wait_until(lambda: sum("suggests to renew" in line for line in proxy.messages) == 2, "its window")
        wait = value_of(proxy, "sslsock_proxy_acme_renewal_timestamp_seconds", NAME) - time.time()
        assert 5 * 3600 < wait <= 6 * 3600
        serves(proxy, pebble, NAME)


def store_certificate(storage: Path, front: Front, name: str, begin: datetime) -> bytes:
    """In a new storage, one that somebody else has issued."""
    issued = trustme.CA().issue_cert(name, not_before=begin, not_after=begin + timedelta(days=90))
    part = storage / front.url.partition("://")[2].replace(":", "-")
    place = Path(f"{part}-dir") / "certificates" / f"{name}.pem"
    storage.mkdir(0o700)
    place.parent.mkdir(0o700, parents=True)
    place.write_bytes(issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes())
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def shown(proxy: Proxy, name: str) -> bytes:
    """The certificate that a client sees, whoever has issued it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(proxy.port, context, name) as client:
        certificate: bytes = client.getpeercert(binary_form=True)
    return certificate


def test_an_authority_that_asks_to_wait_is_left_alone(
    pebble: Authority, front: Front, storage: Path, back: Origin
) -> None:
    """A rate limit with its Retry-After goes before the back-off, and before SIGHUP."""
    problem = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates"}
    front.set["newOrder"] = 429, {"Retry-After": 7200}, problem
    options = ("--acme-directory", front.url + "/dir", "--metrics", "127.0.0.1:0")
    with obtaining(pebble, storage, back, NAME, options=options) as proxy:
        assert "too many certificates" in proxy.wait_for_message("(rate_limited)")
        assert value_of(proxy, "sslsock_proxy_acme_renewal_timestamp_seconds", NAME) > time.time() + 7000
        orders = front.asked.count("/newOrder")
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message("SIGHUP: read again")
        assert value_of(proxy, "sslsock_proxy_acme_failures_total", NAME) == 1
        assert front.asked.count("/newOrder") == orders


def test_answers_without_sense(pebble: Authority, front: Front, storage: Path, back: Origin) -> None:
    """Whatever comes, it is a failure with a reason, and the proxy runs on."""
    nonce = {"Replay-Nonce": "b25jZQ"}
    place = {**nonce, "Location": "https://localhost:1/"}
    answers: list[tuple[int, dict[str, object], object, str]] = [
        (500, {}, {"type": "urn:ietf:params:acme:error:serverInternal", "detail": "oops"}, "(server): serverInternal: oops"),
        (403, {}, {"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "no"}, "(rejected): rejectedIdentifier"),
        (403, {}, {"type": 7, "detail": {}, "subproblems": [7]}, "(server): "),
        (403, {}, {"type": "urn:ietf:params:acme:error:dns", "detail": "no", "subproblems": 7}, "(server): "),
        (200, {}, {}, "(server): the authority's answer makes no sense"),
        (200, place, "x" * (1 << 20), "(network): "),
        (200, place, ["no", "order"], "(server): the authority's answer is no JSON object"),
        (200, nonce, {"status": "pending"}, "(server): the authority's answer has '' where"),
        (200, place, {"status": "pending", "authorizations": 7}, "(server): the authority's order has no authorizations"),
        (200, place, {"status": "pending", "authorizations": [7]}, "(server): the authority's answer has 7 where"),
        (200, place, {"status": "pending", "authorizations": ["https://localhost:1/"]}, "(network)"),
    ]
    front.set["newOrder"] = answers[0][:3]
    with obtaining(pebble, storage, back, NAME, options=("--acme-directory", front.url + "/dir")) as proxy:
        for number, (status, headers, body, expected) in enumerate(answers):
            said = len(proxy.messages) if number else 0
            if number:
                front.set["newOrder"] = status, headers, body
                proxy.process.send_signal(signal.SIGHUP)
            assert expected in proxy.wait_for_message("no certificate (", said)


@pytest.mark.parametrize(
    "told",
    [
        {"suggestedWindow": {"start": 5, "end": 6}},
        {"suggestedWindow": {"start": "2500-01-01T00:00:00Z", "end": "9999-12-31T23:59:59-23:00"}},
        {"suggestedWindow": [7]},
        [7],
    ],
    ids=["numbers", "ends of time", "a list", "no object"],
)
def test_a_window_without_sense(pebble: Authority, front: Front, storage: Path, told: object) -> None:
    """The certificate has its time all the same, and other names have theirs."""
    store_certificate(storage, front, NAME, datetime.now(timezone.utc))
    front.set["renewalInfo"] = 200, {}, told
    front.set["newOrder"] = 500, {}, {"type": "urn:ietf:params:acme:error:serverInternal", "detail": "oops"}
    said: list[str] = []
    client = importlib.import_module("sslsock.proxy.acme.client")
    settings = AcmeSettings(str(storage), front.url + "/dir")
    tried = threading.Event()

    def say(text: str, level: str) -> None:
        said.append(text)
        if text.startswith("other.example: no certificate"):
            tried.set()

    def make_client(part: Any, stopping: threading.Event) -> Any:
        return client.Client(settings, part, None, str(pebble.ca), stopping)

    manager = AcmeManager(settings, [NAME, "other.example"], FileStorage(str(storage)), say, lambda: None, make_client)
    manager.load()
    manager.start()
    assert tried.wait(TIMEOUT), said
    manager.close()
    renewal = manager.states()[0].renewal
    assert 59 < (renewal - time.time()) / 86400 < 65
    assert not any(line.startswith(NAME) for line in said), said


def test_a_certificate_that_ends_soon_is_not_ordered_without_end(tmp_path: Path, storage: Path, back: Origin) -> None:
    with authority(tmp_path / "pebble", certificateValidityPeriod=30) as brief:
        options = ("--metrics", "127.0.0.1:0")
        with obtaining(brief, storage, back, NAME, options=options) as proxy:
            proxy.wait_for_message(f"{NAME}: {NEW}")
            assert value_of(proxy, "sslsock_proxy_acme_renewal_timestamp_seconds", NAME) > time.time() + 30


def test_certificates_that_are_no_use() -> None:
    """They do not take the place of one that is good."""
    order = importlib.import_module("sslsock.proxy.acme.order")
    now, day = datetime.now(timezone.utc), timedelta(days=1)

    def check(issued: Any, name: str, key: Optional[bytes] = None) -> None:
        chain = b"".join(one.bytes() for one in issued.cert_chain_pems)
        order.check(chain, (key or issued.private_key_pem.bytes()).decode(), name)

    issuer = trustme.CA()
    good = issuer.issue_cert(NAME, "other.example", not_before=now - day, not_after=now + day)
    check(good, NAME)
    for issued, name, reason in (
        (good, "another.example", f"is for {NAME}, other.example"),
        (issuer.issue_cert(common_name=NAME), NAME, "is for nobody"),
        (issuer.issue_cert(NAME, not_before=now - 2 * day, not_after=now - day), NAME, "ended at "),
    ):
        with pytest.raises(AcmeFailure, match=reason):
            check(issued, name)
    with pytest.raises(AcmeFailure, match="for another key"):
        check(good, NAME, issuer.issue_cert(NAME).private_key_pem.bytes())


def test_a_stored_certificate_of_another_name_is_not_used(storage: Path, front: Front) -> None:
    store_certificate(storage, front, NAME, datetime.now(timezone.utc))
    place = next(storage.rglob(f"{NAME}.pem"))
    place.rename(place.with_name("other.example.pem"))
    said: list[str] = []
    settings = AcmeSettings(str(storage), front.url + "/dir")
    storing = FileStorage(str(storage))

    def make_client(part: Any, stopping: threading.Event) -> Any:
        raise AssertionError("nobody orders here")

    manager = AcmeManager(
        settings, ["other.example"], storing, lambda text, level: said.append(text), lambda: None, make_client
    )
    manager.load()
    assert manager.missing() == ("other.example",)
    assert said == ["other.example: what the storage holds cannot be used: it is for another name"]


def test_what_an_authority_says_of_time_is_bounded() -> None:
    client, order = (importlib.import_module(f"sslsock.proxy.acme.{name}") for name in ("client", "order"))
    assert client.seconds_of("9" * 400) == client.seconds_of("Fri, 31 Dec 9999 23:59:59 GMT") == 14 * 86400
    assert client.seconds_of("-5") is None and client.seconds_of("0") == 0 and client.seconds_of("120") == 120
    waits: list[float] = []

    class Waiting:
        wait = staticmethod(waits.append)

    for told in (0.0, None, 20.0):
        order.pause(Waiting, client.Answer(b"", "", told), 1.0, time.monotonic() + 100)
    assert waits == [order.FIRST_LOOK, 1.0, 20.0]
    with pytest.raises(AcmeFailure, match="no JSON object"):
        assert client.Answer(b"[" * 100_000, "", None).table


def test_an_address_that_is_no_directory_is_told_with_what_it_answers(pebble: Authority, storage: Path, back: Origin) -> None:
    url = pebble.directory + "ectory"
    with obtaining(pebble, storage, back, NAME, options=("--acme-directory", url)) as proxy:
        assert f"makes no sense: status 404 of {url}" in proxy.wait_for_message("no certificate (")


def test_a_crash_costs_no_second_order(pebble: Authority, storage: Path) -> None:
    """It ends between the request to issue and the download, the worst moment: the next one fetches the certificate."""
    storage.mkdir(0o700)
    settings = AcmeSettings(str(storage), pebble.directory)
    kept = FileStorage(str(storage))
    challenges = Challenges(kept)
    server = ChallengeServer("127.0.0.1", 0)
    server.start(challenges)
    pebble.http.target = server.port
    try:
        order = importlib.import_module("sslsock.proxy.acme.order")
        client = importlib.import_module("sslsock.proxy.acme.client")
        orders: list[str] = []

        class Crash(BaseException):
            """As if the process was killed."""

        class Client(client.Client):  # type: ignore[misc,name-defined]
            crash = True

            def post(self, url: str, table: Any = None) -> Any:
                if "order-plz" in url:
                    orders.append(url)
                if "certZ" in url and self.crash:
                    raise Crash
                return super().post(url, table)

        def obtain(crash: bool) -> bytes:
            made = Client(settings, kept, None, str(pebble.ca), threading.Event())
            made.crash = crash
            with kept.lock() as ours:
                assert ours
                found: bytes = order.obtain(made, kept, challenges, NAME, "ecdsa", "http-01", None)
            return found

        with pytest.raises(Crash):
            obtain(crash=True)
        (storage / "orders" / ".new-torn").write_bytes(b"half")
        pem = obtain(crash=False)
    finally:
        server.close()
    assert len(orders) == 1
    certificate, _, _ = pair_of(pem)
    assert certificate.subject_alternative_names == (("DNS", NAME),) or NAME in str(certificate.subject_alternative_names)
    assert not list(storage.rglob(".new-*"))


def test_an_account_that_was_forgotten(pebble: Authority, storage: Path) -> None:
    """It is made again, with the same key, where the authority does not know it; and not where its file is damaged."""
    storage.mkdir(0o700)
    client = importlib.import_module("sslsock.proxy.acme.client")
    order = {"identifiers": [{"type": "dns", "value": NAME}]}

    def make() -> Any:
        settings = AcmeSettings("", pebble.directory)
        return client.Client(settings, FileStorage(str(storage)), None, str(pebble.ca), threading.Event())

    first = make()
    first.connect()
    file = storage / "account.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "uri": f"{told['uri']}0"}))
    second = make()
    assert second.post(second.place("newOrder"), order).table["status"] == "pending"
    assert json.loads(file.read_text()) == told
    file.write_text(json.dumps({**told, "key": "no key"}))
    with pytest.raises(AcmeFailure, match=r"^account\.json in the storage is damaged .*: restore or remove it$"):
        make().connect()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_another_user(pebble: Authority, back: Origin) -> None:
    """The folder that is made becomes that user's, who writes there; the authority's root need not be readable for him."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        storage = Path(folder) / "acme"
        with obtaining(pebble, storage, back, NAME, options=("--user", "nobody")) as proxy:
            proxy.wait_for_message(f"{NAME}: {NEW}")
        assert {path.stat().st_uid for path in [storage, *storage.rglob("*")]} == {pwd.getpwnam("nobody").pw_uid}
        os.chown(storage, 0, 0)
        arguments = ["--listen", "tls://127.0.0.1:0", "--to", "tcp://a:1", *pebble.options(storage, NAME), "--user", "nobody"]
        done = run("proxy", *arguments)
        assert done.returncode == 2
        assert one_line(done).endswith(f"--acme-storage: {storage}: user 'nobody' could not write there: chown it to that user")


def test_names_of_a_file(pebble: Authority, storage: Path, back: Origin, site: Site, tmp_path: Path) -> None:
    """Two listeners. The authority asks at the first, whose certificates are files, for the names of the second; SIGHUP adds
    one. A name that has none yet is not shown another one's."""
    pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    own = site.issue()
    file = tmp_path / "proxy.toml"

    def write(*names: str) -> None:
        file.write_text(
            f"[acme]\nterms-agreed = true\nstorage = '{storage}'\ndirectory = '{pebble.directory}'\n"
            f"directory-ca = '{pebble.ca}'\n"
            f"[[listener]]\nlisten = 'tls://127.0.0.1:0'\ncert = '{own}'\nto = '{back.url}'\n"
            f"[[listener]]\nlisten = 'tls://localhost:0'\nacme = {json.dumps(names)}\nto = '{back.url}'\n"
        )

    write(NAME)
    pebble.tls.target = None
    with running("--config", file, listeners=2) as proxy:
        pebble.tls.target = proxy.ports[0]
        proxy.wait_for_message(f"{NAME}: {NEW}")
        wait_until(lambda: fate(proxy.ports[1], pebble, NAME) == "served", "that it is in force")
        pebble.tls.target = 0
        write(NAME, OTHER)
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message(f"{OTHER}: no certificate (validation)")
        assert fate(proxy.ports[1], pebble, NAME) == "served"
        assert fate(proxy.ports[1], pebble, OTHER) == "TLSV1_ALERT_INTERNAL_ERROR"
        pebble.tls.target = proxy.ports[0]
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message(f"{OTHER}: {NEW}")
        wait_until(lambda: fate(proxy.ports[1], pebble, OTHER) == "served", "that it is in force")


def fate(port: int, pebble: Authority, name: str) -> str:
    try:
        with connect(port, pebble.client_context(), name) as client:
            client.sendall(b"hello\n")
            assert receive_exactly(client, 6) == b"hello\n"
    except ssl.SSLError as exc:
        return exc.reason or ""
    return "served"
