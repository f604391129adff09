"""Peers for libraries whose servers are large programs: as much of each protocol as a client needs for a few words.
Each is given to `common.scripted`.
"""

import base64
import hashlib
import struct

from common import read_exactly, read_line


def postgres_message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


def serve_postgres(plain, start_tls):
    """As far as ReadyForQuery (PostgreSQL's protocol, 55.2), with SSLRequest, and a query."""
    request = read_exactly(plain, 8)
    plain.sendall(b"S")
    stream = start_tls()
    start = read_exactly(stream, struct.unpack("!I", read_exactly(stream, 4))[0] - 4)
    heard = [request.hex(), b"user\0me\0" in start]
    ready = postgres_message(b"Z", b"I")
    version = postgres_message(b"S", b"server_version\00016.0\0")
    stream.sendall(postgres_message(b"R", struct.pack("!I", 0)) + version + postgres_message(b"K", bytes(8)) + ready)
    while (kind := read_exactly(stream, 1)) != b"X":
        body = read_exactly(stream, struct.unpack("!I", read_exactly(stream, 4))[0] - 4)
        heard.append([kind.decode(), body.decode()])
        stream.sendall(postgres_message(b"C", b"SELECT 0\0") + ready)
    return heard


def serve_websocket(plain, start_tls):
    """One message comes back as it was (RFC 6455)."""
    stream = start_tls()
    key = b""
    while (line := read_line(stream).strip()) != b"":
        if line.lower().startswith(b"sec-websocket-key:"):
            key = line.partition(b":")[2].strip()
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    stream.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept + b"\r\n\r\n"
    )  # fmt: skip
    head = read_exactly(stream, 2)
    mask = read_exactly(stream, 4)
    data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(read_exactly(stream, head[1] & 0x7F)))
    stream.sendall(bytes([0x81, len(data)]) + data)
    return data.decode()


def serve_redis(plain, start_tls):
    """PING and GET of RESP; whatever else is asked is an error."""
    stream, heard = start_tls(), []
    try:
        while True:
            count = int(read_line(stream)[1:])
            words = []
            for _ in range(count):
                size = int(read_line(stream)[1:])
                words.append(read_exactly(stream, size + 2)[:-2].decode())
            heard.append(words[:1])
            answers = {
                "HELLO": b"%1\r\n+proto\r\n:3\r\n",
                "PING": b"+PONG\r\n",
                "GET": b"$100000\r\n" + b"v" * 100_000 + b"\r\n",
                "SET": b"+OK\r\n",
            }
            stream.sendall(answers.get(words[0].upper(), b"-ERR unknown command\r\n"))
    except EOFError:
        return heard


def serve_mqtt(plain, start_tls):
    """CONNECT, one PUBLISH with QoS 1, DISCONNECT (MQTT 3.1.1)."""
    stream, heard = start_tls(), []
    while True:
        kind = read_exactly(stream, 1)[0]
        size = shift = 0
        while (byte := read_exactly(stream, 1)[0]) & 0x80:
            size, shift = size | (byte & 0x7F) << shift, shift + 7
        body = read_exactly(stream, size | byte << shift)
        heard.append([kind >> 4, len(body)])
        if kind >> 4 == 1:
            stream.sendall(b"\x20\2\0\0")
        elif kind >> 4 == 3:
            topic = int.from_bytes(body[:2], "big")
            stream.sendall(b"\x40\2" + body[2 + topic : 4 + topic])
        elif kind >> 4 == 14:
            return heard


def amqp_text(words):
    return bytes([len(words)]) + words


def serve_amqp(plain, start_tls):
    """The handshake of AMQP 0-9-1 (its section 2.2.4), and the close."""
    stream = start_tls()
    heard = [read_exactly(stream, 8).hex()]

    def send(class_id, method, body):
        payload = struct.pack("!HH", class_id, method) + body
        stream.sendall(b"\1" + struct.pack("!HI", 0, len(payload)) + payload + b"\xce")

    send(10, 10, b"\0\x09" + struct.pack("!I", 0) + struct.pack("!I", 5) + b"PLAIN" + struct.pack("!I", 5) + b"en_US")
    while True:
        kind, _, size = struct.unpack("!BHI", read_exactly(stream, 7))
        payload = read_exactly(stream, size + 1)
        if kind != 1:
            continue
        class_id, method = struct.unpack("!HH", payload[:4])
        heard.append([class_id, method])
        if method == 11:  # start-ok
            send(10, 30, struct.pack("!HIH", 10, 131072, 0))
        elif method == 40:  # open
            send(10, 41, b"\0")
        elif method == 50:  # close
            send(10, 51, b"")
            return heard


