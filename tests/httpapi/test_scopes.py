"""Two of everything that limits a role, and users with every mixture of roles: each sees exactly what is his, and touches nothing else.

Whose a row is, is read off the row as the superuser sees it, by a table of this test.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rbcore.commands import ChangeRecord, CreateRecord
from rbcore.commands_servers import AuthoriseMediaServer, MediaServerHello
from rbcore.events import AccessDeniedNoted
from rbcore.schedule_commands import RequestRule, RequestRuleDeletion
from tests.httpapi.house import BACKUP_TASK, House, open_house
from tests.httpapi.people import Assignment, person, signed_in
from tests.httpapi.stories import backed_up

MAIN, SECOND = "rubackup-server", "rubackup-second"
HWIDS = {"one": "525a99154f3505a2", "two": "55e05458152af100"}
CLIENTS = {group: f"client-{group} ({hwid})" for group, hwid in HWIDS.items()}
POOLS = {MAIN: "pool of main", SECOND: "pool of second"}
TAPES = {MAIN: "tapes of main", SECOND: "tapes of second"}
OTHER = {"one": "two", "two": "one", MAIN: SECOND, SECOND: MAIN, "alpha": "beta", "beta": "alpha"}
A, M, S = "administrators", "maintainers", "strategy_administrators"
SCOPE_FIELD = {A: "client_group", M: "media_server", S: "strategy"}
Given = set[tuple[str, str]]
"""(role, what it is limited to)"""


@dataclass
class Estate:
    house: House
    superuser: dict[str, str]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Path -> all rows."""
    servers: dict[str, str] = field(default_factory=dict)
    """Pool name -> host name of its media server."""
    groups: dict[str, str] = field(default_factory=dict)
    """Client -> its group."""

    def server_of(self, row: dict[str, Any], key: str = "pool") -> Given:
        return {(M, self.servers[row[key]])} if row[key] in self.servers else set()

    def group_of(self, row: dict[str, Any], key: str = "client") -> Given:
        return {(A, self.groups[row[key]])} if row[key] in self.groups else set()


Owners = Callable[[Estate, dict[str, Any]], Given]

OWNERS: dict[str, tuple[set[str], Owners]] = {
    # path: (roles that see every row, whose a row is)
    "clients": (set(), lambda at, row: {(A, row["group_id"])}),
    "client_groups": (set(), lambda at, row: {(A, row["name"])}),
    "client_bandwidth": (set(), lambda at, row: at.group_of(row)),
    "global_schedule": (set(), lambda at, row: at.group_of(row, "client_id")),
    "new_rule_requests": (set(), lambda at, row: at.group_of(row)),
    "delete_rule_requests": (set(), lambda at, row: at.group_of(row)),
    "disaster_recovery_plan": (set(), lambda at, row: at.group_of(row)),
    "backup_strategies": ({A}, lambda at, row: {(S, row["name"])}),
    "strategy_rules": (set(), lambda at, row: at.group_of(row, "client_id") | {(S, row["strategy_id"])}),
    "task_queue": (set(), lambda at, row: at.group_of(row) | at.server_of(row)),
    "repository": (set(), lambda at, row: at.group_of(row) | at.server_of(row)),
    "media_servers": ({A, S}, lambda at, row: {(M, row["hostname"])}),
    "pool_list": ({A, S}, lambda at, row: {(M, row["media_server"])}),
    "dynamic_pool_groups": ({A, M, S}, lambda at, row: set()),
    "dynamic_pool_groups_records": (set(), lambda at, row: at.server_of(row)),
    "pool_substitution": (set(), lambda at, row: at.server_of(row)),
    "storage_local_catalogs": (set(), lambda at, row: at.server_of(row)),
    "tape_cartridges": (set(), lambda at, row: at.server_of(row)),
    "user_groups": ({A, M, S}, lambda at, row: set()),
    "clients_log": (set(), lambda at, row: at.group_of(row)),
    "global_schedule_log": (set(), lambda at, row: at.group_of(row)),
    "task_log": (set(), lambda at, row: at.group_of(row)),
    "repository_log": (set(), lambda at, row: at.group_of(row) | at.server_of(row)),
    "media_servers_log": (set(), lambda at, row: {(M, row["media_server"])}),
}
READERS: dict[str, set[str]] = {
    path: {A}
    for path in (
        "clients",
        "client_groups",
        "client_bandwidth",
        "global_schedule",
        "new_rule_requests",
        "delete_rule_requests",
        "disaster_recovery_plan",
        "clients_log",
        "global_schedule_log",
        "task_log",
    )
} | {
    path: {M}
    for path in (
        "dynamic_pool_groups_records",
        "pool_substitution",
        "storage_local_catalogs",
        "tape_cartridges",
        "media_servers_log",
    )
}
READERS |= {"backup_strategies": {A, S}, "strategy_rules": {A, S}, "repository_log": {A, M}}
"""Path -> roles that may list it; not there: all of them."""


