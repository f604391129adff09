"""websocket-client: `sslopt={"context": context}`, or nothing with `install()`."""

import base64
import hashlib

from common import CA_FILE, HOW, NAME, client_context, outcome, read_exactly, read_line, report, scripted, switch
import websocket

switch()


def serve(plain, start_tls):
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


options = {"ca_certs": CA_FILE} if HOW in ("install", "late") else {"context": client_context()}
with scripted(serve) as (port, served):
    connection = websocket.create_connection(f"wss://{NAME}:{port}/", sslopt=options)
    connection.send("hello there")
    answer = connection.recv()
    connection.sock.close()
    wrong = outcome(lambda: websocket.create_connection(f"wss://127.0.0.2:{port}/", sslopt=options))
report(answer=answer, served=served[0], wrong_name=wrong)
