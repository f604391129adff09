import pytest

from sslsock.core.loop import Loop

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
