"""A rule from its wish to its backup: the host's user asks, an administrator approves and executes, the agent backs up. Real processes."""

from __future__ import annotations

from pathlib import Path

from rbmedia.client import RestClient
from rbmedia.exits import Exit
from tests.end_to_end.installation import Installation


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

    (listed,) = running.json("rules", "requests")
    assert (listed["wish"], listed["id"]) == ("new", request["id"])
    missing = running.command("rules", "approve", "new", "98", "99")
    assert missing.returncode == Exit.FAILED
    assert "There is no request with id 98" in missing.stderr
    assert running.json("rules", "approve", "new", str(request["id"])) == {"succeeded": [request["id"]]}
    (rule,) = rest.rows("/global_schedule")
    assert (rule["status"], rule["client_id"], rule["storage_duration"]) == ("wait", protected, "14 days")
    assert running.json("rules", "show", str(rule["id"])) == rest.get(f"/global_schedule/{rule['id']}")
    task = running.json("rules", "execute", str(rule["id"]))
    assert (task["status"], task["task_type"], task["rule_id"]) == ("Done", "Backup global", rule["id"]), task
    backup = rest.get(f"/repository/{task['archive_id']}")
    assert (backup["rule_id"], backup["resource"]) == (rule["id"], str(tree))

    wrong = running.command("ask", "deletion", "999")
    assert wrong.returncode == Exit.FAILED
    assert "no rule 999" in wrong.stderr
    done = running.command("ask", "deletion", str(rule["id"]), "--comment", "moved away")
    assert done.returncode == Exit.OK, done.stderr
    (wish,) = rest.rows("/delete_rule_requests")
    assert running.json("rules", "decline", "deletion", str(wish["id"])) == {"succeeded": [wish["id"]]}
    assert list(rest.rows("/delete_rule_requests")) == []
    assert running.json("rules", "start", str(rule["id"])) == {"ids": [rule["id"]], "status": "run"}
    assert [one["status"] for one in running.json("rules", "list")] == ["run"]
    assert running.json("rules", "stop", str(rule["id"]))["status"] == "wait"
    assert running.command("ask", "deletion", str(rule["id"])).returncode == Exit.OK
    (wish,) = rest.rows("/delete_rule_requests")
    assert running.command("rules", "approve", "deletion", str(wish["id"])).returncode == Exit.OK
    assert running.json("rules", "list") == []


def test_without_an_agent_there_is_no_identity_to_ask_with(running: Installation, tmp_path: Path) -> None:
    done = running.command("ask", "rule", "/etc", "--every", "1 day", "--data", str(tmp_path / "none"))
    assert done.returncode == Exit.FAILED
    assert "No agent has its keys" in done.stderr
    assert not (tmp_path / "none").exists()
