"""What of Linux the loop and the channels call: epoll(7), timerfd_create(2), sockets, clocks, fork handlers."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "<errno.h>" nogil:
    int errno
    int EAGAIN, EINTR, ECONNRESET, EPIPE, ETIMEDOUT, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM
    int EPROTO, EPERM, ENOTCONN, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void *ptr
        uint64_t u64

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLLET
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL

    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)


cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec

    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)


cdef extern from "<sys/timerfd.h>" nogil:
    struct itimerspec:
        timespec it_interval
        timespec it_value

    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME

    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *new, itimerspec *old)


cdef extern from "<unistd.h>" nogil:
    int pipe2(int *fds, int flags)
    int close(int fd)
    ssize_t read(int fd, void *data, size_t size)
    ssize_t write(int fd, const void *data, size_t size)


cdef extern from "<fcntl.h>" nogil:
    int O_NONBLOCK, O_CLOEXEC


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL, MSG_MORE, SHUT_WR, SOCK_NONBLOCK, SOCK_CLOEXEC

    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    int shutdown(int fd, int how)
    int accept4(int fd, void *address, void *length, int flags)


cdef extern from "<string.h>" nogil:
    char *strerror_r(int number, char *buffer, size_t size)


cdef extern from "<pthread.h>" nogil:
    int pthread_atfork(void (*prepare)() noexcept nogil, void (*parent)() noexcept nogil, void (*child)() noexcept nogil)
