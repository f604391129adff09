# What the scripts of this folder share: find a Python, install what is missing, build into a virtual environment.
# Sourced by POSIX sh; the caller has `set -eu`. Nothing here knows a registry: apt-get and pip use the machine's own set-up.
#
# Environment
#     PYTHON         the interpreter to use; by default the first suitable one on PATH
#     SSLSOCK_VENV   the virtual environment; by default .venv in the checkout
#     and what setup.py reads: SSLSOCK_OPENSSL_PREFIX, SSLSOCK_DEBUG, SSLSOCK_SANITIZE, SSLSOCK_WERROR, SSLSOCK_CYTHON_CACHE

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
VENV=${SSLSOCK_VENV:-$ROOT/.venv}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where daemons lie, which a user's PATH often lacks
for _bin in /usr/lib/postgresql/*/bin; do PATH=$PATH:$_bin; done

say() { printf '== %s\n' "$*" >&2; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# tell_help ARGUMENT...: if the first one asks for help, prints what the script says at its top, and ends.
tell_help() {
    case ${1:-} in
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit
        ;;
    esac
}

# quietly COMMAND...: its output is shown only if it fails.
quietly() {
    _log=$(mktemp)
    if "$@" >"$_log" 2>&1 </dev/null; then
        rm -f "$_log"
    else
        _status=$?
        tail -n 60 "$_log" >&2
        printf '%s: failed (%s): %s\n' "${0##*/}" "$_status" "$*" >&2
        rm -f "$_log"
        return "$_status"
    fi
}

# --- Debian packages

# apt_install WHY PACKAGE...: as root installs them, else says how to. A stale or empty package list is brought up to date.
apt_install() {
    _why=$1
    shift
    command -v apt-get >/dev/null || die "$_why: install the equivalents of these Debian packages: $*"
    [ "$(id -u)" -eq 0 ] || die "$_why. Run:  sudo apt-get install -y --no-install-recommends $*"
    say "installing $*"
    _apt="env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300"
    $_apt install "$@" >/dev/null 2>&1 </dev/null && return
    quietly apt-get -qq update
    # shellcheck disable=SC2086 # a command with its options
    quietly $_apt install "$@"
}

# apt_install_stopped WHY PACKAGE...: the same, but no daemon among them is started now or at boot: only the tests start them.
apt_install_stopped() {
    _policy=/usr/sbin/policy-rc.d # exit 101 forbids package scripts to start a service
    if [ "$(id -u)" -eq 0 ] && [ ! -e "$_policy" ]; then
        trap 'rm -f "$_policy"' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$_policy"
        chmod 755 "$_policy"
    else
        _policy=
    fi
    apt_install "$@"
    shift
    for _service in $SERVICES; do
        case " $* " in *" $_service"*)
            systemctl disable "$_service" >/dev/null 2>&1 || update-rc.d "$_service" disable >/dev/null 2>&1 || :
            ;;
        esac
    done
    [ -z "$_policy" ] || rm -f "$_policy"
    trap - EXIT INT TERM
}

# --- Python

# python_lacks COMMAND: prints what keeps it from building the package; nothing if it is fit.
python_lacks() {
    "$1" -c '
import os, sys, sysconfig
if sys.version_info < (3, 9) or sys.implementation.name != "cpython":
    print("version")
else:
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        print("headers")
    try:
        import ensurepip, venv
    except ImportError:
        print("venv")
' 2>/dev/null || echo unusable
}

