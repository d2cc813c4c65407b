"""Runs simulated histories: one seed, one history, one verdict."""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

from drivers.simulated.world import SimulatedWorld
from rbcore.entities import Backup, Task
from rbmedia.simulation.faults import Scenario
from rbmedia.simulation.history import History
from rbmedia.simulation.kernel import run_seeded
from rbmedia.simulation.site import Site
from rbmedia.simulation.tape import TapeRoom
from rbmedia.simulation.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one history. ``failure`` is empty when every invariant held to the end."""

    seed: int
    scenario: str
    failure: str
    trace_digest: str
    trace_lines: int
    tail: list[str]
    """The newest lines of the trace."""
    virtual_seconds: float
    events: int
    tasks: int
    backups: int
    restores_compared: int
    daemon_crashes: int
    agent_crashes: int
    checks: dict[str, int]


def simulate(seed: int, scenario: Scenario) -> Verdict:
    """Run the history of ``seed``. Equal arguments give equal verdicts, trace digest included."""
    directory = Path(tempfile.mkdtemp(prefix="rbmedia-simulation-"))
    try:
        return run_seeded(seed, lambda: _simulate(seed, scenario, directory))
    finally:
        shutil.rmtree(directory)


async def _simulate(seed: int, scenario: Scenario, directory: Path) -> Verdict:
    trace = Trace()
    world = SimulatedWorld.of_seed(seed)
    site = Site(world, trace, directory, scenario.agents)
    if scenario.has_tape:
        site.tape = TapeRoom(world, trace, random.Random(f"{scenario.name}/{seed}/tape"))  # noqa: S311
    history = History(site, scenario, random.Random(f"{scenario.name}/{seed}"), trace)  # noqa: S311 - repeatable on purpose
    began_seconds = trio.current_time()
    failure = ""
    try:
        await history.run()
    except Exception as error:
        # Whatever comes out of a history is its verdict: an invariant that does not hold, or a bug in an actor.
        failure = "; ".join(_described(error))
    state = history.watch.state
    return Verdict(
        seed=seed,
        scenario=scenario.name,
        failure=failure,
        trace_digest=trace.digest(),
        trace_lines=trace.count,
        tail=trace.lines(),
        virtual_seconds=trio.current_time() - began_seconds,
        events=state.position,
        tasks=len(list(state.all(Task))),
        backups=len(list(state.all(Backup))),
        restores_compared=history.restored,
        daemon_crashes=site.daemon_crashes,
        agent_crashes=sum(host.crashes for host in site.hosts),
        checks=dict(history.watch.checks),
    )


def _described(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [line for one in error.exceptions for line in _described(one)]
    return [f"{type(error).__name__}: {error}"]
