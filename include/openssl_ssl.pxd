"""OpenSSL's connections and contexts: openssl/ssl.h, and what they need of bio.h, x509_vfy.h, crypto.h, rand.h."""

from libc.stdint cimport uint64_t
from libc.time cimport time_t

from openssl_x509 cimport EVP_PKEY, X509, X509_CRL


cdef extern from "openssl/crypto.h" nogil:
    const char *OpenSSL_version(int kind)
    unsigned long OpenSSL_version_num()
    void OPENSSL_cleanse(void *data, size_t size)
    int OPENSSL_VERSION


cdef extern from "openssl/bio.h" nogil:
    ctypedef struct BIO


cdef extern from "openssl/x509_vfy.h" nogil:
    ctypedef struct X509_STORE
    ctypedef struct X509_STORE_CTX
    ctypedef struct X509_VERIFY_PARAM
    ctypedef int (*X509_STORE_CTX_verify_cb)(int ok, X509_STORE_CTX *context) noexcept nogil

    int X509_V_OK, X509_V_ERR_APPLICATION_VERIFICATION, X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
    unsigned int X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT

    ctypedef struct X509_LOOKUP
    ctypedef struct X509_LOOKUP_METHOD
    ctypedef struct OPENSSL_STACK "STACK_OF(X509)"
    int X509_FILETYPE_DEFAULT, X509_FILETYPE_PEM

    X509_STORE *X509_STORE_new()
    void X509_STORE_free(X509_STORE *store)
    int X509_STORE_up_ref(X509_STORE *store)
    int X509_STORE_set_default_paths(X509_STORE *store)
    int X509_STORE_load_file(X509_STORE *store, const char *path)
    OPENSSL_STACK *X509_STORE_get1_all_certs(X509_STORE *store)
    X509_LOOKUP *X509_STORE_add_lookup(X509_STORE *store, X509_LOOKUP_METHOD *method)
    X509_LOOKUP_METHOD *X509_LOOKUP_hash_dir()
    int X509_LOOKUP_add_dir(X509_LOOKUP *lookup, const char *path, long kind)
    int X509_STORE_add_cert(X509_STORE *store, X509 *certificate)
    X509_STORE_CTX *X509_STORE_CTX_new()
    void X509_STORE_CTX_free(X509_STORE_CTX *context)
    int X509_STORE_CTX_init(X509_STORE_CTX *context, X509_STORE *store, X509 *certificate, OPENSSL_STACK *untrusted)
    int X509_STORE_CTX_set_default(X509_STORE_CTX *context, const char *name)
    X509_VERIFY_PARAM *X509_STORE_CTX_get0_param(const X509_STORE_CTX *context)
    int X509_STORE_CTX_set_ex_data(X509_STORE_CTX *context, int index, void *data)
    int X509_VERIFY_PARAM_set1(X509_VERIFY_PARAM *param, const X509_VERIFY_PARAM *source)
    void X509_VERIFY_PARAM_set_auth_level(X509_VERIFY_PARAM *param, int level)
    void X509_VERIFY_PARAM_set_time(X509_VERIFY_PARAM *param, time_t seconds)
    int X509_verify_cert(X509_STORE_CTX *context)
    int X509_STORE_CTX_get_error(const X509_STORE_CTX *context)
    void X509_STORE_CTX_set_error(X509_STORE_CTX *context, int error)
    int X509_STORE_CTX_get_error_depth(const X509_STORE_CTX *context)
    X509 *X509_STORE_CTX_get_current_cert(const X509_STORE_CTX *context)
    X509 *X509_STORE_CTX_get0_cert(const X509_STORE_CTX *context)
    void *X509_STORE_CTX_get_ex_data(const X509_STORE_CTX *context, int index)
    int X509_STORE_CTX_set_app_data(X509_STORE_CTX *context, void *data)
    void *X509_STORE_CTX_get_app_data(const X509_STORE_CTX *context)
    void X509_STORE_CTX_set_verify_cb(X509_STORE_CTX *context, X509_STORE_CTX_verify_cb callback)
    const char *X509_verify_cert_error_string(long error)
    int X509_VERIFY_PARAM_set1_host(X509_VERIFY_PARAM *param, const char *name, size_t size)
    int X509_VERIFY_PARAM_set1_ip_asc(X509_VERIFY_PARAM *param, const char *address)
    void X509_VERIFY_PARAM_set_hostflags(X509_VERIFY_PARAM *param, unsigned int flags)


