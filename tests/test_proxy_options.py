"""The options of `python -m sslsock proxy`: what settings they make, and what cannot be."""

from __future__ import annotations

import argparse
import itertools
from ipaddress import ip_network

import pytest

from proxy_settings import said
from sslsock.__main__ import make_parser
from sslsock.core.cpu_count import usable_cpus
from sslsock.proxy.settings.builder import ACME, LISTENER, TOP
from sslsock.proxy.settings.model import (
    Address,
    BackTls,
    Balance,
    HealthCheck,
    KeyPair,
    Limits,
    ListenerSettings,
    ProxySettings,
    Route,
    SettingsError,
    TlsPolicy,
)
from sslsock.proxy.settings.options import make_settings
from sslsock.proxy.settings.tls_profiles import profile

TLS = ["--listen", "tls://localhost:8443"]
TCP = ["--listen", "tcp://localhost:8080"]
TO_TLS = ["--to", "tls://a:1"]
TO_TCP = ["--to", "tcp://a:1"]


def settings(*arguments: str) -> ProxySettings:
    return make_settings(make_parser().parse_args(["proxy", *arguments]))


def listener(*arguments: str) -> ListenerSettings:
    (found,) = settings(*arguments).listeners
    return found


def proxy_actions() -> dict[str, argparse.Action]:
    commands = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {a.option_strings[-1]: a for a in commands.choices["proxy"]._actions}


def test_the_least_that_must_be_said_and_the_defaults() -> None:
    assert said(settings(*TLS, *TO_TCP)) == ProxySettings(
        listeners=(ListenerSettings(Address("tls", "localhost", 8443), (Route((Address("tcp", "a", 1),)),)),),
        limits=Limits(0, 10.0, 5.0, 300.0, 30.0),
        threads=usable_cpus(),
    )


def test_every_option_gets_into_the_settings() -> None:
    found = settings(
        *("--listen", "TLS://[::1]:443", "--cert", "c.pem", "--key", "k.pem", "--client-ca", "ca.pem"),
        *("--allow-name", "*.example.com", "--allow-name", "Jo", "--alpn", "h2, http/1.1"),
        *("--to", "tls://a.example.com:1", "--to", "tcp://[fe80::1%lo]:2"),
        *("--to-ca", "bca.pem", "--to-cert", "bc.pem", "--to-key", "bk.pem"),
        *("--to-server-name", "b.example.com", "--to-alpn", "h2", "--to-insecure"),
        *("--proxy-protocol-in", "--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::1"),
        *("--proxy-protocol-out", "v2", "--threads", "3", "--max-connections", "100"),
        *("--handshake-timeout", "1", "--connect-timeout", "2.5", "--idle-timeout", "0", "--drain-timeout", "4"),
        *("--shutdown-delay", "5"),
        *("--ticket-key-file", "t.keys", "--metrics", ":9100", "--log-format", "json", "--user", "nobody"),
    )
    assert said(found) == ProxySettings(
        listeners=(
            ListenerSettings(
                listen=Address("tls", "::1", 443),
                routes=(
                    Route(
                        to=(Address("tls", "a.example.com", 1), Address("tcp", "fe80::1%lo", 2)),
                        back_tls=BackTls("bca.pem", KeyPair("bc.pem", "bk.pem"), "b.example.com", True, ("h2",)),
                    ),
                ),
                key_pairs=(KeyPair("c.pem", "k.pem"),),
                client_ca="ca.pem",
                allow_names=("*.example.com", "Jo"),
                alpn=("h2", "http/1.1"),
                proxy_protocol_in=True,
                trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("::1")),
                proxy_protocol_out="v2",
            ),
        ),
        limits=Limits(100, 1.0, 2.5, 0.0, 4.0, shutdown_delay=5.0),
        threads=3,
        ticket_key_file="t.keys",
        metrics=Address("tcp", "", 9100),
        log_format="json",
        user="nobody",
    )
    assert listener(*TLS, *TO_TCP, "--ca-out", "x/ca.pem").ca_out == "x/ca.pem"


