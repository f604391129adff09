#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <sys/epoll.h>
#include <sys/socket.h>

#include <libkqueue/sys/event.h>

enum { NUMBERS = 65536 };

static int queues[NUMBERS]; /* of an epoll set: libkqueue's number for it */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread int last_set;

/* A child has none of its parent's. */
static void forget(void)
{
    memset(queues, 0, sizeof queues);
}

static void begin(void)
{
    pthread_atfork(NULL, NULL, forget);
}

int shim_epoll_create1(int flags)
{
    last_set = epoll_create1(flags);
    return last_set;
}

int shim_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    if (level == SOL_SOCKET && name == SO_ERROR) {
        errno = EIO;
        return -1;
    }
    return getsockopt(fd, level, name, value, size);
}

int shim_kqueue(void)
{
    int queue = kqueue();

    pthread_once(&once, begin);
    if (queue < 0 || last_set >= NUMBERS)
        return -1;
    queues[last_set] = queue;
    return last_set;
}

int shim_kevent(int set, const struct kevent *changes, int change_count, struct kevent *events, int event_count,
                const struct timespec *timeout)
{
    return kevent(queues[set], changes, change_count, events, event_count, timeout);
}

/* libkqueue closes the set when its own descriptor is. */
int shim_close(int fd)
{
    int queue = fd >= 0 && fd < NUMBERS ? queues[fd] : 0;

    if (queue == 0)
        return close(fd);
    queues[fd] = 0;
    return close(queue);
}
