"""The newest index entries, in memory until they are worth writing.

Dirtying the leaf pages of two indexes costs a lone commit a tenth of its time, and many commits in a row dirty the same pages again and
again; yet they follow from the events. So they are written with the commit that leaves :data:`INDEX_LAG_EVENTS` events to index, in its
transaction; what is newer than that stands here, and is made again from the events when the log is opened.

The writer thread fills a tail and replaces it by an empty one when its entries are committed; other threads only look things up.
Look into the tail before the database: what is in neither is in neither.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from eventlog.environment import Environment
from eventlog.record import position_key
from rbcore.events import Envelope

INDEX_LAG_EVENTS = 2048
REBUILT_AT_ONCE_EVENTS = 10_000
"""Events per transaction when indexes are made again from the events."""

_SPAN = struct.Struct(">QQ")


def stream_key(stream: str, version: int) -> bytes:
    return stream.encode() + b"\0" + position_key(version)


def unpack_span(value: bytes) -> tuple[int, int]:
    """First and last position of a batch."""
    first, last = _SPAN.unpack(value)
    return first, last


class IndexTail:
    """Index entries of the events after ``indexed``, in the order of the log."""

    def __init__(self, indexed: int) -> None:
        self.indexed = indexed
        self.events = 0
        self._streams: dict[str, list[tuple[int, int]]] = {}
        """Stream -> (version, position), ascending."""
        self._spans: dict[str, tuple[int, int]] = {}

    def copy(self) -> IndexTail:
        copied = IndexTail(self.indexed)
        copied.events = self.events
        copied._streams = {stream: list(versions) for stream, versions in self._streams.items()}
        copied._spans = dict(self._spans)
        return copied

    def add(self, envelope: Envelope) -> None:
        position = envelope.position
        assert position == self.indexed + self.events + 1, "events arrive in order and without gaps"
        versions = self._streams.get(envelope.stream)
        if versions is None:
            self._streams[envelope.stream] = [(envelope.version, position)]
        else:
            versions.append((envelope.version, position))
        span = self._spans.get(envelope.command_id)
        self._spans[envelope.command_id] = (position if span is None else span[0], position)
        self.events += 1

    def version_of(self, stream: str) -> int:
        """0: look into the database."""
        versions = self._streams.get(stream)
        return 0 if versions is None else versions[-1][0]

    def positions_of(self, stream: str, after_version: int) -> list[int]:
        return [position for version, position in self._streams.get(stream, ()) if version > after_version]

    def batch_of(self, command_id: str) -> tuple[int, int] | None:
        return self._spans.get(command_id)

    def write(self, transaction: Any, environment: Environment) -> None:
        """Put the entries into the databases."""
        transaction.cursor(environment.streams).putmulti(self._stream_entries())
        transaction.cursor(environment.commands).putmulti(self._command_entries())
        transaction.put(b"indexed", position_key(self.indexed + self.events), db=environment.meta)

    def _stream_entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Database entries, sorted: neighbours go to the same page."""
        for stream in sorted(self._streams):
            for version, position in self._streams[stream]:
                yield stream_key(stream, version), position_key(position)

    def _command_entries(self) -> Iterator[tuple[bytes, bytes]]:
        for command_id in sorted(self._spans):
            yield command_id.encode(), _SPAN.pack(*self._spans[command_id])
