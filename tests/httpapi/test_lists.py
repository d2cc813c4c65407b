"""Every GET takes ``at``; every list filters and sorts by each of its columns or says by name why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from eventlog.views.filter import OPERATORS, quoted
from httpapi.method import Method
from httpapi.rubackup import methods
from tests.httpapi.contract import PREPARATIONS
from tests.httpapi.house import House
from tests.httpapi.manual import Manual, prepare

GETS = [method for method in methods() if method.verb == "GET" and not method.asks_devices]
LISTS = [method for method in GETS if any(one.name == "filter_data" for one in method.query)]
COLLECTIONS = (
    "repository",
    "client_groups",
    "unauthorised_clients",
    "global_schedule",
    "strategy_rules",
    "strategy_administrators",
    "new_rule_requests",
    "delete_rule_requests",
    "disaster_recovery_plan",
    "reports",
    "client_bandwidth",
    "supervisors",
    "administrators",
    "maintainers",
    "pool_substitution",
    "dynamic_pool_groups_records",
    "client_defined_storages",
    "tape_libraries",
    "tape_cartridges",
    "library_tape_drives",
    "library_slots",
    "tl_task_queue",
    "task_queue",
)


async def filled(house: House, directory: Path) -> Manual:
    assert PREPARATIONS, "the examples are prepared"
    manual = await prepare(house, directory)
    for collection in COLLECTIONS:
        await manual.record(collection)
    return manual


async def url_of(manual: Manual, method: Method) -> str:
    if not method.addition:
        return (await manual.asked(method.name)).path
    collection = method.path.split("/")[1]
    return method.path.lstrip("/").replace("{id}", str(await manual.record(collection)))


def joined(url: str, **parameters: object) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"


def test_every_get_takes_at_but_those_that_ask_devices() -> None:
    without = {one.name for one in methods() if one.verb == "GET" and not any(q.name == "at" for q in one.query)}
    assert without == {"GET /tape_libraries/candidates", "GET /library_tape_drives/candidates"}


async def test_every_get_looks_at_the_past(house: House, tmp_path: Path) -> None:
    manual = await filled(house, tmp_path)
    urls = {method.name: await url_of(manual, method) for method in GETS}
    await manual.asked("GET /pool_list")  # robots and drives have done what they were told
    head = house.log.head
    wrong: list[tuple[str, Any]] = []
    for name, url in urls.items():
        now, then = await house.call("GET", url), await house.call("GET", joined(url, at=head))
        if (now.status, then.status, then.position) != (200, 200, head):
            wrong.append((name, (now.raw, then.raw, then.headers)))
        begin = await house.call("GET", joined(url, at=0))
        if begin.status not in (200, 404) or (begin.status == 200 and begin.position != 0):
            wrong.append((name, (begin.status, begin.raw, begin.position)))
        to_come = await house.call("GET", joined(url, at=head + 1000))
        if (to_come.status, list(to_come.errors)) != (400, ["at"]):
            wrong.append((name, to_come.raw))
    assert not wrong, "\n".join(map(str, wrong))
    assert len(urls) > 100


async def test_every_list_filters_and_sorts_by_each_of_its_columns_or_says_why_not(
    house: House, tmp_path: Path
) -> None:
    manual = await filled(house, tmp_path)
    wrong: list[tuple[str, str, Any]] = []
    filtered = rows_seen = 0
    for method in LISTS:
        url = await url_of(manual, method)
        items = (await house.call("GET", url)).data["items"]
        row = items[0] if items else {}
        rows_seen += bool(row)
        for column in columns(house, method, row):
            value = row.get(column)
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            for operator in OPERATORS:
                condition = f"{column}{operator}{quoted(text)}"
                answer = await house.call("GET", joined(url, filter_data=condition, limit=1000))
                if answer.status == 400 and list(answer.errors) == [column]:
                    continue
                if answer.status != 200:
                    wrong.append((method.name, f"{column}{operator}", answer.raw))
                elif operator == "=" and isinstance(value, str | int) and row not in answer.data["items"]:
                    wrong.append((method.name, condition, "the row is not among its equals"))
                else:
                    filtered += 1
            for order in ("asc", "desc"):
                answer = await house.call("GET", joined(url, sort_by=column, sort_order=order))
                named = answer.errors.keys() & {"sort_by", column}
                if answer.status != 200 and not (answer.status == 400 and named):
                    wrong.append((method.name, f"sort_by={column}", answer.raw))
        broken: dict[str, str]
        for broken in ({"filter_data": 'no_such_column="1"'}, {"sort_by": "no_such_column"}, {"filter_data": "id=1"}):
            answer = await house.call("GET", joined(url, **broken))
            if items and (answer.status != 400 or not answer.errors):
                wrong.append((method.name, str(broken), answer.raw))
    assert not wrong, "\n".join(map(str, wrong))
    assert filtered > 1_000
    assert rows_seen > 50


def columns(house: House, method: Method, row: dict[str, Any]) -> list[str]:
    """As the description has them, and as the first row has them."""
    schema = method.data["properties"]["items"]["items"]
    if "$ref" in schema:
        schema = house.description.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return list(dict.fromkeys([*schema.get("properties", {}), *row]))
