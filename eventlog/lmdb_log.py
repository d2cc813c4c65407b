"""The event log of the product: LMDB, one writer thread, signed checkpoints (``async with open_log(...) as log``)."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from eventlog.commit import Commit
from eventlog.group_commit import GroupCommit, WriterActions, WriterEvents
from eventlog.lmdb_store import LmdbStore, StoreOptions
from eventlog.signing import load_or_make_signer
from eventlog.store import StoreFailed, StoreFull
from eventlog.stored_log import StoredLog
from rbcore.errors import RbError

CHECKPOINT_FILE = "checkpoint.json"
PROBE_SECONDS = 1.0

logger = logging.getLogger(__name__)


class LmdbLog(StoredLog):
    """Implements :class:`eventlog.port.EventLog`. Made by :func:`open_log`."""

    def __init__(self, store: LmdbStore, probe_seconds: float) -> None:
        super().__init__(store)
        self._lmdb = store
        self._exported_size = 0
        self._writer = GroupCommit(
            str(store.path),
            WriterActions(append=self._append, room_problem=self._look_after_room, finish=self._finish),
            WriterEvents(committed=self._committed, failed=self._taken_back, room_again=self._room_again),
            probe_seconds,
        )

    @property
    def path(self) -> Path:
        return self._lmdb.path

    @property
    def log_id(self) -> bytes:
        return self._lmdb.log_id

    def _hand_over(self, commit: Commit) -> None:
        self._writer.put(commit)

    def _taken_back(self, kind: type[RbError], reason: str) -> None:
        logger.error("event log: %s", reason)
        super()._taken_back(kind, reason)

    def _room_again(self) -> None:
        logger.warning("event log: there is room on the log volume again, writing resumes")
        super()._room_again()

    async def _stop(self) -> None:
        self._close()
        await self._writer.stop()

    # --- in the writer thread --------------------------------------------------------------------------------------

    def _append(self, group: Sequence[Commit]) -> None:
        self._lmdb.append(group)
        if self._lmdb.checkpointed_size != self._exported_size:
            self._export_checkpoint()

    def _look_after_room(self) -> str | None:
        problem = self._lmdb.room_problem()
        if problem is None:
            try:
                self._lmdb.extend_runway()
            except OSError as error:
                # Commits then grow the file themselves, and say so if they cannot.
                logger.info("event log: no space could be written ahead: %s", error)
        return problem

    def _finish(self) -> None:
        try:
            self._lmdb.round_off()
        except (StoreFull, StoreFailed) as error:
            logger.warning("event log: index and checkpoint could not be rounded off: %s", error)
        self._export_checkpoint()

    def _export_checkpoint(self) -> None:
        """Copy the newest checkpoint to a file of its own, for whoever keeps checkpoints elsewhere. The log does not need it."""
        checkpoint = self._lmdb.newest_checkpoint()
        if checkpoint is None:
            return
        target = self._lmdb.path / CHECKPOINT_FILE
        fresh = target.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.format(msgspec.json.encode(checkpoint), indent=2) + b"\n")
            os.replace(fresh, target)
        except OSError as error:
            logger.warning("event log: the newest checkpoint could not be copied to %s: %s", target, error)
        self._exported_size = self._lmdb.checkpointed_size


@asynccontextmanager
async def open_log(
    path: Path, *, secrets: Path, options: StoreOptions | None = None, probe_seconds: float = PROBE_SECONDS
) -> AsyncIterator[LmdbLog]:
    """Open the log in directory ``path`` for appending; make it, and its signing key in ``secrets``, at first start.

    Leaving the block commits what is queued and signs a closing checkpoint. Raises ``Refused``, ``Damaged`` or ``Unavailable`` with a
    sentence when the log cannot be opened, ``Unavailable`` when it cannot be closed in time (the store then stays open: its writer
    is still in it).
    """

    def open_store() -> LmdbStore:
        return LmdbStore(path, load_or_make_signer(secrets), options)

    store = await trio.to_thread.run_sync(open_store)
    log = LmdbLog(store, probe_seconds)
    try:
        yield log
    finally:
        await log._stop()
        store.close()
