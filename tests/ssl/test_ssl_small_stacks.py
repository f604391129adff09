"""Threads with the smallest stack there is: what is received lies elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tls_pairs import Files

from command_helpers import ENVIRONMENT, TIMEOUT

PROGRAM = """
import os, socket, sys, threading
sys.path[:0] = sys.argv[4:6]
if sys.argv[6] == "ours":
    from sslsock import ssl
else:
    import ssl

folder, size, version = sys.argv[1:4]
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(os.path.join(folder, "server.pem"))
client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
client.load_verify_locations(os.path.join(folder, "ca.pem"))
client.maximum_version = ssl.TLSVersion[version]
left, right = socket.socketpair()
said = []

def use(one, data, **options):
    try:
        context = server if "server_side" in options else client
        end = context.wrap_socket(one, **options)
        memory, got = bytearray(len(data)), 0
        end.sendall(data[:1000])
        while got < 1000:
            got += end.recv_into(memoryview(memory)[got:1000])
        sender = threading.Thread(target=end.sendall, args=(data[1000:],))
        sender.start()
        while got < len(data):
            got += end.recv_into(memoryview(memory)[got:])
        sender.join()
        assert memory == data and end.pending() == 0 and end.version() and end.getpeercert() != 0
        end.unwrap().close()
        said.append("done")
    except BaseException as exc:
        said.append(repr(exc))

threading.stack_size(int(size))
data = os.urandom(1000) * 1000
both = [
    threading.Thread(target=use, args=(left, data), kwargs={"server_hostname": "localhost"}),
    threading.Thread(target=use, args=(right, data), kwargs={"server_side": True})]
for one in both:
    one.start()
for one in both:
    one.join()
print(*said)
"""


def run(module: str, files: Files, size: int, version: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, for a stack that overflows ends it."""
    here = Path(__file__).parent
    arguments = [files.ca_file.parent, size, version, here, here.parent, module]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, timeout=TIMEOUT, text=True
    )


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_connection_in_threads_with_little_stack(files: Files, version: str) -> None:
    """Each operation of both ends, with as little as is enough for the interpreter's `ssl`: 32 KiB from CPython 3.9 to 3.12."""
    for size in (32768, 49152, 65536):
        enough = run("the interpreter's", files, size, version).returncode == 0
        if enough:
            break
    assert enough and (size == 32768 or sys.version_info >= (3, 12))
    ours = run("ours", files, size, version)
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, "done done\n", ""), size
