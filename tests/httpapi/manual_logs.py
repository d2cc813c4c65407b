"""The manual's examples that speak of journals: something has to have happened."""

from __future__ import annotations

from tests.httpapi.manual import Manual, maker
from tests.httpapi.manual_schedule import another_rule
from tests.httpapi.stories import backed_up
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
