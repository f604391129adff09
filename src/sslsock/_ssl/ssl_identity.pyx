"""The own certificate of a context, its chain and its key, from PEM text."""

from libc.limits cimport INT_MAX

cimport openssl_ssl as ssl
from openssl_err cimport (
    ERR_GET_LIB, ERR_GET_REASON, ERR_LIB_PEM, ERR_LIB_SSL, ERR_clear_error, ERR_peek_last_error, PEM_R_NO_START_LINE,
    X509_R_KEY_TYPE_MISMATCH)
from openssl_ssl cimport BIO, EVP_PKEY, OPENSSL_STACK, X509
from openssl_x509 cimport X509_check_private_key, X509_free
from sslsock._ssl.ssl_error cimport library_error
from sslsock._ssl.ssl_hooks cimport Password, on_password
from sslsock.core.files cimport read_file

cdef extern from "module_compat.h" nogil:
    int ERR_R_PEM_LIB
    void raise_openssl_error(int library, int reason)


cdef int use_identity(ssl.SSL_CTX *ctx, bytes chain, bytes key, keyfile, Password asked) except -1:
    """All or nothing. chain: PEM text, the own certificate first."""
    cdef X509 *own = NULL
    cdef EVP_PKEY *secret = NULL
    cdef OPENSSL_STACK *others = ssl.sk_X509_new_null()
    cdef BIO *bio
    if others == NULL:
        raise MemoryError
    try:
        bio = text_bio(chain)
        try:
            own = read_chain(bio, others, asked)
        finally:
            ssl.BIO_free(bio)
        if key is None:
            key = read_file(keyfile)
        bio = text_bio(key)
        try:
            secret = read_key(bio, asked)
        finally:
            ssl.BIO_free(bio)
        if X509_check_private_key(own, secret) != 1:
            if ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_TYPE_MISMATCH:
                # libssl keeps a pair for each kind of key, and finds no certificate beside this one.
                raise_openssl_error(ERR_LIB_SSL, ssl.SSL_R_NO_CERTIFICATE_ASSIGNED)
            raise library_error()
        # Without a chain libssl makes one from the trusted certificates.
        if ssl.SSL_CTX_use_cert_and_key(ctx, own, secret, others if ssl.sk_X509_num(others) else NULL, 1) != 1:
            raise library_error()
        ERR_clear_error()
    finally:
        X509_free(own)
        ssl.EVP_PKEY_free(secret)
        ssl.free_X509_stack(others)
    return 0


cdef BIO *text_bio(bytes text) except NULL:
    """`text` has to live as long."""
    cdef BIO *bio
    if len(text) > INT_MAX:
        raise OverflowError("the file is too long")
    bio = ssl.BIO_new_mem_buf(<const char *> text, <int> len(text))
    if bio == NULL:
        raise MemoryError
    return bio


cdef X509 *read_chain(BIO *bio, OPENSSL_STACK *others, Password asked) except NULL:
    """As SSL_CTX_use_certificate_chain_file(3) reads it: the first certificate, the rest into `others`."""
    cdef X509 *own
    cdef X509 *other
    cdef unsigned long error
    cdef ssl.password_callback callback = NULL
    cdef void *argument = NULL
    if asked is not None:
        callback = on_password
        argument = <void *> asked
    with nogil:  # it may ask for a password on the terminal
        own = ssl.PEM_read_bio_X509_AUX(bio, NULL, callback, argument)
    if own == NULL:
        raise refused_pem(asked)
    while True:
        with nogil:
            other = ssl.PEM_read_bio_X509(bio, NULL, callback, argument)
        if other == NULL:
            break
        if ssl.sk_X509_push(others, other) == 0:
            X509_free(other)
            X509_free(own)
            raise MemoryError
    error = ERR_peek_last_error()
    if ERR_GET_LIB(error) != ERR_LIB_PEM or ERR_GET_REASON(error) != PEM_R_NO_START_LINE:
        X509_free(own)
        raise refused(asked)
    ERR_clear_error()
    return own


cdef EVP_PKEY *read_key(BIO *bio, Password asked) except NULL:
    cdef EVP_PKEY *key
    cdef ssl.password_callback callback = NULL
    cdef void *argument = NULL
    if asked is not None:
        callback = on_password
        argument = <void *> asked
    with nogil:
        key = ssl.PEM_read_bio_PrivateKey(bio, NULL, callback, argument)
    if key == NULL:
        raise refused_pem(asked)
    return key


cdef object refused_pem(Password asked):
    raise_openssl_error(ERR_LIB_SSL, ERR_R_PEM_LIB)  # as libssl does: `[SSL] PEM lib`
    return refused(asked)


cdef object refused(Password asked):
    if asked is not None and asked.raised is not None:
        ERR_clear_error()
        return asked.raised
    return library_error()
