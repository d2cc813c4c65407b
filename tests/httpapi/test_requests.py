"""Requests of clients, recovery plans, reports and bandwidth limits over HTTP; what refers to something keeps it; the server's state."""

from __future__ import annotations

from typing import Any

import pytest

from httpapi.rubackup.catalogue import facts
from rbcore.commands import AgentGone, KillTask
from rbcore.entities import Client, ScheduleRule
from rbcore.messages import ListModuleResources
from rbcore.schedule_commands import RequestRule, RequestRuleDeletion
from tests.httpapi.house import CLIENT, HWID, House
from tests.httpapi.stories import backed_up
from tests.httpapi.test_schedule import client, example, hello_again, made, rule

__all__ = ["client"]

WISH = {"name": "my home", "resource_type": "File system", "resource": "/home/me", "backup_type": "full", "hour": 3}


async def asked(house: House, client: int, **fields: Any) -> int:
    await allowed(house, client)
    reply = await house.execute(RequestRule(client_id=client, rule=WISH | fields), f"client:{HWID}")
    return reply.ids[0]


async def allowed(house: House, client: int) -> None:
    answer = await house.call("PATCH", f"clients/{client}", {"data": {"client_side_backup": True}})
    assert answer.status == 200


async def asked_to_delete(house: House, client: int, rule_id: int) -> int:
    await allowed(house, client)
    reply = await house.execute(RequestRuleDeletion(client_id=client, rule_id=rule_id, comment="moved"))
    return reply.ids[0]


# --- requests ----------------------------------------------------------------------------------------------------------


async def test_an_approved_request_is_a_rule_that_waits(house: House, client: int) -> None:
    request = await asked(house, client, comment="please")
    shown = (await house.call("GET", f"new_rule_requests/{request}")).data
    assert (shown["client"], shown["resource"], shown["pool"], shown["hour"]) == (CLIENT, "/home/me", "Default", 3)
    assert shown["comment"] == "please"
    state = (await house.call("GET", "server_state")).data["new_rule_requests"]
    assert (state["total"], state["items"][0]["id"]) == (1, request)
    answer = await house.call("POST", "new_rule_requests/approve", {"ids": [request]})
    assert (answer.status, answer.data) == (200, {"succeeded": [request]})
    assert answer.message == facts()["POST /new_rule_requests/approve"].responses["200"]
    assert (await house.call("GET", f"new_rule_requests/{request}")).status == 404
    rules = (await house.call("GET", "global_schedule")).data
    assert rules["total"] == 1
    made_rule = rules["items"][0]
    wished = {"name": "my home", "client_id": CLIENT, "status": "wait", "pool_id": "Default", "hour": 3, "min": None}
    assert wished.items() <= made_rule.items()
    assert (await house.call("GET", "server_state")).data["new_rule_requests"]["total"] == 0


async def test_declined_requests_are_gone_and_nothing_else(house: House, client: int) -> None:
    rule_id = await rule(house)
    new, old = await asked(house, client), await asked_to_delete(house, client, rule_id)
    answer = await house.call("DELETE", "new_rule_requests/decline", {"ids": [new]})
    assert (answer.status, answer.data) == (200, {"succeeded": [new]})
    nothing = await house.call("DELETE", "delete_rule_requests/decline", {"ids": [old]})
    assert (nothing.status, nothing.raw) == (204, b"")
    assert (await house.call("GET", "global_schedule")).data["total"] == 1
    for path in ("new_rule_requests", "delete_rule_requests"):
        assert (await house.call("GET", path)).data["total"] == 0


async def test_an_approved_deletion_ends_the_rule(house: House, client: int) -> None:
    rule_id = await rule(house)
    request = await asked_to_delete(house, client, rule_id)
    shown = (await house.call("GET", f"delete_rule_requests/{request}")).data
    assert (shown["rule_id"], shown["client"], shown["resource"]) == (rule_id, CLIENT, "/home/")
    assert (await house.call("GET", "server_state")).data["delete_rule_requests"]["total"] == 1
    assert (await house.call("POST", "delete_rule_requests/approve", {"ids": [request]})).status == 200
    assert (await house.call("GET", f"global_schedule/{rule_id}")).status == 404


