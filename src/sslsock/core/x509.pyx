"""Certificates and keys: values, made from bytes once and never changed.

What cannot be loaded is no exception: the object is `null` and `error_string` says why. Both classes are
final and all their state is set in `__cinit__`, so that neither a subclass nor a second `__init__` can change
one that is in use.

PEM text is taken apart by PEM_read_bio(3), block by block, and each block is decoded by the function for its
label, in place of PEM_read_bio_PrivateKey(3) and its kin: they hide whether the text, the passphrase or the
key is at fault, and ask for a passphrase on the terminal where no callback is given.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.limits cimport INT_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strcmp
from libc.time cimport tm

from openssl_err cimport (
    ERR_GET_LIB,
    ERR_GET_REASON,
    ERR_LIB_EVP,
    ERR_LIB_PEM,
    ERR_LIB_PKCS12,
    ERR_LIB_PROV,
    ERR_R_UNSUPPORTED,
    EVP_R_BAD_DECRYPT,
    EVP_R_UNKNOWN_PBE_ALGORITHM,
    EVP_R_UNSUPPORTED_ALGORITHM,
    EVP_R_UNSUPPORTED_CIPHER,
    PEM_R_BAD_DECRYPT,
    PEM_R_BAD_END_LINE,
    PEM_R_NO_START_LINE,
    PKCS12_R_DECODE_ERROR,
    PKCS12_R_PKCS12_CIPHERFINAL_ERROR,
    PROV_R_BAD_DECRYPT,
    ERR_clear_error,
    ERR_get_error,
    ERR_peek_error,
    ERR_peek_last_error,
    ERR_reason_error_string,
)
from openssl_x509 cimport *

import ipaddress
import os
from datetime import datetime, timezone
from enum import IntEnum


cdef extern from "<string.h>" nogil:
    void *memmem(const void *text, size_t size, const void *wanted, size_t wanted_size)


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


class SslEncoding(IntEnum):
    """How a certificate or a key is written."""

    PEM = 0
    DER = 1


class KeyType(IntEnum):
    """Which half of a key pair an `SslKey` is."""

    PUBLIC = 0
    PRIVATE = 1


class KeyAlgorithm(IntEnum):
    """What a key is made for.

    RSA_PSS is a key bound to RSASSA-PSS (RFC 4055). ML_DSA stands for its three sizes and needs OpenSSL 3.5.
    """

    RSA = 0
    DSA = 1
    EC = 2
    ED25519 = 3
    ED448 = 4
    ML_DSA = 5
    RSA_PSS = 6


cdef tuple ALGORITHM_NAMES = (
    (b"RSA", KeyAlgorithm.RSA),
    (b"EC", KeyAlgorithm.EC),
    (b"ED25519", KeyAlgorithm.ED25519),
    (b"ED448", KeyAlgorithm.ED448),
    (b"RSA-PSS", KeyAlgorithm.RSA_PSS),
    (b"DSA", KeyAlgorithm.DSA),
    (b"ML-DSA-44", KeyAlgorithm.ML_DSA),
    (b"ML-DSA-65", KeyAlgorithm.ML_DSA),
    (b"ML-DSA-87", KeyAlgorithm.ML_DSA),
)

# RFC 7468 and openssl/pem.h: the labels of PEM blocks, in words. A label that is not here is never repeated
# in an error.
cdef dict PEM_KINDS = {
    b"CERTIFICATE": "a certificate",
    b"X509 CERTIFICATE": "a certificate",
    b"TRUSTED CERTIFICATE": "a certificate with OpenSSL's own trust settings",
    b"CERTIFICATE REQUEST": "a certificate request",
    b"NEW CERTIFICATE REQUEST": "a certificate request",
    b"X509 CRL": "a certificate revocation list",
    b"PRIVATE KEY": "a private key",
    b"RSA PRIVATE KEY": "a private key",
    b"DSA PRIVATE KEY": "a private key",
    b"EC PRIVATE KEY": "a private key",
    b"ENCRYPTED PRIVATE KEY": "an encrypted private key",
    b"OPENSSH PRIVATE KEY": "a private key in OpenSSH's own format",
    b"PUBLIC KEY": "a public key",
    b"RSA PUBLIC KEY": "a public key",
    b"PKCS7": "a PKCS #7 container",
    b"CMS": "a CMS container",
    b"EC PARAMETERS": "key parameters",
    b"DSA PARAMETERS": "key parameters",
    b"DH PARAMETERS": "key parameters",
}


# ---- what the caller gave ----------------------------------------------------------------------------------


cdef struct secret:
    char *data  # owned, wiped before it is freed
    size_t size


@cython.final
@cython.internal
@cython.auto_pickle(False)
cdef class Source:
    """One load: the caller's bytes, borrowed; a copy of the passphrase; and what went wrong."""

    cdef Py_buffer view
    cdef bint view_held
    cdef object text  # keeps the memory of `data` alive where it belongs to a str
    cdef const unsigned char *data
    cdef Py_ssize_t size
    cdef secret passphrase  # data NULL: none was given
    cdef str error

    def __cinit__(self, encoded, bint binary):
        cdef Py_ssize_t size = 0
        self.error = ""
        if isinstance(encoded, str):
            if binary:
                raise TypeError("DER is binary: a bytes-like object is required, not 'str'")
            # ASCII is read where it lies; anything else around the PEM blocks is skipped, so its bytes do not
            # matter.
            self.text = encoded if encoded.isascii() else encoded.encode("utf-8", "replace").decode("utf-8")
            self.data = <const unsigned char *> PyUnicode_AsUTF8AndSize(self.text, &size)
            self.size = size
        else:
            PyObject_GetBuffer(encoded, &self.view, PyBUF_SIMPLE)
            self.view_held = True
            self.data = <const unsigned char *> self.view.buf
            self.size = self.view.len
        # BIO_new_mem_buf(3) counts in int.
        if self.size > INT_MAX:
            self.error = "the data is longer than 2 GiB"
        elif self.size == 0:
            self.error = "the data is empty"

    def __dealloc__(self):
        if self.view_held:
            PyBuffer_Release(&self.view)
        if self.passphrase.data != NULL:
            OPENSSL_cleanse(self.passphrase.data, self.passphrase.size)
            free(self.passphrase.data)

    cdef int set_passphrase(self, passphrase) except -1:
        cdef Py_buffer view
        cdef bytes encoded
        if isinstance(passphrase, str):
            try:
                encoded = passphrase.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                # `from None`: the codec's exception holds the passphrase.
                raise ValueError("the passphrase has characters that cannot be written in UTF-8") from None
            try:
                return self.keep_passphrase(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
            finally:
                # Nobody else has this object: bytes are shared by the interpreter only up to one byte long.
                if PyBytes_GET_SIZE(encoded) > 1:
                    OPENSSL_cleanse(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
        PyObject_GetBuffer(passphrase, &view, PyBUF_SIMPLE)
        try:
            return self.keep_passphrase(<const char *> view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int keep_passphrase(self, const char *data, Py_ssize_t size) except -1:
        if size > INT_MAX:
            raise ValueError("the passphrase is longer than 2 GiB")
        # One byte more: an empty passphrase is one too, and malloc(0) may be NULL.
        self.passphrase.data = <char *> malloc(size + 1)
        if self.passphrase.data == NULL:
            raise MemoryError
        if size:
            memcpy(self.passphrase.data, data, size)
        self.passphrase.size = size
        return 0


cdef int give_passphrase(char *buffer, int size, int writing, void *argument) noexcept nogil:
    """A pem_password_cb, see pem_password_cb(3): never the terminal."""
    cdef secret *passphrase = <secret *> argument
    if passphrase.size > <size_t> size:
        return -1
    memcpy(buffer, passphrase.data, passphrase.size)
    return <int> passphrase.size


# ---- PEM blocks --------------------------------------------------------------------------------------------


cdef struct pem_block:
    char *label
    char *header
    unsigned char *data
    long size  # of what is in `data`: less than `allocated` after a decryption
    long allocated


cdef BIO *open_text(Source source) except NULL:
    cdef const unsigned char *data = source.data
    cdef int size = <int> source.size
    # A byte order mark, as some editors write, would hide the first BEGIN line.
    if size >= 3 and data[0] == 0xEF and data[1] == 0xBB and data[2] == 0xBF:
        data += 3
        size -= 3
    cdef BIO *bio = BIO_new_mem_buf(data, size)
    if bio == NULL:
        ERR_clear_error()
        raise MemoryError
    return bio


cdef bint next_block(BIO *bio, pem_block *block) noexcept nogil:
    """The next block of the text. False: the error queue says whether there is none or it is damaged."""
    block.size = 0
    if PEM_read_bio(bio, &block.label, &block.header, &block.data, &block.size) != 1:
        return False
    block.allocated = block.size
    return True


cdef void free_block(pem_block *block) noexcept nogil:
    OPENSSL_free(block.label)
    OPENSSL_free(block.header)
    OPENSSL_clear_free(block.data, block.allocated)


cdef bint is_certificate(const char *label) noexcept nogil:
    return strcmp(label, "CERTIFICATE") == 0 or strcmp(label, "X509 CERTIFICATE") == 0


cdef bint is_private_key(const char *label) noexcept nogil:
    return (
        strcmp(label, "PRIVATE KEY") == 0
        or strcmp(label, "ENCRYPTED PRIVATE KEY") == 0
        or strcmp(label, "RSA PRIVATE KEY") == 0
        or strcmp(label, "EC PRIVATE KEY") == 0
        or strcmp(label, "DSA PRIVATE KEY") == 0
    )


cdef bint is_public_key(const char *label) noexcept nogil:
    return strcmp(label, "PUBLIC KEY") == 0 or strcmp(label, "RSA PUBLIC KEY") == 0


# ---- errors in words ---------------------------------------------------------------------------------------


cdef str openssl_reason():
    """The reason of the oldest error in the queue: the later ones only follow from it."""
    cdef unsigned long code = ERR_peek_error()
    cdef const char *text = ERR_reason_error_string(code) if code else NULL
    if text != NULL:
        return text.decode("ascii", "replace")
    return f"error {code:#x}" if code else "no reason given"


cdef bint contains(Source source, bytes wanted) noexcept:
    return memmem(source.data, source.size, PyBytes_AS_STRING(wanted), PyBytes_GET_SIZE(wanted)) != NULL


cdef long long declared_size(const unsigned char *data, Py_ssize_t size) noexcept nogil:
    """Bytes of the SEQUENCE at `data`, by its own header (X.690, 8.1).

    -1: there is none of definite length, or its header is not whole.
    """
    cdef long long length
    cdef Py_ssize_t count, index
    if size < 2 or data[0] != 0x30:
        return -1
    if data[1] < 0x80:
        return 2 + data[1]
    count = data[1] & 0x7F
    if count == 0 or count > 4 or size < 2 + count:
        return -1
    length = 0
    for index in range(count):
        length = length << 8 | data[2 + index]
    return 2 + count + length


cdef str kind_of_der(const unsigned char *data, Py_ssize_t size):
    """What the DER at `data` is, in the words of PEM_KINDS; an empty string where nothing fits."""
    cdef const unsigned char *p = data
    cdef X509 *certificate = d2i_X509(NULL, &p, size)
    if certificate != NULL:
        X509_free(certificate)
        return "a certificate"
    p = data
    cdef PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, size)
    if info != NULL:
        PKCS8_PRIV_KEY_INFO_free(info)
        return "a private key"
    p = data
    cdef X509_SIG *encrypted = d2i_X509_SIG(NULL, &p, size)
    if encrypted != NULL:
        X509_SIG_free(encrypted)
        return "an encrypted private key"
    p = data
    cdef X509_REQ *request = d2i_X509_REQ(NULL, &p, size)
    if request != NULL:
        X509_REQ_free(request)
        return "a certificate request"
    p = data
    cdef X509_CRL *crl = d2i_X509_CRL(NULL, &p, size)
    if crl != NULL:
        X509_CRL_free(crl)
        return "a certificate revocation list"
    p = data
    cdef PKCS12 *container = d2i_PKCS12(NULL, &p, size)
    if container != NULL:
        PKCS12_free(container)
        return "a PKCS #12 container"
    p = data
    cdef EVP_PKEY *key = d2i_PUBKEY(NULL, &p, size)
    if key != NULL:
        EVP_PKEY_free(key)
        return "a public key"
    p = data
    key = d2i_AutoPrivateKey(NULL, &p, size)
    if key != NULL:
        EVP_PKEY_free(key)
        return "a private key"
    return ""


cdef str refuse_der(Source source, str wanted):
    """Why `source` could not be loaded as DER. OpenSSL's reason is in the queue."""
    cdef long long declared = declared_size(source.data, source.size)
    reason = openssl_reason()
    if source.data[0] != 0x30:
        return "this is PEM, not DER" if contains(source, b"-----BEGIN ") else "this is not DER"
    if declared > source.size:
        return f"the data is truncated: it has {source.size} of {declared} bytes"
    if declared < 0 and source.size < 6:
        return "the data is truncated"
    kind = kind_of_der(source.data, source.size)
    if kind and kind != wanted:
        return f"this is {kind}, not {wanted}"
    if kind and 0 <= declared < source.size:
        return f"bytes too many after {wanted}: {source.size - declared}"
    return f"this is not {wanted}, or it is damaged (OpenSSL: {reason})"


cdef str refuse_pem(Source source, str wanted, bytes other):
    """Why `source` has no PEM block that is wanted. `other`: the label of a block that it has, or None.

    The last error in the queue is that of PEM_read_bio.
    """
    cdef unsigned long code = ERR_peek_last_error()
    reason = openssl_reason()
    if ERR_GET_LIB(code) == ERR_LIB_PEM and ERR_GET_REASON(code) == PEM_R_BAD_END_LINE:
        if not contains(source, b"-----END "):
            return "the PEM text is truncated: it has no END line"
    if ERR_GET_LIB(code) != ERR_LIB_PEM or ERR_GET_REASON(code) != PEM_R_NO_START_LINE:
        return f"the PEM text is damaged or truncated (OpenSSL: {reason})"
    if other is not None:
        kind = PEM_KINDS.get(other, "a PEM block of another kind")
        return f"this is {kind}, not {wanted}"
    if source.data[0] == 0x30 and kind_of_der(source.data, source.size):
        return "this is DER, not PEM"
    if contains(source, b"-----BEGIN "):
        return "the PEM text is damaged: its BEGIN line is not whole, or not at the start of a line"
    return f"this is not PEM: it has no BEGIN line (OpenSSL: {reason})"


cdef str refuse_block(const pem_block *block, str wanted):
    """Why a PEM block with the right label could not be loaded. OpenSSL's reason is in the queue."""
    cdef long long declared = declared_size(block.data, block.size)
    if declared > block.size:
        return f"{wanted} in the PEM text is truncated: it has {block.size} of {declared} bytes"
    return f"{wanted} in the PEM text is damaged, or unknown to this OpenSSL (OpenSSL: {openssl_reason()})"


cdef str refuse_passphrase():
    """Why a key could not be decrypted. Empties the queue: any of its errors may be the one that tells."""
    cdef unsigned long code
    cdef int library, number
    cdef bint unsupported = False, wrong = False
    reason = openssl_reason()
    while True:
        code = ERR_get_error()
        if code == 0:
            break
        library = ERR_GET_LIB(code)
        number = ERR_GET_REASON(code)
        if number == ERR_R_UNSUPPORTED or (
            library == ERR_LIB_EVP
            and number in (EVP_R_UNSUPPORTED_ALGORITHM, EVP_R_UNKNOWN_PBE_ALGORITHM, EVP_R_UNSUPPORTED_CIPHER)
        ):
            unsupported = True
        elif (
            (library == ERR_LIB_EVP and number == EVP_R_BAD_DECRYPT)
            or (library == ERR_LIB_PROV and number == PROV_R_BAD_DECRYPT)
            or (library == ERR_LIB_PEM and number == PEM_R_BAD_DECRYPT)
            or (
                library == ERR_LIB_PKCS12
                and number in (PKCS12_R_PKCS12_CIPHERFINAL_ERROR, PKCS12_R_DECODE_ERROR)
            )
        ):
            wrong = True
    if unsupported:
        return f"the key is encrypted by a method that this OpenSSL does not offer (OpenSSL: {reason})"
    if wrong:
        return f"the passphrase is wrong (OpenSSL: {reason})"
    return f"the key could not be decrypted (OpenSSL: {reason})"


# ---- certificates ------------------------------------------------------------------------------------------


cdef X509 *certificate_from_der(Source source) except? NULL:
    cdef const unsigned char *p = source.data
    cdef X509 *certificate = d2i_X509(NULL, &p, source.size)
    if certificate != NULL and p == source.data + source.size:
        return certificate
    X509_free(certificate)
    source.error = refuse_der(source, "a certificate")
    return NULL


cdef X509 *certificate_from_pem(Source source) except? NULL:
    """The first certificate of the text, whatever else is before or after it."""
    cdef BIO *bio = open_text(source)
    cdef pem_block block
    cdef const unsigned char *p
    cdef X509 *certificate
    other = None
    try:
        while next_block(bio, &block):
            try:
                if is_certificate(block.label):
                    p = block.data
                    certificate = d2i_X509(NULL, &p, block.size)
                    if certificate == NULL:
                        source.error = refuse_block(&block, "the certificate")
                    return certificate
                if other is None:
                    other = <bytes> block.label
            finally:
                free_block(&block)
        source.error = refuse_pem(source, "a certificate", other)
        return NULL
    finally:
        BIO_free(bio)


cdef list certificates_from_der(Source source):
    cdef const unsigned char *p = source.data
    cdef const unsigned char *end = source.data + source.size
    cdef X509 *certificate
    cdef list found = []
    while p < end:
        certificate = d2i_X509(NULL, &p, end - p)
        if certificate == NULL:
            break
        found.append(SslCertificate.wrap(certificate))
    return found


cdef list certificates_from_pem(Source source):
    cdef BIO *bio = open_text(source)
    cdef pem_block block
    cdef const unsigned char *p
    cdef X509 *certificate
    cdef list found = []
    cdef size_t left
    try:
        while True:
            left = BIO_ctrl_pending(bio)
            if not next_block(bio, &block):
                # A damaged block is passed over; what follows it may be whole.
                if BIO_ctrl_pending(bio) < left:
                    ERR_clear_error()
                    continue
                return found
            try:
                if is_certificate(block.label):
                    p = block.data
                    certificate = d2i_X509(NULL, &p, block.size)
                    if certificate != NULL:
                        found.append(SslCertificate.wrap(certificate))
            finally:
                free_block(&block)
    finally:
        BIO_free(bio)


cdef str visible(bytes raw, str codec):
    """Text of a certificate. What does not print, a NUL above all, stands as an escape and hides nothing."""
    cdef str text = raw.decode(codec, "backslashreplace")
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text])


