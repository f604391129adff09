"""Fixtures: certificates, TLS versions, and foreign programs that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest

from .pki import ALGORITHMS, Pki
from .programs import Program


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=["TLS_1_2", "TLS_1_3"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> str:
    """Of the certificates."""
    return request.param


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Run a program until the test is over. Ask for it after the host, which looks for open descriptors."""
    running: list[Program] = []

    def run(*arguments: Any, **options: Any) -> Program:
        running.append(Program([str(argument) for argument in arguments], **options))
        return running[-1]

    yield run
    for one in running:
        one.close()
