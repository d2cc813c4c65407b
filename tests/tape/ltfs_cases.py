"""What the tests of LTFS cartridges share: simulated libraries, sessions, and a hand that writes as another program would."""

from __future__ import annotations

import re

from drivers.scsi.drive import Drive
from drivers.simulated.tape import NO_DELAY, SimulatedLibrary
from drivers.simulated.world import SeededRandomness
from drivers.tape.identify import identify
from drivers.tape.ltfs import LtfsSession, label_ltfs, open_ltfs
from rbcore.tape.session import PartPlace
from tests.tape.ltfs_checker import CheckedVolume, check_volume, objects
from tests.tape.native_cases import archive_id, order, put_in, sealed, store

TAG = "SI0001L9"
BLOCK_BYTES = 524_288
TIME = "2026-01-02T03:04:05.678901234Z"
TIMES = "".join(
    f"<{name}>{TIME}</{name}>" for name in ("creationtime", "changetime", "modifytime", "accesstime", "backuptime")
)


def made(*tags: str, factor: float = 4e-6, seed: int | None = None) -> SimulatedLibrary:
    """An LTO-9 of 72 MB, its index partition of 514 kB."""
    library = SimulatedLibrary(
        mechanics=NO_DELAY, capacity_factor=factor, randomness=None if seed is None else SeededRandomness(seed)
    )
    for tag in tags or (TAG,):
        library.add_cartridge(tag)
    return library


async def loaded(library: SimulatedLibrary, slot: int = 0) -> Drive:
    return await put_in(library.changer, library.drives[0], slot)


async def labelled(drive: Drive, tag: str = TAG, seed: int = 1) -> LtfsSession:
    return await label_ltfs(drive, order(tag, seed), await identify(drive))


async def with_one_archive() -> tuple[SimulatedLibrary, Drive, LtfsSession, dict[int, bytes], PartPlace]:
    """A labelled cartridge in its drive, its session open, with the first archive: two records; its blocks and place."""
    library = made()
    drive = await loaded(library)
    session = await labelled(drive)
    blocks = sealed(archive_id(1), [900_000])
    return library, drive, session, blocks, await store(session, archive_id(1), blocks)


async def reopened(drive: Drive) -> LtfsSession:
    return await open_ltfs(drive, await identify(drive))


async def revived(library: SimulatedLibrary, drive: Drive) -> LtfsSession:
    """After the drive lost its power."""
    library.faults.reset_drive(0)
    await drive.wait_ready(600)
    await drive.load()
    return await reopened(drive)


def checked(library: SimulatedLibrary, tag: str = TAG) -> CheckedVolume:
    return check_volume(library.cartridge(tag))


async def read_all(session: LtfsSession, archive: bytes, place: PartPlace) -> dict[int, bytes]:
    reader = session.reader(archive, place)
    return {row.block: await reader.read([row.block]) for row in await reader.index()}


class OtherProgram:
    """Writes an index and files by hand, onto the tape of a cartridge that no session has open."""

    def __init__(self, library: SimulatedLibrary, tag: str = TAG) -> None:
        self.cartridge = library.cartridge(tag)

    def tape(self, partition: int) -> list[bytes | None]:
        return objects(self.cartridge, partition)

    def replace(self, partition: int, position: int, content: list[bytes | None]) -> None:
        """What stands from ``position`` on."""
        tape = self.cartridge.partitions[partition]
        tape.cut(position)
        for record in content:
            tape.put(len(tape), record)
        tape.flush()
        self.cartridge.card.change_reference += 1

    def last_index(self) -> str:
        """The XML of the data partition's last index; it must be one record long."""
        xml = self.tape(1)[-2]
        assert xml is not None
        return xml.decode()

    def edited(self, xml: str, letter: str, block: int, previous: int, generation: int) -> bytes:
        """The index at another place."""
        place = "<partition>{}</partition><startblock>{}</startblock>"
        xml = re.sub(r"<previousgenerationlocation>.*?</previousgenerationlocation>", "", xml, flags=re.DOTALL)
        xml = re.sub(
            r"<location>.*?</location>",
            f"<location>{place.format(letter, block)}</location>"
            f"<previousgenerationlocation>{place.format('b', previous)}</previousgenerationlocation>",
            xml,
            flags=re.DOTALL,
        )
        return re.sub("<generationnumber>[0-9]+<", f"<generationnumber>{generation}<", xml).encode()

    def write(self, xml: str, *, data: list[bytes], in_index_partition: list[bytes]) -> None:
        """A consistent volume with the tree of ``xml``: records behind the data partition's last index, and from block 4 of the other."""
        end = len(self.tape(1))
        generation = int(re.findall("<generationnumber>([0-9]+)<", xml)[0]) + 1
        previous = int(re.findall("<startblock>([0-9]+)<", xml)[0])
        at = end + len(data) + 1
        self.replace(1, end, [*data, None, self.edited(xml, "b", at, previous, generation), None])
        here = 4 + len(in_index_partition) + 1
        self.replace(0, 4, [*in_index_partition, None, self.edited(xml, "a", here, at, generation), None])
