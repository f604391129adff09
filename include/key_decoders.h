/* Private keys, made as EVP_PKCS82PKEY(3) and d2i_AutoPrivateKey(3) make them.
 *
 * OpenSSL before 3.2 looks through all decoders of all providers for each key, which takes ten times as long as to decode it. Here the
 * decoders of a kind of keys are found once, and kept.
 */
#ifndef SSLSOCK_KEY_DECODERS_H
#define SSLSOCK_KEY_DECODERS_H

#include <openssl/evp.h>
#include <openssl/x509.h>

/* NULL, with OpenSSL's reason in the error queue: it is no key. From any thread. */
EVP_PKEY *private_key_of(const PKCS8_PRIV_KEY_INFO *info); /* RFC 5958 */
EVP_PKEY *older_private_key(const unsigned char **data, long size); /* RFC 8017, RFC 5915, and DSA's; `data` is moved behind it */

#endif
