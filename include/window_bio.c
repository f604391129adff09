#include "window_bio.h"

static int window_read(BIO *bio, char *data, size_t wanted, size_t *got)
{
    window_bio *window = BIO_get_data(bio);
    size_t count = wanted < window->in_left ? wanted : window->in_left;

    BIO_clear_retry_flags(bio);
    *got = count;
    if (count == 0) {
        window->dry = wanted;
        if (!window->eof)
            BIO_set_retry_read(bio); /* not the end: the next window may hold more */
        return 0;
    }
    memcpy(data, window->in, count);
    window->in += count;
    window->in_left -= count;
    return 1;
}

static int window_write(BIO *bio, const char *data, size_t size, size_t *written)
{
    window_bio *window = BIO_get_data(bio);
    size_t room = window->out_capacity - window->out_used;

    BIO_clear_retry_flags(bio);
    *written = size;
    if (window->spill.size == 0 && size <= room) {
        memcpy(window->out + window->out_used, data, size);
        window->out_used += size;
        return 1;
    }
    if (byte_queue_append(&window->spill, data, size))
        return 1;
    *written = 0;
    return 0;
}

static long window_ctrl(BIO *bio, int command, long number, void *pointer)
{
    window_bio *window = BIO_get_data(bio);

    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF)
        return window->eof && window->in_left == 0;
    /* The kernel does no TLS here (BIO_CTRL_GET_KTLS_*), and who opened the window knows how much it holds. */
    return command == BIO_CTRL_FLUSH;
}

static int window_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static BIO_METHOD *method;

/* Before main and before any thread: no lock is needed around `method`. */
__attribute__((constructor)) static void make_method(void)
{
    BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "memory window");
    if (made == NULL)
        return;
    if (BIO_meth_set_read_ex(made, window_read) && BIO_meth_set_write_ex(made, window_write)
        && BIO_meth_set_ctrl(made, window_ctrl) && BIO_meth_set_create(made, window_create))
        method = made;
    else
        BIO_meth_free(made);
}

BIO *window_bio_new(window_bio *window)
{
    BIO *bio = method == NULL ? NULL : BIO_new(method);
    if (bio != NULL)
        BIO_set_data(bio, window);
    return bio;
}
