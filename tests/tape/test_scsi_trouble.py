"""What goes wrong with changers and drives comes out as the error that says what to do, and nobody goes on with a wrong position."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from drivers.scsi.changer import Changer, ElementType
from drivers.scsi.drive import Drive, Found
from drivers.scsi.drive_pages import REST_OF_TAPE, Attribute
from drivers.scsi.sense import Attention
from drivers.scsi.unit import BUSY_SECONDS_MAX, LogicalUnit
from drivers.simulated.tape import NO_DELAY, Mechanics, SimulatedLibrary
from rbcore import errors
from rbcore.scsi import ScsiResult

BARCODE = "TR0001L9"


def simulated(mechanics: Mechanics = NO_DELAY) -> SimulatedLibrary:
    library = SimulatedLibrary(mechanics=mechanics, capacity_factor=2e-6)
    library.add_cartridge(BARCODE)
    library.add_cartridge("TR0002L9")
    return library


async def loaded(library: SimulatedLibrary) -> tuple[Changer, Drive, int, int]:
    """With the addresses of its slot and of the drive's element."""
    changer, drive = Changer(library.changer), Drive(library.drives[0])
    await changer.wait_ready(600)
    parts = await changer.element_addresses()
    home, element = parts[ElementType.STORAGE].first, parts[ElementType.DRIVE].first
    await changer.move(home, element)
    await drive.load()
    return changer, drive, home, element


async def test_a_loading_drive_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated(Mechanics())
    changer = Changer(library.changer)
    await changer.wait_ready(600)
    parts = await changer.element_addresses()
    await changer.move(parts[ElementType.STORAGE].first, parts[ElementType.DRIVE].first)
    drive = Drive(library.drives[0])
    sense = await drive.not_ready_because()
    assert sense is not None
    with pytest.raises(errors.DeviceNotReady, match="wait"):
        await drive.wait_ready(1)
    await drive.wait_ready(7200)
    assert Attention.MEDIUM_CHANGED in [sense.attention for sense in drive.take_attentions()]


