"""What `sslsock._ssl` has beside its classes: the constants and the functions that need no connection are the interpreter's."""

import _ssl
import ast
import os
import random
import subprocess
import sys
import warnings

import pytest

import sslsock
from sslsock import _ssl as ours
from sslsock._ssl import ssl_values
from sslsock.core import build, trust_store

# What newer interpreters' `ssl` has, and ours has on all.
NEWER = {
    "ENCODING_DER": 2,
    "ENCODING_PEM": 1,
    "HAS_PHA": True,
    "HAS_PSK": True,
    "HAS_PSK_TLS13": True,
    "OP_ENABLE_KTLS": 8,
    "OP_LEGACY_SERVER_CONNECT": 4,
    "VERIFY_ALLOW_PROXY_CERTS": 64,
    "VERIFY_X509_PARTIAL_CHAIN": 524288,
}
SWITCHES = {name for name in dir(_ssl) if name.startswith("HAS_")}  # as OpenSSL was built
OF_THE_LIBRARY = {"OPENSSL_VERSION", "OPENSSL_VERSION_INFO", "OPENSSL_VERSION_NUMBER", "_OPENSSL_API_VERSION"}
CPYTHONS = {
    True: "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM",
    False: "DEFAULT:!aNULL:!eNULL:!MD5:!3DES:!DES:!RC4:!IDEA:!SEED:!aDSS:!SRP:!PSK",
}[sys.version_info >= (3, 10)]


def run(program, **variables):
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


# ---- constants -----------------------------------------------------------------------------------------------


def constants(module, left_out=frozenset()):
    names = {name for name in dir(module) if not name.startswith("__")} - left_out
    found = {name: getattr(module, name) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, (int, str, tuple))}


def test_every_constant_of_the_interpreter_has_the_same_value():
    wanted = constants(_ssl, OF_THE_LIBRARY | SWITCHES)
    got = {name: getattr(ours, name, "missing") for name in wanted}
    assert {name: (got[name], wanted[name]) for name in wanted if got[name] != wanted[name]} == {}, "(ours, the interpreter's)"
    assert {name for name in wanted if type(got[name]) is not type(wanted[name])} == set()


def test_every_name_of_the_interpreter_is_there():
    later = set() if sys.version_info < (3, 12) else {"RAND_pseudo_bytes"}
    missing = {name for name in dir(_ssl) if not name.startswith("__") and not hasattr(ours, name)}
    assert missing == set()
    assert [name for name in later if hasattr(ours, name)] == [], "names by which programs tell an interpreter's version"


@pytest.mark.parametrize("name", NEWER)
def test_constants_of_newer_interpreters(name):
    assert getattr(ours, name) == NEWER[name]


def test_what_openssl_was_built_with():
    assert {name for name in SWITCHES if type(getattr(ours, name)) is not bool} == set()
    assert (ours.HAS_SNI, ours.HAS_ECDH, ours.HAS_ALPN, ours.HAS_TLS_UNIQUE, ours.HAS_NPN, ours.HAS_SSLv2) == (
        *(True, True, True, True),
        *(False, False),
    )
    assert ours.HAS_TLSv1_2 and ours.HAS_TLSv1_3
    assert hasattr(ours, "PROTOCOL_SSLv3") == ours.HAS_SSLv3
    if ours.OPENSSL_VERSION == _ssl.OPENSSL_VERSION and not build.linked_statically:
        assert {name: getattr(ours, name) for name in SWITCHES} == {name: getattr(_ssl, name) for name in SWITCHES}


def test_the_version_is_that_of_the_library_that_runs():
    assert sslsock.openssl_version() == ours.OPENSSL_VERSION
    major, minor, fix, patch, status = ours.OPENSSL_VERSION_INFO
    assert major << 28 | minor << 20 | fix << 12 | patch << 4 | status == ours.OPENSSL_VERSION_NUMBER
    assert ours.OPENSSL_VERSION.split()[1].split("-")[0] == f"{major}.{minor}.{patch}"
    assert ours._OPENSSL_API_VERSION[:2] <= ours.OPENSSL_VERSION_INFO[:2], "the headers are newer than the library"
    if ours.OPENSSL_VERSION == _ssl.OPENSSL_VERSION:
        assert ours.OPENSSL_VERSION_INFO == _ssl.OPENSSL_VERSION_INFO
        assert ours.OPENSSL_VERSION_NUMBER == _ssl.OPENSSL_VERSION_NUMBER