cdef bytes string_bytes(const ASN1_STRING *string):
    cdef int size = ASN1_STRING_length(string)
    return ASN1_STRING_get0_data(string)[:size] if size > 0 else b""


cdef str string_text(const ASN1_STRING *string):
    """Any kind of ASN.1 text; else `#` and the hexadecimal of the bytes, in the manner of RFC 4514, 2.4."""
    cdef unsigned char *out = NULL
    cdef int size = ASN1_STRING_to_UTF8(&out, string)
    if size < 0:
        ERR_clear_error()
        return "#" + string_bytes(string).hex()
    try:
        return visible(out[:size], "utf-8")
    finally:
        OPENSSL_free(out)


cdef str object_text(const ASN1_OBJECT *identifier):
    """OpenSSL's short name of an object identifier, or its number in dots."""
    cdef char text[256]
    cdef int nid = OBJ_obj2nid(identifier)
    cdef const char *name = OBJ_nid2sn(nid) if nid != NID_undef else NULL
    if name != NULL:
        return name.decode("ascii", "backslashreplace")
    if OBJ_obj2txt(text, sizeof(text), identifier, 1) <= 0:
        ERR_clear_error()
        return "?"
    return text.decode("ascii", "backslashreplace")


cdef dict name_fields(const X509_NAME *name):
    cdef const X509_NAME_ENTRY *entry
    cdef int index
    cdef dict fields = {}
    for index in range(X509_NAME_entry_count(name)):
        entry = X509_NAME_get_entry(name, index)
        key = object_text(X509_NAME_ENTRY_get_object(entry))
        fields.setdefault(key, []).append(string_text(X509_NAME_ENTRY_get_data(entry)))
    return fields


