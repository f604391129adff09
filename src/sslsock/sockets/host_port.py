"""HOST:PORT in text, as people write it on a command line or in a file: taken apart and put together.

`hostname` says which hosts there can be; this module only finds where the host ends.
"""

from __future__ import annotations

__all__ = ["address_text", "parse_connect_address", "parse_listen_address"]


def parse_connect_address(text: str) -> tuple[str, int]:
    """HOST:PORT to connect to. ValueError says what is wrong with it."""
    host, port = split_address(text, 1)
    if not host:
        raise ValueError(f"{text!r} has no host: HOST:PORT is needed")
    return host, port


def parse_listen_address(text: str) -> tuple[str, int]:
    """HOST:PORT to listen on: the host may be empty or *, which both give "", and the port 0. ValueError."""
    host, port = split_address(text, 0)
    return "" if host == "*" else host, port


def split_address(text: str, least_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port: HOST:PORT is needed")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or host.startswith("[") or host.endswith("]"):
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:443")
    if not (port.isascii() and port.isdigit() and least_port <= int(port[:6]) <= 65535):
        raise ValueError(f"{text!r}: a port is {least_port} to 65535, not {port!r}")
    return host, int(port)


def address_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
