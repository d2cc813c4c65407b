"""What operators order of a tape library, carried out to its end: labels, checks, erasing, moving, export and import.

Where the target lacks something the order ends with a sentence that says so, and the cartridge is what it was.
"""

from __future__ import annotations

from typing import Any

from tests.httpapi.house import House
from tests.httpapi.shelves import IMPORT_EXPORT, STORAGE
from tests.httpapi.tapes import ON_BOTH, TAGS, add_library, is_over, make_pool, register, rows

pytestmark = ON_BOTH


async def ordered(house: House, verb: str, library: int, tag: str, **more: Any) -> tuple[str, str]:
    """Status and sentence with which the tape task ended."""
    order = {"library_id": library, "volume_tag": tag} | more
    one_at_a_time = verb in ("move_cartridge", "export_cartridge")
    answer = await house.call("PATCH", f"library_slots/{verb}", {"data": order if one_at_a_time else [order]})
    assert answer.status == 200, answer.raw
    (task_id,) = answer.data["tasks_ids"]
    await house.until(lambda: is_over(house, task_id))
    task = (await house.call("GET", f"tl_task_queue/{task_id}")).data
    assert task["ended"] is not None
    return task["status"], task["status_reason"]


async def cartridge_row(house: House, tag: str) -> dict[str, Any]:
    (row,) = [one for one in await rows(house, "tape_cartridges") if one["volume_tag"] == tag]
    found: dict[str, Any] = (await house.call("GET", f"tape_cartridges/{row['id']}")).data
    return found


async def test_a_native_cartridge_is_formatted_checked_and_erased(house: House) -> None:
    library = await add_library(house)
    await house.start_site()
    tag = TAGS[0]
    assert await ordered(house, "format_cartridge", library, tag) == ("Done", f"cartridge {tag} is formatted: native")
    row = await cartridge_row(house, tag)
    assert (row["format"], row["use"], row["status"], row["has_ltfs"]) == ("native", 1, "Scratch", False)
    assert (row["location"], row["load_count"], row["intent"]) == ("storage", 1, "")
    status, said = await ordered(house, "check_ltfs", library, tag)
    assert (status, said.partition(". ")[0]) == ("Done", f"cartridge {tag}: no LTFS volume; it is native")
    status, said = await ordered(house, "erase_cartridge", library, tag)
    how = {"simulated": "by the drive", "target": "by a filemark at its beginning, for the drive has no ERASE"}
    assert (status, said) == ("Done", f"cartridge {tag} is erased {how[house.shelf.name]}")
    row = await cartridge_row(house, tag)
    assert (row["format"], row["label_id"], row["status"], row["status_reason"]) == ("", "", "Scratch", "erased")
    status, said = await ordered(house, "erase_cartridge", library, tag, is_long_erase=True)
    if house.shelf.name == "target":
        assert (status, "has no ERASE. Order a short erase" in said) == ("Error", True), said
    else:
        assert (status, said) == ("Done", f"cartridge {tag} is erased by the drive")
    assert (await cartridge_row(house, tag))["status"] == "Scratch", "what a drive lacks is not the cartridge's fault"
    status, said = await ordered(house, "check_ltfs", library, tag)
    assert (status, said.partition(". ")[0]) == ("Done", f"cartridge {tag}: no LTFS volume; it is blank")


async def test_ltfs_needs_a_drive_that_makes_partitions(house: House) -> None:
    library = await add_library(house)
    await make_pool(house, "ltfs", "Tape library, LTFS")
    tag = "RB0003L9"
    await register(house, tag, pool="ltfs")
    house.shelf.put(tag)
    await house.start_site()
    assert (await house.call("POST", f"tape_libraries/{library}/sync")).status == 200
    status, said = await ordered(house, "format_cartridge", library, tag)
    row = await cartridge_row(house, tag)
    if house.shelf.name == "target":
        assert (status, said.partition(" ")[2].partition(" ")[2]) == (
            "Error",
            "cannot partition cartridges, which LTFS needs: use a Native pool with it.",
        )
        assert (row["format"], row["status"], row["has_ltfs"], row["location"]) == ("", "New", False, "storage")
        found = "no LTFS volume; it is blank"
    else:
        assert (status, said) == ("Done", f"cartridge {tag} is formatted: ltfs")
        assert (row["format"], row["status"], row["has_ltfs"], row["location"]) == ("ltfs", "Scratch", True, "storage")
        found = "a valid LTFS volume"
    status, said = await ordered(house, "check_ltfs", library, tag)
    assert (status, said.startswith(f"cartridge {tag}: {found}")) == ("Done", True), said


async def test_a_cartridge_is_moved_exported_and_imported(house: House) -> None:
    library = await add_library(house)
    await house.start_site()
    tag = TAGS[0]
    last = max(one["number"] for one in await rows(house, "library_slots?limit=100") if one["type"] == "storage")
    (target,) = [one for one in await rows(house, "library_slots?limit=100") if one["number"] == last]
    moved = await ordered(house, "move_cartridge", library, tag, slot_id=target["id"])
    assert moved == ("Done", f"it lies in element {last}")
    row = await cartridge_row(house, tag)
    assert (row["slot"], row["home_slot"], row["moving_to_slot"]) == (target["name"], target["name"], None)
    exported = await ordered(house, "export_cartridge", library, tag)
    assert exported == ("Done", f"it lies in element {IMPORT_EXPORT}")
    row = await cartridge_row(house, tag)
    assert (row["location"], row["exported"]) == ("import-export", True)
    again = await house.call(
        "PATCH", "library_slots/export_cartridge", {"data": {"library_id": library, "volume_tag": tag}}
    )
    assert (again.status, "it is exported" in again.message) == (400, True), again.raw
    back = await house.call(
        "PATCH", "library_slots/import_cartridge", {"data": {"library_id": library, "pool_name": "tape_pool"}}
    )
    assert (back.status, back.data["ids"]) == (200, [row["id"]]), back.raw
    row = await cartridge_row(house, tag)
    assert (row["slot"], row["exported"]) == (f"storage {STORAGE}", False), "the first free slot"


async def test_the_station_can_be_full(house: House) -> None:
    library = await add_library(house)
    for at in range(2):
        house.shelf.put(f"FOREIGN{at}", IMPORT_EXPORT + at)
    await house.start_site()
    answer = await house.call("POST", f"tape_libraries/{library}/sync")
    assert (answer.status, answer.errors["unknown_cartridges"]) == (422, ["FOREIGN0", "FOREIGN1"])
    status, said = await ordered(house, "export_cartridge", library, TAGS[0])
    assert (status, "take out what lies there, and export again" in said) == ("Error", True), said
    assert (await cartridge_row(house, TAGS[0]))["location"] == "storage"


async def test_cleaning_needs_a_cartridge_that_cleans(house: House) -> None:
    library = await add_library(house)
    await house.start_site()
    drive = (await rows(house, "library_tape_drives"))[0]
    answer = await house.call("PATCH", f"library_tape_drives/{drive['id']}/clean")
    assert answer.status == 200, answer.raw
    await house.until(lambda: is_over(house, answer.data["task_id"]))
    task = (await house.call("GET", f"tl_task_queue/{answer.data['task_id']}")).data
    assert (task["task_type"], task["status"]) == ("Clean drive", "Error")
    assert task["status_reason"] == (
        f"no cleaning cartridge lies in a slot of library {library}: put one in and import it"
    )
    assert (await house.call("GET", f"library_tape_drives/{drive['id']}")).data["status"] == "free"
