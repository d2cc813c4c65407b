"""``rbmedia replay`` and ``views``: what the log says, without asking a daemon. They only read the log."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from eventlog.port import EventLog
from rbmedia.cli.shell import Shell, offline
from rbmedia.exits import CommandFailed, Exit
from rbmedia.settings import Home


@click.command()
@offline
@click.option("--until", default="", help="A log position or an ISO 8601 time; default: the head.")
def replay(shell: Shell, until: str) -> None:
    """Fold the log from its beginning and print the state's digest, counts and speed."""
    from eventlog import decode_event
    from rbcore.evolve import apply
    from rbcore.state import State

    with _log(shell) as log:
        position = _position(log, until)
        state, events = State(), 0
        started = time.perf_counter()
        for envelope in log.read(0, position):
            apply(state, envelope.stream, envelope.version, envelope.time_ns, envelope.position, decode_event(envelope))
            events += 1
        seconds = time.perf_counter() - started
    told: dict[str, Any] = {
        "position": state.position,
        "digest": state.digest(),
        "events": events,
        "seconds": round(seconds, 3),
        "events_per_second": round(events / seconds) if seconds else 0,
        "entities": {kind: len(table) for kind, table in sorted(state.tables.items()) if table},
    }
    shell.show_record(told)


@click.group()
def views() -> None:
    """The tables that the API reads: they follow from the log."""


@views.command("rebuild")
@offline
def rebuild_views(shell: Shell) -> None:
    """Make the views anew from the log and swap them in. A running daemon goes on with the new ones."""
    from eventlog.views import rebuild
    from rbmedia.schema import view_path, view_schema

    home = Home(shell.settings.home)
    started = time.perf_counter()
    with _log(shell) as log:
        position = rebuild(log, view_path(home), view_schema())
    seconds = time.perf_counter() - started
    told = {"position": position, "seconds": round(seconds, 3)}
    shell.show(told, f"The views stand at position {position}; made anew in {seconds:.1f} s.")


@views.command("verify")
@offline
def verify_views(shell: Shell) -> Exit:
    """Compare the views with what the log says. Exit code 4 when they differ."""
    from eventlog.views import rebuild, views_digest
    from rbmedia.schema import view_path, view_schema

    home, schema = Home(shell.settings.home), view_schema()
    home.views.mkdir(parents=True, exist_ok=True)
    with _log(shell) as log, tempfile.TemporaryDirectory(dir=home.views, prefix="verify-") as name:
        kept, made = Path(name) / "kept.sqlite", Path(name) / "made.sqlite"
        position = _snapshot(view_path(home), kept)
        rebuild(_UpTo(log, position), made, schema)
        found, wanted = views_digest(kept, schema), views_digest(made, schema)
    told = {"position": position, "equal": found == wanted, "digest": found, "digest_of_log": wanted}
    if found == wanted:
        shell.show(told, f"The views at position {position} are what the log says ({found}).")
        return Exit.OK
    shell.show(told, f"The views at position {position} differ from the log. Make them anew: rbmedia views rebuild")
    return Exit.DAMAGE


class _UpTo:
    """A log that ends at ``position``: views may be behind it."""

    def __init__(self, log: EventLog, position: int) -> None:
        self._log = log
        self.head = position

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def _snapshot(path: Path, target: Path) -> int:
    """A consistent copy of the current view file, also of one that is being written; its position."""
    from eventlog.views import files

    if not path.exists():
        raise CommandFailed(f"There are no views at {path}. Make them: rbmedia views rebuild", Exit.FAILED)
    try:
        with (
            contextlib.closing(files.open_read_only(path)) as source,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            return files.position_of(copy)
    except sqlite3.DatabaseError as error:
        raise CommandFailed(
            f"The view file {path} is damaged: {error}. Make it anew: rbmedia views rebuild", Exit.DAMAGE
        ) from None


@contextlib.contextmanager
def _log(shell: Shell) -> Iterator[EventLog]:
    from eventlog.checkpoint import load_or_make_signer
    from eventlog.environment import DATA_FILE
    from eventlog.lmdb_store import LmdbStore
    from eventlog.stored_log import StoredLog

    home = Home(shell.settings.home)
    if not (home.log / DATA_FILE).exists():
        raise CommandFailed(f"There is no event log in {home.log}. Name the daemon's home with --home.", Exit.USAGE)
    store = LmdbStore(home.log, load_or_make_signer(home.secrets))
    try:
        yield StoredLog(store)
    finally:
        store.close()


def _position(log: EventLog, until: str) -> int:
    from datetime import UTC

    from eventlog.views.moments import parse

    if not until:
        return log.head
    if until.isdecimal() and len(until) < 20:
        return min(int(until), log.head)
    try:
        return log.position_at(parse(until, UTC) * 1000)
    except ValueError as error:
        raise click.BadParameter(f"neither a position nor an ISO 8601 time: {error}", param_hint="--until") from None
