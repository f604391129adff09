"""What binds a program's own authentication to its TLS connection: channel bindings and exported keying material.

For connections whose handshake is done, and that nobody else is using.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from openssl_err cimport ERR_clear_error
from openssl_ssl cimport (
    SSL, SSL_export_keying_material, SSL_get_certificate, SSL_get_extms_support, SSL_get_finished, SSL_get_peer_finished,
    TLS1_3_VERSION)
from openssl_x509 cimport (
    NID_md5, NID_md5_sha1, NID_sha1, NID_undef, OBJ_nid2sn, X509, X509_get_signature_info, X509_up_ref)
from sslsock.core.agreed cimport agreed_values
from sslsock.core.certificate cimport SslCertificate

cdef enum:
    FINISHED_ROOM = 64  # EVP_MAX_MD_SIZE


cdef tuple KINDS = ("tls-exporter", "tls-server-end-point", "tls-unique")


def check_binding(kind):
    """TypeError, ValueError: there is no such kind of channel binding."""
    if not isinstance(kind, str):
        raise TypeError(f"the kind of a channel binding is a str, not {type(kind).__name__}")
    if kind not in KINDS:
        raise ValueError(f"the kinds of channel binding are {', '.join(KINDS)}, not {kind!r}")


cdef bytes binding_of(SSL *ssl, agreed_values *agreed, str kind, bint server_side, bint one_certificate):
    """The channel binding of a kind that there is, None where this connection has none. one_certificate: the server has no other to
    choose from."""
    if kind == "tls-exporter":
        # RFC 9266, 2 and 3: with TLS 1.2 only where the master secret depends on the whole handshake.
        if agreed.protocol < TLS1_3_VERSION and SSL_get_extms_support(ssl) != 1:
            return None
        return exported(ssl, b"EXPORTER-Channel-Binding", b"", 32)
    if kind == "tls-unique":
        return unique_binding(ssl, agreed, server_side)
    return server_binding(ssl, agreed, server_side, one_certificate)


cdef bytes unique_binding(SSL *ssl, agreed_values *agreed, bint server_side):
    """RFC 5929, 3.1: the first Finished message: the client's, in a resumption the server's. RFC 8446, C.5: undefined in TLS 1.3.
    Without RFC 7627 two connections can have the same (its section 1)."""
    cdef char[FINISHED_ROOM] data
    cdef size_t size
    if agreed.protocol >= TLS1_3_VERSION or SSL_get_extms_support(ssl) != 1:
        return None
    if agreed.session_reused == server_side:
        size = SSL_get_finished(ssl, data, FINISHED_ROOM)
    else:
        size = SSL_get_peer_finished(ssl, data, FINISHED_ROOM)
    return PyBytes_FromStringAndSize(data, size) if 0 < size <= FINISHED_ROOM else None


cdef bytes server_binding(SSL *ssl, agreed_values *agreed, bint server_side, bint one_certificate):
    """RFC 5929, 4.1: the server's certificate, hashed with the hash of its signature, MD5 and SHA-1 replaced by SHA-256; undefined
    for signatures without one (Ed25519)."""
    cdef X509 *certificate = SSL_get_certificate(ssl) if server_side else agreed.certificate
    cdef int number = NID_undef
    # Which of several a session was begun with is not known to a server that resumes it.
    if certificate == NULL or (server_side and agreed.session_reused and not one_certificate):
        return None
    X509_get_signature_info(certificate, &number, NULL, NULL, NULL)
    ERR_clear_error()
    if number == NID_undef:
        return None
    name = "SHA256" if number in (NID_md5, NID_sha1, NID_md5_sha1) else OBJ_nid2sn(number).decode("ascii")
    X509_up_ref(certificate)
    return SslCertificate.wrap(certificate).digest(name)


cdef bytes exported(SSL *ssl, bytes label, object context, Py_ssize_t length):
    """RFC 5705 and RFC 8446, 7.5. context: bytes or None, which with TLS 1.2 is another than none. ValueError: OpenSSL refuses."""
    cdef bytes material = PyBytes_FromStringAndSize(NULL, length)
    cdef bytes given = context if context is not None else b""
    ERR_clear_error()
    if SSL_export_keying_material(
            ssl, <unsigned char *> PyBytes_AS_STRING(material), length, label, len(label),
            <const unsigned char *> PyBytes_AS_STRING(given), len(given), context is not None) != 1:
        ERR_clear_error()
        raise ValueError(f"no keying material of {length} bytes can be exported for the label {label!r}")
    return material
