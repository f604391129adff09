# What is fetched from Debian, of whatever suite, by this machine's own mirror. Sourced after ci/lib.sh. apt follows the signatures
# from the suite's release file down to the archive's checksum, under a private set-up: the machine's stays untouched.

# The address that this machine's apt has for an archive: debian_mirror Debian, debian_mirror Debian-Security.
debian_mirror() {
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n "s/^$1 //p" | head -n 1
}

# open_debian FOLDER deb|deb-src SUITE...: FOLDER becomes the private set-up, `_apt`, which `from_debian` then uses.
open_debian() {
    _apt=$1 _kind=$2
    shift 2
    command -v apt-get >/dev/null || die "no apt here"
    _mirror=$(debian_mirror Debian)
    [ -n "$_mirror" ] || [ "$(id -u)" -ne 0 ] || { quietly apt-get -qq update && _mirror=$(debian_mirror Debian); }
    [ -n "$_mirror" ] || die "apt knows no Debian mirror here"
    _security=$(debian_mirror Debian-Security)

    rm -rf "$_apt"
    mkdir -p "$_apt/lists/partial" "$_apt/cache/archives/partial"
    _keys=/usr/share/keyrings/debian-archive-keyring.gpg # knows the suites newer than this machine's, too
    [ -e "$_keys" ] && _keys="[signed-by=$_keys]" || _keys=
    for _suite in "$@"; do
        case $_suite in
        *-security) [ -z "$_security" ] || echo "$_kind $_keys $_security $_suite main" ;;
        *) echo "$_kind $_keys $_mirror $_suite main" ;;
        esac
    done >"$_apt/sources.list"
    cat >"$_apt/apt.conf" <<CONF
Dir::Etc::SourceList "$_apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State::Lists "$_apt/lists";
Dir::Cache "$_apt/cache";
APT::Sandbox::User "$(id -un)";
CONF
    quietly from_debian apt-get -qq update
}

from_debian() { APT_CONFIG=$_apt/apt.conf "$@"; }
