"""Verification of a stored archive: every byte is read, every damage named with the blocks it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from drivers.container_scan import ContainerScan, ScanBuffer, ScannedBlock
from drivers.stored_index import INDEX_NAME, container_numbers, load_index
from rbcore.archive.block import BlockHeader
from rbcore.archive.container import Index, IndexRow, container_name
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
        index: Index | None = None
        try:
            index = load_index(volume, path, archive_id)
        except (NotFound, Damaged) as error:
            what = f"{error.message}; it can be made again from the containers"
            self._found(Finding(container=INDEX_NAME, offset=0, block=-1, what=what))
        self._indexed = index is not None
        self._expected: Iterator[IndexRow] = iter(index or ())
        self._next: IndexRow | None = next(self._expected, None)
        self._containers_expected = 0 if index is None else index.containers

    def run(self, progress: Callable[[int], None] | None) -> Iterator[VerificationReport | None]:
        """None after each piece, at last the report. ``progress`` is told the bytes read so far."""
        buffer = ScanBuffer()
        present = container_numbers(self._volume, self._path)
        last_block = -1
        for number in range(1, max([self._containers_expected, *present]) + 1):
            name = container_name(number)
            try:
                file = self._volume.open(f"{self._path}/{name}")
            except NotFound:
                self._lost(Finding(container=name, offset=0, block=-1, what="the container is missing"))
                continue
            try:
                scan = ContainerScan(file, self._archive_id, number, last_block, buffer)
                for step in self._scanned(scan, number):
                    if progress is not None:
                        progress(self._bytes_read + scan.bytes_read)
                    yield step
                self._bytes_read += scan.bytes_read
                last_block = scan.last_block
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
        self._pass_over(header.number)
        expected = self._next
        if expected is not None and expected.block == header.number:
            self._next = next(self._expected, None)
            if (expected.container, expected.offset) != (number, step.offset):
                self._found(
                    Finding(
                        container=container_name(number),
                        offset=step.offset,
                        block=header.number,
                        what="the index has it elsewhere",
                    )
                )
        elif self._indexed:
            self._found(
                Finding(
                    container=container_name(number),
                    offset=step.offset,
                    block=header.number,
                    what="the index does not know it",
                )
            )
        self._root.add(header)
        self._last = header
        self._blocks += step.intact

    def _named(self, finding: Finding, number: int) -> Finding:
        """Where the index says that a block begins exactly here, that is the block which is lost."""
        expected = self._next
        if expected is None or (expected.container, expected.offset) != (number, finding.offset):
            return finding
        self._next = next(self._expected, None)
        return Finding(container=finding.container, offset=finding.offset, block=expected.block, what=finding.what)

    def _pass_over(self, block: int) -> None:
        """What the index lists before ``block`` and the scan did not meet is missing."""
        while (expected := self._next) is not None and expected.block < block:
            self._lost(
                Finding(
                    container=container_name(expected.container),
                    offset=expected.offset,
                    block=expected.block,
                    what="the block is missing",
                )
            )
            self._next = next(self._expected, None)

    def _ended(self) -> None:
        self._pass_over(2**64)
        if self._last is None or self._last.kind is not BlockKind.TRAILER:
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
        findings = self._findings
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
