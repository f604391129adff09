"""A listening socket that lets nobody new in, though it is still open.

close(2) on a listening socket resets the connections that the kernel has accepted and nobody has taken, and those whose
handshake is under way, and shutdown(2) does the same on Linux: the clients take themselves for connected and get no answer. So
a listener that is to be closed first drops every SYN, as a packet that was lost. A client sends it again after a second
(RFC 6298, 2.1), finds the port closed or in other hands, and has lost nothing. What has passed the SYN by then can be taken
until the queue is empty. A connection is cut only if its handshake takes longer than the listener then stays open.
"""

from __future__ import annotations

import socket
import struct
from array import array

__all__ = ["drop_new_connections"]

SO_ATTACH_FILTER = 26  # asm-generic/socket.h

# Classic BPF (linux/filter.h): code, jump if true, jump if false, operand. A TCP socket's filter sees the TCP header first.
PROGRAM = (
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x54, 0, 0, 0x12),  # of these SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone:
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0x40000),  # all else: keep it whole
)


def drop_new_connections(listening: socket.socket) -> None:
    """OSError: the system does not allow it. Applies to all who share the socket."""
    instructions = array("B", b"".join(struct.pack("HBBI", *instruction) for instruction in PROGRAM))
    address, _ = instructions.buffer_info()
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(PROGRAM), address))
