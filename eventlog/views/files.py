"""View files on disk: making, checking, finding and swapping them.

``path`` is a symbolic link to ``<path>.<generation>``. A rebuild writes the next generation beside the running one and replaces
the link, which is atomic. It cannot rename a file over the old one: SQLite finds the write-ahead log by name, and the new
file would meet the old one's. Connections to the old generation go on reading it (its name is gone, its bytes are not) and
notice on their next read that the link points elsewhere.

A view file may be deleted at any time; no fact lives only in it (DESIGN, law 5). That is why ``synchronous=NORMAL`` is right:
after a power cut the last transactions may be missing, but each carries its own position, so what is left is a true
state of the views at an earlier position and the projector goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from eventlog.views.predicates import register_functions
from eventlog.views.schema import POSITION_TABLE, ViewSchema, fork_of

CACHE_KIB: Final = 16 * 1024
"""Page cache of the writing connection."""
LOAD_MMAP_BYTES: Final = 1 << 31
"""While a new file is loaded it is mapped: every index is one pass over the table, and the page cache is smaller than that.
Later it is not: a mapped file that somebody truncates would end the process instead of one read."""
BUSY_TIMEOUT_SECONDS: Final = 5.0


class UnusableViews(Exception):
    """The view file cannot be gone on with; the text says why. Answered by making it anew, never seen by a caller."""


def create(path: Path, schema: ViewSchema) -> sqlite3.Connection:
    """A new generation with empty tables, no indexes and position 0: not the current one until ``make_current``.

    Nobody reads it and a crash discards it, so it is loaded without a journal and without waiting for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = _connect(next_generation(path), read_only=False)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute(f"PRAGMA mmap_size = {LOAD_MMAP_BYTES}")
    connection.execute("PRAGMA synchronous = OFF")
    for sql in schema.create_tables_sql():
        connection.execute(sql)
    connection.execute(f"INSERT INTO {POSITION_TABLE} VALUES (1, 0, ?)", (schema.fingerprint,))
    return connection


def make_indexes(connection: sqlite3.Connection, schema: ViewSchema) -> None:
    """Make the indexes of a loaded generation, and write it from now on as safely as a current one."""
    connection.execute("BEGIN")
    for sql in schema.create_indexes_sql():
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def make_current(path: Path, connection: sqlite3.Connection) -> None:
    """Get a generation to the disk and swap: from now on ``path`` means this file. Older generations are removed; whoever
    reads one goes on."""
    target = file_of(connection)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _sync(target)
    link = path.with_name(f"{target.name}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    link.replace(path)
    _sync(path.parent)
    remove_generations(path, keep=target)


def open_checked(path: Path, schema: ViewSchema, log_head: int) -> sqlite3.Connection:
    """The current generation, writable. Raises ``UnusableViews`` when it is missing, damaged, made from other declarations, or
    ahead of the log (which then was restored from an older copy)."""
    if not path.exists():
        raise UnusableViews("there is no view file")
    connection = None
    try:
        connection = _connect(path.resolve(), read_only=False)
        row = connection.execute(f"SELECT position, fingerprint FROM {POSITION_TABLE}").fetchone()
        findings = [str(line) for (line,) in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.DatabaseError as error:
        if connection is not None:
            connection.close()
        raise UnusableViews(f"the view file cannot be read ({error})") from error
    problem = ""
    if findings != ["ok"]:
        problem = f"the view file is damaged ({'; '.join(findings)})"
    elif row is None or row[1] != schema.fingerprint:
        problem = "the view file was made from other declarations"
    elif row[0] > log_head:
        problem = f"the view file stands at position {row[0]}, beyond the log's head {log_head}"
    if problem:
        connection.close()
        raise UnusableViews(problem)
    return connection


def open_read_only(path: Path) -> sqlite3.Connection:
    """A reading connection. May be used by any one thread at a time. Raises ``sqlite3.OperationalError`` when there is none."""
    connection = _connect(path.resolve(), read_only=True)
    connection.execute("PRAGMA query_only = ON")
    return connection


def remove_generations(path: Path, keep: Path) -> None:
    """Remove generations that nobody can open any more: the replaced ones, and unfinished ones of rebuilds that were killed."""
    for file in path.parent.glob(f"{_escaped(path.name)}.*"):
        if file.name.removesuffix("-wal").removesuffix("-shm") != keep.name:
            file.unlink(missing_ok=True)


def remove_generation(file: Path) -> None:
    """Remove one file with its write-ahead log."""
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


def next_generation(path: Path) -> Path:
    """A name that no file of this view had before, as far as the directory tells."""
    numbers = [0]
    for file in path.parent.glob(f"{_escaped(path.name)}.*"):
        number = file.name[len(path.name) + 1 :].split("-")[0].split(".")[0]
        if number.isdigit():
            numbers.append(int(number))
    return path.with_name(f"{path.name}.{max(numbers) + 1}")


def current_generation(path: Path) -> str:
    """Name of the file that ``path`` means; empty when there is none. One system call."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def file_of(connection: sqlite3.Connection) -> Path:
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])


def position_of(connection: sqlite3.Connection) -> int:
    position: int = connection.execute(f"SELECT position FROM {POSITION_TABLE}").fetchone()[0]
    return position


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk makes SQLite roll back by itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(file: Path, *, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"file:{quote(str(file))}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    register_functions(connection)
    if not read_only:
        connection.create_function("fork_of", 2, fork_of, deterministic=True)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
