from openssl_ssl cimport OPENSSL_STACK, SSL, SSL_CIPHER
from openssl_x509 cimport X509


cdef struct agreed_values:
    int protocol  # version number; 0 before it is agreed on
    const SSL_CIPHER *cipher  # in libssl's table
    const char *group  # libssl's, or the context's
    const char *server_name  # the connection's
    const unsigned char *next_protocol  # the connection's; not terminated
    unsigned int next_protocol_size
    bint session_reused
    bint pre_shared_key_used
    X509 *certificate  # the peer's; owned
    OPENSSL_STACK *chain  # owned


cdef void note_agreed(agreed_values *agreed, SSL *ssl, bint done) noexcept nogil
cdef int note_peer(agreed_values *agreed, SSL *ssl) noexcept nogil
cdef void forget_agreed(agreed_values *agreed) noexcept nogil
cdef list peer_chain(agreed_values *agreed, bint server_side)
cdef list verified_chain(SSL *ssl)
