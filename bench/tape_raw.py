"""Raw transfers to a tape drive, one command at a time as the daemon's are."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator

from drivers.scsi.drive import Drive, Found
from drivers.scsi.iscsi import IscsiTransport


@contextlib.asynccontextmanager
async def second_drive(url: str) -> AsyncIterator[Drive]:
    transport = IscsiTransport(url)
    try:
        drive = Drive(transport)
        await drive.probe()
        await drive.load()
        await drive.set_block_bytes(0)
        yield drive
    finally:
        await transport.aclose()


async def raw_write(url: str, size: int, block_bytes: int) -> float:
    """Seconds for blocks from one buffer, with a filemark in the end."""
    block = os.urandom(block_bytes)
    async with second_drive(url) as drive:
        started = time.perf_counter()
        for _ in range(size // block_bytes):
            await drive.write(block)
        await drive.write_filemarks(1)
        return time.perf_counter() - started


async def undo_partitions(url: str) -> None:
    """What a session of LTFS left: raw transfers take the whole cartridge."""
    async with second_drive(url) as drive:
        await drive.format_medium()


async def raw_read(url: str, size: int, block_bytes: int) -> float:
    async with second_drive(url) as drive:
        started = time.perf_counter()
        for _ in range(size // block_bytes):
            result = await drive.read(block_bytes)
            assert (result.found, len(result.data)) == (Found.BLOCK, block_bytes), "what raw_write wrote"
        return time.perf_counter() - started
