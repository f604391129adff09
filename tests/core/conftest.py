import contextlib
import os
import resource

import pytest

from sslsock.core.loop import Loop

from .far import Far
from .pairs import VERSIONS, Complaints


@pytest.fixture(params=VERSIONS, ids=["tls1.2", "tls1.3"])
def version(request):
    return request.param


@pytest.fixture
def loop():
    """A loop; what its handlers raise is in `loop.exception_handler`, and a test that does not look at it fails."""
    loop = Loop()
    loop.exception_handler = complaints = Complaints()
    yield loop
    loop.close()
    assert not complaints.unexpected, complaints.unexpected


@pytest.fixture
def limit_descriptors():
    """A context manager inside which no further descriptor can be had, or no more than `room`."""

    @contextlib.contextmanager
    def limited(room=0):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [os.dup(0) for _ in range(room + 1)]  # each the lowest that is free, so below the last one all are taken
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1], hard))
        for one in held:
            os.close(one)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return limited


@pytest.fixture(autouse=True)
def close_far_peers():
    yield
    for peer in list(Far.alive):
        peer.sock.close()
