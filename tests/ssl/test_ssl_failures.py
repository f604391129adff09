"""What fails raises the same with `sslsock._ssl` as with the interpreter's: class, number, library and reason, and the text
as far as it is not an OpenSSL version's own.

Each case is run with both modules, over memory.
"""

import _ssl
import contextlib
import re
import socket
import sys

import pytest
import trustme

from self_signed import EC_KEY, RSA_KEY, key_pem, make
from sslsock import _ssl as ours

SAME_OPENSSL = ours.OPENSSL_VERSION == _ssl.OPENSSL_VERSION
PLACE = re.compile(r"( \(0x[0-9a-f]+\))? \((_ssl\.c:\d+|sslsock)\)$")  # and since 3.14 the code that has no words

# Two versions of OpenSSL compared: what the newer one calls otherwise. 3.2 puts one reason over the record layer's own; 4.0 has
# other names for alerts and extensions that were of SSL 3's time, and knows no hello of SSL 2.
RENAMED = {
    "PACKET_LENGTH_TOO_LONG": "RECORD_LAYER_FAILURE",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "RECORD_LAYER_FAILURE",
    "BAD_RECORD_TYPE": "RECORD_LAYER_FAILURE",
    "LENGTH_TOO_SHORT": "BAD_EXTENSION",
    "UNKNOWN_PROTOCOL": "WRONG_VERSION_NUMBER",
}


def in_common(reason):
    reason = re.sub(r"^(SSLV3|TLSV1|TLS)_ALERT_", "ALERT_", re.sub(r"^SSL3_EXT_", "TLS_EXT_", reason))
    return RENAMED.get(reason, reason)


def tries_again(module):
    """Whether a handshake that failed for the first record goes on with what follows, when it is called again."""
    return (3, 2) <= module.OPENSSL_VERSION_INFO < (4,)


