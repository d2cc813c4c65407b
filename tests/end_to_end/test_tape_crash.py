"""``kill -9`` of the daemon, and of the tape library, at random moments while backups go to tape and restores come from it.

What must hold afterwards: every task has ended or can go on; every backup that was ever shown in the repository is there, and restores
identical from cartridges that were mounted anew.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from rbmedia.compare import describe
from rbmedia.exits import CommandFailed
from rbmedia.waiting import ENDED
from tests.end_to_end.installation import until
from tests.end_to_end.tape_installation import (
    SIMULATED,
    TARGETED,
    TapeInstallation,
    assert_same,
    noise,
    tape_installation,
)

KINDS = pytest.mark.parametrize("kind", [TARGETED, SIMULATED])
KILLS = {TARGETED: 10, SIMULATED: 6}
PAUSE_SECONDS = (0.1, 0.9)
"""Between two kills: around a mount, a label, a transfer, a dismount, all of which take parts of a second here."""
UNDER_WAY_MAX = 4


class Traffic:
    """Keeps the queue filled with backups and restores; remembers which backups were ever shown."""

    def __init__(self, site: TapeInstallation, trees: list[Path], seed: int) -> None:
        self._site = site
        self._trees = trees
        self._draw = random.Random(seed)
        self.shown: set[int] = set()
        self.acknowledged: set[int] = set()

    def more(self) -> None:
        """Top up the queue, as far as somebody answers."""
        site = self._site
        with suppress(CommandFailed):
            rows = list(site.rest.rows("/task_queue"))
            self.shown |= {int(one["id"]) for one in site.rest.rows("/repository")}
            for row in rows:
                if row["status"] == "Suspended":
                    site.go_on(row["id"])
            under_way = sum(1 for one in rows if one["status"] not in ENDED)
            while under_way < UNDER_WAY_MAX:
                if self.shown and self._draw.random() < 0.3:
                    task, _ = site.queue_restore(self._draw.choice(sorted(self.shown)))
                else:
                    kind = self._draw.choice(["full", "full", "incremental"])
                    task = site.queue_backup(self._draw.choice(self._trees), "crashing", kind)
                self.acknowledged.add(task)
                under_way += 1


def live_through(
    site: TapeInstallation, tmp_path: Path, kills: int, seed: int, strike: Callable[[random.Random], None]
) -> None:
    """So many strikes over running work, then all of it to its end, and a look at everything."""
    trees = [noise(tmp_path / f"tree {number}", [3, 0.5, 1], seed=seed + number) for number in range(4)]
    tags = site.make_pool("crashing", 8)
    traffic, draw, sleeper = Traffic(site, trees, seed), random.Random(seed), threading.Event()
    traffic.shown.add(site.back_up(trees[0], "crashing"))
    caught: Counter[str] = Counter()
    """Statuses of tasks just before a strike."""
    for _ in range(kills):
        traffic.more()
        sleeper.wait(draw.uniform(*PAUSE_SECONDS))
        caught.update(one["status"] for one in site.rest.rows("/task_queue") if one["status"] not in ENDED)
        strike(draw)
    until(lambda: all_ended(site), "the tasks do not end", 120.0)

    site.synchronise()
    tasks = {int(one["id"]): one for one in site.rest.rows("/task_queue")}
    backups = {int(one["id"]): one for one in site.rest.rows("/repository")}
    assert traffic.acknowledged <= set(tasks), "an acknowledged task is gone"
    assert traffic.shown <= set(backups), "a backup that was shown is gone"
    failed = [(one["id"], one["status"], one["status_reason"]) for one in tasks.values() if one["status"] != "Done"]
    print(f"{len(tasks)} tasks, {len(backups)} backups, not Done: {failed}; caught {dict(caught)}")
    assert len(backups) >= 3, f"the run has to do some work between the kills: {site.story()}"
    done = {one["archive_id"] for one in tasks.values() if "Backup" in one["task_type"] and one["status"] == "Done"}
    assert done == set(backups)
    site.unload(*[tag for tag in tags if site.cartridge(tag)["location"] == "drive"])
    restores = [(site.queue_restore(number), Path(row["resource"])) for number, row in backups.items()]
    for (task, target), tree in restores:
        row = site.pushed(task)
        assert row["status"] == "Done", (row, site.story())
        assert_same(describe(tree), target)


def all_ended(site: TapeInstallation) -> bool:
    """Suspended ones are let go on: an operator is there who has mended what was broken."""
    unended = [one for one in site.rest.rows("/task_queue") if one["status"] not in ENDED]
    for row in unended:
        if row["status"] == "Suspended":
            with suppress(CommandFailed):
                site.go_on(row["id"])
    return not unended


@pytest.mark.slow
@KINDS
def test_kills_of_the_daemon(kind: str, tmp_path: Path) -> None:
    """Now and then the library loses its power, too, as in a machine room without any."""
    with tape_installation(tmp_path, kind, cartridges=8, mebibytes=64, fixed_ports=True) as site:

        def strike(draw: random.Random) -> None:
            assert site.daemon is not None
            site.kill(site.daemon)
            if draw.random() < 0.4:
                site.library.kill()
                site.library.start()
            site.start()

        live_through(site, tmp_path, KILLS[kind], 20260203, strike)


@pytest.mark.slow
@KINDS
def test_kills_of_the_library(kind: str, tmp_path: Path) -> None:
    with tape_installation(tmp_path, kind, cartridges=8, mebibytes=64) as site:

        def strike(_draw: random.Random) -> None:
            site.library.kill()
            site.library.start()
            site.synchronise()

        live_through(site, tmp_path, KILLS[kind], 20260204, strike)


@pytest.mark.slow
@KINDS
def test_a_backup_ends_by_itself_after_the_library_lost_its_power(kind: str, tmp_path: Path) -> None:
    """Nobody synchronises or lets go on: silent devices are asked again, and suspended tasks are tried again."""
    with tape_installation(tmp_path, kind, cartridges=8) as site:
        site.make_pool("alone", 8)
        before = noise(tmp_path / "before", [1, 1], seed=1)
        first = site.back_up(before, "alone")
        tree = noise(tmp_path / "tree", [9] * 8, seed=2)
        task = site.queue_backup(tree, "alone")
        until(lambda: site.task(task)["status"] in ("Transmission", "Done"), "it does not begin")
        site.library.kill()
        until(lambda: site.task(task)["status"] != "Transmission", "nobody noticed")
        assert site.task(task)["status"] != "Done", "the library has to lose its power in the middle of the backup"
        site.library.start()
        site.becomes(task, "Done", 180.0)
        site.restores_identical(first, describe(before))
        site.restores_identical(site.backup_of(task), describe(tree))
