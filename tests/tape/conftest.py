"""The library fixture: every test that takes it runs once per backend of ``libraries.LIBRARIES``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.tape.libraries import LIBRARIES, LibraryUnderTest


@pytest.fixture(params=sorted(LIBRARIES))
async def library(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LibraryUnderTest]:
    async with LIBRARIES[request.param](tmp_path) as under_test:
        yield under_test
