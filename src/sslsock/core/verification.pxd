from openssl_ssl cimport SSL, X509_STORE_CTX
from openssl_x509 cimport X509


cdef struct verify_record:
    int code
    int depth
    X509 *certificate  # owned; may be NULL


cdef struct verification:
    verify_record *records  # NULL until something is wrong
    int record_count
    X509 *refused  # owned; the peer's own, NULL unless its chain was refused


cdef enum chain_verdict:
    CHAIN_REFUSED
    CHAIN_GOOD
    CHAIN_DOUBTFUL  # it has errors, all of which are noted


cdef chain_verdict verify(verification *found, X509_STORE_CTX *store) noexcept nogil
cdef void conclude(verification *found, X509_STORE_CTX *store, bint accepted) noexcept nogil
cdef void forget_verification(verification *found) noexcept nogil
cdef list errors_found(verification *found, str verify_name)
cdef str set_verify_name(SSL *connection, str verify_name)
