"""The port of block devices: what a disk, a logical unit or a partition says of itself. Implemented in ``drivers/block_device.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class BlockDeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A block device that is there, can be written, and is used by nobody else now."""

    real_path: str
    """Where links lead: ``/dev/sdb`` for ``/dev/disk/by-id/...``. May differ after the next start of the host."""
    size_bytes: int
    contents: list[str]
    """What stands on it by its signatures: ``ext4 file system 'data'``, ``gpt partition table``. Empty: nothing that is known."""
    same_as: list[str]
    """Of the devices that were named along with it, those that are the same disk, or a part of it, or that it is a part of."""


class BlockDevices(Protocol):
    """The block devices of this host."""

    async def look(self, path: str, known: Sequence[str] = ()) -> BlockDeviceFacts:
        """Ask a device. Nothing is written to it.

        Raises ``InvalidRequest`` with a sentence when it is not there, is no block device, has no medium, is read only, or is in use (mounted,
        swap, a member of a RAID or a volume group); ``Unavailable`` when it cannot be asked.
        """
