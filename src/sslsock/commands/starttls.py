"""STARTTLS: what a client says in the clear before the handshake, by protocol.

A dialogue is a generator: it yields what to send (perhaps nothing) and is given one line of the server,
without its end; it returns when the handshake can start, or raises CommandError. It does no input or output,
so it can be tried line by line.

What the server sends is not protected by anything. A man in the middle can put words of his own behind the
last reply, to be taken for protected ones later (CVE-2011-0411): who drives the dialogue must not read on
after it has ended.
"""

from __future__ import annotations

from collections.abc import Generator

from .common import CommandError, printable

Dialogue = Generator[bytes, bytes, None]

SHOWN = 200  # characters of a server's line in an error
LINES = 200  # of one reply, or before the one that is waited for


def refused(protocol: str, what: str, line: bytes) -> CommandError:
    said = printable(line.decode("utf-8", "replace"))[:SHOWN]
    return CommandError(f"STARTTLS: the {protocol} server {what}: {said or '(an empty line)'}")


def lacks(protocol: str) -> CommandError:
    return CommandError(f"STARTTLS: the {protocol} server does not offer it")


def chatters(protocol: str) -> CommandError:
    return CommandError(f"STARTTLS: the {protocol} server's reply does not end")


def smtp_reply(send: bytes) -> Generator[bytes, bytes, tuple[bytes, list[bytes]]]:
    """One reply, of one line or several (RFC 5321, 4.2.1): its code and its texts."""
    texts: list[bytes] = []
    code = b""
    while len(texts) < LINES:
        line = yield send
        send = b""
        if len(line) < 3 or not line[:3].isdigit() or line[3:4] not in (b" ", b"-", b"") or (code and line[:3] != code):
            raise refused("SMTP", "sent what is no reply", line)
        code = line[:3]
        texts.append(line[4:])
        if line[3:4] != b"-":
            return code, texts
    raise chatters("SMTP")


def smtp(own_address: str) -> Dialogue:
    """RFC 3207."""
    code, texts = yield from smtp_reply(b"")
    if code != b"220":
        raise refused("SMTP", "does not take us", code + b" " + texts[-1])
    # An address literal: a program on some machine has no name that could be trusted to exist (RFC 5321,
    # 4.1.3).
    literal = f"[IPv6:{own_address}]" if ":" in own_address else f"[{own_address}]"
    code, texts = yield from smtp_reply(b"EHLO " + literal.encode("ascii") + b"\r\n")
    if code != b"250":
        raise refused("SMTP", "refused EHLO", code + b" " + texts[-1])
    if not any(text.strip().upper() == b"STARTTLS" for text in texts[1:]):
        raise lacks("SMTP")
    code, texts = yield from smtp_reply(b"STARTTLS\r\n")
    if code != b"220":
        raise refused("SMTP", "refused it", code + b" " + texts[-1])


def imap_command(tag: bytes, command: bytes) -> Generator[bytes, bytes, tuple[bytes, list[bytes]]]:
    """One command (RFC 9051, 2.2): the line that ends its reply, without the tag, and those before."""
    send = tag + b" " + command + b"\r\n"
    lines: list[bytes] = []
    while len(lines) < LINES:
        line = yield send
        send = b""
        if line.startswith(tag + b" "):
            return line[len(tag) + 1 :], lines
        if not line.startswith(b"* "):
            raise refused("IMAP", "sent what is no reply", line)
        lines.append(line[2:])
    raise chatters("IMAP")


def imap(own_address: str) -> Dialogue:
    """RFC 9051, 6.2.1."""
    line = yield b""
    if line[:8].upper() == b"* PREAUT":
        raise refused("IMAP", "has authenticated us already, so encryption cannot begin any more", line)
    if line[:4].upper() != b"* OK":
        raise refused("IMAP", "does not take us", line)
    end, lines = yield from imap_command(b"a1", b"CAPABILITY")
    if end[:2].upper() != b"OK":
        raise refused("IMAP", "refused CAPABILITY", end)
    offered = [line.upper().split() for line in lines]
    if not any(words[:1] == [b"CAPABILITY"] and b"STARTTLS" in words for words in offered):
        raise lacks("IMAP")
    end, lines = yield from imap_command(b"a2", b"STARTTLS")
    if end[:2].upper() != b"OK":
        raise refused("IMAP", "refused it", end)


def pop3(own_address: str) -> Dialogue:
    """RFC 2595, 4."""
    line = yield b""
    if line[:3].upper() != b"+OK":
        raise refused("POP3", "does not take us", line)
    line = yield b"CAPA\r\n"
    if line[:3].upper() == b"+OK":  # a server without CAPA (RFC 2449) may still know STLS
        lines: list[bytes] = []
        while (line := (yield b"")) != b".":
            lines.append(line.strip().upper())
            if len(lines) == LINES:
                raise chatters("POP3")
        if b"STLS" not in lines:
            raise lacks("POP3")
    line = yield b"STLS\r\n"
    if line[:3].upper() != b"+OK":
        raise refused("POP3", "refused it", line)


DIALOGUES = {"smtp": smtp, "imap": imap, "pop3": pop3}
