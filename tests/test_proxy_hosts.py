"""What settings may name as a host or a network: one rule, wherever it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

import pytest

from sslsock.__main__ import make_parser
from sslsock.proxy.settings import hosts
from sslsock.proxy.settings.config_file import read_settings
from sslsock.proxy.settings.model import SettingsError
from sslsock.proxy.settings.options import make_settings
from test_command_proxy_check import needs_toml

NUMBER = "no host name ends in a number, and an IPv4 address is four numbers, as in 192.0.2.1"
MULTICAST = "is a multicast address: no connection has such an end"
BROADCAST = "is the broadcast address: no connection has such an end"
ANY = "means every address of this machine"

NUMBERS = [
    *("0", "1", "00", "0x", "0x0", "0X7f000001", "2130706433", "4294967296", "017700000001"),
    *("127.1", "127.0.1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "00.0.0.0", "010.0.0.1", "127.0.0.1.", "0x7f.1", "0.0.0.0x0"),
    *("a.1", "a.0x", "a.0xff", "example.com.80", "a.1.", "\uff11\uff12\uff17.\uff11"),
]
NAMES = ["a", "a1", "1a", "0xg", "a.0xg", "1.a", "web-1", "a-1", "db_1", "3com.com", "a.1b", "example.com.", "x.0x1.y"]
ENDS = ["10.0.0.1", "127.0.0.1", "0.0.0.1", "255.255.255.254", "223.255.255.255", "::1", "fe80::1%lo", "2001:db8::1"]
MANY = {
    **dict.fromkeys(["224.0.0.1", "239.255.255.255", "ff02::1", "ff02::1%lo", "::ffff:224.0.0.1"], MULTICAST),
    **dict.fromkeys(["255.255.255.255", "::ffff:255.255.255.255"], BROADCAST),
}
EVERY = ["0.0.0.0", "::", "0:0:0:0:0:0:0:0", "::0.0.0.0", "::ffff:0.0.0.0", "::ffff:0:0"]


def complaint(*arguments: str) -> Optional[str]:
    """What is said of settings, without the option that comes first; None: they are good."""
    try:
        make_settings(make_parser().parse_args(["proxy", *arguments]))
    except SettingsError as exc:
        option, _, text = str(exc).partition(": ")
        assert option in arguments
        return text
    return None


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


PLACES = {
    "--to": lambda host: complaint("--listen", "tcp://a:1", "--to", f"tcp://{bracketed(host)}:1"),
    "--listen": lambda host: complaint("--to", "tcp://a:1", "--listen", f"tcp://{bracketed(host)}:1"),
    "--metrics": lambda host: complaint("--listen", "tcp://a:1", "--to", "tcp://a:1", "--metrics", f"{bracketed(host)}:1"),
    "--to-server-name": lambda host: complaint("--listen", "tcp://a:1", "--to", "tls://a:1", "--to-server-name", host),
}
CONNECTING = ("--to", "--to-server-name")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("host", NUMBERS)
def test_what_ends_in_a_number_is_no_name(place: str, host: str) -> None:
    said = PLACES[place](host)
    assert said is not None and said.startswith(f"{host!r}: {NUMBER}"), said


@pytest.mark.parametrize(
    ("host", "taken"), [("127.1", "127.0.0.1"), ("0x7f000001", "127.0.0.1"), ("010.0.0.1", "8.0.0.1"), ("256.1.1.1", None)]
)
def test_it_is_told_what_a_short_form_would_be(host: str, taken: Optional[str]) -> None:
    hint = "" if taken is None else f"; some systems take it for {taken}"
    assert PLACES["--to"](host) == f"{host!r}: {NUMBER}{hint}"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("host", [*NAMES, *ENDS])
def test_names_and_addresses_are_taken(place: str, host: str) -> None:
    assert PLACES[place](host) is None


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("host", MANY)
def test_several_hosts_are_no_end_of_a_connection(place: str, host: str) -> None:
    assert PLACES[place](host) == f"{host} {MANY[host]}"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("host", EVERY)
def test_every_address_can_only_be_listened_at(place: str, host: str) -> None:
    said = PLACES[place](host)
    if place in CONNECTING:
        assert said is not None and said.startswith(f"{host} {ANY}")
    elif "ffff" in host:
        assert said == f"{host} is an IPv4 address in the form of IPv6: write 0.0.0.0"
    else:
        assert said is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.0/8", None), ("192.0.2.1", None), ("fd00::/8", None), ("::1", None), ("0.0.0.0/0", None), ("::/0", None),
        ("1.2.3", "a network is needed"), ("127.1", "a network is needed"), ("0x7f000001", "a network is needed"),
        ("10.0.0.1/8", "has host bits set"), ("localhost", "a network is needed"), ("", "a network is needed"),
        ("0.0.0.0", "every address is 0.0.0.0/0"), ("::", "every address is ::/0"),
        ("224.0.0.0/4", MULTICAST), ("ff00::/8", MULTICAST), ("255.255.255.255", BROADCAST),
        ("::ffff:10.0.0.0/104", "write 10.0.0.0/8"), ("::ffff:192.0.2.1", "write 192.0.2.1/32"),
    ],
)  # fmt: skip
def test_networks_that_clients_can_come_from(text: str, words: Optional[str]) -> None:
    if words is None:
        assert str(hosts.network(text)).startswith(text)
        return
    with pytest.raises(ValueError, match=re.escape(words)):
        hosts.network(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("::1", "0:0:0:0:0:0:0:1", True), ("localhost", "LocalHost.", True), ("*", "", True),
        ("FE80::1%lo", "fe80:0::1%lo", True),
        ("fe80::1%lo", "fe80::1%eth0", False), ("127.0.0.1", "127.0.0.2", False), ("a", "a.b", False),
    ],
)  # fmt: skip
def test_two_listeners_have_two_addresses(tmp_path: Path, one: str, other: str, same: bool) -> None:
    needs_toml()
    file = tmp_path / "proxy.toml"
    file.write_text("".join(f'[[listener]]\nlisten = "tcp://{bracketed(host)}:1"\nto = "tcp://a:1"\n' for host in (one, other)))
    if not same:
        assert len(read_settings(str(file)).listeners) == 2
        return
    with pytest.raises(SettingsError, match="another listener has this address") as caught:
        read_settings(str(file))
    assert caught.value.line == 5


def test_a_file_has_the_same_rule(tmp_path: Path) -> None:
    needs_toml()
    file = tmp_path / "proxy.toml"
    good = {"listen": "tls://a:1", "to": "tls://a:1", "to-server-name": "a", "trusted-proxy": "10.0.0.0/8"}
    bad = {"listen": "tls://127.1:1", "to": "tls://127.1:1", "to-server-name": "127.1", "trusted-proxy": "127.1"}
    for number, key in enumerate(good, 3):
        values = {**good, key: bad[key]}
        file.write_text("[[listener]]\nproxy-protocol-in = true\n" + "".join(f'{k} = "{v}"\n' for k, v in values.items()))
        with pytest.raises(SettingsError) as caught:
            read_settings(str(file))
        assert str(caught.value).startswith(f"{file}:{number}: {key}: '127.1'"), caught.value
