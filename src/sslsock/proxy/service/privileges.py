"""What a service gets from whom starts it, and gives back: listening sockets from systemd, and the rights of root."""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import socket
import stat
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import NamedTuple, NoReturn, Optional

from ...core.hostname import parse_host
from ...sockets.local_path import end_of, is_abstract
from ..files.paths import way_to
from ..settings.model import Address
from .capabilities import kept_for_transparency

__all__ = [
    "InheritedSocket",
    "PrivilegeError",
    "acting_as",
    "drop_to",
    "file_owner",
    "listen_fds",
    "match_sockets",
    "replaceable_for",
    "unreadable_for",
]

FIRST_FD = 3  # SD_LISTEN_FDS_START
MOST_FDS = 65536  # sockets that can be meant seriously


class PrivilegeError(Exception):
    """Rights that cannot be dropped, or sockets that cannot be taken over: why."""


# ---- socket activation, sd_listen_fds(3) -------------------------------------------------------------------


class InheritedSocket(NamedTuple):
    """A listening socket that was passed in. name: of LISTEN_FDNAMES, "unknown" where there is none."""

    name: str
    socket: socket.socket


class ListenerSockets(NamedTuple):
    """The sockets that were passed in for one listener: the first, and others with its port."""

    socket: socket.socket
    beside: tuple[socket.socket, ...] = ()


def listen_fds(environment: MutableMapping[str, str] = os.environ) -> list[InheritedSocket]:
    """The sockets that the service manager passed to this process, in its order; [] where it passed none.

    The variables are taken out of `environment`, so that no child believes that they are meant for it, and the descriptors are
    closed on exec. To be called once. PrivilegeError: the variables make no sense, or a descriptor is no listening socket.
    """
    pid, count_text, names_text = (environment.pop(f"LISTEN_{name}", None) for name in ("PID", "FDS", "FDNAMES"))
    environment.pop("LISTEN_PIDFDID", None)
    if pid is None or count_text is None:
        return []
    if number_of("LISTEN_PID", pid) != os.getpid():
        return []  # meant for a parent
    count = number_of("LISTEN_FDS", count_text)
    names = names_text.split(":") if names_text is not None else ["unknown"] * count
    if len(names) != count:
        raise PrivilegeError(f"LISTEN_FDNAMES has {len(names)} names for {count} sockets")
    descriptors = range(FIRST_FD, FIRST_FD + count)
    for descriptor in descriptors:
        try:
            os.set_inheritable(descriptor, False)
        except OSError as exc:
            raise PrivilegeError(f"LISTEN_FDS={count}, but descriptor {descriptor}: {exc.strerror}") from None
    inherited: list[InheritedSocket] = []
    try:
        for name, descriptor in zip(names, descriptors):
            inherited.append(InheritedSocket(name, take_over(name, descriptor)))
    except PrivilegeError:
        for entry in inherited:
            entry.socket.close()
        raise
    return inherited