POLICY = {
    "minimum-protocol": ("1.1", {"minimum_protocol": 0x0302}),
    "maximum-protocol": ("TLSv1.3", {"maximum_protocol": 0x0304}),
    "ciphers": ("HIGH:!aNULL", {"ciphers": "HIGH:!aNULL"}),
    "ciphersuites": ("TLS_AES_128_GCM_SHA256", {"ciphersuites": "TLS_AES_128_GCM_SHA256"}),
    "groups": ("X25519", {"groups": "X25519"}),
    "signature-algorithms": ("ECDSA+SHA256", {"signature_algorithms": "ECDSA+SHA256"}),
    "crl": ("a.crl", {"crls": ("a.crl",)}),
    "partial-chain": (None, {"partial_chain": True}),
    "verify-depth": ("0", {"verify_depth": 0}),
}


@pytest.mark.parametrize("name", POLICY)
def test_a_policy_is_of_one_side(name: str) -> None:
    text, wanted = POLICY[name]
    value = [] if text is None else [text]
    front = listener(*TLS, *TO_TLS, "--client-ca", "ca.pem", f"--{name}", *value)
    assert front.policy == TlsPolicy(**wanted) and front.routes[0].back_tls.policy == TlsPolicy()
    back = listener(*TLS, *TO_TLS, f"--to-{name}", *value)
    assert back.policy == TlsPolicy() and back.routes[0].back_tls.policy == TlsPolicy(**wanted)


def test_lists_and_names_of_back_ends_are_repeatable() -> None:
    more = ("--to-crl", "a", "--to-crl", "b", "--to-allow-name", "spiffe://a/*", "--to-allow-name", "x.example")
    back = listener(*TCP, *TO_TLS, *more).routes[0].back_tls
    assert (back.policy.crls, back.allow_names) == (("a", "b"), ("spiffe://a/*", "x.example"))


@pytest.mark.parametrize(
    ("text", "version"),
    [("TLSv1", 0x0301), ("TLSv1.0", 0x0301), ("1.0", 0x0301), ("tls1.1", 0x0302), ("TLS 1.2", 0x0303), ("TLSV1.3", 0x0304)],
)
def test_how_a_protocol_is_written(text: str, version: int) -> None:
    assert listener(*TLS, *TO_TCP, "--minimum-protocol", text).policy.minimum_protocol == version


@pytest.mark.parametrize("name", ["modern", "intermediate", "old"])
def test_options_go_before_a_profile(name: str) -> None:
    plain = listener(*TLS, *TO_TCP, "--tls-profile", name)
    assert (plain.tls_profile, plain.policy) == (name, profile(name).policy)
    other = listener(*TLS, *TO_TCP, "--groups", "P-521", "--minimum-protocol", "1.2", "--tls-profile", name)
    assert other.policy == plain.policy._replace(groups="P-521", minimum_protocol=0x0303)


def test_the_command_line_and_the_file_have_the_same_names() -> None:
    names = {name[2:] for name in proxy_actions()} - {"help", "config", "check"}
    # On the command line everything goes through where nothing speaks TLS: that is tcp:// to tcp://.
    assert names == {*TOP, *LISTENER, *(f"acme-{key}" for key in ACME)} - {"passthrough"}


def test_the_help_tells_the_defaults_that_are_in_force() -> None:
    actions, limits = proxy_actions(), Limits()
    for name in ("handshake", "connect", "idle", "drain"):
        assert f"({getattr(limits, f'{name}_timeout'):g};" in (actions[f"--{name}-timeout"].help or "")
    assert f"({limits.max_connections}:" in (actions["--max-connections"].help or "")


