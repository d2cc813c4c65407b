"""The library fixture: every test that takes it runs once per backend of ``libraries.LIBRARIES``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.tape.libraries import LIBRARIES, NEEDS, LibraryUnderTest


@pytest.fixture(params=sorted(LIBRARIES))
def library_kind(request: pytest.FixtureRequest) -> str:
    """Skips, saying what is missing, before anything of trio's runs: a reason given within a nursery does not come out."""
    kind: str = request.param
    if kind in NEEDS:
        NEEDS[kind]()
    return kind


@pytest.fixture
async def library(library_kind: str, tmp_path: Path) -> AsyncIterator[LibraryUnderTest]:
    async with LIBRARIES[library_kind](tmp_path) as under_test:
        yield under_test
