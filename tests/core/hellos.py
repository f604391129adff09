"""ClientHellos to test with: built field by field, or made by the ssl module."""

import ssl

HANDSHAKE = 22
SERVER_NAME, GROUPS, SIGNATURES, ALPN, VERSIONS = 0, 10, 13, 16, 43
GREASE = tuple(0x0A0A + 0x1010 * number for number in range(16))


def vector(data, prefix=2):
    return len(data).to_bytes(prefix, "big") + data


def numbers(values):
    return b"".join(value.to_bytes(2, "big") for value in values)


def server_name(name):
    return SERVER_NAME, vector(b"\0" + vector(name))


def alpn(*names):
    return ALPN, vector(b"".join(vector(name, 1) for name in names))


def versions(*values):
    return VERSIONS, vector(numbers(values), 1)


def groups(*values):
    return GROUPS, vector(numbers(values))


def signatures(*values):
    return SIGNATURES, vector(numbers(values))


def body_of(ciphers=(0x1301,), extensions=(), version=0x0303, session=b"", compressions=b"\0"):
    """What is in the message; `extensions`: pairs of number and content, None for no extensions at all."""
    fixed = version.to_bytes(2, "big") + bytes(range(32)) + vector(session, 1)
    fixed += vector(numbers(ciphers)) + vector(compressions, 1)
    if extensions is None:
        return fixed
    return fixed + vector(b"".join(number.to_bytes(2, "big") + vector(content) for number, content in extensions))


def message_of(body):
    return b"\1" + vector(body, 3)


def records_of(message, step=16384):
    """The message in records of `step` bytes."""
    pieces = [message[start : start + step] for start in range(0, len(message), step)]
    return b"".join(bytes((HANDSHAKE, 3, 1)) + vector(piece) for piece in pieces)


def build(*args, **fields):
    return records_of(message_of(body_of(*args, **fields)))


def made_by_ssl(name="example.com", protocols=("h2", "http/1.1"), newest=ssl.TLSVersion.TLSv1_3):
    """A real one: OpenSSL's, by way of the ssl module."""
    context = ssl.create_default_context()
    context.maximum_version = newest
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if name is None:
        context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a client that does not wait for the server")


def renamed(name, protocols=()):
    """A real one whose server name is `name` (bytes), whatever that is."""
    body = made_by_ssl("one.example", protocols)[9:]  # behind the headers of record and message
    place = 2 + 32
    for prefix in (1, 2, 1):  # session id, cipher suites, compression methods
        place += prefix + int.from_bytes(body[place : place + prefix], "big")
    old, new = (number.to_bytes(2, "big") + vector(content) for number, content in map(server_name, (b"one.example", name)))
    assert old in body[place:]
    return records_of(message_of(body[:place] + vector(body[place + 2 :].replace(old, new))))
