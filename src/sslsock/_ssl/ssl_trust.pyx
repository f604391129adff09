"""Whom a context trusts: the part of `_SSLContext` that has an X509_STORE.

A file is read once for all contexts (core/file_store.pyx), and so is what the system trusts (core/system_store.pyx). A context whose
authorities come from one of them shares its store, and gets one of its own when something is added.
"""

import os

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.limits cimport INT_MAX

cimport openssl_ssl as ssl
from openssl_err cimport (
    ERR_GET_LIB, ERR_GET_REASON, ERR_LIB_PEM, ERR_clear_error, ERR_peek_last_error, PEM_R_NO_START_LINE)
from openssl_ssl cimport BIO, X509, X509_OBJECT, X509_STORE
from openssl_x509 cimport X509_check_ca, X509_free
from sslsock._ssl.ssl_arguments cimport path_bytes
from sslsock._ssl.ssl_certificate cimport certificate_der, decode_certificate
from sslsock._ssl.ssl_error cimport library_error
from sslsock._ssl.ssl_hooks cimport HookedContext, begin_change, end_change
from sslsock._ssl.ssl_session cimport KeptSessions
from sslsock.core.file_store cimport add_store, file_store
from sslsock.core.files cimport check_file
from sslsock.core.system_store cimport add_system_folder, system_store

cdef extern from "module_compat.h" nogil:
    int ERR_LIB_X509, X509_R_CERT_ALREADY_IN_HASH_TABLE


