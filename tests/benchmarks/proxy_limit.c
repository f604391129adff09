/* What one thread of C needs to end TLS before a back end: epoll, libssl over the stock memory BIOs, one shared buffer of
 * 512 KiB a direction (the CPU per GiB falls with the size of one send). The yardstick of proxy.py, which compiles and runs
 * it.
 *
 *     proxy_limit version
 *     proxy_limit CERTIFICATE KEY PORT TARGET      both are ports of 127.0.0.1
 *
 * It does what a relay cannot do without: each side is read only while the other one has nothing left to send, and what was
 * received is delivered before the other side is closed. No limits, no times, no log. */
#define _GNU_SOURCE
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 512 * 1024, EVENTS = 256, BACKLOG = 4096 };

typedef struct Side {
    struct Pair *pair;
    int fd;
    uint32_t wanted; /* the events that epoll watches */
    char *rest;      /* what the kernel did not take */
    size_t begin, end, size;
    int ended;       /* nothing more comes from here */
} Side;

typedef struct Pair {
    Side front, back;
    int connecting, dead;
    SSL *ssl;
    BIO *in, *out;
    struct Pair *next_dead;
} Pair;

static int poller;
static SSL_CTX *context;
static struct sockaddr_in target;
static char received[ROOM], plain[ROOM + 32768]; /* the plaintext of what is received, and of a record that waited */
static Pair *dead;

static void check(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "proxy_limit: %s: %s\n", what, strerror(errno));
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void end_pair(Pair *pair)
{
    if (pair->dead)
        return;
    pair->dead = 1;
    close(pair->front.fd);
    close(pair->back.fd);
    pair->next_dead = dead; /* freed after the turn, which may have more events for it */
    dead = pair;
}

static void bury(void)
{
    while (dead != NULL) {
        Pair *pair = dead;
        dead = pair->next_dead;
        SSL_free(pair->ssl);
        free(pair->front.rest);
        free(pair->back.rest);
        free(pair);
    }
}

static int waiting(const Side *side) { return side->end > side->begin; }

