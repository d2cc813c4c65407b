"""``rbmedia simulate``: histories of the real actors under a virtual clock, from a seed."""

from __future__ import annotations

import logging

import click

from rbmedia.cli.shell import Shell, offline
from rbmedia.exits import Exit


@click.command()
@offline
@click.option(
    "--seed", type=int, default=1, show_default=True, help="The first seed; it reproduces its history exactly."
)
@click.option(
    "--count", type=click.IntRange(1), default=1, show_default=True, help="Histories, with consecutive seeds."
)
@click.option("--scenario", default="everything", show_default=True, help="calm, crashes, network, full or everything.")
def simulate(shell: Shell, seed: int, count: int, scenario: str) -> Exit:
    """Simulate histories with faults and check the invariants after every step. Exit code 4 when one is broken."""
    from rbmedia.simulation.faults import SCENARIOS
    from rbmedia.simulation.runner import simulate as run

    if scenario not in SCENARIOS:
        raise click.BadParameter(f"there are {', '.join(SCENARIOS)}", param_hint="--scenario")
    logging.disable(logging.CRITICAL)  # the daemons of a history talk about their crashes; the trace says it better
    verdicts = []
    for one in range(seed, seed + count):
        verdict = run(one, SCENARIOS[scenario])
        verdicts.append(verdict)
        shell.say(
            f"seed {one}: {verdict.failure or 'every invariant held'}; {verdict.events} events, {verdict.tasks} tasks, "
            f"{verdict.backups} backups, {verdict.daemon_crashes + verdict.agent_crashes} crashes, "
            f"{verdict.virtual_seconds:.0f} virtual seconds, trace {verdict.trace_digest[:16]}"
        )
        for line in verdict.tail if verdict.failure else ():
            shell.say(f"  {line}")
    if shell.as_json:
        shell.show(verdicts, "")
    return Exit.DAMAGE if any(one.failure for one in verdicts) else Exit.OK
