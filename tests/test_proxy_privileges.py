"""Sockets from the service manager, and giving up the rights of root: for real, in child processes."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Optional

import pytest

from command_helpers import ENVIRONMENT, TIMEOUT
from sslsock.proxy.service.privileges import (
    InheritedSocket,
    ListenerSockets,
    PrivilegeError,
    drop_to,
    find_account,
    match_sockets,
)
from sslsock.proxy.settings.model import Address

# ---- socket activation -------------------------------------------------------------------------------------

TAKE = """
import os, socket, subprocess, sys
from sslsock.proxy.service.privileges import PrivilegeError, listen_fds
for number, descriptor in enumerate(map(int, sys.argv[1:])):
    os.dup2(descriptor, 3 + number)
os.environ.update({name: value.replace("PID", str(os.getpid())) for name, value in os.environ.items() if name == "LISTEN_PID"})
try:
    for name, taken in listen_fds():
        look = f"import os; os.fstat({taken.fileno()})"
        inherited = subprocess.run([sys.executable, "-c", look], close_fds=False, stderr=subprocess.DEVNULL).returncode == 0
        print(name, taken.fileno(), taken.getsockname()[1], taken.getblocking(), inherited)
except PrivilegeError as exc:
    print("refused:", exc)
print("left:", *sorted(name for name in os.environ if name.startswith("LISTEN_")))
print("again:", *listen_fds())
"""


def take(*passed: int, **environment: str) -> list[str]:
    """Pass descriptors to a child as 3, 4, ... with these variables; what it found. PID stands for its process id."""
    # The child puts the first descriptor at 3: none of the others may be there before.
    with ExitStack() as stack:
        high = []
        for descriptor in passed:
            high.append(os.dup(descriptor))
            while high[-1] < 3 + len(passed):
                stack.callback(os.close, high[-1])
                high[-1] = os.dup(descriptor)
            stack.callback(os.close, high[-1])
        result = subprocess.run(
            [sys.executable, "-c", TAKE, *map(str, high)],
            env={**ENVIRONMENT, **environment},
            pass_fds=high,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Three that listen, on 127.0.0.1."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]


def port(listening: socket.socket) -> int:
    number: int = listening.getsockname()[1]
    return number


def test_sockets_are_taken_over_in_order_and_kept_from_children(sockets: list[socket.socket]) -> None:
    first, second, _ = sockets
    lines = take(first.fileno(), second.fileno(), LISTEN_PID="PID", LISTEN_FDS="2", LISTEN_FDNAMES="web:admin")
    assert lines == [
        f"web 3 {port(first)} False False",
        f"admin 4 {port(second)} False False",
        "left:",
        "again:",
    ]


def test_sockets_without_names(sockets: list[socket.socket]) -> None:
    lines = take(sockets[0].fileno(), LISTEN_PID="PID", LISTEN_FDS="1", LISTEN_PIDFDID="7")
    assert lines == [f"unknown 3 {port(sockets[0])} False False", "left:", "again:"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "PID"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"},
        {"LISTEN_PID": "PID", "LISTEN_FDS": "0"},
    ],
)
def test_nothing_is_taken_that_is_not_for_this_process(sockets: list[socket.socket], environment: dict[str, str]) -> None:
    assert take(sockets[0].fileno(), **environment) == ["left:", "again:"]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"LISTEN_PID": "me", "LISTEN_FDS": "1"}, "LISTEN_PID='me' is not a sensible number"),
        ({"LISTEN_PID": "PID", "LISTEN_FDS": "-1"}, "LISTEN_FDS='-1' is not a sensible number"),
        ({"LISTEN_PID": "PID", "LISTEN_FDS": ""}, "LISTEN_FDS='' is not a sensible number"),
        ({"LISTEN_PID": "PID", "LISTEN_FDS": "99999999999999999999"}, "is not a sensible number"),
        ({"LISTEN_PID": "PID", "LISTEN_FDS": "900"}, "descriptor 4: Bad file descriptor"),
        ({"LISTEN_PID": "PID", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES has 2 names for 1 sockets"),
    ],
)
def test_variables_that_make_no_sense(sockets: list[socket.socket], environment: dict[str, str], reason: str) -> None:
    refused, *rest = take(sockets[0].fileno(), **environment)
    assert refused.startswith("refused: ")
    assert reason in refused
    assert rest == ["left:", "again:"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("file", "is no socket"),
        ("udp", "is no TCP socket"),
        ("unix", "does not listen"),
        ("not listening", "does not listen"),
    ],
)
def test_descriptors_that_are_no_listening_sockets(sockets: list[socket.socket], kind: str, reason: str) -> None:
    with ExitStack() as stack:
        if kind == "file":
            descriptor = stack.enter_context(open(os.devnull)).fileno()
        else:
            family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
            type_ = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
            descriptor = stack.enter_context(socket.socket(family, type_)).fileno()
        refused = take(sockets[0].fileno(), descriptor, LISTEN_PID="PID", LISTEN_FDS="2", LISTEN_FDNAMES="good:bad")[0]
    assert refused.startswith("refused: descriptor 4 (bad) from LISTEN_FDS ")
    assert reason in refused


def listener(host: str, number: int) -> Address:
    return Address("tls", host, number)


def matched(listeners: list[Address], *listening: socket.socket) -> list[Optional[socket.socket]]:
    found = match_sockets(listeners, [InheritedSocket("unknown", each) for each in listening])
    return [None if entry is None else entry.socket for entry in found]


def test_sockets_go_to_the_listeners_with_their_address(sockets: list[socket.socket]) -> None:
    a, b, _ = sockets
    listeners = [listener("127.0.0.1", port(b)), listener("127.0.0.1", 1), listener("127.0.0.1", port(a))]
    assert matched(listeners, a, b) == [b, None, a]


def test_sockets_elsewhere_go_to_the_listeners_that_are_left_in_order(sockets: list[socket.socket]) -> None:
    a, b, c = sockets
    listeners = [listener("", 443), listener("127.0.0.1", port(c)), listener("localhost", 80), listener("::1", 81)]
    assert matched(listeners, a, b, c) == [a, c, b, None]
    assert matched(listeners, a) == [a, None, None, None]
    assert matched(listeners) == [None] * 4


def test_the_port_alone_does_not_make_the_address(sockets: list[socket.socket]) -> None:
    a, b, _ = sockets
    # By address, b belongs to the second listener; a is bound to none of them.
    listeners = [listener("127.0.0.2", port(b)), listener("127.0.0.1", port(b))]
    assert matched(listeners, a, b) == [a, b]


def test_a_socket_bound_to_one_address_is_not_bound_to_every_one(sockets: list[socket.socket]) -> None:
    a, b, _ = sockets
    assert matched([listener("", port(a)), listener("127.0.0.1", port(a))], a, b) == [b, a]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_listener_without_a_host_is_bound_to_every_address(sockets: list[socket.socket], host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as everywhere:
        listeners = [listener("127.0.0.1", 1), listener("", port(everywhere))]
        assert matched(listeners, sockets[0], everywhere) == [sockets[0], everywhere]


def both_families() -> tuple[socket.socket, socket.socket]:
    """Sockets that listen at 127.0.0.1 and ::1, on one port."""
    while True:
        six = socket.create_server(("::1", 0), family=socket.AF_INET6)
        try:
            return socket.create_server(("127.0.0.1", port(six))), six
        except OSError:  # somebody has it
            six.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", ""])
def test_a_listener_may_have_a_socket_for_each_family(sockets: list[socket.socket], host: str) -> None:
    four, six = both_families()
    with four, six:
        listeners = [listener(host, port(four)), listener("elsewhere.example", port(sockets[0]))]
        found = match_sockets(listeners, [InheritedSocket("unknown", each) for each in (four, six, sockets[0])])
        assert found == [ListenerSockets(four, (six,)), ListenerSockets(sockets[0])]


def test_sockets_with_one_port_go_to_listeners_of_their_own() -> None:
    four, six = both_families()
    with four, six:
        assert matched([listener("::1", port(six)), listener("127.0.0.1", port(four))], four, six) == [six, four]


def test_more_sockets_than_listeners_are_refused(sockets: list[socket.socket]) -> None:
    with pytest.raises(PrivilegeError, match="3 sockets were passed in for 1 listeners"):
        matched([listener("", 443)], *sockets)


# ---- becoming another user ---------------------------------------------------------------------------------

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

NOBODY = pwd.getpwnam("nobody")
DAEMON = grp.getgrnam("daemon")

DROP = """
import os, sys, threading
from sslsock.proxy.service.privileges import PrivilegeError, drop_to
go, done = threading.Event(), threading.Event()
seen = []
def other():
    go.wait()
    with open(f"/proc/self/task/{threading.get_native_id()}/status") as status:
        seen.append([line.split()[1:] for line in status if line.startswith("Uid")])
    done.set()