static int flush(Side *side)
{
    while (waiting(side)) {
        ssize_t sent = send(side->fd, side->rest + side->begin, side->end - side->begin, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN;
        side->begin += (size_t)sent;
    }
    side->begin = side->end = side->size = 0;
    free(side->rest);
    side->rest = NULL;
    return 1;
}

static int deliver(Side *side, const char *data, size_t size)
{
    if (!waiting(side) && !(side == &side->pair->back && side->pair->connecting)) {
        ssize_t sent = send(side->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return 0;
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
    }
    if (size > 0) {
        if (side->end + size > side->size) {
            side->size = side->end + size;
            side->rest = realloc(side->rest, side->size);
            check(side->rest != NULL, "no memory");
        }
        memcpy(side->rest + side->end, data, size);
        side->end += size;
    }
    return 1;
}

static int deliver_records(Pair *pair)
{
    char *data;
    long size = BIO_get_mem_data(pair->out, &data);
    int ok = size <= 0 || deliver(&pair->front, data, (size_t)size);
    (void)BIO_reset(pair->out);
    return ok;
}

static int read_front(Pair *pair)
{
    ssize_t got = recv(pair->front.fd, received, ROOM, 0);
    size_t total = 0;
    int count, why;

    if (got < 0)
        return errno == EAGAIN;
    if (got == 0) {
        pair->front.ended = 1;
        return 1;
    }
    ERR_clear_error();
    check(BIO_write(pair->in, received, (int)got) == got, "no memory");
    while ((count = SSL_read(pair->ssl, plain + total, (int)(sizeof plain - total))) > 0)
        total += (size_t)count;
    why = SSL_get_error(pair->ssl, count);
    if (!deliver_records(pair) || (total > 0 && !deliver(&pair->back, plain, total)))
        return 0;
    if (why == SSL_ERROR_ZERO_RETURN)
        pair->front.ended = 1;
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_ZERO_RETURN;
}

static int read_back(Pair *pair)
{
    ssize_t got = recv(pair->back.fd, received, ROOM, 0);

    if (got < 0)
        return errno == EAGAIN;
    ERR_clear_error();
    if (got == 0) {
        pair->back.ended = 1;
        SSL_shutdown(pair->ssl);
    } else if (SSL_write(pair->ssl, received, (int)got) <= 0) {
        return 0;
    }
    return deliver_records(pair);
}

static void watch(Side *side, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.ptr = side};

    if (wanted == side->wanted)
        return;
    check(epoll_ctl(poller, EPOLL_CTL_MOD, side->fd, &event) == 0, "epoll_ctl");
    side->wanted = wanted;
}

static void go_on(Pair *pair)
{
    Side *front = &pair->front, *back = &pair->back;

    if ((front->ended && !waiting(back)) || (back->ended && !waiting(front))) {
        end_pair(pair);
        return;
    }
    watch(front, (!waiting(back) && !front->ended ? EPOLLIN : 0) | (waiting(front) ? EPOLLOUT : 0));
    watch(back, (!waiting(front) && !back->ended && SSL_is_init_finished(pair->ssl) ? EPOLLIN : 0) |
                    (waiting(back) || pair->connecting ? EPOLLOUT : 0));
}

static void turn(Side *side, uint32_t happened)
{
    Pair *pair = side->pair;
    int ok = 1;

    if (pair->dead)
        return;
    if (side == &pair->back && pair->connecting && happened & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(side->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        ok = error == 0;
        pair->connecting = 0;
    }
    if (ok && happened & EPOLLOUT)
        ok = flush(side);
    if (ok && happened & (EPOLLIN | EPOLLHUP | EPOLLERR) && side->wanted & EPOLLIN)
        ok = side == &pair->front ? read_front(pair) : read_back(pair);
    else if (happened & (EPOLLHUP | EPOLLERR))
        ok = 0;
    if (ok)
        go_on(pair);
    else
        end_pair(pair);
}

static void add(Side *side, Pair *pair, int fd, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.ptr = side};
    int one = 1;

    side->pair = pair;
    side->fd = fd;
    side->wanted = wanted;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    check(epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void accept_all(int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        Pair *pair = calloc(1, sizeof *pair);
        int back = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        check(pair != NULL && back >= 0, "no memory or descriptor");
        pair->ssl = SSL_new(context);
        pair->in = BIO_new(BIO_s_mem());
        pair->out = BIO_new(BIO_s_mem());
        check(pair->ssl != NULL && pair->in != NULL && pair->out != NULL, "no memory");
        BIO_set_mem_eof_return(pair->in, -1);
        SSL_set_bio(pair->ssl, pair->in, pair->out);
        SSL_set_accept_state(pair->ssl);
        pair->connecting = connect(back, (struct sockaddr *)&target, sizeof target) < 0;
        check(!pair->connecting || errno == EINPROGRESS, "connect");
        add(&pair->front, pair, fd, EPOLLIN);
        add(&pair->back, pair, back, pair->connecting ? EPOLLOUT : 0);
    }
}

int main(int count, char **arguments)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[EVENTS] = {{.events = EPOLLIN}};
    struct rlimit descriptors;
    int listener, number, found;

    if (count == 2 && strcmp(arguments[1], "version") == 0) {
        puts(OpenSSL_version(OPENSSL_VERSION));
        return 0;
    }
    if (count != 5) {
        fputs("usage: proxy_limit CERTIFICATE KEY PORT TARGET\n", stderr);
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
        descriptors.rlim_cur = descriptors.rlim_max;
        setrlimit(RLIMIT_NOFILE, &descriptors);
    }
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_server_method());
    check(context != NULL && SSL_CTX_use_certificate_chain_file(context, arguments[1]) == 1 &&
              SSL_CTX_use_PrivateKey_file(context, arguments[2], SSL_FILETYPE_PEM) == 1,
          "certificate or key");
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"x", 1);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    target = own;
    own.sin_port = htons((uint16_t)atoi(arguments[3]));
    target.sin_port = htons((uint16_t)atoi(arguments[4]));

    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    check(listener >= 0 && bind(listener, (struct sockaddr *)&own, sizeof own) == 0 && listen(listener, BACKLOG) == 0,
          "listen");
    poller = epoll_create1(EPOLL_CLOEXEC);
    check(poller >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, listener, &events[0]) == 0, "epoll");
    for (;;) {
        found = epoll_wait(poller, events, EVENTS, -1);
        for (number = 0; number < found; number++) {
            if (events[number].data.ptr == NULL)
                accept_all(listener);
            else
                turn(events[number].data.ptr, events[number].events);
        }
        bury();
    }
}
