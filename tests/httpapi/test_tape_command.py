"""``rbmedia tape`` against the API over real TLS, and the actors behind it against a simulated library: a day of an operator."""

from __future__ import annotations

from pathlib import Path

import msgspec
import trio
from click.testing import CliRunner

from httpapi import Serving
from rbmedia.cli import rbmedia
from rbmedia.exits import CommandFailed, Exit
from tests.httpapi.house import PASSWORD, USER, House
from tests.httpapi.shelves import IMPORT_EXPORT, SimulatedShelf
from tests.httpapi.tapes import TAGS
from tests.httpapi.test_server import serving


class Operator:
    """Types commands. ``answer`` is what the newest one wrote."""

    def __init__(self, told: Serving, directory: Path) -> None:
        self._environment = {
            "RBMEDIA_SERVER": told.url,
            "RBMEDIA_CA": str(directory / "pki" / "ca.pem"),
            "RBMEDIA_USER": USER,
            "RBMEDIA_PASSWORD": PASSWORD,
            "RBMEDIA_SESSION": str(directory / "session.json"),
        }
        self.answer = ""

    async def types(self, *words: str, code: Exit = Exit.OK, group: str = "tape") -> None:
        """Raises ``AssertionError`` when the command ends otherwise than with ``code``."""

        def run() -> None:
            done = CliRunner(env=self._environment).invoke(rbmedia, [group, *words], standalone_mode=False)
            error = done.exception
            if isinstance(error, CommandFailed):
                ended, self.answer = error.code, error.message
            else:
                assert error is None, (words, error)
                ended, self.answer = done.return_value or Exit.OK, done.output
            assert ended == code, (words, ended, self.answer)

        await trio.to_thread.run_sync(run)


async def test_a_day_with_a_tape_library(house: House, tmp_path: Path) -> None:
    for tag in TAGS:
        house.shelf.put(tag)
    await house.start_site()
    async with serving(house, tmp_path) as (told, _):
        operator = Operator(told, tmp_path)
        await operator.types("create", "tape_pool", "--type", "Tape library, Native", group="pools")
        await operator.types("libraries")
        await operator.types("sync", code=Exit.FAILED)
        await operator.types("candidates")
        assert house.shelf.drives[1] in operator.answer
        await operator.types("add", "nothing", code=Exit.FAILED)
        await operator.types("add", "tape_pool")
        assert "not registered: RB0001L9, RB0002L9" in operator.answer
        await operator.types("sync", code=Exit.FAILED)
        await operator.types("register", "tape_pool", *TAGS)
        await operator.types("sync")
        await operator.types("libraries")
        assert "2/6" in operator.answer
        await work_with_cartridges(house, operator)


async def work_with_cartridges(house: House, operator: Operator) -> None:
    await operator.types("format", *TAGS, "--yes", "--wait")
    await operator.types("cartridges", "--json")
    assert [row["format"] for row in msgspec.json.decode(operator.answer)] == ["native", "native"]
    await operator.types("erase", TAGS[1], "--yes", "--wait")
    await operator.types("check-ltfs", TAGS[0], "--wait")
    await operator.types("queue")
    assert "none" in operator.answer
    await operator.types("queue", "--all")
    assert "Format" in operator.answer
    await operator.types("why", "1")
    assert "drive.mount_begun" in operator.answer
    await operator.types("slots", "--json")
    slots = {row["volume_tag"] or row["number"]: row for row in msgspec.json.decode(operator.answer)}
    storage = [row["id"] for row in slots.values() if row["type"] == "storage" and not row["is_full"]]
    await operator.types("move", TAGS[0], str(storage[-1]), "--wait")
    await operator.types("move", TAGS[1], str(storage[-1]), code=Exit.FAILED)
    await operator.types("export", TAGS[0], "--wait")
    await operator.types("cartridges", "--filter", 'exported="true"', "--json")
    (out,) = msgspec.json.decode(operator.answer)
    assert (out["volume_tag"], out["location"]) == (TAGS[0], "import-export")
    assert isinstance(house.shelf, SimulatedShelf)
    station = house.shelf.library.where(TAGS[0])
    assert station is not None
    assert station.address == IMPORT_EXPORT
    await operator.types("import", "tape_pool")
    assert TAGS[0] in operator.answer
    await operator.types("drives")
    assert "free" in operator.answer
    await operator.types("clean", "999", code=Exit.FAILED)
