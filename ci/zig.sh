# Zig as a C cross compiler: one program, from a wheel, that links against any glibc since 2.17 and against musl. Sourced after
# ci/lib.sh by what builds the wheels.

WHEEL_TOOLS=${SSLSOCK_WHEEL_TOOLS:-$ROOT/.venv-wheel-tools}

# Sets up the virtual environment with what ci/wheel-tools.txt pins.
find_wheel_tools() {
    _pins=$(sha256sum <"$ROOT/ci/wheel-tools.txt")
    [ "$(cat "$WHEEL_TOOLS/sslsock-pins" 2>/dev/null)" != "$_pins" ] || return 0
    find_python
    say "installing zig and auditwheel"
    rm -rf "$WHEEL_TOOLS"
    quietly "$PYTHON" -m venv "$WHEEL_TOOLS"
    quietly "$WHEEL_TOOLS/bin/python" -m pip install -q --disable-pip-version-check -r "$ROOT/ci/wheel-tools.txt"
    printf '%s\n' "$_pins" >"$WHEEL_TOOLS/sslsock-pins"
}

# zig_tools TARGET: prints the folder of cc, ar and ranlib for it.
zig_tools() {
    find_wheel_tools
    _zig=$("$WHEEL_TOOLS/bin/python" -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))')
    _folder=$WHEEL_TOOLS/zig/$1
    mkdir -p "$_folder"
    for _tool in "cc -target $1" ar ranlib; do
        printf '#!/bin/sh\nexec %s %s "$@"\n' "$_zig" "$_tool" >"$_folder/${_tool%% *}"
        chmod 755 "$_folder/${_tool%% *}"
    done
    echo "$_folder"
}
