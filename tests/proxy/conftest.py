"""Fixtures: certificates as files, back ends, a proxy with any options, and one proxy for each pair of schemes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, Callable

import pytest

from command_helpers import Identity, identity

from .operations import Origin, Site, origin
from .running import Path, Proxy, path, running

__all__ = ["identity"]

SCHEMES = [("tls", "tcp"), ("tcp", "tls"), ("tls", "tls"), ("tcp", "tcp")]


@pytest.fixture
def site(tmp_path: FilePath) -> Site:
    return Site(tmp_path)


@pytest.fixture
def back() -> Iterator[Origin]:
    with origin() as made:
        yield made


@pytest.fixture
def start() -> Iterator[Callable[..., Proxy]]:
    """start(*options, listeners=1): a proxy that runs until the test ends; see `running`."""
    with contextlib.ExitStack() as stack:

        def start_one(*options: object, **more: Any) -> Proxy:
            return stack.enter_context(running(*options, **more))

        yield start_one


@pytest.fixture(scope="session", params=SCHEMES, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def through(request: pytest.FixtureRequest, identity: Identity) -> Iterator[Path]:
    """A path that runs for all tests."""
    with path(*request.param, identity) as made:
        yield made