@pytest.mark.parametrize(("front", "back"), list(itertools.product(["tls", "tcp"], repeat=2)))
def test_the_schemes_combine(front: str, back: str) -> None:
    found = listener("--listen", f"{front}://*:0", "--to", f"{back}://192.0.2.1:65535")
    assert found.listen == Address(front, "", 0)
    assert found.terminates == (front == "tls")
    assert str(found.routes[0].to[0]) == f"{back}://192.0.2.1:65535"


CERTS = ["--cert", "a", "--cert", "b"]


@pytest.mark.parametrize(
    ("arguments", "pairs"),
    [
        (["--cert", "a"], [("a", "a")]),
        (["--cert", "a", "--key", "x"], [("a", "x")]),
        (["--key", "x", "--cert", "a"], [("a", "x")]),
        (CERTS, [("a", "a"), ("b", "b")]),
        ([*CERTS, "--key", "x", "--key", "y"], [("a", "x"), ("b", "y")]),
        (["--cert", "a", "--key", "x", "--cert", "b", "--key", "y"], [("a", "x"), ("b", "y")]),
        (["--key", "x", "--cert", "a", "--key", "y", "--cert", "b"], [("a", "x"), ("b", "y")]),
        ([*CERTS, "--key", "y"], [("a", "a"), ("b", "y")]),
        (["--cert", "a", "--key", "x", "--cert", "b"], [("a", "x"), ("b", "b")]),
        (["--cert", "a", "--key", "x", "--cert", "b", "--cert", "c", "--key", "z"], [("a", "x"), ("b", "b"), ("c", "z")]),
    ],
)
def test_the_order_says_which_key_belongs_to_which_certificate(arguments: list[str], pairs: list[tuple[str, str]]) -> None:
    assert listener(*TLS, *TO_TCP, *arguments).key_pairs == tuple(KeyPair(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--key", "x"], "x"),
        (["--key", "x", *CERTS], "x"),
        ([*CERTS, "--cert", "c", "--key", "x", "--key", "y"], "y"),
        (["--cert", "a", "--key", "x", "--key", "y"], "y"),
    ],
)
def test_a_key_without_a_certificate_is_wrong(arguments: list[str], key: str) -> None:
    with pytest.raises(SettingsError, match=f"^--key {key}: there is no --cert before it"):
        settings(*TLS, *TO_TCP, *arguments)


def test_a_missing_to_key_is_in_the_to_cert_file() -> None:
    back = listener(*TCP, *TO_TLS, "--to-cert", "c.pem").routes[0].back_tls
    assert back == BackTls(key_pair=KeyPair("c.pem", "c.pem"))


