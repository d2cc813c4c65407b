"""Whatever a host sends, a simulated device answers it: with GOOD or with sense, and it still works afterwards."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.simulated.tape import NO_DELAY
from drivers.simulated.tape.changer import SimulatedChanger
from drivers.simulated.tape.drive import SimulatedDrive
from drivers.simulated.tape.elements import ElementAddresses
from drivers.simulated.tape.generations import GENERATIONS
from drivers.simulated.tape.medium import Cartridge
from drivers.simulated.tape.unit import Command, LogicalUnit
from drivers.simulated.volume import SimulatedVolume

LENGTHS = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
ADDRESSES = [0, 1, 2, 256, 768, 1024, 1025, 1026]


def small(draw: st.DrawFn, count: int) -> bytes:
    """Bytes of which most mean something: zeros, small numbers, flags."""
    return bytes(
        draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 8, 16, 255, 254]), min_size=count, max_size=count))
    )


@st.composite
def commands(draw: st.DrawFn, unit: str) -> tuple[bytes, bytes]:
    """A CDB and what is sent with it."""
    known = sorted(made()[unit].handlers)
    opcode = draw(st.one_of(st.sampled_from(known), st.integers(0, 255)))
    cdb = bytes([opcode]) + small(draw, LENGTHS.get(opcode >> 5, 6) - 1)
    if opcode in (0xA5, 0xA6, 0xB8, 0x2B) and unit == "changer":
        numbers = draw(st.lists(st.sampled_from(ADDRESSES), min_size=3, max_size=3))
        cdb = cdb[:2] + b"".join(one.to_bytes(2, "big") for one in numbers) + cdb[8:]
    sent = b""
    if opcode in (0x0A, 0x15, 0x55, 0x8D):
        sent = small(draw, draw(st.integers(0, 40)))
    if opcode == 0x15 and draw(st.booleans()):
        page = draw(st.sampled_from([0x0F, 0x10, 0x11, 0x1C]))
        sent = bytes([0, 0, 0x10, 0, page, 10]) + small(draw, 10)
        cdb = bytes([0x15, 0x10, 0, 0, len(sent), 0])
    return cdb, sent


def made() -> dict[str, LogicalUnit]:
    volume = SimulatedVolume()
    tape = Cartridge.create(volume, "a", barcode="A", generation_number=9, capacity_factor=1e-7)
    other = Cartridge.create(volume, "b", barcode="B", generation_number=9, capacity_factor=1e-7)
    drive = SimulatedDrive(0, GENERATIONS[9], "S", NO_DELAY)
    changer = SimulatedChanger(ElementAddresses(), 3, 1, [drive], "L", NO_DELAY)
    changer.elements[256].put(tape, 0.0)
    changer.elements[1024].put(other, 0.0)
    changer.scan_all()
    return {"changer": changer, "drive": drive}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(*(st.tuples(st.just(unit), commands(unit)) for unit in ("changer", "drive"))), max_size=25))
def test_every_command_is_answered(sequence: list[tuple[str, tuple[bytes, bytes]]]) -> None:
    units = made()
    nexuses = {name: unit.nexus("host") for name, unit in units.items()}
    changer = units["changer"]
    assert isinstance(changer, SimulatedChanger)
    for name, (cdb, sent) in sequence:
        work = units[name].start(Command(nexuses[name], cdb, sent, 0.0), 0 if sent else 1024)
        result = work.finish(0.0) if work.finish is not None else work.result
        assert result.status in (0x00, 0x02)
        assert (result.status == 0x02) == bool(result.sense)
        assert len(result.data) <= 1024
        held = [element.cartridge.card.barcode for element in changer.elements.values() if element.cartridge]
        assert sorted(held) == ["A", "B"]
        for element in changer.elements.values():
            assert element.cartridge is None or element.cartridge.card.element == element.address
