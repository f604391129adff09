/* What the interface of the standard library's `ssl` needs of OpenSSL and that Cython cannot write: macros with several calls in
 * them, and functions that not all versions have. */
#ifndef SSLSOCK_MODULE_COMPAT_H
#define SSLSOCK_MODULE_COMPAT_H

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509err.h>

static inline void raise_openssl_error(int library, int reason)
{
    ERR_raise(library, reason);
}

/* Both sides' signature algorithms, and the names of all groups, came with 3.5. */
#if OPENSSL_VERSION_NUMBER >= 0x30500000L
#define HAS_SIGNATURE_NAMES 1

static inline const char *compat_signature_name(SSL *ssl, int of_peer)
{
    const char *name = NULL;
    int known = of_peer ? SSL_get0_peer_signature_name(ssl, &name) : SSL_get0_signature_name(ssl, &name);
    return known == 1 ? name : NULL;
}

static inline STACK_OF(OPENSSL_CSTRING) *compat_group_names(SSL_CTX *context, int with_aliases)
{
    STACK_OF(OPENSSL_CSTRING) *names = sk_OPENSSL_CSTRING_new_null();
    if (names != NULL && SSL_CTX_get0_implemented_groups(context, with_aliases, names) != 1) {
        sk_OPENSSL_CSTRING_free(names);
        names = NULL;
    }
    return names;
}
#else
#define HAS_SIGNATURE_NAMES 0

static inline const char *compat_signature_name(SSL *ssl, int of_peer)
{
    (void)ssl;
    (void)of_peer;
    return NULL;
}

static inline STACK_OF(OPENSSL_CSTRING) *compat_group_names(SSL_CTX *context, int with_aliases)
{
    (void)context;
    (void)with_aliases;
    return NULL;
}
#endif

static inline int name_count(const STACK_OF(OPENSSL_CSTRING) *names)
{
    return sk_OPENSSL_CSTRING_num(names);
}

static inline const char *name_at(const STACK_OF(OPENSSL_CSTRING) *names, int index)
{
    return sk_OPENSSL_CSTRING_value(names, index);
}

static inline void free_names(STACK_OF(OPENSSL_CSTRING) *names)
{
    sk_OPENSSL_CSTRING_free(names);
}

#endif
