"""Whether what settings name is there and good: `--check`, and every start and reload. Each error names its place."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Callable, Optional, Union

from ..core.certificate import SslCertificate
from ..core.context import VERIFY_NONE, ConfigurationError, Context, openssl_version, protocol_supported
from ..core.hostname import parse_host
from ..core.ticket_keys import TicketKeys
from ..sockets.certificate_text import name_text
from ..sockets.local_path import is_abstract
from ..sockets.resolver import numeric_addresses
from .back_ends.directory import DirectoryError, require_package
from .files.reading import Reading
from .fleet.member import FleetError, access_to, import_redis
from .limits.networks import read_networks
from .service.capabilities import transparency_error
from .service.privileges import PrivilegeError, file_owner, find_account, replaceable_for, unreadable_for
from .settings import hosts
from .settings.limit_values import without_effect
from .settings.model import (
    PROTOCOL_NAMES,
    Address,
    Fleet,
    KeyPair,
    ListenerSettings,
    Place,
    Places,
    ProxySettings,
    SettingsError,
    TlsPolicy,
)
from .settings.tls_profiles import known, missing_text, profile
from .tls.certificates import (
    CERTIFICATES,
    CRLS,
    PAIR,
    CertificateError,
    CertificateStore,
    Pair,
    files_of,
    key_type,
    load_checked,
    read_certificates,
    read_crls,
)
from .tls.tickets import TicketKeyError, TicketKeyFile

__all__ = ["Warn", "check_certificates", "check_files"]

SOON = timedelta(days=14)
EXPOSED = stat.S_IROTH | stat.S_IWOTH

Warn = Callable[[str], object]
Path = tuple[Union[str, int], ...]


def check_files(settings: ProxySettings, warn: Warn, reading: Optional[Reading] = None) -> None:
    """Open and verify every file, look for the user and for optional packages; change nothing.

    warn: gets a line for what will work, but may not be meant: a certificate that has expired or will within 14 days, a
    chain with a gap, a limit that is never met. reading: what the files are read by; without one, as at the start. A reload
    writes no `ca_out`, perhaps because it has not the right to any more. SettingsError for the first thing that is wrong.
    """
    reading = reading or Reading()
    places = settings.places
    check_certificates(settings, warn, reading)
    for place, text in without_effect(settings):
        warn_at(place, text, warn)
    for number, listener in enumerate(settings.listeners):
        here = ("listener", number)
        if listener.tls_profile is not None:
            pairs = [load_checked(pair, reading) for pair in listener.key_pairs]
            check_profile(listener.tls_profile, pairs, places.of(*here, "tls-profile"), warn)
        check_policy(listener.policy, places, here, "", warn)
        if listener.transparent:
            check_transparency(places.of(*here, "transparent"))
        if listener.listen.path is not None and reading.starting:
            check_socket(listener, places, *here)
        if listener.ca_out is not None and reading.starting:
            check_writable(listener.ca_out, places.of(*here, "ca-out"))
        for index, route in enumerate(listener.routes):
            for target, address in enumerate(route.to):
                check_numeric(address, places.of(*here, "route", index, "to", target))
            check_policy(route.back_tls.policy, places, (*here, "route", index), "to-", warn)
    if settings.ticket_key_file is not None:
        try:
            TicketKeyFile(settings.ticket_key_file, TicketKeys()).load()
        except TicketKeyError as exc:
            raise places.of("ticket-key-file").error(str(exc)) from None
    if settings.fleet is not None:
        check_fleet(settings.fleet, places, warn, reading)
    check_directory(settings, places)
    check_system(settings, places)
    if settings.acme is not None:
        from .acme.setup import check_acme

        check_acme(settings, reading.starting)
    if reading.starting:
        check_rights(settings)


def check_certificates(settings: ProxySettings, warn: Warn, reading: Reading) -> None:
    """Certificates, keys, authorities, revocation lists. warn: of those that the reading before has not had. SettingsError."""
    places = settings.places
    for number, listener in enumerate(settings.listeners):
        here = ("listener", number)
        loaded = []
        for index, pair in enumerate(listener.key_pairs):
            members = places.of(*here, "cert", index), places.of(*here, "key", index)
            loaded.append((check_key_pair(pair, *members, warn, reading), pair.certificate))
        if loaded:
            new = any(reading.is_new(PAIR, files_of(pair)) for pair in listener.key_pairs)
            check_together(loaded, places, warn if new else ignore, *here, "cert")
        for key, listed in (("allow-source-file", listener.allowed_files), ("deny-source-file", listener.denied_files)):
            for index, file in enumerate(listed):
                check_networks(file, places.of(*here, key, index), reading)
        if listener.client_ca is not None:
            check_authorities(listener.client_ca, places.of(*here, "client-ca"), warn, reading)
        for index, file in enumerate(listener.policy.crls):
            check_crls(file, places.of(*here, "crl", index), warn, reading)
        for index, route in enumerate(listener.routes):
            back = (*here, "route", index)
            if route.back_tls.ca is not None:
                check_authorities(route.back_tls.ca, places.of(*back, "to-ca"), warn, reading)
            for place, file in enumerate(route.back_tls.policy.crls):
                check_crls(file, places.of(*back, "to-crl", place), warn, reading)
            if route.back_tls.key_pair is not None:
                pair = route.back_tls.key_pair
                check_key_pair(pair, places.of(*back, "to-cert", 0), places.of(*back, "to-key", 0), warn, reading)


def check_fleet(fleet: Fleet, places: Places, warn: Warn, reading: Reading) -> None:
    """The files, and the package redis. Redis itself is not asked: a start does not need it either."""
    try:
        import_redis()
        access = access_to(fleet, reading)
    except FleetError as exc:
        raise places.of(exc.key).error(str(exc)) from None
    if fleet.ca is not None:
        check_authorities(fleet.ca, places.of("fleet-ca"), warn, reading)
    for key, path in (("fleet-password-file", fleet.password_file), ("fleet-secret-file", fleet.secret_file)):
        mode = reading.mode(path) if path is not None else 0
        if stat.S_ISREG(mode) and mode & EXPOSED:
            text = f"others than its owner and group can read or write it (mode {stat.S_IMODE(mode):04o})"
            warn_at(places.of(key), f"{path}: {text}", warn)
    if fleet.password is not None and places.of("fleet").file is None:
        text = "who lists the processes of this machine sees the password: --fleet-password-file prevents that"
        warn_at(places.of("fleet"), text, warn)
    if fleet.address.path is None and not fleet.address.tls and not access.secret and not hosts.is_loopback(fleet.address.host):
        text = "the ticket keys cross the network in the clear: rediss:// or --fleet-secret-file prevents that"
        warn_at(places.of("fleet"), f"{fleet}: {text}", warn)


def check_directory(settings: ProxySettings, places: Places) -> None:
    """Whether DNS can be asked where it is to be. No name is looked up: it may be there later."""
    wanted = [places.of("resolver")] if settings.resolver is not None else []
    for number, listener in enumerate(settings.listeners):
        for index, route in enumerate(listener.routes):
            here = ("listener", number, "route", index, "to")
            wanted += [places.of(*here, target) for target, address in enumerate(route.to) if address.service]
    if wanted:
        try:
            require_package()
        except DirectoryError as exc:
            raise wanted[0].error(str(exc)) from None


def check_numeric(address: Address, place: Place) -> None:
    """What is written as an address may still name an interface that is not here."""
    if address.path is not None:
        return
    host = parse_host(address.host)
    if host.numeric:
        try:
            numeric_addresses(host.name, address.port)
        except OSError:
            raise place.error(f"{address}: this machine has no interface by the name behind %") from None


def check_transparency(place: Place) -> None:
    reason = transparency_error()
    if reason:
        raise place.error(f"this process may not connect from the addresses of clients: {reason}")


def check_rights(settings: ProxySettings) -> None:
    """Whether what a reload reads can be read once the rights of root are gone. Who is not root finds that out by reading."""
    user = settings.user
    if user is None or os.geteuid() != 0:
        return
    files = settings.files()
    for path, reason in unreadable_for(user, replaceable_for(user, files) if settings.keep_reading else files):
        hint = "let that user read it, or add --keep-reading"
        if settings.keep_reading:
            hint = "--keep-reading does not open it, for this user can write a folder on the way and have it lead anywhere"
        raise files[path].error(f"{path}: user {user!r} could not read it again, for SIGHUP: {reason}; {hint}")


def check_key_pair(pair: KeyPair, certificate_place: Place, key_place: Place, warn: Warn, reading: Reading) -> Pair:
    try:
        loaded = load_checked(pair, reading)
    except CertificateError as exc:
        in_key = exc.path == pair.key != pair.certificate
        raise (key_place if in_key else certificate_place).error(str(exc)) from None
    if not reading.is_new(PAIR, files_of(pair)):
        return loaded
    mode = reading.mode(pair.key)
    if stat.S_ISREG(mode) and mode & EXPOSED:
        text = f"others than its owner and group can read or write this private key (mode {stat.S_IMODE(mode):04o})"
        warn_at(certificate_place if pair.key == pair.certificate else key_place, f"{pair.key}: {text}", warn)
    chain = [loaded[0], *loaded[1]]
    warn_of_times(pair.certificate, chain, certificate_place, warn)
    for lower, upper in zip(chain, chain[1:]):
        # RFC 8446, 4.4.2: each SHOULD certify the one before it; clients are asked to cope, and some do not.
        if lower.issuer != upper.subject:
            text = f"its chain has a gap: {name_text(lower.subject)} was not issued by {name_text(upper.subject)} after it"
            warn_at(certificate_place, f"{pair.certificate}: {text}", warn)
    return loaded


def check_together(pairs: Sequence[tuple[Pair, str]], places: Places, warn: Warn, *here: Union[str, int]) -> None:
    """Whether each of a listener's certificates would ever be used beside the others."""
    try:
        store = CertificateStore(pairs)
    except CertificateError as exc:
        index = max(index for index, (_, path) in enumerate(pairs) if path == exc.path)
        raise places.of(*here, index).error(str(exc)) from None
    paths = [path for _, path in pairs]
    for expiry in store.unused():
        text = f"{expiry.path}: it is never used, for other certificates stand before it for each of its names"
        warn_at(places.of(*here, paths.index(expiry.path)), text, warn)


