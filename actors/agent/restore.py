"""The restore pipeline: manifest, plan, fetch blocks, open them, write, in bounded windows.

::

    manifest blocks ──> directories made ──> units ──> fetch blocks ──> workers (open, write) ──> in order: links, directories' metadata

What is restored must be what was backed up: every name that is not, and every attribute that is not, is a problem named in the
task's journal, everything else is restored, and the outcome is then ``error``. Where a block is damaged, its part of a file is left as a
hole.

Units come in the order of paths, or, when the order asks for it, as the content lies on the medium (``medium_order``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from actors.agent.backup import printable
from actors.agent.manifest_stream import ManifestStream, read_trailer
from actors.agent.medium_order import MediumOrder, PassCutter
from actors.agent.port import RestoreOutcome, RestoreWork, WorkControl, WorkOutcome
from actors.agent.restore_plan import (
    After,
    BlockId,
    LargeJob,
    RestoreUnit,
    Selection,
    UnitCutter,
    covering,
    parents_of,
)
from actors.agent.sealing import sealing_of
from actors.agent.transfer import Answer, Transfer
from actors.agent.window import Submit, run_in_order
from actors.agent.working import RESTORE_TRY_AGAIN, carry_out
from actors.framing import DataChannel
from rbcore.archive.block import BlockCodec
from rbcore.archive.manifest import path_order_key
from rbcore.archive.model import BlockKind, Entry, EntryType, Extent, Trailer
from rbcore.errors import Damaged, NotFound, ProtocolViolation, Unavailable
from rbcore.file_tree import Problem, SmallFile, TargetFile, TargetTree
from rbcore.ports import World

WINDOW_UNITS: Final = 4
NOTE_LINES_MAX: Final = 1000
PROGRESS_SECONDS: Final = 1.0


async def run_restore(work: RestoreWork, channel: DataChannel, control: WorkControl, world: World) -> RestoreOutcome:
    """Carry out one attempt of a restore over a connected data channel; the caller closes the channel.

    ``done``: everything that was asked for is there as it was backed up. ``error``: problems, which the journal names, or a reason why
    nothing could be done. ``interrupted``, ``killed`` as for a backup. Raises only for programming errors.
    """
    transfer = Transfer(channel, work.order.transfer_token)

    async def job() -> WorkOutcome:
        return await Restore(work, transfer, control, world).run()

    return await carry_out(job, transfer, control, RESTORE_TRY_AGAIN)


class _Written(msgspec.Struct):
    """What a unit brought about."""

    unit: RestoreUnit
    problems: list[Problem]
    content_bytes: int = 0
    files: int = 0


class _Opened(msgspec.Struct):
    """The blocks of a unit."""

    plaintexts: dict[BlockId, memoryview] = {}
    damage: dict[BlockId, str] = {}


class Restore:
    """One attempt."""

    def __init__(self, work: RestoreWork, transfer: Transfer, control: WorkControl, world: World) -> None:
        """Raises ``InvalidRequest``, ``Refused`` when the archive cannot be read by this client."""
        self._order = work.order
        self._work = work
        self._transfer = transfer
        self._control = control
        self._world = world
        self._sealing = sealing_of(work.order.archive, work.keys.master_key)
        self._hands = trio.CapacityLimiter(max(1, work.workers))
        self._creating = trio.CapacityLimiter(1)
        """Two threads that create files wait for each other in the kernel: the same wall time for half as much CPU again."""
        self._codecs: dict[str, list[BlockCodec]] = {}
        self._archives: list[str] = []
        self._large: dict[LargeJob, TargetFile] = {}
        self._problems = self._noted = 0
        self._lines: list[str] = []
        self._bytes_done = self._bytes_total = self._files_done = 0
        self._found: set[bytes] = set()
        self._damaged: set[int] = set()
        """Numbers of the manifest blocks that could not be read."""
        self._progress_told = trio.current_time()

    async def run(self) -> WorkOutcome:
        order, threads = self._order, self._world.threads
        await self._control.stage("Execution")
        await self._transfer.attach()
        await self._control.stage("Start_Transfer")
        is_complete = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._transfer.serve, nursery.cancel_scope)
            archive = order.archive.archive
            trailer = await read_trailer(self._transfer, self._world, archive, self._sealing.codec(archive))
            self._archives = trailer.archives
            target = await threads.run(
                partial(
                    self._work.trees.target,
                    order.destination_path,
                    numeric_owner=bool(order.parameters.get("numeric_owner", False)),
                    root_metadata=order.destination_path.rstrip("/") == trailer.resource.rstrip("/"),
                    restore=f"{order.archive.archive}/{order.task_id}",
                )
            )
            try:
                await self._control.stage("Transmission")
                selection = Selection([relative_path(one, trailer.resource) for one in order.only])
                self._bytes_total = trailer.data_size if selection.everything else 0
                await run_in_order(
                    partial(self._plan, target, trailer, selection),
                    partial(self._perform, target),
                    partial(self._consume, target),
                    window=WINDOW_UNITS,
                )
            finally:
                late = target.close()
            await self._note(late)
            is_complete = True
            nursery.cancel_scope.cancel()
        if not is_complete:
            # The channel's end cancels the block above without an error of its own: what was not restored is not done.
            raise self._transfer.failure or Unavailable("The transfer ended before everything was restored.")
        return await self._end()

    async def _end(self) -> WorkOutcome:
        await self._tell_lines()
        if self._problems > self._noted:
            await self._control.notes("error", [f"and {self._problems - self._noted} more problems"])
        await self._control.progress(self._bytes_done, self._bytes_total, self._files_done)
        return WorkOutcome(
            "error" if self._problems else "done",
            f"{self._problems} problems, see the journal; everything else was restored" if self._problems else "",
            files=self._files_done,
            bytes=self._bytes_done,
            problems=self._problems,
        )

    # --- planning --------------------------------------------------------------------------------------------------

    async def _plan(
        self, target: TargetTree, trailer: Trailer, selection: Selection, submit: Submit[RestoreUnit]
    ) -> None:
        adopted = await self._adopted_links(trailer, selection)
        if not self._order.medium_order:
            await self._walk(target, trailer, selection, adopted, UnitCutter(), submit)
            return
        for cutter in MediumOrder(len(trailer.archives)).passes():
            if cutter.first:
                await self._walk(target, trailer, selection, adopted, cutter, submit)
            else:
                await self._walk_again(trailer, selection, adopted, cutter, submit)

    async def _walk(
        self,
        target: TargetTree,
        trailer: Trailer,
        selection: Selection,
        adopted: dict[bytes, Entry],
        cutter: UnitCutter | PassCutter,
        submit: Submit[RestoreUnit],
    ) -> None:
        """Read the manifest, name its problems, make the directories, and submit what the cutter makes of the names."""
        stream = self._stream(selection.blocks(trailer.manifest))
        known: set[bytes] = {b""}
        while (piece := await stream.read()) is not None:
            await self._control.turn()
            if piece.problem:
                self._damaged.add(piece.number)
                await self._note([(b"", f"{piece.problem}: the names in it are lost")])
                continue
            chosen, parents = self._choose(piece.entries, selection, adopted, trailer)
            if self._damaged:
                parents = [*_implied(chosen, known), *parents]
            created, problems = await self._world.threads.run(partial(_make_directories, target, chosen, parents))
            await self._note(problems)
            for entry in chosen:
                if entry.type is EntryType.DIRECTORY and self._damaged:
                    known.add(entry.path)
                finish = entry.type is not EntryType.DIRECTORY or entry.path in created or selection.wants(entry.path)
                for unit in cutter.add(entry, finish=finish):
                    await self._submit(unit, submit)
        if stream.begun is not None:
            await self._note([(stream.begun.path, "the manifest ends amid its extents")])
        for unit in cutter.end():
            await self._submit(unit, submit)
        for path in sorted(selection.missing(self._found)):
            await self._note([(path, "is not in the backup")])

    async def _walk_again(
        self,
        trailer: Trailer,
        selection: Selection,
        adopted: dict[bytes, Entry],
        cutter: PassCutter,
        submit: Submit[RestoreUnit],
    ) -> None:
        """A further pass over a manifest that ``_walk`` has read.

        Raises ``Unavailable`` when another part of it can be read than before: names would be in some passes only, so the restore
        has to begin again.
        """
        stream = self._stream(selection.blocks(trailer.manifest))
        while (piece := await stream.read()) is not None:
            await self._control.turn()
            if bool(piece.problem) != (piece.number in self._damaged):
                raise Unavailable(
                    f"Manifest block {piece.number} of archive {self._order.archive.archive} does not read as it did "
                    f"earlier in this restore ({piece.problem or 'it was damaged'}), so the restore has to begin again."
                )
            chosen, _ = self._choose(piece.entries, selection, adopted, trailer, again=True)
            for entry in chosen:
                for unit in cutter.add(entry):
                    await self._submit(unit, submit)
        for unit in cutter.end():
            await self._submit(unit, submit)

    async def _submit(self, unit: RestoreUnit, submit: Submit[RestoreUnit]) -> None:
        if unit.names:
            await self._control.turn()
            await submit(unit)

    def _stream(self, numbers: Sequence[int]) -> ManifestStream:
        archive = self._order.archive.archive
        return ManifestStream(self._transfer, self._world, archive, self._sealing.codec(archive), numbers)

    def _choose(
        self,
        entries: list[Entry],
        selection: Selection,
        adopted: dict[bytes, Entry],
        trailer: Trailer,
        *,
        again: bool = False,
    ) -> tuple[list[Entry], list[Entry]]:
        """What of a manifest block is restored, parents included; and which of them are only parents.

        ``again``: what the backup says of its own problems has been said.
        """
        chosen: list[Entry] = []
        parents: list[Entry] = []
        for entry in entries:
            if not selection.everything:
                if selection.is_parent(entry.path):
                    if entry.type is EntryType.DIRECTORY:
                        parents.append(entry)
                        chosen.append(entry)
                    continue
                if not selection.wants(entry.path):
                    continue
                self._found.add(entry.path)
                entry = adopted.get(entry.path, entry)
            if entry.path == b"" and entry.type is not EntryType.DIRECTORY:
                # The resource was a single name: it gets its own name back, within the destination.
                entry = msgspec.structs.replace(entry, path=os.fsencode(os.path.basename(trailer.resource)))
            if entry.problem and not again:
                self._lines.append(f"{printable(entry.path)}: in the backup with a problem: {entry.problem}")
            if not (entry.problem and entry.type is EntryType.FILE and entry.size and not entry.extents):
                chosen.append(entry)
        return chosen, parents

    async def _adopted_links(self, trailer: Trailer, selection: Selection) -> dict[bytes, Entry]:
        """For a granular restore: hard links whose first name is not asked for, by path, as what they have to become.

        The first of them becomes the file itself, the others links to that one.
        """
        if selection.everything:
            return {}
        adopted: dict[bytes, Entry] = {}
        first_names: dict[bytes, bytes] = {}
        stream = self._stream(selection.blocks(trailer.manifest))
        while (piece := await stream.read()) is not None:
            for entry in piece.entries:
                if (
                    entry.type is EntryType.HARDLINK
                    and selection.wants(entry.path)
                    and not selection.wants(entry.link_target)
                ):
                    first = first_names.setdefault(entry.link_target, entry.path)
                    if first != entry.path:
                        adopted[entry.path] = msgspec.structs.replace(entry, link_target=first)
        if not first_names:
            return {}
        spans = [(path_order_key(path), path_order_key(path)) for path in first_names]
        stream = self._stream(covering(trailer.manifest, spans))
        while (piece := await stream.read()) is not None:
            for entry in piece.entries:
                path = first_names.get(entry.path)
                if path is not None:
                    adopted[path] = msgspec.structs.replace(entry, path=path)
        return adopted

    # --- fetching and writing --------------------------------------------------------------------------------------

    async def _perform(self, target: TargetTree, unit: RestoreUnit) -> _Written:
        wanted: dict[int, list[int]] = {}
        for archive, number in sorted(unit.blocks):
            wanted.setdefault(archive, []).append(number)
        answers: list[tuple[int, Answer]] = []
        for archive, numbers in wanted.items():
            if archive >= len(self._archives):
                raise Damaged(f"an extent names archive {archive} of {len(self._archives)}")
            answers.append((archive, await self._transfer.request(self._archives[archive], numbers)))
        for _, answer in answers:
            await answer.complete.wait()
        threads = self._world.threads
        async with self._hands:
            codecs = {archive: self._take_codec(archive) for archive in wanted}
            try:
                opened = await threads.run(partial(_open_blocks, answers, codecs, unit.blocks))
            finally:
                for archive, codec in codecs.items():
                    self._codecs[self._archives[archive]].append(codec)
            problems: list[Problem] = []
            if unit.pieces:
                problems += await threads.run(partial(self._write_pieces, target, unit, opened))
        if unit.files or unit.specials:
            async with self._creating:
                problems += await threads.run(partial(_write_files, target, unit, opened))
        return _Written(unit, problems, unit.content_bytes, len(unit.files))

    def _take_codec(self, archive: int) -> BlockCodec:
        name = self._archives[archive]
        free = self._codecs.setdefault(name, [])
        return free.pop() if free else self._sealing.codec(name)

    def _write_pieces(self, target: TargetTree, unit: RestoreUnit, opened: _Opened) -> list[Problem]:
        """Ranges of large files. On a worker thread."""
        problems: list[Problem] = []
        for piece in unit.pieces:
            pieces = _pieces(piece.job.entry.path, piece.extents, opened, problems)
            try:
                self._large_file(target, piece.job).write(pieces)
            except OSError as error:
                if not piece.job.problem:
                    piece.job.problem = f"was not restored: {os.strerror(error.errno or 0)}"
        return problems

    def _large_file(self, target: TargetTree, job: LargeJob) -> TargetFile:
        """The file of ``job``, created by whichever worker needs it first."""
        with job.lock:
            file = self._large.get(job)
            if file is None:
                if job.problem:
                    raise OSError(job.problem)
                file = self._large[job] = target.create_large(job.entry)
            return file

    # --- in order --------------------------------------------------------------------------------------------------

    async def _consume(self, target: TargetTree, written: _Written) -> None:
        await self._note(written.problems)
        after = written.unit.after
        if after:
            files = sum(1 for one in after if isinstance(one, LargeJob) or one.type is EntryType.HARDLINK)
            await self._note(await self._world.threads.run(partial(self._finish, target, after)))
            self._files_done += files
        self._bytes_done += written.content_bytes
        self._files_done += written.files
        await self._control.turn()
        now = trio.current_time()
        if now - self._progress_told >= PROGRESS_SECONDS:
            self._progress_told = now
            await self._control.progress(self._bytes_done, self._bytes_total, self._files_done)

    def _finish(self, target: TargetTree, after: Sequence[After]) -> list[Problem]:
        """Links, directories and large files whose turn has come, in order. On a worker thread."""
        problems: list[Problem] = []
        for one in after:
            if isinstance(one, LargeJob):
                file = self._large.pop(one, None)
                if file is not None:
                    problems += [(one.entry.path, what) for what in file.finish()]
                if one.problem:
                    problems.append((one.entry.path, one.problem))
            elif one.type is EntryType.HARDLINK:
                problems += target.make_links([one])
            else:
                problems += target.finish_directories([one])
        return problems

    async def _note(self, problems: Sequence[Problem]) -> None:
        """Problems for the journal: the first thousand, and at the end how many more there were."""
        self._problems += len(problems)
        for path, what in problems[: max(0, NOTE_LINES_MAX - self._noted)]:
            self._lines.append(f"{printable(path)}: {what}")
            self._noted += 1
        if len(self._lines) >= 100:
            await self._tell_lines()

    async def _tell_lines(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            await self._control.notes("warning", lines)


def relative_path(path: str, resource: str) -> bytes:
    """A path of a granular restore, as the manifest names it: with or without the resource in front, with or without slashes.

    Raises ``NotFound`` for what cannot be in a backup.
    """
    base = resource.rstrip("/")
    if path == base or path.startswith(base + "/"):
        path = path[len(base) :]
    path = path.strip("/")
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") for part in parts):
        raise NotFound(f"{path!r} cannot be in a backup of {resource}.")
    return os.fsencode(path)


def _make_directories(
    target: TargetTree, chosen: Sequence[Entry], parents: Sequence[Entry]
) -> tuple[set[bytes], list[Problem]]:
    """Make what is restored of directories; the parents that had to be created."""
    created, problems = target.make_parents(parents) if parents else ([], [])
    only_parents = {entry.path for entry in parents}
    problems = problems + target.make_directories(
        [entry for entry in chosen if entry.type is EntryType.DIRECTORY and entry.path not in only_parents]
    )
    return {entry.path for entry in created}, problems


def _implied(chosen: Sequence[Entry], known: set[bytes]) -> list[Entry]:
    """Directories whose own entries stood in a damaged manifest block, so that what lies in them can be restored."""
    implied: list[Entry] = []
    here = {entry.path for entry in chosen if entry.type is EntryType.DIRECTORY}
    for entry in chosen:
        lacking = [path for path in parents_of(entry.path) if path not in known and path not in here]
        for path in reversed(lacking):
            implied.append(Entry(path, EntryType.DIRECTORY, 0o700, 0, 0, "", "", 0, 0, 0, 0, 0, 1))
            known.add(path)
    return implied


def _write_files(target: TargetTree, unit: RestoreUnit, opened: _Opened) -> list[Problem]:
    """Whole files, and names without content. On a worker thread."""
    problems: list[Problem] = []
    files = [SmallFile(entry, _pieces(entry.path, entry.extents, opened, problems)) for entry in unit.files]
    return problems + target.write_small(files) + target.make_special(unit.specials)


def _open_blocks(answers: list[tuple[int, Answer]], codecs: dict[int, BlockCodec], wanted: set[BlockId]) -> _Opened:
    """Plaintexts of the blocks, and why others cannot be had. On a worker thread."""
    opened = _Opened()
    for archive, answer in answers:
        for header, payload in answer.blocks():
            block = (archive, header.number)
            try:
                if block not in wanted or header.kind is not BlockKind.PAYLOAD:
                    raise ProtocolViolation(f"block {header.number} ({header.kind.name}) came unasked")
                opened.plaintexts[block] = memoryview(codecs[archive].open_payload(header, payload))
            except Damaged as error:
                opened.damage[block] = error.message
        answer.payloads.clear()
    return opened


def _pieces(
    path: bytes, extents: Sequence[Extent], opened: _Opened, problems: list[Problem]
) -> list[tuple[int, memoryview]]:
    """(file offset, content) of what there is; a problem for each extent whose block is damaged or too short."""
    pieces: list[tuple[int, memoryview]] = []
    for extent in extents:
        block = (extent.archive, extent.block)
        plaintext = opened.plaintexts.get(block)
        if plaintext is None:
            why = opened.damage.get(block, f"block {extent.block} is damaged in the pool")
            problems.append(
                (path, f"bytes {extent.file_offset} to {extent.file_offset + extent.length} are lost: {why}")
            )
            continue
        content = plaintext[extent.block_offset : extent.block_offset + extent.length]
        if len(content) != extent.length:
            problems.append((path, f"block {extent.block} is shorter than the manifest says"))
        pieces.append((extent.file_offset, content))
    return pieces