async def test_a_deleted_rule_takes_the_wish_for_it_along(house: House, client: int) -> None:
    rule_id = await rule(house)
    request = await asked_to_delete(house, client, rule_id)
    assert (await house.call("DELETE", f"global_schedule/{rule_id}")).status == 200
    assert (await house.call("GET", f"delete_rule_requests/{request}")).status == 404


@pytest.mark.parametrize("path", ["new_rule_requests", "delete_rule_requests"])
@pytest.mark.parametrize(("verb", "word"), [("POST", "approve"), ("DELETE", "decline")])
async def test_some_missing_is_207_and_all_missing_is_404(
    house: House, client: int, path: str, verb: str, word: str
) -> None:
    if path == "new_rule_requests":
        request = await asked(house, client)
    else:
        request = await asked_to_delete(house, client, await rule(house))
    missing = await house.call(verb, f"{path}/{word}", {"ids": [98, 99]})
    assert (missing.status, missing.message) == (404, "requests not found")
    partial = await house.call(verb, f"{path}/{word}", {"ids": [99, request]})
    assert (partial.status, partial.data) == (207, {"succeeded": [request], "failed": [99]})
    assert list(partial.errors) == ["99"]
    assert (await house.call("GET", f"{path}/{request}")).status == 404
    bad_bodies: list[Any] = [{"ids": []}, {"ids": ["1"]}, {"ids": 1}, {}, {"ids": [1], "data": {}}]
    for bad in bad_bodies:
        assert (await house.call(verb, f"{path}/{word}", bad)).status == 400


async def test_what_can_no_longer_be_approved_stays_with_the_reason(house: House, client: int) -> None:
    busy, idle = await rule(house), await rule(house)
    first, second = [await asked_to_delete(house, client, one) for one in (busy, idle)]
    task = (await house.call("POST", f"global_schedule/{busy}/execution")).data["task_id"]
    answer = await house.call("POST", "delete_rule_requests/approve", {"ids": [first, second]})
    assert (answer.status, answer.data) == (207, {"succeeded": [second], "failed": [first]})
    assert str(task) in answer.errors[str(first)][0]
    assert (await house.call("GET", f"global_schedule/{busy}")).status == 200
    alone = await house.call("POST", "delete_rule_requests/approve", {"ids": [first]})
    assert alone.status == 400
    assert (await house.call("GET", f"delete_rule_requests/{first}")).status == 200
    new = await asked(house, client)
    await house.execute(hello_again(house), f"client:{HWID}")
    refused = await house.call("POST", "new_rule_requests/approve", {"ids": [new]})
    assert refused.status == 400
    assert "no module" in refused.errors[str(new)][0]
    assert (await house.call("GET", f"new_rule_requests/{new}")).status == 200


# --- recovery plans ----------------------------------------------------------------------------------------------------


async def plan(house: House, **changes: Any) -> int:
    fields = {"resource_type": "File system", "resource": "/home", "restore_destination": "/srv/back"}
    return await made(house, "disaster_recovery_plan", **(fields | changes))


async def check(house: House, plan_id: int) -> Any:
    answer = await house.call("POST", f"disaster_recovery_plan/{plan_id}/checking")
    assert (answer.status, answer.message) == (200, "disaster recovery plan checked")
    shown = (await house.call("GET", f"disaster_recovery_plan/{plan_id}")).data
    assert answer.data.items() <= shown.items()
    assert shown["checked"] is not None
    return shown


