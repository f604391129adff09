"""`build_info` and `version`: that they say what is so, down to what is linked, what is shown and which files OpenSSL reads."""

import ctypes
import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import sslsock

INFO = sslsock.build_info()
STATIC = INFO["openssl_linked"] == "static"
KEYS = (
    *("version", "openssl", "openssl_headers", "openssl_linked", "openssl_platform", "openssl_compiler"),
    *("openssl_directory", "openssl_configuration", "cpu", "compiler", "c_library", "mode"),
)
bundled = pytest.mark.skipif(INFO["openssl_configuration"] != "ignored", reason="only the wheels' OpenSSL is built so")


def python(code, timeout=60, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment}
    )


def shared_object():
    return find_spec("sslsock.core.build").origin


def test_every_fact_is_text():
    assert tuple(INFO) == KEYS
    assert all(isinstance(value, str) and value for value in INFO.values())


def test_it_is_the_callers_own():
    sslsock.build_info()["version"] = "changed"
    assert sslsock.build_info()["version"] == sslsock.__version__


def test_the_versions_are_those_of_the_package_and_of_openssl():
    assert INFO["version"] == sslsock.__version__
    assert INFO["openssl"] == sslsock.openssl_version()
    assert INFO["openssl"].split()[1].split(".")[0] == INFO["openssl_headers"].split()[1].split(".")[0]


def test_linked_is_what_the_process_has_loaded():
    # A process of its own: here the interpreter's ssl has loaded a libssl already.
    code = (
        "import sslsock, sys; assert '_ssl' not in sys.modules; print(sslsock.build_info()['openssl_linked']); "
        "print(any('/libssl' in line or '/libcrypto' in line for line in open('/proc/self/maps')))"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == (["static", "False"] if STATIC else ["shared", "True"])


def test_only_the_entries_of_the_modules_are_seen_from_outside():
    library = ctypes.CDLL(shared_object())
    assert hasattr(library, "PyInit_engine")
    # Ours are seen by nobody, however it is linked; those of OpenSSL are found through a shared libssl too.
    hidden = ["window_bio_new"]
    if STATIC:
        hidden += ["SSL_CTX_new", "OPENSSL_cleanse", "EVP_sha256"]
        hidden += ["OPENSSL_ia32_cpuid", "aesni_encrypt", "sha256_block_data_order"]  # written in assembler
    assert [name for name in hidden if hasattr(library, name)] == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are the bits of x86-64")
@pytest.mark.skipif("SSLSOCK_VALGRIND" in os.environ, reason="valgrind's processor is another")
def test_openssl_uses_the_processors_aes():
    """The first call of all must not come before OpenSSL has looked at the processor."""
    done = python("import sslsock; print(sslsock.build_info()['cpu'])")
    assert done.returncode == 0, done.stderr
    word = int(done.stdout.split("=")[1].split(":")[0], 16)
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    assert bool(word >> 57 & 1) == ("aes" in flags)  # CPUID.1:ECX.25, OPENSSL_ia32cap(3)


def test_the_command_shows_it():
    done = subprocess.run([sys.executable, "-m", "sslsock", "version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    wanted = [*KEYS[:2], *KEYS[5:]]
    assert [INFO[key] for key in wanted if INFO[key] not in done.stdout] == []


HOSTILE = """
openssl_conf = everything
[everything]
ssl_conf = ssl
providers = providers
engines = engines
[ssl]
system_default = tls
[tls]
CipherString = NO-SUCH-CIPHER
MinProtocol = TLSv9
[providers]
evil = evil
[evil]
module = /nonexistent/evil.so
activate = 1
[engines]
evil = evil_engine
[evil_engine]
dynamic_path = /nonexistent/evil.so
init = 1
"""

MAKE_CONTEXT = "import sslsock; sslsock.Context(server_side=False); print('made')"


def test_the_hosts_configuration_is_read_or_not_as_it_says(tmp_path):
    (tmp_path / "openssl.cnf").write_text(HOSTILE)
    done = python(MAKE_CONTEXT, OPENSSL_CONF=str(tmp_path / "openssl.cnf"))
    if INFO["openssl_configuration"] == "ignored":
        assert done.stdout == "made\n", done.stderr
    else:
        assert "ConfigurationError" in done.stderr


@bundled
def test_the_configuration_is_not_even_opened(tmp_path):
    os.mkfifo(tmp_path / "openssl.cnf")  # whoever opens it waits for a writer that never comes
    done = python(MAKE_CONTEXT, OPENSSL_CONF=str(tmp_path / "openssl.cnf"), timeout=30)
    assert done.stdout == "made\n", done.stderr


@bundled
def test_it_cannot_load_code_at_run_time():
    """No engine, no provider module: the object does not even import the functions for it."""
    content = Path(shared_object()).read_bytes()
    assert b"pthread_create" in content or b"malloc" in content  # so that names of imports are what is looked at
    assert [name for name in (b"dlopen", b"dlsym") if name in content] == []
