"""The manual's examples that speak of journals: something has to have happened."""

from __future__ import annotations

import copy

from httpapi.rubackup.catalogue import facts
from tests.httpapi.manual import Manual, maker
from tests.httpapi.manual_schedule import another_rule
from tests.httpapi.stories import backed_up, failed
from tests.httpapi.tapes import rows


async def _first_line(manual: Manual, log: str) -> int:
    return int((await rows(manual.house, log))[0]["id"])


@maker("repository_log")
async def _repository(manual: Manual) -> int:
    await backed_up(manual.house)
    return await _first_line(manual, "repository_log")


@maker("task_log")
async def _tasks(manual: Manual) -> int:
    await backed_up(manual.house)
    return await _first_line(manual, "task_log")


@maker("global_schedule_log")
async def _rules(manual: Manual) -> int:
    await another_rule(manual)
    return await _first_line(manual, "global_schedule_log")


@maker("notifications")
async def _notification(manual: Manual) -> int:
    body = copy.deepcopy(facts()["POST /global_schedule"].request_example)
    body["data"]["global_schedule"] |= {"name": "told", "notify_exception_cc": "operators@example.org"}
    rule_id = (await manual.house.call("POST", "global_schedule", body)).data["id"]
    executed = await manual.house.call("POST", f"global_schedule/{rule_id}/execution")
    await failed(manual.house, int(executed.data["task_id"]))
    return await _first_line(manual, "notifications")