async def made(house: House, path: str, /, **fields: Any) -> int:
    return (await house.execute(CreateRecord(resource=path, fields=fields))).ids[0]


async def _second_server(house: House) -> None:
    hello = MediaServerHello(hwid="ab" * 8, hostname=SECOND, public_key="cd" * 32, address="192.0.2.9", version="0.1")
    await house.execute(hello)
    await house.execute(AuthoriseMediaServer(hostname=SECOND))


async def _fill(house: House) -> None:
    await _second_server(house)
    for number, server in enumerate((MAIN, SECOND)):
        await made(house, "pool_list", pool_name=POOLS[server], pool_type="File system", media_server=server)
        await made(house, "storage_local_catalogs", path=f"/srv/{number}", pool=POOLS[server])
        tape = "Tape library, Native"
        await made(house, "pool_list", pool_name=TAPES[server], pool_type=tape, media_server=server)
        tag = f"RB1000{number}L9"
        await made(house, "tape_cartridges", type="LTO-9", volume_tag=tag, pool=TAPES[server])
    group = await made(house, "dynamic_pool_groups", name="either")
    await made(house, "dynamic_pool_groups", name="none")
    for pool in POOLS.values():
        await made(house, "dynamic_pool_groups_records", dynamic_pool_group=group, pool=pool)
    await made(house, "pool_substitution", pool=POOLS[MAIN], substitution=POOLS[SECOND])
    await made(house, "pool_substitution", pool=POOLS[SECOND], substitution="Default")
    for strategy in ("alpha", "beta"):
        await made(house, "backup_strategies", name=strategy, pool_id="Default")
    await made(house, "user_groups", groupname="night shift")
    for name, hwid in HWIDS.items():
        await made(house, "client_groups", name=name)
        client = await house.add_client(hwid, f"client-{name}")
        changes = {"group_id": name, "client_side_backup": True}
        await house.execute(ChangeRecord(resource="clients", id=client, changes=changes))
        await _fill_client(house, name, client)


async def _fill_client(house: House, group: str, client: int) -> None:
    name, what = CLIENTS[group], {"resource_type": "File system", "resource": f"/home/{group}"}
    for server in (MAIN, SECOND):
        await backed_up(house, client=name, pool=POOLS[server])
    timetable = {"hour": 3, "min": 0}
    rule = await made(
        house, "global_schedule", name=group, client_id=name, backup_type="full", pool_id="Default", **what, **timetable
    )
    for strategy in ("alpha", "beta"):
        fields = what | {"resource": f"/{strategy}", "client_id": name, "strategy_id": strategy}
        await made(house, "strategy_rules", **fields)
    await made(house, "client_bandwidth", client=name, backup_bandwidth=100, restore_bandwidth=100)
    await made(house, "disaster_recovery_plan", client=name, **what)
    wish = what | timetable | {"resource": "/wish", "name": "wish", "backup_type": "full", "pool": "Default"}
    await house.execute(RequestRule(client_id=client, rule=wish), f"client:{HWIDS[group]}")
    await house.execute(RequestRuleDeletion(client_id=client, rule_id=rule), f"client:{HWIDS[group]}")


@pytest.fixture
async def estate(tmp_path: Path) -> AsyncIterator[Estate]:
    async with open_house(tmp_path) as house:
        await _fill(house)
        found = Estate(house, signed_in(house, "rubackup"))
        house.tokens = found.superuser
        for path in OWNERS:
            answer = await house.call("GET", f"{path}?limit=1000")
            assert answer.status == 200, path
            found.rows[path] = answer.data["items"]
            assert len(found.rows[path]) >= 2, f"{path}: a test of scopes needs several rows"
        found.servers = {row["pool_name"]: row["media_server"] for row in found.rows["pool_list"]}
        found.groups = {row["client"]: row["group_id"] for row in found.rows["clients"]}
        yield found


