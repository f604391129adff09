/* Every difference between the OpenSSL versions that are supported (3.0 and newer), and nothing else. */
#ifndef SSLSOCK_OPENSSL_COMPAT_H
#define SSLSOCK_OPENSSL_COMPAT_H

#include <openssl/opensslv.h>
#include <openssl/ssl.h>

#include <time.h>

#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error "sslsock needs OpenSSL 3.0 or newer"
#endif

/* Came with 3.2, where it lies in the error queue above the record layer's own reason. */
#ifndef SSL_R_RECORD_LAYER_FAILURE
#define SSL_R_RECORD_LAYER_FAILURE 313
#endif

/* The name of the key exchange group; NULL when there is none. SSL_get0_group_name came with 3.2. Both functions read the session,
   which is not there before the handshake, without a look at it. */
static inline const char *compat_group_name(SSL *ssl)
{
    if (SSL_get_session(ssl) == NULL)
        return NULL;
#if OPENSSL_VERSION_NUMBER >= 0x30200000L
    return SSL_get0_group_name(ssl);
#else
    int group = SSL_get_negotiated_group(ssl);
    return group == NID_undef ? NULL : SSL_group_to_name(ssl, group);
#endif
}

/* The names of all signature algorithms, with colons between, to be freed; NULL before 3.4, which brought the function. */
static inline char *compat_builtin_sigalgs(void)
{
#if OPENSSL_VERSION_NUMBER >= 0x30400000L
    return SSL_get1_builtin_sigalgs(NULL);
#else
    return NULL;
#endif
}

/* When the session was agreed. Since 3.3 there is a function for it whose time does not end in 2038; the other is deprecated. */
static inline time_t compat_session_time(const SSL_SESSION *session)
{
#if OPENSSL_VERSION_NUMBER >= 0x30300000L
    return SSL_SESSION_get_time_ex(session);
#else
    return SSL_SESSION_get_time(session);
#endif
}

/* Whether the time is within the certificate's, as the parameters count it: 1 yes, 0 no. 4.0 has another function for it. */
static inline int compat_in_time(const X509_VERIFY_PARAM *param, const X509 *certificate)
{
#if OPENSSL_VERSION_NUMBER >= 0x40000000L
    int error;
    return X509_check_certificate_times(param, certificate, &error) == 1;
#else
    return X509_cmp_timeframe(param, X509_get0_notBefore(certificate), X509_get0_notAfter(certificate)) == 0;
#endif
}

/* What the store holds, for a caller that has locked it. 4.0 deprecates the function for the sake of those who have not. */
static inline STACK_OF(X509_OBJECT) *compat_store_objects(const X509_STORE *store)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    return X509_STORE_get0_objects(store);
#pragma GCC diagnostic pop
}

/* With its certificates. A macro up to 3.1, with a comma in it that Cython cannot write. */
static inline void free_X509_stack(STACK_OF(X509) *stack)
{
    sk_X509_pop_free(stack, X509_free);
}

#endif
