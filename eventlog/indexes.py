"""The log's own indexes: by stream and version, and by command. They follow from the events.

They are written some thousand events at a time, in the transaction of the commit that makes it so many: dirtying leaf pages of two more
trees costs a lone commit a tenth of its time, and commits in a row dirty the same pages again and again. What is not indexed yet is
remembered by the log while it runs (``eventlog.sequencer``) and is indexed again from the events when it is opened.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from eventlog.environment import Environment
from eventlog.record import position_key
from rbcore.events import Envelope

INDEX_LAG_EVENTS = 2048
INDEX_LAG_BYTES = 8 << 20
"""Bounds of what the log remembers instead of having it indexed."""
INDEXED_AT_ONCE_EVENTS = 10_000
"""Events per transaction when indexes are made again from the events."""

_SPAN = struct.Struct(">QQ")


def stream_key(stream: str, version: int) -> bytes:
    return stream.encode() + b"\0" + position_key(version)


def unpack_span(value: bytes) -> tuple[int, int]:
    """First and last position of a batch."""
    first, last = _SPAN.unpack(value)
    return first, last


class IndexEntries:
    """Index entries of the events after position ``after``, in the order of the log."""

    def __init__(self, after: int) -> None:
        self.position = after
        self.events = 0
        self._streams: dict[str, list[tuple[int, int]]] = {}
        """Stream -> (version, position), ascending."""
        self._spans: dict[str, tuple[int, int]] = {}

    def add(self, envelope: Envelope) -> None:
        self.position += 1
        assert envelope.position == self.position, "events arrive in order and without gaps"
        self._streams.setdefault(envelope.stream, []).append((envelope.version, self.position))
        span = self._spans.get(envelope.command_id)
        self._spans[envelope.command_id] = (self.position if span is None else span[0], self.position)
        self.events += 1

    def write(self, transaction: Any, environment: Environment) -> None:
        """Put the entries into the databases. Sorted: neighbours go to the same page."""
        transaction.cursor(environment.streams).putmulti(self._stream_entries())
        transaction.cursor(environment.commands).putmulti(self._command_entries())
        transaction.put(b"indexed", position_key(self.position), db=environment.meta)

    def _stream_entries(self) -> Iterator[tuple[bytes, bytes]]:
        for stream in sorted(self._streams):
            for version, position in self._streams[stream]:
                yield stream_key(stream, version), position_key(position)

    def _command_entries(self) -> Iterator[tuple[bytes, bytes]]:
        for command_id in sorted(self._spans):
            yield command_id.encode(), _SPAN.pack(*self._spans[command_id])
