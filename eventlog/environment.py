"""The LMDB environment of a log: its databases, its lock, LMDB's errors as sentences.

Named databases (``docs/format-log.md``, "Event log"):

============ ======================================== ======================================================
events       position, u64 big endian                 record (``eventlog.record``)
streams      stream, 0x00, version u64 big endian     position, u64 big endian
commands     command id                               first and last position of its batch, two u64 big endian
subtrees     number of the subtree, u64 big endian    Merkle root of 4,096 record hashes, 32 bytes
checkpoints  size, u64 big endian                     msgpack of the signed checkpoint
meta         name                                     ``format``, ``log_id``, ``signing_key``, ``indexed``
============ ======================================== ======================================================

``streams``, ``commands`` and ``subtrees`` follow from ``events`` and can be rebuilt; the first two go up to position ``indexed``. Command ids
are kept as long as the log: about 50 bytes each. There is no index by time, because times only grow with positions.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from rbcore.errors import Damaged, Refused, Unavailable

FORMAT = b"rbmedia-log-1"
DATABASES = ("events", "streams", "commands", "subtrees", "checkpoints", "meta")
DATA_FILE = "data.mdb"
WRITER_LOCK_FILE = "writer.lock"
READER_MAP_BYTES = 1 << 20
"""What a reader asks for: LMDB takes the size of the file when that is larger."""


class Environment:
    """An open LMDB environment. Durable settings: both flushes of a commit are done before it returns."""

    def __init__(self, path: Path, map_bytes: int, *, readonly: bool) -> None:
        """Raises ``Damaged`` and ``Unavailable`` with a sentence."""
        with opening(path):
            self.lmdb = lmdb.open(
                str(path),
                map_size=map_bytes,
                max_dbs=len(DATABASES),
                readonly=readonly,
                create=not readonly,
                sync=True,
                metasync=True,
                meminit=False,
            )
            try:
                opened = [self.lmdb.open_db(name.encode(), create=not readonly) for name in DATABASES]
            except BaseException:
                self.lmdb.close()
                raise
        self.events, self.streams, self.commands, self.subtrees, self.checkpoints, self.meta = opened

    def close(self) -> None:
        self.lmdb.close()


class WriterLock:
    """Held by the one process that may append to a log. The kernel drops it when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Raises ``Refused`` when another process, or this one, holds it."""
        path = directory / WRITER_LOCK_FILE
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise Refused(
                f"The event log in {directory} is open for appending by process {holder or 'unknown'}. "
                "Stop that daemon, or start this one with another home directory."
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """LMDB's errors while a log is opened, as sentences."""
    try:
        yield
    except (
        lmdb.CorruptedError,
        lmdb.PageNotFoundError,
        lmdb.InvalidError,
        lmdb.VersionMismatchError,
        lmdb.NotFoundError,
        lmdb.IncompatibleError,
    ) as error:
        raise Damaged(
            f"The file {path / DATA_FILE} of the event log is damaged: {error}. Run 'audit verify'."
        ) from error
    except lmdb.Error as error:
        raise Unavailable(f"The event log in {path} cannot be opened: {error}.") from error