threading.Thread(target=other).start()
try:
    drop_to(sys.argv[1])
except PrivilegeError as exc:
    print("refused:", exc)
else:
    print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))
    for path in ("/root/.sslsock-trial", "/proc/1/environ"):
        try:
            open(path, "ab" if "root" in path else "rb")
        except PermissionError:
            print("denied")
finally:
    go.set()
    done.wait()
print(seen[0][0])
"""


def drop(user: str, prefix: tuple[str, ...] = ()) -> list[str]:
    """What a child says that runs as root and drops to `user`."""
    result = subprocess.run(
        [*prefix, sys.executable, "-c", DROP, user], env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def ids(uid: int, gid: int, groups: list[int]) -> list[str]:
    """The lines of a child that has dropped its rights: all ids, no way to root's things, and a second thread's ids."""
    return [f"{(uid,) * 3} {(gid,) * 3} {sorted(groups)}", "denied", "denied", str([str(uid)] * 4)]


@root_only
def test_drop_to_a_user() -> None:
    groups = os.getgrouplist("nobody", NOBODY.pw_gid)
    assert drop("nobody") == ids(NOBODY.pw_uid, NOBODY.pw_gid, groups)


@root_only
def test_drop_to_a_user_and_a_group() -> None:
    groups = os.getgrouplist("nobody", DAEMON.gr_gid)
    assert drop("nobody:daemon") == ids(NOBODY.pw_uid, DAEMON.gr_gid, groups)


@root_only
def test_drop_to_numbers() -> None:
    assert drop(f"{NOBODY.pw_uid}")[0] == drop("nobody")[0]
    assert drop("54321:54322") == ids(54321, 54322, [54322])


@root_only
def test_a_way_back_to_root_is_noticed() -> None:
    """With this bit setuid(2) leaves the capabilities alone (capabilities(7)), CAP_SETUID among them."""
    keep = (
        "import ctypes, os, sys; PR_SET_SECUREBITS, NO_SETUID_FIXUP = 28, 4\n"
        "assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0) == 0\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    assert drop("nobody", (sys.executable, "-c", keep))[0] == (
        "refused: cannot become user 'nobody': the rights of root could be had again"
    )


@root_only
def test_only_root_can_drop() -> None:
    child = (
        "import os\nfrom sslsock.proxy.service.privileges import PrivilegeError, drop_to\nos.setuid(54321)\n"
        "try:\n    drop_to('nobody')\nexcept PrivilegeError as exc:\n    print(exc)"
    )
    result = subprocess.run([sys.executable, "-c", child], env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT)
    assert result.stdout == "cannot become user 'nobody': only root can become somebody else\n", result.stderr


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("no-such-user", "there is no such user"),
        ("", "there is no such user"),
        ("nul\0", "there is no such user"),
        (":daemon", "there is no such user"),
        ("nobody:no-such-group", "there is no group 'no-such-group'"),
        ("nobody:", "there is no group ''"),
        ("nobody:nul\0", "there is no group"),
        ("54321", "give a group too"),
        ("99999999999999999999:1", "no id is that large"),
        ("4294967295:1", "no id is that large"),
        ("54321:4294967295", "no id is that large"),
        ("nobody:4294967296", "no id is that large"),
        ("nobody:99999999999999999999", "no id is that large"),
        ("root", "that is root"),
        ("0:1", "that is root"),
        ("nobody:root", "that is root"),
        ("nobody:0", "that is root"),
        ("-1:5", "there is no such user"),
    ],
)
def test_users_that_cannot_be_become(user: str, reason: str) -> None:
    with pytest.raises(PrivilegeError) as caught:
        find_account(user)
    assert str(caught.value).startswith(f"cannot become user {user!r}: ")
    assert reason in str(caught.value)
    with pytest.raises(PrivilegeError):
        drop_to(user)
