"""The keys of session tickets (ticket_keys.h)."""

from openssl_ssl cimport SSL_CTX


cdef extern from "ticket_keys.h" nogil:
    enum:
        TICKET_KEY_NAME_SIZE
        TICKET_KEY_SIZE
        TICKET_KEYS_MOST

    ctypedef struct ticket_keys

    ticket_keys *ticket_keys_new()
    void ticket_keys_free(ticket_keys *keys)
    int ticket_keys_rotate(ticket_keys *keys, size_t older)
    void ticket_keys_replace(ticket_keys *keys, const unsigned char *material, size_t count)
    size_t ticket_keys_names(ticket_keys *keys, unsigned char (*names)[16])
    int ticket_keys_use(ticket_keys *keys, SSL_CTX *context)
