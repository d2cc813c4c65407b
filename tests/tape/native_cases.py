"""What the tests of cartridge sessions share: a loaded drive, archives of blocks that follow from a seed, and backing up as the layers above do it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from drivers.scsi.changer import Changer, ElementType
from drivers.scsi.drive import Drive
from drivers.tape.identify import identify
from drivers.tape.native import NativeSession, label_native, open_native
from rbcore.archive.block import BlockCodec
from rbcore.archive.model import BlockKind
from rbcore.scsi import ScsiResult, ScsiTransport
from rbcore.tape.session import ArchiveInfo, CartridgeSession, LabelOrder, PartPlace, PartStart

ROOT = bytes(range(32))
INFO = ArchiveInfo(client="host.example", resource="/srv", backup_type="full", crypto="nocrypt", created_ns=5)


def order(tag: str = "RB0001L9", seed: int = 1) -> LabelOrder:
    return LabelOrder(
        volume_tag=tag,
        pool="Tapes",
        server="server-1",
        software="rbmedia test",
        cartridge=random.Random(seed).randbytes(16),
        created_ns=7,
    )


def archive_id(number: int) -> bytes:
    return number.to_bytes(16, "little")


def sealed(archive: bytes, sizes: Sequence[int], *, first: int = 0, seed: int = 1) -> dict[int, bytes]:
    """Blocks by number; numbers have gaps."""
    codec = BlockCodec(archive)
    source = random.Random(seed)
    return {
        number: bytes(codec.seal(BlockKind.PAYLOAD, number, source.randbytes(size)))
        for number, size in zip(range(first, first + 2 * len(sizes), 2), sizes, strict=True)
    }


def start(archive: bytes, **fields: object) -> PartStart:
    return PartStart(archive=archive, info=INFO, **{"part": 1, **fields})  # type: ignore[arg-type]


async def put_in(
    changer_transport: ScsiTransport, drive_transport: ScsiTransport, cartridge: int = 0, drive_number: int = 0
) -> Drive:
    """The drive with the cartridge of that slot in it, at its beginning."""
    changer = Changer(changer_transport)
    await changer.wait_ready(60)
    parts = await changer.element_addresses()
    await changer.move(parts[ElementType.STORAGE].first + cartridge, parts[ElementType.DRIVE].first + drive_number)
    drive = Drive(drive_transport)
    await drive.probe()
    await drive.load()
    return drive


async def put_back(changer_transport: ScsiTransport, drive: Drive, cartridge: int = 0, drive_number: int = 0) -> None:
    await drive.unload()
    changer = Changer(changer_transport)
    parts = await changer.element_addresses()
    await changer.move(parts[ElementType.DRIVE].first + drive_number, parts[ElementType.STORAGE].first + cartridge)


async def fresh(drive: Drive, tag: str = "RB0001L9", *, seed: int = 1, **more: int) -> NativeSession:
    return await label_native(drive, order(tag, seed), await identify(drive), **more)


async def reopened(drive: Drive, **more: int) -> NativeSession:
    return await open_native(drive, await identify(drive), **more)


async def store(session: CartridgeSession, archive: bytes, blocks: dict[int, bytes]) -> PartPlace:
    """One archive that fits."""
    await session.begin_part(start(archive))
    written = await session.write(list(blocks.values()))
    assert not written.full
    place = await session.finish_part(root=ROOT, ended_ns=9)
    assert place is not None
    assert (place.blocks, place.final) == (len(blocks), True)
    return place


async def check(session: CartridgeSession, archive: bytes, place: PartPlace, blocks: dict[int, bytes]) -> None:
    """All of it, in ascending order."""
    reader = session.reader(archive, place)
    index = await reader.index()
    assert [row.block for row in index] == list(blocks)
    assert [row.length for row in index] == [len(block) for block in blocks.values()]
    for number, block in blocks.items():
        assert await reader.read([number]) == block, number


@dataclass
class Counted:
    """A transport that counts commands by operation code."""

    inner: ScsiTransport
    name: str = "counted"
    commands: dict[int, int] = field(default_factory=dict)

    async def execute(
        self, cdb: bytes, *, send: bytes | memoryview = b"", receive_bytes: int = 0, timeout_seconds: float
    ) -> ScsiResult:
        self.commands[cdb[0]] = self.commands.get(cdb[0], 0) + 1
        return await self.inner.execute(cdb, send=send, receive_bytes=receive_bytes, timeout_seconds=timeout_seconds)

    async def aclose(self) -> None:
        await self.inner.aclose()
