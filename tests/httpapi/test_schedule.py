"""Rules, strategies and their rules over HTTP: the manual's own bodies, and every code it documents."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from httpapi.rubackup.catalogue import facts
from rbcore.commands import AgentHello, KillTask
from rbcore.entities import Client, Task
from tests.httpapi.house import CLIENT, HWID, House
from tests.httpapi.stories import backed_up, finished


def example(method: str, **changes: Any) -> dict[str, Any]:
    """The manual's body; ``changes`` go into the record that it holds."""
    body: dict[str, Any] = deepcopy(facts()[method].request_example)
    data = body["data"]
    for key in ("global_schedule", "strategy_rule"):
        if key in data:
            data = data[key]
    data |= changes
    return body


async def made(house: House, path: str, **changes: Any) -> int:
    answer = await house.call("POST", path, example(f"POST /{path}", **changes))
    assert answer.status == 201, answer.raw
    return int(answer.data["id"])


async def rule(house: House, **changes: Any) -> int:
    return await made(house, "global_schedule", **changes)


@pytest.fixture
async def client(house: House) -> int:
    assert (await house.login()).status == 200
    return await house.add_client()


def hello_again(house: House, *resource_types: str) -> AgentHello:
    """The agent reports itself anew, with these modules; it is online then."""
    known = house.journal.state.by_key(Client, HWID)
    assert known is not None
    facts_of = ("hwid", "hostname", "public_key", "address", "os_type", "os_version", "agent_version")
    return AgentHello(resource_types=list(resource_types), **{name: getattr(known, name) for name in facts_of})


def task_of(house: House, task_id: int) -> Task:
    found = house.journal.state.find(Task, task_id)
    assert found is not None
    return found


# --- rules -------------------------------------------------------------------------------------------------------------


async def test_the_manuals_rule_is_made_and_shown_as_it_was_given(house: House, client: int) -> None:
    body = example("POST /global_schedule")
    answer = await house.call("POST", "global_schedule", body)
    assert (answer.status, answer.message) == (201, "Resource with name 'Global Schedule' was created successfully!")
    shown = (await house.call("GET", f"global_schedule/{answer.data['id']}")).data
    for name, value in body["data"]["global_schedule"].items():
        assert shown[name] == value, name
    for name in ("module_extensions", "common_modules_extensions"):
        assert shown[name] == body["data"][name]
    listed = (await house.call("GET", "global_schedule")).data
    assert listed["total"] == 1
    assert listed["items"][0].items() <= shown.items()


async def test_the_manuals_change_changes_all_it_names(house: House, client: int) -> None:
    rule_id = await rule(house, name="before", priority=7, min=30, notify_normal_cc="")
    body = example("PATCH /global_schedule/{id}")
    answer = await house.call("PATCH", f"global_schedule/{rule_id}", body)
    assert (answer.status, answer.message) == (200, "global schedule rule parameters changed")
    shown = (await house.call("GET", f"global_schedule/{rule_id}")).data
    assert body["data"]["global_schedule"].items() <= shown.items()


async def test_client_resource_type_and_crypto_of_a_rule_never_change(house: House, client: int) -> None:
    rule_id = await rule(house)
    before = (await house.call("GET", f"global_schedule/{rule_id}")).data
    changes = {"client_id": "x", "resource_type": "y", "resource": "/etc", "backup_type": "z", "crypto": "AES-256-GCM"}
    body = {"data": {"global_schedule": changes}}
    assert (await house.call("PATCH", f"global_schedule/{rule_id}", body)).status == 200
    assert (await house.call("GET", f"global_schedule/{rule_id}")).data == before


