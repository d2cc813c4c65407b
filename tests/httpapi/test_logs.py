"""The journals over HTTP: what happened stands there, in order, filtered, at any moment, and after the thing itself is gone."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from rbcore.commands import (
    AgentGone,
    AgentHello,
    AllAgentsGone,
    DeleteBackups,
    QueueVerification,
    RecordBytesRemoved,
    RecordVerification,
)
from rbcore.entities import Backup, Client
from tests.httpapi.house import CLIENT, House
from tests.httpapi.stories import assigned, backed_up, failed, queued
from tests.httpapi.tapes import rows
from tests.httpapi.test_schedule import rule
from tests.httpapi.test_users import SECRET

LOGS = ("clients_log", "global_schedule_log", "media_servers_log", "repository_log", "task_log")


@pytest.fixture
async def client(house: House) -> int:
    assert (await house.login()).status == 200
    return await house.add_client()


def where(field: str, operator: str, value: object) -> str:
    return f"filter_data={quote(f'{field}{operator}{chr(34)}{value}{chr(34)}')}"


async def test_clients_log_tells_what_clients_did_and_what_was_done_to_them(house: House, client: int) -> None:
    await house.execute(AgentGone(client_id=client, reason="the connection broke"), "actor:sessions")
    assert (await house.call("PATCH", f"clients/{client}", {"data": {"description": "in the cellar"}})).status == 200
    lines = await rows(house, "clients_log")
    assert [one["event"] for one in lines] == ["appeared", "authorised", "changed"]
    assert [one["client"] for one in lines] == [None, CLIENT, CLIENT]
    assert lines[2]["actor"] == "user:rubackup"
    assert lines[2]["text"] == "Changed: description"
    assert (await house.call("DELETE", "clients", {"ids": [client]})).status == 200
    last = (await rows(house, "clients_log?sort_order=desc&limit=1"))[0]
    assert (last["event"], last["client"], last["severity"]) == ("revoked", CLIENT, "warning")


async def test_a_client_that_comes_and_goes_leaves_lines(house: House, client: int) -> None:
    known = house.journal.state.find(Client, client)
    assert known is not None
    told = ("hwid", "hostname", "public_key", "address", "os_type", "os_version", "agent_version")
    facts = {name: getattr(known, name) for name in told}
    await house.execute(AgentHello(resource_types=["File system"], **facts), f"client:{known.hwid}")
    await house.execute(AllAgentsGone(), "actor:dispatcher")
    events = [one["event"] for one in await rows(house, f"clients_log?{where('client', '=', CLIENT)}")]
    assert "connected" in events
    assert events[-1] == "disconnected"


async def test_media_servers_log_tells_of_servers_pools_and_storages(house: House) -> None:
    pool = {"pool_name": "second", "pool_type": "File system", "media_server": "rubackup-server"}
    made = await house.call("POST", "pool_list", {"data": pool})
    assert made.status == 201, made.raw
    await house.call("PATCH", "media_servers/1", {"data": {"description": "the only one"}})
    await house.call("DELETE", f"pool_list/{made.data['id']}")
    lines = [(one["object"], one["text"], one["media_server"]) for one in await rows(house, "media_servers_log")]
    assert lines[0] == ("media server 'rubackup-server'", "Created", "rubackup-server")
    assert lines[-3:] == [
        ("pool 'second'", "Created", "rubackup-server"),
        ("media server 'rubackup-server'", "Changed: description", "rubackup-server"),
        ("pool 'second'", "Deleted", "rubackup-server"),
    ]


async def test_repository_log_tells_the_life_of_a_backup_to_its_end(house: House, client: int) -> None:
    backup_id = await backed_up(house)
    backup = house.journal.state.find(Backup, backup_id)
    assert backup is not None
    task_id = (await house.execute(QueueVerification(backup_id=backup_id), "user:rubackup")).ids[0]
    await assigned(house, task_id)
    verified = RecordVerification(task_id=task_id, status="Broken", bytes_read=7, findings=["block 3 is damaged"])
    await house.execute(verified, "actor:dispatcher")
    deletion = await house.execute(DeleteBackups(ids=[backup_id]), "user:rubackup")
    await assigned(house, deletion.data["task_ids"][0])
    await house.execute(RecordBytesRemoved(backup_id=backup_id, bytes_removed=1000), "actor:dispatcher")
    lines = await rows(house, f"repository_log?{where('backup_id', '=', backup_id)}&limit=50")
    assert [one["event"] for one in lines] == [
        "recorded",
        "queued",
        "verified",
        "ended",
        "deleted",
        "bytes_removed",
        "ended",
    ]
    assert lines[2]["severity"] == "error"
    assert "block 3 is damaged" in lines[2]["text"]
    assert {one["archive"] for one in lines[:5]} == {backup.archive}
    assert {one["client"] for one in lines[:5]} == {CLIENT}
    assert lines[4]["pool"] == "Default"


async def test_task_log_keeps_what_the_queue_has_not_any_more(house: House, client: int) -> None:
    task_id = await queued(house)
    await failed(house, task_id)
    assert (await house.call("DELETE", f"task_queue/{task_id}")).status == 200
    lines = await rows(house, f"task_log?{where('task_id', '=', task_id)}&limit=50")
    assert lines[0]["event"] == "queued"
    assert lines[-1]["event"] == "removed"
    assert {(one["client"], one["task_type"]) for one in lines} == {(CLIENT, "Backup urgent")}
    assert [one["severity"] for one in lines if "the module said no" in one["text"]] == ["error"]
    errors = await rows(house, f"task_log?{where('severity', '=', 'error')}")
    assert [one["task_id"] for one in errors] == [task_id]


async def test_global_schedule_log_tells_what_rules_did(house: House, client: int) -> None:
    rule_id = await rule(house)
    answer = await house.call("POST", f"global_schedule/{rule_id}/execution")
    task_id = answer.data["task_id"]
    await failed(house, task_id)
    await house.call("DELETE", f"global_schedule/{rule_id}")
    lines = await rows(house, "global_schedule_log")
    assert [(one["event"], one["rule_id"], one["task_id"], one["severity"]) for one in lines] == [
        ("created", rule_id, 0, "info"),
        ("queued", rule_id, task_id, "info"),
        ("status_changed", rule_id, task_id, "error"),
        ("deleted", rule_id, 0, "info"),
    ]
    assert len({one["rule"] for one in lines}) == 1, "also of the rule that is gone"


@pytest.mark.parametrize("log", LOGS)
async def test_each_log_is_ordered_has_a_past_and_single_lines(house: House, client: int, log: str) -> None:
    rule_id = await rule(house)
    first = (await house.call("GET", log)).position
    await house.call("POST", f"global_schedule/{rule_id}/execution")
    await backed_up(house, resource="/srv")
    await house.call("PATCH", f"clients/{client}", {"data": {"description": "changed"}})
    await house.call("PATCH", "media_servers/1", {"data": {"description": "changed"}})
    lines = await rows(house, f"{log}?limit=1000")
    assert [one["id"] for one in lines] == list(range(1, len(lines) + 1))
    assert [one["time"] for one in lines] == sorted(one["time"] for one in lines)
    before = await rows(house, f"{log}?limit=1000&at={first}")
    assert before == lines[: len(before)]
    assert len(before) < len(lines)
    last = lines[-1]
    assert (await house.call("GET", f"{log}/{last['id']}")).data == last
    assert (await house.call("GET", f"{log}/{last['id']}?at={first}")).status == 404
    assert (await house.call("GET", f"{log}/999999")).status == 404
    later = await rows(house, f"{log}?{where('time', '>=', last['time'])}")
    assert last in later
    assert (await house.call("GET", f"{log}?{where('no_such', '=', 1)}")).status == 400


async def test_limited_roles_see_the_lines_about_theirs(house: House, client: int) -> None:
    """Two client groups and two media servers; who administers one of them sees no line about the other."""
    group = await house.call("POST", "client_groups", {"data": {"name": "cellar"}})
    assert group.status == 201
    other = await house.add_client("aa" * 8, "other-host")
    moved = await house.call("PATCH", f"clients/{other}", {"data": {"group_id": "cellar"}})
    assert moved.status == 200, moved.raw
    await backed_up(house)
    await rule(house)
    everything = {log: (await house.call("GET", log)).data["total"] for log in LOGS}
    assert all(everything.values())
    users = {
        "mine": "?role=administrator&client_group=No%20group",
        "theirs": "?role=administrator&client_group=cellar",
        "keeper": "?role=maintainer&media_server=rubackup-server",
    }
    for name, query in users.items():
        body = {"data": {"username": name, "user_password": SECRET}}
        assert (await house.call("POST", f"users{query}", body)).status == 201
    seen: dict[tuple[str, str], list[dict[str, Any]]] = {}
    denied: set[tuple[str, str]] = set()
    for name in users:
        await house.login(name, SECRET)
        for log in LOGS:
            answer = await house.call("GET", f"{log}?limit=1000")
            if answer.status == 403:
                denied.add((name, log))
                continue
            seen[name, log] = answer.data["items"]
            assert answer.data["total"] == len(answer.data["items"])
            for line in answer.data["items"]:
                assert (await house.call("GET", f"{log}/{line['id']}")).data == line
    for log in ("repository_log", "task_log", "global_schedule_log"):
        assert len(seen["mine", log]) == everything[log], log
        assert seen["theirs", log] == [], log
    assert {line["client"] for line in seen["theirs", "clients_log"]} == {f"other-host ({'aa' * 8})"}
    assert {line["client"] for line in seen["mine", "clients_log"]} == {CLIENT}
    assert {("mine", "media_servers_log"), ("keeper", "clients_log"), ("keeper", "task_log")} <= denied
    assert len(seen["keeper", "media_servers_log"]) == everything["media_servers_log"]
    assert len(seen["keeper", "repository_log"]) == everything["repository_log"]
    await house.login("theirs", SECRET)
    assert (await house.call("GET", "repository_log/1")).status == 404
