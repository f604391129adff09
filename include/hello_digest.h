/* What a client may not change in its second ClientHello, after a HelloRetryRequest: RFC 8446, 4.1.2.
 *
 * libssl takes the name, the protocols and all else from the second and compares nothing, while a program may have decided by the
 * first. A digest of the first is all that is kept for the comparison.
 */
#ifndef SSLSOCK_HELLO_DIGEST_H
#define SSLSOCK_HELLO_DIGEST_H

#include <openssl/ssl.h>

#define HELLO_DIGEST_SIZE 32

/* Inside a callback of SSL_CTX_set_client_hello_cb(3): the digest of the ClientHello that is there, without what may change. The order
 * of extensions does not count, nor do extensions that libssl does not know. 1, or 0 without memory. */
int hello_digest(SSL *ssl, unsigned char digest[HELLO_DIGEST_SIZE]);

#endif
