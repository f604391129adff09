"""Pre-shared keys (RFC 4279; RFC 8446, 2.2), which a program gives in the middle of a handshake: how libssl asks, and what may be
answered. Whom to ask it finds through the window BIO.

libssl asks a client for its key before it sends a TLS 1.3 ClientHello, again after a HelloRetryRequest, and in TLS 1.2 when both sides have
agreed on a cipher suite of that kind; a server for the key of each identity that it is shown. In TLS 1.3 it takes them for keys of
SHA-256 suites.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

cimport openssl_ssl as ssl
from openssl_ssl cimport SSL
from sslsock.core.bare_engine cimport BareEngine
from window_bio cimport window_bio_owner

MOST_IDENTITY = ssl.PSK_MAX_IDENTITY_LEN - 1  # bytes; a NUL comes behind them
MOST_KEY = ssl.PSK_MAX_PSK_LEN  # bytes


cdef unsigned int on_client(
        SSL *connection, const char *hint, char *identity, unsigned int identity_room, unsigned char *key,
        unsigned int key_room) noexcept nogil:
    """SSL_set_psk_client_callback(3): the size of the key, 0: there is none; more than there is room for: no handshake."""
    cdef int size = (<BareEngine> window_bio_owner(connection)).give_key(hint, identity, identity_room, key, key_room)
    return told(connection, size, key_room)


cdef unsigned int on_server(
        SSL *connection, const char *identity, unsigned char *key, unsigned int key_room) noexcept nogil:
    """SSL_set_psk_server_callback(3)."""
    cdef int size = (<BareEngine> window_bio_owner(connection)).give_key(identity, NULL, 0, key, key_room)
    if size > 0:
        ssl.SSL_set_num_tickets(connection, 0)  # see on_ticket_made
    return told(connection, size, key_room)


cdef unsigned int told(SSL *connection, int size, unsigned int key_room) noexcept nogil:
    if size == REFUSED:
        return key_room + 1
    (<BareEngine> window_bio_owner(connection)).keyed = size > 0
    return <unsigned int> size


cdef int ask_for_keys(SSL *connection, bint server_side) except -1:
    if server_side:
        ssl.SSL_set_psk_server_callback(connection, on_server)
    else:
        ssl.SSL_set_psk_client_callback(connection, on_client)
    return 0


cdef str text_of(const char *said):
    """An identity or a hint as it came: None where there is none."""
    return said.decode("utf-8", "surrogateescape") if said != NULL and said[0] != 0 else None


cdef int use_answer(object answer, char *identity, unsigned int identity_room, unsigned char *key, unsigned int key_room) except? -1:
    """What a handler has answered, in libssl's memory; identity NULL: this is a server. Returns the size of the key, 0 for none,
    REFUSED. TypeError, ValueError."""
    cdef Py_buffer view
    cdef bytes name
    cdef int size
    if answer is None:
        return 0
    if answer is False:
        return REFUSED
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise TypeError(f"a pre-shared key is a tuple of identity and key, None or False, not {type(answer).__name__}")
    if identity != NULL:
        name = answer[0].encode("utf-8", "surrogateescape") if isinstance(answer[0], str) else bytes(memoryview(answer[0]))
        if b"\0" in name or not 0 < PyBytes_GET_SIZE(name) < <Py_ssize_t> identity_room:
            raise ValueError(f"the identity of a pre-shared key is 1 to {MOST_IDENTITY} bytes without NUL")
        memcpy(identity, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name) + 1)
    PyObject_GetBuffer(answer[1], &view, PyBUF_SIMPLE)
    size = <int> view.len if 0 < view.len <= <Py_ssize_t> key_room else 0
    if size:
        memcpy(key, view.buf, size)
    PyBuffer_Release(&view)
    if not size:
        raise ValueError(f"a pre-shared key is 1 to {MOST_KEY} bytes")
    return size
