"""What happens to tape libraries, with the real daemon: each misfortune has a stated outcome and a sentence that says what to do.

Most of it happens to the simulated library, which takes every fault; what can be done to ``tgtd`` is done to it, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from drivers.scsi.changer import Changer
from drivers.scsi.drive import Drive, Found
from drivers.scsi.iscsi import IscsiTransport
from rbcore.vocabulary import PoolType
from rbmedia.compare import describe
from rbmedia.loopback_library import DRIVES
from tests.end_to_end.installation import until
from tests.end_to_end.tape_installation import (
    SIMULATED,
    SLOTS,
    TARGETED,
    SimulatedProcess,
    TapeInstallation,
    assert_same,
    noise,
    tape_installation,
)

CARTRIDGES = 24
FOREIGN = [b"somebody's payroll " * 1000, b"of 1999 " * 2000]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TapeInstallation]:
    """The simulated library; each test has its own pool, cartridges and tree, and mends what it breaks."""
    with tape_installation(tmp_path_factory.mktemp("luck"), SIMULATED, cartridges=CARTRIDGES) as installation:
        yield installation


@pytest.fixture
def mended(site: TapeInstallation) -> Iterator[None]:
    """A test that fails with something broken does not take the others with it."""
    yield
    for line in ("clear_jam", "mend", "reset_drive 0", "reset_drive 1"):
        site.library.fault(line)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TapeInstallation]:
    with tape_installation(tmp_path_factory.mktemp("target"), TARGETED, cartridges=6) as installation:
        yield installation


def slot_of(tag: str) -> int:
    return SLOTS + int(tag[2:6]) - 1


async def _write_foreign(site: TapeInstallation, tag: str) -> None:
    changer, drive = (
        Changer(IscsiTransport(site.library.changer_url)),
        Drive(IscsiTransport(site.library.drive_url(0))),
    )
    await changer.move(slot_of(tag), DRIVES)
    await drive.load()
    for record in FOREIGN:
        await drive.write(record)
    await drive.write_filemarks(1)
    await drive.unload()
    await changer.move(DRIVES, slot_of(tag))
    await drive.aclose()
    await changer.aclose()


async def _read_foreign(site: TapeInstallation, tag: str) -> list[bytes]:
    changer, drive = (
        Changer(IscsiTransport(site.library.changer_url)),
        Drive(IscsiTransport(site.library.drive_url(0))),
    )
    await changer.move(slot_of(tag), DRIVES)
    await drive.load()
    await drive.rewind()
    found = []
    while (result := await drive.read(1 << 21)).found is Found.BLOCK:
        found.append(result.data)
    await drive.unload()
    await changer.move(DRIVES, slot_of(tag))
    await drive.aclose()
    await changer.aclose()
    return found


# --- cartridges --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["site", "target"])
def test_a_foreign_cartridge_is_not_overwritten(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    site: TapeInstallation = request.getfixturevalue(which)
    foreign, good = site.make_pool("foreign", 2)
    site.empty_drives()
    trio.run(_write_foreign, site, foreign)
    tree = noise(tmp_path / "tree", [1])
    task = site.queue_backup(tree, "foreign")
    assert site.pushed(task)["status"] == "Done"
    (number,) = [one["id"] for one in site.rest.rows("/repository", filter_data=f'task_id="{task}"')]
    assert site.tags_of(number) == [good]
    row = site.cartridge(foreign)
    assert row["status"] == "Quarantined", row
    assert "foreign" in row["status_reason"] or "not" in row["status_reason"], row
    site.restores_identical(number, describe(tree))
    site.empty_drives()
    assert trio.run(_read_foreign, site, foreign) == FOREIGN


def test_a_write_protected_cartridge_is_named(site: TapeInstallation, tmp_path: Path) -> None:
    (tag,) = site.make_pool("protected", 1)
    site.library.fault(f"write_protect {tag}")
    task = site.queue_backup(noise(tmp_path / "tree", [1]), "protected")
    reason = site.becomes(task, "Suspended")["status_reason"]
    assert tag in reason, reason
    assert "write protected" in reason, reason
    site.library.fault(f"write_protect {tag} protected=no")
    assert site.order("format_cartridge", tag, as_list=True)["status"] == "Done"
    number = site.backup_of(int(site.pushed(task)["id"]))
    assert site.tags_of(number) == [tag]


def test_swapped_cartridges_are_found_out_and_found_again(site: TapeInstallation, tmp_path: Path) -> None:
    (one,) = site.make_pool("one", 1)
    (other,) = site.make_pool("other", 1)
    first, second = noise(tmp_path / "first", [1], seed=1), noise(tmp_path / "second", [1], seed=2)
    backups = [(site.back_up(first, "one"), first), (site.back_up(second, "other"), second)]
    site.empty_drives()
    places = [site.element_of(tag)["number"] for tag in (one, other)]
    site.library.fault(f"swap {places[0]} {places[1]} noticed=no")
    task, target = site.queue_restore(backups[0][0])
    reason = site.becomes(task, "Suspended")["status_reason"]
    assert one in reason, reason
    site.synchronise()
    site.pushed(task)
    assert_same(describe(first), target)
    for number, tree in backups:
        site.restores_identical(number, describe(tree))


def test_a_spoiled_record_costs_one_file_and_is_named(site: TapeInstallation, tmp_path: Path) -> None:
    (tag,) = site.make_pool("spoiled", 1)
    tree = noise(tmp_path / "tree", [2, 2, 2, 2])
    wanted = describe(tree)
    number = site.back_up(tree, "spoiled")
    site.empty_drives()
    assert isinstance(site.library, SimulatedProcess)
    records = site.library.records_of(tag)
    site.library.fault(f"spoil_record {tag} {records[len(records) // 2]}")
    task, target = site.queue_restore(number)
    row = site.pushed(task)
    assert row["status"] == "Error", row
    found = describe(target)
    damaged = [
        name
        for name, entry in wanted.entries.items()
        if name not in found.entries or found.entries[name].digest != entry.digest
    ]
    assert 0 < len(damaged) < 4, damaged
    journal = [str(one) for one in site.rest.rows("/client_task_info", id=task)]
    for name in damaged:
        assert any(name.decode() in line for line in journal), (damaged, journal)
    verification = site.pushed(site.queue_verification(number))
    assert site.rest.get(f"/repository/{number}")["verification_status"] == "Broken", verification
    assert "block" in verification["status_reason"], verification


# --- drives and robots -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_type", [PoolType.TAPE_NATIVE, PoolType.TAPE_LTFS])
def test_a_drive_dies_in_the_middle_of_a_backup(site: TapeInstallation, tmp_path: Path, pool_type: str) -> None:
    pool = f"dying {pool_type}"
    site.make_pool(pool, 2, pool_type)
    site.empty_drives()
    tree = noise(tmp_path / "tree", [4, 4, 4])
    before = site.drives()[0]["failures"]
    site.library.fault("kill_drive 0 after_records=6")
    task = site.queue_backup(tree, pool)
    assert site.pushed(task)["status"] == "Done"
    number = site.backup_of(task)
    assert site.drives()[0]["failures"] > before or site.drives()[0]["status"] in ("offline", "error"), site.drives()
    site.library.fault("reset_drive 0")
    site.synchronise()
    until(lambda: site.drives()[0]["status"] in ("free", "busy"), f"the drive does not come back: {site.story()}")
    site.restores_identical(number, describe(tree))


@pytest.mark.parametrize("in_hand", ["yes", "no"])
def test_a_jammed_robot_is_cleared_and_work_goes_on(
    site: TapeInstallation, mended: None, tmp_path: Path, in_hand: str
) -> None:
    (tag,) = site.make_pool(f"jammed {in_hand}", 1)
    site.empty_drives()
    tree = noise(tmp_path / "tree", [1])
    site.library.fault(f"jam_next_move in_hand={in_hand}")
    task = site.queue_backup(tree, f"jammed {in_hand}")
    until(lambda: "jam" in site.library.fault("status"), "the robot did not move")
    if in_hand == "yes":
        reason = site.becomes(task, "Suspended")["status_reason"]
        assert f"robot holds cartridge {tag}" in reason, reason
        assert site.rest.get("/tape_libraries/1")["status"] != "Online"
    site.library.fault("clear_jam")
    site.synchronise()
    assert site.pushed(task)["status"] == "Done"
    site.restores_identical(site.backup_of(task), describe(tree))


def test_a_drive_is_cleaned(site: TapeInstallation) -> None:
    home = site.element_of("CLN001L9")["number"]
    site.library.fault("require_cleaning 1")
    drive = site.drives()[1]
    answer = site.rest.call("PATCH", f"/library_tape_drives/{drive['id']}/clean")
    task = site.tape_task(answer.data["task_id"])
    assert task["status"] == "Done", task
    after = site.drives()[1]
    assert after["last_cleaned"]
    assert after["status"] == "free"
    assert site.element_of("CLN001L9")["number"] == home


def test_a_connection_is_cut_in_the_middle_of_a_backup(site: TapeInstallation, tmp_path: Path) -> None:
    site.make_pool("cut", 3)
    tree = noise(tmp_path / "tree", [9, 9, 9])
    task = site.queue_backup(tree, "cut")
    until(lambda: site.task(task)["status"] in ("Transmission", "Done"), "it does not begin")
    site.library.fault("cut")
    site.library.fault("mend")
    site.synchronise()
    assert site.pushed(task)["status"] == "Done"
    site.restores_identical(site.backup_of(task), describe(tree))
