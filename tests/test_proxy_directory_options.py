"""Back ends that DNS names (tcp+srv://…), and --resolver."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from sslsock.__main__ import make_parser
from sslsock.proxy.check import check_files
from sslsock.proxy.settings.model import Address, ProxySettings, SettingsError
from sslsock.proxy.settings.options import make_settings

LISTEN = ("--listen", "tcp://127.0.0.1:0")
PLAIN = ("--to", "tcp://app.example.com:80")


def settings(*arguments: str) -> ProxySettings:
    return make_settings(make_parser().parse_args(["proxy", *LISTEN, *arguments]))


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_service_among_back_ends(scheme: str) -> None:
    url = f"{scheme}+srv://_http._tcp.example.com"
    found = settings("--to", f"{url.upper()} weight=2", *PLAIN)
    service = found.listeners[0].routes[0].to[0]
    assert service == Address(scheme, "_HTTP._TCP.EXAMPLE.COM", 0, service=True) and found.asks_dns
    assert str(service).lower() == url and service.place.lower() == "_http._tcp.example.com"
    assert service.name == "EXAMPLE.COM", "what its certificate has to be for"
    assert found.listeners[0].routes[0].balance.weights == (2, 1)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("system", None),
        ("dns", ()),
        ("10.0.0.53", (("10.0.0.53", 53),)),
        ("10.0.0.53:5353, ::1,[::1],[::1]:54", (("10.0.0.53", 5353), ("::1", 53), ("::1", 53), ("::1", 54))),
    ],
)
def test_name_servers(text: str, servers: Any) -> None:
    found = settings(*PLAIN, "--resolver", text)
    assert found.resolver == servers and found.asks_dns == (servers is not None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *((["--to", f"tcp+srv://{name}"], "the name of a service is needed") for name in ("example.com", "_a.b", "_a._b", "")),
        (["--to", "tcp+srv://_a._b.example.com:80"], "no host name|holds a character|is no host name"),
        (["--to", "udp+srv://_a._b.c"], "the scheme is tls or tcp"),
        (["--listen", "tcp+srv://_a._b.c"], "once only|the scheme is"),
        *(
            ([*PLAIN, "--resolver", text], "--resolver: .* addresses of name servers are needed")
            for text in ("dns,10.0.0.1", "ns.example.com", "10.0.0.1:0", "0.0.0.0", "127.1", "[::1", ",")
        ),
    ],
)
def test_what_is_refused(arguments: list[str], message: str) -> None:
    if arguments[0] == "--listen":
        with pytest.raises(SettingsError, match=message):
            make_settings(make_parser().parse_args(["proxy", *arguments, *PLAIN]))
        return
    with pytest.raises(SettingsError, match=message):
        settings(*arguments)


@pytest.mark.parametrize("more", [("--to", "tcp+srv://_a._b.c"), (*PLAIN, "--resolver", "dns")])
def test_without_the_package(monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"^--(to|resolver): it needs the package dnspython: pip install 'sslsock\[dns\]'$"):
        check_files(settings(*more), lambda text: None)
    check_files(settings(*PLAIN), lambda text: None)
