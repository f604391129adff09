#include "ticket_keys.h"

#include "fork_gate.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

/* In the order of SSL_CTX_set_tlsext_ticket_keys (ssl/s3_lib.c), which nginx has too (ngx_event_openssl.c). */
typedef struct {
    unsigned char name[TICKET_KEY_NAME_SIZE];
    unsigned char hmac[32];
    unsigned char aes[32];
} ticket_key;

_Static_assert(sizeof(ticket_key) == TICKET_KEY_SIZE, "a key is copied as it lies in memory");

struct ticket_keys {
    size_t references;
    size_t count;
    ticket_key keys[TICKET_KEYS_MOST];
    EVP_CIPHER *cipher; /* fetched once: EVP_aes_256_cbc() is looked up anew for each ticket (crypto(7)) */
};

/* For everything in a `ticket_keys` but `cipher`. One lock for all of them: it is held for copies only, so nobody waits long for
 * it, and a fork can take it, so that no child is born with keys half replaced and a lock that nobody will ever open. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int context_index = -1; /* where an SSL_CTX has its keys */

static void on_context_freed(void *context, void *keys, CRYPTO_EX_DATA *data, int index, long argument, void *pointer)
{
    ticket_keys_free(keys);
}

static void enter(void)
{
    pthread_mutex_lock(&lock);
}

static void leave(void)
{
    pthread_mutex_unlock(&lock);
}

static void begin(void)
{
    if (!fork_gate_guard(&lock))
        return;
    context_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, on_context_freed);
}

ticket_keys *ticket_keys_new(void)
{
    ticket_keys *keys;

    pthread_once(&once, begin);
    if (context_index < 0)
        return NULL;
    keys = calloc(1, sizeof *keys);
    if (keys == NULL)
        return NULL;
    keys->references = 1;
    keys->cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (keys->cipher == NULL || !ticket_keys_rotate(keys, 0)) {
        ticket_keys_free(keys);
        return NULL;
    }
    return keys;
}

void ticket_keys_free(ticket_keys *keys)
{
    size_t left;

    if (keys == NULL)
        return;
    enter();
    left = --keys->references;
    leave();
    if (left > 0)
        return;
    EVP_CIPHER_free(keys->cipher);
    OPENSSL_cleanse(keys->keys, sizeof keys->keys);
    free(keys);
}

/* Puts the keys that are no longer counted out of memory. The caller holds the lock. */
static void wipe_rest(ticket_keys *keys)
{
    OPENSSL_cleanse(keys->keys + keys->count, (TICKET_KEYS_MOST - keys->count) * sizeof keys->keys[0]);
}

int ticket_keys_rotate(ticket_keys *keys, size_t older)
{
    ticket_key fresh;

    /* The name is public and so comes from the public generator: RAND_bytes(3). */
    if (RAND_bytes(fresh.name, sizeof fresh.name) != 1 || RAND_priv_bytes(fresh.hmac, sizeof fresh.hmac) != 1
        || RAND_priv_bytes(fresh.aes, sizeof fresh.aes) != 1)
        return 0;
    enter();
    if (older > keys->count)
        older = keys->count;
    memmove(keys->keys + 1, keys->keys, older * sizeof keys->keys[0]);
    keys->keys[0] = fresh;
    keys->count = older + 1;
    wipe_rest(keys);
    leave();
    OPENSSL_cleanse(&fresh, sizeof fresh);
    return 1;
}

void ticket_keys_replace(ticket_keys *keys, const unsigned char *material, size_t count)
{
    enter();
    memcpy(keys->keys, material, count * sizeof keys->keys[0]);
    keys->count = count;
    wipe_rest(keys);
    leave();
}

size_t ticket_keys_names(ticket_keys *keys, unsigned char names[TICKET_KEYS_MOST][TICKET_KEY_NAME_SIZE])
{
    size_t place, count;

    enter();
    count = keys->count;
    for (place = 0; place < count; place++)
        memcpy(names[place], keys->keys[place].name, TICKET_KEY_NAME_SIZE);
    leave();
    return count;
}

/* Copies the key for a ticket: the first one, or the one with `name`. Returns its place; -1: there is none. */
static int copy_key(ticket_keys *keys, const unsigned char *name, ticket_key *copy)
{
    int place, found = -1;

    enter();
    for (place = 0; place < (int) keys->count && found < 0; place++)
        if (name == NULL || memcmp(keys->keys[place].name, name, TICKET_KEY_NAME_SIZE) == 0)
            found = place;
    if (found >= 0)
        *copy = keys->keys[found];
    leave();
    return found;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3). Sealing: 1 or -1. Opening: 0: no such key, so a full handshake and a new ticket; 1: go
 * on; 2: go on and renew the ticket; -1 ends the connection. */
static int on_ticket(
    SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int sealing)
{
    /* The connection's first SSL_CTX is its only one: nothing here calls SSL_set_SSL_CTX. */
    ticket_keys *keys = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), context_index);
    OSSL_PARAM params[3];
    ticket_key key;
    int place, done;

    place = copy_key(keys, sealing ? NULL : name, &key);
    if (place < 0)
        return 0;
    params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.hmac, sizeof key.hmac);
    params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *) "SHA256", 0);
    params[2] = OSSL_PARAM_construct_end();
    if (sealing) {
        memcpy(name, key.name, sizeof key.name);
        done = RAND_bytes(iv, EVP_CIPHER_get_iv_length(keys->cipher)) == 1
               && EVP_EncryptInit_ex(cipher, keys->cipher, NULL, key.aes, iv) == 1;
    } else {
        done = EVP_DecryptInit_ex(cipher, keys->cipher, NULL, key.aes, iv) == 1;
    }
    done = done && EVP_MAC_CTX_set_params(mac, params) == 1;
    OPENSSL_cleanse(&key, sizeof key);
    if (!done)
        return -1;
    if (sealing)
        return 1;
    /* A ticket of TLS 1.3 serves once (RFC 8446, C.4), so the client needs another; without this callback libssl sees to it. */
    return place > 0 || SSL_version(ssl) >= TLS1_3_VERSION ? 2 : 1;
}

int ticket_keys_use(ticket_keys *keys, SSL_CTX *context)
{
    if (SSL_CTX_set_ex_data(context, context_index, keys) != 1)
        return 0;
    enter();
    keys->references++;
    leave();
    return SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket) == 1;
}
