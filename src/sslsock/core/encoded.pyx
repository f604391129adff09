"""What certificates and keys are loaded from: PEM or DER in memory, a passphrase, and why they could not be, in words.

PEM text is taken apart by PEM_read_bio(3), block by block, and each block is decoded by the function for its
label, in place of PEM_read_bio_PrivateKey(3) and its kin: they hide whether the text, the passphrase or the
key is at fault, and ask for a passphrase on the terminal where no callback is given.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.limits cimport INT_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy

from openssl_err cimport (
    ERR_GET_LIB,
    ERR_GET_REASON,
    ERR_LIB_PEM,
    PEM_R_BAD_END_LINE,
    PEM_R_NO_START_LINE,
    ERR_clear_error,
    ERR_peek_error,
    ERR_peek_last_error,
    ERR_reason_error_string,
)
from openssl_x509 cimport *

import re
from enum import IntEnum


cdef extern from "<string.h>" nogil:
    void *memmem(const void *text, size_t size, const void *wanted, size_t wanted_size)


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


class SslEncoding(IntEnum):
    """How a certificate or a key is written."""

    PEM = 0
    DER = 1


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


@cython.final
@cython.auto_pickle(False)
cdef class Source:
    """One load: the caller's bytes, borrowed; a copy of the passphrase; and what went wrong."""

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
            if hasattr(encoded, "__fspath__"):
                raise TypeError("this is a path: what is in the file is needed, bytes or text")
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


# ---- PEM blocks --------------------------------------------------------------------------------------------


# A line that begins or ends a block (RFC 7468, 2), or was meant to: one that is indented or quoted as mail is, has lost a dash, has
# other dashes, which word processors make (in UTF-8 and Windows-1252), or is cut off where the text ends. One behind a "#" was
# commented out.
cdef object MARK = re.compile(
    rb"^[ \t>|\xef\xbb\xbf]*(?:-----(?:BEGIN|END) |(?:[-\x96\x97]|\xe2\x80[\x90-\x95])+ ?(?:BEGIN|END) [A-Z0-9 ]*CERT)[^\r\n]*"
    rb"|^-{1,5}B?E?G?I?N?\Z", re.MULTILINE)
cdef object WHOLE_MARK = re.compile(rb"-----(BEGIN|END) ([^\r\n-]*(?:-[^\r\n-]+)*)-----[ \t]*")


@cython.final
@cython.auto_pickle(False)
cdef class PemPart:
    """One block of PEM text: where it lies, and what is wrong with its BEGIN and END lines."""

    cdef str place(self):
        return f"block {self.number} (line {self.line})"


cdef int line_feeds(const unsigned char *data, Py_ssize_t size) noexcept nogil:
    cdef const unsigned char *end = data + size
    cdef int count = 0
    while True:
        data = <const unsigned char *> memchr(data, c"\n", end - data)
        if data == NULL:
            return count
        data += 1
        count += 1


cdef list pem_parts(Source source):
    """The blocks of the text in order, up to the first that has trouble.

    PEM_read_bio(3) takes a BEGIN line that is not whole, and all behind it, for text between the blocks.
    """
    cdef Py_ssize_t skipped = 3 if has_byte_order_mark(source) else 0
    cdef Py_ssize_t counted = 0
    cdef int line = 1
    cdef PemPart part = None
    cdef list parts = []
    text = PyMemoryView_FromMemory(<char *> source.data + skipped, source.size - skipped, PyBUF_READ)
    for mark in MARK.finditer(text):
        start = mark.start()
        line += line_feeds(source.data + skipped + counted, start - counted)
        counted = start
        whole = WHOLE_MARK.fullmatch(mark.group())
        begins = whole is not None and whole[1] == b"BEGIN"
        if part is not None and whole is not None and not begins and whole[2] == part.label:
            part.end = skipped + <Py_ssize_t> mark.end()
            part = None
            continue
        if part is None:
            part = PemPart.__new__(PemPart)
            part.number = len(parts) + 1
            part.line = line
            part.start = skipped + <Py_ssize_t> start
            part.trouble = ""
            parts.append(part)
            if begins:
                part.label = whole[2]
                continue
            if whole is None:
                part.trouble = "the PEM text is damaged: its BEGIN line is not whole, or not at the start of a line"
            else:
                part.trouble = "the PEM text is damaged: its END line has no BEGIN line before it"
        elif whole is None:
            part.trouble = f"the PEM text is damaged or truncated: line {line} is no whole END line, with nothing behind it"
        elif begins:
            part.trouble = f"the PEM text is truncated: it has no END line before the next BEGIN line (line {line})"
        else:
            part.trouble = f"the PEM text is damaged: its END line (line {line}) is of another kind"
        return parts
    if part is not None:
        part.trouble = "the PEM text is truncated: it has no END line"
    return parts


cdef BIO *open_part(Source source, PemPart part) except NULL:
    """One block as text for `next_block`."""
    cdef BIO *bio = BIO_new_mem_buf(source.data + part.start, <int> (part.end - part.start))
    if bio == NULL:
        ERR_clear_error()
        raise MemoryError
    return bio


cdef bint has_byte_order_mark(Source source) noexcept:
    """Some editors write one; it would hide the first BEGIN line."""
    cdef const unsigned char *data = source.data
    return source.size >= 3 and data[0] == 0xEF and data[1] == 0xBB and data[2] == 0xBF


cdef BIO *open_text(Source source) except NULL:
    cdef const unsigned char *data = source.data
    cdef int size = <int> source.size
    if has_byte_order_mark(source):
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
    return refuse_text(source, wanted, other)


cdef str refuse_text(Source source, str wanted, bytes other):
    """Why `source` has no PEM block that is wanted, where all its blocks are whole. `other`: as above."""
    if other is not None:
        kind = PEM_KINDS.get(other, "a PEM block of another kind")
        return f"this is {kind}, not {wanted}"
    if source.data[0] == 0x30 and kind_of_der(source.data, source.size):
        return "this is DER, not PEM"
    if contains(source, b"-----BEGIN "):
        return "the PEM text is damaged: its BEGIN line is not whole, or not at the start of a line"
    if may_be_path(source):
        advice = "SslCertificate.from_path reads it" if wanted == "a certificate" else "give what the file holds"
        return f"this is not PEM: it has no BEGIN line; if it is the path of a file, {advice}"
    return "this is not PEM: it has no BEGIN line"


cdef bint may_be_path(Source source) noexcept:
    """One line that prints. The file system is not asked."""
    cdef Py_ssize_t index
    if source.size > 4096:  # PATH_MAX
        return False
    for index in range(source.size):
        if source.data[index] < 0x20:
            return False
    return True


cdef str refuse_block(const pem_block *block, str wanted):
    """Why a PEM block with the right label could not be loaded. OpenSSL's reason is in the queue."""
    cdef long long declared = declared_size(block.data, block.size)
    if declared > block.size:
        return f"{wanted} in the PEM text is truncated: it has {block.size} of {declared} bytes"
    if 0 <= declared < block.size and not ERR_peek_error():
        return f"bytes too many after {wanted} in the PEM text: {block.size - declared}"
    return f"{wanted} in the PEM text is damaged, or unknown to this OpenSSL (OpenSSL: {openssl_reason()})"
