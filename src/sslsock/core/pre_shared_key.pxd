from openssl_ssl cimport SSL


cdef enum:
    REFUSED = -1  # no handshake


cdef int ask_for_keys(SSL *connection, bint server_side) except -1
cdef int use_answer(object answer, char *identity, unsigned int identity_room, unsigned char *key, unsigned int key_room) except? -1
cdef str text_of(const char *said)
