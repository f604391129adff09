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
    """A context manager inside which no further descriptor can be had."""

    @contextlib.contextmanager
    def limited():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        probe = os.dup(0)
        os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
        fillers = []
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)

    return limited


@pytest.fixture(autouse=True)
def close_far_peers():
    yield
    for peer in list(Far.alive):
        peer.sock.close()