def test_suites_are_those_that_the_interpreter_was_built_for():
    assert ours._DEFAULT_CIPHERS == _ssl._DEFAULT_CIPHERS
    ours._SSLContext(ours.PROTOCOL_TLS_CLIENT).set_ciphers(ours._DEFAULT_CIPHERS)


@pytest.mark.parametrize("words", ["PROFILE=A-DISTRIBUTION'S", ""])
def test_suites_that_only_another_openssl_knows_are_cpythons(words):
    program = f"import _ssl; _ssl._DEFAULT_CIPHERS = {words!r}; from sslsock import _ssl; print(_ssl._DEFAULT_CIPHERS)"
    assert run(program) == CPYTHONS


def test_suites_of_the_interpreters_builder():
    program = "import _ssl; _ssl._DEFAULT_CIPHERS = 'ECDHE+AESGCM'; from sslsock import _ssl; print(_ssl._DEFAULT_CIPHERS)"
    assert run(program) == "ECDHE+AESGCM"


def test_suites_of_an_interpreter_without_ssl():
    assert run("import sys; sys.modules['_ssl'] = None; from sslsock import _ssl; print(_ssl._DEFAULT_CIPHERS)") == CPYTHONS


# ---- defaults of a context -----------------------------------------------------------------------------------

SETTINGS = """
import warnings; warnings.simplefilter("ignore")
from sslsock import _ssl as ours
def settings(module):
    found = []
    for protocol in (module.PROTOCOL_TLS, module.PROTOCOL_TLS_CLIENT, module.PROTOCOL_TLS_SERVER):
        context = module._SSLContext(protocol)
        suites = [suite["name"] for suite in context.get_ciphers()]
        found.append((context.minimum_version, context.maximum_version, suites))
    return found
"""
HOST = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1.3
CipherString = ECDHE+CHACHA20
"""


def test_a_new_context_is_as_the_interpreters():
    if ours.OPENSSL_VERSION == _ssl.OPENSSL_VERSION:
        compared = "settings(ours) == settings(_ssl)"
    else:
        compared = "[one[:2] for one in settings(ours)] == [one[:2] for one in settings(_ssl)]"
    leave_3_9 = "hasattr(_ssl._SSLContext, 'security_level') or setattr(ours, 'unused', 0)"
    assert run(f"{SETTINGS}\nimport _ssl; {leave_3_9}; print({compared})") == "True"


@pytest.mark.parametrize("host", [False, True], ids=["OpenSSL's", "the host's"])
def test_an_interpreter_that_leaves_the_defaults_to_openssl(tmp_path, host):
    (tmp_path / "openssl.cnf").write_text(HOST if host else "")
    program = "import _ssl; _ssl._DEFAULT_CIPHERS = 'ALL:!COMPLEMENTOFDEFAULT:!eNULL'\n" + SETTINGS + "print(settings(ours))"
    found = ast.literal_eval(run(program, OPENSSL_CONF=str(tmp_path / "openssl.cnf")))
    read = host and sslsock.build_info()["openssl_configuration"] != "ignored"
    assert {one[:2] for one in found} == {(772 if read else -2, -1)}
    assert all(("AES256-SHA" in one[2]) != read for one in found)


# ---- functions -----------------------------------------------------------------------------------------------


def outcome(module, name, arguments):
    """What a call returns or raises. The words of Python's own check of arguments are another for a function in C."""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            result = getattr(module, name)(*arguments)
    except Exception as error:
        words = str(error)
        return type(error), "arguments" if isinstance(error, TypeError) else words
    if isinstance(result, bytes) or (isinstance(result, tuple) and isinstance(result[0], bytes)):
        result = type(result), len(result)
    kind = int if isinstance(result, bool) else type(result)  # RAND_status was 1 until 3.9
    return kind, result, [(one.category, str(one.message)) for one in told]


