"""Export and import: a log as one portable file (``docs/format-log.md``, "Export of a log").

The file starts with ``RBLOGEX1``; then come frames::

    kind     u8      1 header, 2 record, 3 checkpoint, 4 end
    length   u32 be  bytes of the body
    crc      u32 be  CRC-32 of kind, length and body
    body

A record's body is the stored value, chain hash included, so a copy proves as much as its original. A checkpoint stands right after the
last record that it covers, so that it is checked as the file is read. The end frame holds the number of
records and the tree head over them: a file without it is cut off.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from eventlog.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from eventlog.environment import DATA_FILE, FORMAT, Environment, WriterLock, opening
from eventlog.indexes import INDEXED_AT_ONCE_EVENTS, IndexEntries
from eventlog.log_reader import LogReader
from eventlog.merkle import SUBTREE_LEAVES, Frontier
from eventlog.record import (
    HASH_BYTES,
    LOG_ID_BYTES,
    TRAILER_BYTES,
    decode_value,
    genesis_trailer,
    payload_of,
    position_key,
    record_hash,
    trailer_of,
)
from eventlog.signing import signature_holds
from rbcore.errors import UNDECODABLE, Damaged, Refused

MAGIC = b"RBLOGEX1"
BODY_BYTES_MAX = 64 << 20

_CUT_OFF = "The export is cut off: it has no end frame."
_HEADER, _RECORD, _CHECKPOINT, _END = 1, 2, 3, 4
_FRAME = struct.Struct(">BII")
_FRAME_START = struct.Struct(">BI")


class ExportHeader(msgspec.Struct, frozen=True):
    log_id: bytes
    signing_key: str


class ExportEnd(msgspec.Struct, frozen=True):
    events: int
    root: bytes
    """Merkle tree head over all of them."""


def export_log(path: Path, target: BinaryIO, until: int | None = None) -> ExportEnd:
    """Write the log in directory ``path`` to ``target``, up to event ``until`` (default: all).

    Works beside a running daemon. Raises ``NotFound``, and ``Damaged`` when a record does not fit its chain: what is exported is sound.
    """
    with LogReader(path) as reader:
        size = reader.size() if until is None else min(until, reader.size())
        target.write(MAGIC)
        _put(target, _HEADER, msgspec.msgpack.encode(ExportHeader(reader.log_id, reader.signing_key)))
        chain = _Chain(reader.log_id, reader.signing_key, f"The log in {path}")
        checkpoints = dict(reader.summary().checkpoints)
        for value in reader.values(0, size):
            chain.add(value)
            _put(target, _RECORD, value)
            checkpoint = checkpoints.get(chain.frontier.size)
            if checkpoint is not None:
                chain.check(checkpoint)
                _put(target, _CHECKPOINT, encode_checkpoint(checkpoint))
        end = ExportEnd(size, chain.frontier.root())
        _put(target, _END, msgspec.msgpack.encode(end))
    return end


def import_log(source: BinaryIO, path: Path, map_bytes: int = 64 << 30) -> ExportEnd:
    """Make the log of an export in directory ``path``, which must not hold one.

    Raises ``Refused`` when there is a log already, ``Damaged`` when the file is not sound to its end (then nothing is left of it in ``path``).
    The imported log belongs to the same signing key: a daemon needs that key to append to it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (path / DATA_FILE).exists():
        raise Refused(f"There is an event log in {path} already. Import into another directory.")
    lock = WriterLock(path)
    try:
        with opening(path):
            environment = Environment(path, map_bytes, readonly=False)
            try:
                return _Import(_frames(source), environment).run()
            finally:
                environment.close()
    except BaseException:
        for name in (DATA_FILE, "lock.mdb"):
            (path / name).unlink(missing_ok=True)
        raise
    finally:
        lock.release()


def read_export(source: BinaryIO) -> Iterator[bytes]:
    """The records of an export, each checked against its chain. Raises ``Damaged`` at the first that is not sound."""
    frames = _frames(source)
    header = _header(frames)
    chain = _Chain(header.log_id, header.signing_key, "The export")
    for kind, body, offset in frames:
        if kind == _RECORD:
            chain.add(body)
            yield body
        elif kind == _CHECKPOINT:
            chain.check(decode_checkpoint(body))
        elif kind == _END:
            _check_end(body, chain, offset)
            return
    raise Damaged(_CUT_OFF)


class _Chain:
    """Recomputes chain and tree over records as they pass."""

    def __init__(self, log_id: bytes, signing_key: str, name: str) -> None:
        self._log_id = log_id
        self._signing_key = signing_key
        self._trailer = genesis_trailer(log_id)
        self._name = name
        self.frontier = Frontier()

    def add(self, value: bytes) -> bytes | None:
        """Raises ``Damaged`` when the record does not follow; returns the root of the subtree it completed, if any."""
        fits = len(value) > TRAILER_BYTES and record_hash(self._trailer, payload_of(value)) == value[-HASH_BYTES:]
        if not fits or value[-TRAILER_BYTES] != 0:
            raise Damaged(f"{self._name} is damaged: event {self.frontier.size + 1} does not follow the one before it.")
        self._trailer = trailer_of(value)
        return self.frontier.append(value[-HASH_BYTES:])

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises ``Damaged`` unless the checkpoint is one over the records so far, signed by the log's key."""
        head = checkpoint.head()
        size = self.frontier.size
        here = (self._log_id, size, self._trailer[-HASH_BYTES:], self.frontier.root())
        if (head.log_id, head.size, head.head, head.root) != here:
            raise Damaged(f"{self._name} is damaged: the checkpoint after event {size} does not fit the events.")
        if not signature_holds(checkpoint) or checkpoint.public_key != self._signing_key:
            raise Damaged(f"{self._name} is damaged: the signature of the checkpoint after event {size} does not hold.")


