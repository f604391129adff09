/* The window BIO: how libssl reads ciphertext from, and writes it to, memory that somebody else owns.
 *
 * OpenSSL's memory BIO copies every byte into a buffer of its own, which grows, moves and is wiped. Here a read takes from
 * the caller's memory (usually what `recv` has just filled) and a write goes to the caller's memory (usually what `send`
 * takes next), so between the kernel and libssl nothing is copied twice.
 *
 * Rules: `in` and `out` are lent for the length of one libssl call and never freed here. What does not fit `out` (or comes
 * while no window is open) goes to `spill`, which the BIO owns: a write therefore never blocks, and libssl never has to be
 * called again with the same arguments (SSL_write(3), "WARNINGS").
 */
#ifndef SSLSOCK_WINDOW_BIO_H
#define SSLSOCK_WINDOW_BIO_H

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "byte_queue.h"

typedef struct {
    const char *in; /* ciphertext that libssl has not read yet */
    size_t in_left;
    size_t dry; /* how much libssl has asked for when there was nothing more; 0: it has not. Cleared by who opens the window */
    int eof; /* nothing comes after `in`: libssl then hears of the end */
    char *out; /* where ciphertext goes; NULL: straight to `spill` */
    size_t out_capacity;
    size_t out_used;
    byte_queue spill; /* ciphertext that found no room in `out`; follows it on the wire */
    void *owner; /* for libssl's callbacks: whose connection it is. The caller's own */
} window_bio;

/* A BIO over `window`, which must outlive it; NULL without memory. */
BIO *window_bio_new(window_bio *window);

/* Whose connection this is. A BIO to write to it has at any time; the one to read from is taken away to end it. */
static inline void *window_bio_owner(const SSL *ssl)
{
    return ((window_bio *)BIO_get_data(SSL_get_wbio(ssl)))->owner;
}

/* Free what `window` owns. */
static inline void window_bio_clear(window_bio *window)
{
    byte_queue_clear(&window->spill);
}

#endif
