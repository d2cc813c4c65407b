"""The start of a daemon on a log of an earlier release: what that did not have yet is added once, and what it had stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from actors.journal import JournalActor
from drivers.simulated.world import SimulatedWorld
from eventlog import Batch
from eventlog.memory_log import MemoryLog, open_memory_log
from rbcore.commands import CreateRecord, Order
from rbcore.entities import User, UserGroup
from rbcore.events import NewEvent, RecordCreated
from rbcore.vocabulary import NOBODY
from rbmedia.secrets import initialise
from rbmedia.settings import Home, Settings

RELEASED: list[tuple[str, dict[str, Any]]] = [
    # the first start of the release before there were user groups, as it stands in its logs
    ("media_server/1", {"hostname": "main", "hwid": "ab" * 8, "type": "main", "local_service_mode": "no"}),
    ("client_group/1", {"name": "No group", "protected": True}),
    ("pool/1", {"pool_name": "Default", "pool_type": "File system", "media_server": 1, "protected": True}),
    ("local_catalog/1", {"path": "/srv/default", "pool": 1}),
    ("user/1", {"username": "rubackup", "roles": ["superuser"], "credential_id": "first", "protected": True}),
]


class NoCredentials:
    """An installation that is there draws no password."""

    async def create(self, password: str) -> str:
        raise AssertionError("a password was drawn")

    async def verify(self, credential_id: str, password: str) -> bool:
        raise AssertionError("nobody signs in")

    async def remove(self, credential_id: str) -> None:
        raise AssertionError("nothing is removed")


async def earlier(log: MemoryLog) -> None:
    batch = Batch(
        events=[NewEvent(stream, RecordCreated(fields)) for stream, fields in RELEASED],
        expected={},
        command_id="initialise-first",
        actor="actor:daemon",
        causation=0,
        correlation="initialise-first",
        time_ns=1,
        answer=msgspec.msgpack.encode(None),
    )
    await log.submit(batch).durable()


async def started(log: MemoryLog, world: SimulatedWorld, home: Path) -> JournalActor:
    journal = JournalActor(log, world)
    await journal.recover()
    await initialise(journal, NoCredentials(), world, Settings(), Home(home))
    return journal


async def test_an_earlier_installation_gets_the_built_in_user_group_once(
    tmp_path: Path, autojump_clock: object
) -> None:
    world = SimulatedWorld.of_seed(1)
    async with open_memory_log() as log:
        await earlier(log)
        journal = await started(log, world, tmp_path)
        (nobody,) = journal.state.all(UserGroup)
        assert (nobody.id, nobody.groupname, nobody.protected) == (1, NOBODY, True)
        head = log.head
        assert head == len(RELEASED) + 1
        again = await started(log, world, tmp_path)
        assert log.head == head
        (superuser,) = again.state.all(User)
        assert superuser.roles == ("superuser",)
        assert superuser.group_id == nobody.id
        command = CreateRecord(resource="supervisors", fields={"supervisor": "rubackup"})
        await again.execute(Order(command=command, command_id="role", actor="user:rubackup"))
        (superuser,) = again.state.all(User)
        assert superuser.roles == ("superuser", "supervisor"), "the role that the old record carries stays"


async def test_a_full_log_volume_does_not_keep_the_daemon_from_starting(tmp_path: Path, autojump_clock: object) -> None:
    world = SimulatedWorld.of_seed(1)
    async with open_memory_log() as log:
        await earlier(log)
        log.fill()
        journal = await started(log, world, tmp_path)
        assert not list(journal.state.all(UserGroup))
        log.make_room()
        journal = await started(log, world, tmp_path)
        assert [one.groupname for one in journal.state.all(UserGroup)] == [NOBODY]
