"""The housekeeper under the virtual clock: ended tasks leave the queue when their period is over, also when that is changed meanwhile."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from actors.housekeeper import LOOK_SECONDS, Housekeeper
from actors.journal import JournalActor
from drivers.simulated.world import SimulatedWorld
from eventlog.memory_log import open_memory_log
from rbcore.commands import (
    AgentHello,
    AuthoriseClients,
    ChangeConfiguration,
    Initialise,
    KillTask,
    Order,
    QueueBackup,
    Reply,
)
from rbcore.entities import Task
from tests.core.world import hello_of, task_body


async def test_killed_tasks_go_by_themselves(autojump_clock: MockClock) -> None:
    world = SimulatedWorld.of_seed(1)
    async with open_memory_log() as log, trio.open_nursery() as nursery:
        journal = JournalActor(log, world)
        await journal.recover()
        count = 0

        async def run(command: Any) -> Reply:
            nonlocal count
            count += 1
            return await journal.execute(Order(command=command, command_id=f"test-{count}", actor="user:rubackup"))

        await run(
            Initialise(hostname="m", hwid="ab" * 8, superuser="rubackup", credential_id="c", default_catalog_path="/d")
        )
        hello: AgentHello = hello_of()
        row = (await run(hello)).ids[0]
        await run(AuthoriseClients(ids=[row]))
        await run(hello)
        for resource in ("/a", "/b"):
            task_id = (await run(QueueBackup(task=task_body(resource=resource)))).ids[0]
            if resource == "/a":
                await run(KillTask(task_id=task_id))
        nursery.start_soon(Housekeeper(journal, world).run)
        await trio.sleep(6 * 86_400)
        assert len(list(journal.state.all(Task))) == 2, "a week is the default"
        await run(ChangeConfiguration(changes={"killed_tasks_remove_period": 60}))
        await trio.sleep(LOOK_SECONDS + 1)
        assert [one.resource for one in journal.state.all(Task)] == ["/b"], "what has not ended stays"
        (*_, last) = log.read(0, log.head)
        assert (last.type, last.actor) == ("task.removed", "actor:housekeeper")
        nursery.cancel_scope.cancel()