cdef object utc_time(const ASN1_TIME *time):
    """A datetime; None where the field holds no time or one that datetime cannot express."""
    cdef tm parts
    if time == NULL or ASN1_TIME_to_tm(time, &parts) != 1:
        ERR_clear_error()
        return None
    try:
        return datetime(
            parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
            tzinfo=timezone.utc,
        )
    except ValueError:
        return None


cdef str printed(BIO *bio):
    cdef char *data = NULL
    cdef long size = BIO_get_mem_data(bio, &data)
    return visible(<bytes> data[:size] if size > 0 else b"", "utf-8")


cdef tuple general_name(GENERAL_NAME *name):
    """One subjectAltName (RFC 5280, 4.2.1.6) as (kind, text)."""
    cdef int kind = -1
    cdef const void *value = GENERAL_NAME_get0_value(name, &kind)
    cdef BIO *bio
    cdef str text
    if kind == GEN_DNS:
        return "DNS", visible(string_bytes(<const ASN1_STRING *> value), "ascii")
    if kind == GEN_EMAIL:
        return "email", visible(string_bytes(<const ASN1_STRING *> value), "ascii")
    if kind == GEN_URI:
        return "URI", visible(string_bytes(<const ASN1_STRING *> value), "ascii")
    if kind == GEN_IPADD:
        raw = string_bytes(<const ASN1_STRING *> value)
        return "IP", str(ipaddress.ip_address(raw)) if len(raw) in (4, 16) else "#" + raw.hex()
    if kind == GEN_RID:
        return "RID", object_text(<const ASN1_OBJECT *> value)
    bio = BIO_new(BIO_s_mem())
    if bio == NULL:
        raise MemoryError
    try:
        if kind == GEN_DIRNAME:
            X509_NAME_print_ex(bio, <const X509_NAME *> value, 0, XN_FLAG_RFC2253)
            return "dirname", printed(bio)
        # OpenSSL writes "othername: ..." and its like: the text is what follows the colon.
        GENERAL_NAME_print(bio, name)
        text = printed(bio).partition(":")[2].strip()
    finally:
        BIO_free(bio)
    if kind == GEN_OTHERNAME:
        return "othername", text
    return ("X400" if kind == GEN_X400 else "EDI party" if kind == GEN_EDIPARTY else "unknown"), text


