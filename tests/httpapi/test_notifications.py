"""Notifications over HTTP: made by what happens, listed, filtered, of their moment, and within the reach of who asks."""

from __future__ import annotations

from urllib.parse import quote

from tests.httpapi.house import CLIENT, House
from tests.httpapi.stories import failed
from tests.httpapi.tapes import rows
from tests.httpapi.test_schedule import rule
from tests.httpapi.test_users import SECRET


async def test_a_failed_task_of_a_rule_is_told(house: House) -> None:
    await house.add_client()
    rule_id = await rule(house, notify_exception_cc="boss@example.org")
    before = (await house.call("GET", "notifications")).position
    task_id = (await house.call("POST", f"global_schedule/{rule_id}/execution")).data["task_id"]
    await failed(house, task_id)
    (row,) = await rows(house, "notifications")
    assert (row["event"], row["cc"], row["status"]) == ("notify_exception", "boss@example.org", "New")
    assert (row["client"], row["task_id"], row["sent"]) == (CLIENT, task_id, None)
    assert "the module said no" in row["text"]
    assert (await house.call("GET", f"notifications/{row['id']}")).data == row
    assert await rows(house, f"notifications?at={before}") == []
    new = quote('status="New",event="notify_exception"')
    assert len(await rows(house, f"notifications?filter_data={new}")) == 1
    missing = await house.call("GET", "notifications/999")
    assert missing.status == 404
    for name, query in (("mine", "No%20group"), ("theirs", "cellar")):
        await house.call("POST", "client_groups", {"data": {"name": "cellar"}})
        body = {"data": {"username": name, "user_password": SECRET}}
        made = await house.call("POST", f"users?role=administrator&client_group={query}", body)
        assert made.status == 201, made.raw
    await house.login("mine", SECRET)
    assert len(await rows(house, "notifications")) == 1
    await house.login("theirs", SECRET)
    assert await rows(house, "notifications") == []
