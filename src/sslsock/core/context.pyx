"""TLS contexts: what connections share. One SSL_CTX, made from settings that never change afterwards.

Owns the SSL_CTX and, for clients, the sessions that may be resumed. Settings of one socket (name, handlers) do not live
here: libssl's callbacks find the engine through the connection's window BIO.
"""

cimport cython
from libc.stdint cimport uint64_t
from libc.string cimport memset
from libc.time cimport time, time_t

cimport openssl_ssl as ssl
from openssl_err cimport ERR_clear_error, ERR_peek_error
from openssl_sha cimport sha256
from openssl_ssl cimport SSL, SSL_CTX, SSL_SESSION, X509_STORE_CTX
from openssl_x509 cimport (
    ASN1_TIME_cmp_time_t, EVP_PKEY_get0_type_name, X509, X509_check_private_key, X509_get0_notAfter)
from sslsock.core.ticket_keys cimport TicketKeys
from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.certificate cimport SslCertificate
from sslsock.core.crl cimport SslCrl
from sslsock.core.error_words cimport error_words
from sslsock.core.key cimport SslKey
from sslsock.core.key_log cimport KeyLog
from sslsock.core.session cimport SslSession
from sslsock.core.system_store cimport add_system_authorities, system_store
from ticket_keys cimport ticket_keys_use
from window_bio cimport window_bio, window_bio_clear, window_bio_new, window_bio_owner

from sslsock.core.system_store import system_stamp

VERIFY_NONE = VERIFY_MODE_NONE
VERIFY_QUERY = VERIFY_MODE_QUERY
VERIFY_PEER = VERIFY_MODE_PEER

_PROTOCOL_NAMES = {0x0300: "SSL 3", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}

# Used unless the program names others: forward secrecy and authenticated encryption only (RFC 9325, 4.2), AES-128 first, which
# loses nothing in practice and spares a fifth of the work of AES-256 and its SHA-384.
DEFAULT_CIPHERSUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
DEFAULT_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305"
)

# In front of them where there may be pre-shared keys: as strong. A server has the first of them only, without parameters for DHE.
PSK_CIPHERS = (
    "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES128-GCM-SHA256:DHE-PSK-AES256-GCM-SHA384:DHE-PSK-CHACHA20-POLY1305"
)

# What a server agrees to unless the program names others. OpenSSL's own list has X448, which costs much and which no client
# needs, and groups of finite fields up to 8,192 bits, with which a client that sends nothing but noise costs the server many
# milliseconds a handshake (CVE-2002-20001). P-521 stays: with TLS 1.2 the list bounds the curves of client certificates too
# (SSL_CTX_set1_groups_list(3)). The post-quantum hybrid comes with OpenSSL 3.5.
DEFAULT_GROUPS = "X25519:P-256:P-384:P-521"
if ssl.OpenSSL_version_num() >= 0x30500000:
    DEFAULT_GROUPS = "X25519MLKEM768:" + DEFAULT_GROUPS

TICKET_LIFETIME = 7200  # seconds that a server's tickets serve; OpenSSL's default: SSL_CTX_set_timeout(3)

cdef enum:
    NOTE_SIZE = 8
    # Each ticket of TLS 1.3 is followed by the next, so that a session would never end: RFC 8446, 4.6.1 recommends a limit.
    RESUMABLE = 86400  # seconds from the full handshake
    REFUSAL_EXTENSION = 0xFFCE  # of private use (RFC 8446, 11), and never sent
    TICKETS = 1  # a TLS 1.3 server sends; each costs a twelfth of its handshake
    SESSION_KEYS = 512  # peers whose sessions a client context remembers
    SESSIONS_PER_KEY = 4  # a TLS 1.3 ticket serves once (RFC 8446, C.4), so parallel connections need several


class ConfigurationError(ValueError):
    """A setting that OpenSSL or this package refuses. Its text says which one, and OpenSSL's reason."""


def openssl_version():
    """The OpenSSL that is linked, in its own words: str such as "OpenSSL 3.5.4 30 Sep 2025"."""
    return ssl.OpenSSL_version(ssl.OPENSSL_VERSION).decode("ascii", "replace")


cdef object refused(str what):
    """The ConfigurationError for the call that has just failed."""
    cdef unsigned long code = ERR_peek_error()
    ERR_clear_error()
    return ConfigurationError(f"{what}: {error_words(code)}" if code else what)