def _restore_certificate(der: bytes, error: str) -> SslCertificate:
    """What a pickle calls."""
    cdef SslCertificate certificate
    if der:
        return SslCertificate(der, SslEncoding.DER)
    certificate = SslCertificate()
    certificate._error = error
    return certificate


@cython.final
cdef class SslCertificate:
    """An X.509 certificate. Immutable; equal, hashed and pickled by its DER.

    encoded: any buffer, or for PEM a str. Of PEM text the first certificate is loaded, whatever stands around
    it; DER has to be one certificate and nothing else.
    format: `SslEncoding`.

    Data that cannot be loaded makes a certificate that is `null`, with `error_string` saying why. TypeError:
    `encoded` is neither a buffer nor text. ValueError: `format` is no `SslEncoding`.
    """

    PEM = SslEncoding.PEM
    DER = SslEncoding.DER

    def __cinit__(self, encoded=b"", format=SslEncoding.PEM):
        encoding = SslEncoding(format)
        cdef Source source = Source(encoded, encoding is SslEncoding.DER)
        # Nothing to load leaves the error queue alone: `wrap` may be called while the caller still needs it.
        if not source.error:
            ERR_clear_error()
            try:
                if encoding is SslEncoding.DER:
                    self.x509 = certificate_from_der(source)
                else:
                    self.x509 = certificate_from_pem(source)
            finally:
                ERR_clear_error()
        self._error = source.error

    def __dealloc__(self):
        X509_free(self.x509)

    @staticmethod
    cdef SslCertificate wrap(X509 *x509):
        cdef SslCertificate certificate
        try:
            certificate = SslCertificate.__new__(SslCertificate)
        except BaseException:
            X509_free(x509)
            raise
        certificate.x509 = x509
        certificate._error = ""
        return certificate

    @staticmethod
    def from_bytes(data):
        """All certificates in PEM text, or in DER, where they follow one another; a list, empty where there
        is none.

        data: any buffer or a str. Blocks that are no certificate, or damaged, are passed over. TypeError:
        `data` is neither a buffer nor text.
        """
        cdef Source source = Source(data, False)
        cdef list found = []
        if source.error:
            return found
        ERR_clear_error()
        try:
            if source.data[0] == 0x30:
                found = certificates_from_der(source)
            return found or certificates_from_pem(source)
        finally:
            ERR_clear_error()

    @staticmethod
    def from_path(path):
        """All certificates in a file, as `from_bytes` finds them. OSError: the file cannot be read."""
        with open(os.fspath(path), "rb") as file:
            return SslCertificate.from_bytes(file.read())

    @property
    def null(self):
        """True when nothing was loaded."""
        return self.x509 == NULL

    @property
    def error_string(self):
        """Why nothing was loaded, in words; empty otherwise."""
        return self._error

    @property
    def subject(self):
        """The subject as a dict: the short name of an attribute ("CN", "O", ...; else its OID) to the list of
        its values.

        Attributes and values are in the certificate's order. A character that does not print (NUL, say)
        stands as an escape such as \\x00. Empty when null.
        """
        if self.x509 == NULL:
            return {}
        return name_fields(X509_get_subject_name(self.x509))

    @property
    def issuer(self):
        """The issuer, written as `subject` is."""
        if self.x509 == NULL:
            return {}
        return name_fields(X509_get_issuer_name(self.x509))

    @property
    def serial_number(self):
        """The serial number: an int of any size; 0 when null.

        Negative in some certificates that break RFC 5280, 4.1.2.2.
        """
        cdef BIGNUM *number
        cdef char *text
        if self.x509 == NULL:
            return 0
        number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(self.x509), NULL)
        text = BN_bn2hex(number) if number != NULL else NULL
        BN_free(number)
        if text == NULL:
            ERR_clear_error()
            raise MemoryError
        try:
            return int(text, 16)
        finally:
            OPENSSL_free(text)

    @property
    def not_before(self):
        """Start of validity: a datetime in UTC; None when null, or when the field holds no time."""
        if self.x509 == NULL:
            return None
        return utc_time(X509_get0_notBefore(self.x509))

    @property
    def not_after(self):
        """End of validity: a datetime in UTC; None when null, or when the field holds no time."""
        if self.x509 == NULL:
            return None
        return utc_time(X509_get0_notAfter(self.x509))

    @property
    def subject_alternative_names(self):
        """The subjectAltName extension as a list of (kind, text), in order; empty where there is none, or
        none that parses.

        Kinds: "DNS", "IP" (as `ipaddress` writes it), "email", "URI", "dirname" (RFC 2253), "RID" and, as
        OpenSSL prints them, "othername", "X400", "EDI party". Characters that do not print are escaped as in
        `subject`.
        """
        cdef GENERAL_NAMES *names
        cdef int index
        cdef list found = []
        if self.x509 == NULL:
            return []
        names = <GENERAL_NAMES *> X509_get_ext_d2i(self.x509, NID_subject_alt_name, NULL, NULL)
        if names == NULL:
            ERR_clear_error()
            return []
        try:
            for index in range(sk_GENERAL_NAME_num(names)):
                found.append(general_name(sk_GENERAL_NAME_value(names, index)))
            return found
        finally:
            GENERAL_NAMES_free(names)
            ERR_clear_error()

    def digest(self, str name not None="sha256"):
        """The fingerprint: bytes, the digest of the DER; empty when null.

        name: as EVP_MD_fetch(3) knows it, "sha256" or "SHA3-256" for instance. ValueError: there is no such
        digest.
        """
        cdef unsigned char out[64]
        cdef unsigned int size = 0
        cdef EVP_MD *digest = NULL
        cdef bytes encoded = name.encode()
        cdef int ok
        if b"\0" not in encoded:
            digest = EVP_MD_fetch(NULL, PyBytes_AS_STRING(encoded), NULL)
        if digest == NULL:
            ERR_clear_error()
            raise ValueError(f"unknown digest: {name!r}")
        if self.x509 == NULL:
            EVP_MD_free(digest)
            return b""
        ok = X509_digest(self.x509, digest, out, &size)
        EVP_MD_free(digest)
        if ok != 1:
            reason = openssl_reason()
            ERR_clear_error()
            raise ValueError(f"the digest {name!r} cannot be used here (OpenSSL: {reason})")
        return out[:size]

    def to_pem(self):
        """The certificate as PEM text in bytes; empty when null."""
        cdef BIO *bio
        cdef char *data = NULL
        cdef long size
        if self.x509 == NULL:
            return b""
        bio = BIO_new(BIO_s_mem())
        try:
            if bio == NULL or PEM_write_bio_X509(bio, self.x509) != 1:
                raise MemoryError
            size = BIO_get_mem_data(bio, &data)
            return data[:size]
        finally:
            BIO_free(bio)
            ERR_clear_error()

    def to_der(self):
        """The certificate as DER; empty when null."""
        cdef unsigned char *out = NULL
        cdef int size
        if self.x509 == NULL:
            return b""
        size = i2d_X509(self.x509, &out)
        if size < 0:
            ERR_clear_error()
            raise MemoryError
        try:
            return out[:size]
        finally:
            OPENSSL_free(out)

    def __eq__(self, other):
        if not isinstance(other, SslCertificate):
            return NotImplemented
        return self is other or self.to_der() == other.to_der()

    def __hash__(self):
        return hash(self.to_der())

    def __repr__(self):
        if self.x509 == NULL:
            return f"<SslCertificate null: {self._error}>"
        names = ", ".join(self.subject.get("CN", ())) or "without a CN"
        end = self.not_after
        return f"<SslCertificate {names}, not after {end.isoformat() if end else 'unknown'}>"

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return _restore_certificate, (self.to_der(), self._error)


