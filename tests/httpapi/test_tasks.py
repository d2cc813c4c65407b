"""The task queue: what may be asked of it, and that it explains itself."""

from __future__ import annotations

from typing import Any

import pytest

from actors.port import Progress
from httpapi.rubackup.catalogue import facts
from rbcore.commands import AssignTask, CatalogFacts, KillTask, NoteTask
from tests.httpapi.house import BACKUP_TASK, House, parse_queue_number
from tests.httpapi.stories import assigned, backed_up, failed, queued, running


async def test_the_manuals_backup_is_queued_as_documented(house: House) -> None:
    await house.add_client()
    example = facts()["POST /task_queue"].request_example
    body = example | {"data": example["data"] | {"task": BACKUP_TASK}}
    answer = await house.call("POST", "task_queue", body)
    documented = facts()["POST /task_queue"].response_example["message"]
    assert answer.status == 201
    number = parse_queue_number(answer.message)
    assert answer.message == documented.replace("<queue number>", str(number))
    assert answer.data == {"task_id": number}
    task = (await house.call("GET", f"task_queue/{number}")).data
    assert (task["status"], task["resource"], task["pool"], task["storage_duration"]) == (
        "New",
        "/home/",
        "Default",
        "1 year",
    )
    extensions = example["data"]["module_extensions"]
    assert task["parameters"]["module_extensions"] == extensions
    stored = await house.call("GET", f"task_queue/extension?resourse_type=File%20system&id={number}")
    assert stored.data["module_extensions"] == extensions


@pytest.mark.parametrize("key", sorted(BACKUP_TASK))
async def test_each_of_the_nine_keys_is_required_and_checked(house: House, key: str) -> None:
    await house.add_client()
    without = {name: value for name, value in BACKUP_TASK.items() if name != key}
    answer = await house.call("POST", "task_queue", {"data": {"task": without}})
    assert answer.status == 400
    assert answer.errors == {key: ["This field is required."]}
    wrong = await house.call("POST", "task_queue", {"data": {"task": BACKUP_TASK | {key: [1]}}})
    assert wrong.status == 400
    assert list(wrong.errors) == [key]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"data": {}}, "task"),
        ({"task": BACKUP_TASK}, "task"),
        ({"data": {"task": BACKUP_TASK | {"nonsense": 1}}}, "nonsense"),
        ({"data": {"task": BACKUP_TASK, "nonsense": 1}}, "nonsense"),
        ({"data": {"task": BACKUP_TASK, "module_extensions": {"file_list": True}}}, "file_list"),
        ({"data": {"task": BACKUP_TASK, "module_extensions": {"parameters": []}}}, "parameters"),
        ({"data": {"task": []}}, "task"),
    ],
)
async def test_bad_bodies_name_the_field(house: House, body: Any, field: str) -> None:
    await house.add_client()
    answer = await house.call("POST", "task_queue", body)
    assert answer.status == 400
    assert list(answer.errors) == [field], answer.raw


async def test_the_verbs(house: House) -> None:
    await house.add_client()
    task = await queued(house)
    body = {"data": {"task_id": task}}

    async def status() -> str:
        return str((await house.call("GET", f"task_queue/{task}")).data["status"])

    assert (await house.call("POST", "put_task_on_pause", body)).message == "task paused"
    assert await status() == "Paused"
    assert (await house.call("POST", "put_task_on_pause", body)).status == 400
    assert (await house.call("POST", "continue_task_working", body)).message == "task resumed"
    assert await status() == "New"
    assert (await house.call("POST", "continue_task_working", body)).status == 400
    assert (await house.call("POST", "kill_task", body)).message == "task killed"
    assert await status() == "Killed"
    refused = await house.call("POST", "kill_task", body)
    assert refused.status == 400
    assert "Killed" in refused.message
    restarted = await house.call("POST", "restart_task", {"data": {"tasks_ids": [task]}})
    assert restarted.status == 201
    (new,) = restarted.data["tasks_ids"]
    assert (await house.call("GET", f"task_queue/{new}")).data["restarted_from"] == task
    for path in ("put_task_on_pause", "continue_task_working", "kill_task"):
        missing = await house.call("POST", path, {"data": {"task_id": 999}})
        assert (missing.status, missing.message) == (404, "task not found")
        bad_bodies: list[Any] = [{"data": {"task_id": one}} for one in ("1", 0, 1.5, None)]
        for bad in (*bad_bodies, {"task_id": 1}, {"data": {}}):
            assert (await house.call("POST", path, bad)).status == 400


async def test_deletion_by_id_ids_and_word(house: House) -> None:
    await house.add_client()
    assert (await house.call("DELETE", "task_queue/killed")).message == "no tasks with the chosen status in the queue"
    assert (await house.call("DELETE", "task_queue/killed")).status == 404
    assert (await house.call("DELETE", "task_queue/nonsense")).status == 400
    tasks = [await queued(house) for _ in range(5)]
    assert (await house.call("DELETE", f"task_queue/{tasks[0]}")).data == {"ids": [tasks[0]]}
    assert (await house.call("DELETE", f"task_queue/{tasks[0]}")).status == 404
    await running(house, tasks[1])
    assert (await house.call("DELETE", f"task_queue/{tasks[1]}")).status == 400, "a running task is killed first"
    assert (await house.call("DELETE", "task_queue", {"ids": tasks[1:]})).status == 400
    for task in tasks[2:4]:
        await house.execute(KillTask(task_id=task))
    gone = await house.call("DELETE", "task_queue/killed")
    assert (gone.status, gone.data["ids"]) == (200, tasks[2:4])
    await failed(house, tasks[4])
    assert (await house.call("DELETE", "task_queue/error")).data["ids"] == [tasks[4]]
    await backed_up(house)
    assert (await house.call("DELETE", "task_queue/obsoleted/")).status == 200