cdef extern from "openssl/ssl.h" nogil:
    ctypedef struct SSL
    ctypedef struct SSL_CTX
    ctypedef struct SSL_METHOD
    ctypedef struct SSL_SESSION
    ctypedef struct SSL_CIPHER

    int SSL_ERROR_WANT_READ, SSL_ERROR_WANT_X509_LOOKUP, SSL_ERROR_ZERO_RETURN
    int SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    int SSL_SENT_SHUTDOWN, SSL_RECEIVED_SHUTDOWN
    int SSL_SESS_CACHE_OFF, SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_SERVER, SSL_SESS_CACHE_NO_INTERNAL
    int SSL_TLSEXT_ERR_OK, SSL_TLSEXT_ERR_ALERT_FATAL
    int OPENSSL_NPN_NEGOTIATED
    int TLS1_2_VERSION, TLS1_3_VERSION
    uint64_t SSL_OP_NO_COMPRESSION, SSL_OP_NO_RENEGOTIATION, SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_PRIORITIZE_CHACHA
    uint64_t SSL_OP_LEGACY_SERVER_CONNECT
    long SSL_MODE_RELEASE_BUFFERS, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, SSL_MODE_AUTO_RETRY, SSL_MODE_NO_AUTO_CHAIN
    int SSL_BUILD_CHAIN_FLAG_NO_ROOT, SSL_BUILD_CHAIN_FLAG_IGNORE_ERROR, SSL_BUILD_CHAIN_FLAG_CLEAR_ERROR

    # contexts
    const SSL_METHOD *TLS_client_method()
    const SSL_METHOD *TLS_server_method()
    SSL_CTX *SSL_CTX_new(const SSL_METHOD *method)
    void SSL_CTX_free(SSL_CTX *context)
    uint64_t SSL_CTX_set_options(SSL_CTX *context, uint64_t options)
    long SSL_CTX_set_mode(SSL_CTX *context, long mode)
    long SSL_CTX_clear_mode(SSL_CTX *context, long mode)
    int SSL_CTX_set_min_proto_version(SSL_CTX *context, int version)
    int SSL_CTX_set_max_proto_version(SSL_CTX *context, int version)
    int SSL_CTX_set_cipher_list(SSL_CTX *context, const char *text)
    int SSL_CTX_set_ciphersuites(SSL_CTX *context, const char *text)
    int SSL_CTX_set1_groups_list(SSL_CTX *context, const char *text)
    int X509_STORE_lock(X509_STORE *store)
    int X509_STORE_unlock(X509_STORE *store)
    void SSL_CTX_set1_cert_store(SSL_CTX *context, X509_STORE *store)
    X509_STORE *SSL_CTX_get_cert_store(const SSL_CTX *context)
    int SSL_CTX_use_certificate(SSL_CTX *context, X509 *certificate)
    int SSL_CTX_add1_chain_cert(SSL_CTX *context, X509 *certificate)
    int SSL_use_certificate(SSL *connection, X509 *certificate)
    int SSL_add1_chain_cert(SSL *connection, X509 *certificate)
    int SSL_use_PrivateKey(SSL *connection, EVP_PKEY *key)
    int SSL_CTX_select_current_cert(SSL_CTX *context, X509 *certificate)
    int SSL_CTX_build_cert_chain(SSL_CTX *context, int flags)
    int SSL_CTX_use_PrivateKey(SSL_CTX *context, EVP_PKEY *key)
    int SSL_CTX_add_client_CA(SSL_CTX *context, X509 *certificate)
    void SSL_CTX_set_verify(SSL_CTX *context, int mode, X509_STORE_CTX_verify_cb callback)
    void SSL_CTX_set_verify_depth(SSL_CTX *context, int depth)
    void SSL_CTX_set_cert_verify_callback(
        SSL_CTX *context, int (*callback)(X509_STORE_CTX *, void *) noexcept nogil, void *argument)
    void SSL_CTX_set_alpn_select_cb(
        SSL_CTX *context,
        int (*callback)(SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *) noexcept nogil,
        void *argument)
    void SSL_CTX_set_client_hello_cb(
        SSL_CTX *context, int (*callback)(SSL *, int *, void *) noexcept nogil, void *argument)
    int SSL_CLIENT_HELLO_SUCCESS, SSL_CLIENT_HELLO_ERROR
    long SSL_CTX_set_tlsext_servername_callback(
        SSL_CTX *context, int (*callback)(SSL *, int *, void *) noexcept nogil)
    int SSL_CTX_set_alpn_protos(SSL_CTX *context, const unsigned char *protocols, unsigned int size)
    int SSL_select_next_proto(
        unsigned char **out, unsigned char *size, const unsigned char *server, unsigned int server_size,
        const unsigned char *client, unsigned int client_size)
    long SSL_CTX_set_session_cache_mode(SSL_CTX *context, long mode)
    int SSL_CTX_set_session_id_context(SSL_CTX *context, const unsigned char *data, unsigned int size)
    void SSL_CTX_sess_set_new_cb(SSL_CTX *context, int (*callback)(SSL *, SSL_SESSION *) noexcept nogil)
    long SSL_CTX_set_timeout(SSL_CTX *context, long seconds)
    int SSL_CTX_set_num_tickets(SSL_CTX *context, size_t count)
    int SSL_CTX_set_session_ticket_cb(
        SSL_CTX *context,
        int (*made)(SSL *, void *) noexcept nogil,
        int (*opened)(SSL *, SSL_SESSION *, const unsigned char *, size_t, int, void *) noexcept nogil,
        void *argument)
    int SSL_CTX_add_custom_ext(
        SSL_CTX *context, unsigned int kind, unsigned int messages,
        int (*add)(SSL *, unsigned int, unsigned int, const unsigned char **, size_t *, X509 *, size_t, int *, void *) noexcept nogil,
        void *free, void *add_argument, void *parse, void *parse_argument)
    unsigned int SSL_EXT_CLIENT_HELLO, SSL_EXT_TLS1_3_NEW_SESSION_TICKET
    int SSL_SESSION_set1_ticket_appdata(SSL_SESSION *session, const void *data, size_t size)
    int SSL_SESSION_get0_ticket_appdata(SSL_SESSION *session, void **data, size_t *size)
    const X509 *SSL_SESSION_get0_peer(SSL_SESSION *session)
    SSL_SESSION *SSL_get_session(const SSL *ssl)
    long SSL_get_verify_result(const SSL *ssl)
    int SSL_is_server(const SSL *ssl)
    int SSL_up_ref(SSL *ssl)
    int SSL_TICKET_SUCCESS, SSL_TICKET_SUCCESS_RENEW
    int SSL_TICKET_RETURN_USE, SSL_TICKET_RETURN_USE_RENEW, SSL_TICKET_RETURN_IGNORE_RENEW

    # sessions
    void SSL_SESSION_free(SSL_SESSION *session)
    int SSL_SESSION_up_ref(SSL_SESSION *session)
    int SSL_SESSION_is_resumable(const SSL_SESSION *session)
    int SSL_SESSION_get_protocol_version(const SSL_SESSION *session)
    const unsigned char *SSL_SESSION_get0_id_context(const SSL_SESSION *session, unsigned int *size)
    SSL_SESSION *d2i_SSL_SESSION(SSL_SESSION **out, const unsigned char **data, long size)
    int i2d_SSL_SESSION(const SSL_SESSION *session, unsigned char **out)

    # connections
    SSL *SSL_new(SSL_CTX *context)
    int SSL_up_ref(SSL *connection)
    int SSL_up_ref(SSL *ssl)
    void SSL_free(SSL *ssl)
    long SSL_set_mode(SSL *ssl, long mode)
    void SSL_set_bio(SSL *ssl, BIO *reader, BIO *writer)
    void SSL_set0_rbio(SSL *ssl, BIO *reader)
    int SSL_set_app_data(SSL *ssl, void *data)
    void *SSL_get_app_data(const SSL *ssl)
    int SSL_get_ex_data_X509_STORE_CTX_idx()
    void SSL_set_connect_state(SSL *ssl)
    void SSL_set_accept_state(SSL *ssl)
    int SSL_set_tlsext_host_name(SSL *ssl, const char *name)
    const char *SSL_get_servername(const SSL *ssl, int kind)
    int TLSEXT_NAMETYPE_host_name
    X509_VERIFY_PARAM *SSL_get0_param(SSL *ssl)
    int SSL_get_security_level(const SSL *ssl)
    int SSL_set_session(SSL *ssl, SSL_SESSION *session)
    void SSL_set_psk_client_callback(
        SSL *ssl,
        unsigned int (*callback)(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int) noexcept nogil)
    void SSL_set_psk_server_callback(
        SSL *ssl, unsigned int (*callback)(SSL *, const char *, unsigned char *, unsigned int) noexcept nogil)
    int PSK_MAX_IDENTITY_LEN, PSK_MAX_PSK_LEN
    int SSL_set_num_tickets(SSL *ssl, size_t count)
    int SSL_set_session_id_context(SSL *ssl, const unsigned char *data, unsigned int size)
    int SSL_session_reused(const SSL *ssl)
    int SSL_do_handshake(SSL *ssl)
    int SSL_read_ex(SSL *ssl, void *data, size_t size, size_t *got)
    int SSL_write_ex(SSL *ssl, const void *data, size_t size, size_t *written)
    int SSL_shutdown(SSL *ssl)
    void SSL_set_shutdown(SSL *ssl, int mode)
    int SSL_want_read(const SSL *ssl)
    int SSL_in_init(const SSL *ssl)
    int SSL_get_error(const SSL *ssl, int result)
    int SSL_pending(const SSL *ssl)
    const char *SSL_rstate_string(const SSL *ssl)
    int SSL_version(const SSL *ssl)
    const SSL_CIPHER *SSL_get_current_cipher(const SSL *ssl)
    const char *SSL_CIPHER_get_name(const SSL_CIPHER *cipher)
    void SSL_get0_alpn_selected(const SSL *ssl, const unsigned char **data, unsigned int *size)
    X509 *SSL_get1_peer_certificate(const SSL *ssl)
    OPENSSL_STACK *SSL_get_peer_cert_chain(const SSL *ssl)
    int sk_X509_num(const OPENSSL_STACK *stack)
    X509 *sk_X509_value(const OPENSSL_STACK *stack, int index)
    OPENSSL_STACK *X509_chain_up_ref(OPENSSL_STACK *chain)
    const char *SSL_alert_desc_string_long(int value)
    int SSL_new_session_ticket(SSL *ssl)


