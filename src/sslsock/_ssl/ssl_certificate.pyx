"""Certificates as `ssl` shows them: the dictionary of `SSLSocket.getpeercert`, DER, and the class of `get_verified_chain`.

The dictionary is that of CPython to the letter, in the order of its keys too, and has no key for what a certificate lacks. A text
that is no UTF-8 is a UnicodeDecodeError there, and so it is here.
"""

cimport cython
from cpython.object cimport PyTypeObject

from openssl_err cimport ERR_clear_error
from openssl_x509 cimport *
from sslsock._ssl.ssl_error cimport library_error
from sslsock.core.certificate cimport SslCertificate

from operator import index as as_integer


cdef enum:
    ENCODING_PEM = 1
    ENCODING_DER = 2
    ENCODING_PEM_AUX = 0x101  # with OpenSSL's trust settings
    LINE = 2047  # the size of what is taken of a printed value, its first line


cdef BIO *memory() except NULL:
    cdef BIO *bio = BIO_new(BIO_s_mem())
    if bio == NULL:
        ERR_clear_error()
        raise MemoryError
    return bio


cdef bytes first_line(BIO *bio):
    cdef char line[LINE]
    cdef int size = BIO_gets(bio, line, LINE)
    if size < 0:
        raise library_error()
    return line[:size]


cdef bytes contents(BIO *bio):
    cdef char *data = NULL
    cdef long size = BIO_get_mem_data(bio, &data)
    return data[:size] if size > 0 else b""


cdef str string_text(const ASN1_STRING *string):
    cdef int size = ASN1_STRING_length(string)
    return ASN1_STRING_get0_data(string)[:size].decode("utf-8") if size > 0 else ""


cdef str object_text(const ASN1_OBJECT *identifier, bint number):
    """OpenSSL's long name of an object identifier, its number in dots where there is none or `number` is asked for."""
    cdef char text[256]
    cdef int size = OBJ_obj2txt(text, sizeof(text), identifier, number)
    cdef bytes longer
    if size < 0:
        raise library_error()
    if size < <int> sizeof(text):
        return text[:size].decode("utf-8")
    longer = bytes(size + 1)
    size = OBJ_obj2txt(longer, size + 1, identifier, number)
    if size < 0:
        raise library_error()
    return longer[:size].decode("utf-8")


# ---- the parts of a certificate ----------------------------------------------------------------------------


cdef tuple attribute(const X509_NAME_ENTRY *entry):
    cdef unsigned char *text = NULL
    cdef int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(entry))
    if size < 0:
        raise library_error()
    try:
        return object_text(X509_NAME_ENTRY_get_object(entry), False), text[:size].decode("utf-8")
    finally:
        OPENSSL_free(text)


cdef tuple name_parts(const X509_NAME *name):
    """A distinguished name: its relative names, each a tuple of attributes (RFC 5280, 4.1.2.4)."""
    cdef const X509_NAME_ENTRY *entry
    cdef int index, level = -1
    cdef list part = None, parts = []
    for index in range(X509_NAME_entry_count(name)):
        entry = X509_NAME_get_entry(name, index)
        if part is None or level != X509_NAME_ENTRY_set(entry):
            level = X509_NAME_ENTRY_set(entry)
            part = []
            parts.append(part)
        part.append(attribute(entry))
    return tuple([tuple(part) for part in parts])


cdef str address_text(bytes raw):
    if len(raw) == 4:
        return "%d.%d.%d.%d" % tuple(raw)
    if len(raw) == 16:
        return ":".join([f"{raw[i] << 8 | raw[i + 1]:X}" for i in range(0, 16, 2)])
    return "<invalid>"


cdef tuple printed_name(GENERAL_NAME *name):
    """As OpenSSL prints it: "othername:..." and the like."""
    cdef BIO *bio = memory()
    try:
        GENERAL_NAME_print(bio, name)
        line = first_line(bio)
    finally:
        BIO_free(bio)
    kind, colon, text = line.partition(b":")
    if not colon:
        raise ValueError(f"Invalid value {line[:200].decode('utf-8', 'replace')}")
    return kind.decode("utf-8"), text.decode("utf-8")


