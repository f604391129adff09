/* Chains of certificates whose signatures have been verified before in this process: the same bytes need no second verification.
 *
 * A program connects to the same few servers again and again, and each time they send the same chain. The signatures in it are a
 * tenth to a fifth of a client's handshake. Whether they are good depends on nothing but the certificates, so what is kept is the
 * SHA-256 of the whole chain up to the authority. All else is done anew for each connection: the chain is built from what is
 * trusted now, and dates, names, purposes, strengths and revocation lists are looked at.
 */
#ifndef SSLSOCK_KNOWN_CHAINS_H
#define SSLSOCK_KNOWN_CHAINS_H

#include <openssl/ssl.h>

/* Have X509_verify_cert(3) of `store` go by them. */
void known_chains_use(X509_STORE_CTX *store);

/* The same as a callback of SSL_CTX_set_cert_verify_callback(3). */
int known_chains_verify(X509_STORE_CTX *store, void *unused);

#endif
