"""`InspectedConnection`: what a connection has agreed on, the part of `_SSLSocket` that sends and receives nothing.

libssl is asked under the connection's lock, unless it is a callback out of libssl that asks: its thread is inside already.
"""

import sys

cimport openssl_ssl as ssl
from openssl_ssl cimport OPENSSL_STACK, SSL_SESSION, X509
from openssl_x509 cimport X509_free, X509_up_ref
from sslsock._ssl.ssl_certificate cimport Certificate, certificate_der, decode_certificate
from sslsock._ssl.ssl_cipher cimport cipher_tuple
from sslsock._ssl.ssl_error cimport library_error
from shared_value cimport load_thread, store_thread
from sslsock._ssl.ssl_hooks cimport HookedContext, context_of
from sslsock._ssl.ssl_io cimport Connection
from sslsock._ssl.ssl_session cimport SSLSession
from sslsock._ssl.ssl_steps cimport DONE, ENTERED, outcome
from system cimport pthread_mutex_lock, pthread_mutex_trylock

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

cdef extern from "module_compat.h" nogil:
    int HAS_SIGNATURE_NAMES
    const char *compat_signature_name(ssl.SSL *connection, int of_peer)

cdef bint BEFORE_310 = sys.version_info < (3, 10)

cdef enum:
    BINDING_ROOM = 128  # a Finished message is 12 bytes before TLS 1.3, and a hash in it