async def test_the_life_of_a_plan(house: House, client: int) -> None:
    answer = await house.call("POST", "disaster_recovery_plan", example("POST /disaster_recovery_plan"))
    assert answer.status == 201, answer.raw
    path = f"disaster_recovery_plan/{answer.data['id']}"
    shown = (await house.call("GET", path)).data
    assert example("POST /disaster_recovery_plan")["data"].items() <= shown.items()
    assert (shown["status"], shown["checked"], shown["archive_id"]) == ("Not checked", None, None)
    changed = await house.call("PATCH", path, example("PATCH /disaster_recovery_plan/{id}", priority=5))
    assert (changed.status, changed.message) == (200, "disaster recovery plan parameters changed")
    assert (await house.call("GET", path)).data["priority"] == 5
    assert (await house.call("DELETE", path)).status == 200
    assert (await house.call("POST", f"{path}/checking")).status == 404
    wrong: list[dict[str, Any]] = [
        {"resource": "home", "resource_type": "File system"},
        {"restore_destination": "back"},
        {"client": "x"},
        {"resource_type": ""},
    ]
    for bad in wrong:
        refused = await house.call("POST", "disaster_recovery_plan", example("POST /disaster_recovery_plan", **bad))
        assert (refused.status, list(refused.errors)) == (400, list(bad)[:1])


async def test_checking_finds_what_is_really_there(house: House, client: int) -> None:
    plan_id = await plan(house)
    found = await check(house, plan_id)
    assert (found["status"], found["archive_id"]) == ("No backup", None)
    backup = await backed_up(house, resource="/home/")
    other = await backed_up(house, resource="/etc")
    assert (await check(house, plan_id))["status"] == "Client offline"
    await house.execute(hello_again(house, "File system"), f"client:{HWID}")
    found = await check(house, plan_id)
    assert (found["status"], found["archive_id"]) == ("Ready", backup)
    whatever = await plan(house, resource="")
    assert (await check(house, whatever))["archive_id"] == other
    await house.call("PATCH", f"disaster_recovery_plan/{plan_id}", {"data": {"description": "same"}})
    assert (await house.call("GET", f"disaster_recovery_plan/{plan_id}")).data["status"] == "Ready"
    await house.execute(AgentGone(client_id=client, reason="lost"))
    assert (await check(house, plan_id))["status"] == "Client offline"
    await house.execute(hello_again(house), f"client:{HWID}")
    assert (await check(house, plan_id))["status"] == "Resource type not supported"
    await house.call("PATCH", f"disaster_recovery_plan/{plan_id}", {"data": {"resource": "/var"}})
    assert (await house.call("GET", f"disaster_recovery_plan/{plan_id}")).data["status"] == "Not checked"
    assert (await house.call("DELETE", f"repository/{backup}")).status == 200
    await house.call("PATCH", f"disaster_recovery_plan/{plan_id}", {"data": {"resource": "/home"}})
    assert (await check(house, plan_id))["status"] == "No backup"


# --- strategies --------------------------------------------------------------------------------------------------------


async def test_the_life_of_a_strategy_and_its_rules(house: House, client: int) -> None:
    answer = await house.call("POST", "backup_strategies", example("POST /backup_strategies", name="nightly"))
    assert (answer.status, answer.message) == (201, "Resource with name 'Backup Strategies' was created successfully!")
    strategy = answer.data["id"]
    shown = (await house.call("GET", f"backup_strategies/{strategy}")).data
    assert example("POST /backup_strategies", name="nightly")["data"].items() <= shown.items()
    same = await house.call("POST", "backup_strategies", example("POST /backup_strategies", name="nightly"))
    assert (same.status, list(same.errors)) == (400, ["name"])
    rule_id = await made(house, "strategy_rules", strategy_id="nightly")
    row = (await house.call("GET", f"strategy_rules/{rule_id}")).data
    assert {**example("POST /strategy_rules")["data"]["strategy_rule"], "strategy_id": "nightly"}.items() <= row.items()
    changed = await house.call(
        "PATCH",
        f"strategy_rules/{rule_id}",
        example("PATCH /strategy_rules/{id}", resource="/etc", strategy_id="nightly"),
    )
    assert (changed.status, changed.message) == (200, "strategy rule parameters changed")
    assert (await house.call("GET", f"strategy_rules/{rule_id}")).data["resource"] == "/etc"
    refused = await house.call("DELETE", "backup_strategies", {"ids": [strategy]})
    assert refused.status == 400
    assert f"rules of the strategy (ids {rule_id})" in refused.errors[str(strategy)][0]
    new = {
        "full_archive_enabled": True,
        "full_periodic_launch": None,
        "full_hour": -1,
        "full_min": 30,
        "crypto": "AES-256-GCM",
    }
    patched = await house.call("PATCH", f"backup_strategies/{strategy}", {"data": new})
    assert (patched.status, patched.message) == (200, "strategy changed")
    shown = (await house.call("GET", f"backup_strategies/{strategy}")).data
    assert (shown["full_hour"], shown["full_min"], shown["crypto"]) == (None, 30, "AES-256-GCM")
    assert (await house.call("DELETE", f"strategy_rules/{rule_id}")).status == 200
    gone = await house.call("DELETE", f"backup_strategies/{strategy}")
    assert (gone.status, gone.message) == (200, "strategy deleted")


