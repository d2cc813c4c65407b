"""Verification of a stored archive: every byte is read, every damage named with the blocks it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from drivers.container_scan import ContainerScan, ScanBuffer, ScannedBlock
from drivers.stored_index import INDEX_NAME, container_numbers, load_index, rebuild_index
from rbcore.archive.block import BlockHeader
from rbcore.archive.container import IndexRow, container_name
from rbcore.archive.model import BlockKind
from rbcore.archive.root import RootHasher
from rbcore.archive.store import Finding, VerificationReport
from rbcore.errors import Damaged, NotFound
from rbcore.ports import Volume

FINDINGS_MAX: Final = 10_000
"""More are counted, not listed."""


class Verification:
    """One run over one archive. The index only helps to name what is missing."""

    def __init__(self, volume: Volume, path: str, archive_id: bytes) -> None:
        self._volume = volume
        self._path = path
        self._archive_id = archive_id
        self._root = RootHasher(archive_id)
        self._headers_lost = False
        self._last: BlockHeader | None = None
        self._blocks = 0
        self._bytes_read = 0
        self._findings: list[Finding] = []
        self._unlisted = 0
        try:
            self._index = load_index(volume, path, archive_id)
        except (NotFound, Damaged) as error:
            self._found(
                Finding(container=INDEX_NAME, offset=0, block=-1, what=f"{error.message}; it can be made again")
            )
            self._index = rebuild_index(volume, path, archive_id)
        self._accounted = bytearray(len(self._index))
        """By row of the index: 1 when the block was met, or named in a finding."""

    def run(self, progress: Callable[[int], None] | None) -> Iterator[VerificationReport | None]:
        """None after each piece, at last the report. ``progress`` is told the bytes read so far."""
        buffer = ScanBuffer()
        present = container_numbers(self._volume, self._path)
        for number in range(1, max([self._index.containers, *present]) + 1):
            name = container_name(number)
            try:
                file = self._volume.open(f"{self._path}/{name}")
            except NotFound:
                self._lost(Finding(container=name, offset=0, block=-1, what="the container is missing"))
                continue
            try:
                scan = ContainerScan(file, self._archive_id, number, buffer)
                for step in self._scanned(scan, number):
                    if progress is not None:
                        progress(self._bytes_read + scan.bytes_read)
                    yield step
                self._bytes_read += scan.bytes_read
            finally:
                file.close()
        self._ended()
        yield self._report()

    def _scanned(self, scan: ContainerScan, number: int) -> Iterator[None]:
        if (wrong := scan.header()) is not None:
            self._found(wrong)
        for step in scan.blocks():
            if step is None:
                yield None
            elif isinstance(step, ScannedBlock):
                self._block(step, number)
            elif step.block >= 0:
                self._found(step)
            else:
                self._lost(self._named(step, number))

    def _block(self, step: ScannedBlock, number: int) -> None:
        header = step.header
        position = self._index.position_of(header.number)
        if position is None or _place(self._index[position]) != (number, step.offset):
            what = "a copy of the block lies here that the index does not know"
            self._found(Finding(container=container_name(number), offset=step.offset, block=header.number, what=what))
            return
        self._accounted[position] = 1
        self._blocks += step.intact
        self._last = header
        if header.number > self._root.last_block:
            self._root.add(header)
        else:
            self._headers_lost = True

    def _named(self, finding: Finding, number: int) -> Finding:
        """Where the index says that a block begins exactly here, that is the block which is lost."""
        position = self._index.position_at(number, finding.offset)
        if position is None:
            return finding
        self._accounted[position] = 1
        block = self._index[position].block
        return Finding(container=finding.container, offset=finding.offset, block=block, what=finding.what)

    def _ended(self) -> None:
        position = self._accounted.find(0)
        while position >= 0:
            row = self._index[position]
            name = container_name(row.container)
            self._lost(Finding(container=name, offset=row.offset, block=row.block, what="the block is missing"))
            position = self._accounted.find(0, position + 1)
        complete = self._last is not None and self._last.kind is BlockKind.TRAILER
        if not complete and not self._headers_lost:
            last = "" if self._last is None else f" after block {self._last.number}"
            self._lost(Finding(container="", offset=0, block=-1, what=f"the archive ends{last} without its trailer"))

    def _lost(self, finding: Finding) -> None:
        self._headers_lost = True
        self._found(finding)

    def _found(self, finding: Finding) -> None:
        if len(self._findings) < FINDINGS_MAX:
            self._findings.append(finding)
        else:
            self._unlisted += 1

    def _report(self) -> VerificationReport:
        findings = sorted(self._findings, key=lambda one: (one.container, one.offset, one.block))
        if self._unlisted:
            findings = [
                *findings,
                Finding(container="", offset=0, block=-1, what=f"and {self._unlisted} findings more"),
            ]
        return VerificationReport(
            root=b"" if self._headers_lost else self._root.value,
            blocks=self._blocks,
            bytes_read=self._bytes_read,
            findings=findings,
        )


def _place(row: IndexRow) -> tuple[int, int]:
    return row.container, row.offset
