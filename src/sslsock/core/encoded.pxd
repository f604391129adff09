cimport cython

from openssl_x509 cimport BIO

cdef dict PEM_KINDS


cdef struct secret:
    char *data  # owned, wiped before it is freed
    size_t size


@cython.final
cdef class Source:
    cdef Py_buffer view
    cdef bint view_held
    cdef object text  # keeps the memory of `data` alive where it belongs to a str
    cdef const unsigned char *data
    cdef Py_ssize_t size
    cdef secret passphrase  # data NULL: none was given
    cdef str error

    cdef int set_passphrase(self, passphrase) except -1
    cdef int keep_passphrase(self, const char *data, Py_ssize_t size) except -1


@cython.final
cdef class PemPart:
    cdef int number, line  # counted from 1
    cdef bytes label
    cdef str trouble  # with its lines, in words; then there is no part behind it
    cdef Py_ssize_t start, end  # offsets in the source

    cdef str place(self)


cdef struct pem_block:
    char *label
    char *header
    unsigned char *data
    long size  # of what is in `data`: less than `allocated` after a decryption
    long allocated


cdef list pem_parts(Source source)
cdef BIO *open_part(Source source, PemPart part) except NULL
cdef BIO *open_text(Source source) except NULL
cdef bint next_block(BIO *bio, pem_block *block) noexcept nogil
cdef void free_block(pem_block *block) noexcept nogil

cdef str openssl_reason()
cdef bint contains(Source source, bytes wanted) noexcept
cdef str refuse_der(Source source, str wanted)
cdef str refuse_pem(Source source, str wanted, bytes other)
cdef str refuse_text(Source source, str wanted, bytes other)
cdef str refuse_block(const pem_block *block, str wanted)