ctypedef int (*security_callback)(
    const SSL *ssl, const SSL_CTX *context, int operation, int bits, int number, void *other, void *argument) noexcept nogil


cdef extern from "openssl/ssl.h" nogil:
    security_callback SSL_CTX_get_security_callback(const SSL_CTX *context)
    void SSL_CTX_set_security_callback(SSL_CTX *context, security_callback callback)
    void SSL_CTX_set0_security_ex_data(SSL_CTX *context, void *argument)
    int SSL_SECOP_VERSION, SSL_SECOP_SIGALG_SUPPORTED, SSL_SECOP_SIGALG_SHARED, SSL_SECOP_SIGALG_CHECK


cdef extern from "openssl_compat.h" nogil:
    const char *compat_group_name(SSL *ssl)
    time_t compat_session_time(const SSL_SESSION *session)
    void free_X509_stack(OPENSSL_STACK *stack)


# What the interface of the standard library's `ssl` needs besides (sslsock/_ssl).

cdef extern from "openssl/bio.h" nogil:
    BIO *BIO_new_mem_buf(const void *data, int size)
    int BIO_free(BIO *bio)
    int BIO_pending(BIO *bio)


ctypedef int (*password_callback)(char *buffer, int size, int writing, void *argument) noexcept nogil  # pem_password_cb(3)


