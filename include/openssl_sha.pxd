"""SHA-256 in one call: <openssl/sha.h>.

Not `hashlib`: that loads the interpreter's own libcrypto, which reads the host's openssl.cnf.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

cdef extern from "openssl/sha.h" nogil:
    enum:
        SHA256_DIGEST_LENGTH

    unsigned char *SHA256(const unsigned char *data, size_t count, unsigned char *digest)


cdef inline bytes sha256(bytes data):
    cdef bytes digest = PyBytes_FromStringAndSize(NULL, SHA256_DIGEST_LENGTH)
    if SHA256(<const unsigned char *> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data),
              <unsigned char *> PyBytes_AS_STRING(digest)) == NULL:
        raise MemoryError
    return digest
