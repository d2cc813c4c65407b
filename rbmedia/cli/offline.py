"""``rbmedia replay`` and ``views``: what the log says, without asking a daemon. They only read the log."""

from __future__ import annotations

import bisect
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click

from eventlog.log_reader import LogReader
from eventlog.port import EventLog
from eventlog.record import decode_time, decode_value
from eventlog.upcasting import upcast
from rbcore.errors import Damaged, NotFound
from rbcore.events import Envelope
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
        position = rebuild(log.as_log(), view_path(home), view_schema())
    seconds = time.perf_counter() - started
    told = {"position": position, "seconds": round(seconds, 3)}
    shell.show(told, f"The views stand at position {position}; made anew in {seconds:.1f} s.")


@views.command("verify")
@offline
def verify_views(shell: Shell) -> Exit:
    """Compare the views with what the log says. Exit code 4 when they differ."""
    from eventlog.views import files, rebuild, views_digest
    from rbmedia.schema import view_path, view_schema

    home, schema = Home(shell.settings.home), view_schema()
    home.views.mkdir(parents=True, exist_ok=True)
    with _log(shell) as log, tempfile.TemporaryDirectory(dir=home.views, prefix="verify-") as name:
        kept, made = Path(name) / "kept.sqlite", Path(name) / "made.sqlite"
        position = _snapshot(view_path(home), kept)
        try:
            files.open_checked(kept, schema, log.head).close()
        except files.UnusableViews as reason:
            raise CommandFailed(
                f"The views cannot be compared: {reason}. The daemon makes them anew at its next start, or: rbmedia views rebuild"
            ) from None
        rebuild(log.up_to(position).as_log(), made, schema)
        found, wanted = views_digest(kept, schema), views_digest(made, schema)
    told = {"position": position, "equal": found == wanted, "digest": found, "digest_of_log": wanted}
    if found == wanted:
        shell.show(told, f"The views at position {position} are what the log says ({found}).")
        return Exit.OK
    shell.show(told, f"The views at position {position} differ from the log. Make them anew: rbmedia views rebuild")
    return Exit.DAMAGE


class ReadableLog:
    """What folding needs of a log, over a reader: events up to ``head``, and the position of a moment."""

    def __init__(self, reader: LogReader, head: int | None = None) -> None:
        self._reader = reader
        self.head = reader.size() if head is None else head

    def up_to(self, position: int) -> ReadableLog:
        """The same log, ending at ``position``."""
        return ReadableLog(self._reader, position)

    def read(self, after: int = 0, until: int | None = None) -> Iterator[Envelope]:
        end = self.head if until is None else min(until, self.head)
        return (upcast(decode_value(value)) for value in self._reader.values(after, end))

    def position_at(self, time_ns: int) -> int:
        """Times only grow with positions."""
        return bisect.bisect_right(range(1, self.head + 1), time_ns, key=self._time_of)

    def _time_of(self, position: int) -> int:
        value = self._reader.value_at(position)
        if value is None:
            raise Damaged(f"The event log has no event {position}. Run: rbmedia audit verify")
        return decode_time(value)

    def as_log(self) -> EventLog:
        """For the rebuild of views, which folds a log and never writes one."""
        return cast(EventLog, self)


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
def _log(shell: Shell) -> Iterator[ReadableLog]:
    """The log of the home, for reading; a daemon may go on writing it."""
    home = Home(shell.settings.home)
    try:
        reader = LogReader(home.log)
    except NotFound as error:
        raise CommandFailed(f"{error.message} Name the daemon's home with --home.", Exit.USAGE) from None
    with reader:
        yield ReadableLog(reader)


def _position(log: ReadableLog, until: str) -> int:
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
