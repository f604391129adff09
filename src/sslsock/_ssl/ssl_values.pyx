"""What `_ssl` has beside its classes: constants, and functions of OpenSSL that need no connection."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.limits cimport INT_MAX, INT_MIN

cimport openssl_ssl as ssl
cimport ssl_values as values
from openssl_err cimport ERR_clear_error, ERR_get_error, ERR_reason_error_string
from openssl_x509 cimport ASN1_OBJECT, BIO, BIO_free, OPENSSL_free, X509, X509_free
from sslsock._ssl.ssl_certificate cimport decode_certificate, object_text

import os
import sys
import warnings
from operator import index as as_integer

from sslsock._ssl.ssl_error import SSLError
from sslsock.core import build


# ---- constants ---------------------------------------------------------------------------------------------


# As CPython was before it chose its own suites, since then, and where it was told to leave that to OpenSSL.
cdef str CIPHERS_UNTIL_3_9 = "DEFAULT:!aNULL:!eNULL:!MD5:!3DES:!DES:!RC4:!IDEA:!SEED:!aDSS:!SRP:!PSK"
cdef str CIPHERS = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
cdef tuple CIPHERS_OF_OPENSSL = ("ALL:!COMPLEMENTOFDEFAULT:!eNULL", "PROFILE=SYSTEM")  # upstream's, Fedora's


cdef bint accepts_ciphers(str text):
    cdef ssl.SSL_CTX *context = ssl.SSL_CTX_new(ssl.TLS_client_method())
    try:
        return context != NULL and ssl.SSL_CTX_set_cipher_list(context, text.encode("utf-8", "replace")) == 1
    finally:
        ssl.SSL_CTX_free(context)
        ERR_clear_error()


cdef str default_ciphers():
    """The interpreter's own, which its builder may have chosen, unless they are words that only another OpenSSL knows, as
    Fedora's "PROFILE=SYSTEM" is.
    """
    chosen = usual = CIPHERS if sys.version_info >= (3, 10) else CIPHERS_UNTIL_3_9
    try:
        from _ssl import _DEFAULT_CIPHERS as chosen
    except ImportError:
        pass
    if chosen in (CIPHERS, CIPHERS_UNTIL_3_9, CIPHERS_OF_OPENSSL[0]) or accepts_ciphers(chosen):
        return chosen
    return usual


cdef tuple version_parts(unsigned long number):
    """As `ssl.OPENSSL_VERSION_INFO` takes it apart, which is how OpenSSL numbered its releases before 3.0."""
    return number >> 28 & 0xFF, number >> 20 & 0xFF, number >> 12 & 0xFF, number >> 4 & 0xFF, number & 0xF


cdef dict all_constants():
    cdef int index
    cdef dict found = {values.ssl_values[index].name.decode("ascii"): values.ssl_values[index].value
                       for index in range(values.SSL_VALUES)}
    for index in range(values.SSL_SWITCHES):
        found[values.ssl_switches[index].name.decode("ascii")] = bool(values.ssl_switches[index].on)
    found["OPENSSL_VERSION_NUMBER"] = ssl.OpenSSL_version_num()
    found["OPENSSL_VERSION_INFO"] = version_parts(ssl.OpenSSL_version_num())
    found["OPENSSL_VERSION"] = ssl.OpenSSL_version(ssl.OPENSSL_VERSION).decode("utf-8", "replace")
    found["_OPENSSL_API_VERSION"] = version_parts(values.OPENSSL_VERSION_NUMBER)
    found["_DEFAULT_CIPHERS"] = default_ciphers()
    return found


constants = all_constants()
# Debian and Fedora build the interpreter so (--with-ssl-default-suites=openssl): suites, the lowest protocol version and the security
# level of a new context are OpenSSL's, which reads them in the system's openssl.cnf.
left_to_openssl = constants["_DEFAULT_CIPHERS"] in CIPHERS_OF_OPENSSL


# ---- randomness --------------------------------------------------------------------------------------------


cdef int as_int(value) except? -1:
    number = as_integer(value)
    if not INT_MIN <= number <= INT_MAX:
        raise OverflowError("Python int too large to convert to C int")
    return number


cdef bytes random_bytes(value):
    cdef int size = as_int(value), made
    cdef unsigned long code
    cdef const char *words
    cdef bytes data
    cdef unsigned char *target
    if size < 0:
        raise ValueError("num must be positive")
    data = PyBytes_FromStringAndSize(NULL, size)
    target = <unsigned char *> PyBytes_AS_STRING(data)
    with nogil:
        made = values.RAND_bytes(target, size)
    if made == 1:
        return data
    code = ERR_get_error()
    words = ERR_reason_error_string(code)
    ERR_clear_error()
    raise SSLError(code, words.decode("utf-8", "replace") if words != NULL else None)


def RAND_add(string, entropy, /):
    """Mix string into the OpenSSL PRNG state.

    entropy (a float) is a lower bound on the entropy contained in
    string.  See RFC 4086.
    """
    cdef Py_buffer view
    cdef double amount
    cdef Py_ssize_t done = 0, size
    data = string.encode("utf-8") if isinstance(string, str) else string
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        amount = entropy
        while done < view.len:
            size = min(view.len - done, <Py_ssize_t> INT_MAX)
            values.RAND_add(<const char *> view.buf + done, <int> size, amount)
            done += size
    finally:
        PyBuffer_Release(&view)


def RAND_bytes(n, /):
    """Generate n cryptographically strong pseudo-random bytes."""
    return random_bytes(n)


def RAND_pseudo_bytes(n, /):
    """Generate n pseudo-random bytes.

    Return a pair (bytes, is_cryptographic).  is_cryptographic is True
    if the bytes generated are cryptographically strong.
    """
    if sys.version_info >= (3, 10):
        warnings.warn("ssl.RAND_pseudo_bytes() is deprecated", DeprecationWarning, stacklevel=1)
    return random_bytes(n), True


def RAND_status():
    """Returns True if the OpenSSL PRNG has been seeded with enough data and False if not.

    It is necessary to seed the PRNG with RAND_add() on some platforms before
    using the ssl() function.
    """
    return values.RAND_status() == 1


# ---- objects, paths, algorithms ----------------------------------------------------------------------------


cdef tuple object_parts(const ASN1_OBJECT *known):
    cdef int nid = values.OBJ_obj2nid(known)
    if nid == values.NID_undef:
        raise ValueError("Unknown object")
    short = values.OBJ_nid2sn(nid).decode("utf-8")
    # An object without a number, as the hash of a suite without one is, has None there.
    return nid, short, values.OBJ_nid2ln(nid).decode("utf-8"), object_text(known, True) or None


def txt2obj(txt, name=False):
    """Lookup NID, short name, long name and OID of an ASN1_OBJECT.

    By default objects are looked up by OID. With name=True short and
    long name are also matched.
    """
    cdef ASN1_OBJECT *known
    cdef bytes encoded
    if not isinstance(txt, str):
        raise TypeError(f"txt2obj() argument 'txt' must be str, not {type(txt).__name__}")
    encoded = txt.encode("utf-8")
    if b"\0" in encoded:
        raise ValueError("embedded null character")
    known = values.OBJ_txt2obj(encoded, not name)
    if known == NULL:
        ERR_clear_error()
        raise ValueError(f"unknown object '{encoded[:100].decode('utf-8', 'replace')}'")
    try:
        return object_parts(known)
    finally:
        values.ASN1_OBJECT_free(known)


def nid2obj(nid, /):
    """Lookup NID, short name, long name and OID of an ASN1_OBJECT by NID."""
    cdef int number = as_int(nid)
    cdef ASN1_OBJECT *known
    if number < values.NID_undef:
        raise ValueError("NID must be positive.")
    known = values.OBJ_nid2obj(number)
    if known == NULL:
        ERR_clear_error()
        raise ValueError(f"unknown NID {number}")
    try:
        return object_parts(known)
    finally:
        values.ASN1_OBJECT_free(known)


def get_default_verify_paths():
    """Return search paths and environment vars that are used by SSLContext's set_default_verify_paths() to load default CAs.

    The values are 'cert_file_env', 'cert_file', 'cert_dir_env', 'cert_dir'.
    """
    bundle = None
    if build.linked_statically:
        from sslsock.core import trust_store
        bundle = trust_store.bundle_to_add(build.default_certificate_file, build.default_certificate_folder)
    return (
        values.X509_get_default_cert_file_env().decode("ascii"),
        bundle or build.default_certificate_file,
        values.X509_get_default_cert_dir_env().decode("ascii"),
        build.default_certificate_folder,
    )


def get_sigalgs():
    """Return a list of known signature algorithm names."""
    cdef char *names = values.compat_builtin_sigalgs()
    if names == NULL:
        ERR_clear_error()
        raise NotImplementedError("Getting signature algorithms requires OpenSSL 3.4 or later.")
    try:
        return names.decode("ascii").split(":")
    finally:
        OPENSSL_free(names)


def _test_decode_cert(path, /):
    """The first certificate of a PEM file, as getpeercert() shows one."""
    cdef bytes encoded = os.fsencode(path)
    cdef BIO *bio
    cdef X509 *x
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    bio = values.BIO_new_file(encoded, "rb")
    if bio == NULL:
        ERR_clear_error()
        raise SSLError("Can't open file")
    x = values.PEM_read_bio_X509(bio, NULL, NULL, NULL)
    BIO_free(bio)
    if x == NULL:
        ERR_clear_error()
        raise SSLError("Error decoding PEM-encoded file")
    try:
        return decode_certificate(x)
    finally:
        X509_free(x)