def mixtures() -> list[Given]:
    """Each role alone over each of the two, each over both, and some mixtures of all."""
    single = [(A, "one"), (A, "two"), (M, MAIN), (M, SECOND), (S, "alpha"), (S, "beta")]
    draw = random.Random(17)
    both: list[Given] = [{(A, "one"), (A, "two")}, {(M, MAIN), (M, SECOND)}, {(S, "alpha"), (S, "beta")}]
    mixed = [set(draw.sample(single, draw.randrange(2, 6))) for _ in range(8)]
    return [*({one} for one in single), *both, *mixed]


def expected(at: Estate, path: str, given: Given) -> list[int]:
    everything, owners = OWNERS[path]
    roles = {role for role, _ in given}
    return [row["id"] for row in at.rows[path] if roles & everything or given & owners(at, row)]


def assignments(given: Given) -> list[Assignment]:
    return [(role, {SCOPE_FIELD[role]: name}) for role, name in sorted(given)]


async def test_everybody_sees_exactly_what_is_his(estate: Estate) -> None:
    house = estate.house
    moment = house.log.head
    for number, given in enumerate(mixtures()):
        house.tokens = await person(house, f"user{number}", *assignments(given))
        for path in OWNERS:
            may_read = bool({role for role, _ in given} & READERS.get(path, {A, M, S}))
            answer = await house.call("GET", f"{path}?limit=1000")
            if not may_read:
                assert answer.status == 403, (path, given)
                continue
            own = expected(estate, path, given)
            assert [row["id"] for row in answer.data["items"]] == own, (path, given)
            assert answer.data["total"] == len(own)
            assert (await house.call("GET", f"{path}?limit=1")).data["total"] == len(own)
            past = await house.call("GET", f"{path}?limit=1000&at={moment}&sort_by=id&sort_order=desc")
            assert [row["id"] for row in past.data["items"]] == own[::-1], (path, given)
            for row in estate.rows[path]:
                for query in ("", f"?at={moment}"):
                    detail = await house.call("GET", f"{path}/{row['id']}{query}")
                    assert detail.status == (200 if row["id"] in own else 404), (path, given, row)


async def test_what_is_not_his_looks_like_what_is_not_there(estate: Estate) -> None:
    house = estate.house
    house.tokens = await person(house, "olga", (A, {"client_group": "one"}))
    for path in ("clients", "global_schedule", "repository", "task_queue"):
        hidden = next(row["id"] for row in estate.rows[path] if row["id"] not in expected(estate, path, {(A, "one")}))
        one, two = await house.call("GET", f"{path}/{hidden}"), await house.call("GET", f"{path}/{10**6 + hidden}")
        assert str(one.envelope).replace(str(hidden), "N") == str(two.envelope).replace(str(10**6 + hidden), "N")


MANAGED: dict[str, set[str]] = {
    "global_schedule": {A},
    "client_bandwidth": {A},
    "disaster_recovery_plan": {A},
    "repository": {A},
    "task_queue": {A},
    "strategy_rules": {A, S},
    "backup_strategies": {S},
    "pool_list": {M},
    "storage_local_catalogs": {M},
    "tape_cartridges": {M},
    "pool_substitution": {M},
    "dynamic_pool_groups_records": {M},
}
"""What a limited role may delete, where it is his."""


@pytest.mark.parametrize(
    "given", [{(A, "one")}, {(M, MAIN)}, {(S, "alpha")}, {(A, "two"), (M, SECOND)}, {(S, "beta"), (A, "one")}]
)
async def test_nothing_of_others_can_be_deleted_alone_or_among_what_is_his(estate: Estate, given: Given) -> None:
    house = estate.house
    house.tokens = await person(house, "olga", *assignments(given))
    before = house.log.head
    for path, managing in MANAGED.items():
        theirs = {one for one in given if one[0] in managing}
        _, owners = OWNERS[path]
        own = [row["id"] for row in estate.rows[path] if theirs & owners(estate, row)]
        for row in estate.rows[path]:
            if row["id"] in own:
                continue
            for ids in ([row["id"]], [*own, row["id"]]):
                answer = await house.call("DELETE", path, {"ids": ids})
                assert answer.status in (403, 404), (path, row, answer.envelope)
                assert answer.data.get("ids", [row["id"]]) == [row["id"]], "only what is not his is named"
            if path != "tape_cartridges":  # the manual deletes cartridges by lists alone
                assert (await house.call("DELETE", f"{path}/{row['id']}")).status in (403, 404)
    recorded = {one.type for one in house.log.read(before)}
    assert recorded == {AccessDeniedNoted.TYPE}, "every attempt is in the audit, and nothing happened"