async def test_journals_tell_both_sides_and_survive_the_task(house: House) -> None:
    await house.add_client()
    task = await queued(house)
    empty = await house.call("GET", f"client_task_info?id={task}")
    assert (empty.status, empty.data["items"]) == (200, [])
    await failed(house, task)
    note = NoteTask(task_id=task, side="client", severity="warning", lines=["a file vanished", "another one"])
    await house.execute(note, "client:x")
    client = (await house.call("GET", f"client_task_info?id={task}")).data
    assert [(line["severity"], line["text"]) for line in client["items"]] == [
        ("warning", "a file vanished"),
        ("warning", "another one"),
    ]
    server = (await house.call("GET", f"server_task_info?id={task}&sort_order=desc&limit=1")).data
    assert "the module said no" in server["items"][0]["text"]
    assert server["total"] > 3
    await house.call("DELETE", f"task_queue/{task}")
    assert (await house.call("GET", f"client_task_info?id={task}")).data["total"] == 2
    for path in ("client_task_info?id=999", "server_task_info?id=999"):
        assert (await house.call("GET", path)).status == 404
    assert (await house.call("GET", "client_task_info")).errors == {"id": ["This parameter is required."]}


async def test_progress_comes_from_telemetry_and_not_from_the_log(house: House) -> None:
    client = await house.add_client()
    house.sessions.connected.add(client)
    task = await queued(house)
    await running(house, task)
    head = house.log.head
    house.sessions.running[task] = Progress(
        task_id=task, bytes_done=250, bytes_total=1000, files_done=3, bytes_per_second=50.0, updated_ns=1
    )
    answer = await house.call("GET", f"task_queue/{task}/progress")
    assert answer.data == {
        "task_id": task,
        "status": "Transmission",
        "bytes_done": 250,
        "bytes_total": 1000,
        "files_done": 3,
        "bytes_per_second": 50.0,
        "percent": 25.0,
        "seconds_remaining": 15.0,
    }
    assert (await house.call("GET", f"task_queue/{task}")).data["progress"] == 25
    assert (await house.call("GET", "task_queue")).data["items"][0]["progress"] == 25
    assert (await house.call("GET", f"task_queue/{task}?at={head}")).data["progress"] == 0
    assert house.log.head == head
    assert (await house.call("GET", "task_queue/999/progress")).status == 404


async def test_why_tells_causes_choices_and_rejected_options_in_order(house: House) -> None:
    await house.add_client()
    task = await queued(house, backup_type="incremental")
    full = CatalogFacts(local_catalog_id=1, online=True, free_bytes=0)
    await house.execute(AssignTask(task_id=task, catalogs=[full], client_online=True), "actor:dispatcher")
    told = (await house.call("GET", f"task_queue/{task}/why")).data
    assert [row["event"] for row in told["items"]] == ["task.queued", "task.status_changed"]
    assert "Suspended" in told["items"][1]["text"]
    at = (await house.call("GET", f"task_queue/{task}")).position
    await house.call("POST", "continue_task_working", {"data": {"task_id": task}})
    await assigned(house, task)
    told = (await house.call("GET", f"task_queue/{task}/why")).data
    positions = [row["id"] for row in told["items"]]
    assert positions == sorted(positions)
    assigned_row = next(row for row in told["items"] if row["event"] == "task.assigned")
    assert assigned_row["actor"] == "actor:dispatcher"
    assert assigned_row["details"]["backup_type"] == "full"
    assert any(row["actor"] == "user:rubackup" for row in told["items"])
    assert (await house.call("GET", f"task_queue/{task}/why?at={at}")).data["total"] == 2
    assert (await house.call("GET", "task_queue/999/why")).status == 404


async def test_why_shows_the_backup_that_was_recorded_with_the_task(house: House) -> None:
    await house.add_client()
    backup = await backed_up(house)
    task = (await house.call("GET", f"repository/{backup}")).data["task_id"]
    told = (await house.call("GET", f"task_queue/{task}/why")).data["items"]
    assert {row["stream"] for row in told} == {f"task/{task}", f"backup/{backup}"}


async def test_extension_describes_the_parameters(house: House) -> None:
    answer = await house.call("GET", "task_queue/extension?resourse_type=File%20system")
    sample = facts()["POST /task_queue"].request_example["data"]
    assert answer.data["module_extensions"] == sample["module_extensions"]
    assert answer.data["common_modules_extensions"] == sample["common_modules_extensions"]
    named = [one["name"] for one in answer.data["form"]["module_extensions"]]
    assert named == list(sample["module_extensions"]["parameters"])
    assert (await house.call("GET", "task_queue/extension")).status == 400
    assert (await house.call("GET", "task_queue/extension?resourse_type=Floppy")).status == 400
    assert (await house.call("GET", "task_queue/extension?resourse_type=File%20system&id=999")).status == 404