async def test_the_strategy_of_the_manuals_examples_is_there_and_does_nothing_by_itself(
    house: House, client: int
) -> None:
    (row,) = (await house.call("GET", "backup_strategies")).data["items"]
    assert (row["name"], row["pool_id"], row["status"]) == ("Default", "Default", "wait")
    shown = (await house.call("GET", f"backup_strategies/{row['id']}")).data
    assert not any(shown[f"{kind}_archive_enabled"] for kind in ("full", "inc", "diff"))
    rule = await house.call("POST", "strategy_rules", example("POST /strategy_rules"))
    assert rule.status == 201
    assert (await house.call("DELETE", f"strategy_rules/{rule.data['id']}")).status == 200
    assert (await house.call("DELETE", f"backup_strategies/{row['id']}")).status == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"inc_min": 60}, "inc_min"),
        ({"diff_dom": 31, "diff_mon": 4}, "diff_dom"),
        ({"full_periodic_launch": "1 sec"}, "full_periodic_launch"),
        ({"inc_storage_duration": "0 min"}, "inc_storage_duration"),
        ({"diff_move_copy_flag": True}, "diff_move_copy_pool"),
        ({"name": " "}, "name"),
        ({"pool_id": "nowhere"}, "pool_id"),
        (
            {
                "inc_archive_enabled": True,
                "inc_periodic_launch": None,
                **dict.fromkeys(("inc_min", "inc_hour", "inc_dom", "inc_mon", "inc_dow")),
            },
            "inc_periodic_launch",
        ),
        ({"validity_end_period": "2024-08-13T14:33:31.359954"}, "validity_end_period"),
        ({"notify_strategy_validity": "nobody at all"}, "notify_strategy_validity"),
    ],
)
async def test_what_is_wrong_with_a_strategy_is_named(
    house: House, client: int, changes: dict[str, Any], field: str
) -> None:
    answer = await house.call("POST", "backup_strategies", example("POST /backup_strategies", **changes))
    assert (answer.status, list(answer.errors)) == (400, [field])


# --- reports and bandwidth ---------------------------------------------------------------------------------------------


async def test_the_life_of_a_report(house: House, client: int) -> None:
    report = await made(house, "reports")
    shown = (await house.call("GET", f"reports/{report}")).data
    given = example("POST /reports")["data"]
    assert shown["owner"] is None, "Nobody is no user"
    assert {**given, "owner": None}.items() <= shown.items()
    owned = await made(house, "reports", owner="rubackup")
    assert (await house.call("GET", f"reports/{owned}")).data["owner"] == "rubackup"
    body = {"data": {"name": "other", "owner": "x", "min": 5, "status": "run", "notify_cc": "a@b.c, d@e.f"}}
    changed = await house.call("PATCH", f"reports/{report}", body)
    assert (changed.status, changed.message) == (200, "report parameters changed")
    after = (await house.call("GET", f"reports/{report}")).data
    assert after == {**shown, "status": "run", "notify_cc": "a@b.c, d@e.f"}
    period = {"start_period": "2026-01-01T00:00:00", "end_period": "2025-01-01T00:00:00"}
    assert (await house.call("PATCH", f"reports/{report}", {"data": period})).status == 200, "not looked at"
    wrong = await house.call("PATCH", f"reports/{report}", {"data": {"perpetually": False}})
    assert (wrong.status, list(wrong.errors)) == (400, ["end_period"])
    assert (await house.call("DELETE", "reports", {"ids": [report, 99]})).status == 404
    assert (await house.call("DELETE", "reports", {"ids": [report, owned]})).status == 200