cdef class TrustingContext(HookedContext):
    cdef int forget_sessions(self) except -1:
        """After a change of what a peer is verified by: a resumption verifies nothing anew."""
        if self.sessions is not None:
            self.sessions = KeptSessions()
        return 0

    @cython.critical_section
    def load_verify_locations(self, cafile=None, capath=None, cadata=None):
        cdef bytes file = None, folder = None
        if cafile is None and capath is None and cadata is None:
            raise TypeError("cafile, capath and cadata cannot be all omitted")
        if cafile is not None:
            file = path_bytes(cafile, "cafile should be a valid filesystem path")
        if capath is not None:
            folder = path_bytes(capath, "capath should be a valid filesystem path")
        ERR_clear_error()
        if cadata is not None:
            self.add_certificates(cadata)
        if file is not None:
            self.add_file(file)
        if folder is not None:
            self.add_folder(folder)

    cdef int add_certificates(self, given) except -1:
        """Of PEM text or of DER that follows one another, into the store."""
        cdef Py_buffer view
        cdef bint pem = isinstance(given, str)
        if pem:
            try:
                given = given.encode("ascii")
            except UnicodeEncodeError:
                raise TypeError("cadata should be an ASCII string or a bytes-like object") from None
        try:
            PyObject_GetBuffer(given, &view, PyBUF_SIMPLE)
        except TypeError:
            raise TypeError("cadata should be an ASCII string or a bytes-like object") from None
        try:
            if view.len == 0:
                raise ValueError("Empty certificate data")
            if view.len > INT_MAX:
                raise OverflowError("Certificate data is too long.")
            self.add_from_memory(<const char *> view.buf, <int> view.len, pem)
        finally:
            PyBuffer_Release(&view)
        return 0

    cdef int add_from_memory(self, const char *data, int size, bint pem) except -1:
        cdef X509 *certificate = NULL
        cdef unsigned long error
        cdef int loaded = 0
        cdef X509_STORE *store = self.own_store()
        cdef BIO *bio = ssl.BIO_new_mem_buf(data, size)
        if bio == NULL:
            raise library_error()
        try:
            while pem or ssl.BIO_pending(bio) > 0:
                certificate = ssl.PEM_read_bio_X509(bio, NULL, NULL, NULL) if pem else ssl.d2i_X509_bio(bio, NULL)
                if certificate == NULL:
                    break
                if ssl.X509_STORE_add_cert(store, certificate) != 1:
                    error = ERR_peek_last_error()
                    if ERR_GET_LIB(error) != ERR_LIB_X509 or ERR_GET_REASON(error) != X509_R_CERT_ALREADY_IN_HASH_TABLE:
                        X509_free(certificate)
                        raise library_error()
                    ERR_clear_error()
                X509_free(certificate)
                loaded += 1
            error = ERR_peek_last_error()
            if loaded == 0:
                raise library_error(
                    ("no start line" if pem else "not enough data") + ": cadata does not contain a certificate")
            if certificate == NULL and not (
                    pem and ERR_GET_LIB(error) == ERR_LIB_PEM and ERR_GET_REASON(error) == PEM_R_NO_START_LINE):
                raise library_error()
            ERR_clear_error()
        finally:
            ssl.BIO_free(bio)
        return 0

    cdef int share(self, X509_STORE *store, bint system) except -1:
        """Take over a reference to a store of all contexts."""
        self.forget_sessions()
        begin_change(self)
        ssl.SSL_CTX_set1_cert_store(self.ctx, store)
        end_change(self)
        ssl.X509_STORE_free(store)
        self.shares_store = self.has_authorities = True
        self.shares_system = system
        return 0

    cdef X509_STORE *own_store(self) except NULL:
        """The context's store, to be added to."""
        cdef X509_STORE *shared = ssl.SSL_CTX_get_cert_store(self.ctx)
        cdef X509_STORE *own
        self.has_authorities = True
        self.forget_sessions()
        if not self.shares_store:
            return shared
        own = ssl.X509_STORE_new()
        if own == NULL:
            raise MemoryError
        if add_store(own, shared) != 0 or (self.shares_system and not add_system_folder(own)):
            ssl.X509_STORE_free(own)
            raise library_error()
        begin_change(self)
        ssl.SSL_CTX_set1_cert_store(self.ctx, own)
        end_change(self)
        ssl.X509_STORE_free(own)
        self.shares_store = self.shares_system = False
        return own

    cdef int add_file(self, bytes name) except -1:
        cdef X509_STORE *store
        cdef int added = 0
        check_file(os.fsdecode(name))  # OpenSSL does not say why it cannot read a file
        store = file_store(name)
        if store == NULL:
            raise library_error()
        if not self.has_authorities:
            return self.share(store, False)
        try:
            added = add_store(self.own_store(), store)
        finally:
            ssl.X509_STORE_free(store)
        if added != 0:
            raise library_error()
        return 0

    cdef int add_folder(self, bytes name) except -1:
        """Its certificates are read when they are needed."""
        cdef X509_STORE *store = self.own_store()
        cdef ssl.X509_LOOKUP *lookup
        cdef bint added
        begin_change(self)
        lookup = ssl.X509_STORE_add_lookup(store, ssl.X509_LOOKUP_hash_dir())
        added = lookup != NULL and ssl.X509_LOOKUP_add_dir(lookup, name, ssl.X509_FILETYPE_PEM) == 1
        end_change(self)
        if not added:
            raise library_error()
        return 0

    @cython.critical_section
    def set_default_verify_paths(self):
        cdef X509_STORE *system = NULL
        cdef int added = 0
        try:
            system = system_store()
        except ValueError:  # as CPython's: it has nothing to say about files that are not there or that are damaged
            ERR_clear_error()
        if system == NULL:
            return
        if not self.has_authorities:
            self.share(system, True)
            return
        try:
            added = add_store(self.own_store(), system)
        finally:
            ssl.X509_STORE_free(system)
        if added == 0:
            begin_change(self)
            added = not add_system_folder(ssl.SSL_CTX_get_cert_store(self.ctx))
            end_change(self)
        if added != 0:
            raise library_error()

    @cython.critical_section
    def cert_store_stats(self):
        """Returns quantities of loaded X.509 certificates.

        X.509 certificates with a CA extension and certificate revocation lists
        inside the context's cert store.

        NOTE: Certificates in a capath directory aren't loaded unless they have
        been used at least once.
        """
        cdef X509_STORE *store = ssl.SSL_CTX_get_cert_store(self.ctx)
        cdef ssl.OPENSSL_OBJECT_STACK *objects
        cdef X509_OBJECT *item
        cdef int index, certificates = 0, lists = 0, authorities = 0
        ssl.X509_STORE_lock(store)  # a handshake may add what it finds in a folder
        objects = ssl.X509_STORE_get0_objects(store)
        for index in range(ssl.sk_X509_OBJECT_num(objects)):
            item = ssl.sk_X509_OBJECT_value(objects, index)
            if ssl.X509_OBJECT_get_type(item) == ssl.X509_LU_X509:
                certificates += 1
                authorities += X509_check_ca(ssl.X509_OBJECT_get0_X509(item)) != 0
            elif ssl.X509_OBJECT_get_type(item) == ssl.X509_LU_CRL:
                lists += 1
        ssl.X509_STORE_unlock(store)
        return {"x509": certificates, "crl": lists, "x509_ca": authorities}

    @cython.critical_section
    def get_ca_certs(self, bint binary_form=False):
        """Returns a list of dicts with information of loaded CA certs.

        If the optional argument is True, returns a DER-encoded copy of the CA
        certificate.

        NOTE: Certificates in a capath directory aren't loaded unless they have
        been used at least once.
        """
        cdef ssl.OPENSSL_STACK *certificates = ssl.X509_STORE_get1_all_certs(ssl.SSL_CTX_get_cert_store(self.ctx))
        cdef X509 *certificate
        cdef int index
        cdef list found = []
        if certificates == NULL:
            raise MemoryError
        try:
            for index in range(ssl.sk_X509_num(certificates)):
                certificate = ssl.sk_X509_value(certificates, index)
                if X509_check_ca(certificate):
                    found.append(certificate_der(certificate) if binary_form else decode_certificate(certificate))
        finally:
            ssl.free_X509_stack(certificates)
        return found
