"""Which of the sockets that listen on one port together (SO_REUSEPORT) are given new connections.

The kernel chooses among them by a hash of addresses and ports. It counts with one whose process is dead or stands still, as
long as somebody has it open: a share of all clients would wait there. A program of classic BPF can choose in its place
(socket(7), SO_ATTACH_REUSEPORT_CBPF; Linux 4.6, no right is needed): it returns the number of a socket, in the order in which
they began to listen. That is for connections that begin; who is queued already stays where he is.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Sequence

__all__ = ["avoid", "instructions"]

SO_ATTACH_REUSEPORT_CBPF = 51  # asm-generic/socket.h

# Classic BPF (linux/filter.h): code, jump if true, jump if false, operand.
LOAD_RANDOM = (0x20, 0, 0, 0xFFFFF038)  # SKF_AD_OFF + SKF_AD_RANDOM
RETURN_IT = (0x16, 0, 0, 0)
RETURN_NONE = ((0x06, 0, 0, 0xFFFFFFFF),)  # there is no such socket: the kernel goes by its hash


def instructions(count: int, absent: Sequence[int]) -> Sequence[tuple[int, int, int, int]]:
    """Of `count` sockets any but those, by chance. absent: ascending; where it is none or all, the hash chooses."""
    if not 0 < len(absent) < count:
        return RETURN_NONE
    program = [LOAD_RANDOM, (0x94, 0, 0, count - len(absent))]  # modulo
    for number in absent:
        program += [(0x35, 0, 1, number), (0x04, 0, 0, 1)]  # if it is not less: add 1
    return [*program, RETURN_IT]


def avoid(listening: socket.socket, count: int, absent: Sequence[int]) -> None:
    """Any socket of the group may be told for all. OSError: the system does not allow it."""
    program = instructions(count, absent)
    packed = array("B", b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    address, _ = packed.buffer_info()
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("HP", len(program), address))
