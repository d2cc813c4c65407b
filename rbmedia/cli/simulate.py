"""``rbmedia simulate``: histories of the real actors under a virtual clock, from a seed; and hardware that is not there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbmedia.cli.shell import Shell, offline
from rbmedia.exits import Exit

if TYPE_CHECKING:
    from rbmedia.tape_simulator import Running

_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))


@click.group(invoke_without_command=True)
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
    if click.get_current_context().invoked_subcommand is not None:
        return Exit.OK
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


@simulate.command("tape-library")
@offline
@_DIRECTORY
@click.option("--slots", type=click.IntRange(1), help="Storage elements; 8 when it is new.")
@click.option("--drives", type=click.IntRange(1), help="Tape drives; 2 when it is new.")
@click.option("--generation", type=click.IntRange(1), help="LTO generation of drives and cartridges; 9 when it is new.")
@click.option("--import-export", type=click.IntRange(0), help="Import/export elements; 2 when it is new.")
@click.option("--cartridges", type=click.IntRange(0), help="Data cartridges; two less than slots when it is new.")
@click.option("--prefix", help="How their barcodes begin; VT when it is new.")
@click.option(
    "--capacity-factor",
    type=click.FloatRange(0, min_open=True),
    help="Of the real capacity; 0.0001 when it is new (an LTO-9 holds 1.8 GB).",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Of the iSCSI target; 0: any free one. Default: as last time."
)
@click.option(
    "--realistic-times/--no-delay", default=False, show_default=True, help="As slow as a real library, or at once."
)
@click.option("--lto-no-partitions", "no_partitions", is_flag=True, help="Drives that cannot make partitions.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True, help="Stop when standard input ends.")
def tape_library(
    shell: Shell,
    /,
    directory: Path,
    port: int | None,
    realistic_times: bool,
    no_partitions: bool,
    until_stdin_closes: bool,
    **wanted: Any,
) -> int:
    """Serve a simulated tape library over iSCSI on loopback, until SIGTERM or Ctrl-C.

    DIRECTORY keeps its cartridges. It is made at the first start; later the same directory is the same library at the same port.
    """
    from rbmedia import tape_simulator
    from rbmedia.logs import FORMAT

    logging.basicConfig(level=logging.INFO, format=FORMAT)

    def announce(running: Running) -> None:
        shell.show(running, "\n".join(running.lines()))

    options = tape_simulator.Options(
        wanted={name: value for name, value in wanted.items() if value is not None},
        port=port,
        realistic_times=realistic_times,
        no_partitions=no_partitions,
    )
    return tape_simulator.run(directory.absolute(), options, announce, until_stdin_closes=until_stdin_closes)


@simulate.command("tape-library-fault")
@offline
@_DIRECTORY
@click.argument("name", default="status")
@click.argument("arguments", nargs=-1)
def tape_library_fault(shell: Shell, directory: Path, name: str, arguments: tuple[str, ...]) -> Exit:
    """Do something bad to the simulated tape library that is served from DIRECTORY, or see its status.

    Arguments are positional or NAME=VALUE: take_out 1024 noticed=no. The name help lists what there is.
    """
    from drivers.simulated.tape import control

    if name == "help":
        rows = [control.usage(one) for one in sorted(control.fault_methods())]
        shell.show(rows, "\n".join(rows))
        return Exit.OK
    answer = control.request(directory, " ".join([name, *arguments]))
    shell.show({"answer": answer}, answer or "Done.")
    return Exit.OK