async def test_a_protected_cartridge(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated()
    library.faults.write_protect(BARCODE)
    _, drive, _, _ = await loaded(library)
    assert await drive.is_write_protected()
    with pytest.raises(errors.WriteProtected, match="switch"):
        await drive.write(b"x")


async def test_an_unreadable_block_is_passed_by_locating(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated()
    _, drive, _, _ = await loaded(library)
    for number in range(4):
        await drive.write(b"block %d" % number)
    await drive.flush()
    library.faults.spoil_record(BARCODE, 1)
    await drive.rewind()
    await drive.read(100)
    with pytest.raises(errors.MediumFailed, match="another drive"):
        await drive.read(100)
    await drive.locate(2)
    assert (await drive.read(100)).data == b"block 2"


async def test_a_reset_between_two_writes_is_not_written_over(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated()
    _, drive, _, _ = await loaded(library)
    await drive.write(b"one")
    await drive.flush()
    library.faults.reset_bus()
    for _ in range(2):
        with pytest.raises(errors.PositionLost):
            await drive.write(b"two")
    await drive.locate(1)
    await drive.write(b"two")
    await drive.rewind()
    assert [(await drive.read(100)).data for _ in range(2)] == [b"one", b"two"]


async def test_a_cut_connection_loses_the_position(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated()
    _, drive, _, _ = await loaded(library)
    await drive.write(b"one")
    library.faults.cut()
    with pytest.raises(errors.Unavailable):
        await drive.write(b"two")
    assert drive.counted_position is None
    library.faults.mend()
    with pytest.raises(errors.PositionLost):
        await drive.write(b"two")
    await drive.rewind()
    assert (await drive.read(100)).data == b"one"


async def test_a_jammed_robot(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated()
    changer, drive, home, element = await loaded(library)
    await drive.unload()
    library.faults.jam_robot()
    with pytest.raises(errors.HardwareFailed, match="display"):
        await changer.move(element, home)
    library.faults.clear_jam()
    await changer.wait_ready(600)
    await changer.move(element, home)


async def test_hands_in_the_library_are_noticed(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated()
    changer = Changer(library.changer)
    await changer.wait_ready(600)
    changer.take_attentions()
    parts = await changer.element_addresses()
    library.faults.take_out(parts[ElementType.STORAGE].first)
    assert not (await changer.element(ElementType.STORAGE, parts[ElementType.STORAGE].first)).full
    assert [sense.attention for sense in changer.take_attentions()] == [Attention.MEDIUM_CHANGED]
    assert changer.take_attentions() == []


async def test_alerts_and_statistics(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated()
    _, drive, _, _ = await loaded(library)
    library.faults.require_cleaning(0)
    assert 20 in await drive.tape_alerts()
    assert (await drive.volume_statistics()).loads == 1


async def test_the_cartridges_memory(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated()
    changer, drive, home, element = await loaded(library)
    label = Attribute(0x0803, b"monthly".ljust(160, b"\0"), 2)
    await drive.write_attributes([Attribute(0x0800, b"RBMEDIA ", 1), label])
    await drive.unload()
    await changer.move(element, home)
    await changer.move(home, element + 1)
    other = Drive(library.drives[1])
    await other.load()
    found = {attribute.identifier: attribute for attribute in await other.read_attributes()}
    assert found[0x0800].value == b"RBMEDIA "
    assert found[0x0803].value.rstrip(b"\0") == b"monthly"
    with pytest.raises(errors.RefusedByDevice):
        await other.write_attributes([Attribute(0x0000, bytes(8), 0)])
    await other.write_attributes([Attribute(0x0800, b"", 1)])
    assert 0x0800 not in {attribute.identifier for attribute in await other.read_attributes()}


async def test_a_long_erase_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    library = simulated(Mechanics())
    _, drive, _, _ = await loaded(library)
    await drive.write(b"old")
    assert await drive.erase(long=True)
    assert (await drive.read(100)).found is Found.END_OF_DATA


class Scripted:
    """A transport that answers as told, then GOOD."""

    name = "scripted"

    def __init__(self, *answers: ScsiResult) -> None:
        self.answers = list(answers)
        self.commands: list[bytes] = []
        self.sent: list[bytes] = []

    async def execute(
        self, cdb: bytes, *, send: bytes | memoryview = b"", receive_bytes: int = 0, timeout_seconds: float
    ) -> ScsiResult:
        await trio.lowlevel.checkpoint()
        self.commands.append(cdb)
        self.sent.append(bytes(send))
        return self.answers.pop(0) if self.answers else ScsiResult(status=0)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def answer(data: bytes) -> ScsiResult:
    return ScsiResult(status=0, data=data)


async def test_encryption_pages_byte_for_byte() -> None:
    """After SSC-5 8.5; no device here has them."""
    algorithm = bytes([1, 0, 0, 20, 0x8A, 0, 0, 32, 0, 16, 0, 32]) + bytes(8) + (0x00010014).to_bytes(4, "big")
    capabilities = bytes([0, 0x10, 0, 16 + 24]) + bytes(16) + algorithm
    status = bytes([0, 0x20, 0, 20, 0x42, 2, 2, 1, 0, 0, 0, 7]) + bytes(12)
    transport = Scripted(answer(capabilities), answer(status))
    drive = Drive(transport)
    assert await drive.encryption_algorithms() == {1: 32}
    found = await drive.encryption_status()
    assert (found.encrypts, found.decrypts, found.algorithm_index, found.key_instance) == (True, True, 1, 7)
    assert [cdb[:4].hex() for cdb in transport.commands] == ["a2200010", "a2200020"]
    key = bytes(range(32))
    await drive.set_encryption(key)
    await drive.set_encryption(None)
    assert transport.commands[2].hex() == "b52000100000" + "00000034" + "0000"
    assert transport.sent[2] == bytes([0, 0x10, 0, 48, 0x40, 0, 2, 2, 1, 0, 0]) + bytes(7) + bytes([0, 32]) + key
    assert transport.sent[3] == bytes([0, 0x10, 0, 16, 0x40, 0, 0, 0, 1, 0, 0]) + bytes(7) + bytes([0, 0])


async def test_partition_page_byte_for_byte() -> None:
    """Mode page 11h keeps what it does not set; the sizes are in gigabytes."""
    page = bytes([0x11, 0x0A, 3, 0, 0x1C, 3, 9, 0, 0, 0, 0, 0])
    sense = ScsiResult(status=0, data=bytes([15, 0x46, 0x10, 0]) + page)
    header = ScsiResult(status=0, data=bytes([23, 0x46, 0x10, 8, 0x5E, 0, 0, 0, 0, 0, 0, 0]) + page)
    transport = Scripted(ScsiResult(status=0), sense, header)
    await Drive(transport).format_medium([2, 0xFFFF])
    expected = bytes([0, 0, 0x10, 8, 0x5E, 0, 0, 0, 0, 0, 0, 0]) + bytes(
        [0x11, 10, 3, 1, 0x3C, 3, 9, 0, 0, 2, 0xFF, 0xFF]
    )
    assert transport.sent[3] == expected
    assert transport.commands[4].hex() == "040001000000"


def check(key: int, asc: int = 0, ascq: int = 0, *, code: int = 0x70) -> ScsiResult:
    return ScsiResult(status=2, sense=bytes([code, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (check(2, 0x3A), errors.NoCartridge),
        (check(2, 0x04, 0x03), errors.DeviceNotReady),
        (check(2, 0x30, 0x03), errors.DeviceNotReady),
        (check(3, 0x11), errors.MediumFailed),
        (check(4, 0x44), errors.HardwareFailed),
        (check(5, 0x20), errors.UnsupportedByDevice),
        (check(5, 0x24), errors.RefusedByDevice),
        (check(5, 0x21, 0x01), errors.UnknownElement),
        (check(5, 0x3B, 0x0D), errors.ElementFull),
        (check(5, 0x3B, 0x0E), errors.ElementEmpty),
        (check(5, 0x53, 0x02), errors.RemovalPrevented),
        (check(7, 0x27), errors.WriteProtected),
        (check(7, 0x74, 0x03), errors.WriteProtected),
        (check(8, 0x00, 0x05), errors.MediumFailed),
        (check(0xB, 0x4E), errors.HardwareFailed),
        (check(0xD, 0x00, 0x02), errors.EndOfMedium),
        (check(3, 0x0C, code=0x71), errors.MediumFailed),
        (check(4, 0x44, code=0x71), errors.HardwareFailed),
        (ScsiResult(status=2, sense=b""), errors.HardwareFailed),
        (ScsiResult(status=0x18), errors.ReservedByAnother),
        (ScsiResult(status=0x40), errors.HardwareFailed),
        (ScsiResult(status=0x30), errors.HardwareFailed),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
async def test_every_failure_is_an_error_with_an_address(answer: ScsiResult, kind: type[errors.RbError]) -> None:
    with pytest.raises(errors.RbError) as caught:
        await LogicalUnit(Scripted(answer)).command(bytes(6), "try")
    assert type(caught.value) is kind
    assert caught.value.message.startswith("scripted")
    crossed = errors.Failure.of(caught.value).to_error()
    assert (type(crossed), crossed.data) == (kind, caught.value.data)


async def test_recovered_errors_and_notes_are_successes() -> None:
    for answer in (check(1, 0x18), check(0, 0x00, 0x17), check(1, 0x00, 0x17)):
        unit = LogicalUnit(Scripted(answer))
        assert (await unit.command(bytes(6), "try")).sense.key in (0, 1)
        assert unit.cleaning_required == (answer.sense[13] == 0x17)


async def test_unit_attentions_repeat_the_command_and_are_kept() -> None:
    transport = Scripted(check(6, 0x29), check(6, 0x28), check(6, 0x2A, 0x01))
    unit = LogicalUnit(transport)
    await unit.command(bytes(6), "try")
    assert len(transport.commands) == 4
    assert [sense.attention for sense in unit.take_attentions()] == [
        Attention.RESET,
        Attention.MEDIUM_CHANGED,
        Attention.PARAMETERS_CHANGED,
    ]
    with pytest.raises(errors.DeviceNotReady):
        await LogicalUnit(Scripted(*[check(6, 0x29)] * 50)).command(bytes(6), "try")


async def test_a_command_that_depends_on_the_position_is_not_repeated_after_a_reset() -> None:
    transport = Scripted(check(6, 0x29))
    with pytest.raises(errors.PositionLost):
        await LogicalUnit(transport).command(bytes(6), "write", needs_position=True)
    assert len(transport.commands) == 1
    harmless = Scripted(check(6, 0x2A, 0x01))
    await LogicalUnit(harmless).command(bytes(6), "write", needs_position=True)
    assert len(harmless.commands) == 2


@pytest.mark.parametrize("status", [0x08, 0x28])
async def test_a_busy_device_is_asked_again_for_a_while(status: int, autojump_clock: trio.testing.MockClock) -> None:
    await LogicalUnit(Scripted(*[ScsiResult(status=status)] * 5)).command(bytes(6), "try")
    started = trio.current_time()
    with pytest.raises(errors.DeviceNotReady, match="busy"):
        await LogicalUnit(Scripted(*[ScsiResult(status=status)] * 9999)).command(bytes(6), "try")
    assert trio.current_time() - started <= BUSY_SECONDS_MAX + 1


@pytest.mark.parametrize(
    "start", [lambda drive: drive.write(b"x"), lambda drive: drive.read(9), lambda drive: drive.write_filemarks(1)]
)
async def test_a_cancelled_command_leaves_the_position_unknown(start: Callable[[Drive], object]) -> None:
    drive = Drive(Scripted())
    await drive.rewind()
    assert drive.counted_position is not None
    with trio.CancelScope() as scope:
        scope.cancel()
        await start(drive)  # type: ignore[misc]
    assert drive.counted_position is None


async def test_a_reset_is_not_overheard_when_a_question_hears_of_it_first() -> None:
    """A tape drive that was reset stands at the beginning: whoever then wrote on would overwrite the label."""
    library = simulated()
    _, drive, _, _ = await loaded(library)
    for _ in range(5):
        await drive.write(b"kept")
    await drive.flush()
    library.faults.reset_drive(0)
    await drive.wait_ready(60)
    assert drive.counted_position is None
    with pytest.raises(errors.PositionLost):
        await drive.write(b"at the beginning")
    assert len(library.cartridge(BARCODE).partitions[0]) == 5


async def test_after_a_reset_the_partition_is_said_again() -> None:
    library = simulated()
    _, drive, _, _ = await loaded(library)
    await drive.format_medium([100, REST_OF_TAPE])
    for partition, content in ((0, b"zero"), (1, b"one")):
        await drive.locate(0, partition)
        await drive.write(content)
        await drive.flush()
    library.faults.reset_drive(0)
    await drive.wait_ready(60)
    await drive.locate(0, 1)
    assert (await drive.read(10)).data == b"one"
