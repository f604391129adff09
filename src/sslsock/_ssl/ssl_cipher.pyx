"""Cipher suites in words: `SSLSocket.cipher`, `SSLContext.get_ciphers`."""

cimport openssl_ssl as ssl
from openssl_ssl cimport SSL_CIPHER
from sslsock.core.engine cimport Engine


cdef tuple cipher_tuple(const SSL_CIPHER *suite):
    """(name, protocol, bits) as `SSLSocket.cipher` gives it."""
    return (
        (<bytes> ssl.SSL_CIPHER_get_name(suite)).decode("ascii"), (<bytes> ssl.SSL_CIPHER_get_version(suite)).decode("ascii"),
        ssl.SSL_CIPHER_get_bits(suite, NULL))


def engine_cipher(Engine engine not None):
    """That of a connection of the family, None before it is agreed on."""
    return None if engine.agreed.cipher == NULL else cipher_tuple(engine.agreed.cipher)


cdef str long_name(int nid):
    cdef const char *name = ssl.OBJ_nid2ln(nid) if nid != ssl.NID_undef else NULL
    return (<bytes> name).decode("ascii") if name != NULL else None


cdef dict cipher_dict(const SSL_CIPHER *suite):
    """One entry of `SSLContext.get_ciphers`."""
    cdef char[512] text
    cdef int algorithm_bits = 0
    cdef int bits = ssl.SSL_CIPHER_get_bits(suite, &algorithm_bits)
    text[0] = 0
    ssl.SSL_CIPHER_description(suite, text, sizeof(text) - 1)
    return {
        "id": ssl.SSL_CIPHER_get_id(suite),
        "name": (<bytes> ssl.SSL_CIPHER_get_name(suite)).decode("ascii"),
        "protocol": (<bytes> ssl.SSL_CIPHER_get_version(suite)).decode("ascii"),
        "description": (<bytes> <char *> text).decode("ascii").rstrip("\n"),
        "strength_bits": bits,
        "alg_bits": algorithm_bits,
        "aead": bool(ssl.SSL_CIPHER_is_aead(suite)),
        "symmetric": long_name(ssl.SSL_CIPHER_get_cipher_nid(suite)),
        "digest": long_name(ssl.SSL_CIPHER_get_digest_nid(suite)),
        "kea": long_name(ssl.SSL_CIPHER_get_kx_nid(suite)),
        "auth": long_name(ssl.SSL_CIPHER_get_auth_nid(suite)),
    }
