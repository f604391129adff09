# The headers of CPythons, which are all that compiling a wheel for one needs. Sourced after ci/lib.sh and ci/debian.sh.

HEADERS=$ROOT/build/headers

# The interpreters of this machine, by pyenv, too.
interpreters() {
    for _python in python3.9 python3.10 python3.11 python3.12 python3.13 python3.14 python3.15 \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.*/bin/python3; do
        # A pyenv shim exists for versions that are not active, and fails.
        [ "$(python_lacks "$_python" | grep -c 'version\|headers\|unusable')" -eq 0 ] || continue
        "$_python" -c 'import sys, sysconfig
if not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print("%d %d %d" % sys.version_info[:3], sys.executable)'
    done | sort -k2,2nr -k3,3nr | awk '!seen[$2]++ { print $1 "." $2, $4 }'
}

# headers_of RELEASE: into $HEADERS/RELEASE come the headers of a CPython, 3.14, or 3.14t, which is 3.14 without the GIL: those of
# this machine's interpreter, else Debian's, of whatever suite. `release` in it names them. Nothing is done if they are there.
headers_of() {
    [ ! -e "$HEADERS/$1" ] || return 0
    rm -rf "$HEADERS/new"
    mkdir -p "$HEADERS/new"
    case $1 in
    *t)
        headers_of "${1%t}"
        mkdir -p "$HEADERS/new"
        cp -R "$HEADERS/${1%t}/." "$HEADERS/new/"
        sed -i 's,^/\* #undef Py_GIL_DISABLED \*/$,#define Py_GIL_DISABLED 1,' "$HEADERS/new/include/pyconfig.h"
        grep -q '^#define Py_GIL_DISABLED 1$' "$HEADERS/new/include/pyconfig.h" || die "CPython ${1%t} needs its GIL"
        ;;
    *) take_headers "$1" "$(interpreters | sed -n "s/^$1 //p")" "$HEADERS/new" ;;
    esac
    mv "$HEADERS/new" "$HEADERS/$1"
}

# take_headers RELEASE INTERPRETER FOLDER: an empty name of an interpreter means Debian's.
take_headers() {
    if [ -n "$2" ]; then
        # Debian's own has in its pyconfig.h only the way to the one of this processor.
        "$2" -c 'import platform, shutil, sys, sysconfig
target = sys.argv[1]
shutil.copytree(sysconfig.get_path("include"), target)
shutil.copyfile(sysconfig.get_config_h_filename(), target + "/pyconfig.h")
print(platform.python_version(), "of this machine")' "$3/include" >"$3/release"
        return
    fi
    [ -e "$HEADERS/apt/apt.conf" ] || open_debian "$HEADERS/apt" deb bullseye bookworm trixie forky sid
    _apt=$HEADERS/apt
    mkdir "$3/debian"
    (cd "$3/debian" && quietly from_debian apt-get -qq download "libpython$1-dev") ||
        die "neither this machine nor Debian has headers of CPython $1"
    _deb=$(echo "$3/debian/"*.deb)
    dpkg-deb -x "$_deb" "$3/debian"
    cp -R "$3/debian/usr/include/python$1" "$3/include"
    cp "$3/debian/usr/include/"*-linux-gnu/"python$1/pyconfig.h" "$3/include/"
    dpkg-deb -f "$_deb" Version | sed 's/-.*/ of Debian/' >"$3/release"
    rm -rf "$3/debian"
}

# all_headers RELEASE...: of each, and no list of Debian's packages is left behind.
all_headers() {
    for _one in "$@"; do headers_of "$_one"; done
    rm -rf "$HEADERS/apt"
}

# cross_settings PYTHON RELEASE FOLDER: a module in FOLDER by which the interpreter PYTHON compiles for another RELEASE: its name goes
# into _PYTHON_SYSCONFIGDATA_NAME, FOLDER into PYTHONPATH.
cross_settings() {
    mkdir -p "$3"
    cat >"$3/_sysconfigdata_wheel.py" <<MODULE
from importlib import import_module

own = import_module("$("$1" -c 'import sysconfig; print(sysconfig._get_sysconfigdata_name())')").build_time_vars
headers = "$HEADERS/$2/include"
build_time_vars = {**own, "INCLUDEPY": headers, "CONFINCLUDEPY": headers, "Py_GIL_DISABLED": int("$2".endswith("t"))}
MODULE
}