class _Import:
    """One run of ``import_log``, in transactions of bounded size."""

    def __init__(self, frames: Iterator[tuple[int, bytes, int]], environment: Environment) -> None:
        self._frames = frames
        self._environment = environment
        self._header = _header(frames)
        self._chain = _Chain(self._header.log_id, self._header.signing_key, "The export")
        self._entries = IndexEntries(0)
        self._records: list[tuple[bytes, bytes]] = []
        self._subtrees: list[tuple[bytes, bytes]] = []
        self._checkpoints: list[tuple[bytes, bytes]] = []

    def run(self) -> ExportEnd:
        for kind, body, offset in self._frames:
            if kind == _RECORD:
                self._take(body)
            elif kind == _CHECKPOINT:
                self._chain.check(decode_checkpoint(body))
                self._checkpoints.append((position_key(self._chain.frontier.size), body))
            elif kind == _END:
                end = _check_end(body, self._chain, offset)
                self._finish()
                return end
        raise Damaged(_CUT_OFF)

    def _take(self, value: bytes) -> None:
        root = self._chain.add(value)
        position = self._chain.frontier.size
        envelope = decode_value(value)
        if envelope.position != position:
            raise Damaged(f"The export is damaged: event {envelope.position} stands where event {position} belongs.")
        self._entries.add(envelope)
        self._records.append((position_key(position), value))
        if root is not None:
            self._subtrees.append((position_key(position // SUBTREE_LEAVES - 1), root))
        if self._entries.events == INDEXED_AT_ONCE_EVENTS:
            self._write()

    def _write(self) -> None:
        environment = self._environment
        with environment.lmdb.begin(write=True) as transaction:
            transaction.cursor(environment.events).putmulti(self._records, append=True)
            transaction.cursor(environment.subtrees).putmulti(self._subtrees, append=True)
            transaction.cursor(environment.checkpoints).putmulti(self._checkpoints, append=True)
            self._entries.write(transaction, environment)
        self._entries = IndexEntries(self._chain.frontier.size)
        self._records, self._subtrees, self._checkpoints = [], [], []

    def _finish(self) -> None:
        """Only now the directory becomes a log."""
        self._write()
        meta = self._environment.meta
        with self._environment.lmdb.begin(write=True, db=meta) as transaction:
            transaction.put(b"log_id", self._header.log_id)
            transaction.put(b"signing_key", self._header.signing_key.encode())
            transaction.put(b"format", FORMAT)


def _put(target: BinaryIO, kind: int, body: bytes) -> None:
    crc = zlib.crc32(body, zlib.crc32(_FRAME_START.pack(kind, len(body))))
    target.write(_FRAME.pack(kind, len(body), crc))
    target.write(body)


def _frames(source: BinaryIO) -> Iterator[tuple[int, bytes, int]]:
    """(kind, body, offset of the frame) to the end of the file. Raises ``Damaged``."""
    if source.read(len(MAGIC)) != MAGIC:
        raise Damaged("This is not an export of an rbmedia log.")
    offset = len(MAGIC)
    while start := source.read(_FRAME.size):
        if len(start) < _FRAME.size:
            raise Damaged(f"The export is cut off at byte {offset}.")
        kind, length, crc = _FRAME.unpack(start)
        if length > BODY_BYTES_MAX or not _HEADER <= kind <= _END:
            raise Damaged(f"The export is damaged at byte {offset}: there is no such frame.")
        body = source.read(length)
        if len(body) < length:
            raise Damaged(f"The export is cut off at byte {offset + _FRAME.size + len(body)}.")
        if zlib.crc32(body, zlib.crc32(_FRAME_START.pack(kind, length))) != crc:
            raise Damaged(f"The export is damaged between bytes {offset} and {offset + _FRAME.size + length - 1}.")
        yield kind, body, offset
        offset += _FRAME.size + length


def _header(frames: Iterator[tuple[int, bytes, int]]) -> ExportHeader:
    kind, body, offset = next(frames, (_END, b"", len(MAGIC)))
    try:
        header = msgspec.msgpack.decode(body, type=ExportHeader) if kind == _HEADER else None
    except UNDECODABLE:
        header = None
    if header is None or len(header.log_id) != LOG_ID_BYTES:
        raise Damaged(f"The export is damaged at byte {offset}: it does not start with a header.")
    return header


def _check_end(body: bytes, chain: _Chain, offset: int) -> ExportEnd:
    try:
        end = msgspec.msgpack.decode(body, type=ExportEnd)
    except UNDECODABLE as error:
        raise Damaged(f"The export is damaged at byte {offset}: {error}") from error
    if end.events != chain.frontier.size or end.root != chain.frontier.root():
        raise Damaged(
            f"The export is damaged: it has {chain.frontier.size} events, and its end speaks of {end.events}."
        )
    return end
