# Fetches, checks and unpacks the sources of OpenSSL. Sourced after ci/debian.sh by the scripts that build it.

# What compiling OpenSSL needs; a compiler only if none is given by CC.
find_openssl_tools() {
    _need=
    [ -n "${CC:-}" ] || command -v gcc >/dev/null || _need="gcc libc6-dev"
    command -v make >/dev/null || _need="$_need make"
    perl -MIPC::Cmd -MData::Dumper -e 1 2>/dev/null || _need="$_need perl"
    # shellcheck disable=SC2086
    [ -z "$_need" ] || apt_install "building OpenSSL needs more" $_need
}

# fetch_from_debian FOLDER SERIES [VERSION [PACKAGE]]: into FOLDER comes the newest source package (of OpenSSL) of that series
# (3.5, 3.5.7) that Debian carries in any suite, or the one VERSION. It holds the archive of upstream.
fetch_from_debian() {
    _package=${4:-openssl}
    open_debian "$1/apt" deb-src bookworm trixie forky sid experimental bookworm-security trixie-security
    _versions=${3:-$(from_debian apt-cache showsrc --only-source "$_package" | sed -n "s/^Version: \($2[.-]\)/\1/p" | sort -Vru)}
    _fetched=
    # Newest first; an older one where a mirror's lists are ahead of its files.
    for _version in $_versions; do
        say "fetching the source of $_package $_version"
        if (cd "$1" && from_debian apt-get -qq source --download-only "$_package=$_version") >"$_apt/log" 2>&1; then
            _fetched=$_version
            break
        fi
        rm -f "$1/${_package}_"*
    done
    if [ -z "$_fetched" ]; then
        [ ! -e "$_apt/log" ] || cat "$_apt/log" >&2
        rm -rf "$_apt"
        die "Debian's mirror has no source of $_package ${3:-$2} now: an upstream archive must be given"
    fi
    rm -rf "$_apt"
}

# check_digest FILE SHA-256
check_digest() {
    _digest=$(sha256sum "$1" | cut -d' ' -f1)
    [ "$_digest" = "$2" ] || die "${1##*/} is not the file that is pinned: its SHA-256 is $_digest, not $2"
}

# unpack_source ARCHIVE FOLDER
unpack_source() {
    mkdir -p "$2"
    tar -C "$2" --strip-components=1 -xf "$1"
}
