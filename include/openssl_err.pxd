"""OpenSSL's error queue, one per thread: openssl/err.h and the reason codes that are told apart."""


cdef extern from "openssl/err.h" nogil:
    int ERR_LIB_PEM, ERR_LIB_EVP, ERR_LIB_PROV, ERR_LIB_PKCS12, ERR_LIB_SSL
    int ERR_R_UNSUPPORTED

    void ERR_clear_error()
    unsigned long ERR_get_error()
    unsigned long ERR_peek_error()
    unsigned long ERR_peek_last_error()
    const char *ERR_reason_error_string(unsigned long code)
    const char *ERR_lib_error_string(unsigned long code)
    int ERR_GET_REASON(unsigned long code)
    int ERR_GET_LIB(unsigned long code)


cdef extern from "openssl_compat.h" nogil:
    int SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE
    int SSL_R_RECORD_LAYER_FAILURE


cdef extern from "openssl/evperr.h" nogil:
    int EVP_R_BAD_DECRYPT, EVP_R_UNSUPPORTED_ALGORITHM, EVP_R_UNKNOWN_PBE_ALGORITHM, EVP_R_UNSUPPORTED_CIPHER


cdef extern from "openssl/pemerr.h" nogil:
    int PEM_R_NO_START_LINE, PEM_R_BAD_END_LINE, PEM_R_BAD_DECRYPT


cdef extern from "openssl/pkcs12err.h" nogil:
    int PKCS12_R_PKCS12_CIPHERFINAL_ERROR, PKCS12_R_DECODE_ERROR


cdef extern from "openssl/proverr.h" nogil:
    int PROV_R_BAD_DECRYPT


cdef extern from "openssl/err.h" nogil:
    int ERR_LIB_SYS


cdef extern from "openssl/sslerr.h" nogil:
    int SSL_R_CERTIFICATE_VERIFY_FAILED, SSL_R_UNEXPECTED_EOF_WHILE_READING
    int SSL_R_EXTENSION_NOT_RECEIVED, SSL_R_INVALID_CONFIG, SSL_R_REQUEST_PENDING, SSL_R_REQUEST_SENT, SSL_R_WRONG_SSL_VERSION


cdef extern from "openssl/x509err.h" nogil:
    int X509_R_KEY_TYPE_MISMATCH


# made by setup.py
cdef extern from "openssl_error_names.h" nogil:
    struct error_name:
        int library, reason
        const char *name

    const error_name library_names[]
    const error_name reason_names[]
    int LIBRARY_NAMES, REASON_NAMES
