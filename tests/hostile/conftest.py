"""Fixtures: a look at what a test has left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from peers import Certificates, Host

from .witness import Bystander, Inventory


@pytest.fixture(params=["TLS_1_2", "TLS_1_3"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def bystander(host: Host, certificates: Certificates) -> Iterator[Bystander]:
    """A pair on the same loop that talks before, during and after the test; nothing may be left of the rest."""
    yield from watched(host, certificates)


@pytest.fixture
def own_bystander(own_host: Host, certificates: Certificates) -> Iterator[Bystander]:
    """The same, for the loop alone."""
    yield from watched(own_host, certificates)


def watched(host: Host, certificates: Certificates) -> Iterator[Bystander]:
    bystander = Bystander(host, certificates)
    bystander.check()
    inventory = Inventory(host)
    yield bystander
    bystander.check()
    inventory.check()
    bystander.end()