# ---- keys --------------------------------------------------------------------------------------------------


cdef EVP_PKEY *key_from_info(Source source, PKCS8_PRIV_KEY_INFO *info) except? NULL:
    """Takes over `info`."""
    cdef EVP_PKEY *key
    with nogil:
        key = EVP_PKCS82PKEY(info)
        PKCS8_PRIV_KEY_INFO_free(info)
    if key == NULL:
        source.error = f"the private key is damaged, or unknown to this OpenSSL (OpenSSL: {openssl_reason()})"
    return key


cdef EVP_PKEY *key_from_encrypted(Source source, X509_SIG *encrypted) except? NULL:
    """A PKCS #8 EncryptedPrivateKeyInfo (RFC 5958, 3). Takes over `encrypted`."""
    cdef PKCS8_PRIV_KEY_INFO *info
    if source.passphrase.data == NULL:
        X509_SIG_free(encrypted)
        source.error = "the key is encrypted and no passphrase was given"
        return NULL
    with nogil:
        # Slow on purpose: PBKDF2 or scrypt.
        info = PKCS8_decrypt(encrypted, source.passphrase.data, <int> source.passphrase.size)
        X509_SIG_free(encrypted)
    if info == NULL:
        source.error = refuse_passphrase()
        return NULL
    return key_from_info(source, info)


