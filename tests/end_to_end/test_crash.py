"""``kill -9`` of daemon or agent at random moments, a hundred times, over running backups and restores.

What must hold afterwards: everything that was acknowledged is there; every backup that is visible is whole (it verifies, and gives
back what was there); every task has ended; the pool holds the visible backups and nothing else; the log verifies; views made anew
equal those that were there.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rbmedia.cli.work import task_id_of
from rbmedia.client import RestClient
from rbmedia.compare import describe, differences
from rbmedia.exits import CommandFailed
from rbmedia.scratch import MIB, Scratch
from rbmedia.waiting import ENDED
from tests.end_to_end.installation import Installation, backup_body, installed, restore_body, until

KILLS = 100
SEED = 20260101
PAUSE_SECONDS = (0.15, 1.1)
"""Between two kills, drawn evenly: shorter and longer than a start, a handshake, a transfer, a commit."""
SETTLE_SECONDS = 240.0
RESTORED_MAX = 6


class Traffic:
    """Backups and restores, one after the other, as long as it runs; remembers what was acknowledged."""

    def __init__(self, installation: Installation, client: str, tree: Path, seed: int) -> None:
        self._installation = installation
        self._client = client
        self._tree = tree
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")
        self.tasks: list[int] = []
        """Ids of tasks whose creation was answered."""
        self.backups: set[int] = set()
        """Ids of backups that a list has shown."""
        self.problem: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.problem is not None:
            raise self.problem

    def _run(self) -> None:
        rest = self._installation.client()
        try:
            while not self._stop.is_set():
                with suppress(CommandFailed):
                    self._one(rest)
                self._stop.wait(0.05)
        except BaseException as error:
            self.problem = error

    def _one(self, rest: RestClient) -> None:
        under_way = [row for row in rest.rows("/task_queue") if row["status"] not in ENDED]
        shown = [row["id"] for row in rest.rows("/repository")]
        self.backups.update(shown)
        if len(under_way) >= 3:
            return
        if shown and self._random.random() < 0.4:
            target = self._tree.parent / "restored" / str(len(self.tasks))
            target.mkdir(parents=True, exist_ok=True)
            number = self._random.choice(shown)
            answer = rest.post(f"/repository/{number}/restoring", restore_body(self._client, target))
        else:
            kind = self._random.choice(["full", "incremental", "incremental"])
            crypto = self._random.choice(["nocrypt", "AES-256-GCM"])
            answer = rest.post("/task_queue", backup_body(self._client, self._tree, kind, crypto))
        self.tasks.append(task_id_of(answer))


@pytest.fixture
def crashing(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path, fixed_ports=True) as installation:
        installation.start()
        installation.start_agent()
        yield installation


@pytest.mark.slow
def test_a_hundred_kills(crashing: Installation, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "tree", big_bytes=12 * MIB, sparse_bytes=8 * MIB, small_files=300)
    scratch.make()
    wanted = describe(scratch.root)
    (client,) = crashing.authorised_client(crashing.client())
    traffic = Traffic(crashing, client, scratch.root, SEED)
    traffic.start()
    kill_at_random(crashing, random.Random(SEED), KILLS)
    traffic.stop()

    rest = crashing.client()
    until(lambda: all_ended(rest), f"tasks do not end: {unended(rest)}", SETTLE_SECONDS)
    queue = {row["id"]: row for row in rest.rows("/task_queue")}
    backups = {row["id"]: row for row in rest.rows("/repository")}
    assert set(traffic.tasks) <= set(queue), "an acknowledged task is gone"
    assert traffic.backups <= set(backups), "a backup that was shown is gone"
    done = [row for row in queue.values() if row["task_type"].startswith("Backup") and row["status"] == "Done"]
    assert {row["archive_id"] for row in done} == set(backups)
    print(
        f"{len(queue)} tasks, {len(backups)} backups, {sum(1 for row in queue.values() if row['status'] != 'Done')} not Done"
    )
    assert len(backups) >= 3, "the run has to do some work between the kills"

    every_backup_verifies(rest, backups)
    for number in sorted(backups)[-RESTORED_MAX:]:
        restored = restore(rest, client, number, tmp_path / "afterwards" / str(number))
        assert [str(one) for one in differences(wanted, describe(restored), owners=os.geteuid() == 0)] == []
    nothing_stray_in_the_pool(crashing, rest)
    log_and_views_are_sound(crashing)


def kill_at_random(installation: Installation, chance: random.Random, kills: int) -> None:
    """Kill the daemon, the agent, or both; start again what was killed."""
    sleeper = threading.Event()
    for _ in range(kills):
        sleeper.wait(chance.uniform(*PAUSE_SECONDS))
        victims = chance.choice([("daemon",), ("agent",), ("agent",), ("daemon", "agent")])
        if "daemon" in victims:
            assert installation.daemon is not None
            installation.kill(installation.daemon)
        if "agent" in victims:
            installation.kill(installation.agents["agent"])
            installation.start_agent()
        if "daemon" in victims:
            installation.start()


def unended(rest: RestClient) -> list[Any]:
    return [
        (row["id"], row["task_type"], row["status"], row["status_reason"])
        for row in rest.rows("/task_queue")
        if row["status"] not in ENDED
    ]


def all_ended(rest: RestClient) -> bool:
    return not unended(rest)


def every_backup_verifies(rest: RestClient, backups: dict[int, Any]) -> None:
    for number in backups:
        rest.call("POST", f"/repository/{number}/verification")
    until(lambda: all_ended(rest), "verifications do not end", SETTLE_SECONDS)
    found = {row["id"]: row["verification_status"] for row in rest.rows("/repository")}
    assert set(found.values()) == {"Trusted"}, found


def restore(rest: RestClient, client: str, number: int, target: Path) -> Path:
    target.mkdir(parents=True)
    task_id = task_id_of(rest.post(f"/repository/{number}/restoring", restore_body(client, target)))
    until(lambda: rest.get(f"/task_queue/{task_id}")["status"] in ENDED, "the restore does not end", SETTLE_SECONDS)
    assert rest.get(f"/task_queue/{task_id}")["status"] == "Done"
    return target


def nothing_stray_in_the_pool(installation: Installation, rest: RestClient) -> None:
    """After the sweep of the next start, the pool holds the archives of the repository and no other byte."""
    installation.stop()
    installation.start()
    wanted = {row["archive_name"] for row in installation.client().rows("/repository")}

    def names() -> set[str]:
        folders = {path.parent for path in installation.home.default_pool.rglob("*") if path.is_file()}
        return {path.name for path in folders if path != installation.home.default_pool}

    until(lambda: names() == wanted, f"strays: {names() - wanted}, missing: {wanted - names()}")


def log_and_views_are_sound(installation: Installation) -> None:
    installation.kill(installation.agents["agent"])
    assert installation.stop() == 0
    audit = installation.command("audit", "verify")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    views = installation.command("views", "verify")
    assert views.returncode == 0, views.stdout + views.stderr
    digests = {installation.json("replay")["digest"] for _ in range(2)}
    assert len(digests) == 1
