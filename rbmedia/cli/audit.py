"""``rbmedia audit``: is the log what was written, and proofs of it for people who do not trust us."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from eventlog.checkpoint import Checkpoint
from rbcore.errors import UNDECODABLE
from rbmedia.cli.shell import Shell, offline, printable
from rbmedia.exits import CommandFailed, Exit
from rbmedia.settings import Home

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def audit() -> None:
    """Verify the event log, prove single events, carry the log elsewhere."""


@audit.command("verify")
@offline
@click.option(
    "--checkpoint", "checkpoints", type=_FILE, multiple=True, help="A checkpoint that was kept elsewhere (JSON)."
)
@click.option("--key", default=None, help="Public key that must have signed, hex. Default: the one the log names.")
def verify_log(shell: Shell, checkpoints: tuple[Path, ...], key: str | None) -> Exit:
    """Recompute hash chain, tree and signatures. Names the first damaged event; exit code 4 then. A daemon may be running."""
    from eventlog.audit import verify

    known = [_checkpoint(path) for path in checkpoints]
    with _progress() as advance:
        report = verify(Home(shell.settings.home).log, key=key, known=known, progress=advance)

    def text() -> None:
        click.echo(f"{report.events:,} events are what was written; tree head {report.root}")
        click.echo(f"{report.checkpoints} checkpoints hold; the newest covers {report.signed_events:,} events")
        for public_key in report.public_keys:
            click.echo(f"signed by {public_key}")
        for finding in report.findings:
            click.echo(f"DAMAGE: {printable(finding.sentence)}")

    shell.show(report, text)
    return Exit.DAMAGE if report.findings else Exit.OK


@audit.command("prove")
@offline
@click.argument("position", type=click.IntRange(1))
@click.option("--output", type=_FILE, default=None, help="Write the proof here instead of to stdout.")
def prove_event(shell: Shell, position: int, output: Path | None) -> None:
    """Prove that the event at POSITION stands in the log, under its newest signed checkpoint. The proof is JSON."""
    from eventlog.audit import prove

    proof = prove(Home(shell.settings.home).log, position).to_json()
    if output is None:
        click.echo(proof, nl=False)
        return
    output.write_bytes(proof)
    shell.show(
        {"position": position, "proof": str(output)}, f"{output} proves event {position} (rbmedia audit verifier)."
    )


@audit.command("verifier")
def verifier() -> None:
    """Print the one-file program that checks proofs. It needs a Python interpreter and nothing of ours: read it first."""
    import eventlog.verifier

    click.echo(Path(eventlog.verifier.__file__).read_text(encoding="utf-8"), nl=False)


@audit.command("export")
@offline
@click.argument("file", type=_FILE)
@click.option("--until", type=click.IntRange(0), default=None, help="The last position. Default: the head.")
def export(shell: Shell, file: Path, until: int | None) -> None:
    """Write the log to FILE, which must not exist, checking chain and signatures on the way. A daemon may be running."""
    from eventlog.transfer import export_log

    unfinished = file.with_name(file.name + ".unfinished")
    if file.exists():
        raise CommandFailed(f"{file} exists already; an export replaces nothing.", Exit.USAGE)
    try:
        with open(unfinished, "wb") as target:
            end = export_log(Home(shell.settings.home).log, target, until)
            target.flush()
            os.fsync(target.fileno())
        unfinished.rename(file)
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error}.") from None
    finally:
        unfinished.unlink(missing_ok=True)
    told = {"file": str(file), "events": end.events, "root": end.root.hex()}
    shell.show(told, f"{end.events:,} events are in {file}; tree head {end.root.hex()}")


@audit.command("import")
@offline
@click.argument("file", type=_FILE)
def import_(shell: Shell, file: Path) -> None:
    """Make the log of an export in a home that has none. A daemon also needs the signing key (secrets/) to go on with it."""
    from eventlog.transfer import import_log

    home = Home(shell.settings.home)
    try:
        with open(file, "rb") as source:
            end = import_log(source, home.log)
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error}.") from None
    told = {"home": str(home.path), "events": end.events, "root": end.root.hex()}
    shell.show(told, f"{end.events:,} events are in {home.log}; tree head {end.root.hex()}")


@click.group()
def index() -> None:
    """The indexes of the event log: they follow from its events."""


@index.command("rebuild")
@offline
def rebuild_index(shell: Shell) -> None:
    """Throw the log's indexes away and make them from the events. The daemon has to be stopped."""
    from eventlog.rebuild import rebuild_indexes

    rebuilt = rebuild_indexes(Home(shell.settings.home).log)
    shell.show(rebuilt, f"The indexes of {rebuilt.events:,} events are made anew.")


def _checkpoint(path: Path) -> Checkpoint:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except (OSError, *UNDECODABLE) as error:
        raise CommandFailed(f"{path} is not a checkpoint: {error}.", Exit.USAGE) from None


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=None)
        yield lambda done, total: bar.update(shown, completed=done, total=total)