cdef int require_identity(certificate, key) except -1:
    """That there is a certificate with its key, and that both have loaded."""
    if certificate is None and key is None:
        raise ConfigurationError("a certificate chain was given without a certificate")
    if certificate is None or key is None:
        raise ConfigurationError("a private key was given without its certificate" if certificate is None
                                 else "a certificate was given without its private key")
    if (<SslCertificate?> certificate).x509 == NULL:
        raise ConfigurationError(f"the certificate did not load: {certificate.error_string}")
    if (<SslKey?> key).pkey == NULL:
        raise ConfigurationError(f"the private key did not load: {key.error_string}")
    return 0


cdef X509 *chained(link) except NULL:
    """What is sent after a certificate."""
    if (<SslCertificate?> link).x509 == NULL:
        raise ConfigurationError(f"a certificate of the chain did not load: {link.error_string}")
    return (<SslCertificate> link).x509


def protocol_supported(int version):
    """Whether the linked OpenSSL can speak the protocol with this version number (0x0304: TLS 1.3): bool."""
    cdef SSL_CTX *probe = ssl.SSL_CTX_new(ssl.TLS_client_method())
    cdef bint supported
    if probe == NULL:
        raise MemoryError
    try:
        if version < 0x0303:
            allow_old_protocols(probe)
        supported = ssl.SSL_CTX_set_min_proto_version(probe, version) == 1 \
            and ssl.SSL_CTX_set_max_proto_version(probe, version) == 1 and can_greet(probe)
    finally:
        ssl.SSL_CTX_free(probe)
        ERR_clear_error()
    return supported


cdef bint can_greet(SSL_CTX *context) except -1:
    """Whether a client can make its ClientHello. SSL_CTX_set_min_proto_version(3) and its like accept versions that were left out
    when OpenSSL was built; here they are missed."""
    cdef SSL *connection = ssl.SSL_new(context)
    cdef window_bio window
    cdef ssl.BIO *bio
    cdef int result
    memset(&window, 0, sizeof(window))
    bio = window_bio_new(&window) if connection != NULL else NULL
    if bio == NULL:
        ssl.SSL_free(connection)
        raise MemoryError
    ssl.SSL_set_bio(connection, bio, bio)
    ssl.SSL_set_connect_state(connection)
    result = ssl.SSL_do_handshake(connection)
    result = ssl.SSL_get_error(connection, result)
    ssl.SSL_free(connection)
    window_bio_clear(&window)
    return result == ssl.SSL_ERROR_WANT_READ


# Protocols before TLS 1.2 sign their handshakes with SHA-1 and MD5, which OpenSSL allows at security level 0 only
# (SSL_CTX_set_security_level(3)). That level would let newer protocols do so as well, and let pass weak certificates and keys.


cdef void allow_old_protocols(SSL_CTX *context) noexcept nogil:
    """At the security level that there is, let old protocols be themselves."""
    ssl.SSL_CTX_set0_security_ex_data(context, <void *> ssl.SSL_CTX_get_security_callback(context))
    ssl.SSL_CTX_set_security_callback(context, on_security)


cdef int on_security(
        const SSL *connection, const SSL_CTX *context, int operation, int bits, int number, void *other,
        void *default) noexcept nogil:
    """SSL_CTX_set_security_callback(3): whether something is allowed; `default` is OpenSSL's own answer."""
    if operation == ssl.SSL_SECOP_VERSION:
        return 1  # the protocol bounds say which
    if connection != NULL and ssl.SSL_version(connection) < ssl.TLS1_2_VERSION and operation in (
            ssl.SSL_SECOP_SIGALG_SUPPORTED, ssl.SSL_SECOP_SIGALG_SHARED, ssl.SSL_SECOP_SIGALG_CHECK):
        return 1
    return (<ssl.security_callback> default)(connection, context, operation, bits, number, other, NULL)


# libssl's callbacks: they only look up whom they concern.


cdef int on_verify(X509_STORE_CTX *store, void *argument) noexcept nogil:
    cdef SSL *connection = <SSL *> ssl.X509_STORE_CTX_get_ex_data(store, ssl.SSL_get_ex_data_X509_STORE_CTX_idx())
    return (<BareEngine> window_bio_owner(connection)).check_chain(store)


cdef int on_new_session(SSL *connection, SSL_SESSION *session) noexcept nogil:
    return (<BareEngine> window_bio_owner(connection)).note_session(session)


cdef int on_client_hello(SSL *connection, int *alert, void *argument) noexcept nogil:
    alert[0] = (<BareEngine> window_bio_owner(connection)).check_hello()
    return ssl.SSL_CLIENT_HELLO_SUCCESS if alert[0] == 0 else ssl.SSL_CLIENT_HELLO_ERROR


