"""Reading the manifest of an archive over the data channel, block by block, with the next block always under way.

A damaged block costs its own names and no others: it is said, and the stream goes on with the next one. So the checks here are
those within a block (``decode_manifest``); a target tree is safe against whatever order the names come in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from actors.agent.transfer import Answer, Transfer
from rbcore.archive.block import BlockCodec
from rbcore.archive.manifest import decode_manifest, decode_trailer
from rbcore.archive.model import BlockKind, Entry, Trailer
from rbcore.errors import Damaged, ProtocolViolation
from rbcore.ports import World

AHEAD: Final = 2
"""Manifest blocks under way: about 1 MiB of plaintext each."""


@dataclass(frozen=True, slots=True)
class ManifestPiece:
    """What one manifest block tells."""

    number: int
    entries: list[Entry] = field(default_factory=list)
    problem: str = ""
    """Why there are no entries: the block is missing or damaged."""


class ManifestStream:
    """The manifest blocks ``numbers`` of an archive, in order."""

    def __init__(
        self, transfer: Transfer, world: World, archive: str, codec: BlockCodec, numbers: Sequence[int]
    ) -> None:
        self._transfer = transfer
        self._world = world
        self._archive = archive
        self._codec = codec
        self._numbers = deque(numbers)
        self._under_way: deque[tuple[int, Answer]] = deque()
        self._held: Entry | None = None
        self.begun: Entry | None = None
        """At the end of an unfinished archive's manifest: the file that was being read, with its extents so far."""

    async def read(self) -> ManifestPiece | None:
        """The next block; None after the last."""
        while self._numbers and len(self._under_way) < AHEAD:
            number = self._numbers.popleft()
            self._under_way.append((number, await self._transfer.request(self._archive, [number])))
        if not self._under_way:
            self.begun, self._held = self._held, None
            return None
        number, answer = self._under_way.popleft()
        await answer.complete.wait()
        return await self._world.threads.run(lambda: self._open(number, answer))

    def _open(self, number: int, answer: Answer) -> ManifestPiece:
        try:
            plaintext = open_one(answer, self._codec, number, BlockKind.MANIFEST)
            return ManifestPiece(number, self._joined(decode_manifest(plaintext)))
        except (Damaged, ProtocolViolation) as error:
            self._held = None
            return ManifestPiece(number, problem=f"manifest block {number} of archive {self._archive}: {error.message}")

    def _joined(self, stored: list[Entry]) -> list[Entry]:
        """Entries whose ``continued`` pieces are one again."""
        if self._held is None and not any(entry.continued for entry in stored):
            return stored
        entries: list[Entry] = []
        for entry in stored:
            held = self._held
            if held is not None:
                if entry.path != held.path:
                    raise Damaged(f"entry {held.path!r} is continued by {entry.path!r}")
                held.extents.extend(entry.extents)
                if not entry.continued:
                    entries.append(msgspec.structs.replace(entry, extents=held.extents))
                    self._held = None
            elif entry.continued:
                self._held = msgspec.structs.replace(entry, extents=list(entry.extents))
            else:
                entries.append(entry)
        return entries


def open_one(answer: Answer, codec: BlockCodec, number: int, kind: BlockKind) -> bytes:
    """Plaintext of the only block of an answer. Raises ``Damaged``, ``ProtocolViolation``."""
    for header, payload in answer.blocks():
        if header.number != number and number >= 0:
            raise ProtocolViolation(f"block {header.number} came for block {number}")
        if header.kind is not kind:
            raise Damaged(f"block {header.number} is a {header.kind.name}, not a {kind.name}")
        return codec.open_payload(header, payload)
    raise Damaged(f"the daemon cannot read the {kind.name.lower()} block" + (f" {number}" if number >= 0 else ""))


async def read_trailer(transfer: Transfer, world: World, archive: str, codec: BlockCodec) -> Trailer:
    """Raises ``Damaged``, ``ProtocolViolation``."""
    answer = await transfer.fetch_trailer(archive)
    trailer = await world.threads.run(lambda: decode_trailer(open_one(answer, codec, -1, BlockKind.TRAILER)))
    if trailer.archives[0] != archive:
        raise Damaged(f"the trailer of archive {archive} says it is {trailer.archives[0]}")
    return trailer
