/* The key shares of a TLS 1.3 handshake (RFC 8446, 4.2.8), which libssl keeps as long as the connection.
 *
 * Nobody needs them once it is done, and who reads the private one later can decrypt all that has been recorded of the connection. They
 * take 400 bytes with X25519, and many times that with ML-KEM. libssl has no call to free them. But it hands out the keys, and a key
 * whose type is set lets go of what it held (EVP_PKEY_set_type(3)); its shell stays. */
#ifndef SSLSOCK_KEY_SHARES_H
#define SSLSOCK_KEY_SHARES_H

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

static inline void empty_key_share(EVP_PKEY *key)
{
    EVP_PKEY_set_type(key, EVP_PKEY_NONE); /* fails, for that is no type, when the key is empty */
    EVP_PKEY_free(key);
}

/* After the handshake, which older protocols begin anew with others' keys: theirs libssl frees itself. */
static inline void forget_key_shares(SSL *ssl)
{
    EVP_PKEY *key;
    if (SSL_version(ssl) < TLS1_3_VERSION)
        return;
    ERR_set_mark();
    if (SSL_get_tmp_key(ssl, &key))
        empty_key_share(key);
    if (SSL_get_peer_tmp_key(ssl, &key))
        empty_key_share(key);
    ERR_pop_to_mark();
}

#endif
