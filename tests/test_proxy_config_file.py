"""The TOML file of `proxy --config`: the settings it makes, and the line that every error names.

In the documents below, the mark #! stands in the line that the error must name.
"""

from __future__ import annotations

import importlib
import os
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from proxy_settings import said
from sslsock.__main__ import make_parser
from sslsock.proxy.settings import config_file
from sslsock.proxy.settings.config_file import read_settings
from sslsock.proxy.settings.model import (
    Address,
    BackTls,
    KeyPair,
    Limits,
    ListenerSettings,
    Place,
    ProxySettings,
    Route,
    SettingsError,
)
from sslsock.proxy.settings.options import make_settings
from sslsock.proxy.settings.toml_lines import lines_of

try:
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
except ImportError:
    pytest.skip("there is no reader of TOML: install tomli", allow_module_level=True)

LISTENER = '[[listener]]\nlisten = "tls://:443"\nto = "tcp://a:1"\n'
BARE = '[[listener]]\nlisten = "tls://:443"\n'


def write(folder: Path, document: str) -> str:
    path = folder / "proxy.toml"
    path.write_bytes(document.encode())
    return str(path)


def read(folder: Path, document: str) -> ProxySettings:
    return read_settings(write(folder, document))


def test_every_key_gets_into_the_settings(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        threads = 3
        max-connections = 100
        handshake-timeout = 1
        connect-timeout = 2.5
        idle-timeout = 0
        drain-timeout = 4
        shutdown-delay = 5
        ticket-key-file = "t.keys"
        metrics = "[::1]:9100"
        log-format = "text"
        user = "nobody"

        [[listener]]
        listen = "tls://:443"
        cert = ["a.pem", "/b/both.pem"]
        key = ["a.key", "/b/both.pem"]
        client-ca = "ca.pem"
        allow-name = ["*.example.com", "Jo"]
        alpn = "h2, http/1.1"
        proxy-protocol-in = true
        trusted-proxy = "10.0.0.0/8"
        proxy-protocol-out = "v1"

        [[listener.route]]
        server-names = ["Shop.Example.COM.", "*.example.org", "b\u00fccher.example"]
        alpn = ["h2"]
        to = ["tls://a:1", "tls://b:2"]
        to-ca = "bca.pem"
        to-cert = "bc.pem"
        to-key = "bk.pem"
        to-server-name = "b.example.com"
        to-alpn = ["h2", "x"]
        to-insecure = true

        [[listener.route]]
        alpn = "acme-tls/1"
        to = "tcp://acme:1"
        passthrough = true

        [[listener]]
        listen = "tls://:444"
        ca-out = "../made.pem"
        to = "tls://c:3"
        to-ca = "/etc/ca.pem"
        """,
    )

    def local(name: str) -> str:
        return os.path.join(tmp_path, name)

    assert said(found) == ProxySettings(
        listeners=(
            ListenerSettings(
                listen=Address("tls", "", 443),
                routes=(
                    Route(
                        (Address("tls", "a", 1), Address("tls", "b", 2)),
                        ("shop.example.com", "*.example.org", "xn--bcher-kva.example"),
                        ("h2",),
                        back_tls=BackTls(
                            local("bca.pem"), KeyPair(local("bc.pem"), local("bk.pem")), "b.example.com", True, ("h2", "x")
                        ),
                    ),
                    Route((Address("tcp", "acme", 1),), alpn=("acme-tls/1",), passthrough=True),
                ),
                key_pairs=(KeyPair(local("a.pem"), local("a.key")), KeyPair("/b/both.pem", "/b/both.pem")),
                client_ca=local("ca.pem"),
                allow_names=("*.example.com", "Jo"),
                alpn=("h2", "http/1.1"),
                proxy_protocol_in=True,
                trusted_proxies=(ip_network("10.0.0.0/8"),),
                proxy_protocol_out="v1",
            ),
            ListenerSettings(
                Address("tls", "", 444),
                (Route((Address("tls", "c", 3),), back_tls=BackTls("/etc/ca.pem")),),
                ca_out=local("../made.pem"),
            ),
        ),
        limits=Limits(100, 1.0, 2.5, 0.0, 4.0, shutdown_delay=5.0),
        threads=3,
        ticket_key_file=local("t.keys"),
        metrics=Address("tcp", "::1", 9100),
        log_format="text",
        user="nobody",
    )


def test_the_defaults_are_those_of_the_command_line(tmp_path: Path) -> None:
    options = ["proxy", "--listen", "tls://:443", "--to", "tcp://a:1"]
    assert said(read(tmp_path, LISTENER)) == said(make_settings(make_parser().parse_args(options)))


def test_the_listeners_own_to_is_the_last_route(tmp_path: Path) -> None:
    found = read(tmp_path, LISTENER + '[[listener.route]]\nserver-names = "b"\nto = "tcp://b:1"\n')
    assert [route.to[0].host for route in found.listeners[0].routes] == ["b", "a"]
    assert found.listeners[0].routes[1] == Route((Address("tcp", "a", 1),))


def test_a_listener_of_passthroughs_needs_no_certificate(tmp_path: Path) -> None:
    (listener,) = read(tmp_path, LISTENER + "passthrough = true\n").listeners
    assert (listener.terminates, listener.routes[0].passthrough) == (False, True)


def test_limits_of_all_and_of_a_listener(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """
        max-connections = 100
        connection-rate = 500
        handshake-rate = "30/m burst=10"
        connection-rate-per-source = "7200/h"
        source-ipv6-prefix = 48
        connection-lifetime = 0.5
        [[listener]]
        listen = "tcp://127.0.0.1:1"
        to = "tcp://127.0.0.1:2"
        max-connections = 7
        max-handshakes = 3
        connection-rate = "9/s burst=1"
        deny-source = ["192.0.2.0/24", "2001:db8::1"]
        allow-source-file = "office.txt"
        [[listener]]
        listen = "tcp://127.0.0.1:2"
        to = "tcp://127.0.0.1:2"
        """,
    )
    limits = settings.limits
    assert (limits.max_connections, limits.connection_rate, limits.handshake_rate) == (100, (2_000_000, 500), (2 * 10**9, 10))
    assert (limits.connection_rate_per_source, limits.source_ipv6_prefix) == ((500_000_000, 7200), 48)
    assert limits.connection_lifetime == 0.5
    first, second = settings.listeners
    assert (first.max_connections, first.max_handshakes, first.connection_rate) == (7, 3, (111_111_111, 1))
    assert list(map(str, first.denied_sources)) == ["192.0.2.0/24", "2001:db8::1/128"]
    assert first.allowed_files == (str(tmp_path / "office.txt"),)
    assert settings.files()[first.allowed_files[0]].line == 15
    assert (second.max_connections, second.connection_rate, second.handshake_rate) == (0, (0, 1), (0, 1))


def test_options_go_before_what_the_file_says_at_its_top(tmp_path: Path) -> None:
    path = write(tmp_path, 'threads = 3\nidle-timeout = 7\nuser = "a"\nticket-key-file = "t"\n' + LISTENER)
    options = ["--threads", "1", "--user", "b", "--metrics", ":0", "--max-connections", "5", "--ticket-key-file", "u"]
    found = make_settings(make_parser().parse_args(["proxy", "--config", path, *options]))
    assert (found.threads, found.user, found.limits.idle_timeout, found.limits.max_connections) == (1, "b", 7.0, 5)
    assert found.metrics == Address("tcp", "", 0)
    assert found.ticket_key_file == "u", "a file that an option names is not in the folder of the TOML file"
    assert found.places.of("user") == Place("--user")
    assert found.places.of("idle-timeout") == Place("idle-timeout", path, 2)


def test_an_option_is_to_blame_for_its_own_value(tmp_path: Path) -> None:
    path = write(tmp_path, "threads = 3\n" + LISTENER)
    with pytest.raises(SettingsError, match=r"^--threads: 0 is not between 1 and 1024$"):
        make_settings(make_parser().parse_args(["proxy", "--config", path, "--threads", "0"]))


def test_relative_names_with_a_relative_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    write(tmp_path / "etc", LISTENER + 'cert = "c.pem"\n')
    monkeypatch.chdir(tmp_path)
    assert read_settings("etc/proxy.toml").listeners[0].key_pairs == (KeyPair("etc/c.pem", "etc/c.pem"),)
    monkeypatch.chdir("etc")
    assert read_settings("proxy.toml").listeners[0].key_pairs == (KeyPair("c.pem", "c.pem"),)


ROUTE = BARE + '[[listener.route]]\nto = "tcp://a:1"\n'

ERRORS = [
    # syntax
    ("threads = 1\nthreads = 2 #!\n" + LISTENER, "Cannot overwrite a value"),
    ("\n\nthreads 1 #!\n" + LISTENER, "Expected '=' after a key in a key/value pair"),
    (LISTENER + 'alpn = ["h2" #!', "Unclosed array"),
    # the whole
    ("#!\n", "there is no [[listener]]"),
    ("#!\nthreads = 1\n", "there is no [[listener]]"),
    ('threads = 1\n[listener] #!\nlisten = "tls://:1"\n', "it is written with two brackets: [[listener]]"),
    (BARE + '[listener.route] #!\nto = "tcp://a:1"\n', "it is written with two brackets: [[listener.route]]"),
    ("listener = 3 #!\n", "it is written with two brackets: [[listener]]"),
    # unknown keys
    ("\nthread = 1 #!\n" + LISTENER, "thread: unknown key; did you mean 'threads'?"),
    ("xyzzy = 1 #!\n" + LISTENER, "xyzzy: unknown key"),
    (LISTENER + "\n[log] #!\nx = 1\n", "log: unknown key"),
    (LISTENER + 'client_ca = "x" #!\n', "client_ca: unknown key; did you mean 'client-ca'?"),
    (ROUTE + '\nserver-name = "x" #!\n', "server-name: unknown key; did you mean 'server-names'?"),
    (LISTENER + "[[listener.routes]] #!\n", "routes: unknown key; did you mean 'route'?"),
    (LISTENER + LISTENER.replace("443", "1") + '"threds" = 1 #!\n', "threds: unknown key"),
    ('cert = "x" #!\n' + LISTENER, "cert: it does not belong here but into a [[listener]]"),
    ('server-names = "x" #!\n' + LISTENER, "server-names: it does not belong here but into a [[listener.route]]"),
    (LISTENER + "\nthreads = 1 #!\n", "threads: it does not belong here but in front of the first table"),
    (LISTENER + 'server-names = "x" #!\n', "server-names: it does not belong here but into a [[listener.route]]"),
    (ROUTE + 'cert = "x" #!\n', "cert: it does not belong here but into a [[listener]]"),
    (ROUTE + 'user = "x" #!\n', "user: it does not belong here but in front of the first table"),
    # types
    ('threads = "1" #!\n' + LISTENER, "threads: a whole number is needed, not a string"),
    ("threads = true #!\n" + LISTENER, "threads: a whole number is needed, not a boolean"),
    ("threads = 1.0 #!\n" + LISTENER, "threads: a whole number is needed, not a float"),
    ("idle-timeout = false #!\n" + LISTENER, "idle-timeout: a number of seconds is needed, not a boolean"),
    ("idle-timeout = 1979-05-27 07:32:00 #!\n" + LISTENER, "idle-timeout: a number of seconds is needed, not a date or time"),
    ("idle-timeout = nan #!\n" + LISTENER, "idle-timeout: nan is no time: seconds are needed, 0 for no limit"),
    (
        f"idle-timeout = 1{'0' * 400} #!\n" + LISTENER,
        f"idle-timeout: 1{'0' * 400} is no time: seconds are needed, 0 for no limit",
    ),
    ("user = 0 #!\n" + LISTENER, "user: a string is needed, not an integer"),
    ("user = {a = 1} #!\n" + LISTENER, "user: a string is needed, not a table"),
    ("[user] #!\na = 1\n" + LISTENER, "user: a string is needed, not a table"),
    (LISTENER + 'ca-out = ["x"] #!\n', "ca-out: a string is needed, not a list"),
    (LISTENER + "cert = 1 #!\n", "cert: a string or a list of strings is needed, not an integer"),
    (LISTENER + 'cert = [\n"a",\n# 1\n\n1, #!\n"b"]\n', "cert: a list of strings is needed, but it holds an integer"),
    (LISTENER + 'cert = [\n"a",\n"" #!\n]\n', "cert: an empty string is in the list"),
    (LISTENER + "cert = [] #!\n", "cert: the list is empty"),
    (LISTENER + 'proxy-protocol-in = "yes" #!\n', "proxy-protocol-in: true or false is needed, not a string"),
    (LISTENER + 'client-ca = "" #!\n', "client-ca: it is empty"),
    (LISTENER + 'client-ca = "a\\u0000" #!\n', "client-ca: 'a\\x00' holds a NUL character"),
    # values
    ('log-format = "xml" #!\n' + LISTENER, "log-format: 'xml' is neither text nor json"),
    ("threads = 0 #!\n" + LISTENER, "threads: 0 is not between 1 and 1024"),
    ('metrics = "9100" #!\n' + LISTENER, "metrics: '9100' has no port"),
    ('[[listener]] #!\nto = "tcp://a:1"\n', "listen is missing"),
    ("\n\n" + BARE.replace("\n", " #!\n", 1), "to is missing"),
    (BARE + "\n[[listener.route]] #!\nserver-names = 'x'\n", "to is missing"),
    (LISTENER + BARE.replace("\n", " #!\n", 1).replace("443", "1"), "to is missing"),
    ('[[listener]]\nto = "tcp://a:1"\nlisten = "udp://:1" #!\n', "listen: 'udp://:1': the scheme is tls or tcp"),
    (BARE + 'to = [ "tcp://a:1",\n  "tcp://b:x" ] #!\n', "to: 'b:x': a port is 1 to 65535, not 'x'"),
    (BARE + "to = '''#!\n\nx'''\n", "to: '#!\\n\\nx' has no scheme"),
    (LISTENER + '\nproxy-protocol-in = true\ntrusted-proxy = ["::1",\n"x"] #!\n', "trusted-proxy: 'x' does not appear to be"),
    (LISTENER + "proxy-protocol-in = true #!\n", "proxy-protocol-in: anybody could claim any address"),
    (LISTENER + 'trusted-proxy = "::1" #!\n', "trusted-proxy: it needs proxy-protocol-in"),
    (LISTENER + 'proxy-protocol-out = "v3" #!\n', "proxy-protocol-out: 'v3' is neither v1 nor v2"),
    (LISTENER + 'key = "x" #!\n', "key: it needs cert"),
    (LISTENER + 'cert = ["a", "b"]\nkey = ["x"] #!\n', "key: 1 for 2 in cert: name one for each"),
    (LISTENER + 'cert = "a"\nca-out = "b" #!\n', "ca-out: it is for the certificate that is made without cert"),
    (LISTENER + 'allow-name = "x" #!\n', "allow-name: names are known of client certificates only: it needs client-ca"),
    (LISTENER + 'to-ca = "x" #!\n', "to-ca: it is for back ends that are spoken to with TLS: to tls://…"),
    (LISTENER.replace("tls", "tcp") + 'cert = "x" #!\n', "cert: TLS does not end at a tcp:// listener"),
    (LISTENER.replace("443", "1") + LISTENER + LISTENER.replace('3"', '3" #!'), "listen: another listener has this address"),
    (
        LISTENER.replace("443", "0") + "max-handshakes = 1\n" + LISTENER.replace('443"', '0" #!'),
        "listen: another listener is tls://:0 too, and has another max-handshakes: they are counted together",
    ),
    (
        LISTENER.replace("443", "0") + LISTENER.replace('443"', '0" #!') + "connection-rate = 1\n",
        "listen: another listener is tls://:0 too, and has another connection-rate: they are counted together",
    ),
    # routes
    (
        BARE + "[[listener.route]]\nto = 'tcp://a:1'\n[[listener.route]] #!\nto = 'tcp://b:1'\n",
        "it is never reached: route 1 takes every connection",
    ),
    (
        BARE + "to = 'tcp://b:1' #!\n[[listener.route]]\nto = 'tcp://a:1'\n",
        "to: it is never reached: route 1 takes every connection",
    ),
    (BARE + "to-ca = 'x' #!\n[[listener.route]]\nto = 'tls://a:1'\n", "to-ca: it needs to beside it; a route has its own"),
    (BARE + "passthrough = true #!\n[[listener.route]]\nto = 'tls://a:1'\n", "passthrough: it needs to beside it"),
    (LISTENER + 'cert = "x" #!\npassthrough = true\n', "cert: no TLS ends here: every route of this listener is a passthrough"),
    (
        BARE + "to = [\n'tcp://a:1',\n'tls://b:1', #!\n]\npassthrough = true\n",
        "to: tls://b:1: what passes through is TLS already: tcp:// is needed",
    ),
    (LISTENER.replace("tls", "tcp") + "passthrough = true #!\n", "passthrough: a tcp:// listener passes everything through"),
    (ROUTE.replace("tls", "tcp") + "server-names = 'x' #!\n", "server-names: a tcp:// listener does not see what TLS asks for"),
    (ROUTE.replace("tls", "tcp") + "alpn = 'x' #!\n", "alpn: a tcp:// listener does not see what TLS asks for"),
    (ROUTE + "server-names = ['x',\n'10.0.0.1'] #!\n", "server-names: '10.0.0.1' is an address, which no client asks for"),
    (ROUTE + "server-names = ['x',\n\n'a.*.b'] #!\n", "server-names: 'a.*.b': a wildcard is a whole label, the first"),
    (ROUTE + "server-names = ['x',\n'$name'] #!\n", "server-names: '$name' is no host name"),
    *(
        (ROUTE + f"{first}\n" + "[[listener.route]]\nto = 'tcp://b:1'\n" + f"{second} #!\n", f"server-names: {reason}")
        for first, second, reason in (
            ("server-names = 'x'", "server-names = ['y', 'X']", "x: it never gets here: route 1 takes it"),
            ("server-names = '*.x'", "server-names = 'a.x'", "a.x: it never gets here"),
            ("server-names = '*.x'", "server-names = '*.x'", "*.x: it never gets here"),
            ("server-names = 'x'\nalpn = ['h2', 'a']", "alpn = 'h2'\nserver-names = 'x'", "x: it never gets here"),
        )
    ),
    (ROUTE + "server-names = '*' #!\n", "server-names: '*': a wildcard is a whole label, the first"),
    (ROUTE + "server-names = '*.' #!\n", "server-names: the host name is empty"),
    (ROUTE.replace("tcp", "tls") + "to-cert = ['a',\n'b'] #!\n", "to-cert: one certificate only"),
    (ROUTE.replace("tcp", "tls") + "to-server-name = 'a b' #!\n", "to-server-name: the host name 'a b' holds a character"),
    (ROUTE.replace("tcp", "tls") + "to-key = 'a' #!\n", "to-key: it needs to-cert"),
    # the same, written otherwise
    ("listener = [{listen = 'tls://:1', to = 'tcp://a:1'},\n{listen = 'tls://:2', tu = 1}] #!\n", "tu: unknown key"),
    (BARE + "route = [\n  { to = 'tcp://a:1',\nalpn = 1 } ] #!\n".replace("\nalpn", " alpn"), "alpn: a string or a list"),
    ("listener = [\n{listen = 'tls://:1',\tto = ['tcp://a:1', 'x'] } #!\n]", "to: 'x' has no scheme"),
]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("server-names = 'a.x'", "server-names = '*.x'"),
        ("server-names = '*.x'", "server-names = ['x', 'a.b.x']"),
        ("server-names = 'x'\nalpn = 'h2'", "server-names = 'x'"),
        ("server-names = 'x'\nalpn = 'h2'", "server-names = 'x'\nalpn = ['h2', 'http/1.1']"),
        ("server-names = 'x'", "alpn = 'h2'"),
    ],
)
def test_routes_that_leave_something_to_each_other(tmp_path: Path, first: str, second: str) -> None:
    document = ROUTE + f"{first}\n[[listener.route]]\nto = 'tcp://b:1'\n{second}\n"
    assert len(read_settings(write(tmp_path, document)).listeners[0].routes) == 2


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(("document", "reason"), ERRORS)
def test_every_error_names_its_line(tmp_path: Path, document: str, reason: str, ending: str) -> None:
    before = document[: document.index("#!")]
    path = write(tmp_path, document.replace("\n", ending))
    with pytest.raises(SettingsError) as caught:
        read_settings(path)
    error = caught.value
    assert (error.file, error.line) == (path, 1 + before.count("\n")), str(error)
    assert error.reason.startswith(reason)
    assert str(error) == f"{path}:{error.line}: {error.reason}"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(str(tmp_path / "none.toml"))
    assert str(caught.value) == f"{tmp_path}/none.toml: No such file or directory"
    with pytest.raises(SettingsError, match="Is a directory"):
        read_settings(str(tmp_path))


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    path.write_bytes(b"# a\n# b\n# \xff\n# c\n")
    with pytest.raises(SettingsError, match=r":3: it is not UTF-8: invalid start byte$"):
        read_settings(str(path))


def test_a_bottomless_array_is_an_error_as_any_other(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"proxy\.toml:1: "):
        read(tmp_path, "threads = " + "[" * 100_000)


def test_a_number_beyond_all_measure_is_an_error_as_any_other(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"too many digits$|is not between 1 and 1024$"):  # Python bounds them, or does not
        read(tmp_path, f"threads = {'9' * 5000}\n{LISTENER}")


def test_a_python_without_a_reader_of_toml_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(SettingsError, match=r"needs the package tomli: pip install 'sslsock\[proxy\]'$"):
        read(tmp_path, LISTENER)
    monkeypatch.setitem(sys.modules, "tomli", toml)
    assert read(tmp_path, LISTENER).listeners
    assert config_file.toml_module("x") is toml


DOCUMENT = r'''
# "quotes" in a comment, and [brackets
a.b = 1.5  # dotted
"c d"."e=f" = ["x,]", 'y#', """z
]""", """a"b""\"""",
  [1, [ 2,
   3]], { k = 1, l = { m = "}" } } ]
