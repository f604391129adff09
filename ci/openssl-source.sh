# Fetches, checks and unpacks the sources of OpenSSL. Sourced after ci/lib.sh by the scripts that build it.

# What compiling OpenSSL needs; a compiler only if none is given by CC.
find_openssl_tools() {
    _need=
    [ -n "${CC:-}" ] || command -v gcc >/dev/null || _need="gcc libc6-dev"
    command -v make >/dev/null || _need="$_need make"
    perl -MIPC::Cmd -MData::Dumper -e 1 2>/dev/null || _need="$_need perl"
    # shellcheck disable=SC2086
    [ -z "$_need" ] || apt_install "building OpenSSL needs more" $_need
}

# The address that this machine's apt has for an archive: debian_mirror Debian, debian_mirror Debian-Security.
debian_mirror() {
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n "s/^$1 //p" | head -n 1
}

# fetch_from_debian FOLDER SERIES [VERSION [PACKAGE]]: into FOLDER comes the newest source package (of OpenSSL) of that series
# (3.5, 3.5.7) that Debian carries in any suite, or the one VERSION. It holds the archive of upstream. apt fetches it from the machine's own mirror and
# follows the signatures from the suite's release file down to the archive's checksum, under a private set-up: the machine's
# stays untouched.
fetch_from_debian() {
    _package=${4:-openssl}
    command -v apt-get >/dev/null || die "no apt here: an upstream archive must be given"
    _mirror=$(debian_mirror Debian)
    [ -n "$_mirror" ] || [ "$(id -u)" -ne 0 ] || { quietly apt-get -qq update && _mirror=$(debian_mirror Debian); }
    [ -n "$_mirror" ] || die "apt knows no Debian mirror here: an upstream archive must be given"
    _security=$(debian_mirror Debian-Security)

    _apt=$1/apt
    rm -rf "$_apt"
    mkdir -p "$_apt/lists/partial" "$_apt/cache/archives/partial"
    _keys=/usr/share/keyrings/debian-archive-keyring.gpg # knows the suites newer than this machine's, too
    [ -e "$_keys" ] && _keys="[signed-by=$_keys]" || _keys=
    for _suite in bookworm trixie sid experimental; do
        echo "deb-src $_keys $_mirror $_suite main"
    done >"$_apt/sources.list"
    [ -z "$_security" ] || echo "deb-src $_keys $_security trixie-security main" >>"$_apt/sources.list"
    cat >"$_apt/apt.conf" <<CONF
Dir::Etc::SourceList "$_apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "$_apt/lists";
Dir::Cache "$_apt/cache";
APT::Sandbox::User "$(id -un)";
CONF
    quietly env APT_CONFIG="$_apt/apt.conf" apt-get -qq update
    _versions=${3:-$(APT_CONFIG=$_apt/apt.conf apt-cache showsrc --only-source "$_package" | sed -n "s/^Version: \($2[.-]\)/\1/p" | sort -Vru)}
    _fetched=
    # Newest first; an older one where a mirror's lists are ahead of its files.
    for _version in $_versions; do
        say "fetching the source of $_package $_version"
        if (cd "$1" && APT_CONFIG=$_apt/apt.conf apt-get -qq source --download-only "$_package=$_version") >"$_apt/log" 2>&1; then
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
