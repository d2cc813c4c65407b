"""Every history of operators and bad luck ends well, and a seed reproduces its history exactly.

``RBMEDIA_SIMULATION_HISTORIES`` (default 200) is the number of histories; set it higher for a longer search, and
``RBMEDIA_SIMULATION_SEED`` to begin elsewhere. A failing seed is repeated with ``rbmedia simulate --seed S --scenario X``.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from rbmedia.simulation.faults import SCENARIOS
from rbmedia.simulation.history import History
from rbmedia.simulation.runner import Verdict, simulate

HISTORIES = int(os.environ.get("RBMEDIA_SIMULATION_HISTORIES", "200"))
FIRST_SEED = int(os.environ.get("RBMEDIA_SIMULATION_SEED", "1"))


def _run(job: tuple[str, int]) -> Verdict:
    logging.disable(logging.CRITICAL)
    name, seed = job
    return simulate(seed, SCENARIOS[name])


@pytest.mark.slow
def test_every_history_ends_well() -> None:
    """Nothing acknowledged is lost, what is restored is what was backed up, nothing referred to is freed, every task ends."""
    names = list(SCENARIOS)
    jobs = [(names[number % len(names)], FIRST_SEED + number // len(names)) for number in range(HISTORIES)]
    seen: Counter[str] = Counter()
    # Spawned: a forked child would inherit locks of other tests' threads.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as workers:
        for verdict in workers.map(_run, jobs, chunksize=4):
            how = f"rbmedia simulate --scenario {verdict.scenario} --seed {verdict.seed}"
            assert not verdict.failure, f"{verdict.failure}\nrepeat with: {how}\n" + "\n".join(verdict.tail[-80:])
            seen.update(verdict.checks)
            seen["crashes"] += verdict.daemon_crashes + verdict.agent_crashes
            seen["restores"] += verdict.restores_compared
            seen["backups"] += verdict.backups
    # A simulation in which nothing happens proves nothing.
    for what in ("crashes", "restores", "backups", "state digests", "transitions", "looks at the pool"):
        assert seen[what] >= HISTORIES, f"only {seen[what]} {what} in {HISTORIES} histories"
    with_tape = sum(SCENARIOS[name].has_tape for name, _ in jobs)
    assert seen["backups on tape"] >= with_tape, (
        f"only {seen['backups on tape']} backups on tape in {with_tape} histories"
    )
    assert seen["copies"] >= HISTORIES // 2, f"only {seen['copies']} copies and moves in {HISTORIES} histories"


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_seed_reproduces_its_history_exactly(name: str) -> None:
    first, second = simulate(FIRST_SEED, SCENARIOS[name]), simulate(FIRST_SEED, SCENARIOS[name])
    assert first.tail == second.tail
    assert first == second
    assert simulate(FIRST_SEED + 1, SCENARIOS[name]).trace_digest != first.trace_digest


def test_a_repeated_history_is_the_same_in_another_process() -> None:
    """Neither hash seeds nor addresses of objects decide anything."""
    job = ("everything", FIRST_SEED)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
        assert worker.submit(_run, job).result() == simulate(FIRST_SEED, SCENARIOS["everything"])


def test_a_lost_archive_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch can fail: an archive that disappears from the pool breaks the history."""
    mend = History._mend

    async def lose_an_archive(history: History) -> None:
        await mend(history)
        for backup in history.watch.state.tables["backup"].values():
            volume = history.site.volumes[backup.local_catalog_id]
            volume.remove(f"{backup.archive[:2]}/{backup.archive}")
            volume.sync_directory(backup.archive[:2])
            return

    monkeypatch.setattr(History, "_mend", lose_an_archive)
    assert "is not in the pool" in simulate(FIRST_SEED, SCENARIOS["calm"]).failure


def test_rot_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle can fail: a flipped bit in a stored archive breaks the history, by its restore at the latest."""
    mend = History._mend

    async def rot(history: History) -> None:
        await mend(history)
        # In all of them: the first block of one may be a manifest that a later one has superseded, which no restore reads.
        for backup in history.watch.state.tables["backup"].values():
            volume = history.site.volumes[backup.local_catalog_id]
            volume.flip_bit(f"{backup.archive[:2]}/{backup.archive}/000001.rbc", 8 * 200)

    monkeypatch.setattr(History, "_mend", rot)
    assert "could not be restored" in simulate(FIRST_SEED, SCENARIOS["calm"]).failure