async def test_parameters_of_the_module_can_change_alone(house: House, client: int) -> None:
    rule_id = await rule(house)
    body = {"data": {"module_extensions": {"parameters": {"numeric_owner": True}}}}
    assert (await house.call("PATCH", f"global_schedule/{rule_id}", body)).status == 200
    form = (await house.call("GET", f"global_schedule/extension?resourse_type=File%20system&id={rule_id}")).data
    assert form["module_extensions"]["parameters"]["numeric_owner"] is True
    assert form["common_modules_extensions"]["parameters"]["worker_parallelism"] == 8
    defaults = (await house.call("GET", "global_schedule/extension?resourse_type=File%20system")).data
    assert defaults["module_extensions"]["parameters"]["numeric_owner"] is False
    missing = await house.call("GET", "global_schedule/extension?resourse_type=File%20system&id=99")
    assert (missing.status, missing.message) == (404, "global schedule rule not found")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"min": 60}, "min"),
        ({"hour": 24}, "hour"),
        ({"dom": 0}, "dom"),
        ({"dom": 32}, "dom"),
        ({"mon": 0}, "mon"),
        ({"mon": 13}, "mon"),
        ({"dow": 8}, "dow"),
        ({"dow": "1-5"}, "dow"),
        ({"dom": 30, "mon": 2}, "dom"),
        ({"periodic_launch": "30 sec"}, "periodic_launch"),
        ({"periodic_launch": "often"}, "periodic_launch"),
        (
            {"periodic_launch": None, "min": None, "hour": None, "dom": None, "mon": None, "dow": None},
            "periodic_launch",
        ),
        ({"validity_end_period": "2024-09-02T15:40:01.208623"}, "validity_end_period"),
        ({"validity_start_period": "tomorrow"}, "validity_start_period"),
        ({"verify_flag": True, "verify_interval": None}, "verify_interval"),
        ({"verify_interval": "0 sec"}, "verify_interval"),
        ({"storage_duration": "0 days"}, "storage_duration"),
        ({"move_copy_flag": True}, "move_copy_pool"),
        ({"move_copy_flag": True, "move_copy_pool": None}, "move_copy_pool"),
        ({"move_copy_pool": "nowhere"}, "move_copy_pool"),
        ({"pool_id": "nowhere"}, "pool_id"),
        ({"client_id": "rubackup-client"}, "client_id"),
        ({"client_id": "other (0123456789abcdef)"}, "client_id"),
        ({"resource_type": "File cabinet"}, "resource_type"),
        ({"resource_type": "PostgreSQL universal"}, "resource_type"),
        ({"resource": "home"}, "resource"),
        ({"resource": "/home/../etc"}, "resource"),
        ({"backup_type": "half"}, "backup_type"),
        ({"priority": -1}, "priority"),
        ({"storage_capacity": 2**40}, "storage_capacity"),
        ({"crypto": "rot13"}, "crypto"),
        ({"status": "sleep"}, "status"),
        ({"notify_normal": "nobody at all"}, "notify_normal"),
        ({"notify_verify_cc": "a@b.c, d"}, "notify_verify_cc"),
        ({"notify_verify_cc": "a@b.c\r\nBcc: d@e.f"}, "notify_verify_cc"),
        ({"colour": "red"}, "colour"),
        ({"module_extensions": {}}, "module_extensions"),
    ],
)
async def test_what_is_wrong_with_a_rule_is_named(
    house: House, client: int, changes: dict[str, Any], field: str
) -> None:
    head = house.log.head
    answer = await house.call("POST", "global_schedule", example("POST /global_schedule", **changes))
    assert answer.status == 400
    assert field in answer.errors
    assert house.log.head == head


async def test_any_value_of_a_time_is_null_and_sunday_is_0(house: House, client: int) -> None:
    rule_id = await rule(house, min=-1, hour=3, dom=None, mon=-1, dow=7, periodic_launch=None)
    shown = (await house.call("GET", f"global_schedule/{rule_id}")).data
    assert [shown[one] for one in ("min", "hour", "dom", "mon", "dow")] == [None, 3, None, None, 0]


async def test_what_nobody_gave_has_the_documented_defaults(house: House, client: int) -> None:
    needed = ("name", "client_id", "resource_type", "resource", "backup_type", "pool_id", "hour")
    full = example("POST /global_schedule")["data"]["global_schedule"]
    body = {"data": {"global_schedule": {name: full[name] for name in needed}}}
    answer = await house.call("POST", "global_schedule", body)
    assert answer.status == 201, answer.raw
    shown = (await house.call("GET", f"global_schedule/{answer.data['id']}")).data
    assert (shown["status"], shown["crypto"], shown["priority"]) == ("wait", "nocrypt", 100)
    assert (shown["validity_start_period"], shown["validity_end_period"], shown["min"]) == (None, None, None)
    assert (shown["notify_normal"], shown["inform_when_obsoleted_copy"]) == ("Nobody", "Nobody")
    assert shown["module_extensions"] == {"parameters": {}}
    for name in needed[:-1]:
        body = {"data": {"global_schedule": {one: full[one] for one in needed if one != name}}}
        missing = await house.call("POST", "global_schedule", body)
        assert (missing.status, list(missing.errors)) == (400, [name])


