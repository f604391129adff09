"""The listener of http-01 (RFC 8555, 8.3): the answers of questions under way, and for everything else the way to https."""

from __future__ import annotations

import re

from ..observability.small_server import SmallHandler, SmallServer
from .challenges import Challenges

__all__ = ["ChallengeServer"]

PEERS = 64  # connections that may be open at once
PLACE = "/.well-known/acme-challenge/"
TOKEN = re.compile("[A-Za-z0-9_-]+")
HOST = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


class ChallengeServer(SmallServer):
    """OSError: it cannot be bound."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, PEERS, _Handler, "acme-http")
        self.challenges: Challenges

    def start(self, challenges: Challenges) -> None:
        self.challenges = challenges
        self.begin()


class _Handler(SmallHandler):
    server: ChallengeServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        host = HOST.fullmatch(self.headers.get("Host", ""))
        if host is None or not self.path.startswith("/"):
            self.send_error(400, explain="A Host is needed, and a path.")
        elif self.path.startswith(PLACE):
            token = self.path[len(PLACE) :]
            name = host[1].lower().rstrip(".")
            answer = self.server.challenges.http_answer(name, token) if TOKEN.fullmatch(token) else None
            if answer is None:
                self.send_error(404, explain="Nobody has asked for this here")
            else:
                self.send_body(200, answer.encode(), "application/octet-stream")
        else:
            self.send_response(308)  # the method stays: RFC 9110, 15.4.9
            self.send_header("Location", f"https://{host[1]}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET
