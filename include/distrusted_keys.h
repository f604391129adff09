/* Public keys that no chain is trusted with, whoever has signed them: intermediates of eMudhra whose private keys are known to others.
 *
 * CPython's `ssl` refuses them from 3.14.10 and 3.15.2 on (gh-160040), in its C code, and so a program loses nothing with this package.
 * To stop trusting an authority is the work of the system's store; the list is for the time until that has been updated everywhere.
 */
#ifndef SSLSOCK_DISTRUSTED_KEYS_H
#define SSLSOCK_DISTRUSTED_KEYS_H

#include <openssl/ssl.h>

/* A callback of SSL_CTX_set_verify(3) and X509_STORE_CTX_set_verify_cb(3): what OpenSSL has found to be good is an error after all if
 * the certificate has such a key (X509_V_ERR_CERT_REJECTED), or if that could not be found out (X509_V_ERR_UNSPECIFIED). */
int refuse_distrusted(int good, X509_STORE_CTX *store);

#endif