def told(error):
    """All that a program sees of an exception."""
    if isinstance(error, OSError) and not isinstance(error, _ssl.SSLError):
        return type(error), error.errno, error.strerror  # newer interpreters name the file too
    if type(error) is _ssl.SSLSyscallError and error.args[0] == _ssl.SSL_ERROR_SYSCALL and error.reason is None:
        # Of a call after the one that failed, over memory: CPython has made it an unexpected end since (gh-115627).
        error = _ssl.SSLEOFError(_ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
        error.library = error.reason = None
    if type(error) is _ssl.SSLError and "[SSL] record layer failure" in str(error):
        # CPython before 3.14 has no name for what OpenSSL has called so since 3.2.
        text = str(error.args[1]).replace("[SSL]", "[SSL: RECORD_LAYER_FAILURE]")
        error = _ssl.SSLError(error.args[0], text)
        error.library, error.reason = "SSL", "RECORD_LAYER_FAILURE"
    text = PLACE.sub("", str(error))
    args = tuple(PLACE.sub("", one) if isinstance(one, str) else one for one in error.args)
    names = ("library", "reason", "verify_code", "verify_message")
    more = {name: getattr(error, name) for name in names if hasattr(error, name)}
    if isinstance(error, _ssl.SSLError) and not SAME_OPENSSL:
        text, args = re.sub(r"\[(\w*).*", r"[\1]", text), args[:1]  # OpenSSL's words are the version's
        if more.get("reason"):
            more["reason"] = in_common(more["reason"])
    return type(error), args, text, more


def raised(function, *arguments):
    try:
        result = function(*arguments)
    except Exception as error:
        return told(error)
    return "returned", result if isinstance(result, (int, bytes, str, type(None))) else type(result).__name__


def assert_the_same(case, *arguments):
    wanted, got = case(_ssl, *arguments), case(ours, *arguments)
    assert got == wanted, f"ours: {got}\nthe interpreter's: {wanted}"
    return got


# ---- contexts ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    authority = trustme.CA()
    issued = authority.issue_cert("example.com", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "self-signed.pem").write_bytes(make(["example.com"], ["example.com"]) + key_pem(EC_KEY))
    (folder / "rsa.pem").write_bytes(make(["example.com"], ["example.com"], RSA_KEY))
    (folder / "rsa-key.pem").write_bytes(key_pem(RSA_KEY))
    (folder / "empty.pem").write_bytes(b"")
    (folder / "words.pem").write_bytes(b"neither a certificate nor a key\n")
    (folder / "bad-base64.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n")
    (folder / "no-certificate.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    cut = (folder / "certificate.pem").read_bytes()
    (folder / "cut-off.pem").write_bytes(cut[: len(cut) // 2])
    from cryptography.hazmat.primitives import serialization

    form, secret = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    encrypted = EC_KEY.private_bytes(serialization.Encoding.PEM, form, secret)
    (folder / "encrypted.pem").write_bytes(make(["example.com"], ["example.com"]) + encrypted)
    return folder


def failing():
    raise RuntimeError("the password is nowhere")


CHAINS = [
    ("nowhere.pem",),
    ("certificate.pem", "nowhere.pem"),
    ("certificate.pem",),
    ("key.pem",),
    ("certificate.pem", "rsa-key.pem"),
    ("rsa.pem", "key.pem"),
    ("empty.pem",),
    ("words.pem",),
    ("bad-base64.pem",),
    ("no-certificate.pem",),
    ("cut-off.pem",),
    ("",),
    (".",),
    ("both.pem", "words.pem"),
    ("encrypted.pem", None, "wrong"),
    ("encrypted.pem", None, b"wrong"),
    ("encrypted.pem", None, lambda: "wrong"),
    ("encrypted.pem", None, "secret"),
    ("encrypted.pem", None, failing),
    ("encrypted.pem", None, lambda: 1),
    ("encrypted.pem", None, 1),
    ("encrypted.pem", None, "x" * 2000),
    ("encrypted.pem", None, lambda: b"x" * 2000),
    ("encrypted.pem", None, "é"),
    ("encrypted.pem", None, ""),
]


@pytest.mark.parametrize("names", CHAINS, ids=lambda names: " ".join(str(getattr(one, "__name__", one))[:12] for one in names))
def test_loading_a_certificate_and_its_key(files, names):
    def case(module):
        context = module._SSLContext(module.PROTOCOL_TLS_SERVER)
        paths = [name if name is None else str(files / name) for name in names[:2]]
        return raised(context.load_cert_chain, *paths, *([None] * (2 - len(paths)) if names[2:] else []), *names[2:])

    assert_the_same(case)


@pytest.mark.parametrize("arguments", [(None,), (1,), ("a\0b",), (b"a\0b",), ("both.pem", 1), ([],)], ids=repr)
def test_paths_that_are_none(arguments):
    def case(module):
        result = raised(module._SSLContext(module.PROTOCOL_TLS_SERVER).load_cert_chain, *arguments)
        return result[:1] if result[0] is TypeError else result

    assert_the_same(case)


AUTHORITIES = [
    ((), {}),
    (("nowhere.pem",), {}),
    ((None, "nowhere"), {}),
    (("words.pem",), {}),
    (("empty.pem",), {}),
    (("bad-base64.pem",), {}),
    (("cut-off.pem",), {}),
    (("key.pem",), {}),
    ((None, None, ""), {}),
    ((None, None, b""), {}),
    ((None, None, "words"), {}),
    ((None, None, b"words"), {}),
    ((None, None, "é"), {}),
    ((None, None, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), {}),
    ((None, None, b"\x30\x03\x02\x01\x00"), {}),
    ((None, None, 1), {}),
]


@pytest.mark.parametrize(("arguments", "_unused"), AUTHORITIES, ids=repr)
def test_loading_authorities(files, arguments, _unused):
    def case(module):
        paths = [name if name is None else str(files / name) for name in arguments[:2]]
        return raised(module._SSLContext(module.PROTOCOL_TLS_CLIENT).load_verify_locations, *paths, *arguments[2:])

    assert_the_same(case)


SETTINGS = [
    ("set_ciphers", "nothing"),
    ("set_ciphers", ""),
    ("set_ciphers", 1),
    ("set_ecdh_curve", "nothing"),
    ("set_ecdh_curve", b"nothing"),
    ("set_ecdh_curve", ""),
    ("load_dh_params", "/nowhere/dh.pem"),
    ("_set_alpn_protocols", "text"),
    ("_set_alpn_protocols", 1),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_settings_that_are_refused(name, value):
    def case(module):
        result = raised(getattr(module._SSLContext(module.PROTOCOL_TLS_CLIENT), name), value)
        return result[:1] if result[0] is TypeError else result

    assert_the_same(case)


ATTRIBUTES = [
    ("verify_mode", 3),
    ("verify_mode", -1),
    ("verify_mode", 0),  # with check_hostname
    ("verify_mode", "a"),
    ("verify_flags", "a"),
    ("minimum_version", 1),
    ("minimum_version", "a"),
    ("maximum_version", 99999),
    ("options", "a"),
    ("options", -1),
    ("num_tickets", 1),  # of a client
    ("num_tickets", -1),
    ("sni_callback", 1),
    ("keylog_filename", 1),
    ("keylog_filename", "/nowhere/keys"),
    ("post_handshake_auth", "yes"),
    ("check_hostname", "yes"),
]


@pytest.mark.parametrize(("name", "value"), ATTRIBUTES)
def test_attributes_that_are_refused(name, value):
    def case(module):
        context = module._SSLContext(module.PROTOCOL_TLS_CLIENT)
        before = getattr(context, name)
        result = raised(setattr, context, name, value)
        return (result[:1] if result[0] in (TypeError, OverflowError) else result), getattr(context, name) == before

    assert_the_same(case)


# ---- connections -----------------------------------------------------------------------------------------------


class Ends:
    """A client and a server of one module, joined in memory."""

    def __init__(self, module, files, server_pem="both.pem", name="example.com", trusted="authority.pem", **settings):
        self.module = module
        self.server_context = module._SSLContext(module.PROTOCOL_TLS_SERVER)
        self.server_context.load_cert_chain(str(files / server_pem))
        self.client_context = module._SSLContext(module.PROTOCOL_TLS_CLIENT)
        if trusted:
            self.client_context.load_verify_locations(str(files / trusted))
        for setting, value in settings.items():
            side, _, attribute = setting.partition("_")
            context = self.client_context if side == "client" else self.server_context
            known = getattr(context, attribute)
            if callable(known):
                known(value)
            else:
                setattr(context, attribute, value)
        self.there, self.back = module.MemoryBIO(), module.MemoryBIO()
        self.client = self.client_context._wrap_bio(self.back, self.there, False, name)
        self.server = self.server_context._wrap_bio(self.there, self.back, True)

    def shake(self):
        """What each end raises first, or None."""
        ended = {}
        for _ in range(6):
            for end in (self.client, self.server):
                if ended.get(end) is None:
                    try:
                        end.do_handshake()
                    except (self.module.SSLWantReadError, self.module.SSLWantWriteError):
                        pass
                    except Exception as error:
                        ended[end] = error
        return [told(one) if (one := ended.get(end)) else None for end in (self.client, self.server)]


HANDSHAKES = {
    "another name": {"name": "example.org"},
    "another address": {"name": "127.0.0.2"},
    "an authority that nobody knows": {"trusted": None},
    "another authority": {"trusted": "self-signed.pem"},
    "a certificate that signs itself": {"server_pem": "self-signed.pem"},
    "no suite in common": {
        "client_maximum_version": ours.PROTO_TLSv1_2,
        "client_set_ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "server_set_ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384",
    },
    "no version in common": {"client_maximum_version": ours.PROTO_TLSv1_2, "server_minimum_version": ours.PROTO_TLSv1_3},
    "no version in common, the other way round": {
        "client_minimum_version": ours.PROTO_TLSv1_3,
        "server_maximum_version": ours.PROTO_TLSv1_2,
    },
    "no certificate of a client, TLS 1.2": {"client_maximum_version": ours.PROTO_TLSv1_2, "server_verify_mode": 2},
    "nothing at all": {},
    "nothing at all, an address": {"name": "127.0.0.1"},
    "another curve": {
        "client_set_ecdh_curve": "secp521r1",
        "server_set_ecdh_curve": "prime256v1",
    },
}


@pytest.mark.parametrize("settings", HANDSHAKES.values(), ids=HANDSHAKES.keys())
def test_handshakes(files, settings):
    assert_the_same(lambda module: Ends(module, files, **settings).shake())


def test_the_text_of_a_refused_name_is_exact(files):
    error, alert = Ends(ours, files, name="example.org").shake()
    assert error[0] is _ssl.SSLCertVerificationError
    assert error[3]["verify_message"] == "Hostname mismatch, certificate is not valid for 'example.org'."
    assert in_common(alert[3]["reason"]) in ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE")


@pytest.mark.parametrize("name", ["", ".example.com", "a\0b", "münchen.de", 1, b"example.com", "x" * 300])
def test_names_that_are_refused(files, name):
    def case(module):
        result = raised(Ends, module, files, "both.pem", name)
        return result[:1] if result[0] is TypeError else result

    assert_the_same(case)


GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "HTTP's answer": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a proxy's CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
    "SMTP": b"220 mail.example.com ESMTP\r\n",
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
    "an alert": b"\x15\x03\x03\0\2\2\x28",
    "an alert of another kind": b"\x15\x03\x03\0\2\2\xfe",
    "a warning, close": b"\x15\x03\x03\0\2\1\0",
    "a record that is too long": b"\x16\x03\x03\xff\xff" + bytes(100),
    "application data": b"\x17\x03\x03\0\x10" + bytes(16),
    "a hello that is cut off": b"\x16\x03\x01\0\5\1\0\0\1\3",
    "SSL 2": b"\x80\x2e\1\0\2\0\x15\0\0\0\x10" + bytes(37),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_what_is_no_tls(files, garbage, side, ended):
    def case(module):
        ends = Ends(module, files)
        with contextlib.suppress(module.SSLWantReadError):
            getattr(ends, side).do_handshake()
        bio = ends.back if side == "client" else ends.there
        bio.write(garbage)
        if ended:
            bio.write_eof()
        return [raised(getattr(ends, side).do_handshake) for _ in range(2 if tries_again(ours) == tries_again(_ssl) else 1)]

    assert_the_same(case)


def joined(module, files, version):
    settings = {"client_maximum_version": version, "server_maximum_version": version}
    ends = Ends(module, files, **settings)
    assert ends.shake() == [None, None]
    ends.client.write(b"x")
    assert ends.server.read(10) == b"x"
    return ends


VERSIONS = pytest.mark.parametrize("version", [ours.PROTO_TLSv1_2, ours.PROTO_TLSv1_3], ids=["tls1.2", "tls1.3"])


@VERSIONS
@pytest.mark.parametrize("cut", [0, 1, 5, 20])
def test_an_end_without_goodbye(files, version, cut):
    def case(module):
        ends = joined(module, files, version)
        ends.server.write(b"data")
        record = ends.back.read()
        ends.back.write(record[:cut])
        ends.back.write_eof()
        return [raised(ends.client.read, 10) for _ in range(3)]

    assert_the_same(case)


@VERSIONS
def test_reading_and_closing(files, version):
    def case(module):
        ends = joined(module, files, version)
        seen = [raised(ends.client.read, 10), raised(ends.client.shutdown), raised(ends.server.read, 10)]
        seen += [raised(ends.server.write, b"x"), raised(ends.server.shutdown), raised(ends.client.read, 10)]
        seen += [raised(ends.client.write, b"x"), raised(ends.client.shutdown), raised(ends.server.shutdown)]
        seen += [raised(ends.client.do_handshake), raised(ends.client.read, 0), raised(ends.client.read, -1)]
        seen += [raised(ends.client.read, "a")[:1], raised(ends.client.write, "a")[:1]]
        return seen

    assert_the_same(case)


@VERSIONS
@pytest.mark.parametrize("at", [0, 3, 5, 10, -1])
def test_a_record_that_was_changed(files, version, at):
    def case(module):
        ends = joined(module, files, version)
        ends.server.write(b"data")
        record = bytearray(ends.back.read())
        record[at] ^= 0x55
        ends.back.write(bytes(record))
        return [raised(ends.client.read, 10) for _ in range(3)], raised(ends.server.read, 10)

    assert_the_same(case)


def test_a_client_without_a_certificate_in_tls_1_3(files):
    """It hears of it only when it reads."""

    def case(module):
        ends = Ends(module, files, server_verify_mode=2, server_load_verify_locations=str(files / "authority.pem"))
        return ends.shake(), [raised(ends.client.read, 10) for _ in range(2)]

    got = assert_the_same(case)
    assert got[1][0][3]["reason"] in ("TLSV13_ALERT_CERTIFICATE_REQUIRED", None)


def test_before_the_handshake(files):
    def case(module):
        ends = Ends(module, files)
        return [
            raised(ends.client.read, 10),
            raised(ends.client.write, b"x"),
            raised(ends.client.shutdown),
            raised(ends.client.getpeercert),
            raised(ends.client.verify_client_post_handshake),
            raised(ends.client.get_channel_binding, "tls-unique"),
            raised(ends.client.get_channel_binding, "nothing"),
            raised(ends.client.cipher),
            raised(ends.client.version),
            raised(ends.client.selected_alpn_protocol),
            raised(ends.client.compression),
            raised(ends.client.pending),
            raised(ends.client.shared_ciphers)[1],
            raised(ends.server.shared_ciphers)[1],
        ]

    assert_the_same(case)


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
def test_a_context_of_the_other_side(server_side):
    """CPython 3.9 tells it at the handshake, later ones before."""

    def case(module):
        context = module._SSLContext(module.PROTOCOL_TLS_CLIENT if server_side else module.PROTOCOL_TLS_SERVER)
        arguments = module.MemoryBIO(), module.MemoryBIO(), server_side
        made = raised(context._wrap_bio, *arguments)
        if made[0] != "returned":
            return made
        end = context._wrap_bio(*arguments)
        return [raised(end.do_handshake), raised(end.read, 10), raised(end.write, b"x"), raised(end.shutdown)]

    assert_the_same(case)


def test_time_that_is_up(files):
    def case(module):
        one, other = socket.socketpair()
        with one, other:
            one.settimeout(0.01)
            client = Ends(module, files).client_context._wrap_socket(one, False, "example.com")
            with pytest.raises(socket.timeout) as caught:
                client.do_handshake()
            return type(caught.value), re.sub(r"^_ssl\.c:\d+: ", "", str(caught.value))  # so long as it was a macro

    assert_the_same(case)


def test_modules_are_told_apart():
    assert ours is not _ssl and ours is not sys.modules["_ssl"]