# Sets PYTHON to the real path of a fit interpreter (a pyenv shim could later mean another one); installs Debian's if there is none.
find_python() {
    _tried=
    _all="python3 python3.15 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 /usr/bin/python3"
    for _candidate in ${PYTHON:-$_all "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.*/bin/python3}; do
        command -v "$_candidate" >/dev/null || continue
        _lacks=$(python_lacks "$_candidate" | tr '\n' ' ')
        if [ -z "$_lacks" ]; then
            PYTHON=$("$_candidate" -c 'import sys; print(sys.executable)')
            return
        fi
        _tried="$_tried $_candidate (lacks: ${_lacks% })"
    done
    [ -z "${_installed_python:-}" ] || die "no CPython 3.9 or newer with headers and venv; tried:${_tried:- none found}"
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not fit:$_tried"
    # shellcheck disable=SC2046
    apt_install "no CPython 3.9 or newer with headers and venv was found" python3 python3-venv python3-dev $(compiler_lacks)
    _installed_python=1
    find_python
}

# Prints the packages for what compiling needs beside Python and is missing.
compiler_lacks() {
    [ -n "${CC:-}" ] || command -v gcc >/dev/null || echo gcc libc6-dev
    [ -n "${SSLSOCK_OPENSSL_PREFIX:-}" ] || "${PKG_CONFIG:-pkg-config}" --exists 'libssl >= 3.0' 2>/dev/null ||
        echo pkg-config libssl-dev
}

find_compiler() {
    _need=$(compiler_lacks)
    # shellcheck disable=SC2086
    [ -z "$_need" ] || apt_install "a C compiler or OpenSSL's headers are missing" $_need
    # A second build of the same sources then takes seconds.
    [ -n "${CC:-}" ] || ! command -v ccache >/dev/null || export CC="ccache gcc"
}

# --- Build

INPUTS="setup.py pyproject.toml MANIFEST.in README.md LICENSE src include"

# A checksum over everything that decides what the build yields.
build_key() {
    (
        cd "$ROOT" || exit
        env | grep -E '^(SSLSOCK_(OPENSSL_PREFIX|OPENSSL_STATIC|POLLER|DEBUG|SANITIZE|WERROR)|CC|CFLAGS|LDFLAGS)=' | sort
        pkg-config --modversion libssl 2>/dev/null || :
        for _input in $INPUTS; do
            [ ! -e "$_input" ] || find "$_input" -type f ! -name '*.so' ! -path '*/__pycache__/*' ! -path '*.egg-info/*'
        done | LC_ALL=C sort | while read -r _file; do sha256sum "$_file"; done
    ) | sha256sum | cut -d' ' -f1
}

# Copies what the build needs to folder $1, so that it finds no object left by another build and leaves none in the checkout.
stage_sources() {
    rm -rf "$1"
    mkdir -p "$1"
    _here=
    for _input in $INPUTS; do
        [ ! -e "$ROOT/$_input" ] || _here="$_here $_input"
    done
    # shellcheck disable=SC2086
    tar -C "$ROOT" -cf - --exclude='*.so' --exclude=__pycache__ --exclude='*.egg-info' $_here | tar -C "$1" -xf -
}

pip_install() { quietly "$VENV/bin/python" -m pip install -q --disable-pip-version-check --no-warn-script-location "$@"; }

# make_venv [EXTRA]: the package, built and installed with its dependencies of that extra, in VENV. Nothing is done twice: one
# stamp names the interpreter, another the build.
make_venv() {
    find_python
    find_compiler
    _base=$("$PYTHON" -c 'import sys; print(sys.executable, sys.version)' | tr '\n' ' ')
    if [ "$(cat "$VENV/sslsock-python" 2>/dev/null)" != "$_base" ] || ! "$VENV/bin/python" -c '' 2>/dev/null; then
        say "making ${VENV#"$ROOT"/} with $("$PYTHON" -c 'import platform; print("Python", platform.python_version())')"
        rm -rf "$VENV"
        quietly "$PYTHON" -m venv "$VENV"
        printf '%s\n' "$_base" >"$VENV/sslsock-python"
    fi
    _key=$(build_key)
    if [ "$(cat "$VENV/sslsock-build" 2>/dev/null)" != "$_key" ]; then
        say "building sslsock (about a minute)"
        rm -f "$VENV/sslsock-build"
        stage_sources "$VENV/stage"
        rm -rf "$VENV/wheel"
        quietly "$VENV/bin/python" -m pip wheel -q --disable-pip-version-check --no-deps -w "$VENV/wheel" "$VENV/stage"
        pip_install --force-reinstall --no-deps "$VENV"/wheel/sslsock-*.whl
        pip_install "$VENV"/wheel/sslsock-*.whl # what it depends on
        printf '%s\n' "$_key" >"$VENV/sslsock-build"
    fi
    if [ -n "${1:-}" ] && [ "$(cat "$VENV/sslsock-extra-$1" 2>/dev/null)" != "$_key" ]; then
        say "installing what the extra '$1' needs"
        for _wheel in "$VENV"/wheel/sslsock-*.whl; do pip_install "${_wheel}[$1]"; done
        printf '%s\n' "$_key" >"$VENV/sslsock-extra-$1"
    fi
}

# The same with all that the tests use. What compares us with others has no wheel for every Python: only CI insists on it.
make_test_venv() {
    make_venv test
    for _other in uvloop acme OpenSSL:pyopenssl matplotlib argcomplete PyInstaller:pyinstaller twisted; do
        [ -n "${CI:-}" ] || [ "$_other" = uvloop ] || continue
        ! "$VENV/bin/python" -c "import ${_other%%:*}" 2>/dev/null || continue
        say "installing ${_other#*:}"
        "$VENV/bin/python" -m pip install -q --disable-pip-version-check --only-binary :all: "${_other#*:}" >/dev/null 2>&1 ||
            [ -z "${CI:-}" ] || die "no ${_other#*:} for this Python"
    done
}

# Users of `ssl` and asyncio, with which `sslsock.ssl` and `sslsock.aio` are tried.
# shellcheck disable=SC2089 # the quotes are pip's
LIBRARIES="requests httpx aiohttp uvicorn hypercorn gunicorn werkzeug tornado trio anyio websockets wsproto httptools aiosmtplib aioimaplib aiomqtt h2 websocket-client PyMySQL asyncpg redis paho-mqtt pika ldap3 kafka-python gevent grpclib pyopenssl service_identity utls rtls truststore;python_version>='3.10'"

add_libraries() {
    [ "$(cat "$VENV/sslsock-libraries" 2>/dev/null)" != "$LIBRARIES" ] || return 0
    say "installing the libraries of tests/ssl/libraries and tests/aio/libraries"
    # shellcheck disable=SC2086,SC2090 # a list
    pip_install $LIBRARIES
    printf '%s\n' "$LIBRARIES" >"$VENV/sslsock-libraries"
}

# --- Peers: the foreign programs that the tests speak with

# PROGRAM:PACKAGE
PEERS="openssl:openssl curl:curl gnutls-cli:gnutls-bin nghttp:nghttp2-client ab:apache2-utils dovecot:dovecot-imapd /usr/lib/dovecot/pop3-login:dovecot-pop3d postfix:postfix nginx:nginx-light haproxy:haproxy redis-server:redis-server mosquitto:mosquitto slapd:slapd postgres:postgresql mariadbd:mariadb-server-core vsftpd:vsftpd chromium:chromium promtool:prometheus systemd-analyze:systemd pebble:pebble ip:iproute2 knotd:knot"
# Those of them that are started with the machine, by the names of their services.
SERVICES="dovecot postfix nginx haproxy redis-server mosquitto slapd postgresql vsftpd prometheus knot"

# Installs the missing ones when root; without root the tests that need them are skipped, with the reason.
find_peers() {
    _need=
    for _peer in $PEERS; do
        command -v "${_peer%%:*}" >/dev/null || _need="$_need ${_peer#*:}"
    done
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || _need="$_need libnginx-mod-stream"
    # Its name has the version in it.
    ls /usr/sbin/php-fpm* >/dev/null 2>&1 || _need="$_need php-fpm"
    case $_need in *postfix*)
        # A machine has one mail server: never push out the one that somebody set up.
        if command -v sendmail >/dev/null; then
            say "another mail server is installed: postfix is left out, its tests are skipped"
            _need=$(printf '%s' "$_need" | sed 's/ postfix//')
        elif [ "$(id -u)" -eq 0 ] && command -v debconf-set-selections >/dev/null; then
            echo 'postfix postfix/main_mailer_type select Local only' | debconf-set-selections
        fi
        ;;
    esac
    case $_need in *slapd*)
        # No directory of its own, and no password for one.
        if [ "$(id -u)" -eq 0 ] && command -v debconf-set-selections >/dev/null; then
            echo 'slapd slapd/no_configuration boolean true' | debconf-set-selections
        fi
        ;;
    esac
    [ -n "$_need" ] || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "some tests will be skipped; for all of them: sudo apt-get install -y --no-install-recommends$_need"
        return 0
    fi
    # Not every system that has apt-get has a package of the browser; the others must not be missed for it.
    _browser=
    case $_need in *chromium*)
        _browser=chromium
        _need=$(printf '%s' "$_need" | sed 's/ chromium//')
        ;;
    esac
    _authority= # and for this one the same
    case $_need in *pebble*)
        _authority=pebble
        _need=$(printf '%s' "$_need" | sed 's/ pebble//')
        ;;
    esac
    # shellcheck disable=SC2086
    [ -z "$_need" ] || apt_install_stopped "programs that the tests speak with are missing" $_need
    [ -z "$_browser" ] || (apt_install "a browser is missing" "$_browser") || say "its test is skipped"
    [ -z "$_authority" ] || (apt_install "an ACME authority is missing" "$_authority") || say "its tests are skipped"
}