async def test_the_life_of_a_bandwidth_limit(house: House, client: int) -> None:
    limit = await made(house, "client_bandwidth", backup_bandwidth=1024)
    shown = (await house.call("GET", f"client_bandwidth/{limit}")).data
    assert (shown["client"], shown["client_hwid"], shown["backup_bandwidth"]) == (CLIENT, HWID, 1024)
    body = example("PATCH /client_bandwidth/{id}", restore_bandwidth=7, window_end="06:00:00")
    changed = await house.call("PATCH", f"client_bandwidth/{limit}", body)
    assert (changed.status, changed.message) == (200, "bandwidth limit parameters changed")
    shown = (await house.call("GET", f"client_bandwidth/{limit}")).data
    assert (shown["backup_bandwidth"], shown["restore_bandwidth"], shown["window_end"]) == (0, 7, "06:00:00")
    for bad in ({"window_start": "24:00:00"}, {"window_end": "6:00"}, {"backup_bandwidth": -1}, {"client": "nobody"}):
        answer = await house.call("POST", "client_bandwidth", example("POST /client_bandwidth", **bad))
        assert (answer.status, list(answer.errors)) == (400, list(bad))
    assert (await house.call("DELETE", f"client_bandwidth/{limit}")).message == "bandwidth limit deleted"
    assert (await house.call("GET", f"client_bandwidth/{limit}")).status == 404


# --- what refers keeps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "noun"),
    [
        ("global_schedule", "rules of the global schedule"),
        ("disaster_recovery_plan", "disaster recovery plans"),
        ("client_bandwidth", "bandwidth limits"),
    ],
)
async def test_a_client_stays_as_long_as_something_is_about_it(house: House, client: int, path: str, noun: str) -> None:
    record = await made(house, path)
    refused = await house.call("DELETE", f"clients/{client}")
    assert refused.status == 400
    assert f"{noun} (ids {record})" in refused.errors[str(client)][0]
    assert (await house.call("DELETE", f"{path}/{record}")).status == 200
    assert (await house.call("DELETE", f"clients/{client}")).status == 200


async def test_pools_groups_and_users_stay_as_long_as_a_rule_names_them(house: House, client: int) -> None:
    pool = {"pool_name": "Second", "pool_type": "File system", "media_server": "rubackup-server"}
    pool_id = (await house.call("POST", "pool_list", {"data": pool})).data["id"]
    group_id = (await house.call("POST", "user_groups", {"data": {"groupname": "operators"}})).data["id"]
    moving = {"move_copy_flag": True, "move_copy_pool": "Second", "notify_exception": "operators"}
    rule_id = await rule(house, **moving)
    strategy_id = await made(house, "backup_strategies", inc_move_copy_pool="Second", notify_verify="operators")
    report_id = await made(house, "reports", notify="operators")
    for path, number, referring in (
        ("pool_list", pool_id, ("rules of the global schedule", "strategies")),
        ("user_groups", group_id, ("rules of the global schedule", "strategies", "reports")),
    ):
        refused = await house.call("DELETE", f"{path}/{number}")
        assert refused.status == 400
        assert all(noun in refused.errors[str(number)][0] for noun in referring)
    for path, number in (("global_schedule", rule_id), ("backup_strategies", strategy_id), ("reports", report_id)):
        assert (await house.call("DELETE", f"{path}/{number}")).status == 200
    assert (await house.call("DELETE", f"pool_list/{pool_id}")).status == 200
    assert (await house.call("DELETE", f"user_groups/{group_id}")).status == 200


