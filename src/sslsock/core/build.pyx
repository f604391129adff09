"""What this build is made of: compiler, C library, OpenSSL and how it is linked, as only the C compiler and libcrypto know it."""

from sslsock._version import __version__

cdef extern from "system.h":
    const char *C_LIBRARY

cdef extern from *:
    """
    #include <openssl/crypto.h>
    #include <openssl/ssl.h>
    #include <openssl/x509.h>

    #if defined(__clang__)
    #define SSLSOCK_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define SSLSOCK_COMPILER "gcc " __VERSION__
    #else
    #define SSLSOCK_COMPILER "unknown"
    #endif

    #ifdef OPENSSL_NO_AUTOLOAD_CONFIG
    #define SSLSOCK_NO_CONFIGURATION 1
    #else
    #define SSLSOCK_NO_CONFIGURATION 0
    #endif

    #ifndef SSLSOCK_STATIC
    #define SSLSOCK_STATIC 0
    #endif
    """
    const char *SSLSOCK_COMPILER
    bint SSLSOCK_STATIC
    bint SSLSOCK_NO_CONFIGURATION
    bint SSLSOCK_DEBUG
    const char *OPENSSL_VERSION_TEXT
    int OPENSSL_VERSION
    int OPENSSL_CFLAGS
    int OPENSSL_PLATFORM
    int OPENSSL_DIR
    int OPENSSL_CPU_INFO
    int OPENSSL_init_ssl(unsigned long long options, const void *settings)
    const char *OpenSSL_version(int kind)
    const char *X509_get_default_cert_file()
    const char *X509_get_default_cert_dir()

linked_statically = bool(SSLSOCK_STATIC)
default_certificate_file = X509_get_default_cert_file().decode("utf-8", "replace")
default_certificate_folder = X509_get_default_cert_dir().decode("utf-8", "replace")


cdef str openssl_words(int kind):
    """One of OpenSSL's own words on itself, without the name of the field."""
    text = OpenSSL_version(kind).decode("utf-8", "replace")
    name, mark, value = text.partition(": ")
    return value if mark else text


def build_info():
    """What this build is made of, for a report of a bug: dict of str.

    `version`: the package's own.

    `openssl`: the OpenSSL that runs, as `openssl_version()` says it; `openssl_headers`: the one it was compiled with.

    `openssl_linked`: "static" (part of the package, as in the wheels) or "shared" (the machine's).

    `openssl_platform`, `openssl_compiler`: what OpenSSL was built for, and by which command.

    `openssl_directory`: its folder for trusted certificates and openssl.cnf; `openssl_configuration`: whether that file, or the one
    that OPENSSL_CONF names, is "read", or "ignored" as in the wheels.

    `cpu`: the processor's abilities as OpenSSL uses them (OPENSSL_ia32cap(3)).

    `compiler`, `c_library`: this package's; the version of glibc is the oldest that it runs with.

    `mode`: "release", or "debug" with the core's own assertions.
    """
    OPENSSL_init_ssl(0, NULL)  # before it OpenSSL has not looked at the processor, and would remember that
    return {
        "version": __version__,
        "openssl": openssl_words(OPENSSL_VERSION),
        "openssl_headers": OPENSSL_VERSION_TEXT.decode("ascii", "replace"),
        "openssl_linked": "static" if linked_statically else "shared",
        "openssl_platform": openssl_words(OPENSSL_PLATFORM),
        "openssl_compiler": openssl_words(OPENSSL_CFLAGS),
        "openssl_directory": openssl_words(OPENSSL_DIR).strip('"'),
        "openssl_configuration": "ignored" if SSLSOCK_NO_CONFIGURATION else "read",
        "cpu": openssl_words(OPENSSL_CPU_INFO),
        "compiler": SSLSOCK_COMPILER.decode("ascii", "replace").strip(),
        "c_library": C_LIBRARY.decode("ascii", "replace"),
        "mode": "debug" if SSLSOCK_DEBUG else "release",
    }