cdef tuple general_name(GENERAL_NAME *name):
    """One subjectAltName (RFC 5280, 4.2.1.6)."""
    cdef int kind = -1
    cdef const void *value = GENERAL_NAME_get0_value(name, &kind)
    cdef const ASN1_STRING *string = <const ASN1_STRING *> value
    if kind == GEN_DIRNAME:
        return "DirName", name_parts(<const X509_NAME *> value)
    if kind == GEN_EMAIL:
        return "email", string_text(string)
    if kind == GEN_DNS:
        return "DNS", string_text(string)
    if kind == GEN_URI:
        return "URI", string_text(string)
    if kind == GEN_RID:
        text = object_text(<const ASN1_OBJECT *> value, False)
        return "Registered ID", text if len(text) <= LINE else "<INVALID>"
    if kind == GEN_IPADD:
        return "IP Address", address_text(ASN1_STRING_get0_data(string)[:ASN1_STRING_length(string)])
    return printed_name(name)


cdef str uri_of(GENERAL_NAME *name):
    """None: it is of another kind."""
    cdef int kind = -1
    cdef const void *value = GENERAL_NAME_get0_value(name, &kind)
    return string_text(<const ASN1_STRING *> value) if kind == GEN_URI else None


cdef object alternative_names(X509 *x):
    """A tuple; None: the certificate has no such extension, or one that cannot be read."""
    cdef GENERAL_NAMES *names = <GENERAL_NAMES *> X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL)
    cdef int index
    if names == NULL:
        return None
    try:
        return tuple([general_name(sk_GENERAL_NAME_value(names, index)) for index in range(sk_GENERAL_NAME_num(names))])
    finally:
        GENERAL_NAMES_free(names)


cdef tuple access_uris(X509 *x, int method):
    """Of the authority information access (RFC 5280, 4.2.2.1)."""
    cdef OPENSSL_STACK_ACCESS *accesses = <OPENSSL_STACK_ACCESS *> X509_get_ext_d2i(x, NID_info_access, NULL, NULL)
    cdef ACCESS_DESCRIPTION *access
    cdef int index
    cdef list found = []
    if accesses == NULL:
        return ()
    try:
        for index in range(sk_ACCESS_DESCRIPTION_num(accesses)):
            access = sk_ACCESS_DESCRIPTION_value(accesses, index)
            if OBJ_obj2nid(access.method) == method:
                found.append(uri_of(access.location))
    finally:
        AUTHORITY_INFO_ACCESS_free(accesses)
    return tuple([uri for uri in found if uri is not None])


cdef tuple crl_uris(X509 *x):
    """Of the CRL distribution points (RFC 5280, 4.2.1.13), those with full names."""
    cdef OPENSSL_STACK_DIST_POINT *points
    cdef DIST_POINT_NAME *place
    cdef GENERAL_NAMES *names
    cdef int index, inner
    cdef list found = []
    points = <OPENSSL_STACK_DIST_POINT *> X509_get_ext_d2i(x, NID_crl_distribution_points, NULL, NULL)
    if points == NULL:
        return ()
    try:
        for index in range(sk_DIST_POINT_num(points)):
            place = sk_DIST_POINT_value(points, index).distpoint
            if place == NULL or place.type != 0:
                continue
            names = place.name.fullname
            for inner in range(sk_GENERAL_NAME_num(names)):
                found.append(uri_of(sk_GENERAL_NAME_value(names, inner)))
    finally:
        CRL_DIST_POINTS_free(points)
    return tuple([uri for uri in found if uri is not None])


cdef str serial_text(X509 *x):
    cdef BIO *bio = memory()
    try:
        i2a_ASN1_INTEGER(bio, X509_get0_serialNumber(x))
        return first_line(bio).decode("utf-8")
    finally:
        BIO_free(bio)


