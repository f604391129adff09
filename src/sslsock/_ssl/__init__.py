"""The interface of CPython's private module `_ssl`, on this package's OpenSSL: what `sslsock.ssl` is made from."""
