"""PROXY headers from and to a real HAProxy: what we write it understands, what it writes we understand."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from sslsock.proxy_protocol import (
    PP2_SUBTYPE_SSL_CIPHER,
    PP2_SUBTYPE_SSL_CN,
    PP2_SUBTYPE_SSL_KEY_ALG,
    PP2_SUBTYPE_SSL_SIG_ALG,
    PP2_SUBTYPE_SSL_VERSION,
    PP2_TYPE_AUTHORITY,
    PP2_TYPE_CRC32C,
    PP2_TYPE_SSL,
    PP2_TYPE_UNIQUE_ID,
    Endpoint,
    Header,
    ProxyProtocolError,
    TlsFields,
    encode_v1,
    encode_v2,
    parse,
)

from .pki import NAME, Pki
from .programs import SERVER_LIMIT, program

DEADLINE = 20.0
DEFAULTS = """
defaults
    timeout client 20s
    timeout server 20s
    timeout connect 5s
"""
# HAProxy answers with what it has understood of the header.
RECEIVER = """
frontend receiver
    mode http
    bind {listener} accept-proxy
    http-request return status 200 content-type text/plain lf-string \
"%[src] %[src_port] %[dst] %[dst_port] authority=%[fc_pp_authority] id=%[fc_pp_unique_id,hex]"
"""
SENDER = """
listen sender
    mode tcp
    bind {listener} {bind}
    unique-id-format connection-%ci
    server ours 127.0.0.1:{port} {options}
"""

INET = (("192.0.2.1", 56324), ("198.51.100.7", 443))
INET6 = (("2001:db8::1", 1), ("2001:db8::ffff", 65535))
TLS = TlsFields("TLSv1.3", "TLS_AES_128_GCM_SHA256", True, True, True, "a client", "RSA-SHA256", "RSA2048")


@contextlib.contextmanager
def haproxy(folder: Path, text: str, *listeners: socket.socket) -> Iterator[None]:
    """HAProxy with listeners that exist already, so that nobody has to wait for it: connections do."""
    configuration = folder / "haproxy.cfg"
    configuration.write_text(DEFAULTS + text)
    arguments = [program("haproxy", "haproxy"), "-db", "-f", str(configuration)]
    with (
        (folder / "haproxy.log").open("wb") as log,
        subprocess.Popen(arguments, pass_fds=[listener.fileno() for listener in listeners], stdout=log, stderr=log) as process,
    ):
        watchdog = threading.Timer(SERVER_LIMIT, process.kill)
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            process.kill()


@contextlib.contextmanager
def listening(host: str = "127.0.0.1", family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(DEADLINE)
        listener.set_inheritable(True)
        yield listener


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of a HAProxy that wants PROXY headers."""
    with (
        listening() as listener,
        haproxy(tmp_path_factory.mktemp("receiver"), RECEIVER.format(listener=f"fd@{listener.fileno()}"), listener),
    ):
        yield listener.getsockname()


