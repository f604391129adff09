"""SessionFile: where `connect --session-file` keeps the session of a server from one run to the next."""

from __future__ import annotations

import os
from typing import Callable

from .. import SslSession, SslSocket
from .common import UsageError

MOST_BYTES = 65536  # of a session, with a chain of certificates in its ticket


class SessionFile:
    """path: what --session-file says. say: shows a line to the user."""

    def __init__(self, path: str, say: Callable[[str], None]) -> None:
        self.path = path
        self.say = say

    def offer(self, socket: SslSocket) -> None:
        """Have the socket resume what is there, if anything is, and keep what comes. UsageError."""
        try:
            with open(self.path, "rb") as file:
                session = SslSession(file.read(MOST_BYTES))
        except FileNotFoundError:
            session = SslSession()
        except (OSError, ValueError) as exc:
            raise UsageError(f"--session-file {self.path}: {exc}") from None
        if not session.null:
            socket.session = session
        socket.new_session_handler = self.keep

    def keep(self, socket: SslSocket, session: SslSession) -> None:
        """It is as secret as a private key: a new file is its owner's alone."""
        try:
            with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(session.to_bytes())
        except OSError as exc:
            self.say(f"--session-file {self.path}: {exc.strerror}")