PROTOCOLS = "TLSv1.0, TLSv1.1, TLSv1.2, TLSv1.3"
NO_RATE = "is no rate: a number, perhaps with /s, /m or /h, and a burst, as in 30/m burst=10"
NETWORK_NEEDED = "; a network is needed, as in 10.0.0.0/8"
TLS_NEEDED = "TLS does not end at a tcp:// listener; --listen tls://… does that"
NO_NAME = "is no host name: it may have letters, digits, hyphens, underscores and dots"
BACK_NEEDED = "it is for back ends that are spoken to with TLS: --to tls://…"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--listen is missing: the address to listen on, as in tls://localhost:8443"),
        (TLS, "--to is missing: where connections go, as in tcp://localhost:8080"),
        (
            ["--listen", "localhost:1", *TO_TCP],
            "--listen: 'localhost:1' has no scheme: tls://HOST:PORT or tcp://HOST:PORT is needed, or unix:PATH",
        ),
        (["--listen", "udp://:1", *TO_TCP], "--listen: 'udp://:1': the scheme is tls or tcp, not 'udp'"),
        (["--listen", "tls://h", *TO_TCP], "--listen: 'h' has no port: HOST:PORT is needed"),
        (["--listen", "tls://:65536", *TO_TCP], "--listen: ':65536': a port is 0 to 65535, not '65536'"),
        (["--listen", "tls://::1:1", *TO_TCP], "--listen: '::1:1': an IPv6 address stands in brackets, as in [::1]:443"),
        (["--listen", "tls://u@h:1", *TO_TCP], "--listen: the host name 'u@h' holds a character that no host name has"),
        (["--listen", "tls://h:1/", *TO_TCP], "--listen: 'h:1/': a port is 0 to 65535, not '1/'"),
        ([*TLS, *TO_TCP, "--to", "https://a:1"], "--to: 'https://a:1': the scheme is tls or tcp, not 'https'"),
        ([*TLS, "--to", "tcp://:1"], "--to: ':1' has no host: HOST:PORT is needed"),
        ([*TLS, "--to", "tcp://a:0"], "--to: 'a:0': a port is 1 to 65535, not '0'"),
        *(
            ([*TLS, "--to", f"tcp://{host}:443"], f"--to: {host!r} {NO_NAME}")
            for host in ("*", "*.example.com", "$name", "a.$name", "%", "a;b", "{sni}", "a?")
        ),
        *(
            (
                [*TLS, "--to", f"tcp://{host}:443"],
                f"--to: {host.strip('[]')} means every address of this machine: it can be listened on, and not connected to",
            )
            for host in ("0.0.0.0", "[::]")
        ),
        *(
            ([*TLS, *TO_TLS, "--to-server-name", name], f"--to-server-name: {name!r} {NO_NAME}")
            for name in ("*.x", "*", "$name")
        ),
        (["--listen", "tls://$name:443", *TO_TCP], f"--listen: '$name' {NO_NAME}"),
        ([*TLS, *TO_TCP, "--metrics", "$name:9100"], f"--metrics: '$name' {NO_NAME}"),
        ([*TLS, "--to", ""], "--to: an empty string is in the list"),
        *(
            ([*TCP, *TO_TCP, f"--{name}", "x"], f"--{name}: {TLS_NEEDED}")
            for name in ("cert", "ca-out", "client-ca", "allow-name", "alpn", "ciphers", "groups", "crl")
        ),
        *(
            ([*TLS, *TO_TCP, f"--{name}", "x"], f"--{name}: {BACK_NEEDED}")
            for name in ("to-ca", "to-cert", "to-key", "to-server-name", "to-alpn", "to-allow-name", "to-ciphers", "to-crl")
        ),
        ([*TLS, *TO_TCP, "--to-insecure"], f"--to-insecure: {BACK_NEEDED}"),
        ([*TLS, *TO_TCP, "--cert", "c", "--ca-out", "x"], "--ca-out: it is for the certificate that is made without --cert"),
        (
            [*TLS, *TO_TCP, "--allow-name", "x"],
            "--allow-name: names are known of client certificates only: it needs --client-ca",
        ),
        (
            [*TLS, *TO_TCP, "--proxy-protocol-in"],
            "--proxy-protocol-in: anybody could claim any address: name who may send the header by "
            "--trusted-proxy NETWORK, as in 10.0.0.0/8",
        ),
        ([*TLS, *TO_TCP, "--trusted-proxy", "::1"], "--trusted-proxy: it needs --proxy-protocol-in"),
        (
            [*TLS, *TO_TCP, "--proxy-protocol-in", "--trusted-proxy", "10.0.0.1/8"],
            "--trusted-proxy: 10.0.0.1/8 has host bits set; a network is needed, as in 10.0.0.0/8",
        ),
        ([*TLS, *TO_TCP, "--proxy-protocol-out", "v3"], "--proxy-protocol-out: 'v3' is neither v1 nor v2"),
        ([*TLS, *TO_TLS, "--to-key", "x"], "--to-key: it needs --to-cert"),
        (
            [*TLS, *TO_TLS, "--to-server-name", "a..b"],
            "--to-server-name: the host name 'a..b' has a part that is empty or longer than 63 characters",
        ),
        ([*TLS, *TO_TLS, "--to-alpn", "h2,,x"], "--to-alpn: '': the name of a protocol is 1 to 255 bytes long"),
        ([*TLS, *TO_TCP, "--alpn", "x" * 256], f"--alpn: '{'x' * 256}': the name of a protocol is 1 to 255 bytes long"),
        ([*TLS, *TO_TCP, "--tls-profile", "new"], "--tls-profile: 'new' is neither modern nor intermediate nor old"),
        *(
            ([*TLS, *TO_TLS, f"--{side}-protocol", text], f"--{side}-protocol: {text!r} is none of {PROTOCOLS}")
            for side, text in itertools.product(("minimum", "to-maximum"), ("1.4", "TLSv2", "ssl3", "1.2.", "TLS", "1.²"))
        ),
        ([*TLS, *TO_TCP, "--maximum-protocol", "1.1"],
         "--maximum-protocol: TLSv1.1 is older than the oldest that is allowed, TLSv1.2; --minimum-protocol sets it"),
        ([*TLS, *TO_TCP, "--tls-profile", "modern", "--maximum-protocol", "1.2"],
         "--maximum-protocol: TLSv1.2 is older than the oldest that is allowed, TLSv1.3; --minimum-protocol sets it"),
        ([*TLS, *TO_TLS, "--to-minimum-protocol", "1.3", "--to-ciphers", "HIGH"],
         "--to-ciphers: it is for TLS 1.2 and older, which are not allowed; for TLS 1.3 there is --to-ciphersuites"),
        ([*TLS, *TO_TCP, "--maximum-protocol", "1.2", "--ciphersuites", "x"],
         "--ciphersuites: it is for TLS 1.3, which is not allowed; for TLS 1.2 there is --ciphers"),
        *(
            ([*TLS, *TO_TCP, *option], f"{option[0]}: it is about the certificates of clients: it needs --client-ca")
            for option in (["--crl", "x"], ["--partial-chain"], ["--verify-depth", "0"])
        ),
        *(
            ([*TLS, *TO_TLS, "--to-insecure", *option], f"{option[0]}: nothing is verified with --to-insecure")
            for option in (["--to-crl", "x"], ["--to-partial-chain"], ["--to-verify-depth", "0"], ["--to-allow-name", "x"])
        ),
        ([*TLS, *TO_TLS, "--to-verify-depth", "101"], "--to-verify-depth: 101 is not between 0 and 100"),
        ([*TLS, *TO_TLS, "--to-allow-name", "10.0.0.300"],
         "--to-allow-name: '10.0.0.300' looks like an address, but '10.0.0.300' does not appear to be an IPv4 or IPv6 network"),
        ([*TLS, *TO_TCP, "--log-format", "xml"], "--log-format: 'xml' is neither text nor json"),
        ([*TLS, *TO_TCP, "--threads", "0"], "--threads: 0 is not between 1 and 1024"),
        ([*TLS, *TO_TCP, "--max-connections", "2147483648"], "--max-connections: 2147483648 is not between 0 and 2147483647"),
        ([*TCP, *TO_TCP, "--connection-rate", "fast"], f"--connection-rate: 'fast' {NO_RATE}"),
        ([*TCP, *TO_TCP, "--connection-rate-per-source", "5/d"], f"--connection-rate-per-source: '5/d' {NO_RATE}"),
        ([*TCP, *TO_TCP, "--connection-rate", "5 burst=0"],
         "--connection-rate: '5 burst=0': the burst is not between 1 and 1000000"),
        ([*TCP, *TO_TCP, "--connection-rate", "0 burst=5"], "--connection-rate: '0 burst=5': 0 is no limit, and has no burst"),
        ([*TCP, *TO_TCP, "--source-ipv4-prefix", "33"], "--source-ipv4-prefix: 33 is not between 1 and 32"),
        ([*TCP, *TO_TCP, "--source-ipv6-prefix", "0"], "--source-ipv6-prefix: 0 is not between 1 and 128"),
        ([*TCP, *TO_TCP, "--source-table-size", "0"], "--source-table-size: 0 is not between 1 and 16777216"),
        ([*TCP, *TO_TCP, "--half-closed-timeout", "nan"],
         "--half-closed-timeout: nan is no time: seconds are needed, 0 for no limit"),
        ([*TCP, *TO_TCP, "--deny-source", "10.0.0.1/8"], f"--deny-source: 10.0.0.1/8 has host bits set{NETWORK_NEEDED}"),
        ([*TCP, *TO_TCP, "--allow-source", "example.com"],
         f"--allow-source: 'example.com' does not appear to be an IPv4 or IPv6 network{NETWORK_NEEDED}"),
        ([*TLS, *TO_TCP, "--idle-timeout", "-1"], "--idle-timeout: -1.0 is no time: seconds are needed, 0 for no limit"),
        ([*TLS, *TO_TCP, "--drain-timeout", "nan"], "--drain-timeout: nan is no time: seconds are needed, 0 for no limit"),
        ([*TLS, *TO_TCP, "--connect-timeout", "inf"], "--connect-timeout: inf is no time: seconds are needed, 0 for no limit"),
        ([*TLS, *TO_TCP, "--metrics", "9100"], "--metrics: '9100' has no port: HOST:PORT is needed"),
        ([*TLS, *TO_TCP, "--metrics", "tcp://:1"], "--metrics: 'tcp://:1': HOST:PORT is needed, without a scheme"),
        ([*TLS, *TO_TCP, "--client-ca", ""], "--client-ca: it is empty"),
        ([*TLS, *TO_TCP, "--user", ""], "--user: it is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_told_with_the_option(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(*arguments)
    error = caught.value
    assert (error.file, error.line, str(error)) == (None, 0, message)


@pytest.mark.parametrize("order", range(6))
def test_a_contradiction_does_not_depend_on_the_order_of_options(order: int) -> None:
    arguments = list(itertools.permutations([TCP, TO_TCP, ["--client-ca", "ca.pem"]]))[order]
    with pytest.raises(SettingsError, match=r"^--client-ca: TLS does not end"):
        settings(*itertools.chain(*arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--listen", "tcp://:1", "--listen", "tcp://:2"],
            "argument --listen: it may be given once only; several listeners are written in a file: --config",
        ),
        (["--client-ca", "a", "--client-ca", "a"], "argument --client-ca: it may be given once only"),
        (["--threads", "1", "--threads", "2"], "argument --threads: it may be given once only"),
        (["--threads", "x"], "argument --threads: 'x' is not a whole number from 0 on"),
        (["--max-connections", "-1"], "argument --max-connections: '-1' is not a whole number from 0 on"),
        (["--idle-timeout", "soon"], "argument --idle-timeout: 'soon' is not a number of seconds"),
        (["--proxy-protocol"], "unrecognized arguments: --proxy-protocol"),
        (["--listem", "x"], "unrecognized arguments: --listem x"),
        (["--to"], "argument --to: expected one argument"),
    ],
)
def test_wrong_usage_ends_with_status_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        settings(*arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(words)


@pytest.mark.parametrize("name", sorted({*LISTENER} - {"passthrough"}))
def test_with_a_file_no_option_of_a_listener_goes(name: str) -> None:
    takes_value = proxy_actions()[f"--{name}"].nargs != 0
    with pytest.raises(SettingsError, match=f"^--{name} is a listener's, and with --config the file describes those$"):
        settings("--config", "/nowhere.toml", f"--{name}", *(["1"] if takes_value else []))


def test_messages_name_an_address_as_it_is_written() -> None:
    assert str(Address("tls", "::1", 1)) == "tls://[::1]:1"
    assert str(Address("tcp", "", 0)) == "tcp://:0"


def test_the_order_of_options_makes_no_difference() -> None:
    assert said(settings(*TLS, *TO_TCP)) == said(settings(*TO_TCP, *TLS, "--idle-timeout", "300"))


# Back ends


def route(*arguments: str) -> Route:
    return listener("--listen", "tls://localhost:8443", *arguments).routes[0]


def test_weights_and_backups_stand_behind_an_address() -> None:
    found = route("--to", "tcp://a:1 weight=3", "--to", "tcp://b:2", "--to", "tcp://c:3 backup weight=256")
    assert found.to == (Address("tcp", "a", 1), Address("tcp", "b", 2), Address("tcp", "c", 3))
    assert found.balance == Balance("round-robin", (3, 1, 256), (False, False, True))
    assert route(*TO_TCP).balance == Balance()


def test_the_method_of_choice() -> None:
    for method in ("round-robin", "least-connections", "hash-source", "hash-sni"):
        assert route(*TO_TCP, "--balance", method).balance.method == method


def test_checks() -> None:
    assert route(*TO_TCP).check is None
    assert route(*TO_TCP, "--to-check", "tcp").check == HealthCheck("tcp")
    pace = ("--to-check-interval", "5", "--to-check-rise", "4", "--to-check-fall", "1")
    assert route(*TO_TCP, "--to-check", "tls", *pace).check == HealthCheck("tls", interval=5, timeout=5, rise=4, fall=1)
    request = ("--to-check-method", "HEAD", "--to-check-path", "/up?x=1", "--to-check-host", "a.example")
    found = route(*TO_TCP, "--to-check", "http", *request, "--to-check-status", "200,301-302", "--to-check-timeout", "1.5")
    status = ((200, 200), (301, 302))
    assert found.check == HealthCheck("http", "HEAD", "/up?x=1", "a.example", status, timeout=1.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "tcp://a:1 weight=0"], "a weight is a whole number from 1 to 256"),
        (["--to", "tcp://a:1 weight=257"], "a weight is a whole number from 1 to 256"),
        (["--to", "tcp://a:1 weight=x"], "a weight is a whole number from 1 to 256"),
        (["--to", "tcp://a:1 spare"], "behind the address stand weight=N or backup, not 'spare'"),
        (["--to", "tcp://a:1 backup"], "one at least has to be none"),
        ([*TO_TCP, "--balance", "random"], "--balance: 'random' is neither"),
        ([*TO_TCP, "--to-check", "icmp"], "--to-check: 'icmp' is neither tcp nor tls nor http"),
        ([*TO_TCP, "--to-check-rise", "3"], "--to-check-rise: it needs --to-check"),
        ([*TO_TCP, "--to-check", "tcp", "--to-check-path", "/"], "--to-check-path: it is for a request of HTTP"),
        ([*TO_TCP, "--to-check", "tcp", "--to-check-interval", "0"], "is too short"),
        ([*TO_TCP, "--to-check", "tcp", "--to-check-fall", "0"], "0 is not between 1 and 100"),
        ([*TO_TCP, "--to-check", "http", "--to-check-method", "POST"], "'POST' is neither GET nor HEAD"),
        ([*TO_TCP, "--to-check", "http", "--to-check-path", "up"], "a path begins with /"),
        ([*TO_TCP, "--to-check", "http", "--to-check-path", "/a b"], "only visible ASCII"),
        ([*TO_TCP, "--to-check", "http", "--to-check-host", "a\r\nX: y"], "only visible ASCII"),
        ([*TO_TCP, "--to-check", "http", "--to-check-status", "2xx"], "'2xx': a status is a number"),
        ([*TO_TCP, "--to-check", "http", "--to-check-status", "300-200"], "'300-200': a status is a number"),
        ([*TO_TCP, "--keepalive", "32768"], "--keepalive: 32768 is not between 0 and 32767"),
    ],
)
def test_what_is_wrong_with_back_ends(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        route(*arguments)
    assert message in str(caught.value)


def test_a_tcp_listener_sees_no_name_to_hash() -> None:
    with pytest.raises(SettingsError, match="--balance: a tcp:// listener does not see"):
        settings(*TCP, *TO_TCP, "--balance", "hash-sni")
