"""A TLS peer over memory that does what the `ssl` module has no call for: small records, key updates, tickets at any time, a
ClientHello that changes. It is the libssl of the interpreter's own `ssl` module, called by ctypes.
"""

import _ssl
import contextlib
import ctypes
from ctypes import byref, c_char_p, c_int, c_long, c_size_t, c_void_p, create_string_buffer

import pytest

from .pairs import authority

SSL_ERROR_SSL, SSL_ERROR_WANT_READ, SSL_ERROR_ZERO_RETURN = 1, 2, 6
SET_MAX_SEND_FRAGMENT, SET_HOST_NAME, SET_GROUPS, SET_MIN_PROTOCOL, SET_MAX_PROTOCOL = 52, 55, 92, 123, 124  # openssl/ssl.h
FRAGMENTS = {512: 1, 1024: 2, 2048: 3, 4096: 4}  # max_fragment_length: RFC 6066, 4

SIGNATURES = {
    "TLS_client_method": (c_void_p,),
    "TLS_server_method": (c_void_p,),
    "SSL_CTX_new": (c_void_p, c_void_p),
    "SSL_CTX_free": (None, c_void_p),
    "SSL_CTX_ctrl": (c_long, c_void_p, c_int, c_long, c_void_p),
    "SSL_CTX_set_cipher_list": (c_int, c_void_p, c_char_p),
    "SSL_CTX_set_ciphersuites": (c_int, c_void_p, c_char_p),
    "SSL_CTX_set_num_tickets": (c_int, c_void_p, c_size_t),
    "SSL_CTX_use_certificate_file": (c_int, c_void_p, c_char_p, c_int),
    "SSL_CTX_use_PrivateKey_file": (c_int, c_void_p, c_char_p, c_int),
    "SSL_CTX_set_tlsext_max_fragment_length": (c_int, c_void_p, ctypes.c_uint8),
    "SSL_new": (c_void_p, c_void_p),
    "SSL_free": (None, c_void_p),
    "SSL_ctrl": (c_long, c_void_p, c_int, c_long, c_void_p),
    "SSL_set_bio": (None, c_void_p, c_void_p, c_void_p),
    "SSL_set_connect_state": (None, c_void_p),
    "SSL_set_accept_state": (None, c_void_p),
    "SSL_set_alpn_protos": (c_int, c_void_p, c_char_p, ctypes.c_uint),
    "SSL_set_cipher_list": (c_int, c_void_p, c_char_p),
    "SSL_set_ciphersuites": (c_int, c_void_p, c_char_p),
    "SSL_do_handshake": (c_int, c_void_p),
    "SSL_read_ex": (c_int, c_void_p, c_void_p, c_size_t, c_void_p),
    "SSL_write_ex": (c_int, c_void_p, c_void_p, c_size_t, c_void_p),
    "SSL_get_error": (c_int, c_void_p, c_int),
    "SSL_key_update": (c_int, c_void_p, c_int),
    "SSL_new_session_ticket": (c_int, c_void_p),
    "SSL_renegotiate": (c_int, c_void_p),
    "SSL_alert_desc_string_long": (c_char_p, c_int),
    "BIO_s_mem": (c_void_p,),
    "BIO_new": (c_void_p, c_void_p),
    "BIO_read": (c_int, c_void_p, c_void_p, c_int),
    "BIO_write": (c_int, c_void_p, c_char_p, c_int),
    "BIO_ctrl": (c_long, c_void_p, c_int, c_long, c_void_p),
    "ERR_clear_error": (None,),
    "ERR_get_error": (ctypes.c_ulong,),
    "ERR_reason_error_string": (c_char_p, ctypes.c_ulong),
}


