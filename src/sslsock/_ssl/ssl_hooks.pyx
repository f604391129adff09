"""Where libssl calls Python: the server name, messages, the key log, pre-shared keys, sessions to keep, a password.

Each takes the GIL (libssl may have been entered without it) and lets no exception through: what a callback raises is reported
where CPython's `_ssl` reports it, as unraisable, or by the call that it happened in (`HookedConnection.raised`).
"""

from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from libc.errno cimport errno
from libc.string cimport memcpy, strlen

cimport openssl_ssl as ssl
from linux cimport close as close_descriptor
from sslsock._ssl.ssl_session cimport SSLSession

import os

cdef extern from "<unistd.h>" nogil:
    ssize_t write_descriptor "write"(int descriptor, const void *data, size_t size)

cdef enum:
    SESSIONS_PER_NAME = 8
    SESSION_NAMES = 256
    MESSAGE_CHANGE_CIPHER_SPEC = 0x0101  # CPython's own number: it is no handshake message


cdef class HookedContext:
    def __cinit__(self, *_):
        self.keylog_descriptor = -1

    def __dealloc__(self):
        if self.keylog_descriptor >= 0:
            close_descriptor(self.keylog_descriptor)
        if self.ctx != NULL:
            ssl.SSL_CTX_free(self.ctx)


cdef class HookedConnection:
    pass


cdef HookedConnection connection_of(const ssl.SSL *connection):
    return <HookedConnection> ssl.SSL_get_app_data(connection)


cdef object seen_as(HookedConnection connection):
    """What a callback gets as its connection: the SSLObject or SSLSocket, or None if that is gone."""
    if connection.owner_reference is not None:
        return connection.owner_reference()
    if connection.socket_reference is not None:
        return connection.socket_reference()
    return connection


cdef void report(BaseException error, object place):
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(place)


# The server name: SSL_CTX_set_tlsext_servername_callback(3).


cdef int on_server_name(ssl.SSL *connection, int *alert, void *argument) noexcept nogil:
    with gil:
        return ask_for_server_name(connection_of(connection), alert)


cdef int ask_for_server_name(HookedConnection connection, int *alert) noexcept:
    cdef HookedContext context = connection.first_hooks
    cdef const char *name
    handler = context.sni_handler
    if handler is None:  # taken away meanwhile
        return ssl.SSL_TLSEXT_ERR_OK
    alert[0] = ssl.SSL_AD_INTERNAL_ERROR
    seen = seen_as(connection)
    if seen is None:
        return ssl.SSL_TLSEXT_ERR_ALERT_FATAL
    name = ssl.SSL_get_servername(connection.ssl, ssl.TLSEXT_NAMETYPE_host_name)
    text = None
    if name != NULL:
        raw = <bytes> name
        try:
            text = raw.decode("ascii")
        except UnicodeDecodeError as error:
            report(error, raw)
            return ssl.SSL_TLSEXT_ERR_ALERT_FATAL
    try:
        answer = handler(seen, text, context)
    except BaseException as error:
        alert[0] = ssl.SSL_AD_HANDSHAKE_FAILURE
        report(error, handler)
        return ssl.SSL_TLSEXT_ERR_ALERT_FATAL
    if answer is None:
        return ssl.SSL_TLSEXT_ERR_OK
    try:
        alert[0] = answer
    except BaseException as error:
        report(error, answer)
    return ssl.SSL_TLSEXT_ERR_ALERT_FATAL


# Messages: SSL_CTX_set_msg_callback(3).


cdef void on_message(
        int write, int version, int content, const void *data, size_t size, ssl.SSL *connection, void *argument) noexcept nogil:
    with gil:
        tell_of_message(connection_of(connection), write, version, content, <const unsigned char *> data, size)


cdef void tell_of_message(
        HookedConnection connection, int write, int version, int content, const unsigned char *data, size_t size) noexcept:
    cdef int kind = -1
    handler = connection.hooks.msg_handler
    if handler is None:
        return
    if content == ssl.SSL3_RT_CHANGE_CIPHER_SPEC:
        kind = MESSAGE_CHANGE_CIPHER_SPEC
    elif content == ssl.SSL3_RT_ALERT and size > 1:
        kind = data[1]  # after the level
    elif content == ssl.SSL3_RT_HEADER and size > 2:
        version = data[1] << 8 | data[2]
        kind = data[0]
    elif (content == ssl.SSL3_RT_HANDSHAKE or content == ssl.SSL3_RT_INNER_CONTENT_TYPE) and size > 0:
        kind = data[0]
    try:
        handler(
            seen_as(connection), "write" if write else "read", version, content, kind, (<const char *> data)[:size])
    except BaseException as error:
        connection.raised = error


# The key log: SSL_CTX_set_keylog_callback(3).


cdef void on_key_log(const ssl.SSL *connection, const char *line) noexcept nogil:
    with gil:
        log_key(connection_of(connection), line)