LONG = "é" * 80
CALLS = [
    *(("RAND_bytes", (size,)) for size in (0, 1, 16, -1, True, "a", 1.5, None, 2**31, 2**40, 2**70, -(2**70))),
    ("RAND_bytes", ()),
    ("RAND_bytes", (1, 2)),
    *(("RAND_add", (data, 0.5)) for data in ("", "text", LONG, b"", b"data", bytearray(b"d"), memoryview(b"data"), 1, None)),
    ("RAND_add", ("\ud800", 0.5)),
    ("RAND_add", (memoryview(b"abcd")[::2], 0.5)),
    *(("RAND_add", (b"data", entropy)) for entropy in (1, 0, "a", None)),
    ("RAND_add", (b"data",)),
    ("RAND_status", ()),
    ("RAND_status", (1,)),
    *(("txt2obj", (text,)) for text in ("MD5", "", "1.3.6.1.5.5.7.3.1", "1.2.3.4.5.6.7", "1", "1.", "a\0b", LONG, "\ud800")),
    *(("txt2obj", (text,)) for text in (1, None, b"MD5", ["MD5"])),
    *(
        ("txt2obj", (text, True))
        for text in ("MD5", "md5", "serverAuth", "TLS Web Server Authentication", "nothing", "1.2.840.113549")
    ),
    ("txt2obj", ("MD5", "yes")),
    ("txt2obj", ()),
    ("txt2obj", ("MD5", True, 1)),
    *(("nid2obj", (nid,)) for nid in (-(2**40), -1, 0, 1, 129, True, 10**6, 2**31, 2**70, "a", 1.0, None)),
    ("nid2obj", ()),
    *(("_test_decode_cert", (path,)) for path in ("/nowhere/x.pem", b"/nowhere/x.pem", "", "a\0b", 1, None, os.curdir)),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}{call[1]!r:.40}")
def test_functions_return_and_raise_what_the_interpreters_do(call):
    assert outcome(ours, *call) == outcome(_ssl, *call), "(ours, the interpreter's)"


def test_arguments_by_keyword():
    assert ours.txt2obj(txt="MD5", name=True) == ours.txt2obj("MD5", True)
    for function, keyword in (
        (ours.RAND_bytes, {"n": 1}),
        (ours.nid2obj, {"nid": 1}),
        (ours.RAND_add, {"string": "", "entropy": 1}),
    ):
        with pytest.raises(TypeError):
            function(**keyword)


RENAMED = {287}  # ac-auditEntity; OpenSSL 4.0 calls it ac-auditIdentity


def test_objects_are_named_as_the_interpreter_names_them():
    same = ours.OPENSSL_VERSION == _ssl.OPENSSL_VERSION
    known = 0
    for nid in range(1, 1500 if same else 900):
        theirs, mine = outcome(_ssl, "nid2obj", (nid,)), outcome(ours, "nid2obj", (nid,))
        if nid in RENAMED and not same:
            continue
        assert mine == theirs
        if mine[0] is tuple:
            known += 1
            number = mine[1][3]
            assert number is None or ours.txt2obj(number) == _ssl.txt2obj(number)
    assert known > 700


def test_random_bytes_are_random():
    made = [ours.RAND_bytes(16) for _ in range(100)]
    assert {len(one) for one in made} == {16}
    assert len(set(made)) == 100
    ours.RAND_add(random.randbytes(100), 0.0)
    assert ours.RAND_status() is True


if sys.version_info < (3, 12):

    @pytest.mark.parametrize("size", [0, 7, -1, "a"])
    def test_pseudo_random_bytes(size):
        assert outcome(ours, "RAND_pseudo_bytes", (size,)) == outcome(_ssl, "RAND_pseudo_bytes", (size,))


def test_signature_algorithms():
    if ours.OPENSSL_VERSION_INFO < (3, 4):
        with pytest.raises(NotImplementedError, match=r"requires OpenSSL 3\.4"):
            ours.get_sigalgs()
        return
    names = ours.get_sigalgs()
    assert {"ed25519", "rsa_pss_rsae_sha256", "ecdsa_secp256r1_sha256"} <= set(names)
    if hasattr(_ssl, "get_sigalgs") and ours.OPENSSL_VERSION == _ssl.OPENSSL_VERSION:
        assert names == _ssl.get_sigalgs()


# ---- where the system's authorities are ------------------------------------------------------------------------


def test_places_of_authorities_are_openssls():
    """For the system's OpenSSL, which the interpreter uses too, they are the same."""
    found = ours.get_default_verify_paths()
    assert found[::2] == ("SSL_CERT_FILE", "SSL_CERT_DIR")
    assert found[3] == build.default_certificate_folder
    if not build.linked_statically and ours.OPENSSL_VERSION == _ssl.OPENSSL_VERSION:
        assert found == _ssl.get_default_verify_paths()


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("bundle", ["/a/bundle.pem", None])
def test_an_openssl_of_our_own_names_the_bundle_that_it_reads(monkeypatch, static, bundle):
    monkeypatch.setattr(build, "linked_statically", static)
    monkeypatch.setattr(trust_store, "bundle_to_add", lambda *_: bundle)
    wanted = bundle if static and bundle else build.default_certificate_file
    assert ours.get_default_verify_paths()[1] == wanted


def test_the_constants_are_the_modules():
    assert {name: getattr(ours, name) for name in ssl_values.constants} == ssl_values.constants