def load():
    library = ctypes.CDLL(_ssl.__file__)  # what it is linked with is found by its handle
    functions = {}
    for name, (result, *arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions


try:
    load()
    missing = ""
except AttributeError as error:
    missing = str(error)
calls_libssl = pytest.mark.skipif(bool(missing), reason=f"the interpreter's libssl is not to be called: {missing}")


class Libssl:
    """One connection. Errors raise PeerError with libssl's words."""

    def __init__(self, version, server_side=False, *, fragment=0, send_fragment=0, ciphers=None, groups=None, tickets=0):
        self.call = load()
        self.server_side = server_side
        method = self.call["TLS_server_method" if server_side else "TLS_client_method"]()
        self.context = self.call["SSL_CTX_new"](method)
        self.control_context(SET_MIN_PROTOCOL, version)
        self.control_context(SET_MAX_PROTOCOL, version)
        if ciphers is not None:
            self.must("SSL_CTX_set_cipher_list", self.context, ciphers.encode())
        if groups is not None:
            self.control_context(SET_GROUPS, 0, groups.encode())
        if fragment:
            self.must("SSL_CTX_set_tlsext_max_fragment_length", self.context, FRAGMENTS[fragment])
        if server_side:
            self.call["SSL_CTX_set_num_tickets"](self.context, tickets)
            leaf = authority("first").issue_cert("localhost")
            with leaf.private_key_and_cert_chain_pem.tempfile() as path:
                for function in ("SSL_CTX_use_certificate_file", "SSL_CTX_use_PrivateKey_file"):
                    self.must(function, self.context, path.encode(), 1)
        self.ssl = self.call["SSL_new"](self.context)
        self.incoming, self.outgoing = (self.call["BIO_new"](self.call["BIO_s_mem"]()) for _ in range(2))
        for bio in (self.incoming, self.outgoing):
            self.call["BIO_ctrl"](bio, 130, -1, None)  # BIO_set_mem_eof_return(3): empty is not the end
        self.call["SSL_set_bio"](self.ssl, self.incoming, self.outgoing)
        self.call["SSL_set_accept_state" if server_side else "SSL_set_connect_state"](self.ssl)
        if send_fragment:
            self.control(SET_MAX_SEND_FRAGMENT, send_fragment)
        self.done = self.closed = False  # closed: it has been told close_notify

    def __del__(self):
        with contextlib.suppress(AttributeError):
            self.call["SSL_free"](self.ssl)
            self.call["SSL_CTX_free"](self.context)

    def must(self, name, *arguments):
        assert self.call[name](*arguments) == 1, f"{name}: {self.reason()}"

    def control(self, what, number=0, data=None):
        assert self.call["SSL_ctrl"](self.ssl, what, number, data) == 1, f"SSL_ctrl {what}: {self.reason()}"

    def control_context(self, what, number=0, data=None):
        assert self.call["SSL_CTX_ctrl"](self.context, what, number, data) == 1, f"SSL_CTX_ctrl {what}: {self.reason()}"

    def set_server_name(self, name):
        """name: bytes, or None for none."""
        self.control(SET_HOST_NAME, 0, name)

    def set_next_protocols(self, wire):
        assert self.call["SSL_set_alpn_protos"](self.ssl, wire, len(wire)) == 0

    def reason(self):
        """The newest error's words."""
        words = ""
        while code := self.call["ERR_get_error"]():
            words = (self.call["ERR_reason_error_string"](code) or b"").decode() or words
        return words

    def outcome(self, result):
        """Whether a call has succeeded; False: it wants to read, or there is no more. PeerError when it has failed."""
        if result == 1:
            return True
        error = self.call["SSL_get_error"](self.ssl, result)
        if error == SSL_ERROR_ZERO_RETURN:
            self.closed = True
        elif error != SSL_ERROR_WANT_READ:
            raise PeerError(self.reason())
        return False

    # bytes

    def feed(self, data):
        """What has come from the other side."""
        if data:
            assert self.call["BIO_write"](self.incoming, bytes(data), len(data)) == len(data)

    def take(self):
        """What is to be sent: bytes."""
        size = self.call["BIO_ctrl"](self.outgoing, 10, 0, None)  # BIO_ctrl_pending(3)
        if size == 0:
            return b""
        buffer = create_string_buffer(size)
        assert self.call["BIO_read"](self.outgoing, buffer, size) == size
        return buffer.raw

    # TLS

    def shake(self):
        """A step of the handshake; True when it is done."""
        self.call["ERR_clear_error"]()
        self.done = self.outcome(self.call["SSL_do_handshake"](self.ssl))
        return self.done

    def write(self, data):
        """Encrypt `data`; returns what is to be sent."""
        written = c_size_t()
        self.call["ERR_clear_error"]()
        assert self.outcome(self.call["SSL_write_ex"](self.ssl, bytes(data), len(data), byref(written)))
        return self.take()

    def read(self, data=b""):
        """Decrypt all of `data`, and what came before."""
        self.feed(data)
        buffer, got, plain = create_string_buffer(1 << 16), c_size_t(), []
        self.call["ERR_clear_error"]()
        while self.outcome(self.call["SSL_read_ex"](self.ssl, buffer, len(buffer), byref(got))):
            plain.append(buffer.raw[: got.value])
        return b"".join(plain)

    def key_update(self, requested=False):
        """A key update (RFC 8446, 4.6.3), with the wish for one in return or not: bytes to send."""
        self.must("SSL_key_update", self.ssl, int(requested))
        assert self.shake()
        return self.take()

    def ticket(self):
        """One more session ticket: bytes to send."""
        self.must("SSL_new_session_ticket", self.ssl)
        assert self.shake()
        return self.take()


class PeerError(Exception):
    """The other side's TLS has failed."""


def shake_hands(peer, engine):
    """The handshake of a Libssl and an Engine, until neither has anything to say."""
    to_peer = engine.start()
    for _ in range(10):
        peer.feed(to_peer)
        if not peer.done:
            peer.shake()
        else:
            assert peer.read() == b""
        to_engine = peer.take()
        if engine.decrypt(to_engine):
            raise AssertionError("data before the end of the handshake")
        to_peer = engine.take()
        if peer.done and engine.handshake_done and not to_peer:
            return
    raise AssertionError("the handshake goes round in circles")