cdef class InspectedConnection(Connection):
    cdef outcome come_in(self):
        """`enter`, for who has the GIL: it may be wanted by whoever is inside."""
        self.see_fork()
        if pthread_mutex_trylock(&self.libssl_lock) != 0:
            if load_thread(self.inside) == PyThread_get_thread_ident():
                return ENTERED
            with nogil:
                pthread_mutex_lock(&self.libssl_lock)
        store_thread(self.inside, PyThread_get_thread_ident())
        return DONE

    @property
    def server_side(self):
        """Whether this is a server-side socket."""
        return self.is_server

    def getpeercert(self, bint der=False, /):
        """Returns the certificate for the peer.

        If no certificate was provided, returns None.  If a certificate was
        provided, but not validated, returns an empty dictionary.  Otherwise
        returns a dict containing information about the peer certificate.

        If the optional argument is True, returns a DER-encoded copy of the
        peer certificate, or None if no certificate was provided.  This will
        return the certificate even if it wasn't validated.
        """
        cdef X509 *certificate = NULL
        cdef bint entered = self.come_in() == DONE
        cdef bint finished = ssl.SSL_is_init_finished(self.ssl) != 0
        cdef int mode = ssl.SSL_CTX_get_verify_mode(ssl.SSL_get_SSL_CTX(self.ssl))
        if finished:
            certificate = ssl.SSL_get1_peer_certificate(self.ssl)
        if entered:
            self.leave()
        if not finished:
            raise ValueError("handshake not done yet")
        if certificate == NULL:
            return None
        try:
            if der:
                return certificate_der(certificate)
            return decode_certificate(certificate) if mode & ssl.SSL_VERIFY_PEER else {}
        finally:
            X509_free(certificate)

    cdef list certificates(self, bint verified):
        """The peer's chain as Certificate, or None."""
        cdef bint entered = self.come_in() == DONE
        cdef OPENSSL_STACK *chain
        cdef X509 *one
        cdef int index
        cdef list found = []
        try:
            if verified:
                chain = ssl.SSL_get0_verified_chain(self.ssl)
            else:
                chain = ssl.SSL_get_peer_cert_chain(self.ssl)
            if self.is_server and not verified:
                # A server's chain of the client begins behind the client's own certificate, and a resumed session has that one only.
                one = ssl.SSL_get1_peer_certificate(self.ssl)
                if one != NULL:
                    found.append(Certificate.wrap(one))
            if chain == NULL:
                return found or None
            for index in range(ssl.sk_X509_num(chain)):
                one = ssl.sk_X509_value(chain, index)
                X509_up_ref(one)
                found.append(Certificate.wrap(one))
        finally:
            if entered:
                self.leave()
        return found

    def get_verified_chain(self):
        return self.certificates(True)

    def get_unverified_chain(self):
        return self.certificates(False)

    def cipher(self):
        cdef bint entered = self.come_in() == DONE
        cdef const ssl.SSL_CIPHER *suite = ssl.SSL_get_current_cipher(self.ssl)
        if entered:
            self.leave()
        return cipher_tuple(suite) if suite != NULL else None

    def shared_ciphers(self):
        cdef ssl.OPENSSL_CIPHER_STACK *own
        cdef ssl.OPENSSL_CIPHER_STACK *others
        cdef const ssl.SSL_CIPHER *suite
        cdef int index
        cdef list found = []
        cdef bint entered = self.come_in() == DONE
        try:
            own = ssl.SSL_get_ciphers(self.ssl)
            others = ssl.SSL_get_client_ciphers(self.ssl)
            if others == NULL and BEFORE_310:
                others = own  # there a client is told what it offers
            if own == NULL or others == NULL:
                return None
            for index in range(ssl.sk_SSL_CIPHER_num(own)):
                suite = ssl.sk_SSL_CIPHER_value(own, index)
                if ssl.sk_SSL_CIPHER_find(others, suite) >= 0:
                    found.append(cipher_tuple(suite))
        finally:
            if entered:
                self.leave()
        return found

    def version(self):
        cdef const char *name = NULL
        cdef bint entered = self.come_in() == DONE
        if ssl.SSL_is_init_finished(self.ssl):
            name = ssl.SSL_get_version(self.ssl)
        if entered:
            self.leave()
        text = (<bytes> name).decode("ascii") if name != NULL else None
        return text if text != "unknown" else None

    def selected_alpn_protocol(self):
        cdef const unsigned char *name = NULL
        cdef unsigned int size = 0
        cdef bint entered = self.come_in() == DONE
        try:
            ssl.SSL_get0_alpn_selected(self.ssl, &name, &size)
            return (<const char *> name)[:size].decode("utf-8") if name != NULL else None
        finally:
            if entered:
                self.leave()

    def compression(self):
        return None  # it is off: RFC 9325, 3.3

    def group(self):
        """The name of the group of the key exchange: str, or None before the handshake."""
        cdef const char *name
        cdef bint entered = self.come_in() == DONE
        name = ssl.compat_group_name(self.ssl)
        if entered:
            self.leave()
        return (<bytes> name).decode("ascii") if name != NULL else None

    def requested_server_name(self):
        """The name that the client has asked for (RFC 6066, 3): str, None on the client's side or where there was none."""
        cdef const char *name = NULL
        cdef bint entered = self.come_in() == DONE
        if ssl.SSL_is_server(self.ssl):
            name = ssl.SSL_get_servername(self.ssl, ssl.TLSEXT_NAMETYPE_host_name)
        if entered:
            self.leave()
        return (<bytes> name).decode("ascii", "replace") if name != NULL else None

    cdef str signature(self, bint of_peer):
        cdef const char *name
        cdef bint entered
        if not HAS_SIGNATURE_NAMES:
            raise NotImplementedError("Getting signature algorithms requires OpenSSL 3.5 or later.")
        entered = self.come_in() == DONE
        name = compat_signature_name(self.ssl, of_peer)
        if entered:
            self.leave()
        return (<bytes> name).decode("ascii") if name != NULL else None

    def client_sigalg(self):
        """The algorithm that the client has signed with: str, or None if it has not."""
        return self.signature(self.is_server)

    def server_sigalg(self):
        """The algorithm that the server has signed with: str, or None before the handshake."""
        return self.signature(not self.is_server)

    def get_channel_binding(self, cb_type="tls-unique"):
        """Get channel binding data for current connection.

        Raise ValueError if the requested `cb_type` is not supported.  Return bytes
        of the data or None if the data is not available (e.g. before the handshake).
        Only 'tls-unique' channel binding data from RFC 5929 is supported.
        """
        cdef char[BINDING_ROOM] data
        cdef size_t size
        cdef bint entered
        if not isinstance(cb_type, str):
            raise TypeError(f"get_channel_binding() argument 'cb_type' must be str, not {type(cb_type).__name__}")
        if cb_type != "tls-unique":
            raise ValueError(f"'{cb_type}' channel binding type not implemented")
        entered = self.come_in() == DONE
        # RFC 5929, 3.1: the first Finished message of the handshake.
        if bool(ssl.SSL_session_reused(self.ssl)) != (not self.is_server):
            size = ssl.SSL_get_finished(self.ssl, data, BINDING_ROOM)
        else:
            size = ssl.SSL_get_peer_finished(self.ssl, data, BINDING_ROOM)
        if entered:
            self.leave()
        return data[:size] if size else None

    @property
    def session(self):
        """The session of the connection: SSLSession, or None before the handshake."""
        cdef bint entered = self.come_in() == DONE
        cdef SSL_SESSION *session = ssl.SSL_get_session(self.ssl)
        if session != NULL:
            session = ssl.SSL_SESSION_dup(session)  # libssl marks its own as bad when the connection is cut
        if entered:
            self.leave()
        return SSLSession.wrap(session, context_of(self)) if session != NULL else None

    @session.setter
    def session(self, value):
        cdef SSLSession given
        cdef SSL_SESSION *session
        cdef bint entered
        cdef int done
        if not isinstance(value, SSLSession):
            raise TypeError("Value is not a SSLSession.")
        given = value
        if context_of(self).ctx != (<HookedContext> given.context).ctx:
            raise ValueError("Session refers to a different SSLContext.")
        if self.is_server:
            raise ValueError("Cannot set session for server-side SSLSocket.")
        entered = self.come_in() == DONE
        done = ssl.SSL_is_init_finished(self.ssl)
        if entered:
            self.leave()
        if done:
            raise ValueError("Cannot set session after handshake.")
        session = ssl.SSL_SESSION_dup(given.session)
        if session == NULL:
            raise library_error()
        entered = self.come_in() == DONE
        done = ssl.SSL_set_session(self.ssl, session)
        ssl.SSL_SESSION_free(session)
        if entered:
            self.leave()
        if done == 0:
            raise library_error()

    @property
    def session_reused(self):
        """Was the client session reused during handshake?"""
        cdef bint entered = self.come_in() == DONE
        cdef bint reused = ssl.SSL_session_reused(self.ssl) != 0
        if entered:
            self.leave()
        return reused