def understood(receiver: tuple[str, int], header: bytes) -> tuple[Optional[str], Endpoint, Endpoint]:
    """What HAProxy says to a request behind a header, None if it closes the connection; and the connection's own addresses."""
    with socket.create_connection(receiver, DEADLINE) as connection:
        ends = connection.getsockname(), connection.getpeername()
        connection.sendall(header + b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        assert not answer, "the request itself was refused"
        return None, *ends
    return answer.partition(b"\r\n\r\n")[2].decode(), *ends


def words(source: Endpoint, destination: Endpoint, authority: str = "", unique_id: bytes = b"") -> str:
    return f"{source[0]} {source[1]} {destination[0]} {destination[1]} authority={authority} id={unique_id.hex().upper()}"


@pytest.mark.parametrize("ends", [INET, INET6], ids=["IPv4", "IPv6"])
def test_haproxy_understands_our_version_1(receiver: tuple[str, int], ends: tuple[Endpoint, Endpoint]) -> None:
    assert understood(receiver, encode_v1(*ends))[0] == words(*ends)


@pytest.mark.parametrize("ends", [INET, INET6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("tls", [None, TLS], ids=["plain", "TLS"])
@pytest.mark.parametrize("checksum", [False, True], ids=["no checksum", "checksum"])
def test_haproxy_understands_our_version_2(
    receiver: tuple[str, int], ends: tuple[Endpoint, Endpoint], tls: Optional[TlsFields], checksum: bool
) -> None:
    header = encode_v2(*ends, tls=tls, alpn=b"h2", authority="a.example", unique_id=b"\x01\xfe", checksum=checksum)
    assert understood(receiver, header)[0] == words(*ends, "a.example", b"\x01\xfe")


def test_haproxy_checks_our_checksum(receiver: tuple[str, int]) -> None:
    header = encode_v2(*INET, checksum=True)
    assert understood(receiver, header[:-1] + bytes([header[-1] ^ 1]))[0] is None


@pytest.mark.parametrize(
    "header",
    [
        encode_v1(None, None),
        encode_v2(None, None),
        encode_v2(None, None, alpn=b"h2"),
        encode_v2(("/a", 0), ("/b", 0)),
    ],
    ids=["v1 UNKNOWN", "v2 LOCAL", "v2 LOCAL with TLVs", "v2 with UNIX paths"],
)
def test_haproxy_takes_the_connections_own_addresses_where_we_tell_none(receiver: tuple[str, int], header: bytes) -> None:
    answer, source, destination = understood(receiver, header)
    assert answer == words(source, destination)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
        b"PROXY TCP4 1.2.3.x 1.2.3.4 1 1\r\n",
        b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n",
        encode_v2(*INET)[:12] + b"\x31" + encode_v2(*INET)[13:],
        encode_v2(*INET)[:12] + b"\x22" + encode_v2(*INET)[13:],
        encode_v2(*INET)[:15] + b"\x0b" + encode_v2(*INET)[16:],
        b"",
    ],
    ids=["LF", "address", "protocol", "too long", "version", "command", "too short", "none"],
)
def test_haproxy_refuses_what_we_refuse(receiver: tuple[str, int], header: bytes) -> None:
    assert understood(receiver, header)[0] is None
    with pytest.raises(ProxyProtocolError):
        parse(header + b"GET / HTTP/1.0\r\n\r\n")


# HAProxy as the sender.


def receive_header(listener: socket.socket) -> tuple[Header, bytes]:
    """The header of the next connection, read byte by byte, and what is behind it up to a line end."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(DEADLINE)
        data = b""
        header = None
        while header is None:
            piece = connection.recv(1)
            assert piece, f"the connection ends after {data!r}"
            data += piece
            header = parse(data)
        assert header.size == len(data), "the header was complete before"
        rest = b""
        while not rest.endswith(b"\n") and not header.local:
            rest += connection.recv(65536)
        return header, rest


@contextlib.contextmanager
def sender(folder: Path, options: str, bind: str = "", host: str = "127.0.0.1", family: int = socket.AF_INET) -> Iterator[Any]:
    """HAProxy in front of a listener of ours: its address and our listener."""
    with listening(host, family) as front, listening() as back:
        text = SENDER.format(listener=f"fd@{front.fileno()}", bind=bind, port=back.getsockname()[1], options=options)
        with haproxy(folder, text, front):
            yield front.getsockname(), back


@pytest.mark.parametrize("options", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"])
@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)], ids=["IPv4", "IPv6"])
def test_we_understand_haproxys_addresses(tmp_path: Path, options: str, host: str, family: int) -> None:
    with sender(tmp_path, options, host=host, family=family) as (address, back):
        with socket.create_connection(address[:2], DEADLINE) as client:
            client.sendall(b"hello\n")
            header, rest = receive_header(back)
            assert (header.source, header.destination) == (client.getsockname()[:2], address[:2])
        assert (header.version, header.local, rest) == (2 if "v2" in options else 1, False, b"hello\n")
        assert (header.tlv(PP2_TYPE_CRC32C) is not None) == ("crc32c" in options)


@pytest.mark.parametrize("options", ["send-proxy", "send-proxy-v2"])
def test_we_understand_haproxy_when_its_client_has_no_address(tmp_path: Path, options: str) -> None:
    """A client at a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as front, listening() as back:
        front.bind(str(tmp_path / "front"))
        front.listen()
        front.set_inheritable(True)
        text = SENDER.format(listener=f"fd@{front.fileno()}", bind="", port=back.getsockname()[1], options=options)
        with haproxy(tmp_path, text, front), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(str(tmp_path / "front"))
            client.sendall(b"hello\n")
            header, _ = receive_header(back)
    assert (header.source, header.destination) == (None, None)


def test_a_health_check_of_haproxy_is_local(tmp_path: Path) -> None:
    with sender(tmp_path, "check inter 200ms send-proxy-v2") as (_, back):
        header, _ = receive_header(back)
    assert (header.version, header.local, header.source) == (2, True, None)


@pytest.mark.parametrize("with_certificate", [False, True], ids=["no certificate", "certificate"])
def test_we_understand_haproxys_tls_fields(tmp_path: Path, pki: Pki, with_certificate: bool) -> None:
    (tmp_path / "both.pem").write_bytes(b"".join(link.pem for link in pki.server.chain) + pki.server.key_pem)
    (tmp_path / "ca.pem").write_bytes(pki.root.pem)
    bind = f"ssl crt {tmp_path / 'both.pem'} ca-file {tmp_path / 'ca.pem'} verify optional alpn h2"
    options = "send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,unique-id,crc32c"
    context = ssl.create_default_context(cadata=pki.root.pem.decode())
    context.set_alpn_protocols(["h2"])
    if with_certificate:
        context.load_cert_chain(*pki.files(pki.client))
    with contextlib.ExitStack() as stack:
        address, back = stack.enter_context(sender(tmp_path, options, bind))
        raw = stack.enter_context(socket.create_connection(address, DEADLINE))
        client = stack.enter_context(context.wrap_socket(raw, server_hostname=NAME))
        client.sendall(b"hello\n")
        header, rest = receive_header(back)
        cipher, version = client.cipher()[0], client.version()
        assert (header.source, header.destination) == (client.getsockname(), address)
    assert rest == b"hello\n"
    assert header.tlv(PP2_TYPE_AUTHORITY) == NAME.encode()
    assert header.tlv(PP2_TYPE_UNIQUE_ID) == b"connection-127.0.0.1"
    value = header.tlv(PP2_TYPE_SSL)
    assert value is not None
    # It must be what we would have written: HAProxy's order of sub-TLVs aside.
    ours = parse(
        encode_v2(
            *INET,
            tls=TlsFields(
                version=version,
                cipher=cipher,
                client_certificate=with_certificate,
                verified=True,
                common_name=pki.client.subject if with_certificate else None,
                signature_algorithm="ecdsa-with-SHA256",
                key_algorithm="EC256",
            ),
        )
    )
    assert ours is not None
    assert fields(value) == fields(ours.tlv(PP2_TYPE_SSL))


def fields(value: Optional[bytes]) -> tuple[int, int, dict[int, bytes]]:
    assert value is not None
    client, verify = struct.unpack_from("!BI", value)
    result, place = {}, 5
    while place < len(value):
        kind, length = struct.unpack_from("!BH", value, place)
        result[kind] = value[place + 3 : place + 3 + length]
        place += 3 + length
    expected = {PP2_SUBTYPE_SSL_VERSION, PP2_SUBTYPE_SSL_CIPHER, PP2_SUBTYPE_SSL_SIG_ALG, PP2_SUBTYPE_SSL_KEY_ALG}
    assert set(result) - {PP2_SUBTYPE_SSL_CN} == expected
    return client, verify, result