cdef extern from "openssl/pem.h" nogil:
    X509 *PEM_read_bio_X509(BIO *bio, X509 **certificate, password_callback callback, void *argument)
    X509 *PEM_read_bio_X509_AUX(BIO *bio, X509 **certificate, password_callback callback, void *argument)
    EVP_PKEY *PEM_read_bio_PrivateKey(BIO *bio, EVP_PKEY **key, password_callback callback, void *argument)
    int PEM_bytes_read_bio(
        unsigned char **data, long *size, char **label, const char *wanted, BIO *bio, password_callback callback, void *argument)
    const char *PEM_STRING_DHPARAMS


cdef extern from "openssl/x509.h" nogil:
    X509 *d2i_X509_bio(BIO *bio, X509 **certificate)


cdef extern from "openssl/evp.h" nogil:
    int EVP_PKEY_DH
    EVP_PKEY *d2i_KeyParams(int kind, EVP_PKEY **key, const unsigned char **data, long size)
    void EVP_PKEY_free(EVP_PKEY *key)
    int EVP_PKEY_get_id(const EVP_PKEY *key)


cdef extern from "openssl/objects.h" nogil:
    int NID_undef
    int OBJ_sn2nid(const char *name)
    const char *OBJ_nid2ln(int nid)


cdef extern from "openssl/x509_vfy.h" nogil:
    ctypedef struct X509_OBJECT
    ctypedef struct OPENSSL_OBJECT_STACK "STACK_OF(X509_OBJECT)"

    int X509_LU_X509, X509_LU_CRL
    unsigned long X509_V_FLAG_TRUSTED_FIRST, X509_V_FLAG_CRL_CHECK

    int sk_X509_OBJECT_num(const OPENSSL_OBJECT_STACK *stack)
    X509_OBJECT *sk_X509_OBJECT_value(const OPENSSL_OBJECT_STACK *stack, int index)
    int X509_OBJECT_get_type(const X509_OBJECT *object)
    X509 *X509_OBJECT_get0_X509(const X509_OBJECT *object)
    X509_CRL *X509_OBJECT_get0_X509_CRL(const X509_OBJECT *object)
    int X509_STORE_add_crl(X509_STORE *store, X509_CRL *crl)
    int X509_VERIFY_PARAM_set_flags(X509_VERIFY_PARAM *param, unsigned long flags)
    int X509_VERIFY_PARAM_clear_flags(X509_VERIFY_PARAM *param, unsigned long flags)
    unsigned long X509_VERIFY_PARAM_get_flags(const X509_VERIFY_PARAM *param)
    int X509_VERIFY_PARAM_set1_ip(X509_VERIFY_PARAM *param, const unsigned char *address, size_t size)


