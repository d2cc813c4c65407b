"""How much room the catalogs have: looked at now and then and remembered, so that a list of pools waits for no disk."""

from __future__ import annotations

from typing import Final

import trio

from actors.port import Journal
from actors.storage import LookAtCatalog, Storages
from rbcore.commands import CatalogFacts
from rbcore.entities import LocalCatalog
from rbcore.errors import RbError

LOOK_SECONDS: Final = 60.0
"""A figure is at most about that old."""
TURN_SECONDS: Final = 5.0
"""How long a new catalog waits for its first look."""
ANSWER_SECONDS_MAX: Final = 30.0


class RoomWatch:
    """Make it, then ``run``. ``actors.port.Rooms``. Figures are telemetry: they are in no log."""

    def __init__(self, journal: Journal, storages: Storages) -> None:
        self._journal, self._storages = journal, storages
        self._facts: dict[int, CatalogFacts] = {}
        self._looked: dict[int, float] = {}
        """When each was asked last, by trio's clock."""

    def fact(self, catalog_id: int) -> CatalogFacts | None:
        """The newest look at the catalog; None: there was none yet."""
        return self._facts.get(catalog_id)

    async def run(self) -> None:
        """Look until cancelled. A disk that does not answer holds up nobody but itself."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self.turn)
                await trio.sleep(TURN_SECONDS)

    async def turn(self) -> None:
        """Look at each catalog whose time has come; returns when all of those have answered."""
        catalogs = {one.id for one in self._journal.state.all(LocalCatalog)}
        for gone in self._looked.keys() - catalogs:
            del self._looked[gone]
            self._facts.pop(gone, None)
        now = trio.current_time()
        async with trio.open_nursery() as nursery:
            for catalog_id in sorted(catalogs):
                if now >= self._looked.get(catalog_id, -LOOK_SECONDS) + LOOK_SECONDS:
                    self._looked[catalog_id] = now
                    nursery.start_soon(self._look, catalog_id)

    async def _look(self, catalog_id: int) -> None:
        try:
            found = await self._storages.ask(catalog_id, LookAtCatalog(), ANSWER_SECONDS_MAX)
            assert isinstance(found, CatalogFacts), "the answer to LookAtCatalog"
        except RbError as error:
            found = CatalogFacts(local_catalog_id=catalog_id, online=False, free_bytes=0, problem=error.message)
        if catalog_id in self._looked:
            self._facts[catalog_id] = found