# --- statuses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "key"), [("global_schedule", "id"), ("backup_strategies", "strategy_id"), ("reports", "id")]
)
async def test_statuses_change_together_or_not_at_all(house: House, client: int, path: str, key: str) -> None:
    ids = [await made(house, path, name=f"record {number}") for number in range(2)]

    async def statuses() -> list[str]:
        return [(await house.call("GET", f"{path}/{one}")).data["status"] for one in ids]

    answer = await house.call("PATCH", path, {"data": [{key: one, "status": "run"} for one in ids]})
    assert (answer.status, answer.data) == (200, {"ids": ids})
    assert answer.message == facts()[f"PATCH /{path}"].responses["200"]
    assert await statuses() == ["run", "run"]
    head = house.log.head
    refused: list[tuple[Any, int]] = [
        ([{key: ids[0], "status": "wait"}, {key: 99, "status": "wait"}], 404),
        ([{key: ids[0], "status": "wait"}, {key: ids[1], "status": "sleep"}], 400),
        ([{key: ids[0], "status": "wait"}, {key: ids[0], "status": "run"}], 400),
        ([{key: ids[0]}], 400),
        ([{"number": ids[0], "status": "wait"}], 400),
        ([{key: 0, "status": "wait"}], 400),
        ([], 400),
        ({key: ids[0], "status": "wait"}, 400),
    ]
    for data, status in refused:
        assert (await house.call("PATCH", path, {"data": data})).status == status, data
    assert house.log.head == head
    assert await statuses() == ["run", "run"]


# --- execution ---------------------------------------------------------------------------------------------------------


async def test_a_rule_that_waits_is_executed_by_hand(house: House, client: int) -> None:
    rule_id = await rule(house, priority=7, storage_duration="30 days", status="wait", crypto="AES-256-GCM")
    answer = await house.call("POST", f"global_schedule/{rule_id}/execution")
    task_id = answer.data["task_id"]
    assert answer.status == 200
    assert answer.message == f"global schedule rule executed TASK WAS ADDED TO QUEUE:{task_id}"
    task = (await house.call("GET", f"task_queue/{task_id}")).data
    shown = {name: task[name] for name in ("task_type", "status", "rule_id", "client", "resource", "pool", "crypto")}
    assert shown == {
        "task_type": "Backup global",
        "status": "New",
        "rule_id": rule_id,
        "client": CLIENT,
        "resource": "/home/",
        "pool": "Default",
        "crypto": "AES-256-GCM",
    }
    assert (task["priority"], task["storage_duration"], task["strategy_id"]) == (7, "30 days", None)
    body = example("POST /global_schedule")["data"]
    assert task["parameters"] == {name: body[name] for name in ("module_extensions", "common_modules_extensions")}
    by_rule = await house.call("GET", f"task_queue?filter_data=rule_id%3D%22{rule_id}%22")
    assert [one["id"] for one in by_rule.data["items"]] == [task_id]


async def test_the_backup_of_a_rule_its_copy_and_a_restart_are_of_the_rule(house: House, client: int) -> None:
    rule_id = await rule(house)
    urgent = await backed_up(house)
    task_id = (await house.call("POST", f"global_schedule/{rule_id}/execution")).data["task_id"]
    await house.execute(KillTask(task_id=task_id))
    again = (await house.call("POST", "restart_task", {"data": {"tasks_ids": [task_id]}})).data["tasks_ids"][0]
    assert task_of(house, again).rule_id == rule_id
    backup = await finished(house, again)
    assert (await house.call("GET", f"repository/{backup}")).data["rule_id"] == rule_id
    assert (await house.call("GET", f"repository/{urgent}")).data["rule_id"] is None


async def test_execution_of_nothing_is_404_and_of_what_cannot_be_is_400(house: House, client: int) -> None:
    for missing in ("99", "x"):
        answer = await house.call("POST", f"global_schedule/{missing}/execution")
        assert (answer.status, answer.message) == (404, "global schedule rule not found")
    rule_id = await rule(house)
    await house.execute(hello_again(house), f"client:{HWID}")
    head = house.log.head
    answer = await house.call("POST", f"global_schedule/{rule_id}/execution")
    assert (answer.status, list(answer.errors)) == (400, ["resource_type"])
    assert house.log.head == head


# --- deletion ----------------------------------------------------------------------------------------------------------


async def test_a_rule_is_deleted_when_its_tasks_have_ended_and_its_backups_stay(house: House, client: int) -> None:
    first, second = await rule(house), await rule(house)
    task_id = (await house.call("POST", f"global_schedule/{first}/execution")).data["task_id"]
    refused = await house.call("DELETE", "global_schedule", {"ids": [second, first]})
    assert refused.status == 400
    assert str(task_id) in refused.errors[str(first)][0]
    backup = await finished(house, task_id)
    assert (await house.call("DELETE", "global_schedule", {"ids": [second, 99]})).status == 404
    gone = await house.call("DELETE", f"global_schedule/{first}")
    assert (gone.status, gone.message) == (200, "global schedule rule deleted")
    assert (await house.call("GET", f"repository/{backup}")).data["rule_id"] == first
    assert (await house.call("DELETE", "global_schedule", {"ids": [second]})).data == {"ids": [second]}
    assert (await house.call("GET", "global_schedule")).data["total"] == 0
    assert (await house.call("GET", f"global_schedule/{first}")).status == 404
