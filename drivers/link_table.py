"""Which file stands behind a further hard link: (device, inode) to the path that came first, in bounded memory.

Only files with several links are in it, and only until their last name has been seen. A tree of hard links (``cp -al`` copies)
may have many millions of such files at a time, so beyond a bound the table moves into a temporary SQLite database, which
spills to disk by itself.
"""

from __future__ import annotations

import sqlite3
from typing import Final

IN_MEMORY_MAX: Final = 100_000
"""Files; some 20 MiB."""


class LinkTable:
    """One scan's table."""

    def __init__(self, in_memory_max: int = IN_MEMORY_MAX) -> None:
        self._in_memory_max = in_memory_max
        self._paths: dict[tuple[int, int], tuple[bytes, int]] = {}
        self._spilled: sqlite3.Connection | None = None

    def first_path(self, device: int, inode: int, links: int, path: bytes) -> bytes | None:
        """The path under which the file was seen first; None when this is the first. ``links``: how many names it has."""
        key = (device, inode)
        found = self._paths.get(key)
        if found is not None:
            first, left = found
            if left <= 1:
                del self._paths[key]
            else:
                self._paths[key] = (first, left - 1)
            return first
        if self._spilled is not None and (spilled := self._spilled_path(key)) is not None:
            return spilled
        if len(self._paths) >= self._in_memory_max:
            self._spill()
        self._paths[key] = (path, links - 1)
        return None

    def close(self) -> None:
        if self._spilled is not None:
            self._spilled.close()
            self._spilled = None
        self._paths.clear()

    def _spilled_path(self, key: tuple[int, int]) -> bytes | None:
        assert self._spilled is not None
        name = f"{key[0]}:{key[1]}"
        row = self._spilled.execute("SELECT path, remaining FROM link WHERE file = ?", (name,)).fetchone()
        if row is None:
            return None
        first, left = row
        if left <= 1:
            self._spilled.execute("DELETE FROM link WHERE file = ?", (name,))
        else:
            self._spilled.execute("UPDATE link SET remaining = ? WHERE file = ?", (left - 1, name))
        assert isinstance(first, bytes)
        return first

    def _spill(self) -> None:
        """Move what is in memory out of it."""
        if self._spilled is None:
            # An empty name is a private temporary database that lives in SQLite's cache until that is full. A scan moves
            # between worker threads, but is only ever on one at a time.
            self._spilled = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._spilled.execute("PRAGMA journal_mode = OFF")
            self._spilled.execute("PRAGMA synchronous = OFF")
            self._spilled.execute("PRAGMA temp_store = FILE")
            self._spilled.execute(
                "CREATE TABLE link (file TEXT PRIMARY KEY, path BLOB, remaining INTEGER) WITHOUT ROWID"
            )
        self._spilled.execute("BEGIN")
        self._spilled.executemany(
            "INSERT INTO link VALUES (?, ?, ?)",
            ((f"{key[0]}:{key[1]}", path, left) for key, (path, left) in self._paths.items()),
        )
        self._spilled.execute("COMMIT")
        self._paths.clear()
