"""`openssl s_client` and `s_server` in conversation with each other, through whatever lies between: with key updates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Optional

from .programs import Program, program

LINES = b"".join(b"%063d\n" % number for number in range(3000))  # digits are no commands of theirs
BEGIN = b"#begin\n"

WaitFor = Callable[[Callable[[], object], str], object]


class Talker:
    """One of the two, which writes every message of the handshake, and later ones, to a file."""

    def __init__(self, messages: Path, *arguments: str) -> None:
        self.messages = messages
        self.program = Program([program("openssl", "openssl"), *arguments, "-tls1_3", "-msg", "-msgfile", str(messages)])
        self.expected = b""

    def key_updates(self) -> tuple[int, int]:
        """How many it has sent and received."""
        pattern = r"^(>>>|<<<) TLS 1.3, Handshake \[length 0005\], KeyUpdate"
        seen = re.findall(pattern, self.messages.read_text(), re.MULTILINE)
        return seen.count(">>>"), seen.count("<<<")

    @property
    def data(self) -> bytes:
        """What has come from its peer, without its own talk: of the handshake, and s_server's of key updates."""
        heard = self.program.out.partition(BEGIN)[2]  # megabytes, which a regular expression would take long for
        return heard.replace(b"SSL_do_handshake -> 1\n", b"").replace(b"Read BLOCK\n", b"")


@contextmanager
def talkers(
    wait_for: WaitFor, authority: Path, identity: Path, folder: Path
) -> Iterator[tuple[Talker, int, Callable[[int], Talker]]]:
    """A running s_server, its port, and a function that makes the s_client of a port. identity: certificate and key."""
    made: list[Talker] = []

    def start(command: str, *options: str) -> Talker:
        made.append(Talker(folder / f"{command}.messages", command, *options))
        return made[-1]

    def port() -> Optional[re.Match[str]]:
        return server.program.said(r"ACCEPT \S+:(\d+)\n")

    try:
        server = start("s_server", "-accept", "127.0.0.1:0", "-cert", str(identity), "-key", str(identity))
        wait_for(port, "s_server to listen")
        trust = ("-CAfile", str(authority), "-verify_return_error")
        found = port()
        assert found is not None
        yield server, int(found[1]), lambda port: start("s_client", "-connect", f"127.0.0.1:{port}", *trust)
    finally:
        for one in made:
            one.program.close()


def talk_with_key_updates(wait_for: WaitFor, client: Talker, server: Talker) -> None:
    """Each sends key updates and asks for the other's (RFC 8446, 4.6.3: `k` sends one, `K` also asks); data goes both ways
    before, between and after them, and all of it comes."""

    def send(sender: Talker, receiver: Talker, data: bytes) -> None:
        sender.program.write(data)
        receiver.expected += data
        wait_for(lambda: len(receiver.program.out) >= len(receiver.expected) <= len(receiver.data), "the data")
        assert receiver.data == receiver.expected

    def both() -> Iterator[tuple[Talker, Talker]]:
        yield client, server
        yield server, client

    for sender, receiver in both():
        sender.program.write(BEGIN)
        wait_for(lambda receiver=receiver: BEGIN in receiver.program.out, "the first line")  # type: ignore[misc]
        send(sender, receiver, LINES)
    answers = 0
    for number, command in enumerate((b"k\n", b"K\n", b"K\n", b"k\n"), 1):
        answers += command == b"K\n"
        for asker, other in both():
            asker.program.write(command)
            wait_for(lambda asker=asker: asker.program.input_taken, "its key update")  # type: ignore[misc]
            send(asker, other, b"1\n")  # s_client sends it with its next data
            send(other, asker, b"2\n")  # and whoever is asked answers before his own
            assert asker.key_updates() == (number, answers)
        for sender, receiver in both():
            send(sender, receiver, LINES)