async def test_a_dynamic_group_of_pools_stands_in_a_rule_by_its_name(house: House, client: int) -> None:
    group = (await house.call("POST", "dynamic_pool_groups", {"data": {"name": "fast"}})).data["id"]
    refused = await house.call("POST", "global_schedule", example("POST /global_schedule", pool_id="fast"))
    assert (refused.status, list(refused.errors)) == (400, ["pool_id"]), "nothing is in it"
    member = {"dynamic_pool_group": group, "pool": "Default", "enabled": True}
    assert (await house.call("POST", "dynamic_pool_groups_records", {"data": member})).status == 201
    rule_id = await rule(house, pool_id="fast")
    task_id = (await house.call("POST", f"global_schedule/{rule_id}/execution")).data["task_id"]
    assert (await house.call("GET", f"task_queue/{task_id}")).data["pool"] == "fast"
    await house.execute(KillTask(task_id=task_id))
    assert (await house.call("GET", f"global_schedule/{rule_id}")).data["pool_id"] == "fast"
    refused = await house.call("DELETE", f"dynamic_pool_groups/{group}")
    assert refused.status == 400
    assert f"rules of the global schedule (ids {rule_id})" in refused.errors[str(group)][0]


# --- the server's state ------------------------------------------------------------------------------------------------


async def test_expired_rules_and_strategies_are_reported_and_were_not_before(house: House, client: int) -> None:
    early, late = await rule(house, name="early"), await rule(house, validity_end_period="2026-09-02T15:40:01")
    await rule(house, validity_end_period=None)
    strategy = await made(house, "backup_strategies")
    before = house.log.head
    state = (await house.call("GET", "server_state")).data
    assert (state["expired_global_schedule"]["total"], state["expired_strategies"]["total"]) == (0, 0)
    house.clock.seconds = 1_760_000_000.0  # October 2025: the manual's rule has ended
    await house.login()
    answer = await house.call("GET", "server_state")
    assert [one["id"] for one in answer.data["expired_global_schedule"]["items"]] == [early]
    assert [one["id"] for one in answer.data["expired_strategies"]["items"]] == [strategy]
    house.clock.seconds = 1_790_000_000.0
    await house.login()
    assert (await house.call("GET", "server_state")).data["expired_global_schedule"]["total"] == 2
    past = (await house.call("GET", f"server_state?at={before}")).data
    assert (past["expired_global_schedule"]["total"], past["expired_strategies"]["total"]) == (0, 0)
    assert isinstance(house.journal.state.find(ScheduleRule, late), ScheduleRule)


# --- what a module finds -----------------------------------------------------------------------------------------------


async def test_the_agent_is_asked_what_its_module_finds(house: House, client: int) -> None:
    house.sessions.connected.add(client)
    house.sessions.rows = [{"name": "/", "path": "/", "type": "ext4", "device": "/dev/vda1"}]
    body = {"data": {"client_hwid": HWID, "resource_type": "File system", "secret_method": 0}}
    answer = await house.call("POST", "module_resource_list", body)
    assert (answer.status, answer.data["items"]) == (200, house.sessions.rows)
    assert house.sessions.asked == [ListModuleResources(resource_type="File system")]
    for changes, status, field in (
        ({"resource_type": "Cabinet"}, 400, "resource_type"),
        ({"secret_method": 1}, 400, "secret_method"),
        ({"client_hwid": "0123456789abcdef"}, 404, "client_hwid"),
    ):
        refused = await house.call("POST", "module_resource_list", {"data": body["data"] | changes})
        assert (refused.status, list(refused.errors)) == (status, [field])
    house.sessions.connected.clear()
    assert (await house.call("POST", "module_resource_list", body)).status == 503
    assert house.journal.state.by_key(Client, HWID) is not None
