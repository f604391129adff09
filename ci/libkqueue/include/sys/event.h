/* libkqueue's <sys/event.h>, with a kqueue's descriptor that can be waited for, as every kqueue's can: its epoll set's. */
#include <unistd.h>

#include <libkqueue/sys/event.h>

int shim_kqueue(void);
int shim_kevent(int set, const struct kevent *changes, int change_count, struct kevent *events, int event_count,
                const struct timespec *timeout);
int shim_close(int fd);

#define kqueue() shim_kqueue()
#define kevent(set, changes, change_count, events, event_count, timeout) \
    shim_kevent(set, changes, change_count, events, event_count, timeout)
#define close(fd) shim_close(fd)
