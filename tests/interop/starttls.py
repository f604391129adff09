"""Little servers of protocols that have STARTTLS, written with our sockets: enough of each for real clients."""

from __future__ import annotations

from typing import Optional

from peers import Recorder
from sslsock import SslConfiguration, SslSocket

from .ours import OurServer


class LineServer(OurServer):
    """Calls `answer(socket, line)` for every line, and sends what that returns."""

    greeting = b""

    def __init__(self, configuration: SslConfiguration, *, encrypted: bool = False) -> None:
        self.log: list[str] = []
        super().__init__(configuration, self._greet, encrypted=encrypted)

    def _greet(self, recorder: Recorder) -> None:
        recorder.socket.ready_read_handler = self._on_ready
        recorder.socket.write(self.greeting)

    def _on_ready(self, sock: SslSocket) -> None:
        while sock.can_read_line:
            answer = self.answer(sock, sock.read_line())
            if answer:
                sock.write(answer)

    def answer(self, sock: SslSocket, line: bytes) -> bytes:
        raise NotImplementedError

    def secure(self, sock: SslSocket, answer: bytes) -> bytes:
        """Say yes, and then not a byte more that is not encrypted."""
        assert not sock.encrypted
        # Whatever follows the command was not sent by who will be behind the encryption (CVE-2011-0411).
        sock.read_all()
        sock.write(answer)
        sock.start_server_encryption()
        return b""

    def goodbye(self, sock: SslSocket, answer: bytes) -> bytes:
        sock.write(answer)
        sock.disconnect()
        return b""


class SmtpServer(LineServer):
    """RFC 5321, 3207."""

    greeting = b"220 server.example.test ESMTP\r\n"

    def __init__(self, configuration: SslConfiguration) -> None:
        super().__init__(configuration)
        self.messages: list[bytes] = []
        self.message: Optional[bytearray] = None

    def answer(self, sock: SslSocket, line: bytes) -> bytes:
        if self.message is not None:
            if line != b".\r\n":
                self.message += line[1:] if line.startswith(b".") else line
                return b""
            self.messages.append(bytes(self.message))
            self.message = None
            return b"250 taken\r\n"
        verb = line.split()[0].upper()
        if verb in (b"EHLO", b"HELO"):
            return b"250 hello\r\n" if sock.encrypted else b"250-hello\r\n250 STARTTLS\r\n"
        if verb == b"STARTTLS":
            return self.secure(sock, b"220 go ahead\r\n")
        if verb == b"DATA":
            self.message = bytearray()
            return b"354 end with a dot\r\n"
        if verb == b"QUIT":
            return self.goodbye(sock, b"221 bye\r\n")
        return b"250 ok\r\n" if verb in (b"MAIL", b"RCPT", b"NOOP", b"RSET") else b"500 what?\r\n"


class ImapServer(LineServer):
    """RFC 9051."""

    greeting = b"* OK ready\r\n"

    def answer(self, sock: SslSocket, line: bytes) -> bytes:
        tag, verb = line.split()[:2]
        verb = verb.upper()
        if verb == b"CAPABILITY":
            more = b"" if sock.encrypted else b" STARTTLS LOGINDISABLED"
            return b"* CAPABILITY IMAP4rev1" + more + b"\r\n" + tag + b" OK done\r\n"
        if verb == b"STARTTLS":
            return self.secure(sock, tag + b" OK begin\r\n")
        if verb == b"LOGIN":
            self.log.append("LOGIN encrypted" if sock.encrypted else "LOGIN in the clear")
            return tag + b" OK welcome\r\n"
        if verb == b"LOGOUT":
            return self.goodbye(sock, b"* BYE\r\n" + tag + b" OK done\r\n")
        return tag + (b" OK\r\n" if verb == b"NOOP" else b" BAD what?\r\n")


class PopServer(LineServer):
    """RFC 1939, 2595."""

    greeting = b"+OK ready\r\n"

    def answer(self, sock: SslSocket, line: bytes) -> bytes:
        verb = line.split()[0].upper()
        if verb == b"CAPA":
            return b"+OK\r\n" + (b"" if sock.encrypted else b"STLS\r\n") + b"USER\r\n.\r\n"
        if verb == b"STLS":
            return self.secure(sock, b"+OK begin\r\n")
        if verb == b"QUIT":
            return self.goodbye(sock, b"+OK bye\r\n")
        return b"+OK\r\n"