LDAP_SUCCESS = b"\x0a\1\0\4\0\4\0"
LDAP_ANSWERS = {0x60: 0x61, 0x77: 0x78}  # bind, extended


def serve_ldap(plain, start_tls):
    """Success to a bind and to StartTLS (RFC 4511)."""
    stream, heard = plain, []
    if plain.recv(1, 2)[0] == 0x16:  # MSG_PEEK: a TLS record
        stream = start_tls()
        heard.append("tls")
    while True:
        head = read_exactly(stream, 2)
        size = head[1]
        if size & 0x80:
            size = int.from_bytes(read_exactly(stream, size & 0x7F), "big")
        body = read_exactly(stream, size)
        number, operation = body[: 2 + body[1]], body[2 + body[1]]
        heard.append(hex(operation))
        if operation == 0x42:  # unbind
            return heard
        answer = bytes([LDAP_ANSWERS[operation], len(LDAP_SUCCESS)]) + LDAP_SUCCESS
        stream.sendall(b"\x30" + bytes([len(number) + len(answer)]) + number + answer)
        if operation == 0x77:
            stream = start_tls()


MYSQL_SSL = 0x800
MYSQL_CAPABILITIES = 0x00FFF7FF | MYSQL_SSL


def mysql_packet(number, body):
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def serve_mysql(plain, start_tls):
    """As far as the first OK (MySQL's connection phase, with SSLRequest)."""
    greeting = b"\x0a8.0.0\0" + struct.pack("<I", 1) + b"12345678\0" + struct.pack("<H", MYSQL_CAPABILITIES & 0xFFFF)
    greeting += b"\x2d\2\0" + struct.pack("<H", MYSQL_CAPABILITIES >> 16) + b"\x15" + bytes(10)
    greeting += b"123456789012\0mysql_native_password\0"
    plain.sendall(mysql_packet(0, greeting))
    request = read_exactly(plain, 36)  # SSLRequest
    stream = start_tls()
    heard = [len(request), bool(struct.unpack("<I", request[4:8])[0] & MYSQL_SSL)]
    while True:
        head = read_exactly(stream, 4)
        body = read_exactly(stream, int.from_bytes(head[:3], "little"))
        if body[:1] == b"\x01":  # COM_QUIT
            return heard
        heard.append(b"me\0" in body or body[1:].decode())
        stream.sendall(mysql_packet(head[3] + 1, b"\0\0\0\2\0\0\0"))


def serve_kafka(plain, start_tls):
    """The first request, which asks for the versions of the protocol; what it is answered with ends the connection."""
    stream = start_tls()
    body = read_exactly(stream, struct.unpack("!I", read_exactly(stream, 4))[0])
    return list(struct.unpack("!H", body[:2]))


def dialogue(greeting, answers, upgrade=None, at_once=False):
    """A server that answers each line by its command; after `upgrade` it speaks TLS."""

    def talk(stream, start_tls):
        stream, heard = (start_tls() if at_once else stream), []
        stream.sendall(greeting)
        while True:
            line = read_line(stream).decode().split()
            words = [word.upper() for word in line]
            heard.append(" ".join(words))
            command = next(word for word in words if word in answers)
            tag = line[0].encode() if words[0] != command else b""
            stream.sendall(answers[command].replace(b"TAG", tag))
            if command == upgrade:
                stream = start_tls()
            if command in ("QUIT", "LOGOUT"):
                return heard

    return talk


SMTP = {"EHLO": b"250-hello\r\n250 STARTTLS\r\n", "STARTTLS": b"220 go\r\n", "NOOP": b"250 ok\r\n", "QUIT": b"221 bye\r\n"}
IMAP = {
    "CAPABILITY": b"* CAPABILITY IMAP4rev1 STARTTLS\r\nTAG OK done\r\n",
    "STARTTLS": b"TAG OK done\r\n",
    "NOOP": b"TAG OK done\r\n",
    "LOGOUT": b"* BYE\r\nTAG OK done\r\n",
}
POP = {"STLS": b"+OK\r\n", "CAPA": b"+OK\r\nSTLS\r\n.\r\n", "NOOP": b"+OK\r\n", "QUIT": b"+OK\r\n"}
FTP = {"AUTH": b"234 go\r\n", "PBSZ": b"200 ok\r\n", "PROT": b"200 ok\r\n", "PWD": b'257 "/here"\r\n', "QUIT": b"221 bye\r\n",
       "USER": b"331 and\r\n", "PASS": b"230 in\r\n"}  # fmt: skip
