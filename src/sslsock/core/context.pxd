from openssl_ssl cimport SSL_CTX
from openssl_x509 cimport X509
from sslsock.core.key_log cimport KeyLog
from sslsock.core.session cimport SslSession
from sslsock.core.ticket_keys cimport TicketKeys


cdef enum:
    VERIFY_MODE_NONE = 0
    VERIFY_MODE_QUERY = 1
    VERIFY_MODE_PEER = 2


cdef struct wire_list:
    const unsigned char *data
    unsigned int size


cdef object refused(str what)
cdef int require_identity(certificate, key) except -1
cdef X509 *chained(link) except NULL


cdef class Context:
    cdef SSL_CTX *ctx
    cdef readonly bint server_side
    cdef readonly int verify_mode
    cdef bytes next_protocols  # as on the wire: RFC 7301, 3.1
    cdef wire_list offered  # the same, for libssl's callback
    cdef bytes session_context  # the digest of what decides about a peer
    cdef dict sessions  # client: session key -> list of SslSession, least recently used first
    cdef KeyLog key_log  # or None
    cdef int identities  # certificates of its own
    cdef object __weakref__

    cdef int set_protocols(self, int minimum, int maximum) except -1
    cdef int set_algorithms(
        self, int minimum, str ciphers, str ciphersuites, str groups, str signature_algorithms) except -1
    cdef int set_identities(self, identities, bint pre_shared_keys) except -1
    cdef int set_identity_hint(self, str hint) except -1
    cdef int add_identity(self, certificate, chain, key) except -1
    cdef int complete_chains(self, identities) except -1
    cdef int set_verification(
        self, int depth, ca_certificates, bint use_system_ca, list crls, unsigned long flags, bint later) except -1
    cdef int trust_system(self, bint others_too) except -1
    cdef int set_next_protocols(self, protocols) except -1
    cdef int set_sessions(self, TicketKeys ticket_keys) except -1
    cdef int set_key_log(self, target) except -1

    cdef bytes mark_of(self, str server_name, str verify_name)
    cdef int keep_session(self, object key, SslSession session) except -1
    cdef int drop_session(self, object key, SslSession session) except -1
    cdef SslSession take_session(self, object key, bytes mark)
