"""What has to be there before the thread starts: the package, the folder, and what is read with the rights of the start."""

from __future__ import annotations

import atexit
import base64
import binascii
import importlib
import os
import tempfile
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable, Optional, Union

from ..service.privileges import acting_as, find_account
from ..settings.model import AcmeSettings, ProxySettings, SettingsError
from ..tls.certificates import CertificateError, read_certificates
from .manager import AcmeManager
from .storage import FileStorage, Storage

if TYPE_CHECKING:
    from ..fleet.member import Access
    from ..fleet.storage import RedisStorage
    from .client import Client

__all__ = ["check_acme", "make_manager", "missing_package", "read_eab_key", "storage_of"]

DIRECTORY_CA = "directory-ca.pem"  # in the storage: the user of --user need not be able to read the file that was named


def missing_package() -> str:
    """Why the package cannot be used; "" where it can."""
    try:
        for name in ("acme.client", "cryptography.x509", "josepy"):
            importlib.import_module(name)
    except ImportError as exc:
        return f"it needs the package acme: pip install 'sslsock[acme]' ({exc})"
    return ""


def check_acme(settings: ProxySettings, starting: bool) -> None:
    """Whether all that ACME needs is here; no authority is asked, and nothing is made. starting: False for a reload, when
    rights may be gone. SettingsError."""
    acme, places = settings.acme, settings.places
    if acme is None or not starting:
        return
    problem = missing_package()
    if problem:
        raise places.of("acme").error(problem) if settings.file else SettingsError(None, 0, f"--acme: {problem}")
    if acme.eab_key_file is not None:
        try:
            read_eab_key(acme.eab_key_file)
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            raise places.of("acme", "eab-key-file").error(f"{acme.eab_key_file}: {reason}") from None
    if acme.directory_ca is not None:
        try:
            read_certificates(acme.directory_ca)
        except CertificateError as exc:
            raise places.of("acme", "directory-ca").error(str(exc)) from None
    if acme.in_fleet:
        if settings.fleet is None or settings.fleet.secret_file is None:
            reason = "the fleet's Redis keeps private keys only with --fleet and --fleet-secret-file"
            raise places.of("acme", "storage").error(reason)
        return
    problem = storage_problem(acme.storage, settings.user if os.geteuid() == 0 else None)
    if problem:
        raise places.of("acme", "storage").error(f"{acme.storage}: {problem}")


def storage_problem(folder: str, user: Optional[str]) -> str:
    """Why a folder cannot be used as the storage, for `user` or whoever this is; "" where it can."""
    if not os.path.exists(folder):
        above = os.path.dirname(os.path.abspath(folder))
        while not os.path.exists(above):
            above = os.path.dirname(above)
        if not os.path.isdir(above) or not os.access(above, os.W_OK | os.X_OK):
            return f"it is not there, and cannot be made in {above}"
        if user is not None:
            with acting_as(user):
                if not os.access(above, os.X_OK, effective_ids=True):
                    return f"user {user!r} could not come there: {above} is closed to it"
        return ""
    if not os.path.isdir(folder):
        return "it is no folder"
    if os.stat(folder).st_mode & 0o077:
        return "others than its owner may look into it: chmod 0700"
    access = os.R_OK | os.W_OK | os.X_OK
    if user is None:
        return "" if os.access(folder, access) else "this user cannot write there"
    with acting_as(user):
        if os.access(folder, access, effective_ids=True):
            return ""
    return f"user {user!r} could not write there: chown it to that user"


def read_eab_key(path: str) -> bytes:
    """OSError, ValueError."""
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read().strip().rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("it holds no key in base64url")
    return key


def readable_copy(text: bytes) -> str:
    """A file that is there as long as the process is. No secret is in it."""
    copy = tempfile.NamedTemporaryFile(prefix="sslsock-", suffix=".pem")  # noqa: SIM115 # closed when the process ends
    copy.write(text)
    copy.flush()
    atexit.register(copy.close)
    return copy.name


def storage_of(settings: AcmeSettings, access: Optional[Access]) -> Union[RedisStorage, FileStorage]:
    """Where everything is kept. access: to the fleet's Redis, where that is the storage. ValueError."""
    if not settings.in_fleet:
        return FileStorage(settings.storage)
    from ..fleet.storage import RedisStorage  # needs a package

    if access is None:
        raise ValueError("there is no fleet")
    return RedisStorage(access)


def make_manager(
    settings: AcmeSettings,
    names: Iterable[str],
    user: Optional[str],
    say: Callable[[str, str], object],
    changed: Callable[[], object],
    access: Optional[Access] = None,
) -> AcmeManager:
    """With the rights of the start, and everything read and imported that needs them. access: to the fleet's Redis, where that
    is the storage. OSError, ValueError, CertificateError, PrivilegeError."""
    uid = gid = -1
    if user is not None:
        account = find_account(user)
        uid, gid = account.uid, account.gid
    storage = storage_of(settings, access)
    if isinstance(storage, FileStorage):
        storage.prepare(uid, gid)
    eab_key = read_eab_key(settings.eab_key_file) if settings.eab_key_file is not None else None
    verify: Union[str, bool] = True
    if settings.directory_ca is not None:
        text = b"".join(certificate.to_pem() for certificate in read_certificates(settings.directory_ca))
        if isinstance(storage, FileStorage):
            storage.write(DIRECTORY_CA, text)
            verify = os.path.join(settings.storage, DIRECTORY_CA)
        else:
            verify = readable_copy(text)
        if (uid, gid) != (-1, -1):
            os.chown(verify, uid, gid)
    from . import order  # noqa: F401 # with what it imports, from files that the user may not see
    from .client import Client

    def make_client(part: Storage, stopping: threading.Event) -> Client:
        return Client(settings, part, eab_key, verify, stopping)

    return AcmeManager(settings, names, storage, say, changed, make_client)
