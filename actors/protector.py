"""The protector: archives in catalogs are immutable files until their ``store_until`` (``immutable_archives``).

It looks at levels: whenever something happened that may change what is to be protected, and every few minutes, each catalog is told which of its
archives are to be, and does what is missing. Where the host does not allow it, the catalog says so once.
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from actors.port import Journal
from actors.storage import AlignProtection, Storages
from rbcore.entities import Configuration, LocalCatalog
from rbcore.errors import RbError
from rbcore.events import BackupMoved, BackupRecorded, BackupStoreUntilChanged
from rbcore.housekeeping import archives_to_protect
from rbcore.ports import World

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 600.0
PAUSE_SECONDS: Final = 5.0
"""Between two looks, however much happens: each costs a pass over the repository."""
ALIGN_SECONDS_MAX: Final = 600.0

_NEWS: Final = frozenset({BackupRecorded.TYPE, BackupMoved.TYPE, BackupStoreUntilChanged.TYPE})


class Protector:
    """Make it, then ``run``."""

    def __init__(self, journal: Journal, storages: Storages, world: World) -> None:
        self._journal, self._storages, self._world = journal, storages, world
        self._wake = trio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, self._journal.log.head)
            while True:
                self._wake = trio.Event()
                await self.align()
                with trio.move_on_after(LOOK_SECONDS):
                    await self._wake.wait()
                await trio.sleep(PAUSE_SECONDS)

    async def _listen(self, after: int) -> None:
        async for batch in self._journal.log.subscribe(after):
            if any(one.type in _NEWS or one.stream.startswith(f"{Configuration.KIND}/") for one in batch):
                self._wake.set()

    async def align(self) -> None:
        """Tell every catalog what is to be immutable now. A catalog that is offline is told again at the next look."""
        state = self._journal.state
        wanted = archives_to_protect(state, self._world.clock.now_ns())
        for catalog in list(state.all(LocalCatalog)):
            order = AlignProtection(wanted=wanted.get(catalog.id, frozenset()))
            try:
                await self._storages.ask(catalog.id, order, ALIGN_SECONDS_MAX)
            except RbError as error:
                _log.info("archives of catalog %s are not protected now: %s", catalog.path, error.message)
