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
    _headers=$HEADERS/$1 _release=${1%t}
    [ ! -e "$_headers/release" ] || return 0
    rm -rf "$_headers" "$_headers.new"
    mkdir -p "$_headers.new/debian"
    _interpreter=$(interpreters | sed -n "s/^$_release //p")
    if [ -n "$_interpreter" ]; then
        # Debian's own has in its pyconfig.h only the way to the one of this processor.
        "$_interpreter" -c 'import platform, shutil, sys, sysconfig
target = sys.argv[1]
shutil.copytree(sysconfig.get_path("include"), target)
shutil.copyfile(sysconfig.get_config_h_filename(), target + "/pyconfig.h")
print(platform.python_version(), "of this machine")' "$_headers.new/include" >"$_headers.new/release"
    else
        [ -e "$HEADERS/apt/apt.conf" ] || open_debian "$HEADERS/apt" deb bullseye bookworm trixie forky sid
        _apt=$HEADERS/apt
        (cd "$_headers.new/debian" && quietly from_debian apt-get -qq download "libpython$_release-dev") ||
            die "neither this machine nor Debian has headers of CPython $_release"
        _package=$(echo "$_headers.new/debian/"*.deb)
        dpkg-deb -x "$_package" "$_headers.new/debian"
        cp -R "$_headers.new/debian/usr/include/python$_release" "$_headers.new/include"
        cp "$_headers.new/debian/usr/include/"*-linux-gnu/"python$_release/pyconfig.h" "$_headers.new/include/"
        dpkg-deb -f "$_package" Version | sed 's/-.*/ of Debian/' >"$_headers.new/release"
    fi
    rm -rf "$_headers.new/debian"
    if [ "$_release" != "$1" ]; then
        sed -i 's,^/\* #undef Py_GIL_DISABLED \*/$,#define Py_GIL_DISABLED 1,' "$_headers.new/include/pyconfig.h"
        grep -q '^#define Py_GIL_DISABLED 1$' "$_headers.new/include/pyconfig.h" || die "CPython $_release needs its GIL"
    fi
    mv "$_headers.new" "$_headers"
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
build_time_vars = {**own, "INCLUDEPY": headers, "CONFINCLUDEPY": headers}
MODULE
}
