"""What of the system the loop, the channels and `_ssl` call: sockets, clocks, locks, fork handlers."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "<errno.h>" nogil:
    int errno
    int EAGAIN, ENOENT, EINTR, EINPROGRESS, ECONNREFUSED, ECONNRESET, EPIPE, ETIMEDOUT, ECONNABORTED, ENOBUFS, ENOMEM


cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec

    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec *now)


cdef extern from "<unistd.h>" nogil:
    int close(int fd)


cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_PEEK, SHUT_WR
    int AF_UNIX, AF_INET, AF_INET6, SOCK_STREAM
    int SOL_SOCKET, SO_ERROR, SO_LINGER, SO_REUSEADDR
    ctypedef unsigned int socklen_t

    struct sockaddr:
        unsigned short sa_family

    struct sockaddr_storage:
        pass

    struct linger:
        int l_onoff
        int l_linger

    int bind(int fd, const sockaddr *address, socklen_t size)
    int connect(int fd, const sockaddr *address, socklen_t size)
    int getsockname(int fd, sockaddr *address, socklen_t *size)
    int getpeername(int fd, sockaddr *address, socklen_t *size)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    int shutdown(int fd, int how)


cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP

    struct in_addr:
        pass

    struct in6_addr:
        unsigned char s6_addr[16]  # an IPv4 address is the last four: RFC 4291, 2.5.5.2

    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr

    struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        in6_addr sin6_addr
        unsigned int sin6_scope_id

    bint IN6_IS_ADDR_V4MAPPED(const in6_addr *address)


cdef extern from "<arpa/inet.h>" nogil:
    enum: INET6_ADDRSTRLEN

    unsigned short htons(unsigned short number)
    unsigned short ntohs(unsigned short number)
    unsigned int ntohl(unsigned int number)
    const char *inet_ntop(int family, const void *address, char *text, socklen_t size)


cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY


cdef extern from "<pthread.h>" nogil:
    int pthread_atfork(void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil, void (*child)() noexcept nogil)

    ctypedef struct pthread_mutex_t:
        pass

    ctypedef struct pthread_rwlock_t:
        pass

    int pthread_rwlock_init(pthread_rwlock_t *lock, const void *attributes)
    int pthread_rwlock_destroy(pthread_rwlock_t *lock)
    int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
    int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
    int pthread_rwlock_unlock(pthread_rwlock_t *lock)

    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)


cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents

    short POLLIN, POLLOUT
    int poll(pollfd *descriptors, unsigned long count, int milliseconds)


cdef extern from "system.h" nogil:
    const char *C_LIBRARY
    int MONOTONIC_CLOCK, NAME_HEAD, UNIX_PATH_SIZE, MSG_NOSIGNAL, MSG_MORE

    void forbid_sigpipe(int fd)
    int stream_socket(int family)
    int accept_connection(int fd, sockaddr *peer, socklen_t *size)
    bint accept_goes_on(int error)
    int unacknowledged(int fd)
    void discard_received(int fd, size_t most)
    int pthread_mutex_timedlock(pthread_mutex_t *mutex, const timespec *until)
    void *memmem(const void *memory, size_t size, const void *wanted, size_t wanted_size)
