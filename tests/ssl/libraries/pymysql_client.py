"""PyMySQL: `connect(…, ssl=context)`, or `ssl_ca=` with `install()`."""

import struct

from common import CA_FILE, HOW, NAME, client_context, outcome, read_exactly, report, scripted, switch
import pymysql

switch()

SSL = 0x800
CAPABILITIES = 0x00FFF7FF | SSL


def packet(number, body):
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def serve(plain, start_tls):
    """As far as the first OK (MySQL's connection phase, with SSLRequest)."""
    greeting = b"\x0a8.0.0\0" + struct.pack("<I", 1) + b"12345678\0" + struct.pack("<H", CAPABILITIES & 0xFFFF)
    greeting += b"\x2d\2\0" + struct.pack("<H", CAPABILITIES >> 16) + b"\x15" + bytes(10)
    greeting += b"123456789012\0mysql_native_password\0"
    plain.sendall(packet(0, greeting))
    request = read_exactly(plain, 36)  # SSLRequest
    stream = start_tls()
    heard = [len(request), bool(struct.unpack("<I", request[4:8])[0] & SSL)]
    while True:
        head = read_exactly(stream, 4)
        body = read_exactly(stream, int.from_bytes(head[:3], "little"))
        if body[:1] == b"\x01":  # COM_QUIT
            return heard
        heard.append(b"me\0" in body or body[1:].decode())
        stream.sendall(packet(head[3] + 1, b"\0\0\0\2\0\0\0"))


given = {"ssl_ca": CA_FILE, "ssl_verify_identity": True} if HOW in ("install", "late") else {"ssl": client_context()}
with scripted(serve) as (port, served):
    connection = pymysql.connect(host=NAME, port=port, user="me", password="secret", **given)
    connection.ping(reconnect=False)
    cipher = connection._sock.version()
    connection.close()
    wrong = outcome(lambda: pymysql.connect(host="127.0.0.2", port=port, user="me", **given))
report(served=served[0], cipher=cipher, wrong_name=wrong[:1])
