"""Verification of the peer's chain: all that is wrong with it is noted, not only the first, and then one decision is taken,
inside libssl's own callback, so that libssl chooses and sends the right alert. The decision is the engine's. `verify_certificates`
does the same without a connection.
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free

from libc.string cimport memset
from libc.time cimport time_t

from distrusted_keys cimport refuse_distrusted
from known_chains cimport known_chains_use
from openssl_err cimport ERR_clear_error
from openssl_ssl cimport (
    OPENSSL_STACK, SSL, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, X509_STORE_CTX,
    X509_STORE_CTX_free, X509_STORE_CTX_get0_cert, X509_STORE_CTX_get0_param, X509_STORE_CTX_get_current_cert,
    X509_STORE_CTX_get_error, X509_STORE_CTX_get_error_depth, X509_STORE_CTX_get_app_data, X509_STORE_CTX_init, X509_STORE_CTX_new,
    X509_STORE_CTX_set_app_data, X509_STORE_CTX_set_default, X509_STORE_CTX_set_error, X509_STORE_CTX_set_ex_data, X509_STORE_CTX_set_verify_cb,
    X509_VERIFY_PARAM, X509_VERIFY_PARAM_set1, X509_VERIFY_PARAM_set1_host, X509_VERIFY_PARAM_set1_ip_asc,
    X509_VERIFY_PARAM_set_auth_level, X509_VERIFY_PARAM_set_hostflags, X509_VERIFY_PARAM_set_time, X509_V_ERR_HOSTNAME_MISMATCH,
    X509_V_ERR_IP_ADDRESS_MISMATCH, SSL_CTX_get_cert_store, SSL_free, SSL_get0_param,
    SSL_get_ex_data_X509_STORE_CTX_idx, SSL_get_security_level, SSL_new, X509_verify_cert,
    X509_verify_cert_error_string, free_X509_stack, sk_X509_new_null, sk_X509_push)
from openssl_x509 cimport X509_free, X509_up_ref
from sslsock.core.certificate cimport SslCertificate
from sslsock.core.context cimport Context

from sslsock.core.hostname import parse_host

cdef enum:
    MOST_RECORDS = 32


cdef int collect_error(int ok, X509_STORE_CTX *store) noexcept nogil:
    """X509_STORE_CTX_set_verify_cb(3): note the error and have verification go on, so that all are found."""
    cdef verification *found
    cdef verify_record *record
    if refuse_distrusted(ok, store):
        return 1
    found = <verification *> X509_STORE_CTX_get_app_data(store)
    if found.records == NULL:
        found.records = <verify_record *> calloc(MOST_RECORDS, sizeof(verify_record))
    if found.records == NULL or found.record_count == MOST_RECORDS:
        return 0  # no room to note it: verification fails here
    record = &found.records[found.record_count]
    record.code = X509_STORE_CTX_get_error(store)
    record.depth = X509_STORE_CTX_get_error_depth(store)
    record.certificate = X509_STORE_CTX_get_current_cert(store)
    if record.certificate != NULL:
        X509_up_ref(record.certificate)
    found.record_count += 1
    return 1


cdef chain_verdict verify(verification *found, X509_STORE_CTX *store) noexcept nogil:
    cdef int result
    if X509_STORE_CTX_set_app_data(store, found) != 1:
        return CHAIN_REFUSED
    X509_STORE_CTX_set_verify_cb(store, collect_error)
    known_chains_use(store)
    result = X509_verify_cert(store)
    if result != 1:
        return CHAIN_REFUSED
    return CHAIN_GOOD if found.record_count == 0 else CHAIN_DOUBTFUL


cdef void conclude(verification *found, X509_STORE_CTX *store, bint accepted) noexcept nogil:
    """After the decision about a chain that is not good: the store's error chooses the alert."""
    if found.record_count == 0:
        return  # verification did not even come to an error of its own, for want of memory
    if not accepted and found.refused == NULL:
        found.refused = X509_STORE_CTX_get0_cert(store)  # libssl forgets it
        X509_up_ref(found.refused)
    # Also when it is accepted: SSL_get_verify_result then tells that this session must not be resumed.
    X509_STORE_CTX_set_error(store, found.records[0].code)


cdef void forget_verification(verification *found) noexcept nogil:
    """Free what is owned."""
    cdef int number
    for number in range(found.record_count):
        X509_free(found.records[number].certificate)
    free(found.records)
    X509_free(found.refused)
    found.records = NULL
    found.record_count = 0
    found.refused = NULL


