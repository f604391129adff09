"""The authorities that the system trusts: read once for all contexts, and again when their files have changed.

Owns one X509_STORE, to which nobody adds: contexts that trust nobody else share it, the others take its certificates over.
Reading Debian's 140 takes some 25 ms.
"""

import os

cimport cython

cimport openssl_ssl as ssl
from openssl_err cimport ERR_clear_error
from openssl_ssl cimport X509_STORE
from sslsock.core.files cimport state_of

from sslsock.core import build


cdef object bundle_to_add():
    """The file to read beside OpenSSL's own two places: a path or None."""
    if not build.linked_statically:
        return None
    from sslsock.core import trust_store  # only the wheels need it
    return trust_store.bundle_to_add(build.default_certificate_file, build.default_certificate_folder)


def system_stamp():
    """Where the system's authorities are, and a mark of each place that changes with its contents: hashable."""
    # X509_get_default_cert_file(3): the variables come before the places that were compiled in.
    places = (
        os.environ.get("SSL_CERT_FILE") or build.default_certificate_file,
        os.environ.get("SSL_CERT_DIR") or build.default_certificate_folder,
        bundle_to_add(),
    )
    return tuple([(place, state_of(place)) for place in places if place is not None])


@cython.final
@cython.auto_pickle(False)
cdef class SystemStore:
    """The store as it was read, and the stamp of what was read."""

    cdef X509_STORE *store
    cdef object stamp

    def __cinit__(self):
        self.stamp = system_stamp()  # before it is read: a change meanwhile then shows
        bundle = bundle_to_add()
        ERR_clear_error()
        self.store = ssl.X509_STORE_new()
        if self.store == NULL:
            raise MemoryError
        if ssl.X509_STORE_set_default_paths(self.store) != 1:
            raise ValueError("the system's trust store cannot be used")
        if bundle is not None and ssl.X509_STORE_load_file(self.store, os.fsencode(bundle)) != 1:
            raise ValueError(f"the system's trust store {bundle} cannot be used")
        ERR_clear_error()

    def __dealloc__(self):
        ssl.X509_STORE_free(self.store)


cdef dict kept = {}  # the one store, under its class: a dict may be used by any thread


cdef X509_STORE *system_store() except NULL:
    """The store, with a reference for the caller. ValueError."""
    cdef SystemStore store = kept.get(SystemStore)
    if store is None or store.stamp != system_stamp():
        store = kept[SystemStore] = SystemStore()
    if ssl.X509_STORE_up_ref(store.store) != 1:
        raise MemoryError
    return store.store


cdef int add_system_authorities(X509_STORE *store) except -1:
    """Have `store` trust them besides. ValueError."""
    cdef X509_STORE *system = system_store()
    cdef ssl.OPENSSL_STACK *certificates = ssl.X509_STORE_get1_all_certs(system)
    cdef int index
    cdef bint taken = certificates != NULL
    ssl.X509_STORE_free(system)
    if taken:
        for index in range(ssl.sk_X509_num(certificates)):
            taken = taken and ssl.X509_STORE_add_cert(store, ssl.sk_X509_value(certificates, index)) == 1
        ssl.free_X509_stack(certificates)
    if not taken or not add_system_folder(store):
        ERR_clear_error()
        raise ValueError("the system's trust store cannot be used")
    return 0


cdef bint add_system_folder(X509_STORE *store) noexcept:
    """Its certificates are read when they are needed."""
    cdef ssl.X509_LOOKUP *lookup = ssl.X509_STORE_add_lookup(store, ssl.X509_LOOKUP_hash_dir())
    return lookup != NULL and ssl.X509_LOOKUP_add_dir(lookup, NULL, ssl.X509_FILETYPE_DEFAULT) == 1
