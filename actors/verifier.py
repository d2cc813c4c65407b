"""Verification of one backup: every stored byte is read, then the result gets its word (domain reference, 1.5).

A catalog verifies its own archive, container by container. An archive on cartridges is read block by block, in the order in which it lies there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from actors.jobs import Job, Jobs
from actors.places import Places, Stride
from actors.port import ArchiveSource, Journal
from actors.storage import Storages, Verified, VerifyArchive
from rbcore import media
from rbcore.archive.block import check_stored, iter_blocks
from rbcore.archive.keys import verify_root
from rbcore.archive.root import RootHasher
from rbcore.archive.store import Finding
from rbcore.commands import RecordVerification
from rbcore.entities import Backup, Client, TapeCartridge
from rbcore.errors import Damaged, NotFound, ProtocolViolation, TooLarge
from rbcore.ports import World
from rbcore.vocabulary import VerificationStatus

FINDINGS_MAX = 1000


class Found(NamedTuple):
    root: bytes
    """Empty when it cannot be computed."""
    bytes_read: int
    findings: list[str]


class Verifier:
    """Verifies what lies in catalogs and on cartridges."""

    def __init__(
        self,
        journal: Journal,
        storages: Storages,
        places: Places,
        jobs: Jobs,
        world: World,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """``on_progress(task id, bytes read)``."""
        self._journal = journal
        self._storages = storages
        self._places = places
        self._jobs = jobs
        self._world = world
        self._on_progress = on_progress

    async def verify(self, task_id: int, backup: Backup) -> RecordVerification:
        """Raises ``NotAllowedNow`` when it was stopped, ``Unavailable`` when the catalog or a cartridge cannot be read now."""
        try:
            found = await (self._on_tape(task_id, backup) if backup.parts else self._in_catalog(task_id, backup))
        except (NotFound, Damaged) as error:
            return RecordVerification(
                task_id=task_id, status=VerificationStatus.BROKEN, bytes_read=0, findings=[error.message]
            )
        findings = found.findings[:FINDINGS_MAX]
        if len(found.findings) > FINDINGS_MAX:
            findings.append(f"... and {len(found.findings) - FINDINGS_MAX} more")
        if found.root.hex() != backup.root:
            findings.append(f"the root is {found.root.hex() or 'not computable'}, recorded was {backup.root}")
        client = self._journal.state.find(Client, backup.client_id)
        status = VerificationStatus.BROKEN if findings else _trust(backup, client)
        if status == VerificationStatus.SUSPICIOUS:
            findings.append(
                "the content is what was stored, but the client's signature is absent or cannot be confirmed"
            )
        return RecordVerification(task_id=task_id, status=status, bytes_read=found.bytes_read, findings=findings)

    async def _in_catalog(self, task_id: int, backup: Backup) -> Found:
        found = await self._storages.ask(
            backup.local_catalog_id, VerifyArchive(task_id=task_id, archive=backup.archive), math.inf
        )
        assert isinstance(found, Verified), "the answer to VerifyArchive"
        return Found(found.root, found.bytes_read, [_sentence(one) for one in found.findings])

    async def _on_tape(self, task_id: int, backup: Backup) -> Found:
        reading = _Reading(backup, self._cartridge_of(backup), self._world)
        with self._jobs.run(task_id) as job:
            async with self._places.medium(backup, task_id) as source:
                await reading.run(job, source, lambda count: self._on_progress(task_id, count))
        return reading.found

    def _cartridge_of(self, backup: Backup) -> Callable[[int], str]:
        """Block number -> the tag of the cartridge it is on."""
        tags = {one: self._journal.state.find(TapeCartridge, one) for one in media.cartridges_of([backup])}

        def tag_of(number: int) -> str:
            parts = [part for part in backup.parts if part.blocks and part.first_block <= number <= part.last_block]
            cartridge = tags[parts[-1].cartridge_id] if parts else None
            return cartridge.volume_tag if cartridge is not None else "unknown"

        return tag_of


class _Reading:
    """Reads all blocks of an archive and remembers what is wrong with them."""

    def __init__(self, backup: Backup, tag_of: Callable[[int], str], world: World) -> None:
        self._archive_id = bytes.fromhex(backup.archive)
        self._blocks = backup.blocks
        self._root = RootHasher(self._archive_id)
        self._tag_of = tag_of
        self._world = world
        self._findings: list[str] = []
        self._damaged = self._named = 0
        """Blocks that are; and those of them that a finding tells of."""
        self._bytes_read = 0

    @property
    def found(self) -> Found:
        findings = list(self._findings)
        if self._named < self._damaged:
            findings.append(f"... and {self._damaged - self._named} more damaged blocks")
        return Found(b"" if self._damaged else self._root.value, self._bytes_read, findings)

    async def run(self, job: Job, source: ArchiveSource, on_progress: Callable[[int], None]) -> None:
        numbers = await source.block_numbers()
        if len(numbers) < self._blocks:
            self._damaged += self._blocks - len(numbers)
            self._named += self._blocks - len(numbers)
            self._findings.append(
                f"{self._blocks - len(numbers)} of {self._blocks} blocks are not found on the cartridges"
            )
        stride, start = Stride(), 0
        while start < len(numbers):
            await job.next_piece()
            wanted = numbers[start : start + stride.blocks]
            length = await self._read(source, wanted)
            start += len(wanted)
            stride.learn(len(wanted), length)
            on_progress(self._bytes_read)

    async def _read(self, source: ArchiveSource, numbers: Sequence[int]) -> int:
        """Bytes read. Of a piece that holds a damaged block the others are read one by one."""
        try:
            data = await source.read(numbers)
            await self._world.threads.run(lambda: self._check(data, numbers))
        except (Damaged, NotFound, ProtocolViolation, TooLarge) as error:
            if len(numbers) > 1:
                return sum([await self._read(source, [number]) for number in numbers])
            self._damaged += 1
            if len(self._findings) < FINDINGS_MAX:
                self._named += 1
                self._findings.append(f"block {numbers[0]} on cartridge {self._tag_of(numbers[0])}: {error.message}")
            return 0
        self._bytes_read += len(data)
        return len(data)

    def _check(self, data: bytes, numbers: Sequence[int]) -> None:
        """On a worker thread. Takes all of the piece into the root, or nothing of it."""
        headers = []
        for header, payload in iter_blocks(data):
            check_stored(header, payload)
            headers.append(header)
        if [one.number for one in headers] != list(numbers) or any(
            one.archive_id != self._archive_id for one in headers
        ):
            raise Damaged(f"block {numbers[0]}: something else lies there", data={"block": numbers[0]})
        for header in headers:
            self._root.add(header)


def _trust(backup: Backup, client: Client | None) -> str:
    """Trusted: the pinned key vouches for the root. A client that is no longer authorised was checked when the archive arrived."""
    if client is None:
        return VerificationStatus.TRUSTED if backup.signature_valid else VerificationStatus.SUSPICIOUS
    holds = verify_root(
        bytes.fromhex(client.public_key),
        bytes.fromhex(backup.archive),
        bytes.fromhex(backup.root),
        bytes.fromhex(backup.signature),
    )
    return VerificationStatus.TRUSTED if holds else VerificationStatus.SUSPICIOUS


def _sentence(finding: Finding) -> str:
    block = f"block {finding.block}" if finding.block >= 0 else "an unknown block"
    return f"{finding.container} at offset {finding.offset}, {block}: {finding.what}"
