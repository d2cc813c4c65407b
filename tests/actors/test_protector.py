"""The protector under the virtual clock: which archives it names, when it looks, and what a catalog does that cannot protect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.protector import LOOK_SECONDS, PAUSE_SECONDS, Protector
from actors.storage import AlignProtection
from drivers.simulated.world import SIMULATION_EPOCH_NS
from rbcore.commands import ChangeConfiguration, ChangeStoreUntil, DeleteBackups
from rbcore.entities import Backup
from rbcore.errors import Unavailable
from rbcore.housekeeping import archives_to_protect
from tests.core.world import SECOND_NS, World


@pytest.fixture
def world() -> World:
    world = World().installed()
    world.client()
    return world


def test_what_is_protected_is_what_must_be_kept_yet(world: World) -> None:
    backup_id = world.backed_up()
    backup = world.state.find(Backup, backup_id)
    assert backup is not None
    assert archives_to_protect(world.state, world.now_ns) == {1: frozenset({backup.archive})}
    assert archives_to_protect(world.state, backup.store_until_ns) == {}
    world.run(ChangeStoreUntil(backup_id=backup_id, store_until="2099-01-01T00:00:00"))
    assert archives_to_protect(world.state, backup.store_until_ns) == {1: frozenset({backup.archive})}
    world.run(ChangeConfiguration(changes={"immutable_archives": False}))
    assert archives_to_protect(world.state, world.now_ns) == {}
    world.run(ChangeConfiguration(changes={"immutable_archives": True}))
    world.run(DeleteBackups(ids=[backup_id]))
    assert archives_to_protect(world.state, world.now_ns) == {}


class OneLog:
    """A log of which only the end is listened to."""

    def __init__(self) -> None:
        self.head = 0
        self.send, self._receive = trio.open_memory_channel[list[Any]](10)

    async def subscribe(self, after: int) -> AsyncIterator[list[Any]]:
        async for batch in self._receive:
            yield batch


class Catalogs:
    def __init__(self) -> None:
        self.asked: list[tuple[float, frozenset[str]]] = []
        self.offline = False

    async def ask(self, catalog_id: int, order: AlignProtection, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append((round(trio.current_time()), order.wanted))
        if self.offline:
            raise Unavailable("nobody answers")


class Told:
    """As much of an envelope as is looked at."""

    def __init__(self, type: str, stream: str) -> None:
        self.type, self.stream = type, stream


class Clock:
    def now_ns(self) -> int:
        return SIMULATION_EPOCH_NS + round(trio.current_time() * SECOND_NS)


@asynccontextmanager
async def protecting(world: World, catalogs: Catalogs) -> AsyncIterator[OneLog]:
    log = OneLog()

    class Journal:
        state = world.state

    class Host:
        clock = Clock()

    journal: Any = Journal()
    journal.log = log
    host: Any = Host()
    stores: Any = catalogs
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Protector(journal, stores, host).run)
        yield log
        nursery.cancel_scope.cancel()


async def test_it_looks_at_news_and_now_and_then_and_not_all_the_time(world: World, autojump_clock: MockClock) -> None:
    backup = world.state.find(Backup, world.backed_up())
    assert backup is not None
    catalogs = Catalogs()
    async with protecting(world, catalogs) as log:
        await trio.sleep(1)
        assert catalogs.asked == [(0, frozenset({backup.archive}))]
        await log.send.send([Told("task.noted", "task/1")])
        await trio.sleep(30)
        assert len(catalogs.asked) == 1, "no news"
        for _ in range(3):
            await log.send.send([Told("backup.recorded", "backup/2")])
            await trio.sleep(0.1)
        await trio.sleep(3 * PAUSE_SECONDS)
        assert len(catalogs.asked) <= 3, "news that come together are one look, and one for what came meanwhile"
        count = len(catalogs.asked)
        catalogs.offline = True
        await log.send.send([Told("record.changed", "configuration/1")])
        await trio.sleep(2 * PAUSE_SECONDS)
        assert len(catalogs.asked) == count + 1
        await trio.sleep(LOOK_SECONDS + PAUSE_SECONDS)
        assert len(catalogs.asked) > count + 1, "what was offline is told again"