async def test_an_administrator_works_for_his_clients_and_for_no_others(estate: Estate) -> None:
    house = estate.house
    house.tokens = await person(house, "olga", (A, {"client_group": "one"}))
    rows = {path: {row["id"] for row in estate.rows[path]} for path in OWNERS}
    own = {path: set(expected(estate, path, {(A, "one")})) for path in OWNERS}
    task = {
        "resource_type": "File system",
        "resource": "/etc",
        "backup_type": "full",
        "pool": POOLS[SECOND],
        "crypto": "nocrypt",
        "priority": 100,
        "storage_duration": "1 year",
        "archiving": False,
    }
    rule = {
        "name": "new",
        "resource_type": "File system",
        "resource": "/etc",
        "backup_type": "full",
        "pool_id": "Default",
        "hour": 4,
    }
    for group, allowed in (("one", True), ("two", False)):
        client = CLIENTS[group]
        answers = [
            await house.call("POST", "task_queue", {"data": {"task": {**task, "client": client}}}),
            await house.call("POST", "global_schedule", {"data": {"global_schedule": {**rule, "client_id": client}}}),
            await house.call("POST", "disaster_recovery_plan", {"data": {"client": client, **_WHAT}}),
        ]
        assert [one.status for one in answers] == [201 if allowed else 403] * 3, [one.envelope for one in answers]
    for path, act in (
        ("task_queue", "kill_task"),
        ("task_queue", "put_task_on_pause"),
        ("task_queue", "continue_task_working"),
    ):
        for number in rows[path]:
            status = (await house.call("POST", act, {"data": {"task_id": number}})).status
            assert (status == 404) == (number not in own[path]), (act, number, status)
    for number in rows["repository"]:
        answer = await house.call("POST", f"repository/{number}/verification")
        assert answer.status == (201 if number in own["repository"] else 404)
        copy = await house.call("POST", f"repository/{number}/copying?pool=Default")
        assert copy.status == (201 if number in own["repository"] else 404)
        names = await house.call("GET", f"repository_record_file_list?id={number}")
        assert names.status == (200 if number in own["repository"] else 404)
        chain = await house.call("POST", "repository/deletion_reference_chain", {"ids": [number]})
        assert chain.status == (200 if number in own["repository"] else 404)
    for number in rows["global_schedule"]:
        executed = await house.call("POST", f"global_schedule/{number}/execution")
        assert executed.status == (200 if number in own["global_schedule"] else 404)
        statuses = await house.call("PATCH", "global_schedule", {"data": [{"id": number, "status": "run"}]})
        assert statuses.status == (200 if number in own["global_schedule"] else 404)
    for number in rows["task_queue"]:
        for path in (f"task_queue/{number}/why", f"task_queue/{number}/progress", f"server_task_info?id={number}"):
            assert (await house.call("GET", path)).status == (200 if number in own["task_queue"] else 404), path
    for group, hwid in HWIDS.items():
        asked = await house.call("POST", "list_client_filesystem", {"data": {"client_hwid": hwid, "path": "/"}})
        assert asked.status == (503 if group == "one" else 404), "an agent that is away is asked only for his client"


_WHAT = {"resource_type": "File system", "resource": "/etc"}


async def test_requests_of_clients_are_answered_by_their_own_administrator(estate: Estate) -> None:
    house = estate.house
    house.tokens = await person(house, "olga", (A, {"client_group": "one"}))
    for path in ("delete_rule_requests", "new_rule_requests"):
        for row in estate.rows[path]:
            answer = await house.call("POST", f"{path}/approve", {"ids": [row["id"]]})
            his = estate.groups[row["client"]] == "one"
            assert answer.status == (200 if his else 404), answer.envelope