cdef int decrypt_block(Source source, pem_block *block) except -1:
    """Decrypts a block that has the headers of RFC 1421.

    2: it is decrypted; 1: it was plain; 0: it cannot be decrypted, see `source.error`.
    """
    cdef EVP_CIPHER_INFO cipher
    cdef int ok
    if PEM_get_EVP_CIPHER_INFO(block.header, &cipher) != 1:
        source.error = f"the header of the PEM block cannot be used (OpenSSL: {openssl_reason()})"
        return 0
    if cipher.cipher == NULL:
        return 1
    if source.passphrase.data == NULL:
        source.error = "the key is encrypted and no passphrase was given"
        return 0
    if source.passphrase.size > <size_t> PEM_BUFSIZE:
        source.error = f"the passphrase is wrong: it is longer than the {PEM_BUFSIZE} bytes of this format"
        return 0
    with nogil:
        ok = PEM_do_header(&cipher, block.data, &block.size, give_passphrase, &source.passphrase)
    if ok != 1:
        source.error = refuse_passphrase()
        return 0
    return 2


cdef EVP_PKEY *private_key_from_block(Source source, pem_block *block) except? NULL:
    cdef const unsigned char *p
    cdef PKCS8_PRIV_KEY_INFO *info
    cdef X509_SIG *encrypted
    cdef EVP_PKEY *key
    cdef int kind
    cdef int plain = decrypt_block(source, block)
    if not plain:
        return NULL
    p = block.data
    if strcmp(block.label, "ENCRYPTED PRIVATE KEY") == 0:
        encrypted = d2i_X509_SIG(NULL, &p, block.size)
        if encrypted != NULL:
            return key_from_encrypted(source, encrypted)
    elif strcmp(block.label, "PRIVATE KEY") == 0:
        info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, block.size)
        if info != NULL:
            return key_from_info(source, info)
    else:
        kind = EVP_PKEY_RSA
        if strcmp(block.label, "EC PRIVATE KEY") == 0:
            kind = EVP_PKEY_EC
        elif strcmp(block.label, "DSA PRIVATE KEY") == 0:
            kind = EVP_PKEY_DSA
        key = d2i_PrivateKey(kind, NULL, &p, block.size)
        if key != NULL:
            return key
    # RFC 1421 decryption has no check but the padding, which one wrong passphrase in 256 passes, and all
    # of them with a stream cipher, which has no padding.
    if plain == 2:
        source.error = "the passphrase is wrong, or the key is damaged"
    else:
        source.error = refuse_block(block, "the private key")
    return NULL


