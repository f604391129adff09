"""`serve`: a TLS server that echoes, or serves the files of a folder (`www`), until SIGINT or SIGTERM.

Without a certificate it makes an authority and a certificate for localhost, whose keys never leave the
process.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket as system
from typing import Callable

from .. import EventLoop, SocketError, SslConfiguration, SslServer, SslSocket
from ..proxy.tls.certificates import make_localhost_pair, write_authority
from ..sockets.host_port import address_text
from .common import CommandError, UsageError, check_configuration, load_identity, print_result, printable
from .www import FileTree, HttpSession, log_to_stderr

PIECE = 256 * 1024
UNSENT = 4 * PIECE  # bytes waiting to be sent at which an echo reads no further


class EchoSession:
    """Sends back what comes; reads no faster than the peer takes it."""

    def __init__(self, socket: SslSocket) -> None:
        socket.read_buffer_size = 2 * PIECE
        socket.ready_read_handler = self.on_readable
        socket.bytes_written_handler = self.on_written

    def on_readable(self, socket: SslSocket) -> None:
        while socket.bytes_available and socket.bytes_to_write < UNSENT:
            socket.write(socket.read(PIECE))

    def on_written(self, socket: SslSocket, count: int) -> None:
        self.on_readable(socket)


def resolve(host: str) -> str:
    """The address of a host to listen on; "" for every one."""
    if not host:
        return ""
    try:
        found = system.getaddrinfo(host, None, type=system.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise CommandError(f"cannot listen on {host!r}: {getattr(exc, 'strerror', None) or exc}") from None
    return str(found[0][4][0])


def make_configuration(arguments: argparse.Namespace, address: str) -> SslConfiguration:
    configuration = SslConfiguration()
    configuration.peer_verify_mode = SslConfiguration.VERIFY_NONE  # nobody here would look at a client's certificate
    if arguments.www is not None:
        configuration.allowed_next_protocols = ["http/1.1"]
    if arguments.cert is not None or arguments.key is not None:
        if arguments.ca_out is not None:
            raise UsageError("--ca-out is for the certificate that is made without --cert")
        load_identity(configuration, arguments.cert, arguments.key)
        check_configuration(configuration, server_side=True)
        return configuration
    (configuration.local_certificate, _, configuration.private_key), authority = make_localhost_pair(address)
    if arguments.ca_out is not None:
        try:
            write_authority(arguments.ca_out, authority)
        except OSError as exc:
            raise CommandError(f"{arguments.ca_out}: {exc.strerror or exc}") from None
    else:
        log_to_stderr(
            "The certificate is made for this run, so no client trusts it: --ca-out FILE gives its authority."
        )
    return configuration


def make_session(arguments: argparse.Namespace) -> Callable[[SslSocket], object]:
    """What is done with a new connection."""
    if arguments.www is None:
        return EchoSession
    if not os.path.isdir(arguments.www):
        raise UsageError(f"--www: {arguments.www!r} is not a folder")
    tree = FileTree(arguments.www)
    return lambda socket: HttpSession(socket, tree, log_to_stderr)


def run(arguments: argparse.Namespace) -> int:
    session = make_session(arguments)
    host, port = arguments.listen
    address = resolve(host)
    server = SslServer()
    server.configuration = make_configuration(arguments, address)
    # The handshake runs while a connection waits here, so many may: they are taken at once anyhow.
    server.max_pending_connections = 1024

    def on_error(socket: SslSocket, error: SocketError) -> None:
        if error is SocketError.REMOTE_HOST_CLOSED_ERROR and socket.clean_close:
            return
        log_to_stderr(f"{printable(socket.error_string)}")

    def on_connection(server: SslServer) -> None:
        while (socket := server.next_pending_secure_connection()) is not None:
            socket.error_handler = on_error
            session(socket)

    server.new_connection_handler = on_connection
    server.accept_error_handler = lambda server, error: log_to_stderr(server.error_string)
    if not server.listen(port, address):
        raise CommandError(server.error_string)

    loop = EventLoop.current()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: loop.stop())
    what = f"the files of {arguments.www}" if arguments.www is not None else "an echo"
    print_result(f"Serving {what} on {address_text(server.address, server.port)}")
    loop.run()
    server.close()
    loop.close()
    return 0