cdef str time_text(const ASN1_TIME *time):
    """"Jan  5 09:34:43 2018 GMT", or what OpenSSL prints for a time that is none."""
    cdef BIO *bio = memory()
    try:
        ASN1_TIME_print(bio, time)
        return first_line(bio).decode("utf-8")
    finally:
        BIO_free(bio)


# ---- the certificate ---------------------------------------------------------------------------------------


cdef dict decode_certificate(X509 *x):
    """What `getpeercert()` returns of a certificate that was verified. UnicodeDecodeError, SSLError: it cannot be shown."""
    cdef dict parts
    try:
        parts = {
            "subject": name_parts(X509_get_subject_name(x)),
            "issuer": name_parts(X509_get_issuer_name(x)),
            "version": X509_get_version(x) + 1,
            "serialNumber": serial_text(x),
            "notBefore": time_text(X509_get0_notBefore(x)),
            "notAfter": time_text(X509_get0_notAfter(x)),
        }
        names = alternative_names(x)
        if names is not None:
            parts["subjectAltName"] = names
        for key, uris in (
            ("OCSP", access_uris(x, NID_ad_OCSP)),
            ("caIssuers", access_uris(x, NID_ad_ca_issuers)),
            ("crlDistributionPoints", crl_uris(x)),
        ):
            if uris:
                parts[key] = uris
        return parts
    finally:
        ERR_clear_error()


def certificate_info(SslCertificate certificate not None):
    """What `getpeercert()` returns of a verified certificate, for one of the family. UnicodeDecodeError, SSLError: as above."""
    if certificate.x509 == NULL:
        raise ValueError("the certificate is null")
    return decode_certificate(certificate.x509)


cdef bytes certificate_der(X509 *x):
    cdef unsigned char *data = NULL
    cdef int size = i2d_X509(x, &data)
    if size < 0:
        raise library_error()
    try:
        return data[:size]
    finally:
        OPENSSL_free(data)


cdef object HERE = object()  # what only this module can give to the constructor


@cython.final
@cython.auto_pickle(False)
cdef class Certificate:
    def __cinit__(self, made_by=None):
        if made_by is not HERE:
            raise TypeError("cannot create '_ssl.Certificate' instances")

    def __dealloc__(self):
        X509_free(self.x509)

    @staticmethod
    cdef Certificate wrap(X509 *x509):
        cdef Certificate certificate
        try:
            certificate = Certificate.__new__(Certificate, HERE)
        except BaseException:
            X509_free(x509)
            raise
        certificate.x509 = x509
        return certificate

    def public_bytes(self, format=ENCODING_PEM):
        cdef int written
        cdef BIO *bio
        kind = as_integer(format)
        if kind == ENCODING_DER:
            return certificate_der(self.x509)
        if kind != ENCODING_PEM and kind != ENCODING_PEM_AUX:
            raise ValueError("Unsupported format")
        bio = memory()
        try:
            if kind == ENCODING_PEM:
                written = PEM_write_bio_X509(bio, self.x509)
            else:
                written = PEM_write_bio_X509_AUX(bio, self.x509)
            if written != 1:
                raise library_error()
            return contents(bio).decode("ascii")
        finally:
            BIO_free(bio)

    def get_info(self):
        return decode_certificate(self.x509)

    def __repr__(self):
        cdef BIO *bio = memory()
        try:
            if X509_NAME_print_ex(bio, X509_get_subject_name(self.x509), 0, XN_FLAG_RFC2253) < 0:
                raise library_error()
            return f"<_ssl.Certificate '{contents(bio).decode('utf-8')}'>"
        finally:
            BIO_free(bio)

    def __hash__(self):
        return X509_subject_name_hash(self.x509)

    def __eq__(self, other):
        if type(other) is not Certificate:
            return NotImplemented
        return X509_cmp(self.x509, (<Certificate> other).x509) == 0


# As CPython's is called in the texts that users see.
(<PyTypeObject *> Certificate).tp_name = "_ssl.Certificate"
