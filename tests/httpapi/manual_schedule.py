"""The manual's examples that speak of rules, strategies, what clients ask for, and plans."""

from __future__ import annotations

import copy
from typing import Any

from httpapi.rubackup.catalogue import Fact, facts
from rbcore.entities import Client
from rbcore.schedule_commands import RequestRule, RequestRuleDeletion
from tests.httpapi.house import HWID, PASSWORD
from tests.httpapi.manual import Asked, Manual, maker, prepares
from tests.httpapi.manual_users import need


async def client_that_may_ask(manual: Manual) -> int:
    client = manual.house.journal.state.by_key(Client, HWID)
    assert client is not None
    if not client.client_side_backup:
        change = {"data": {"client_side_backup": True}}
        assert (await manual.house.call("PATCH", f"clients/{client.id}", change)).status == 200
    return client.id


async def another_rule(manual: Manual) -> int:
    """Of which no task is under way."""
    body = copy.deepcopy(facts()["POST /global_schedule"].request_example)
    body["data"]["global_schedule"]["name"] = f"rule {next(manual.numbers)}"
    answer = await manual.house.call("POST", "global_schedule", body)
    assert answer.status == 201, answer.raw
    return int(answer.data["id"])


@prepares("POST /strategy_rules", "PATCH /strategy_rules/{id}", "POST /strategy_administrators")
async def _of_strategy(manual: Manual, fact: Fact) -> Asked:
    await need(manual, "users", "username", "Nobody", user_password=PASSWORD)
    return await manual.plain(fact)


@prepares("POST /global_schedule/{id}/execution")
async def _execute(manual: Manual, fact: Fact) -> Asked:
    return await manual.plain(fact, record=await another_rule(manual))


_WANTED: dict[str, Any] = {
    "name": "wanted",
    "resource_type": "File system",
    "resource": "/home/",
    "backup_type": "full",
    "pool": "Default",
    "crypto": "nocrypt",
    "storage_duration": "1 year",
    "periodic_launch": "1 day",
    "comment": "please",
}


@maker("new_rule_requests")
async def _new_rule_request(manual: Manual) -> int:
    rule = _WANTED | {"name": f"wanted {next(manual.numbers)}"}
    command = RequestRule(client_id=await client_that_may_ask(manual), rule=rule)
    return (await manual.house.execute(command)).ids[0]


@maker("delete_rule_requests")
async def _delete_rule_request(manual: Manual) -> int:
    rule_id = await another_rule(manual)
    command = RequestRuleDeletion(client_id=await client_that_may_ask(manual), rule_id=rule_id)
    return (await manual.house.execute(command)).ids[0]


@prepares("POST /disaster_recovery_plan", "PATCH /disaster_recovery_plan/{id}")
async def _plan(manual: Manual, fact: Fact) -> Asked:
    """A module that this release has; the manual's paths are empty."""
    place = {"resource_type": "File system", "resource": "/home/", "restore_destination": "/for_restore/"}
    return await manual.plain(fact, body={"data": fact.request_example["data"] | place})
