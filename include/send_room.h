/* How much a socket's send buffer is likely to take now. */
#ifndef SSLSOCK_SEND_ROOM_H
#define SSLSOCK_SEND_ROOM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifndef SO_MEMINFO
#define SO_MEMINFO 55 /* asm-generic/socket.h, Linux 4.12; elsewhere the call fails, or answers something shorter */
#endif

/* Bytes, the most for a slow peer while memory is short. */
enum { SLOW_ROOM = 64 * 1024 };

/* linux/sock_diag.h: SK_MEMINFO_* */
enum { MEMINFO_WMEM_ALLOC = 2, MEMINFO_SNDBUF = 3, MEMINFO_WMEM_QUEUED = 5, MEMINFO_SIZE = 9 };

/* Bytes, a little less than the kernel's own count of memory, which has its headers in it; `unknown` where it cannot be asked.
 * memory_short: of the kernel (tcp(7), tcp_mem). It shrinks a send buffer at the next send then, and takes less than it says now:
 * who has much unsent already, a slow peer, is given little. */
static inline size_t send_room(int fd, size_t unknown, int memory_short)
{
    uint32_t info[MEMINFO_SIZE];
    socklen_t size = sizeof info;
    uint32_t used, limit;
    size_t room;

    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size) < 0 || size <= MEMINFO_WMEM_QUEUED * sizeof *info)
        return unknown;
    limit = info[MEMINFO_SNDBUF];
    used = info[MEMINFO_WMEM_QUEUED]; /* what TCP counts; UNIX sockets count what is allocated */
    if (info[MEMINFO_WMEM_ALLOC] > used)
        used = info[MEMINFO_WMEM_ALLOC];
    room = used < limit ? (limit - used) / 16 * 15 : 0;
    if (memory_short && used > limit / 6 && room > SLOW_ROOM)
        room = SLOW_ROOM;
    return room;
}

#endif
