"""How the actors of a library record what they do: intents are refused when they cannot be recorded, outcomes are recorded in the end.

Before an effect its intent is on stable storage, or the effect does not happen (law 3). After it the outcome is a fact: while the log volume is
full the device waits with it, because whatever it did next would have an intent that cannot be recorded either.
"""

from __future__ import annotations

import logging
from typing import Any

import trio

from actors.port import Journal
from actors.supervisor import Backoff
from rbcore.commands import Order, Reply
from rbcore.errors import Unavailable
from rbcore.ports import World

_log = logging.getLogger(__name__)

AGAIN_FIRST_SECONDS, AGAIN_SECONDS_MAX = 0.5, 30.0


class Recorder:
    """Commands of one actor."""

    def __init__(self, journal: Journal, world: World, actor: str) -> None:
        self.journal = journal
        self._world = world
        self._actor = actor

    async def intend(self, command: Any, *, causation: int = 0) -> Reply:
        """Raises what ``decide`` raises, ``Unavailable`` when it cannot be recorded: then nothing may be done."""
        return await self.journal.execute(self._order(command, causation))

    async def outcome(self, command: Any, *, causation: int = 0) -> Reply:
        """Repeats, with the same command id, until it is recorded. Raises ``RbError``s that are answers."""
        order = self._order(command, causation)
        backoff = Backoff(AGAIN_FIRST_SECONDS, AGAIN_SECONDS_MAX, self._world.randomness)
        while True:
            try:
                return await self.journal.execute(order)
            except Unavailable as error:
                _log.warning("%s waits until it can record %s: %s", self._actor, type(command).__name__, error.message)
            await trio.sleep(backoff.next_seconds())

    def _order(self, command: Any, causation: int) -> Order:
        return Order(
            command=command,
            command_id=f"tape/{self._world.randomness.token_bytes(12).hex()}",
            actor=self._actor,
            causation=causation,
        )