cdef EVP_PKEY *public_key_from_block(Source source, pem_block *block) except? NULL:
    cdef const unsigned char *p = block.data
    cdef EVP_PKEY *key
    if strcmp(block.label, "RSA PUBLIC KEY") == 0:
        key = d2i_PublicKey(EVP_PKEY_RSA, NULL, &p, block.size)
    else:
        key = d2i_PUBKEY(NULL, &p, block.size)
    if key == NULL:
        source.error = refuse_block(block, "the public key")
    return key


cdef EVP_PKEY *key_from_pem(Source source, bint private) except? NULL:
    """The first key of the text that is of the wanted half, whatever else is before or after it."""
    cdef BIO *bio = open_text(source)
    cdef pem_block block
    other = None
    try:
        while next_block(bio, &block):
            try:
                if private and is_private_key(block.label):
                    return private_key_from_block(source, &block)
                if not private and is_public_key(block.label):
                    return public_key_from_block(source, &block)
                # Parameters come before the key that they belong to: what follows them says more.
                if other is None or PEM_KINDS.get(other) == "key parameters":
                    other = <bytes> block.label
            finally:
                free_block(&block)
        source.error = refuse_pem(source, "a private key" if private else "a public key", other)
        return NULL
    finally:
        BIO_free(bio)


cdef EVP_PKEY *private_key_from_der(Source source) except? NULL:
    """PKCS #8, encrypted or plain (RFC 5958); else the older forms of RSA (RFC 8017), EC (RFC 5915), DSA."""
    cdef const unsigned char *end = source.data + source.size
    cdef const unsigned char *p = source.data
    cdef PKCS8_PRIV_KEY_INFO *info
    cdef EVP_PKEY *key
    cdef X509_SIG *encrypted = d2i_X509_SIG(NULL, &p, source.size)
    if encrypted != NULL:
        if p == end:
            ERR_clear_error()
            return key_from_encrypted(source, encrypted)
        X509_SIG_free(encrypted)
    ERR_clear_error()
    p = source.data
    info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, source.size)
    if info != NULL:
        if p == end:
            return key_from_info(source, info)
        PKCS8_PRIV_KEY_INFO_free(info)
    ERR_clear_error()
    p = source.data
    key = d2i_AutoPrivateKey(NULL, &p, source.size)
    if key != NULL and p == end:
        return key
    EVP_PKEY_free(key)
    source.error = refuse_der(source, "a private key")
    return NULL