cdef extern from "openssl_compat.h" nogil:
    OPENSSL_OBJECT_STACK *X509_STORE_get0_objects "compat_store_objects"(const X509_STORE *store)  # which is locked


cdef extern from "openssl/ssl.h" nogil:
    ctypedef struct OPENSSL_CIPHER_STACK "STACK_OF(SSL_CIPHER)"

    int SSL_ERROR_NONE, SSL_ERROR_SSL, SSL_ERROR_WANT_WRITE, SSL_ERROR_SYSCALL
    int SSL_VERIFY_POST_HANDSHAKE
    int SSL_AD_HANDSHAKE_FAILURE, SSL_AD_INTERNAL_ERROR
    int SSL_TLSEXT_ERR_NOACK
    int SSL3_RT_CHANGE_CIPHER_SPEC, SSL3_RT_ALERT, SSL3_RT_HANDSHAKE, SSL3_RT_HEADER, SSL3_RT_INNER_CONTENT_TYPE
    int SSL3_VERSION, TLS1_VERSION, TLS1_1_VERSION
    int SSL_R_NO_CERTIFICATE_ASSIGNED, SSL_R_BAD_LENGTH
    uint64_t SSL_OP_ALL, SSL_OP_NO_SSLv2, SSL_OP_NO_SSLv3, SSL_OP_NO_TLSv1, SSL_OP_NO_TLSv1_1, SSL_OP_NO_TLSv1_2, SSL_OP_NO_TLSv1_3
    uint64_t SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS, SSL_OP_SINGLE_DH_USE, SSL_OP_SINGLE_ECDH_USE, SSL_OP_IGNORE_UNEXPECTED_EOF

    # contexts
    const SSL_METHOD *TLS_method()
    uint64_t SSL_CTX_get_options(const SSL_CTX *context)
    uint64_t SSL_CTX_clear_options(SSL_CTX *context, uint64_t options)
    int SSL_CTX_get_min_proto_version(SSL_CTX *context)
    int SSL_CTX_get_max_proto_version(SSL_CTX *context)
    int SSL_CTX_get_security_level(const SSL_CTX *context)
    void SSL_CTX_set_security_level(SSL_CTX *context, int level)
    int SSL_CTX_get_verify_mode(const SSL_CTX *context)
    X509_STORE_CTX_verify_cb SSL_CTX_get_verify_callback(const SSL_CTX *context)
    X509_VERIFY_PARAM *SSL_CTX_get0_param(SSL_CTX *context)
    size_t SSL_CTX_get_num_tickets(const SSL_CTX *context)
    int SSL_CTX_set1_groups(SSL_CTX *context, const int *groups, size_t count)
    int SSL_CTX_set1_sigalgs_list(SSL_CTX *context, const char *text)
    int SSL_CTX_set1_client_sigalgs_list(SSL_CTX *context, const char *text)
    int SSL_CTX_set0_tmp_dh_pkey(SSL_CTX *context, EVP_PKEY *key)
    int SSL_CTX_use_cert_and_key(
        SSL_CTX *context, X509 *certificate, EVP_PKEY *key, OPENSSL_STACK *chain, int override)
    int SSL_CTX_set_default_verify_paths(SSL_CTX *context)
    int SSL_CTX_load_verify_locations(SSL_CTX *context, const char *file, const char *folder)
    void SSL_CTX_set_post_handshake_auth(SSL_CTX *context, int wanted)
    long SSL_CTX_sess_number(SSL_CTX *context)
    long SSL_CTX_sess_connect(SSL_CTX *context)
    long SSL_CTX_sess_connect_good(SSL_CTX *context)
    long SSL_CTX_sess_connect_renegotiate(SSL_CTX *context)
    long SSL_CTX_sess_accept(SSL_CTX *context)
    long SSL_CTX_sess_accept_good(SSL_CTX *context)
    long SSL_CTX_sess_accept_renegotiate(SSL_CTX *context)
    long SSL_CTX_sess_hits(SSL_CTX *context)
    long SSL_CTX_sess_misses(SSL_CTX *context)
    long SSL_CTX_sess_timeouts(SSL_CTX *context)
    long SSL_CTX_sess_cache_full(SSL_CTX *context)
    void SSL_CTX_set_msg_callback(
        SSL_CTX *context, void (*callback)(int, int, int, const void *, size_t, SSL *, void *) noexcept nogil)
    void SSL_set_msg_callback(
        SSL *ssl, void (*callback)(int, int, int, const void *, size_t, SSL *, void *) noexcept nogil)
    int SSL_CTX_set_app_data(SSL_CTX *context, void *data)
    void *SSL_CTX_get_app_data(const SSL_CTX *context)
    void SSL_CTX_set_keylog_callback(SSL_CTX *context, void (*callback)(const SSL *, const char *) noexcept nogil)
    void SSL_CTX_set_psk_client_callback(
        SSL_CTX *context,
        unsigned int (*callback)(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int) noexcept nogil)
    void SSL_CTX_set_psk_server_callback(
        SSL_CTX *context, unsigned int (*callback)(SSL *, const char *, unsigned char *, unsigned int) noexcept nogil)
    int SSL_CTX_use_psk_identity_hint(SSL_CTX *context, const char *hint)

    # sessions
    SSL_SESSION *SSL_get1_session(SSL *ssl)
    const unsigned char *SSL_SESSION_get_id(const SSL_SESSION *session, unsigned int *size)
    long SSL_SESSION_get_timeout(const SSL_SESSION *session)
    unsigned long SSL_SESSION_get_ticket_lifetime_hint(const SSL_SESSION *session)
    int SSL_SESSION_has_ticket(const SSL_SESSION *session)
    SSL_SESSION *SSL_SESSION_dup(const SSL_SESSION *session)

    # connections
    SSL_CTX *SSL_get_SSL_CTX(const SSL *ssl)
    SSL_CTX *SSL_set_SSL_CTX(SSL *ssl, SSL_CTX *context)
    void SSL_set_cert_cb(SSL *ssl, int (*callback)(SSL *ssl, void *argument) noexcept nogil, void *argument)
    int SSL_get_verify_mode(const SSL *ssl)
    X509_STORE_CTX_verify_cb SSL_get_verify_callback(const SSL *ssl)
    void SSL_set_verify(SSL *ssl, int mode, X509_STORE_CTX_verify_cb callback)
    void SSL_set_post_handshake_auth(SSL *ssl, int wanted)
    int SSL_verify_client_post_handshake(SSL *ssl)
    int SSL_is_init_finished(const SSL *ssl)
    int SSL_peek_ex(SSL *ssl, void *data, size_t size, size_t *got)
    int SSL_get_shutdown(const SSL *ssl)
    int SSL_has_pending(const SSL *ssl)
    const char *SSL_get_version(const SSL *ssl)
    X509 *SSL_get_certificate(const SSL *ssl)
    long SSL_get_extms_support(SSL *ssl)
    int SSL_export_keying_material(
        SSL *ssl, unsigned char *out, size_t size, const char *label, size_t label_size, const unsigned char *context,
        size_t context_size, int use_context)
    size_t SSL_get_finished(const SSL *ssl, void *data, size_t size)
    size_t SSL_get_peer_finished(const SSL *ssl, void *data, size_t size)
    OPENSSL_STACK *SSL_get0_verified_chain(const SSL *ssl)
    OPENSSL_CIPHER_STACK *SSL_get_ciphers(const SSL *ssl)
    OPENSSL_CIPHER_STACK *SSL_get_client_ciphers(const SSL *ssl)
    int sk_SSL_CIPHER_num(const OPENSSL_CIPHER_STACK *stack)
    const SSL_CIPHER *sk_SSL_CIPHER_value(const OPENSSL_CIPHER_STACK *stack, int index)
    int sk_SSL_CIPHER_find(OPENSSL_CIPHER_STACK *stack, const SSL_CIPHER *cipher)
    const char *SSL_CIPHER_get_version(const SSL_CIPHER *cipher)
    int SSL_CIPHER_get_bits(const SSL_CIPHER *cipher, int *bits)
    unsigned long SSL_CIPHER_get_id(const SSL_CIPHER *cipher)
    char *SSL_CIPHER_description(const SSL_CIPHER *cipher, char *text, int size)
    int SSL_CIPHER_is_aead(const SSL_CIPHER *cipher)
    int SSL_CIPHER_get_cipher_nid(const SSL_CIPHER *cipher)
    int SSL_CIPHER_get_digest_nid(const SSL_CIPHER *cipher)
    int SSL_CIPHER_get_kx_nid(const SSL_CIPHER *cipher)
    int SSL_CIPHER_get_auth_nid(const SSL_CIPHER *cipher)
    void *OPENSSL_malloc(size_t size)
    void OPENSSL_free(void *memory)
    OPENSSL_STACK *sk_X509_new_null()
    int sk_X509_push(OPENSSL_STACK *stack, X509 *certificate)
