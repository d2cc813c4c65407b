"""Global configuration and service mode over HTTP: every documented code, the manual's example, time travel, who may."""

from __future__ import annotations

import pytest

from httpapi.rubackup.catalogue import facts
from rbcore.vocabulary import GLOBAL_CONFIGURATION
from tests.httpapi.house import BACKUP_TASK, House
from tests.httpapi.stories import queued, running

EXAMPLE = facts()["PATCH /global_configuration"].request_example


async def test_before_any_change_every_key_has_the_manuals_value(house: House) -> None:
    answer = await house.call("GET", "global_configuration")
    assert answer.status == 200
    assert answer.data == {"service_mode": False, **EXAMPLE["data"]}
    assert len(GLOBAL_CONFIGURATION) == 54


async def test_the_manuals_example_changes_nothing_and_is_taken(house: House) -> None:
    before = (await house.call("GET", "global_configuration")).position
    answer = await house.call("PATCH", "global_configuration", EXAMPLE)
    assert (answer.status, answer.data, answer.position) == (200, {"changed": []}, before)


async def test_a_change_is_partial_shown_and_has_a_past(house: House) -> None:
    before = (await house.call("GET", "global_configuration")).position
    body = {"data": {"monitoring_period": 5, "rb_key_hash": "00ff", "auto_clean_tape_drives": "yes"}}
    answer = await house.call("PATCH", "global_configuration", body)
    assert (answer.status, answer.message) == (200, "global configuration parameters changed")
    assert answer.data == {"changed": sorted(body["data"])}
    first = answer.position
    await house.call("PATCH", "global_configuration", {"data": {"immutable_archives": False}})
    assert (await house.call("GET", "global_configuration")).data == {
        "service_mode": False,
        **EXAMPLE["data"],
        **body["data"],
        "immutable_archives": False,
    }
    then = await house.call("GET", f"global_configuration?at={first}")
    assert (then.data["monitoring_period"], then.data["immutable_archives"], then.position) == (5, True, first)
    long_ago = await house.call("GET", f"global_configuration?at={before}")
    assert long_ago.data == {"service_mode": False, **EXAMPLE["data"]}


async def test_a_refusal_names_every_bad_key_and_changes_none(house: House) -> None:
    asked = {"monitoring_period": 0, "no_such_key": 1, "service_mode": True, "mandatory_storage_time": 3}
    answer = await house.call("PATCH", "global_configuration", {"data": asked})
    assert answer.status == 400
    assert set(answer.errors) == {"monitoring_period", "no_such_key", "service_mode"}
    assert (await house.call("GET", "global_configuration")).data["mandatory_storage_time"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "data"),
        ({"data": []}, "data"),
        ({"data": {}, "more": 1}, "more"),
        ({"monitoring_period": 1}, "monitoring_period"),
        ({"data": {"file_transfer_block_size": 5_000}}, "file_transfer_block_size"),
        ({"data": {"service_window_start": "24:00:00"}}, "service_window_start"),
    ],
)
async def test_malformed_bodies_are_refused_by_field(house: House, body: object, field: str) -> None:
    answer = await house.call("PATCH", "global_configuration", body)
    assert answer.status == 400
    assert field in answer.errors


@pytest.mark.parametrize(("given", "on"), [(True, True), ("yes", True), (False, False), ("no", False)])
async def test_service_mode_is_set_without_a_wrapper(house: House, given: object, on: bool) -> None:
    answer = await house.call("PATCH", "global_configuration/service_mode", {"service_mode": given})
    assert (answer.status, answer.message, answer.data) == (200, "service mode status changed", {"service_mode": on})
    assert (await house.call("GET", "global_configuration")).data["service_mode"] is on
    assert (await house.call("GET", "server_state")).data["service_mode"] is on


@pytest.mark.parametrize("body", [{}, {"service_mode": 1}, {"service_mode": None}, {"data": {"service_mode": True}}])
async def test_anything_else_is_no_service_mode(house: House, body: object) -> None:
    answer = await house.call("PATCH", "global_configuration/service_mode", body)
    assert answer.status == 400
    assert answer.errors


async def test_in_service_mode_no_task_is_taken_and_what_runs_goes_on(house: House) -> None:
    await house.add_client()
    task_id = await queued(house)
    await running(house, task_id)
    await house.call("PATCH", "global_configuration/service_mode", {"service_mode": True})
    answer = await house.call("POST", "task_queue", {"data": {"task": BACKUP_TASK | {"resource": "/srv"}}})
    assert answer.status == 400
    assert "service mode" in answer.message
    assert (await house.call("GET", f"task_queue/{task_id}")).data["status"] == "Transmission"
    await house.call("PATCH", "global_configuration/service_mode", {"service_mode": False})
    assert (
        await house.call("POST", "task_queue", {"data": {"task": BACKUP_TASK | {"resource": "/srv"}}})
    ).status == 201