cdef list errors_found(verification *found, str verify_name):
    """What is noted, each once: list of VerifyError (code, depth, text, SslCertificate or None)."""
    cdef list errors = []
    cdef int number
    cdef verify_record *record
    for number in range(found.record_count):
        record = &found.records[number]
        certificate = None
        if record.certificate != NULL:
            X509_up_ref(record.certificate)
            certificate = SslCertificate.wrap(record.certificate)
        error = (record.code, record.depth, error_text(record.code, verify_name), certificate)
        if error not in errors:
            errors.append(error)
    return errors


cdef str error_text(int code, str verify_name):
    """A verification error in words."""
    if code == X509_V_ERR_HOSTNAME_MISMATCH or code == X509_V_ERR_IP_ADDRESS_MISMATCH:
        return f"the certificate is not for {verify_name}"
    return X509_verify_cert_error_string(code).decode("ascii", "replace")


cdef str set_verify_name(SSL *connection, str verify_name):
    """Demand that the peer's certificate is for this host name or IP address. Returns what it is compared with. ValueError."""
    cdef X509_VERIFY_PARAM *param = SSL_get0_param(connection)
    cdef bytes name
    try:
        host = parse_host(verify_name)
    except ValueError as exc:
        raise ValueError(f"{verify_name!r} is not a name that a certificate can be for: {exc}") from None
    name = host.verify_name.encode("ascii")
    if host.numeric:
        if X509_VERIFY_PARAM_set1_ip_asc(param, name) != 1:
            raise ValueError(f"{verify_name!r} cannot be checked as an address")
        return host.verify_name
    # RFC 9525, 6.3: a wildcard is the whole leftmost label; 2: a common name is no host name.
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT)
    if X509_VERIFY_PARAM_set1_host(param, name, PyBytes_GET_SIZE(name)) != 1:
        raise ValueError(f"{verify_name!r} cannot be checked as a host name")
    return host.verify_name


def verify_certificates(Context context not None, chain, str verify_name, bint of_client, when):
    """What a connection of this context would find wrong with a peer that shows these certificates: list of VerifyError.

    chain: SslCertificates, the peer's own first; none is null. verify_name: str or None, as Engine takes it. of_client: whether the peer
    is a client. when: seconds since 1970 (int) or None: now. ValueError for a name that no certificate can be for.
    """
    cdef verification found
    cdef OPENSSL_STACK *sent
    cdef SSL *connection
    cdef X509_STORE_CTX *store
    memset(&found, 0, sizeof(found))
    ERR_clear_error()
    sent = sk_X509_new_null()
    connection = SSL_new(context.ctx)
    store = X509_STORE_CTX_new()
    try:
        if sent == NULL or connection == NULL or store == NULL:
            raise MemoryError
        for certificate in chain:
            X509_up_ref((<SslCertificate?> certificate).x509)
            if sk_X509_push(sent, (<SslCertificate> certificate).x509) <= 0:
                X509_free((<SslCertificate> certificate).x509)
                raise MemoryError
        if verify_name is not None:
            set_verify_name(connection, verify_name)
        if when is not None:
            X509_VERIFY_PARAM_set_time(SSL_get0_param(connection), <time_t> when)
        prepare(store, connection, context, (<SslCertificate> chain[0]).x509, sent, of_client)
        with nogil:
            verify(&found, store)
        if found.record_count == 0 and X509_STORE_CTX_get_error(store) != 0:
            raise MemoryError  # see `conclude`
        return errors_found(&found, verify_name)
    finally:
        X509_STORE_CTX_free(store)
        SSL_free(connection)
        free_X509_stack(sent)
        forget_verification(&found)
        ERR_clear_error()


cdef int prepare(
        X509_STORE_CTX *store, SSL *connection, Context context, X509 *own, OPENSSL_STACK *sent, bint of_client) except -1:
    """As libssl does before it calls SSL_CTX_set_cert_verify_callback(3)."""
    cdef X509_VERIFY_PARAM *param
    if X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(context.ctx), own, sent) != 1:
        raise MemoryError
    param = X509_STORE_CTX_get0_param(store)
    X509_VERIFY_PARAM_set_auth_level(param, SSL_get_security_level(connection))
    if X509_STORE_CTX_set_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx(), connection) != 1:
        raise MemoryError
    X509_STORE_CTX_set_default(store, b"ssl_client" if of_client else b"ssl_server")
    X509_VERIFY_PARAM_set1(param, SSL_get0_param(connection))
    return 0