cdef int on_server_name(SSL *connection, int *alert, void *argument) noexcept nogil:
    # Every name is served. To say so keeps it in the session: after a resumption of TLS 1.2 it is known by that alone.
    return ssl.SSL_TLSEXT_ERR_OK


cdef int on_select_protocol(
        SSL *connection, const unsigned char **chosen, unsigned char *size,
        const unsigned char *offered, unsigned int offered_size, void *argument) noexcept nogil:
    # The context outlives its connections, so its list can be lent. No common protocol: RFC 7301, 3.2 asks for the alert.
    cdef wire_list *own = <wire_list *> argument
    if ssl.SSL_select_next_proto(
            <unsigned char **> chosen, size, own.data, own.size, offered, offered_size) == ssl.OPENSSL_NPN_NEGOTIATED:
        return ssl.SSL_TLSEXT_ERR_OK
    return ssl.SSL_TLSEXT_ERR_ALERT_FATAL


cdef int on_ticket_extension(
        SSL *connection, unsigned int kind, unsigned int message, const unsigned char **data, size_t *size, X509 *certificate,
        size_t position, int *alert, void *argument) noexcept nogil:
    """SSL_CTX_add_custom_ext(3): 0 adds nothing; -1 ends the connection with the alert. See Engine.refuse."""
    alert[0] = (<BareEngine> window_bio_owner(connection)).refusal
    if alert[0] == 0:
        return 0
    return -1


# A resumption verifies nothing, so each ticket bears the time of the full handshake that did: 8 bytes, most significant first. A
# session without a note is not resumed: its client's certificate had errors, which were ignored; or its client has shown a pre-shared
# key, and is to show it each time, for a resumption does not tell whose it was.


cdef int on_ticket_made(SSL *connection, void *argument) noexcept nogil:
    cdef SSL_SESSION *session = ssl.SSL_get_session(connection)
    cdef unsigned char note[NOTE_SIZE]
    cdef uint64_t now = <uint64_t> time(NULL)
    cdef void *present = NULL
    cdef size_t size = 0
    cdef int place
    if ssl.SSL_get_verify_result(connection) != ssl.X509_V_OK or (<BareEngine> window_bio_owner(connection)).keyed:
        # Where the certificate came after the handshake, the session had one.
        return ssl.SSL_SESSION_set1_ticket_appdata(session, NULL, 0)
    if ssl.SSL_SESSION_get0_ticket_appdata(session, &present, &size) == 1 and size == NOTE_SIZE:
        return 1  # it was resumed, and keeps the note of its beginning
    for place in range(NOTE_SIZE):
        note[place] = <unsigned char> (now >> 8 * (NOTE_SIZE - 1 - place) & 0xFF)
    return ssl.SSL_SESSION_set1_ticket_appdata(session, note, NOTE_SIZE)


cdef int on_ticket_opened(
        SSL *connection, SSL_SESSION *session, const unsigned char *key_name, size_t key_name_size, int status,
        void *argument) noexcept nogil:
    cdef const X509 *peer
    cdef void *note = NULL
    cdef size_t size = 0
    cdef uint64_t begun = 0
    cdef time_t now = time(NULL)
    cdef int place
    # IGNORE: a full handshake, so that the certificate is looked at again.
    if status != ssl.SSL_TICKET_SUCCESS and status != ssl.SSL_TICKET_SUCCESS_RENEW:
        return ssl.SSL_TICKET_RETURN_IGNORE_RENEW
    if ssl.SSL_SESSION_get0_ticket_appdata(session, &note, &size) != 1 or size != NOTE_SIZE:
        return ssl.SSL_TICKET_RETURN_IGNORE_RENEW
    for place in range(NOTE_SIZE):
        begun = begun << 8 | (<const unsigned char *> note)[place]
    if <uint64_t> now > begun + RESUMABLE:
        return ssl.SSL_TICKET_RETURN_IGNORE_RENEW
    peer = ssl.SSL_SESSION_get0_peer(session)
    if peer != NULL and ASN1_TIME_cmp_time_t(X509_get0_notAfter(peer), now) != 1:
        return ssl.SSL_TICKET_RETURN_IGNORE_RENEW
    (<BareEngine> window_bio_owner(connection)).keyed = False  # a key that was given for an identity before was passed over
    return ssl.SSL_TICKET_RETURN_USE if status == ssl.SSL_TICKET_SUCCESS else ssl.SSL_TICKET_RETURN_USE_RENEW