def check_authorities(file: str, place: Place, warn: Warn, reading: Reading) -> None:
    try:
        found = read_certificates(file, reading)
    except CertificateError as exc:
        raise place.error(str(exc)) from None
    if reading.is_new(CERTIFICATES, (file,)):
        warn_of_times(file, found, place, warn)


def check_networks(file: str, place: Place, reading: Reading) -> None:
    try:
        read_networks(file, reading)
    except SettingsError as exc:  # it has a line of its own
        raise place.error(str(exc)) from None
    except (OSError, ValueError) as exc:
        raise place.error(f"{file}: {getattr(exc, 'strerror', None) or exc}") from None


def check_profile(name: str, pairs: Sequence[Pair], place: Place, warn: Warn) -> None:
    """What a profile asks for and does not get."""
    missing = missing_text(name)
    if missing:
        warn_at(place, f"{name}: {missing}; it is left out", warn)
    wanted = profile(name).keys
    found = {key_type(key) for _, _, key in pairs}
    if found and not found & {*wanted}:
        text = f"the guidelines ask for keys of type {' or '.join(wanted)}, and those here are {' and '.join(sorted(found))}"
        warn_at(place, f"{name}: {text}", warn)


def check_policy(policy: TlsPolicy, places: Places, here: Path, prefix: str, warn: Warn) -> None:
    """What only OpenSSL can tell of the settings with this prefix."""
    for key in ("minimum-protocol", "maximum-protocol"):
        version = getattr(policy, key.replace("-", "_"))
        if (*here, prefix + key) in places and not protocol_supported(version):
            reason = f"{openssl_version()} was built or configured without {PROTOCOL_NAMES[version]}"
            raise places.of(*here, prefix + key).error(reason)
    for key in ("ciphers", "ciphersuites", "groups", "signature-algorithms"):
        if (*here, prefix + key) in places:
            check_algorithms(key, getattr(policy, key.replace("-", "_")), places.of(*here, prefix + key), warn)


