"""The fixture ``house``; tests of tape parametrise which library stands on its shelf."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.httpapi.contract import REPORT
from tests.httpapi.house import House, open_house
from tests.httpapi.shelves import open_shelf


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not REPORT.empty:
        terminalreporter.section("contract")
        for line in REPORT.lines():
            terminalreporter.line(line)


@pytest.fixture
def shelf_name() -> str:
    return "simulated"


@pytest.fixture
async def house(shelf_name: str, tmp_path: Path) -> AsyncIterator[House]:
    with open_shelf(shelf_name, tmp_path) as shelf:
        async with open_house(tmp_path, shelf=shelf) as opened:
            yield opened
