"""What the tests of ``rbmedia tape scan`` share: real archives on cartridges, a library whose devices have names, and the command on it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from drivers.scsi.changer import Changer, ElementType
from drivers.scsi.drive import Drive
from drivers.world import RealWorld
from rbcore.ports import World
from rbcore.scsi import ScsiResult, ScsiTransport
from rbcore.tape.session import ArchiveInfo, CartridgeSession, PartStart
from rbmedia.cli.shell import Shell
from rbmedia.cli.tape_scan import Devices, Wanted, carry_out
from rbmedia.exits import Exit
from tests.agent.daemon import Host, MemoryDaemon, StoredArchive
from tests.tape.libraries import LibraryUnderTest
from tests.tape.native_cases import fresh, put_back, put_in

CREATED_NS = 1_700_000_000_000_000_000


@dataclass
class Kept:
    """A transport that outlives the command that closes it."""

    inner: ScsiTransport
    name: str
    moves: int = 0

    async def execute(
        self, cdb: bytes, *, send: bytes | memoryview = b"", receive_bytes: int = 0, timeout_seconds: float
    ) -> ScsiResult:
        self.moves += cdb[0] == 0xA5
        return await self.inner.execute(cdb, send=send, receive_bytes=receive_bytes, timeout_seconds=timeout_seconds)

    async def aclose(self) -> None: ...


@dataclass
class Tool:
    """The command on one library. ``changer`` and ``drive0`` are addresses."""

    library: LibraryUnderTest
    capsys: pytest.CaptureFixture[str]
    told: str = field(default="", init=False)
    """stderr of the last run."""

    def __post_init__(self) -> None:
        self.changer = Kept(self.library.changer, "changer")
        self._devices = {f"drive{at}": Kept(one, f"drive{at}") for at, one in enumerate(self.library.drives)}
        self._devices["changer"] = self.changer

    def open(self, address: str, _world: World) -> ScsiTransport:
        return self._devices[address]

    async def run(
        self,
        *,
        drives: Sequence[str] = ("drive0",),
        changer: str = "changer",
        elements: Sequence[int] = (),
        tags: Sequence[str] = (),
        full: bool = False,
        **wanted: Any,
    ) -> tuple[Exit, dict[str, Any]]:
        """Exit code, and what stands on stdout as JSON."""
        devices = Devices(drives=tuple(drives), changer=changer, elements=tuple(elements), tags=tuple(tags), full=full)
        nothing = {
            "restore": "",
            "extract": "",
            "to": None,
            "only": (),
            "keys": None,
            "partly": False,
            "numeric_owner": False,
        }
        self.capsys.readouterr()
        try:
            code = await carry_out(
                Shell(as_json=True), devices, Wanted(**{**nothing, **wanted}), RealWorld(), self.open
            )
        finally:
            output = self.capsys.readouterr()
            self.told = output.err
        return code, json.loads(output.out)

    async def inventory(self) -> dict[int, str]:
        """Element -> bar code of the full ones."""
        changer = Changer(self.library.changer)
        return {one.address: one.volume_tag for one in await changer.elements() if one.full}

    async def slot(self, number: int) -> int:
        return (await Changer(self.library.changer).element_addresses())[ElementType.STORAGE].first + number


class Client:
    """A protected host with archives that are to be put on cartridges."""

    def __init__(self) -> None:
        self.daemon = MemoryDaemon()
        self.host = Host(self.daemon)

    async def backup(self, tree: Path, **more: Any) -> str:
        archive, outcome = await self.host.backup(str(tree), **more)
        assert outcome.outcome == "done", outcome
        return archive

    def stored(self, archive: str) -> StoredArchive:
        return self.daemon.archives[archive]

    def blocks(self, archive: str) -> list[bytes]:
        return [header.raw + payload for header, payload in self.stored(archive).blocks.values()]

    def start(self, archive: str, tree: Path, crypto: str = "nocrypt", kind: str = "full", **more: Any) -> PartStart:
        info = ArchiveInfo(
            client="host.example", resource=str(tree), backup_type=kind, crypto=crypto, created_ns=CREATED_NS
        )
        return PartStart(**{"archive": bytes.fromhex(archive), "part": 1, "info": info, **more})

    def root(self, archive: str) -> bytes:
        commit = self.stored(archive).commit
        assert commit is not None
        return commit.root


async def store_whole(session: CartridgeSession, client: Client, archive: str, start: PartStart) -> None:
    """One archive in one part."""
    await session.begin_part(start)
    written = await session.write(client.blocks(archive))
    assert not written.full
    assert await session.finish_part(root=client.root(archive), ended_ns=CREATED_NS + 1) is not None


async def write_native(
    library: LibraryUnderTest, client: Client, slot: int, archives: Sequence[tuple[str, PartStart]]
) -> None:
    """Archives on the cartridge of a slot, which goes back there."""
    drive = await put_in(library.changer, library.drives[0], slot)
    session = await fresh(drive, library.barcodes[slot], seed=slot + 1)
    for archive, start in archives:
        await store_whole(session, client, archive, start)
    await session.close()
    await put_back(library.changer, drive, slot)


async def _native(drive: Drive, tag: str, seed: int) -> CartridgeSession:
    return await fresh(drive, tag, seed=seed)


async def write_spanned(
    library: LibraryUnderTest,
    client: Client,
    archive: str,
    tree: Path,
    *,
    first_part_blocks: int,
    label: Callable[[Drive, str, int], Awaitable[CartridgeSession]] = _native,
) -> None:
    """The archive on the cartridges of slots 0 and 1."""
    blocks = client.blocks(archive)
    numbers = list(client.stored(archive).blocks)
    tags = library.barcodes
    drive = await put_in(library.changer, library.drives[0], 0)
    session = await label(drive, tags[0], 1)
    await session.begin_part(client.start(archive, tree))
    await session.write(blocks[:first_part_blocks])
    place = await session.end_part(next_tag=tags[1], ended_ns=CREATED_NS + 1)
    cartridge = bytes.fromhex(session.identified.cartridge)
    await session.close()
    await put_back(library.changer, drive, 0)
    drive = await put_in(library.changer, library.drives[0], 1)
    session = await label(drive, tags[1], 2)
    await session.begin_part(
        client.start(
            archive,
            tree,
            part=2,
            first_block=numbers[first_part_blocks],
            blocks_before=first_part_blocks,
            stored_before=place.stored_bytes,
            previous_tag=tags[0],
            previous_cartridge=cartridge,
        )
    )
    await session.write(blocks[first_part_blocks:])
    assert await session.finish_part(root=client.root(archive), ended_ns=CREATED_NS + 2) is not None
    await session.close()
    await put_back(library.changer, drive, 1)


def make_tree(path: Path, *, files: int = 12, large_bytes: int = 3_000_000) -> Path:
    """Some files that do not compress, a large one, a link."""
    (path / "deep" / "er").mkdir(parents=True)
    for number in range(files):
        (path / "deep" / f"file{number:03d}").write_bytes(_noise(number, 40_000))
    (path / "large").write_bytes(_noise(1000, large_bytes))
    (path / "link").symlink_to("large")
    (path / "deep" / "er" / "last").write_text("the last\n")
    return path


def _noise(seed: int, length: int) -> bytes:
    import random

    return random.Random(seed).randbytes(length)