def check_algorithms(key: str, text: str, place: Place, warn: Warn) -> None:
    """Whether OpenSSL takes a list. Unknown names in one of cipher suites it leaves out, which may be a mistake."""
    setting = key.replace("-", "_")
    if setting == "ciphersuites":
        for name in re.split("[:, ]", text):
            if "_WITH_" in name:  # OpenSSL 3 takes it, and then has no suite at all; 4.0 has no words for it
                raise place.error(f"{name!r} is a cipher suite of TLS 1.2 and older")
    try:
        Context(server_side=False, verify_mode=VERIFY_NONE, use_system_ca=False, **{setting: text})  # type: ignore[arg-type]
    except ConfigurationError as exc:
        unknown = [name for name in re.split("[:,]", text) if "\0" not in text and not known(setting, name)]
        if setting in ("groups", "signature_algorithms") and unknown:  # OpenSSL says "passed invalid argument", or nothing
            raise place.error(f"{unknown[0]!r}: this OpenSSL has no such {key[:-1].replace('-', ' ')}") from None
        raise place.error(str(exc)[len(setting) :].lstrip()) from None
    if setting not in ("ciphers", "ciphersuites"):
        return
    for name in re.split("[:, ]", text):
        if name and name[0] not in "!-+@" and not known(setting, name):
            warn_at(place, f"{name!r}: this OpenSSL has no such cipher suite here; it is left out", warn)


