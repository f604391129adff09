"""`_SSLContext`: one SSL_CTX, with the settings that connections are made from.

Unlike the family's `Context` it changes at any time, as CPython's does. Every change is one step in the context's critical section
(the GIL's, where there is one), and so is the making of a connection (SSL_new copies what matters), so that no connection sees half a
change; what a handshake reads of the SSL_CTX itself changes while none is in libssl (`HookedContext.settings`).
"""

import os
import sys
from operator import index as as_integer

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_WarnEx
from libc.limits cimport INT_MAX, LONG_MAX, UINT_MAX
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cimport openssl_ssl as ssl
from distrusted_keys cimport refuse_distrusted
from known_chains cimport known_chains_verify
from openssl_err cimport ERR_clear_error
from openssl_ssl cimport BIO, EVP_PKEY
from sslsock._ssl.ssl_arguments cimport c_string, checked_callable, path_bytes
from sslsock._ssl.ssl_cipher cimport cipher_dict
from sslsock._ssl.ssl_error cimport library_error
from sslsock._ssl.ssl_hooks cimport (
    KeyLog, Password, begin_change, end_change, on_key_log, on_message, on_new_session, on_psk_client, on_psk_server,
    on_server_name)
from sslsock._ssl.ssl_identity cimport text_bio, use_identity
from sslsock._ssl.ssl_session cimport KeptSessions
from sslsock._ssl.ssl_trust cimport TrustingContext
from sslsock.core.files cimport read_file
from sslsock.core.ticket_keys cimport TicketKeys
from ticket_keys cimport ticket_keys_use

from sslsock._ssl.ssl_error import SSLError
from sslsock._ssl.ssl_values import constants, left_to_openssl

cdef extern from "module_compat.h" nogil:
    ctypedef struct OPENSSL_NAME_STACK "STACK_OF(OPENSSL_CSTRING)"
    int HAS_SIGNATURE_NAMES

    OPENSSL_NAME_STACK *compat_group_names(ssl.SSL_CTX *context, int with_aliases)
    int name_count(const OPENSSL_NAME_STACK *names)
    const char *name_at(const OPENSSL_NAME_STACK *names, int index)
    void free_names(OPENSSL_NAME_STACK *names)

cdef enum:
    # CPython's own numbers
    CERT_NONE = 0
    CERT_OPTIONAL = 1
    CERT_REQUIRED = 2
    PROTOCOL_SSLv3 = 1
    PROTOCOL_TLS = 2
    PROTOCOL_TLSv1 = 3
    PROTOCOL_TLSv1_1 = 4
    PROTOCOL_TLSv1_2 = 5
    PROTOCOL_TLS_CLIENT = 16
    PROTOCOL_TLS_SERVER = 17
    MINIMUM_SUPPORTED = -2
    MAXIMUM_SUPPORTED = -1
    HOST_FLAG_NO_PARTIAL_WILDCARDS = 4

cdef bint BEFORE_310 = sys.version_info < (3, 10)
cdef bint BEFORE_312 = sys.version_info < (3, 12)
cdef bint BEFORE_314 = sys.version_info < (3, 14)
cdef dict PROTOCOLS = {
    PROTOCOL_TLS: "PROTOCOL_TLS", PROTOCOL_TLSv1: "PROTOCOL_TLSv1", PROTOCOL_TLSv1_1: "PROTOCOL_TLSv1_1",
    PROTOCOL_TLSv1_2: "PROTOCOL_TLSv1_2"}
cdef dict FIXED_VERSIONS = {
    PROTOCOL_SSLv3: ssl.SSL3_VERSION, PROTOCOL_TLSv1: ssl.TLS1_VERSION, PROTOCOL_TLSv1_1: ssl.TLS1_1_VERSION,
    PROTOCOL_TLSv1_2: ssl.TLS1_2_VERSION}
cdef dict OLD_VERSIONS = {
    ssl.SSL3_VERSION: b"ssl.TLSVersion.SSLv3 is deprecated", ssl.TLS1_VERSION: b"ssl.TLSVersion.TLSv1 is deprecated",
    ssl.TLS1_1_VERSION: b"ssl.TLSVersion.TLSv1_1 is deprecated"}
cdef dict VERIFY_MODES = {
    CERT_NONE: ssl.SSL_VERIFY_NONE, CERT_OPTIONAL: ssl.SSL_VERIFY_PEER,
    CERT_REQUIRED: ssl.SSL_VERIFY_PEER | ssl.SSL_VERIFY_FAIL_IF_NO_PEER_CERT}
