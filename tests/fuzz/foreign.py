"""A TLS client of libssl's own, by ctypes, that asks for small records (RFC 6066, 4): no module of Python can ask for them.

It has the methods of `sslsock.Engine` that the fuzzers use.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Optional

NAME = ctypes.util.find_library("ssl")
SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
SSL_CTRL_SET_MIN_PROTO_VERSION, SSL_CTRL_SET_MAX_PROTO_VERSION = 123, 124
ERROR_WANT_READ, ERROR_ZERO_RETURN = 2, 6
BIO_CTRL_PENDING = 10


def load() -> Optional[ctypes.CDLL]:
    if NAME is None:
        return None
    lib = ctypes.CDLL(NAME)
    try:
        lib.OPENSSL_init_ssl, lib.SSL_read_ex, lib.SSL_CTX_set_tlsext_max_fragment_length  # noqa: B018  OpenSSL 1.1.1 or newer
    except AttributeError:
        return None
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    for name, result, arguments in (
        ("TLS_client_method", pointer, []),
        ("SSL_CTX_new", pointer, [pointer]),
        ("SSL_CTX_free", None, [pointer]),
        ("SSL_CTX_ctrl", ctypes.c_long, [pointer, number, ctypes.c_long, pointer]),
        ("SSL_CTX_set_tlsext_max_fragment_length", number, [pointer, ctypes.c_uint8]),
        ("SSL_new", pointer, [pointer]),
        ("SSL_free", None, [pointer]),
        ("SSL_set_bio", None, [pointer, pointer, pointer]),
        ("SSL_set_connect_state", None, [pointer]),
        ("SSL_do_handshake", number, [pointer]),
        ("SSL_is_init_finished", number, [pointer]),
        ("SSL_read_ex", number, [pointer, pointer, size, ctypes.POINTER(size)]),
        ("SSL_write_ex", number, [pointer, pointer, size, ctypes.POINTER(size)]),
        ("SSL_get_error", number, [pointer, number]),
        ("SSL_shutdown", number, [pointer]),
        ("SSL_key_update", number, [pointer, number]),
        ("BIO_s_mem", pointer, []),
        ("BIO_new", pointer, [pointer]),
        ("BIO_read", number, [pointer, pointer, number]),
        ("BIO_write", number, [pointer, pointer, number]),
        ("BIO_ctrl", ctypes.c_long, [pointer, number, ctypes.c_long, pointer]),
        ("ERR_clear_error", None, []),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


LIB = load()


class ForeignError(Exception):
    """TLS has failed."""


class ForeignClient:
    """A connection that verifies nothing. version: 0x0303 or 0x0304. fragment: 0 for no wish, 1 to 4 for 512 to 4096 bytes."""

    def __init__(self, version: int, fragment: int = 0) -> None:
        assert LIB is not None
        self.handshake_done = False
        self.peer_closed = False
        context = LIB.SSL_CTX_new(LIB.TLS_client_method())
        for control in (SSL_CTRL_SET_MIN_PROTO_VERSION, SSL_CTRL_SET_MAX_PROTO_VERSION):
            LIB.SSL_CTX_ctrl(context, control, version, None)
        if fragment:
            assert LIB.SSL_CTX_set_tlsext_max_fragment_length(context, fragment) == 1
        self._ssl = LIB.SSL_new(context)
        LIB.SSL_CTX_free(context)
        self._in, self._out = LIB.BIO_new(LIB.BIO_s_mem()), LIB.BIO_new(LIB.BIO_s_mem())
        LIB.SSL_set_bio(self._ssl, self._in, self._out)
        LIB.SSL_set_connect_state(self._ssl)

    def __del__(self) -> None:
        LIB.SSL_free(self._ssl)

    def _check(self, result: int) -> bool:
        """True when the step is done, False when it waits for input."""
        if result > 0:
            return True
        error = LIB.SSL_get_error(self._ssl, result)
        if error == ERROR_ZERO_RETURN:
            self.peer_closed = True
        elif error != ERROR_WANT_READ:
            raise ForeignError(f"SSL_get_error: {error}")
        return False

    def start(self) -> bytes:
        LIB.ERR_clear_error()
        self._check(LIB.SSL_do_handshake(self._ssl))
        return self.take()

    def decrypt(self, data: bytes) -> bytes:
        data = bytes(data)
        LIB.ERR_clear_error()
        if data:
            assert LIB.BIO_write(self._in, data, len(data)) == len(data)
        if not self.handshake_done:
            self.handshake_done = self._check(LIB.SSL_do_handshake(self._ssl))
            if not self.handshake_done:
                return b""
        found, buffer, count = bytearray(), ctypes.create_string_buffer(16384), ctypes.c_size_t()
        while not self.peer_closed and self._check(LIB.SSL_read_ex(self._ssl, buffer, 16384, ctypes.byref(count))):
            found += buffer[: count.value]
        return bytes(found)

    def encrypt(self, data: bytes) -> bytes:
        data = bytes(data)
        LIB.ERR_clear_error()
        count = ctypes.c_size_t()
        if data and not self._check(LIB.SSL_write_ex(self._ssl, data, len(data), ctypes.byref(count))):
            raise ForeignError("a write waits for a read")
        return self.take()

    def update_keys(self) -> None:
        """With TLS 1.3: new keys from the next record on, and a demand for the peer's (RFC 8446, 4.6.3)."""
        LIB.ERR_clear_error()
        if LIB.SSL_key_update(self._ssl, 1) != 1:
            raise ForeignError("TLS 1.2 has no key updates")
        self._check(LIB.SSL_do_handshake(self._ssl))  # which sends it

    def take(self) -> bytes:
        size = LIB.BIO_ctrl(self._out, BIO_CTRL_PENDING, 0, None)
        if not size:
            return b""
        buffer = ctypes.create_string_buffer(size)
        got = LIB.BIO_read(self._out, buffer, size)
        return buffer[:got]

    def close(self) -> bytes:
        LIB.ERR_clear_error()
        if self.handshake_done:
            LIB.SSL_shutdown(self._ssl)
        return self.take()
