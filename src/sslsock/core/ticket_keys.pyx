"""Session ticket keys that contexts share, in one process or in a fleet. The work is C's: include/ticket_keys.h."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy

from openssl_err cimport ERR_clear_error
from openssl_ssl cimport OPENSSL_cleanse
from ticket_keys cimport (
    TICKET_KEY_NAME_SIZE, TICKET_KEY_SIZE, TICKET_KEYS_MOST, ticket_keys_free, ticket_keys_names, ticket_keys_new,
    ticket_keys_replace, ticket_keys_rotate)

KEY_SIZE = TICKET_KEY_SIZE
MOST_KEYS = TICKET_KEYS_MOST


@cython.final
cdef class TicketKeys:
    """TicketKeys(*, older=2)
--

    The keys that a server seals its session tickets with, for `Context(ticket_keys=)`: contexts that share them resume each
    other's sessions, as far as their policies agree (`session_context`).

    The first key seals new tickets, every key opens; a ticket that another than the first has opened is renewed. It begins with
    one random key. Who steals a key can read the TLS 1.2 connections whose tickets it sealed, and can stand in for the server
    where such tickets are used (RFC 5077, 5.5): change keys often, and keep none much longer than tickets live
    (`TICKET_LIFETIME`).

    older: int, 0 to 15: how many of the keys before it `rotate` keeps

    For any number of threads: changes hold for the tickets sealed and opened after them, also of live connections.
    """

    def __cinit__(self, *, int older=2):
        if not 0 <= older < TICKET_KEYS_MOST:
            raise ValueError(f"older is 0 to {TICKET_KEYS_MOST - 1}, not {older}")
        self.older = older
        self.keys = ticket_keys_new()
        if self.keys == NULL:
            ERR_clear_error()
            raise MemoryError("no memory or no random bytes for ticket keys")

    def __dealloc__(self):
        ticket_keys_free(self.keys)

    def __repr__(self):
        return f"<TicketKeys, first {self.names[0].hex()}, {len(self.names)} in all>"

    @property
    def names(self):
        """The keys' names, first key first: list of bytes, 16 each. They are public: each ticket begins with one."""
        cdef unsigned char names[TICKET_KEYS_MOST][TICKET_KEY_NAME_SIZE]
        cdef size_t place, count = ticket_keys_names(self.keys, names)
        return [PyBytes_FromStringAndSize(<char *> names[place], TICKET_KEY_NAME_SIZE) for place in range(count)]

    def rotate(self):
        """Put a new random key in front and keep `older` of the present ones. MemoryError when OpenSSL has no random bytes."""
        if ticket_keys_rotate(self.keys, self.older) != 1:
            ERR_clear_error()
            raise MemoryError("no random bytes for a ticket key")

    def replace(self, keys):
        """Use these keys and no others.

        keys: sequence of 1 to 16 bytes-like keys, the one that seals first. Each is 80 bytes: name (16), key for HMAC-SHA256 (32),
        key for AES-256-CBC (32), as in SSL_CTX_set_tlsext_ticket_keys and nginx's ssl_session_ticket_key; HAProxy has the two
        keys the other way round. ValueError for another size or number, or a name that comes twice; the present keys then stay.
        """
        cdef unsigned char material[TICKET_KEYS_MOST * TICKET_KEY_SIZE]
        cdef Py_buffer view
        cdef Py_ssize_t place, count
        keys = list(keys)
        count = len(keys)
        if not 1 <= count <= TICKET_KEYS_MOST:
            raise ValueError(f"there are 1 to {TICKET_KEYS_MOST} ticket keys, not {count}")
        names = set()
        try:
            for place in range(count):
                PyObject_GetBuffer(keys[place], &view, PyBUF_SIMPLE)
                try:
                    if view.len != TICKET_KEY_SIZE:
                        raise ValueError(f"ticket key {place + 1} has {view.len} bytes, not {TICKET_KEY_SIZE}")
                    memcpy(material + place * TICKET_KEY_SIZE, view.buf, TICKET_KEY_SIZE)
                finally:
                    PyBuffer_Release(&view)
                name = PyBytes_FromStringAndSize(<char *> material + place * TICKET_KEY_SIZE, TICKET_KEY_NAME_SIZE)
                if name in names:
                    raise ValueError(f"ticket key {place + 1} has the name of one before it")
                names.add(name)
            ticket_keys_replace(self.keys, material, count)
        finally:
            OPENSSL_cleanse(material, sizeof(material))