cdef uint64_t NO_VERSION = (
    ssl.SSL_OP_NO_SSLv2 | ssl.SSL_OP_NO_SSLv3 | ssl.SSL_OP_NO_TLSv1 | ssl.SSL_OP_NO_TLSv1_1 | ssl.SSL_OP_NO_TLSv1_2
    | ssl.SSL_OP_NO_TLSv1_3)


cdef int deprecated(const char *text) except -1:
    """CPython warns from 3.10 on. Level 2 is the caller of `ssl.py`: neither C nor Cython has a frame."""
    if not BEFORE_310:
        PyErr_WarnEx(DeprecationWarning, text, 2)
    return 0


cdef int on_select_protocol(
        ssl.SSL *connection, const unsigned char **out, unsigned char *size, const unsigned char *offered,
        unsigned int offered_size, void *argument) noexcept nogil:
    """SSL_CTX_set_alpn_select_cb(3)."""
    cdef const protocol_list *own = (<protocol_list **> argument)[0]
    if ssl.SSL_select_next_proto(
            <unsigned char **> out, size, own.data, own.size, offered, offered_size) != ssl.OPENSSL_NPN_NEGOTIATED:
        return ssl.SSL_TLSEXT_ERR_NOACK
    return ssl.SSL_TLSEXT_ERR_OK


