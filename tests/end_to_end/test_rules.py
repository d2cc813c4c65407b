"""A rule from its wish to its backup: the host's user asks, an administrator approves and executes, the agent backs up. Real processes."""

from __future__ import annotations

from pathlib import Path

from rbmedia.client import RestClient
from rbmedia.exits import Exit
from tests.end_to_end.installation import Installation, until


def test_a_wish_of_a_protected_host_becomes_a_rule_and_the_rule_a_backup(
    running: Installation, rest: RestClient, protected: str, tree: Path
) -> None:
    refused = running.command("ask", "rule", str(tree), "--every", "1 day")
    assert refused.returncode == Exit.FAILED
    assert "client_side_backup" in refused.stderr
    (client,) = [row for row in rest.rows("/clients") if row["client"] == protected]
    rest.call("PATCH", f"/clients/{client['id']}", body={"data": {"client_side_backup": True}})

    asked = running.command("ask", "rule", str(tree), "--every", "1 day", "--comment", "my work", "--keep", "2 weeks")
    assert asked.returncode == Exit.OK, asked.stderr
    assert "waits for an administrator" in asked.stdout
    (request,) = rest.rows("/new_rule_requests")
    assert (request["client"], request["resource"], request["comment"]) == (protected, str(tree), "my work")
    (client,) = [row for row in rest.rows("/clients") if row["client"] == protected]
    assert client["online"], "the agent was not disturbed"

    rest.call("POST", "/new_rule_requests/approve", body={"ids": [request["id"]]})
    (rule,) = rest.rows("/global_schedule")
    assert (rule["status"], rule["client_id"], rule["storage_duration"]) == ("wait", protected, "14 days")
    task_id = rest.call("POST", f"/global_schedule/{rule['id']}/execution").data["task_id"]
    task = until(lambda: _ended(rest, task_id), "the task of the rule does not end")
    assert (task["status"], task["task_type"], task["rule_id"]) == ("Done", "Backup global", rule["id"]), task
    backup = rest.get(f"/repository/{task['archive_id']}")
    assert (backup["rule_id"], backup["resource"]) == (rule["id"], str(tree))

    wrong = running.command("ask", "deletion", "999")
    assert wrong.returncode == Exit.FAILED
    assert "no rule 999" in wrong.stderr
    done = running.command("ask", "deletion", str(rule["id"]), "--comment", "moved away")
    assert done.returncode == Exit.OK, done.stderr
    (wish,) = rest.rows("/delete_rule_requests")
    rest.call("POST", "/delete_rule_requests/approve", body={"ids": [wish["id"]]})
    assert list(rest.rows("/global_schedule")) == []


def test_without_an_agent_there_is_no_identity_to_ask_with(running: Installation, tmp_path: Path) -> None:
    done = running.command("ask", "rule", "/etc", "--every", "1 day", "--data", str(tmp_path / "none"))
    assert done.returncode == Exit.FAILED
    assert "No agent has its keys" in done.stderr
    assert not (tmp_path / "none").exists()


def _ended(rest: RestClient, task_id: int) -> dict[str, object] | None:
    task = rest.get(f"/task_queue/{task_id}")
    return task if task["status"] in ("Done", "Error", "Broken", "Killed") else None
