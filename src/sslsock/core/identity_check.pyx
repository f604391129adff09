"""Whether a certificate of one's own can be used, tried without a context for it: to make one takes a hundred times as long."""

from openssl_err cimport ERR_clear_error
from openssl_ssl cimport SSL, SSL_add1_chain_cert, SSL_free, SSL_new, SSL_use_PrivateKey, SSL_use_certificate
from openssl_x509 cimport X509_check_private_key
from sslsock.core.certificate cimport SslCertificate
from sslsock.core.context cimport Context, chained, refused, require_identity
from sslsock.core.key cimport SslKey


def check_identity(Context context not None, certificate, chain, key):
    """Whether a context with the algorithms and protocols of this one takes a certificate with its chain and its key.

    certificate, chain, key: SslCertificate, list of SslCertificate, SslKey. ConfigurationError: why it does not.
    """
    cdef SSL *trial
    require_identity(certificate, key)
    ERR_clear_error()
    trial = SSL_new(context.ctx)
    if trial == NULL:
        raise MemoryError
    try:
        if X509_check_private_key((<SslCertificate> certificate).x509, (<SslKey> key).pkey) != 1:
            raise refused("the private key does not fit the certificate")
        if SSL_use_certificate(trial, (<SslCertificate> certificate).x509) != 1:
            raise refused("the certificate is refused")
        if SSL_use_PrivateKey(trial, (<SslKey> key).pkey) != 1:
            raise refused("the private key is refused")
        for link in chain:
            if SSL_add1_chain_cert(trial, chained(link)) != 1:
                raise refused("a certificate of the chain is refused")
    finally:
        SSL_free(trial)
