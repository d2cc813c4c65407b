"""The main job through the real command line: back up, change, back up again, restore whole and in part, verify, delete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rbmedia.client import RestClient
from rbmedia.compare import Description, describe, differences
from rbmedia.scratch import Scratch
from rbmedia.settings import Home
from tests.end_to_end.installation import Installation, backup_body, restore_body, until

OWNERS = os.geteuid() == 0


def assert_same(wanted: Description, found: Path) -> None:
    assert [str(one) for one in differences(wanted, describe(found), owners=OWNERS)] == []


def login(running: Installation) -> None:
    secret = running.folder / "password"
    secret.write_text("correct horse battery staple\nnot this line\n")
    assert running.json("login", "--password-file", str(secret))["role"] == ["superuser"]


def test_a_chain_through_the_command_line(running: Installation, protected: str, tmp_path: Path) -> None:
    login(running)
    scratch = Scratch(tmp_path / "tree", big_bytes=3_000_000, sparse_bytes=40_000_000, small_files=60)
    scratch.make()
    states: list[tuple[int, Description]] = []
    for backup_type, crypto in (
        ("full", "AES-256-GCM"),
        ("incremental", "AES-256-GCM"),
        ("differential", "AES-256-GCM"),
    ):
        if backup_type == "incremental":
            scratch.change()
        wanted = describe(scratch.root)
        task = running.json("backup", str(scratch.root), "--type", backup_type, "--crypto", crypto)
        assert task["status"] == "Done", task
        (row,) = [one for one in running.json("repository", "list") if one["task_id"] == task["id"]]
        assert (row["backup_type"], row["crypto"], row["problems"]) == (backup_type, crypto, 0)
        states.append((row["id"], wanted))
    for number, wanted in states:
        target = tmp_path / "restored" / str(number)
        target.mkdir(parents=True)
        assert running.json("restore", str(number), "--to", str(target))["status"] == "Done"
        assert_same(wanted, target)
    assert running.command("repository", "verify", str(states[1][0])).returncode == 0
    assert running.json("repository", "show", str(states[1][0]))["verification_status"] == "Trusted"


def test_one_file_of_a_backup(
    running: Installation, rest: RestClient, protected: str, tree: Path, tmp_path: Path
) -> None:
    number = back_up(rest, protected, tree)
    names = [row["path"] for row in running.json("repository", "files", str(number), "--below", "content")]
    assert any(name == "content/text.txt" for name in names), names
    target = tmp_path / "some"
    target.mkdir()
    restore(rest, protected, number, target, only=["content/text.txt", "links"])
    found = {path.relative_to(target).as_posix() for path in target.rglob("*")}
    assert (target / "content" / "text.txt").read_bytes() == (tree / "content" / "text.txt").read_bytes()
    assert "links/original" in found
    assert not [name for name in found if name.startswith("many")]


def test_deleting_a_backup_frees_its_bytes(running: Installation, rest: RestClient, protected: str, tree: Path) -> None:
    number = back_up(rest, protected, tree)
    archive = rest.get(f"/repository/{number}")["archive_name"]
    pool = running.home.default_pool
    assert [path for path in pool.rglob("*") if archive in path.name]
    done = running.command("repository", "delete", str(number), "--yes")
    assert done.returncode == 0, done.stderr
    until(lambda: not [path for path in pool.rglob("*") if archive in path.name], "the bytes are still there")
    assert running.command("repository", "show", str(number)).returncode == 1


def test_the_past_can_be_asked_for(rest: RestClient, protected: str, tree: Path) -> None:
    before = rest.call("GET", "/repository").position
    number = back_up(rest, protected, tree)
    now = [row["id"] for row in rest.rows("/repository")]
    assert number in now
    assert number not in [row["id"] for row in rest.rows("/repository", at=before)]


def test_why_a_task_is_where_it_is(running: Installation, rest: RestClient, protected: str, tree: Path) -> None:
    number = back_up(rest, protected, tree)
    task_id = rest.get(f"/repository/{number}")["task_id"]
    assert "Done" in json.dumps(running.json("tasks", "why", str(task_id)))
    shown = running.command("tasks", "show", str(task_id))
    assert shown.returncode == 0
    assert "Done" in shown.stdout


def test_lists_are_shown_to_people_and_to_programs(running: Installation, protected: str) -> None:
    for command in (
        ["tasks", "list"],
        ["pools", "list"],
        ["clients", "list"],
        ["repository", "list"],
        ["pools", "directories"],
    ):
        assert isinstance(running.json(*command), list)
        shown = running.command(*command)
        assert (shown.returncode, shown.stderr) == (0, "")


def test_the_script_of_the_main_job(tmp_path: Path) -> None:
    """What ``scripts/run --once DIR`` starts, twice over the same home, ends with ``identical``."""
    home = Home(tmp_path / "home")
    directory = tmp_path / "directory"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "file").write_text("content")
    environment = {**os.environ, "RBMEDIA_HOME": str(home.path), "APP_PORT": "0"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "rbmedia.demo", "--once", str(directory)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "identical"
    inside = subprocess.run(
        [sys.executable, "-m", "rbmedia.demo", "--once", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert inside.returncode == 2
    assert "lies inside" in inside.stdout.splitlines()[-1]


def back_up(rest: RestClient, client: str, tree: Path, **more: Any) -> int:
    from rbmedia.cli.work import task_id_of
    from rbmedia.waiting import end_of_task

    task = end_of_task(rest, task_id_of(rest.post("/task_queue", backup_body(client, tree, **more))), 120)
    assert task["status"] == "Done", task
    return int(rest.get("/repository", filter_data=f'task_id="{task["id"]}"')["items"][0]["id"])


def restore(rest: RestClient, client: str, number: int, target: Path, only: list[str] | None = None) -> None:
    from rbmedia.cli.work import task_id_of
    from rbmedia.waiting import end_of_task

    answer = rest.post(f"/repository/{number}/restoring", restore_body(client, target, only))
    task = end_of_task(rest, task_id_of(answer), 120)
    assert task["status"] == "Done", task
