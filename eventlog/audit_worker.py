"""The process that reads a log on behalf of ``audit verify``: LMDB trusts its file, so a damaged one may take the reader down.

One request per line on standard input, answers as lines on standard output, all JSON. The auditor starts one per core and never
touches the file itself. Run as ``python -m eventlog.audit_worker PATH``.
"""

from __future__ import annotations

import gc
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from eventlog.damage import RecordDamage, explain
from eventlog.log_reader import LogReader, LogSummary
from eventlog.merkle import NODE_TAG, SUBTREE_LEAVES
from eventlog.record import POSITION_BYTES, TRAILER_BYTES, decode_value, genesis_trailer, position_key, trailer_of
from rbcore.errors import RbError

SILENT_SECONDS_MAX = 120
"""A worker that has not said anything for this long is stuck in a damaged file, and ends itself."""


class ChainRequest(msgspec.Struct, tag="chain", frozen=True):
    """Verify records ``start < position <= end``; ``start`` is a multiple of 4,096."""

    start: int
    end: int
    heads_at: list[int]
    """Sizes at which heads are wanted, ascending, ``start < size <= end``."""
    tree: bool
    """Whether to hash the Merkle tree as well."""


class IndexRequest(msgspec.Struct, tag="index", frozen=True):
    """Compare the indexes with records ``start < position <= end``."""

    start: int
    end: int


class SummaryRequest(msgspec.Struct, tag="summary", frozen=True):
    pass


class Progress(msgspec.Struct, tag="progress", frozen=True):
    position: int


class Subtree(msgspec.Struct, tag="subtree", frozen=True):
    """Root over the 4,096 records after ``start``."""

    start: int
    root: bytes


class Head(msgspec.Struct, tag="head", frozen=True):
    """Hash of record ``size``, and the right edge of the tree of ``size`` records, as far as it lies after ``start``."""

    start: int
    size: int
    hash: bytes
    peaks: list[bytes]


class Finding(msgspec.Struct, tag="finding", frozen=True):
    """The first record of the range that is not what was written."""

    damage: RecordDamage


class IndexFinding(msgspec.Struct, tag="index_finding", frozen=True):
    sentence: str


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The file cannot be read on."""

    sentence: str
    position: int


class Done(msgspec.Struct, tag="done", frozen=True):
    pass


class Summary(msgspec.Struct, tag="summary", frozen=True):
    summary: LogSummary


Request = ChainRequest | IndexRequest | SummaryRequest
Answer = Progress | Subtree | Head | Finding | IndexFinding | Failed | Done | Summary


def complete_levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Level by level the nodes over complete pairs: ``levels[k][i]`` is the root over leaves ``i * 2**k`` to ``(i + 1) * 2**k - 1``."""
    levels = [list(leaves)]
    hashed = sha256
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([hashed(NODE_TAG + a + b).digest() for a, b in zip(below[::2], below[1::2], strict=False)])
    return levels


def peaks_of(levels: Sequence[Sequence[bytes]], count: int) -> list[bytes]:
    """Roots of the complete subtrees that make up the first ``count`` leaves, largest first."""
    peaks, start = [], 0
    for level in reversed(range(count.bit_length())):
        if count >> level & 1:
            peaks.append(levels[level][start >> level])
            start += 1 << level
    return peaks


