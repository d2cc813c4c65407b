"""What the rest of the house does to a task while the API looks on."""

from __future__ import annotations

from rbcore.commands import AdvanceTask, AssignTask, CatalogFacts, RecordBackup
from rbcore.entities import LocalCatalog, Task
from rbcore.vocabulary import RUNNING_STATUSES
from tests.httpapi.house import BACKUP_TASK, House


def catalogs(house: House, free_bytes: int = 10**13) -> list[CatalogFacts]:
    return [
        CatalogFacts(local_catalog_id=one.id, online=True, free_bytes=free_bytes)
        for one in house.journal.state.all(LocalCatalog)
    ]


async def queued(house: House, **fields: object) -> int:
    answer = await house.call("POST", "task_queue", {"data": {"task": BACKUP_TASK | fields}})
    assert answer.status == 201, answer.raw
    return int(answer.data["task_id"])


async def assigned(house: House, task_id: int) -> None:
    await house.execute(AssignTask(task_id=task_id, catalogs=catalogs(house), client_online=True), "actor:dispatcher")


async def running(house: House, task_id: int) -> None:
    await assigned(house, task_id)
    for status in RUNNING_STATUSES:
        await house.execute(AdvanceTask(task_id=task_id, status=status), "actor:dispatcher")


async def failed(house: House, task_id: int) -> None:
    await running(house, task_id)
    await house.execute(AdvanceTask(task_id=task_id, status="Error", reason="the module said no"), "actor:dispatcher")


async def backed_up(house: House, **fields: object) -> int:
    """Id of a finished backup in the repository."""
    return await finished(house, await queued(house, **fields))


async def finished(house: House, task_id: int) -> int:
    """Carry a backup task to its end; id of the backup."""
    await running(house, task_id)
    task = house.journal.state.find(Task, task_id)
    assert task is not None
    reply = await house.execute(
        RecordBackup(
            task_id=task_id,
            archive=task.archive,
            archive_size=1000,
            data_size=3000,
            files=3,
            problems=0,
            blocks=5,
            root="ab" * 32,
            signature="cd" * 64,
            signature_valid=True,
            key_id="",
        ),
        "actor:storage",
    )
    return reply.ids[0]
