"""Files of authorities and revocation lists, each read once for all contexts, and again when it has changed.

Owns an X509_STORE a file, to which nobody adds; the contexts that trust nobody else share it. Reading certifi's 140 certificates takes
some 15 ms.
"""

cimport cython

cimport openssl_ssl as ssl
from openssl_err cimport ERR_clear_error
from openssl_ssl cimport X509_OBJECT, X509_STORE
from sslsock.core.files cimport state_of

cdef enum:
    FILES = 32  # that are kept

cdef dict kept = {}  # path -> FileStore, the least recently used first
# Its critical section is that of `kept`. The dict's own is taken by each operation: who takes one twice lets go of it meanwhile.
cdef object keeping = object()


@cython.final
@cython.auto_pickle(False)
cdef class FileStore:
    cdef X509_STORE *store
    cdef object state  # of the file when it was read

    def __dealloc__(self):
        ssl.X509_STORE_free(self.store)


cdef X509_STORE *file_store(bytes path) except? NULL:
    """What X509_STORE_load_file(3) makes of the file, with a reference for the caller; NULL: OpenSSL's error queue says why not."""
    cdef FileStore found
    cdef const char *name = path
    cdef int loaded
    state = state_of(path)  # before it is read: a change meanwhile then shows
    with cython.critical_section(keeping):
        found = kept.get(path)
    if found is None or state is None or found.state != state:
        found = FileStore()
        found.state = state
        found.store = ssl.X509_STORE_new()
        if found.store == NULL:
            raise MemoryError
        with nogil:
            loaded = ssl.X509_STORE_load_file(found.store, name)
        if loaded != 1:
            return NULL
        ERR_clear_error()
    with cython.critical_section(keeping):  # where others have dropped it meanwhile, it is kept again
        kept.pop(path, None)
        kept[path] = found
        if len(kept) > FILES:
            del kept[next(iter(kept))]
    if ssl.X509_STORE_up_ref(found.store) != 1:
        raise MemoryError
    return found.store


cdef int add_store(X509_STORE *store, X509_STORE *other) except -1:
    """Have `store` know what `other` does: by reference, nothing is copied. 0, or 1: OpenSSL's error queue says why not."""
    cdef ssl.OPENSSL_OBJECT_STACK *objects
    cdef X509_OBJECT *item
    cdef int index, kind, added = 1
    ssl.X509_STORE_lock(other)  # a handshake may add what it finds in a folder
    objects = ssl.X509_STORE_get0_objects(other)
    for index in range(ssl.sk_X509_OBJECT_num(objects)):
        item = ssl.sk_X509_OBJECT_value(objects, index)
        kind = ssl.X509_OBJECT_get_type(item)
        if kind == ssl.X509_LU_X509:
            added = ssl.X509_STORE_add_cert(store, ssl.X509_OBJECT_get0_X509(item))
        elif kind == ssl.X509_LU_CRL:
            added = ssl.X509_STORE_add_crl(store, ssl.X509_OBJECT_get0_X509_CRL(item))
        if added != 1:
            break
    ssl.X509_STORE_unlock(other)
    return added != 1