def check_crls(file: str, place: Place, warn: Warn, reading: Reading) -> None:
    try:
        found = read_crls(file, reading)
    except CertificateError as exc:
        raise place.error(str(exc)) from None
    if not reading.is_new(CRLS, (file,)):
        return
    now = datetime.now(timezone.utc)
    for crl in found:
        whose = f"{file}: the revocation list of {name_text(crl.issuer)}"
        if crl.next_update is not None and crl.next_update <= now:
            text = f"has expired on {crl.next_update:%Y-%m-%d %H:%M} UTC, so whom this authority vouches for is refused"
            warn_at(place, f"{whose} {text}", warn)
        elif crl.last_update is not None and crl.last_update > now:
            text = f"is not valid before {crl.last_update:%Y-%m-%d %H:%M} UTC, so whom this authority vouches for is refused"
            warn_at(place, f"{whose} {text}", warn)


def warn_of_times(file: str, certificates: Sequence[SslCertificate], place: Place, warn: Warn) -> None:
    now = datetime.now(timezone.utc)
    for certificate in certificates:
        text = time_text(certificate.not_before, certificate.not_after, now)
        if text:
            warn_at(place, f"{file}: the certificate of {name_text(certificate.subject)} {text}", warn)


def time_text(begin: Optional[datetime], end: Optional[datetime], now: datetime) -> str:
    """What is remarkable about a certificate's validity; "" if nothing is."""
    if end is not None and end <= now:
        return f"has expired on {end:%Y-%m-%d}"
    if begin is not None and begin > now:
        return f"is not valid before {begin:%Y-%m-%d %H:%M} UTC"
    if end is not None and end - now <= SOON:
        return f"expires on {end:%Y-%m-%d}, in {(end - now).days} days"
    return ""


def ignore(text: str) -> None:
    """A warning that was given before."""


def warn_at(place: Place, text: str, warn: Warn) -> None:
    warn(f"warning: {place.error(text)}")


def check_socket(listener: ListenerSettings, places: Places, *here: Union[str, int]) -> None:
    """Whether a UNIX socket can be made. Not whether somebody listens: this very proxy may."""
    path = listener.listen.path
    assert path is not None
    if listener.owner is not None:
        try:
            file_owner(listener.owner)
        except PrivilegeError as exc:
            raise places.of(*here, "listen-owner").error(str(exc)) from None
    if is_abstract(path):
        return
    place, folder = places.of(*here, "listen"), os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise place.error(f"{listener.listen}: there is no folder {folder}")
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise place.error(f"{listener.listen}: there is a file which is no socket")


def check_writable(file: str, place: Place) -> None:
    """Without writing: that is for the start."""
    folder = os.path.dirname(file) or "."
    if not os.path.isdir(folder):
        raise place.error(f"{file}: there is no folder {folder}")
    if os.path.isdir(file):
        raise place.error(f"{file}: it is a folder")
    if not os.access(file if os.path.exists(file) else folder, os.W_OK):
        raise place.error(f"{file}: it cannot be written")


def check_system(settings: ProxySettings, places: Places) -> None:
    if settings.metrics is not None and importlib.util.find_spec("prometheus_client") is None:
        raise places.of("metrics").error("it needs the package prometheus_client: pip install 'sslsock[proxy]'")
    if settings.user is not None:
        try:
            find_account(settings.user)
        except PrivilegeError as exc:
            raise places.of("user").error(str(exc)) from None
