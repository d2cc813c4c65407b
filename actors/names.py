"""Names in a backup by prefix, found through the trailer's index: shared by the daemon and, for encrypted backups, the agent.

A prefix is a path within the backup; wanted are the entry of that path and everything below it, in manifest order (depth first).
These stand in one run, so the index says where to begin and the first name behind the run says where to stop.
"""

from __future__ import annotations

import bisect
from typing import Any

from rbcore.archive.manifest import path_order_key
from rbcore.archive.model import Entry, EntryType, Trailer

NAMES_MAX = 100_000
"""Rows of one answer at most, whatever was asked for."""


class NameSelection:
    """Collects the rows of one question, piece by piece."""

    def __init__(self, prefix: str, limit: int) -> None:
        self._path = prefix.strip("/").encode("utf-8", "surrogateescape")
        self._first_key = path_order_key(self._path)
        self._limit = max(0, min(limit, NAMES_MAX))
        self.rows: list[dict[str, Any]] = []
        self.complete = self._limit == 0

    def manifest_blocks(self, trailer: Trailer) -> list[int]:
        """Blocks that may hold wanted names, in order: from the last that begins at or before the prefix on."""
        keys = [path_order_key(row.first_path) for row in trailer.manifest]
        start = max(0, bisect.bisect_right(keys, self._first_key) - 1)
        return [row.block for row in trailer.manifest[start:]]

    def take(self, entries: list[Entry]) -> None:
        """Entries in manifest order. ``complete`` is set when no later one can be wanted."""
        for entry in entries:
            if self.complete:
                return
            if self._wanted(entry.path):
                if not entry.continued:
                    self.rows.append(_row(entry))
                    self.complete = len(self.rows) >= self._limit
            elif path_order_key(entry.path) > self._first_key:
                self.complete = True

    def _wanted(self, path: bytes) -> bool:
        return not self._path or path == self._path or path.startswith(self._path + b"/")


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "path": _shown(entry.path),
        "type": EntryType(entry.type).name.lower(),
        "size": entry.size,
        "mode": entry.mode,
        "owner": entry.owner,
        "group": entry.group,
        "mtime_ns": entry.mtime_ns,
        "link_target": _shown(entry.link_target),
        "problem": entry.problem,
    }


def _shown(path: bytes) -> str:
    """Bytes that are no UTF-8 as backslash escapes: JSON has no other way."""
    return path.decode("utf-8", "backslashreplace")
