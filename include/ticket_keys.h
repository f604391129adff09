/* The keys of session tickets (RFC 5077, 4): the state that a server gives its clients to keep, sealed.
 *
 * One `ticket_keys` serves any number of SSL_CTXs in any number of threads. The first key seals new tickets, every key opens; a
 * ticket that another key than the first has opened is renewed. A connection copies the one key it needs under the lock and
 * works on the copy, so the keys may be replaced at any time. Keys are wiped when they are dropped.
 */
#ifndef SSLSOCK_TICKET_KEYS_H
#define SSLSOCK_TICKET_KEYS_H

#include <openssl/ssl.h>

#define TICKET_KEY_NAME_SIZE 16
#define TICKET_KEY_SIZE 80
#define TICKET_KEYS_MOST 16

typedef struct ticket_keys ticket_keys;

/* With one random key; NULL without memory or random bytes. */
ticket_keys *ticket_keys_new(void);

/* Drops the caller's reference; each SSL_CTX that uses the keys has one of its own. NULL is nothing. */
void ticket_keys_free(ticket_keys *keys);

/* A random key in front, and at most `older` (below TICKET_KEYS_MOST) of the present ones behind it. 0 without random bytes. */
int ticket_keys_rotate(ticket_keys *keys, size_t older);

/* These and no others: `count` (1 to TICKET_KEYS_MOST) times TICKET_KEY_SIZE bytes. */
void ticket_keys_replace(ticket_keys *keys, const unsigned char *material, size_t count);

/* Copies the names, first key first; returns how many. They are public: each ticket begins with one. */
size_t ticket_keys_names(ticket_keys *keys, unsigned char names[TICKET_KEYS_MOST][TICKET_KEY_NAME_SIZE]);

/* Has `context` seal and open its tickets with these keys, until it is freed. 0 without memory. */
int ticket_keys_use(ticket_keys *keys, SSL_CTX *context);

#endif
