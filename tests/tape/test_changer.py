"""The changer's commands, against every library: what lies where, moves, and what is refused and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.scsi.changer import Changer, Element, ElementRange, ElementType, pair_drives, parse_element_status
from drivers.scsi.unit import LogicalUnit
from rbcore import errors
from tests.tape.libraries import LibraryUnderTest


async def opened(library: LibraryUnderTest) -> tuple[Changer, dict[ElementType, ElementRange]]:
    changer = Changer(library.changer)
    await changer.wait_ready(60)
    return changer, await changer.element_addresses()


async def occupied(changer: Changer) -> dict[int, str]:
    return {element.address: element.volume_tag for element in await changer.elements() if element.full}


async def test_it_says_who_it_is(library: LibraryUnderTest) -> None:
    changer, _ = await opened(library)
    identity = await changer.identity()
    assert identity.device_type == 8
    assert identity.vendor
    assert identity.serial


async def test_it_knows_its_drives_luns(library: LibraryUnderTest) -> None:
    changer, _ = await opened(library)
    luns = await changer.report_luns()
    assert len(set(luns)) == len(luns) >= 1 + len(library.drives)


async def test_elements_and_their_cartridges(library: LibraryUnderTest) -> None:
    changer, parts = await opened(library)
    await changer.initialize_element_status()
    await changer.initialize_element_status(ElementRange(parts[ElementType.STORAGE].first, 2))
    elements = await changer.elements()
    assert [element.address for element in elements if element.type is ElementType.STORAGE] == list(
        range(parts[ElementType.STORAGE].first, parts[ElementType.STORAGE].first + parts[ElementType.STORAGE].count)
    )
    assert len({element.address for element in elements}) == sum(part.count for part in parts.values())
    first = parts[ElementType.STORAGE].first
    by_address = {element.address: element for element in elements}
    for number, barcode in enumerate(library.barcodes):
        assert by_address[first + number].full
        assert by_address[first + number].volume_tag == barcode
    for element in elements:
        assert element.volume_tag == "" or element.full
        assert not element.exception


async def test_drives_are_paired_by_their_serial_numbers(library: LibraryUnderTest) -> None:
    changer, parts = await opened(library)
    elements = await changer.element_status(ElementType.DRIVE, parts[ElementType.DRIVE])
    identities = [await LogicalUnit(transport).identity() for transport in library.drives]
    assert all(identity.serial for identity in identities)
    assert pair_drives(elements, identities) == {element.address: index for index, element in enumerate(elements)}
    assert pair_drives(elements, identities[::-1]) == {
        element.address: len(elements) - 1 - index for index, element in enumerate(elements)
    }


@pytest.mark.parametrize("report_bytes", [256, 300, 4096])
async def test_short_reports_are_read_in_pages(library: LibraryUnderTest, report_bytes: int) -> None:
    changer, parts = await opened(library)
    part = parts[ElementType.STORAGE]
    whole = await changer.element_status(ElementType.STORAGE, part)
    assert len(whole) == part.count
    assert await changer.element_status(ElementType.STORAGE, part, report_bytes_max=report_bytes) == whole


async def test_a_cartridge_goes_round(library: LibraryUnderTest) -> None:
    changer, parts = await opened(library)
    home = parts[ElementType.STORAGE].first
    barcode = library.barcodes[0]
    drives, mailbox = parts[ElementType.DRIVE].first, parts[ElementType.IMPORT_EXPORT].first
    others = {address: tag for address, tag in (await occupied(changer)).items() if tag != barcode}
    for source, destination in ((home, drives), (drives, drives + 1), (drives + 1, mailbox), (mailbox, home)):
        if source in parts[ElementType.DRIVE]:
            await LogicalUnit(library.drives[source - drives]).command(bytes([0x1B, 0, 0, 0, 0, 0]), "unload")
        await changer.move(source, destination)
        assert await occupied(changer) == others | {destination: barcode}
    back = await changer.element(ElementType.STORAGE, home)
    assert back.volume_tag == barcode


async def test_a_loaded_drive_says_where_its_cartridge_came_from(library: LibraryUnderTest) -> None:
    changer, parts = await opened(library)
    home, drive = parts[ElementType.STORAGE].first, parts[ElementType.DRIVE].first
    await changer.move(home, drive)
    element = await changer.element(ElementType.DRIVE, drive)
    assert (element.full, element.source) == (True, home)
    assert not (await changer.element(ElementType.STORAGE, home)).full


async def test_refused_moves_say_why_and_change_nothing(library: LibraryUnderTest) -> None:
    changer, parts = await opened(library)
    slots, drive = parts[ElementType.STORAGE], parts[ElementType.DRIVE].first
    before = await occupied(changer)
    empty = next(address for address in range(slots.first, slots.first + slots.count) if address not in before)
    with pytest.raises(errors.ElementEmpty, match="synchronise"):
        await changer.move(empty, drive)
    with pytest.raises(errors.ElementFull, match="synchronise"):
        await changer.move(slots.first, slots.first + 1)
    with pytest.raises(errors.UnknownElement):
        await changer.move(slots.first, 60000)
    with pytest.raises(errors.UnknownElement):
        await changer.element(ElementType.STORAGE, 60000)
    assert await occupied(changer) == before


async def test_a_locked_cartridge_stays(library: LibraryUnderTest) -> None:
    changer, parts = await opened(library)
    home, element = parts[ElementType.STORAGE].first, parts[ElementType.DRIVE].first
    await changer.move(home, element)
    drive = LogicalUnit(library.drives[0])
    await drive.wait_ready(60)
    await drive.prevent_removal(True)
    with pytest.raises(errors.RemovalPrevented):
        await changer.move(element, home)
    await drive.prevent_removal(False)
    await drive.command(bytes([0x1B, 0, 0, 0, 0, 0]), "unload")
    await changer.move(element, home)


async def test_what_is_not_there_is_found_out(library: LibraryUnderTest) -> None:
    """EXCHANGE and POSITION are optional: either they work, or the error says that the device has no such command."""
    changer, parts = await opened(library)
    slots = parts[ElementType.STORAGE]
    await changer.find_commands()
    before = await occupied(changer)
    empty = next(address for address in range(slots.first, slots.first + slots.count) if address not in before)
    try:
        await changer.exchange(slots.first, slots.first + 1, empty)
    except errors.UnsupportedByDevice:
        assert changer.lacks(0xA6)
        assert await occupied(changer) == before
    else:
        moved = await occupied(changer)
        assert (moved[slots.first + 1], moved[empty]) == (before[slots.first], before[slots.first + 1])
    try:
        await changer.position(slots.first)
    except errors.UnsupportedByDevice:
        assert changer.lacks(0x2B)


@given(st.binary(max_size=400))
def test_no_report_does_harm(report: bytes) -> None:
    for element in parse_element_status(report):
        assert isinstance(element, Element)


@given(st.binary(min_size=8, max_size=400), st.integers(1, 4), st.integers(0, 255), st.integers(0, 200))
def test_no_page_does_harm(body: bytes, kind: int, flags: int, length: int) -> None:
    page = bytes([kind, flags, 0, length, 0]) + len(body).to_bytes(3, "big") + body
    report = bytes(5) + len(page).to_bytes(3, "big") + page
    for element in parse_element_status(report):
        assert element.type == kind
