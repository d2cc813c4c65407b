"""Full volumes under the real daemon: a stated outcome, reads go on, work resumes when there is room."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rbmedia.client import ApiError, RestClient
from rbmedia.compare import describe, differences
from tests.end_to_end.installation import backup_body, installed, restore_body, until

MIB = 1 << 20
SECONDS_MAX = 120.0


@contextmanager
def small_volume(place: Path, size_bytes: int) -> Iterator[None]:
    """A file system of this size at ``place``. Needs the right to mount."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full volume; mounting is not permitted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_pool_suspends_the_backup_until_there_is_room(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        (source / f"file {number}").write_bytes(os.urandom(8 * MIB))
    with installed(tmp_path) as installation, small_volume(installation.home.default_pool, 24 * MIB):
        installation.start("--with-agent")
        rest = installation.client()
        client = installation.authorised_client(rest)[0]
        rest.call("PATCH", "/pool_list/1", body={"data": {"ignore_free_space_check": True}})
        task_id = rest.post("/task_queue", backup_body(client, source)).data["task_id"]

        def task() -> dict[str, object]:
            found: dict[str, object] = rest.get(f"/task_queue/{task_id}")
            return found

        until(lambda: task()["status"] == "Suspended", "the task is not suspended", SECONDS_MAX)
        assert "room" in str(task()["status_reason"]), task()
        assert list(rest.rows("/repository")) == [], "no half backup is visible"
        size = f"remount,size={128 * MIB}"
        subprocess.run(["mount", "-o", size, str(installation.home.default_pool)], check=True)
        rest.post("/continue_task_working", {"task_id": task_id})
        until(lambda: task()["status"] == "Done", "the task does not go on", SECONDS_MAX)
        target = tmp_path / "restored"
        (backup,) = rest.rows("/repository")
        restored = rest.post(f"/repository/{backup['id']}/restoring", restore_body(client, target)).data["task_id"]
        until(lambda: rest.get(f"/task_queue/{restored}")["status"] == "Done", "no restore", SECONDS_MAX)
        assert list(differences(describe(source), describe(target), owners=os.geteuid() == 0)) == []


def test_a_full_log_volume_stops_writing_and_nothing_else(tmp_path: Path) -> None:
    with installed(tmp_path) as installation, small_volume(installation.home.log, 160 * MIB):
        installation.start()
        rest = installation.client()
        _written(rest, "before")
        ballast = installation.home.log / "ballast"
        _fill(ballast)
        refusal = until(lambda: _refusal(rest), "a full log volume still takes writes", SECONDS_MAX)
        assert "full" in refusal
        assert {"before", "Default"} <= _names(rest)
        assert installation.stop() == 0
        installation.start()
        again = installation.client()
        assert {"before", "Default"} <= _names(again), "reads go on after a restart on the full volume"
        ballast.unlink()
        until(lambda: not _refusal(again), "writing does not resume", SECONDS_MAX)
        _written(again, "after")
        assert {"before", "after", "Default"} <= _names(again)
        installation.stop()
        verified = installation.command("audit", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def _written(rest: RestClient, name: str) -> None:
    pool = {"pool_name": name, "pool_type": "File system", "media_server": _media_server(rest)}
    rest.post("/pool_list", pool)


def _media_server(rest: RestClient) -> str:
    return str(next(rest.rows("/media_servers"))["hostname"])


def _names(rest: RestClient) -> set[str]:
    return {row["pool_name"] for row in rest.rows("/pool_list")}


def _refusal(rest: RestClient) -> str:
    """Try to write; the sentence of the refusal, empty when it was taken."""
    try:
        rest.call("PATCH", "/pool_list/1", body={"data": {"description": os.urandom(4).hex() * 50}})
    except ApiError as failure:
        return str(failure)
    return ""
