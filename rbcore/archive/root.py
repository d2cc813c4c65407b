"""The root: 32 bytes that stand for a whole archive. ``docs/format.md``, "Root".

A chain rather than one hash over everything: the value after each block is a fixed 32 bytes, so a transfer that was
interrupted goes on from the value at its last durable block, and neither side needs the earlier headers again.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from rbcore.archive.block import ROOTED_BYTES, BlockHeader, Buffer
from rbcore.errors import ProtocolViolation

_DOMAIN: Final = "rbmedia archive root v1"


class RootHasher:
    """Takes headers in ascending block order."""

    __slots__ = ("_last", "_value")

    def __init__(self, archive_id: bytes, *, resume: bytes | None = None, last_block: int = -1) -> None:
        """``resume``: ``value`` after ``last_block`` of an interrupted transfer."""
        self._value: bytes = (
            blake3(archive_id, derive_key_context=_DOMAIN).digest() if resume is None else bytes(resume)
        )
        if len(self._value) != 32:
            raise ProtocolViolation(f"a root has 32 bytes, not {len(self._value)}")
        self._last = last_block

    @property
    def value(self) -> bytes:
        """The root of the archive if the last header added is its trailer's; before that, where the chain stands."""
        return self._value

    @property
    def last_block(self) -> int:
        return self._last

    def add(self, header: BlockHeader) -> None:
        """Raises ``ProtocolViolation`` when the number does not ascend."""
        if header.number <= self._last:
            raise ProtocolViolation(f"block {header.number} after block {self._last}: numbers must ascend")
        self._last = header.number
        self._value = blake3(header.raw[:ROOTED_BYTES], key=self._value).digest()

    def add_block(self, block: Buffer) -> None:
        """The same for a block that this side sealed itself (``BlockCodec.seal``): its header needs no check."""
        view = memoryview(block)
        number = int.from_bytes(view[8:16], "little")
        if number <= self._last:
            raise ProtocolViolation(f"block {number} after block {self._last}: numbers must ascend")
        self._last = number
        self._value = blake3(view[:ROOTED_BYTES], key=self._value).digest()