cdef class Context:
    """Context(*, server_side, certificate=None, certificate_chain=(), private_key=None, certificates=(), verify_mode=VERIFY_PEER, \
verify_depth=-1, ca_certificates=(), use_system_ca=True, minimum_protocol=0x0303, maximum_protocol=0, ciphers="", ciphersuites="", \
groups="", signature_algorithms="", next_protocols=(), ticket_keys=None, session_context=b"", key_log=None, verify_flags=0, crls=(), pre_shared_keys=False, \
pre_shared_key_identity_hint="", post_handshake_authentication=False, legacy_server_connect=False, prefer_server_ciphers=True)
--

    Settings shared by TLS connections of one role, and what they may share: session tickets.

    All settings are keyword arguments; ConfigurationError names the one that does not hold.

    server_side: bool
    certificate, certificate_chain, private_key: SslCertificate, list of SslCertificate, SslKey; a server needs them
    certificates: list of (certificate, certificate_chain, private_key) besides, or instead; one for each type of key (RSA, EC,
        ED25519, ...): the peer's signature algorithms decide which one it is shown
    verify_mode: VERIFY_NONE, VERIFY_QUERY (ask, report, go on) or VERIFY_PEER (a server then demands a certificate)
    verify_depth: most intermediate certificates, -1: OpenSSL's own bound (100)
    ca_certificates, use_system_ca: whom to trust
    pre_shared_keys: bool, connections may be authenticated by a pre-shared key in place of certificates (Engine,
        pre_shared_key_handler); a server then needs no certificate. pre_shared_key_identity_hint: str, what a server says with
        TLS 1.2 for clients to choose theirs by
    post_handshake_authentication: bool, with TLS 1.3 a client agrees to be asked for its certificate after the handshake, a server
        does not ask before (Engine.request_certificate)
    prefer_server_ciphers: bool, a server's order of cipher suites decides, not its client's; ChaCha20 first where the client has it so
    legacy_server_connect: bool, a client talks to servers without secure renegotiation (RFC 5746) too
    verify_flags: int, VerifyFlag; crls: list of SslCrl, which make the peer's own certificate be looked up in them, if no flag does more
    minimum_protocol, maximum_protocol: version numbers such as 0x0303 (TLS 1.2); maximum 0: the newest
    ciphers (TLS 1.2 and older), ciphersuites (TLS 1.3), groups: OpenSSL's syntax (openssl-ciphers(1)); "": DEFAULT_CIPHERS, DEFAULT_CIPHERSUITES, and of groups DEFAULT_GROUPS for a server, OpenSSL's for a client
    signature_algorithms: for both sides of the handshake, in the syntax of SSL_CTX_set1_sigalgs_list(3); "": OpenSSL's
    next_protocols: ALPN names (bytes), most wanted first
    ticket_keys: TicketKeys, for a server that resumes what others with the same keys have begun, or None: keys of its own
    session_context: bytes, with ticket_keys: names the service, so that servers with different certificates can be one. A
        session is resumed only where session_context (b"": the certificates), verification (mode, depth, authorities) and
        algorithms (minimum_protocol, ciphers, ciphersuites, groups, signature_algorithms) are the same, for a day after its full handshake, and while
        the client's certificate is valid. What is decided elsewhere (an engine's
        verify_handler, what a program allows to whom) is not in it: where that differs, give different ones.
    key_log: for debugging, where the secrets of connections are told: a path (str or PathLike), whose file is added to, or
        callable(str), or None. See SslConfiguration.key_log.
    """

    def __cinit__(self, *, bint server_side, certificate=None, certificate_chain=(), private_key=None, certificates=(),
                  int verify_mode=VERIFY_MODE_PEER, int verify_depth=-1, ca_certificates=(), bint use_system_ca=True,
                  int minimum_protocol=0x0303, int maximum_protocol=0, str ciphers="", str ciphersuites="",
                  str groups="", str signature_algorithms="", next_protocols=(), TicketKeys ticket_keys=None,
                  bytes session_context not None=b"", key_log=None, unsigned long verify_flags=0, crls=(), bint pre_shared_keys=False, str pre_shared_key_identity_hint="",
                  bint post_handshake_authentication=False, bint legacy_server_connect=False,
                  bint prefer_server_ciphers=True):
        if verify_mode not in (VERIFY_MODE_NONE, VERIFY_MODE_QUERY, VERIFY_MODE_PEER):
            raise ConfigurationError(f"unknown verification mode {verify_mode}")
        if not server_side and (ticket_keys is not None or session_context):
            raise ConfigurationError("ticket_keys and session_context are for servers")
        ca_certificates, identities = list(ca_certificates), list(certificates)
        if certificate is not None or private_key is not None or certificate_chain:
            identities.insert(0, (certificate, certificate_chain, private_key))
        self.server_side = server_side
        self.verify_mode = verify_mode
        self.sessions = {}
        ERR_clear_error()
        self.ctx = ssl.SSL_CTX_new(ssl.TLS_server_method() if server_side else ssl.TLS_client_method())
        if self.ctx == NULL:
            raise refused("OpenSSL makes no context")
        # Renegotiation and compression have cost more in attacks than they gave (RFC 9325, 3.3 and 3.5).
        ssl.SSL_CTX_set_options(self.ctx, ssl.SSL_OP_NO_COMPRESSION | ssl.SSL_OP_NO_RENEGOTIATION)
        # The system's configuration of OpenSSL may have set it (SSL_CONF_cmd(3), ServerPreference).
        if prefer_server_ciphers:
            ssl.SSL_CTX_set_options(self.ctx, ssl.SSL_OP_CIPHER_SERVER_PREFERENCE | ssl.SSL_OP_PRIORITIZE_CHACHA)
        else:
            ssl.SSL_CTX_clear_options(self.ctx, ssl.SSL_OP_CIPHER_SERVER_PREFERENCE)
        # The system's configuration of OpenSSL may have set it.
        if legacy_server_connect:
            ssl.SSL_CTX_set_options(self.ctx, ssl.SSL_OP_LEGACY_SERVER_CONNECT)
        else:
            ssl.SSL_CTX_clear_options(self.ctx, ssl.SSL_OP_LEGACY_SERVER_CONNECT)
        ssl.SSL_CTX_set_mode(self.ctx, ssl.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)
        # A read comes back after each handshake message, so that the engine can count those that bring no data.
        ssl.SSL_CTX_clear_mode(self.ctx, ssl.SSL_MODE_AUTO_RETRY)
        self.set_protocols(minimum_protocol, maximum_protocol)
        if pre_shared_keys and not ciphers and minimum_protocol >= 0x0303:
            ciphers = f"{PSK_CIPHERS}:{DEFAULT_CIPHERS}"
        self.set_algorithms(minimum_protocol, ciphers, ciphersuites, groups, signature_algorithms)
        self.set_identities(identities, pre_shared_keys)
        if pre_shared_key_identity_hint:
            self.set_identity_hint(pre_shared_key_identity_hint)
        self.identities = <int> len(identities)
        crls = list(crls)
        if crls:
            verify_flags |= ssl.X509_V_FLAG_CRL_CHECK
        stamp = system_stamp() if use_system_ca and not server_side else None  # before they are read: a change meanwhile shows
        self.set_verification(
            verify_depth, ca_certificates, use_system_ca, crls, verify_flags, post_handshake_authentication and server_side)
        self.complete_chains(identities)
        if post_handshake_authentication and not server_side:
            ssl.SSL_CTX_set_post_handshake_auth(self.ctx, 1)
        self.set_next_protocols(next_protocols)
        # A server's holds in a fleet; a client's on this machine, where the system's authorities are known better.
        system = str(use_system_ca) if server_side or not use_system_ca else repr(stamp)
        self.session_context = digest_of(
            [str(verify_mode), str(verify_depth), system, str(minimum_protocol),
             ciphers or DEFAULT_CIPHERS, ciphersuites or DEFAULT_CIPHERSUITES, groups, str(verify_flags),
             *(["signature algorithms", signature_algorithms] if signature_algorithms else []),
             *(["pre-shared keys"] if pre_shared_keys else []),
             *(["legacy servers"] if legacy_server_connect else []),
             *(["certificates later"] if post_handshake_authentication and server_side else [])],
            sorted({sha256((<SslCertificate> authority).encode(True)) for authority in ca_certificates}
                   | {sha256((<SslCrl> crl).encode()) for crl in crls})
            if verify_mode != VERIFY_MODE_NONE else [],
            [session_context] if session_context else sorted(own.digest() for own, _, _ in identities))
        self.set_sessions(ticket_keys)
        if key_log is not None:
            self.set_key_log(key_log)

    def __dealloc__(self):
        if self.ctx != NULL:
            ssl.SSL_CTX_free(self.ctx)

    def __repr__(self):
        mode = {VERIFY_NONE: "VERIFY_NONE", VERIFY_QUERY: "VERIFY_QUERY", VERIFY_PEER: "VERIFY_PEER"}[self.verify_mode]
        return f"<{type(self).__name__} for {'servers' if self.server_side else 'clients'}, {mode}>"

    cdef int set_protocols(self, int minimum, int maximum) except -1:
        cdef int version
        for version in (minimum, maximum or minimum):  # a minimum of 0 would be all that OpenSSL has
            if version not in _PROTOCOL_NAMES:
                raise ConfigurationError(f"unknown protocol version {version:#06x}")
            if version < 0x0303 and not protocol_supported(version):
                raise ConfigurationError(
                    f"{openssl_version()} was built or configured without {_PROTOCOL_NAMES[version]}")
        if maximum and minimum > maximum:
            raise ConfigurationError(
                f"minimum_protocol {_PROTOCOL_NAMES[minimum]} is newer than maximum_protocol {_PROTOCOL_NAMES[maximum]}")
        if minimum < 0x0303:
            allow_old_protocols(self.ctx)
        if ssl.SSL_CTX_set_min_proto_version(self.ctx, minimum) != 1 \
                or ssl.SSL_CTX_set_max_proto_version(self.ctx, maximum) != 1:
            raise refused("the protocol bounds are refused")
        return 0

    cdef int set_algorithms(
            self, int minimum, str ciphers, str ciphersuites, str groups, str signature_algorithms) except -1:
        cdef bytes text
        ciphersuites = ciphersuites or DEFAULT_CIPHERSUITES
        if minimum >= 0x0303:  # older protocols know none of these
            ciphers = ciphers or DEFAULT_CIPHERS
        if ciphers:
            text = c_text("ciphers", ciphers)
            if ssl.SSL_CTX_set_cipher_list(self.ctx, text) != 1:
                raise refused(f"ciphers {ciphers!r}")
        if ciphersuites:
            text = c_text("ciphersuites", ciphersuites)
            if ssl.SSL_CTX_set_ciphersuites(self.ctx, text) != 1:
                raise refused(f"ciphersuites {ciphersuites!r}")
        if groups:
            text = c_text("groups", groups)
            if ssl.SSL_CTX_set1_groups_list(self.ctx, text) != 1:
                raise refused(f"groups {groups!r}")
        elif self.server_side:
            text = c_text("groups", DEFAULT_GROUPS)
            if ssl.SSL_CTX_set1_groups_list(self.ctx, text) != 1:
                ERR_clear_error()  # a provider without them all, such as FIPS: OpenSSL's own list is what it has
        if signature_algorithms:
            # Of a server's, also what its client may sign with: no list for clients alone is set (SSL_CTX_set1_client_sigalgs_list(3)).
            text = c_text("signature_algorithms", signature_algorithms)
            if ssl.SSL_CTX_set1_sigalgs_list(self.ctx, text) != 1:
                raise refused(f"signature_algorithms {signature_algorithms!r}")
        return 0

    cdef int set_identities(self, identities, bint pre_shared_keys) except -1:
        cdef const char *kind
        if not identities and self.server_side and not pre_shared_keys:
            raise ConfigurationError("a server needs a certificate and its private key")
        kinds = set()
        for certificate, chain, key in identities:
            self.add_identity(certificate, chain, key)
            # libssl holds one certificate, key and chain for each type, and would take this one in place of the other.
            kind = EVP_PKEY_get0_type_name((<SslKey> key).pkey)
            if kind in kinds:
                raise ConfigurationError(f"two certificates have keys of the same type, {kind.decode('ascii', 'replace')}")
            kinds.add(kind)
        return 0

    cdef int set_identity_hint(self, str hint) except -1:
        cdef bytes text
        if not self.server_side:
            return 0
        text = hint.encode("utf-8", "surrogateescape")
        if b"\0" in text or ssl.SSL_CTX_use_psk_identity_hint(self.ctx, text) != 1:
            raise refused("the identity hint is refused")
        return 0

    cdef int add_identity(self, certificate, chain, key) except -1:
        require_identity(certificate, key)
        # Not SSL_CTX_check_private_key(3): it looks at the type set last, which a key of another type makes its own.
        if X509_check_private_key((<SslCertificate> certificate).x509, (<SslKey> key).pkey) != 1:
            raise refused("the private key does not fit the certificate")
        if ssl.SSL_CTX_use_certificate(self.ctx, (<SslCertificate> certificate).x509) != 1:
            raise refused("the certificate is refused")
        if ssl.SSL_CTX_use_PrivateKey(self.ctx, (<SslKey> key).pkey) != 1:
            raise refused("the private key is refused")
        for link in chain:  # goes to the certificate set last: SSL_CTX_add1_chain_cert(3)
            if ssl.SSL_CTX_add1_chain_cert(self.ctx, chained(link)) != 1:
                raise refused("a certificate of the chain is refused")
        return 0

    cdef int complete_chains(self, identities) except -1:
        """Intermediate certificates are sent whether they were given with a certificate or stand among the trusted ones. libssl
        would look for those, in the system's folder too, in every handshake (SSL_CTX_build_cert_chain(3)); here it is done once."""
        for certificate, chain, _ in identities:
            if not chain and ssl.SSL_CTX_select_current_cert(self.ctx, (<SslCertificate> certificate).x509) == 1:
                ssl.SSL_CTX_build_cert_chain(  # where one is missing, what there is
                    self.ctx, ssl.SSL_BUILD_CHAIN_FLAG_NO_ROOT | ssl.SSL_BUILD_CHAIN_FLAG_IGNORE_ERROR
                    | ssl.SSL_BUILD_CHAIN_FLAG_CLEAR_ERROR)
        ERR_clear_error()
        ssl.SSL_CTX_set_mode(self.ctx, ssl.SSL_MODE_NO_AUTO_CHAIN)
        return 0

    cdef int set_verification(
            self, int depth, ca_certificates, bint use_system_ca, list crls, unsigned long flags, bint later) except -1:
        cdef int mode = ssl.SSL_VERIFY_NONE
        if self.verify_mode != VERIFY_MODE_NONE:
            mode = ssl.SSL_VERIFY_PEER
            if self.server_side and self.verify_mode == VERIFY_MODE_PEER:
                mode |= ssl.SSL_VERIFY_FAIL_IF_NO_PEER_CERT
            if later:
                mode |= ssl.SSL_VERIFY_POST_HANDSHAKE
            for certificate in ca_certificates:
                if (<SslCertificate?> certificate).x509 == NULL:
                    raise ConfigurationError(f"a CA certificate did not load: {certificate.error_string}")
                if ssl.X509_STORE_add_cert(ssl.SSL_CTX_get_cert_store(self.ctx), (<SslCertificate> certificate).x509) != 1:
                    raise refused("a CA certificate is refused")
                # The names a server sends with its request, so that a client with several certificates picks the right one.
                if self.server_side and ssl.SSL_CTX_add_client_CA(self.ctx, (<SslCertificate> certificate).x509) != 1:
                    raise refused("a CA certificate is refused")
            if use_system_ca:
                self.trust_system(bool(ca_certificates or crls))
            for crl in crls:
                if (<SslCrl?> crl).crl == NULL:
                    raise ConfigurationError(f"a CRL did not load: {crl.error_string}")
                if ssl.X509_STORE_add_crl(ssl.SSL_CTX_get_cert_store(self.ctx), (<SslCrl> crl).crl) != 1:
                    raise refused("a CRL is refused")
            if flags and ssl.X509_VERIFY_PARAM_set_flags(ssl.SSL_CTX_get0_param(self.ctx), flags) != 1:
                raise refused(f"verify_flags {flags:#x}")
        if depth >= 0:
            ssl.SSL_CTX_set_verify_depth(self.ctx, depth)
        ssl.SSL_CTX_set_verify(self.ctx, mode, NULL)
        ssl.SSL_CTX_set_cert_verify_callback(self.ctx, on_verify, NULL)
        return 0

    cdef int trust_system(self, bint others_too) except -1:
        cdef ssl.X509_STORE *store
        try:
            if others_too:
                return add_system_authorities(ssl.SSL_CTX_get_cert_store(self.ctx))
            store = system_store()
        except ValueError as exc:
            raise refused(str(exc)) from None
        ssl.SSL_CTX_set1_cert_store(self.ctx, store)
        ssl.X509_STORE_free(store)
        return 0

    cdef int set_next_protocols(self, protocols) except -1:
        cdef bytes wire = b""
        for name in protocols:
            if not isinstance(name, bytes) or not 0 < len(name) < 256:
                raise ConfigurationError(f"an ALPN name is 1 to 255 bytes, not {name!r}")
            wire += bytes((len(name),)) + name
        if len(wire) > 65535:
            raise ConfigurationError("the ALPN list is longer than 65535 bytes")
        self.next_protocols = wire
        if not wire:
            return 0
        if self.server_side:
            self.offered.data = <const unsigned char *> <const char *> wire
            self.offered.size = <unsigned int> len(wire)
            ssl.SSL_CTX_set_alpn_select_cb(self.ctx, on_select_protocol, &self.offered)
        elif ssl.SSL_CTX_set_alpn_protos(self.ctx, <const unsigned char *> <const char *> wire, <unsigned int> len(wire)) != 0:
            raise refused("the ALPN list is refused")
        return 0

    cdef int set_sessions(self, TicketKeys ticket_keys) except -1:
        cdef bytes session_context = self.session_context
        if self.server_side:
            # Tickets carry the state, so nothing is kept for a client that may never come back.
            ssl.SSL_CTX_set_session_cache_mode(self.ctx, ssl.SSL_SESS_CACHE_OFF)
            # It is in every ticket, and one with another is not resumed: a resumption skips what this context would check.
            if ssl.SSL_CTX_set_session_id_context(self.ctx, session_context, <unsigned int> len(session_context)) != 1:
                raise refused("the session context is refused")
            ssl.SSL_CTX_set_timeout(self.ctx, TICKET_LIFETIME)
            ssl.SSL_CTX_set_num_tickets(self.ctx, TICKETS)
            ssl.SSL_CTX_set_client_hello_cb(self.ctx, on_client_hello, NULL)
            ssl.SSL_CTX_set_tlsext_servername_callback(self.ctx, on_server_name)
            ssl.SSL_CTX_set_session_ticket_cb(self.ctx, on_ticket_made, on_ticket_opened, NULL)
            # Allowed in a ClientHello, for whoever sends this number there is to be served as ever.
            if ssl.SSL_CTX_add_custom_ext(
                    self.ctx, REFUSAL_EXTENSION, ssl.SSL_EXT_CLIENT_HELLO | ssl.SSL_EXT_TLS1_3_NEW_SESSION_TICKET,
                    on_ticket_extension, NULL, NULL, NULL, NULL) != 1:
                raise refused("the extension for refusals is refused")
            if ticket_keys is not None and ticket_keys_use(ticket_keys.keys, self.ctx) != 1:
                raise refused("the ticket keys are refused")
        else:
            ssl.SSL_CTX_set_session_cache_mode(self.ctx, ssl.SSL_SESS_CACHE_CLIENT | ssl.SSL_SESS_CACHE_NO_INTERNAL)
            ssl.SSL_CTX_sess_set_new_cb(self.ctx, on_new_session)
        return 0

    cdef int set_key_log(self, target) except -1:
        try:
            self.key_log = KeyLog(target)
        except (OSError, TypeError, ValueError) as exc:
            raise ConfigurationError(f"key_log: {exc}") from None
        self.key_log.attach(self.ctx)
        return 0

    # sessions of a client: all that changes of a context, in its critical section

    cdef bytes mark_of(self, str server_name, str verify_name):
        """What the sessions of connections to a server under these names bear: see session.pyx."""
        return digest_of([self.session_context], [(server_name or "").lower()], [(verify_name or "").lower()])

    cdef int keep_session(self, object key, SslSession session) except -1:
        """Remember a session for the next connection with the same key."""
        with cython.critical_section(self):
            sessions = self.sessions.pop(key, None) or []
            self.sessions[key] = sessions
            sessions.append(session)
            if len(sessions) > SESSIONS_PER_KEY:
                del sessions[0]
            if len(self.sessions) > SESSION_KEYS:
                del self.sessions[next(iter(self.sessions))]
        return 0

    cdef int drop_session(self, object key, SslSession session) except -1:
        """A program has offered this one by itself."""
        with cython.critical_section(self):
            sessions = self.sessions.get(key)
            if sessions and session in sessions:
                sessions.remove(session)
        return 0

    cdef SslSession take_session(self, object key, bytes mark):
        """The newest session for `key` that bears `mark`, or None. A TLS 1.3 session is not offered twice: RFC 8446, C.4."""
        cdef SslSession newest, found = None
        with cython.critical_section(self):
            sessions = self.sessions.get(key)
            while sessions and found is None:
                newest = <SslSession> sessions.pop()
                if newest.serves(mark):
                    found = newest
                    if ssl.SSL_SESSION_get_protocol_version(found.session) < ssl.TLS1_3_VERSION:
                        sessions.append(found)
        return found


cdef bytes digest_of(list policy, list authorities, list service):
    """A session id context (SSL_CTX_set_session_id_context(3), at most 32 bytes): the same for the same settings only."""
    said = [b"sslsock session context 1"]
    for group in (policy, authorities, service):
        said.append(len(group).to_bytes(4, "big"))
        for part in group:
            encoded = part.encode("utf-8") if isinstance(part, str) else part
            said.append(len(encoded).to_bytes(4, "big"))
            said.append(encoded)
    return sha256(b"".join(said))


cdef bytes c_text(str setting, str text):
    """`text` for a C function; a NUL would end it early."""
    encoded = text.encode("utf-8")
    if b"\0" in encoded:
        raise ConfigurationError(f"{setting} holds a NUL character")
    return encoded