cdef class _SSLContext(TrustingContext):
    """The settings of connections; see the documentation of `ssl.SSLContext`."""

    def __cinit__(self, int protocol, /):
        cdef const ssl.SSL_METHOD *method
        cdef uint64_t options
        ERR_clear_error()
        if protocol == PROTOCOL_TLS_CLIENT:
            method = ssl.TLS_client_method()
        elif protocol == PROTOCOL_TLS_SERVER:
            method = ssl.TLS_server_method()
        elif protocol in PROTOCOLS:
            method = ssl.TLS_method()
            text = f"ssl.{PROTOCOLS[protocol]} is deprecated".encode("ascii")
            deprecated(text)
        else:
            raise ValueError(f"invalid or unsupported protocol version {protocol}")
        self.ctx = ssl.SSL_CTX_new(method)
        if self.ctx == NULL:
            raise library_error()
        if protocol in FIXED_VERSIONS:
            if ssl.SSL_CTX_set_min_proto_version(self.ctx, FIXED_VERSIONS[protocol]) != 1 \
                    or ssl.SSL_CTX_set_max_proto_version(self.ctx, FIXED_VERSIONS[protocol]) != 1:
                raise library_error()
        self.protocol = protocol
        self.host_flags = HOST_FLAG_NO_PARTIAL_WILDCARDS
        self.checks_hostname = protocol == PROTOCOL_TLS_CLIENT
        self.set_mode(CERT_REQUIRED if self.checks_hostname else CERT_NONE)
        options = ssl.SSL_OP_ALL & ~ssl.SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS
        options |= ssl.SSL_OP_NO_SSLv2 | ssl.SSL_OP_NO_SSLv3 | ssl.SSL_OP_NO_COMPRESSION | ssl.SSL_OP_CIPHER_SERVER_PREFERENCE
        options |= ssl.SSL_OP_SINGLE_DH_USE | ssl.SSL_OP_SINGLE_ECDH_USE
        if BEFORE_310:
            options |= ssl.SSL_OP_IGNORE_UNEXPECTED_EOF
        ssl.SSL_CTX_set_options(self.ctx, options)
        if not left_to_openssl:
            self.set_defaults()
        ssl.SSL_CTX_set_mode(
            self.ctx,
            ssl.SSL_MODE_RELEASE_BUFFERS | ssl.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | ssl.SSL_MODE_AUTO_RETRY)
        if protocol != PROTOCOL_TLS_CLIENT:  # libssl holds it against the pre-shared keys of a client
            ssl.SSL_CTX_set_session_id_context(self.ctx, b"Python\0", 7)
        ssl.X509_VERIFY_PARAM_set_flags(ssl.SSL_CTX_get0_param(self.ctx), ssl.X509_V_FLAG_TRUSTED_FIRST)
        ssl.X509_VERIFY_PARAM_set_hostflags(ssl.SSL_CTX_get0_param(self.ctx), self.host_flags)
        ssl.SSL_CTX_set_cert_verify_callback(self.ctx, known_chains_verify, NULL)
        ssl.SSL_CTX_set_post_handshake_auth(self.ctx, 0)

    def __dealloc__(self):
        free(self.protocols)

    def __repr__(self):
        words = [getattr(getattr(self, name), "name", "") for name in ("protocol", "verify_mode")]  # enumerations in SSLContext
        return f"<{type(self).__name__} {', '.join(words)}>"

    cdef int set_defaults(self) except -1:
        ciphers = constants["_DEFAULT_CIPHERS"].encode("ascii")
        if ssl.SSL_CTX_set_cipher_list(self.ctx, <const char *> <bytes> ciphers) != 1:
            ERR_clear_error()
            raise SSLError("No cipher can be selected.")
        if not BEFORE_310:
            if self.protocol not in FIXED_VERSIONS:
                ssl.SSL_CTX_set_min_proto_version(self.ctx, ssl.TLS1_2_VERSION)
            ssl.SSL_CTX_set_security_level(self.ctx, 2)
        return 0

    # Connections

    def _wrap_socket(self, sock, int server_side, server_hostname=None, *, owner=None, session=None):
        from sslsock._ssl.ssl_connection import over_socket  # which imports this module

        return over_socket(self, sock, server_side, server_hostname, owner, session)

    def _wrap_bio(self, incoming, outgoing, int server_side, server_hostname=None, *, owner=None, session=None):
        from sslsock._ssl.ssl_connection import over_memory

        return over_memory(self, incoming, outgoing, server_side, server_hostname, owner, session)

    # Algorithms

    @cython.critical_section
    def set_ciphers(self, cipherlist, /):
        cdef bytes text = c_string(cipherlist, "set_ciphers() argument")
        cdef int done
        begin_change(self)
        done = ssl.SSL_CTX_set_cipher_list(self.ctx, <const char *> text)
        end_change(self)
        if done != 1:
            ERR_clear_error()
            raise SSLError("No cipher can be selected.")

    @cython.critical_section
    def set_ciphersuites(self, ciphersuites, /):
        """The cipher suites of TLS 1.3, by OpenSSL's names with colons between them."""
        cdef bytes text = c_string(ciphersuites, "set_ciphersuites() argument")
        cdef int done
        begin_change(self)
        done = ssl.SSL_CTX_set_ciphersuites(self.ctx, <const char *> text)
        end_change(self)
        if done != 1:
            ERR_clear_error()
            raise SSLError("No cipher suite can be selected.")

    @cython.critical_section
    def get_ciphers(self):
        cdef int index
        cdef ssl.OPENSSL_CIPHER_STACK *suites
        cdef list found = []
        cdef ssl.SSL *probe = ssl.SSL_new(self.ctx)
        if probe == NULL:
            raise library_error()
        try:
            suites = ssl.SSL_get_ciphers(probe)
            for index in range(ssl.sk_SSL_CIPHER_num(suites)):
                found.append(cipher_dict(ssl.sk_SSL_CIPHER_value(suites, index)))
        finally:
            ssl.SSL_free(probe)
        return found

    @cython.critical_section
    def set_groups(self, grouplist, /):
        """The groups for the key exchange, by OpenSSL's names with colons between them."""
        text = c_string(grouplist, "set_groups() argument")
        if ssl.SSL_CTX_set1_groups_list(self.ctx, <const char *> <bytes> text) != 1:
            ERR_clear_error()
            raise SSLError("unrecognized group")

    @cython.critical_section
    def get_groups(self, *, bint include_aliases=False):
        """The names of the groups that can be had with this context's protocol versions, a list of str. OpenSSL 3.5 or newer."""
        cdef OPENSSL_NAME_STACK *names
        cdef int index
        if not HAS_SIGNATURE_NAMES:
            raise NotImplementedError("getting implemented groups requires OpenSSL 3.5 or later.")
        names = compat_group_names(self.ctx, include_aliases)
        if names == NULL:
            ERR_clear_error()
            raise SSLError("Can't get groups")
        try:
            return [(<bytes> name_at(names, index)).decode("ascii") for index in range(name_count(names))]
        finally:
            free_names(names)

    @cython.critical_section
    def set_client_sigalgs(self, sigalgslist, /):
        """The signature algorithms that a client may sign with, by OpenSSL's names with colons between them."""
        text = c_string(sigalgslist, "set_client_sigalgs() argument")
        if ssl.SSL_CTX_set1_client_sigalgs_list(self.ctx, <const char *> <bytes> text) != 1:
            ERR_clear_error()
            raise SSLError("unrecognized signature algorithm")

    @cython.critical_section
    def set_server_sigalgs(self, sigalgslist, /):
        """The signature algorithms that a server may sign with, by OpenSSL's names with colons between them."""
        text = c_string(sigalgslist, "set_server_sigalgs() argument")
        if ssl.SSL_CTX_set1_sigalgs_list(self.ctx, <const char *> <bytes> text) != 1:
            ERR_clear_error()
            raise SSLError("unrecognized signature algorithm")

    @cython.critical_section
    def set_ecdh_curve(self, name, /):
        cdef int nid
        encoded = path_bytes(name, "")
        nid = ssl.OBJ_sn2nid(encoded)
        if nid == ssl.NID_undef:
            raise ValueError(f"unknown elliptic curve name {name!r}")
        if ssl.SSL_CTX_set1_groups(self.ctx, &nid, 1) != 1:
            raise library_error()

    @cython.critical_section
    def load_dh_params(self, path, /):
        cdef unsigned char *data = NULL
        cdef const unsigned char *start
        cdef long size = 0
        cdef EVP_PKEY *key
        cdef BIO *bio
        path_bytes(path, "")
        text = read_file(path)
        ERR_clear_error()
        bio = text_bio(text)
        try:
            if ssl.PEM_bytes_read_bio(&data, &size, NULL, ssl.PEM_STRING_DHPARAMS, bio, NULL, NULL) != 1:
                raise library_error()
            start = data
            key = ssl.d2i_KeyParams(ssl.EVP_PKEY_DH, NULL, &start, size)
            ssl.OPENSSL_free(data)
            if key == NULL:
                raise library_error()
            if ssl.SSL_CTX_set0_tmp_dh_pkey(self.ctx, key) != 1:
                ssl.EVP_PKEY_free(key)
                raise library_error()
        finally:
            ssl.BIO_free(bio)

    @cython.critical_section
    def _set_alpn_protocols(self, protos, /):
        cdef Py_buffer view
        cdef protocol_list *made
        cdef int failed
        PyObject_GetBuffer(protos, &view, PyBUF_SIMPLE)
        try:
            if <size_t> view.len > UINT_MAX:
                raise OverflowError(f"protocols longer than {UINT_MAX} bytes")
            made = <protocol_list *> malloc(sizeof(protocol_list) + view.len)
            if made == NULL:
                raise MemoryError
            memcpy(made.data, view.buf, view.len)
            made.size = <unsigned int> view.len
        finally:
            PyBuffer_Release(&view)
        begin_change(self)
        failed = ssl.SSL_CTX_set_alpn_protos(self.ctx, made.data, made.size)
        if not failed:
            self.protocols, made = made, self.protocols
            ssl.SSL_CTX_set_alpn_select_cb(self.ctx, on_select_protocol, &self.protocols)
        end_change(self)
        free(made)
        if failed:
            ERR_clear_error()
            raise MemoryError

    def _set_npn_protocols(self, protos, /):
        """Of CPython 3.9, on an OpenSSL without the extension that ALPN has replaced."""
        raise NotImplementedError("The NPN extension is not supported: use set_alpn_protocols")

    # Protocol versions and options

    cdef int set_version(self, long version, bint minimum) except -1:
        cdef int result
        if version > INT_MAX:
            raise OverflowError("Option is too long")
        if self.protocol not in (PROTOCOL_TLS, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER):
            raise ValueError(
                "The context's protocol doesn't support modification of highest and lowest version.")
        if version in OLD_VERSIONS:
            deprecated(OLD_VERSIONS[version])
        elif version not in (MINIMUM_SUPPORTED, MAXIMUM_SUPPORTED, ssl.TLS1_2_VERSION, ssl.TLS1_3_VERSION):
            raise ValueError(f"Unsupported {'protocol' if BEFORE_310 else 'TLS/SSL'} version 0x{version & 0xffffffff:x}")
        if minimum:
            if version == MINIMUM_SUPPORTED:
                version = 0
            elif version == MAXIMUM_SUPPORTED:
                version = ssl.TLS1_3_VERSION
            result = ssl.SSL_CTX_set_min_proto_version(self.ctx, <int> version)
        else:
            if version == MAXIMUM_SUPPORTED:
                version = 0
            elif version == MINIMUM_SUPPORTED:
                version = ssl.TLS1_VERSION
            result = ssl.SSL_CTX_set_max_proto_version(self.ctx, <int> version)
        if result != 1:
            ERR_clear_error()
            raise ValueError(f"Unsupported protocol version 0x{version:x}")
        return 0

    @property
    @cython.critical_section
    def minimum_version(self):
        return ssl.SSL_CTX_get_min_proto_version(self.ctx) or MINIMUM_SUPPORTED

    @minimum_version.setter
    @cython.critical_section
    def minimum_version(self, long version):
        self.set_version(version, True)

    @property
    @cython.critical_section
    def maximum_version(self):
        return ssl.SSL_CTX_get_max_proto_version(self.ctx) or MAXIMUM_SUPPORTED

    @maximum_version.setter
    @cython.critical_section
    def maximum_version(self, long version):
        self.set_version(version, False)

    @property
    @cython.critical_section
    def options(self):
        return ssl.SSL_CTX_get_options(self.ctx)

    @options.setter
    @cython.critical_section
    def options(self, value):
        cdef uint64_t wanted, now = ssl.SSL_CTX_get_options(self.ctx)
        if BEFORE_312:
            value = as_integer(value)
            if not -LONG_MAX - 1 <= value <= LONG_MAX:
                raise OverflowError("Python int too large to convert to C long")
            wanted = <uint64_t> <long> value
        else:
            if not isinstance(value, int):
                raise TypeError(f"argument must be int, not {type(value).__name__}")
            if value < 0:
                if BEFORE_314:
                    raise OverflowError("can't convert negative int to unsigned")
                raise ValueError("Cannot convert negative int")
            wanted = value
        if wanted & ~now & NO_VERSION:
            deprecated(b"ssl.OP_NO_SSL*/ssl.OP_NO_TLS* options are deprecated")
        if now & ~wanted:
            ssl.SSL_CTX_clear_options(self.ctx, now & ~wanted)
        if wanted & ~now:
            ssl.SSL_CTX_set_options(self.ctx, wanted & ~now)

    @property
    @cython.critical_section
    def security_level(self):
        """The current security level"""
        return ssl.SSL_CTX_get_security_level(self.ctx)

    @property
    @cython.critical_section
    def num_tickets(self):
        """Control the number of TLSv1.3 session tickets"""
        return ssl.SSL_CTX_get_num_tickets(self.ctx)

    @num_tickets.setter
    @cython.critical_section
    def num_tickets(self, long number):
        if number < 0:
            raise ValueError("value must be non-negative")
        if self.protocol != PROTOCOL_TLS_SERVER:
            raise ValueError("SSLContext is not a server context.")
        if ssl.SSL_CTX_set_num_tickets(self.ctx, number) != 1:
            raise ValueError("failed to set num tickets.")

    @cython.critical_section
    def use_ticket_keys(self, TicketKeys keys not None):
        """Seal and open session tickets with `keys` (sslsock.TicketKeys), from the next connection on, for good: every server that
        has the same keys, in any thread or process, resumes what another has begun. A server that asks clients for certificates
        resumes its own sessions only, for a resumption verifies nothing. ValueError for what is no server's context.
        """
        if self.protocol != PROTOCOL_TLS_SERVER:
            raise ValueError("SSLContext is not a server context.")
        cdef int done
        mark = os.urandom(32)  # SSL_MAX_SID_CTX_LENGTH
        begin_change(self)
        done = ticket_keys_use(keys.keys, self.ctx)
        end_change(self)
        if done != 1:
            raise library_error()
        self.own_mark = mark

    @property
    @cython.critical_section
    def post_handshake_auth(self):
        return self.wants_post_handshake_auth

    @post_handshake_auth.setter
    @cython.critical_section
    def post_handshake_auth(self, bint wanted):
        self.wants_post_handshake_auth = wanted

    # Verification

    cdef int set_mode(self, mode) except -1:
        if mode not in VERIFY_MODES:
            raise ValueError("invalid value for verify_mode")
        self.forget_sessions()
        ssl.SSL_CTX_set_verify(self.ctx, VERIFY_MODES[mode], refuse_distrusted)
        return 0

    @property
    @cython.critical_section
    def verify_mode(self):
        cdef int mode = ssl.SSL_CTX_get_verify_mode(self.ctx) & (
            ssl.SSL_VERIFY_PEER | ssl.SSL_VERIFY_FAIL_IF_NO_PEER_CERT)
        if mode == ssl.SSL_VERIFY_NONE:
            return CERT_NONE
        return CERT_OPTIONAL if mode == ssl.SSL_VERIFY_PEER else CERT_REQUIRED

    @verify_mode.setter
    @cython.critical_section
    def verify_mode(self, int mode):
        if mode == CERT_NONE and self.checks_hostname:
            raise ValueError("Cannot set verify_mode to CERT_NONE when check_hostname is enabled.")
        self.set_mode(mode)

    @property
    @cython.critical_section
    def check_hostname(self):
        return self.checks_hostname

    @check_hostname.setter
    @cython.critical_section
    def check_hostname(self, bint wanted):
        if wanted and ssl.SSL_CTX_get_verify_mode(self.ctx) == ssl.SSL_VERIFY_NONE:
            self.set_mode(CERT_REQUIRED)
        self.forget_sessions()
        self.checks_hostname = wanted

    @property
    @cython.critical_section
    def verify_flags(self):
        return ssl.X509_VERIFY_PARAM_get_flags(ssl.SSL_CTX_get0_param(self.ctx))

    @verify_flags.setter
    @cython.critical_section
    def verify_flags(self, value):
        cdef ssl.X509_VERIFY_PARAM *param = ssl.SSL_CTX_get0_param(self.ctx)
        cdef unsigned long wanted, now = ssl.X509_VERIFY_PARAM_get_flags(param)
        if not isinstance(value, int):
            raise TypeError(f"argument must be int, not {'None' if value is None else type(value).__name__}")
        wanted = value & 0xffffffffffffffff
        self.forget_sessions()
        if (now & ~wanted and ssl.X509_VERIFY_PARAM_clear_flags(param, now & ~wanted) != 1) \
                or (wanted & ~now and ssl.X509_VERIFY_PARAM_set_flags(param, wanted & ~now) != 1):
            raise library_error()

    @property
    @cython.critical_section
    def _host_flags(self):
        return self.host_flags

    @_host_flags.setter
    @cython.critical_section
    def _host_flags(self, value):
        self.host_flags = value.__index__() & 0xffffffff
        self.forget_sessions()
        ssl.X509_VERIFY_PARAM_set_hostflags(ssl.SSL_CTX_get0_param(self.ctx), self.host_flags)

    # The own certificate

    @cython.critical_section
    def load_cert_chain(self, certfile, keyfile=None, password=None):
        cdef Password asked = None
        path_bytes(certfile, "certfile should be a valid filesystem path")
        if keyfile is not None:
            path_bytes(keyfile, "keyfile should be a valid filesystem path")
        if password is not None:
            asked = Password(password)
        chain = read_file(certfile)
        ERR_clear_error()
        if keyfile is None:
            key = chain
        else:
            key = None
        use_identity(self.ctx, chain, key, keyfile, asked)
        self.forget_sessions()

    # What OpenSSL asks or tells while it works

    @property
    @cython.critical_section
    def sni_callback(self):
        """Set a callback that will be called when a server name is provided by the SSL/TLS client in the SNI extension.

        If the argument is None then the callback is disabled. The method is called
        with the SSLSocket, the server name as a string, and the SSLContext object.

        See RFC 6066 for details of the SNI extension.
        """
        return self.sni_handler

    @sni_callback.setter
    @cython.critical_section
    def sni_callback(self, handler):
        if self.protocol == PROTOCOL_TLS_CLIENT:
            raise ValueError("sni_callback cannot be set on TLS_CLIENT context")
        self.sni_handler = checked_callable(handler, "not a callable object")
        if handler is not None:
            begin_change(self)
            ssl.SSL_CTX_set_tlsext_servername_callback(self.ctx, on_server_name)
            end_change(self)

    @property
    @cython.critical_section
    def _msg_callback(self):
        return self.msg_handler

    @_msg_callback.setter
    @cython.critical_section
    def _msg_callback(self, handler):
        self.msg_handler = checked_callable(handler, "not a callable object")
        if handler is not None:
            ssl.SSL_CTX_set_msg_callback(self.ctx, on_message)
        else:
            ssl.SSL_CTX_set_msg_callback(self.ctx, NULL)

    @property
    @cython.critical_section
    def keylog_filename(self):
        return self.key_log.name if self.key_log is not None else None

    @keylog_filename.setter
    @cython.critical_section
    def keylog_filename(self, name):
        self.key_log = None
        if name is not None:
            self.key_log = KeyLog(name)
            begin_change(self)
            ssl.SSL_CTX_set_keylog_callback(self.ctx, on_key_log)
            end_change(self)

    @cython.critical_section
    def set_psk_client_callback(self, callback):
        if self.protocol == PROTOCOL_TLS_SERVER:
            raise library_error("Cannot add PSK client callback to a PROTOCOL_TLS_SERVER context")
        self.psk_client_handler = checked_callable(callback, "callback must be callable")
        if callback is not None:
            ssl.SSL_CTX_set_psk_client_callback(self.ctx, on_psk_client)
        else:
            ssl.SSL_CTX_set_psk_client_callback(self.ctx, NULL)

    @cython.critical_section
    def set_psk_server_callback(self, callback, identity_hint=None):
        cdef bytes hint = None
        if self.protocol == PROTOCOL_TLS_CLIENT:
            raise library_error("Cannot add PSK server callback to a PROTOCOL_TLS_CLIENT context")
        if identity_hint is not None:
            if not isinstance(identity_hint, str):
                raise TypeError(
                    "set_psk_server_callback() argument 'identity_hint' must be str or None, "
                    f"not {type(identity_hint).__name__}")
            hint = c_string(identity_hint, "")
        checked = checked_callable(callback, "callback must be callable")
        if callback is not None and ssl.SSL_CTX_use_psk_identity_hint(
                self.ctx, <const char *> hint if hint is not None else NULL) != 1:
            ERR_clear_error()
            raise ValueError("failed to set identity hint")
        self.psk_server_handler = checked
        if callback is not None:
            ssl.SSL_CTX_set_psk_server_callback(self.ctx, on_psk_server)
        else:
            ssl.SSL_CTX_set_psk_server_callback(self.ctx, NULL)

    @property
    @cython.critical_section
    def resume_sessions(self):
        """Whether a connection of a client resumes the session of an earlier one to the same `server_hostname`: bool, False unless set.

        A resumed handshake costs less than half, on both sides, and verifies no certificate: the peer proves that it is the one that
        was verified then (RFC 8446, 2.2). A change of what is verified forgets all sessions. 8 are kept for a name, 256 names; those of
        TLS 1.3 are used once (RFC 8446, C.4), and come with the first data that is read. ValueError: a PROTOCOL_TLS_SERVER context.
        """
        return self.sessions is not None

    @resume_sessions.setter
    @cython.critical_section
    def resume_sessions(self, bint wanted):
        if self.protocol == PROTOCOL_TLS_SERVER:
            raise ValueError("resume_sessions is for clients, and this is a PROTOCOL_TLS_SERVER context")
        if wanted == (self.sessions is not None):
            return
        self.sessions = KeptSessions() if wanted else None
        begin_change(self)
        if wanted:
            ssl.SSL_CTX_set_session_cache_mode(self.ctx, ssl.SSL_SESS_CACHE_CLIENT | ssl.SSL_SESS_CACHE_NO_INTERNAL)
            ssl.SSL_CTX_sess_set_new_cb(self.ctx, on_new_session)
        else:
            ssl.SSL_CTX_set_session_cache_mode(self.ctx, ssl.SSL_SESS_CACHE_SERVER)
            ssl.SSL_CTX_sess_set_new_cb(self.ctx, NULL)
        end_change(self)

    @cython.critical_section
    def session_stats(self):
        return {
            "number": ssl.SSL_CTX_sess_number(self.ctx),
            "connect": ssl.SSL_CTX_sess_connect(self.ctx),
            "connect_good": ssl.SSL_CTX_sess_connect_good(self.ctx),
            "connect_renegotiate": ssl.SSL_CTX_sess_connect_renegotiate(self.ctx),
            "accept": ssl.SSL_CTX_sess_accept(self.ctx),
            "accept_good": ssl.SSL_CTX_sess_accept_good(self.ctx),
            "accept_renegotiate": ssl.SSL_CTX_sess_accept_renegotiate(self.ctx),
            "hits": ssl.SSL_CTX_sess_hits(self.ctx),
            "misses": ssl.SSL_CTX_sess_misses(self.ctx),
            "timeouts": ssl.SSL_CTX_sess_timeouts(self.ctx),
            "cache_full": ssl.SSL_CTX_sess_cache_full(self.ctx),
        }
