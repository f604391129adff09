"""What a handshake has agreed on, noted while nobody else is inside libssl.

Not asked of libssl when a program wants to know it: most of it lies in libssl's session, which a TLS 1.3 client replaces and
frees at each session ticket, perhaps in a thread that has no GIL (a relay's). After the handshake nothing of this changes, so
the notes can be read in every thread, whatever libssl does meanwhile.
"""

from openssl_ssl cimport (
    OPENSSL_STACK, SSL, SSL_get0_alpn_selected, SSL_get0_verified_chain, SSL_get1_peer_certificate, SSL_get_current_cipher, SSL_get_peer_cert_chain,
    SSL_get_servername, SSL_session_reused, SSL_version, TLSEXT_NAMETYPE_host_name, X509_chain_up_ref, compat_group_name,
    free_X509_stack, sk_X509_num, sk_X509_value)
from openssl_x509 cimport X509, X509_free, X509_up_ref
from sslsock.core.certificate cimport SslCertificate


cdef void note_agreed(agreed_values *agreed, SSL *ssl, bint done) noexcept nogil:
    """After a step of the handshake; `done`: after its last."""
    agreed.cipher = SSL_get_current_cipher(ssl)
    agreed.protocol = SSL_version(ssl) if agreed.cipher != NULL else 0
    agreed.server_name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)
    SSL_get0_alpn_selected(ssl, &agreed.next_protocol, &agreed.next_protocol_size)
    agreed.session_reused = SSL_session_reused(ssl) == 1
    if done:
        agreed.group = compat_group_name(ssl)


cdef int note_peer(agreed_values *agreed, SSL *ssl) noexcept nogil:
    """The peer's certificates, once they are there: 1, or 0 without memory."""
    cdef OPENSSL_STACK *chain
    if agreed.certificate == NULL:
        agreed.certificate = SSL_get1_peer_certificate(ssl)
    if agreed.chain == NULL:
        chain = SSL_get_peer_cert_chain(ssl)
        if chain != NULL:
            # The stack is copied, the certificates are counted: the session's own is freed with it.
            agreed.chain = X509_chain_up_ref(chain)
            return agreed.chain != NULL
    return 1


cdef void forget_agreed(agreed_values *agreed) noexcept nogil:
    """Free what is owned."""
    X509_free(agreed.certificate)
    free_X509_stack(agreed.chain)
    agreed.certificate = NULL
    agreed.chain = NULL


cdef list peer_chain(agreed_values *agreed, bint server_side):
    """The peer's certificates as it sent them, its own first."""
    cdef X509 *link
    cdef int number
    cdef list chain = []
    if agreed.certificate != NULL:
        X509_up_ref(agreed.certificate)
        chain.append(SslCertificate.wrap(agreed.certificate))
    # A server's list leaves the client's own certificate out: SSL_get_peer_cert_chain(3).
    for number in range(0 if server_side else 1, sk_X509_num(agreed.chain) if agreed.chain != NULL else 0):
        link = sk_X509_value(agreed.chain, number)
        X509_up_ref(link)
        chain.append(SslCertificate.wrap(link))
    return chain


cdef list verified_chain(SSL *ssl):
    """The chain that verification has built, the peer's certificate first and the trusted one last; empty after a resumption, which
    verifies nothing. libssl keeps it unchanged from the handshake on."""
    cdef OPENSSL_STACK *built = SSL_get0_verified_chain(ssl)
    cdef X509 *link
    cdef int number
    cdef list chain = []
    for number in range(sk_X509_num(built) if built != NULL else 0):
        link = sk_X509_value(built, number)
        X509_up_ref(link)
        chain.append(SslCertificate.wrap(link))
    return chain
