"""The housekeeper: once a minute it removes from the queue what ``rbcore.housekeeping`` says is old enough."""

from __future__ import annotations

import logging

import trio

from actors.port import Journal
from rbcore.commands import Order, RemoveTasks
from rbcore.errors import NotAllowedNow, NotFound, Unavailable
from rbcore.housekeeping import tasks_to_remove
from rbcore.ports import World

_log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
ACTOR = "actor:housekeeper"


class Housekeeper:
    """Make it, then ``run``."""

    def __init__(self, journal: Journal, world: World) -> None:
        self._journal, self._world = journal, world

    async def run(self) -> None:
        """Until cancelled. What cannot be removed now comes up at the next look."""
        while True:
            try:
                while await self._remove_some():
                    pass
            except (NotAllowedNow, NotFound, Unavailable) as error:
                _log.info("old tasks are not removed now: %s", error.message)
            await trio.sleep(LOOK_SECONDS)

    async def _remove_some(self) -> bool:
        ids = tasks_to_remove(self._journal.state, self._world.clock.now_ns())
        if not ids:
            return False
        command_id = f"housekeeping/{self._world.randomness.token_bytes(12).hex()}"
        await self._journal.execute(Order(command=RemoveTasks(ids=ids), command_id=command_id, actor=ACTOR))
        return True