async def test_a_rule_is_not_given_away_and_not_taken_from_others(estate: Estate) -> None:
    """What a change makes of a record is judged like a new one."""
    house = estate.house
    house.tokens = await person(house, "olga", (A, {"client_group": "one"}))
    mine = next(row["id"] for row in estate.rows["strategy_rules"] if row["client_id"] == CLIENTS["one"])
    away = {"data": {"strategy_rule": {"client_id": CLIENTS["two"]}}}
    refused = await house.call("PATCH", f"strategy_rules/{mine}", away)
    assert (refused.status, set(refused.errors)) == (403, {"client_id"})
    assert (
        await house.call("PATCH", f"strategy_rules/{mine}", {"data": {"strategy_rule": {"priority": 7}}})
    ).status == 200


async def test_the_word_for_ended_tasks_means_those_within_reach(estate: Estate) -> None:
    house = estate.house
    house.tokens = await person(house, "olga", (A, {"client_group": "one"}))
    answer = await house.call("DELETE", "task_queue/obsoleted")
    assert sorted(answer.data["ids"]) == expected(estate, "task_queue", {(A, "one")})
    assert (await house.call("DELETE", "task_queue/obsoleted")).status == 404
    house.tokens = estate.superuser
    left = {row["id"] for row in (await house.call("GET", "task_queue")).data["items"]}
    assert left == set(expected(estate, "task_queue", {(A, "two")}))


async def test_a_maintainer_keeps_the_storage_of_his_server_and_of_no_other(estate: Estate) -> None:
    house = estate.house
    house.tokens = await person(house, "olga", (M, {"media_server": MAIN}))
    for server, allowed in ((MAIN, True), (SECOND, False)):
        pool = {"pool_name": f"new at {server}", "pool_type": "File system", "media_server": server}
        catalog = {"path": f"/mnt/{server}", "pool": POOLS[server]}
        cartridge = {"type": "LTO-9", "volume_tag": f"NEW{len(server)}L9", "pool": TAPES[server]}
        for path, data in (("pool_list", pool), ("storage_local_catalogs", catalog), ("tape_cartridges", cartridge)):
            answer = await house.call("POST", path, {"data": data})
            assert answer.status == (201 if allowed else 403), answer.envelope
        for row in estate.rows["pool_list"]:
            if row["media_server"] == server:
                body = {"data": {"description": "mine"}}
                changed = await house.call("PATCH", f"pool_list/{row['id']}", body)
                assert changed.status == (200 if allowed else 404)
    without = await house.call("POST", "pool_list", {"data": {"pool_name": "no server", "pool_type": "File system"}})
    assert without.status == 201, "the default is the main server, which is his"
    substitution = {"pool": "no server", "substitution": POOLS[SECOND]}
    assert (await house.call("POST", "pool_substitution", {"data": substitution})).status == 403
    for number in (row["id"] for row in estate.rows["task_queue"]):
        visible = number in expected(estate, "task_queue", {(M, MAIN)})
        assert (await house.call("POST", "kill_task", {"data": {"task_id": number}})).status == 403, visible


async def test_the_default_server_of_a_new_pool_is_judged_too(estate: Estate) -> None:
    house = estate.house
    house.tokens = await person(house, "olga", (M, {"media_server": SECOND}))
    answer = await house.call("POST", "pool_list", {"data": {"pool_name": "no server", "pool_type": "File system"}})
    assert answer.status == 403
    assert (await house.call("GET", "tape_libraries/candidates")).status == 403, "the main server sees the devices"


async def test_an_administrator_of_a_strategy_edits_it_and_makes_none(estate: Estate) -> None:
    house = estate.house
    house.tokens = await person(house, "olga", (S, {"strategy": "alpha"}))
    number = {row["name"]: row["id"] for row in estate.rows["backup_strategies"]}
    change = {"data": {"description": "mine"}}
    assert (await house.call("PATCH", f"backup_strategies/{number['alpha']}", change)).status == 200
    assert (await house.call("PATCH", f"backup_strategies/{number['beta']}", change)).status == 404
    status = {"data": [{"strategy_id": number["alpha"], "status": "run"}]}
    assert (await house.call("PATCH", "backup_strategies", status)).status == 200
    new = {"data": {"name": "gamma", "pool_id": "Default"}}
    assert (await house.call("POST", "backup_strategies", new)).status == 403
    binding = {"client_id": CLIENTS["one"], "strategy_id": "alpha", "resource_type": "File system", "resource": "/x"}
    refused = await house.call("POST", "strategy_rules", {"data": {"strategy_rule": binding}})
    assert refused.status == 403, "no client is his"
    own = [row["id"] for row in estate.rows["strategy_rules"] if row["strategy_id"] == "alpha"]
    body = {"data": {"strategy_rule": {"priority": 3}}}
    assert (await house.call("PATCH", f"strategy_rules/{own[0]}", body)).status == 200
    assert (await house.call("DELETE", f"strategy_rules/{own[0]}")).status == 200