t = 1979-05-27 07:32:00.5Z
multi = """

"""
last = @'it''s@
empty = [ ]
[ x . "y" ]
k = ""
[[x.z]]
k = 1
[x.z.sub]
k = 2
[[x.z]]
[[x.z.deep]]
k = 3
[[x.z.deep]]
k = [
# none
4, ]
'''.replace("@", "'''")


def test_lines_of_all_that_toml_can_write() -> None:
    toml.loads(DOCUMENT)
    lines = lines_of(DOCUMENT)
    assert lines == {
        ("a",): 3,
        ("a", "b"): 3,
        ("c d",): 4,
        ("c d", "e=f"): 4,
        ("c d", "e=f", 0): 4,
        ("c d", "e=f", 1): 4,
        ("c d", "e=f", 2): 4,
        ("c d", "e=f", 3): 5,
        ("c d", "e=f", 4): 6,
        ("c d", "e=f", 4, 0): 6,
        ("c d", "e=f", 4, 1): 6,
        ("c d", "e=f", 4, 1, 0): 6,
        ("c d", "e=f", 4, 1, 1): 7,
        ("c d", "e=f", 5): 7,
        ("c d", "e=f", 5, "k"): 7,
        ("c d", "e=f", 5, "l"): 7,
        ("c d", "e=f", 5, "l", "m"): 7,
        ("t",): 8,
        ("multi",): 9,
        ("last",): 12,
        ("empty",): 13,
        ("x",): 14,
        ("x", "y"): 14,
        ("x", "y", "k"): 15,
        ("x", "z"): 16,
        ("x", "z", 0): 16,
        ("x", "z", 0, "k"): 17,
        ("x", "z", 0, "sub"): 18,
        ("x", "z", 0, "sub", "k"): 19,
        ("x", "z", 1): 20,
        ("x", "z", 1, "deep"): 21,
        ("x", "z", 1, "deep", 0): 21,
        ("x", "z", 1, "deep", 0, "k"): 22,
        ("x", "z", 1, "deep", 1): 23,
        ("x", "z", 1, "deep", 1, "k"): 24,
        ("x", "z", 1, "deep", 1, "k", 0): 26,
    }


def paths_of(value: object, path: tuple[object, ...] = ()) -> set[tuple[object, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path, *(found for key, member in members for found in paths_of(member, (*path, key)))}


@pytest.mark.parametrize("document", [DOCUMENT, *(d for d, _ in ERRORS[3:])])
def test_every_value_that_tomllib_finds_has_a_line(document: str) -> None:
    assert set(lines_of(document)) == paths_of(toml.loads(document)) - {()}