def number_of(variable: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or (variable == "LISTEN_FDS" and int(text[:9]) > MOST_FDS):
        raise PrivilegeError(f"{variable}={text!r} is not a sensible number")
    return int(text)


def take_over(name: str, descriptor: int) -> socket.socket:
    try:
        taken = socket.socket(fileno=descriptor)
    except OSError as exc:
        raise PrivilegeError(f"descriptor {descriptor} ({name}) from LISTEN_FDS is no socket: {exc.strerror}") from None
    if taken.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or taken.type != socket.SOCK_STREAM:
        reason = "is no TCP socket, nor a stream of UNIX sockets"
    elif not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        reason = "does not listen (Accept=yes is for services of one connection)"
    else:
        taken.setblocking(False)
        return taken
    taken.close()
    raise PrivilegeError(f"descriptor {descriptor} ({name}) from LISTEN_FDS {reason}")


def match_sockets(listeners: Sequence[Address], inherited: Sequence[InheritedSocket]) -> list[Optional[ListenerSockets]]:
    """Which inherited sockets serve each listener, None for one that has to be bound.

    Those bound to exactly a listener's address are taken for it, and for a name those with its port; the others go to the
    listeners that are left, in order. So a unit may listen elsewhere than the settings say. What is left then stands beside the
    socket with the same port: a listener may have one for IPv4 and one for IPv6. PrivilegeError: there are more.
    """
    left = [entry.socket for entry in inherited]
    matched: list[Optional[ListenerSockets]] = [None] * len(listeners)
    for fits in (is_bound_to, may_be_bound_to, is_of_its_kind):
        for index, listener in enumerate(listeners):
            found = next((bound for bound in left if fits(bound, listener)), None)
            if matched[index] is None and found is not None:
                left.remove(found)
                matched[index] = ListenerSockets(found)
    for further in left:
        for index, entry in enumerate(matched):
            if entry is not None and port_of(further) and port_of(entry.socket) == port_of(further):
                matched[index] = entry._replace(beside=(*entry.beside, further))
                break
        else:
            raise PrivilegeError(f"{len(inherited)} sockets were passed in for {len(listeners)} listeners")
    return matched


def port_of(bound: socket.socket) -> int:
    """0 for a UNIX socket."""
    return end_of(bound.getsockname())[1]


def is_of_its_kind(bound: socket.socket, address: Address) -> bool:
    return (bound.family == socket.AF_UNIX) == (address.path is not None)


def is_bound_to(bound: socket.socket, address: Address) -> bool:
    if not is_of_its_kind(bound, address):
        return False
    if address.path is not None:
        path = end_of(bound.getsockname())[0]
        return path == address.path or (not is_abstract(path) and os.path.abspath(path) == os.path.abspath(address.path))
    host, port = bound.getsockname()[:2]
    if port != address.port:
        return False
    here = ipaddress.ip_address(host.partition("%")[0])
    if not address.host:
        return here.is_unspecified
    with suppress(ValueError):
        return here == ipaddress.ip_address(address.host.partition("%")[0])
    return False  # a name


def may_be_bound_to(bound: socket.socket, address: Address) -> bool:
    """For a name: its port."""
    if address.path is not None or not is_of_its_kind(bound, address):
        return False
    return not parse_host(address.host or "::").numeric and port_of(bound) == address.port


# ---- becoming another user ---------------------------------------------------------------------------------


class Account(NamedTuple):
    uid: int
    gid: int
    name: Optional[str]  # for the groups of the user; None: an id that no entry belongs to


def refuse(user: str, reason: str) -> NoReturn:
    raise PrivilegeError(f"cannot become user {user!r}: {reason}")


def find_account(user: str) -> Account:
    """Who `drop_to` would become. user: as there. PrivilegeError; also for root, which is nobody to drop to."""
    user_text, colon, group_text = user.partition(":")
    numeric = user_text.isascii() and user_text.isdigit()
    try:
        try:
            entry = pwd.getpwnam(user_text)
        except KeyError:
            if not numeric:
                raise
            entry = pwd.getpwuid(int(user_text))
        uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
    except (KeyError, ValueError, OverflowError):
        if not numeric:
            refuse(user, "there is no such user")
        if not colon:
            refuse(user, "no user has this id; to use it all the same, give a group too, as in 1000:1000")
        uid, gid, name = int(user_text), -1, None
    if colon:
        gid = find_group(user, group_text)
    if uid == 0 or gid == 0:
        refuse(user, "that is root, whose rights would not be dropped")
    if uid >= 2**32 - 1 or gid >= 2**32 - 1:  # (uid_t) -1 means "unchanged" to setresuid(2)
        refuse(user, "no id is that large")
    if name is not None and 0 in os.getgrouplist(name, gid):
        refuse(user, "it belongs to the group of root")
    return Account(uid, gid, name)


def file_owner(text: str) -> tuple[int, int]:
    """Whose a file is to be, as chown(1) has it: "user", "user:group", ":group", names or ids. Returns both ids, -1 for what
    stays as it is. PrivilegeError."""
    user, _, group = text.partition(":")
    uid = gid = -1
    if user:
        try:
            uid = pwd.getpwnam(user).pw_uid
        except KeyError:
            if not (user.isascii() and user.isdigit() and int(user[:12]) < 2**32 - 1):
                raise PrivilegeError(f"there is no user {user!r}") from None
            uid = int(user)
    if group:
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            if not (group.isascii() and group.isdigit() and int(group[:12]) < 2**32 - 1):
                raise PrivilegeError(f"there is no group {group!r}") from None
            gid = int(group)
    if uid < 0 and gid < 0:
        raise PrivilegeError(f"{text!r} names neither a user nor a group")
    return uid, gid


def find_group(user: str, text: str) -> int:
    with suppress(KeyError, ValueError):
        return grp.getgrnam(text).gr_gid
    if text.isascii() and text.isdigit():
        return int(text)
    return refuse(user, f"there is no group {text!r}")


def drop_to(user: str, transparent: bool = False) -> None:
    """Give up the rights of root for good, in all threads. transparent: but for that of connecting from any address, which this
    thread keeps, and those that it starts.

    user: "name", "name:group" or the same with ids. The process gets the user's supplementary groups, and the user's group
    unless one is given. PrivilegeError: unknown, root itself, this process is not root, or root could be had again; in the last
    case some rights may be gone and the process must not go on.
    """
    account = find_account(user)
    if os.geteuid() != 0:
        refuse(user, "only root can become somebody else")
    try:
        # In this order: after setuid there is no right left to change groups (setuid(2), initgroups(3)).
        if account.name is not None:
            os.initgroups(account.name, account.gid)
        else:
            os.setgroups([account.gid])
        # By root, these change the saved ids too (setuid(2)).
        os.setgid(account.gid)
        with kept_for_transparency() if transparent else nullcontext():
            os.setuid(account.uid)
    except OSError as exc:
        refuse(user, exc.strerror or str(exc))
    verify_dropped(user, account)


@contextmanager
def acting_as(user: str) -> Iterator[Account]:
    """This process, which is root's, sees files as `user` does until the end of the block. PrivilegeError."""
    account = find_account(user)
    groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
    try:
        try:
            if account.name is not None:
                os.initgroups(account.name, account.gid)
            else:
                os.setgroups([account.gid])
            os.setegid(account.gid)
            os.seteuid(account.uid)
        except OSError as exc:
            refuse(user, exc.strerror or str(exc))
        yield account
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def unreadable_for(user: str, paths: Iterable[str]) -> list[tuple[str, str]]:
    """Which of the files `drop_to` would take from this process of root's: (path, the system's reason). PrivilegeError."""
    found = []
    with acting_as(user):
        for path in paths:
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
            except OSError as exc:
                found.append((path, exc.strerror or str(exc)))
    return found


def replaceable_for(user: str, paths: Iterable[str]) -> dict[str, str]:
    """Those of the paths that `user` could have lead to another file, by a link for one: path → the folder that lets him.
    PrivilegeError."""
    ways = [(path, list(folders_to(path))) for path in paths]
    found = {}
    with acting_as(user) as account:
        for path, way in ways:
            for folder, owner, mode, entry_owner in way:
                # Of a folder with the sticky bit, only who owns it or the entry can take the entry away: unlink(2).
                writes = os.access(folder, os.W_OK, effective_ids=True)
                sticky = mode & stat.S_ISVTX
                if account.uid == owner or (writes and (not sticky or account.uid == entry_owner)):
                    found[path] = folder
                    break
    return found


def folders_to(path: str) -> Iterator[tuple[str, int, int, int]]:
    """The folders that the system looks into on its way to a file: (folder, its owner, its mode, the owner of the entry that is
    looked for)."""
    for step in way_to(path):
        try:
            here = os.stat(step.folder)
        except OSError:
            return
        if step.status is not None:
            yield step.folder, here.st_uid, here.st_mode, step.status.st_uid
        else:  # whoever writes the folder can put it there, whatever the sticky bit says
            yield step.folder, here.st_uid, here.st_mode & ~stat.S_ISVTX, here.st_uid


def verify_dropped(user: str, account: Account) -> None:
    """That the ids are what was asked for, saved ones too, and that there is no way back (a capability that was kept, say)."""
    users = os.getresuid() if hasattr(os, "getresuid") else (os.getuid(), os.geteuid())
    groups = os.getresgid() if hasattr(os, "getresgid") else (os.getgid(), os.getegid())
    if {*users} != {account.uid} or {*groups} != {account.gid} or 0 in os.getgroups():
        refuse(user, "the system did not change all ids")
    for regain in (os.setuid, os.seteuid, os.setgid, os.setegid):
        with suppress(OSError):
            regain(0)
            refuse(user, "the rights of root could be had again")