async def test_trees_and_the_state_of_the_server_show_what_is_his(estate: Estate) -> None:
    house = estate.house
    await house.add_client("0123456789abcdef", "stranger", authorise=False)
    house.tokens = await person(house, "olga", (A, {"client_group": "two"}))
    tree = await house.call("POST", "clients/tree", {"data": {}})
    assert [row["name"] for row in tree.data["items"]] == ["two"]
    assert [one["client"] for one in tree.data["items"][0]["clients"]["items"]] == [CLIENTS["two"]]
    state = (await house.call("GET", "server_state")).data
    assert state["unauthorised_clients"] == {"total": 0, "items": []}
    assert [row["client"] for row in state["new_rule_requests"]["items"]] == [CLIENTS["two"]]
    house.tokens = await person(house, "ivan", (M, {"media_server": SECOND}))
    servers = (await house.call("GET", "media_servers/tree")).data["items"]
    assert [row["hostname"] for row in servers] == [SECOND]
    assert {one["pool_name"] for one in servers[0]["pools"]} == {POOLS[SECOND], TAPES[SECOND]}
    libraries = (await house.call("POST", "tape_libraries/tree", {"data": {}})).data
    assert [one["pool_name"] for one in libraries["pools"]["items"]] == [TAPES[SECOND]]
    assert (await house.call("GET", "task_queue/extension?resourse_type=File%20system&id=1")).status == 404


async def test_why_tells_nothing_of_what_the_same_command_did_to_others(estate: Estate) -> None:
    house = estate.house
    house.tokens = estate.superuser
    mine, theirs = (expected(estate, "task_queue", {(A, group)})[0] for group in ("one", "two"))
    for group in ("one", "two"):
        body = {**BACKUP_TASK, "client": CLIENTS[group]}
        queued = await house.call("POST", "task_queue", {"data": {"task": body}})
        killed = await house.call("POST", "kill_task", {"data": {"task_id": queued.data["task_id"]}})
        assert killed.status == 200
        mine, theirs = (queued.data["task_id"], theirs) if group == "one" else (mine, queued.data["task_id"])
    again = await house.call("POST", "restart_task", {"data": {"tasks_ids": [mine, theirs]}})
    assert again.status == 201, again.envelope
    of_mine, of_theirs = again.data["tasks_ids"]
    whole = (await house.call("GET", f"task_queue/{of_mine}/why")).data["items"]
    assert f"task/{of_theirs}" in {row["stream"] for row in whole}, "one command made both"
    house.tokens = await person(house, "olga", (A, {"client_group": "one"}))
    told = (await house.call("GET", f"task_queue/{of_mine}/why")).data["items"]
    assert {row["stream"] for row in told} == {f"task/{of_mine}"}
    assert CLIENTS["two"] not in str(told)


async def test_a_client_that_moves_to_another_group_moves_out_of_reach(estate: Estate) -> None:
    house = estate.house
    tokens = await person(house, "olga", (A, {"client_group": "one"}))
    moment = house.log.head
    house.tokens = estate.superuser
    (client,) = [row["id"] for row in estate.rows["clients"] if row["group_id"] == "one"]
    assert (await house.call("PATCH", f"clients/{client}", {"data": {"group_id": "two"}})).status == 200
    house.tokens = tokens
    for path in ("clients", "repository", "task_queue", "global_schedule"):
        assert (await house.call("GET", path)).data["total"] == 0
    for path in ("repository", "task_queue", "global_schedule"):
        assert (await house.call("GET", f"{path}?at={moment}")).data["total"] == 0, "what counts is the present"