class Worker:
    """Carries out requests on one log."""

    def __init__(self, reader: LogReader, answer: Callable[[Answer], None]) -> None:
        self._reader = reader
        self._answer = answer
        self.position = 0
        """The last record that could be read."""

    def carry_out(self, request: Request) -> None:
        if isinstance(request, ChainRequest):
            self._chain(request)
        elif isinstance(request, IndexRequest):
            self._index(request)
        else:
            self._answer(Summary(self._reader.summary()))
        self._answer(Done())

    def _chain(self, request: ChainRequest) -> None:
        reader = self._reader
        self.position = start = request.start
        before = reader.value_at(start) if start else None
        trailer = genesis_trailer(reader.log_id) if start == 0 else trailer_of(before or b"")
        heads_at = list(request.heads_at)
        while start < request.end:
            keys, values = reader.records_after(start, min(SUBTREE_LEAVES, request.end - start))
            leaves, sound = self._sound_leaves(trailer, start, keys, values)
            if sound:
                trailer = trailer_of(values[sound - 1])
            self.position = start + sound
            if sound < min(SUBTREE_LEAVES, request.end - start):
                self._answer(Finding(explain(reader.value_at, reader.log_id, start + sound + 1)))
            levels = complete_levels(leaves[:sound]) if request.tree else []
            while heads_at and heads_at[0] <= start + sound:
                size = heads_at.pop(0)
                peaks = peaks_of(levels, size - start) if request.tree else []
                self._answer(Head(start, size, leaves[size - start - 1], peaks))
            if sound < SUBTREE_LEAVES:
                return
            if request.tree:
                self._answer(Subtree(start, levels[-1][0]))
            self._answer(Progress(start + sound))
            start += sound

    def _sound_leaves(
        self, trailer: bytes, start: int, keys: Sequence[bytes], values: Sequence[bytes]
    ) -> tuple[list[bytes], int]:
        """Hashes of the records as they should be, and how many of them, from the first, are what is stored."""
        if not keys:
            return [], 0
        trailers = [value[-TRAILER_BYTES:] for value in values]
        hashed = sha256
        leaves = [
            hashed(before + value[:-TRAILER_BYTES]).digest()
            for before, value in zip([trailer, *trailers], values, strict=False)
        ]
        positions = range(start + 1, start + 1 + len(keys))
        expected_keys = struct.pack(f">{len(keys)}Q", *positions)
        keys_fit = max(map(len, keys)) == POSITION_BYTES and b"".join(keys) == expected_keys
        if keys_fit and b"\0" + b"\0".join(leaves) == b"".join(trailers):
            return leaves, len(leaves)
        for number, position in enumerate(positions):
            if keys[number] != position_key(position) or b"\0" + leaves[number] != trailers[number]:
                return leaves, number
        raise AssertionError("one of the records differs")

    def _index(self, request: IndexRequest) -> None:
        reader = self._reader
        self.position = request.start
        for value in reader.values(request.start, request.end):
            self.position += 1
            envelope = decode_value(value)
            indexed = reader.stream_position(envelope.stream, envelope.version)
            if indexed != self.position:
                self._answer(
                    IndexFinding(
                        f"The stream index has {indexed or 'nothing'} for {envelope.stream} version {envelope.version}, "
                        f"which is event {self.position}."
                    )
                )
                return
            span = reader.batch_of(envelope.command_id)
            if span is None or not span[0] <= self.position <= span[1]:
                self._answer(
                    IndexFinding(
                        f"The command index does not know command {envelope.command_id} of event {self.position}."
                    )
                )
                return


def main(path: Path, lines: Any, write: Callable[[bytes], object]) -> None:
    """Serve requests until there are no more."""
    gc.disable()  # nothing here makes cycles, and the collector would look through thousands of records again and again
    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder(Request).decode

    def answer(one: Answer) -> None:
        signal.alarm(SILENT_SECONDS_MAX)
        write(encode(one) + b"\n")

    try:
        with LogReader(path) as reader:
            for line in lines:
                signal.alarm(SILENT_SECONDS_MAX)
                worker = Worker(reader, answer)
                try:
                    worker.carry_out(decode(line))
                except lmdb.Error as error:
                    answer(Failed(str(error), worker.position))
                except RbError as error:
                    answer(Failed(error.message, worker.position))
                signal.alarm(0)
    except RbError as error:
        answer(Failed(error.message, 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin.buffer, lambda data: (sys.stdout.buffer.write(data), sys.stdout.buffer.flush()))