cdef EVP_PKEY *public_key_from_der(Source source) except? NULL:
    """A SubjectPublicKeyInfo (RFC 5280, 4.1.2.7), else an RSAPublicKey (RFC 8017, A.1.1)."""
    cdef const unsigned char *end = source.data + source.size
    cdef const unsigned char *p = source.data
    cdef EVP_PKEY *key = d2i_PUBKEY(NULL, &p, source.size)
    if key != NULL and p == end:
        return key
    EVP_PKEY_free(key)
    p = source.data
    key = d2i_PublicKey(EVP_PKEY_RSA, NULL, &p, source.size)
    if key != NULL and p == end:
        return key
    EVP_PKEY_free(key)
    source.error = refuse_der(source, "a public key")
    return NULL


cdef object algorithm_of(const EVP_PKEY *key):
    for name, algorithm in ALGORITHM_NAMES:
        if EVP_PKEY_is_a(key, <bytes> name) == 1:
            return algorithm
    return None


cdef str algorithm_text(const EVP_PKEY *key):
    cdef const char *name = EVP_PKEY_get0_type_name(key)
    return name.decode("ascii", "backslashreplace") if name != NULL else "unknown"


cdef bytes public_der(const EVP_PKEY *key):
    """The SubjectPublicKeyInfo; empty where there is none."""
    cdef unsigned char *out = NULL
    cdef int size = i2d_PUBKEY(key, &out) if key != NULL else 0
    if size <= 0:
        ERR_clear_error()
        return b""
    try:
        return out[:size]
    finally:
        OPENSSL_free(out)


@cython.final
cdef class SslKey:
    """A private or a public key. Immutable. Its secret is shown nowhere and pickled never.

    encoded: any buffer, or for PEM a str. Private keys: PKCS #8, encrypted or not, and the older forms of
    RSA, DSA and EC; public keys: SubjectPublicKeyInfo, or the older form of RSA. Of PEM text the first key of
    the wanted `type` is loaded.
    algorithm: `KeyAlgorithm`, or None for any; a key of another kind is refused.
    format: `SslEncoding`.
    type: `KeyType`.
    passphrase: str (taken as UTF-8) or any buffer, for an encrypted key. A copy is kept while loading, then
    wiped. Nobody is ever asked for one.

    A key that cannot be loaded is `null`, with `error_string` saying why. TypeError: `encoded` or
    `passphrase` is neither a buffer nor text. ValueError: `algorithm`, `format` or `type` is not of its
    enumeration.

    Keys are equal when their types and public parts are.
    """

    PUBLIC = KeyType.PUBLIC
    PRIVATE = KeyType.PRIVATE
    RSA = KeyAlgorithm.RSA
    DSA = KeyAlgorithm.DSA
    EC = KeyAlgorithm.EC
    ED25519 = KeyAlgorithm.ED25519
    ED448 = KeyAlgorithm.ED448
    ML_DSA = KeyAlgorithm.ML_DSA
    RSA_PSS = KeyAlgorithm.RSA_PSS

    def __cinit__(
        self, encoded=b"", algorithm=None, format=SslEncoding.PEM, type=KeyType.PRIVATE, passphrase=None
    ):
        self._type = KeyType(type)
        wanted = None if algorithm is None else KeyAlgorithm(algorithm)
        encoding = SslEncoding(format)
        cdef bint private = self._type is KeyType.PRIVATE
        cdef Source source = Source(encoded, encoding is SslEncoding.DER)
        if passphrase is not None:
            source.set_passphrase(passphrase)
        if not source.error:
            ERR_clear_error()
            try:
                if encoding is SslEncoding.PEM:
                    self.pkey = key_from_pem(source, private)
                elif private:
                    self.pkey = private_key_from_der(source)
                else:
                    self.pkey = public_key_from_der(source)
                if self.pkey != NULL:
                    self._algorithm = algorithm_of(self.pkey)
                    if wanted is not None and self._algorithm is not wanted:
                        source.error = f"this is a key for {algorithm_text(self.pkey)}, not for {wanted.name}"
                        EVP_PKEY_free(self.pkey)
                        self.pkey = NULL
                        self._algorithm = None
            finally:
                ERR_clear_error()
        self._error = source.error

    def __dealloc__(self):
        EVP_PKEY_free(self.pkey)

    @property
    def null(self):
        """True when nothing was loaded."""
        return self.pkey == NULL

    @property
    def error_string(self):
        """Why nothing was loaded, in words; empty otherwise."""
        return self._error

    @property
    def type(self):
        """The `KeyType` that the key was loaded as."""
        return self._type

    @property
    def algorithm(self):
        """The `KeyAlgorithm`; None when null, or when the kind has no value there (X25519, for instance)."""
        return self._algorithm

    def __eq__(self, other):
        if not isinstance(other, SslKey):
            return NotImplemented
        cdef EVP_PKEY *a = self.pkey
        cdef EVP_PKEY *b = (<SslKey> other).pkey
        if self._type is not (<SslKey> other)._type:
            return False
        if a == NULL or b == NULL:
            return a == b
        equal = EVP_PKEY_eq(a, b) == 1
        ERR_clear_error()
        return equal

    def __hash__(self):
        return hash((self._type, public_der(self.pkey)))

    def __repr__(self):
        if self.pkey == NULL:
            return f"<SslKey null: {self._error}>"
        return f"<SslKey {algorithm_text(self.pkey)} {self._type.name.lower()}>"

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError("an SslKey cannot be pickled: it may hold a secret key")
