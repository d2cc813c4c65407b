"""One installation with its agent for the tests that do not break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rbmedia.client import RestClient
from tests.end_to_end.installation import Installation, installed


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("installation")) as installation:
        installation.start("--with-agent")
        yield installation


@pytest.fixture
def rest(running: Installation) -> RestClient:
    return running.client()


@pytest.fixture
def protected(running: Installation, rest: RestClient) -> str:
    """Display name of the one client."""
    return running.authorised_client(rest)[0]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    from rbmedia.scratch import Scratch

    scratch = Scratch(tmp_path / "tree", big_bytes=3_000_000, sparse_bytes=40_000_000, small_files=60)
    scratch.make()
    return scratch.root