cdef void log_key(HookedConnection connection, const char *line) noexcept:
    cdef int descriptor = connection.hooks.keylog_descriptor
    cdef const char *start
    cdef size_t size
    cdef ssize_t written
    cdef int reason
    if descriptor < 0:
        return
    text = <bytes> line + b"\n"
    start, size = text, len(text)
    with nogil:  # in one piece: other threads and processes may write to the file
        written = write_descriptor(descriptor, start, size)
        reason = errno
    if written < 0:
        connection.raised = OSError(reason, os.strerror(reason), connection.hooks.keylog_name)


# Pre-shared keys: SSL_CTX_set_psk_client_callback(3), SSL_CTX_set_psk_server_callback(3).


cdef unsigned int on_psk_client(
        ssl.SSL *connection, const char *hint, char *identity, unsigned int identity_room, unsigned char *key,
        unsigned int key_room) noexcept nogil:
    with gil:
        return ask_client_for_key(connection_of(connection), hint, identity, identity_room, key, key_room)


cdef unsigned int ask_client_for_key(
        HookedConnection connection, const char *hint, char *identity, unsigned int identity_room, unsigned char *key,
        unsigned int key_room) noexcept:
    cdef bytes name, secret
    handler = connection.hooks.psk_client_handler
    if handler is None:
        return 0
    try:
        said, given = handler(hint.decode("utf-8") if hint != NULL and hint[0] != 0 else None)
        name = said.encode("utf-8") if said is not None else b""
        secret = bytes(memoryview(given))
        if b"\0" in name:
            raise ValueError("embedded null character in the identity")
        if <size_t> len(name) + 1 > identity_room or <size_t> len(secret) > key_room:
            return 0
        memcpy(identity, <const char *> name, len(name) + 1)
        memcpy(key, <const char *> secret, len(secret))
        return <unsigned int> len(secret)
    except BaseException as error:
        report(error, handler)
        return 0


cdef unsigned int on_psk_server(
        ssl.SSL *connection, const char *identity, unsigned char *key, unsigned int key_room) noexcept nogil:
    with gil:
        return ask_server_for_key(connection_of(connection), identity, key, key_room)


cdef unsigned int ask_server_for_key(
        HookedConnection connection, const char *identity, unsigned char *key, unsigned int key_room) noexcept:
    cdef bytes secret
    handler = connection.hooks.psk_server_handler
    if handler is None:
        return 0
    try:
        given = handler(identity.decode("utf-8") if identity != NULL and identity[0] != 0 else None)
        secret = bytes(memoryview(given))
        if <size_t> len(secret) > key_room:
            return 0
        memcpy(key, <const char *> secret, len(secret))
        return <unsigned int> len(secret)
    except BaseException as error:
        report(error, handler)
        return 0


# Sessions: SSL_CTX_sess_set_new_cb(3).


cdef int on_new_session(ssl.SSL *connection, ssl.SSL_SESSION *session) noexcept nogil:
    """1: the reference is ours."""
    with gil:
        return keep_session(connection_of(connection), session)


cdef int keep_session(HookedConnection connection, ssl.SSL_SESSION *session) noexcept:
    cdef HookedContext context = connection.hooks
    kept, name = context.sessions, connection.session_name
    if kept is None or name is None:
        return 0
    made = SSLSession.wrap(session, context)
    try:
        sessions = kept.setdefault(name, [])
        sessions.append(made)
        if len(sessions) > SESSIONS_PER_NAME:
            del sessions[0]
        kept.move_to_end(name)
        if len(kept) > SESSION_NAMES:
            kept.popitem(last=False)
    except (KeyError, MemoryError):
        pass  # another thread has changed them; the reference is `made`'s either way
    return 1


# Passwords: pem_password_cb(3).


cdef class Password:
    """What `SSLContext.load_cert_chain` was given to open a key with."""

    def __cinit__(self, given):
        self.given = given
        if not callable(given):
            self.encoded(given, "password should be a string or callable")

    def encoded(self, password, str complaint):
        if isinstance(password, str):
            return password.encode("utf-8")
        if isinstance(password, (bytes, bytearray)):
            return bytes(password)
        raise TypeError(complaint)


cdef int on_password(char *buffer, int size, int writing, void *argument) noexcept nogil:
    with gil:
        return ask_for_password(<Password> argument, buffer, size)


cdef int ask_for_password(Password asked, char *buffer, int size) noexcept:
    if asked.failed:  # OpenSSL tries several decoders, and asks for each
        return -1
    try:
        if callable(asked.given):
            password = asked.encoded(asked.given(), "password callback must return a string")
        else:
            password = asked.encoded(asked.given, "password should be a string or callable")
        if len(password) > size:
            raise ValueError(f"password cannot be longer than {size} bytes")
        memcpy(buffer, <const char *> <bytes> password, len(password))
        return <int> len(password)
    except BaseException as error:
        asked.failed = True
        asked.raised = error
        return -1
