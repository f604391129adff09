"""`SslKey`: what loads, what is refused and in which words, and that a secret is shown nowhere."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import time

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519

from sslsock import KeyAlgorithm, KeyType, SslEncoding, SslKey

PEM, DER = SslEncoding.PEM, SslEncoding.DER
ENCODINGS = {PEM: serialization.Encoding.PEM, DER: serialization.Encoding.DER}
PKCS8 = serialization.PrivateFormat.PKCS8
OLD = serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()
MISSING = "the key is encrypted and no passphrase was given"


@pytest.fixture(scope="module")
def keys():
    return {
        KeyAlgorithm.RSA: rsa.generate_private_key(65537, 2048),
        KeyAlgorithm.DSA: dsa.generate_private_key(1024),
        KeyAlgorithm.EC: ec.generate_private_key(ec.SECP256R1()),
        KeyAlgorithm.ED25519: ed25519.Ed25519PrivateKey.generate(),
        KeyAlgorithm.ED448: ed448.Ed448PrivateKey.generate(),
    }


every = pytest.mark.parametrize(
    "algorithm",
    [KeyAlgorithm.RSA, KeyAlgorithm.DSA, KeyAlgorithm.EC, KeyAlgorithm.ED25519, KeyAlgorithm.ED448],
    ids=lambda a: a.name,
)
old_kinds = pytest.mark.parametrize("algorithm", [KeyAlgorithm.RSA, KeyAlgorithm.DSA, KeyAlgorithm.EC], ids=lambda a: a.name)
both = pytest.mark.parametrize("format", [PEM, DER], ids=lambda f: f.name)


def private(key, format=PEM, form=PKCS8, passphrase=None):
    secrecy = PLAIN if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(ENCODINGS[format], form, secrecy)


def public(key, format=PEM):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(ENCODINGS[format], form)


def openssl(*arguments, data=b""):
    return subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True).stdout


def refusal(*arguments, **named):
    key = SslKey(*arguments, **named)
    assert key.null
    assert key.algorithm is None
    return key.error_string


def assert_loaded(key, algorithm, type=KeyType.PRIVATE):
    assert (key.null, key.error_string) == (False, "")
    assert key.algorithm is algorithm
    assert key.type is type


# loading


@every
@both
def test_pkcs8_loads(keys, algorithm, format):
    data = private(keys[algorithm], format)
    assert_loaded(SslKey(data, None, format), algorithm)
    assert_loaded(SslKey(data, algorithm, format), algorithm)


@old_kinds
@both
def test_the_older_forms_load(keys, algorithm, format):
    assert_loaded(SslKey(private(keys[algorithm], format, OLD), algorithm, format), algorithm)


@every
@both
def test_public_keys_load(keys, algorithm, format):
    data = public(keys[algorithm], format)
    assert_loaded(SslKey(data, algorithm, format, KeyType.PUBLIC), algorithm, KeyType.PUBLIC)


@both
def test_the_older_form_of_an_rsa_public_key_loads(keys, format):
    form = serialization.PublicFormat.PKCS1
    data = keys[KeyAlgorithm.RSA].public_key().public_bytes(ENCODINGS[format], form)
    assert_loaded(SslKey(data, None, format, KeyType.PUBLIC), KeyAlgorithm.RSA, KeyType.PUBLIC)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, bytes.decode])
def test_any_buffer_and_text_load(keys, wrap):
    assert_loaded(SslKey(wrap(private(keys[KeyAlgorithm.EC]))), KeyAlgorithm.EC)


def test_a_bytearray_can_be_resized_after_loading(keys):
    data, passphrase = bytearray(private(keys[KeyAlgorithm.EC], passphrase=b"secret")), bytearray(b"secret")
    SslKey(data, passphrase=passphrase)
    SslKey(data, passphrase=bytearray(b"wrong"))
    data.extend(b"more")
    passphrase.extend(b"more")
    assert passphrase == b"secretmore"


def test_a_certificate_and_parameters_before_the_key_are_passed_over(keys):
    with_certificate = trustme.CA().issue_cert("a.example").private_key_and_cert_chain_pem.bytes()
    key_only = with_certificate[: with_certificate.index(b"-----BEGIN CERTIFICATE")]
    rest = with_certificate[len(key_only) :]
    assert not SslKey(rest + key_only + b"junk").null
    text = openssl("ecparam", "-name", "prime256v1", "-genkey")
    assert b"EC PARAMETERS" in text
    assert_loaded(SslKey(text), KeyAlgorithm.EC)


def test_an_rsa_pss_key_has_a_value_of_its_own():
    text = openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048")
    assert_loaded(SslKey(text), KeyAlgorithm.RSA_PSS)


def test_a_kind_without_a_value_loads():
    key = SslKey(private(x25519.X25519PrivateKey.generate()))
    assert_loaded(key, None)
    assert repr(key) == "<SslKey X25519 private>"


def test_ml_dsa_loads_where_openssl_has_it():
    # RFC 9881, 6: an ML-DSA-44 key that is its seed, 00 01 02 ... 1f.
    data = bytes.fromhex("3034020100300b06096086480165030403110422 8020") + bytes(range(32))
    key = SslKey(data, None, DER)
    if key.null:
        assert "unknown to this OpenSSL" in key.error_string
    else:
        assert_loaded(key, KeyAlgorithm.ML_DSA)


# passphrases


@every
@both
@pytest.mark.parametrize("passphrase", ["secret", b"secret", bytearray(b"secret"), memoryview(b"secret")])
def test_encrypted_pkcs8_loads(keys, algorithm, format, passphrase):
    data = private(keys[algorithm], format, passphrase=b"secret")
    key = SslKey(data, algorithm, format, passphrase=passphrase)
    assert_loaded(key, algorithm)
    assert key == SslKey(private(keys[algorithm]))


@old_kinds
def test_encrypted_pem_of_the_older_form_loads(keys, algorithm):
    data = private(keys[algorithm], PEM, OLD, b"secret")
    assert b"DEK-Info" in data
    assert_loaded(SslKey(data, passphrase="secret"), algorithm)
    assert refusal(data) == MISSING
    assert "the passphrase is wrong" in refusal(data, passphrase="wrong")


LABELS = [b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"]


@every
@pytest.mark.parametrize("label", LABELS)
def test_what_a_key_is_tells_its_content_not_its_label(keys, algorithm, label):
    plain, encrypted = private(keys[algorithm]), private(keys[algorithm], passphrase=b"secret")
    for data, own in ((plain, b"PRIVATE KEY"), (encrypted, b"ENCRYPTED PRIVATE KEY")):
        text = data.replace(b" " + own + b"-", b" " + label + b"-")
        assert text.count(label) == 2
        key = SslKey(text, algorithm, passphrase="secret")
        assert_loaded(key, algorithm)
        assert key == SslKey(plain)
    assert refusal(text) == MISSING
    assert "the passphrase is wrong" in refusal(text, passphrase="wrong")


@old_kinds
def test_an_older_form_may_have_the_newer_label(keys, algorithm):
    text = private(keys[algorithm], PEM, OLD)
    label = {KeyAlgorithm.RSA: b"RSA PRIVATE KEY", KeyAlgorithm.DSA: b"DSA PRIVATE KEY"}.get(algorithm, b"EC PRIVATE KEY")
    assert text.count(label) == 2
    assert_loaded(SslKey(text.replace(label, b"PRIVATE KEY"), algorithm), algorithm)


def test_a_path_is_told_from_a_key(tmp_path, keys):
    for path in ("server.key", b"server.key", "/etc/ssl/private/schl\u00fcssel.pem"):
        assert "if it is the path of a file, give what the file holds" in refusal(path)
    assert "path" not in refusal("no\nkey") and "path" not in refusal(b"\0" * 9)
    assert "server" not in refusal("server.key"), "it may be a secret"
    with pytest.raises(TypeError, match="this is a path"):
        SslKey(tmp_path)


@pytest.mark.parametrize("options", [["-v2", "aes-128-cbc"], ["-scrypt"], ["-v1", "PBE-SHA1-3DES"]])
def test_other_ways_to_encrypt_load(keys, options):
    data = openssl("pkcs8", "-topk8", *options, "-passout", "pass:secret", data=private(keys[KeyAlgorithm.EC]))
    assert_loaded(SslKey(data, passphrase="secret"), KeyAlgorithm.EC)
    assert "the passphrase is wrong" in refusal(data, passphrase="Secret")


@both
def test_a_missing_and_a_wrong_passphrase_are_told_apart(keys, format):
    data = private(keys[KeyAlgorithm.RSA], format, passphrase=b"secret")
    assert refusal(data, None, format) == MISSING
    for wrong in ("", "wrong", "secre", "x" * 5000):
        assert "the passphrase is wrong" in refusal(data, None, format, passphrase=wrong)


def test_no_wrong_passphrase_gets_other_words(keys):
    # One in 256 passes the padding check, so several hundred cross that path.
    data = private(keys[KeyAlgorithm.EC], PEM, OLD, b"secret")
    for number in range(1500):
        assert "the passphrase is wrong" in refusal(data, passphrase=str(number))


def test_a_wrong_passphrase_for_a_stream_cipher_is_told(keys):
    data = openssl("ec", "-aes-128-cfb", "-passout", "pass:secret", data=private(keys[KeyAlgorithm.EC]))
    assert b"CFB" in data
    assert_loaded(SslKey(data, passphrase="secret"), KeyAlgorithm.EC)
    assert "the passphrase is wrong" in refusal(data, passphrase="wrong")


def test_a_passphrase_may_be_unicode_or_hold_a_nul(keys):
    for passphrase in ("Schlüssel 世界", "a\0b"):
        data = private(keys[KeyAlgorithm.EC], passphrase=passphrase.encode())
        assert_loaded(SslKey(data, passphrase=passphrase), KeyAlgorithm.EC)
        assert_loaded(SslKey(data, passphrase=passphrase.encode()), KeyAlgorithm.EC)
        assert SslKey(data, passphrase=passphrase[:1]).null


def test_a_passphrase_that_has_no_utf8_form_is_not_in_the_exception(keys):
    with pytest.raises(ValueError, match="UTF-8") as caught:
        SslKey(private(keys[KeyAlgorithm.EC]), passphrase="secret\ud800")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_passphrase_that_is_longer_than_the_older_form_takes(keys):
    data = private(keys[KeyAlgorithm.EC], PEM, OLD, b"secret")
    assert "the passphrase is wrong: it is longer" in refusal(data, passphrase="x" * 2000)


def test_a_passphrase_for_a_plain_key_is_ignored(keys):
    assert_loaded(SslKey(private(keys[KeyAlgorithm.EC]), passphrase="any"), KeyAlgorithm.EC)


def test_an_unknown_cipher_is_told(keys):
    data = private(keys[KeyAlgorithm.EC], PEM, OLD, b"secret")
    text = data.replace(b"AES-256-CBC", b"NO-SUCH-CIPHER")
    assert "OpenSSL: unsupported encryption" in refusal(text, passphrase="secret")


def test_a_cipher_that_is_not_offered_is_told(keys):
    # DES stands in the legacy provider, which is not loaded (OSSL_PROVIDER-legacy(7)).
    data = private(keys[KeyAlgorithm.EC], PEM, OLD, b"secret")
    start, comma = data.index(b"AES-256-CBC"), data.index(b",", data.index(b"AES-256-CBC"))
    text = data[:start] + b"DES-CBC,0011223344556677" + data[data.index(b"\n", comma) :]
    assert "does not offer" in refusal(text, passphrase="secret")


@pytest.mark.skipif(sys.platform != "linux", reason="sets a controlling terminal by ioctl_tty(2)")
def test_nobody_is_asked_on_the_terminal(keys):
    program = (
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "from sslsock import SslKey\n"
        f"for data in {[private(keys[KeyAlgorithm.EC], PEM, form, b'x') for form in (PKCS8, OLD)]!r}:\n"
        "    print(SslKey(data).error_string)\n"
        f"print(SslKey({private(keys[KeyAlgorithm.EC], DER, PKCS8, b'x')!r}, format=1).error_string)\n"
    )
    master, slave = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            start_new_session=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 1000)
    finally:
        os.close(master)
        os.close(slave)
    assert done.stdout.decode().splitlines() == [MISSING] * 3
    assert done.returncode == 0


def test_other_threads_run_while_a_key_is_decrypted(keys):
    data = openssl("pkcs8", "-topk8", "-iter", "1500000", "-passout", "pass:secret", data=private(keys[KeyAlgorithm.EC]))
    loaded = []
    thread = threading.Thread(target=lambda: loaded.append(SslKey(data, passphrase="secret")))
    thread.start()
    turns = 0
    while thread.is_alive():
        time.sleep(0.001)
        turns += 1
    thread.join()
    assert_loaded(loaded[0], KeyAlgorithm.EC)
    assert turns > 10


# refusing


def test_empty_data_is_null():
    assert refusal(b"") == refusal("") == refusal(b"", None, DER) == "the data is empty"
    assert SslKey().null


def test_wrong_arguments_raise(keys):
    data = private(keys[KeyAlgorithm.EC])
    for wrong in (None, 1, ["x"], object()):
        with pytest.raises(TypeError):
            SslKey(wrong)
    for wrong in (1, ["x"], object()):
        with pytest.raises(TypeError):
            SslKey(data, passphrase=wrong)
    with pytest.raises(TypeError, match="binary"):
        SslKey("text", None, DER)
    for named in ({"algorithm": 99}, {"format": 2}, {"type": 2}, {"algorithm": "RSA"}):
        with pytest.raises(ValueError, match="is not a valid"):
            SslKey(data, **named)


@every
@both
def test_a_key_of_another_kind_is_refused(keys, algorithm, format):
    for wanted in keys:
        if wanted is not algorithm:
            reason = refusal(private(keys[algorithm], format), wanted, format)
            assert reason == f"this is a key for {algorithm.name}, not for {wanted.name}"


@both
def test_the_wrong_half_is_named(keys, format):
    key = keys[KeyAlgorithm.EC]
    assert refusal(public(key, format), None, format) == "this is a public key, not a private key"
    reason = refusal(private(key, format), None, format, KeyType.PUBLIC)
    assert reason == "this is a private key, not a public key"
    reason = refusal(private(key, format, passphrase=b"x"), None, format, KeyType.PUBLIC)
    assert reason == "this is an encrypted private key, not a public key"


def test_a_certificate_is_named():
    text = trustme.CA().cert_pem.bytes()
    assert refusal(text) == "this is a certificate, not a private key"
    assert refusal(text, type=KeyType.PUBLIC) == "this is a certificate, not a public key"


def test_the_format_of_openssh_is_named(keys):
    text = private(keys[KeyAlgorithm.ED25519], PEM, serialization.PrivateFormat.OpenSSH)
    assert refusal(text) == "this is a private key in OpenSSH's own format, not a private key"


def test_the_wrong_encoding_is_named(keys):
    key = keys[KeyAlgorithm.RSA]
    assert refusal(private(key, DER)) == refusal(private(key, DER, OLD)) == "this is DER, not PEM"
    assert refusal(private(key), None, DER) == "this is PEM, not DER"


@old_kinds
@pytest.mark.parametrize("form", [PKCS8, OLD])
def test_every_truncation_is_null_with_a_reason(keys, algorithm, form):
    text, data = private(keys[algorithm], PEM, form), private(keys[algorithm], DER, form)
    for size in range(0, text.index(b"-----END "), 7):
        assert refusal(text[:size])
    for size in range(1, len(data), 3):
        assert "truncated" in refusal(data[:size], None, DER)


@both
def test_every_truncation_of_an_encrypted_key_is_null_with_a_reason(keys, format):
    data = private(keys[KeyAlgorithm.EC], format, passphrase=b"secret")
    end = data.index(b"-----END ") if format is PEM else len(data)
    for size in range(1, end, 3):
        assert refusal(data[:size], None, format, passphrase="secret")


@old_kinds
@both
def test_damage_never_raises(keys, algorithm, format):
    data = private(keys[algorithm], format, OLD)
    for index in range(0, len(data), 5):
        SslKey(data[:index] + bytes([data[index] ^ 0x15]) + data[index + 1 :], None, format)


def test_der_with_trailing_bytes_is_refused(keys):
    key = keys[KeyAlgorithm.EC]
    for data in (private(key, DER), private(key, DER, OLD)):
        assert refusal(data + b"\0", None, DER) == "bytes too many after a private key: 1"
    data = public(key, DER)
    reason = refusal(data + b"\0\0", None, DER, KeyType.PUBLIC)
    assert reason == "bytes too many after a public key: 2"
    assert SslKey(private(key, DER, passphrase=b"x") + b"\0", None, DER, passphrase="x").null


# secrecy


def test_repr_says_what_and_never_shows_the_secret(keys):
    key = keys[KeyAlgorithm.RSA]
    assert repr(SslKey(private(key))) == "<SslKey RSA private>"
    assert repr(SslKey(public(key), type=KeyType.PUBLIC)) == "<SslKey RSA public>"
    assert repr(SslKey()) == "<SslKey null: the data is empty>"
    shown = repr(SslKey(private(key, passphrase=b"hunter2"), passphrase="hunter3"))
    assert "hunter" not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_is_refused(keys, protocol):
    key = SslKey(private(keys[KeyAlgorithm.EC]))
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(key, protocol)
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps([key], protocol)


def test_copies_share_the_key(keys):
    key = SslKey(private(keys[KeyAlgorithm.EC]))
    assert copy.copy(key) is key
    assert copy.deepcopy([key])[0] is key


def test_it_cannot_be_changed(keys):
    key = SslKey(private(keys[KeyAlgorithm.EC]))
    with pytest.raises(AttributeError):
        key.algorithm = KeyAlgorithm.RSA
    with pytest.raises(AttributeError):
        key.extra = 1
    with pytest.raises(TypeError):
        type("Derived", (SslKey,), {})
    key.__init__(b"")
    assert not key.null


# equality and constants


@every
def test_keys_are_equal_by_type_and_public_part(keys, algorithm):
    key = keys[algorithm]
    one, same = SslKey(private(key)), SslKey(private(key, DER), None, DER)
    assert one == same
    assert hash(one) == hash(same)
    half = SslKey(public(key), type=KeyType.PUBLIC)
    again = SslKey(public(key, DER), None, DER, KeyType.PUBLIC)
    assert half == again
    assert hash(half) == hash(again)
    assert one != half
    assert one != SslKey()
    assert one != "key"
    assert all(one != SslKey(private(other)) for other in keys.values() if other is not key)
    assert SslKey() == SslKey(b"x")
    assert hash(SslKey()) == hash(SslKey(b"x"))


def test_two_keys_of_one_kind_differ():
    one, two = (SslKey(private(ec.generate_private_key(ec.SECP256R1()))) for _ in range(2))
    assert one != two


def test_constants_stand_on_the_class():
    assert (SslKey.PUBLIC, SslKey.PRIVATE) == (0, 1)
    assert (SslKey.RSA, SslKey.DSA, SslKey.EC, SslKey.ED25519, SslKey.ED448) == (0, 1, 2, 3, 4)
    assert (SslKey.ML_DSA, SslKey.RSA_PSS) == (5, 6)
    assert SslKey.EC is KeyAlgorithm.EC
    assert SslKey.PUBLIC is KeyType.PUBLIC


def test_keys_of_all_kinds_load_in_threads_at_once(keys):
    texts = [key.private_bytes(ENCODINGS[PEM], PKCS8, PLAIN) for key in keys.values()]
    older = [keys[kind] for kind in (KeyAlgorithm.RSA, KeyAlgorithm.DSA, KeyAlgorithm.EC)]
    texts += [key.private_bytes(ENCODINGS[PEM], OLD, PLAIN) for key in older]
    alone = [SslKey(text) for text in texts]
    together = threading.Barrier(4)
    found = []

    def load():
        together.wait(60)
        found.extend([SslKey(text) for text in texts] == alone for _ in range(50))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 200


def test_a_key_that_is_damaged_is_refused_in_the_same_words_each_time(keys):
    good = keys[KeyAlgorithm.EC].private_bytes(ENCODINGS[DER], PKCS8, PLAIN)
    bad = good.replace(b"\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x2a\x86\x48\xce\x3d\x03\x01\x7f")  # no such curve
    reasons = set()
    for _ in range(3):
        assert not SslKey(good, format=DER).null
        reasons.add(SslKey(bad, format=DER).error_string)
    assert len(reasons) == 1 and "" not in reasons, reasons
