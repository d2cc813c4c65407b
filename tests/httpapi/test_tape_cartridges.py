"""Tape cartridges, and the verbs of library slots: what is accepted, what is queued, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from httpapi.rubackup.catalogue import facts
from tests.httpapi.house import House
from tests.httpapi.shelves import IMPORT_EXPORT
from tests.httpapi.tapes import ON_BOTH, TAGS, add_library, cartridge, make_pool, named, register, rows

pytestmark = ON_BOTH

# --- cartridges ------------------------------------------------------------------------------------------------------


async def test_the_life_of_a_cartridge(house: House) -> None:
    await make_pool(house)
    example = facts()["POST /tape_cartridges"].request_example
    made = await house.call("POST", "tape_cartridges", example)
    assert (made.status, made.message) == (201, "Resource with name 'Tape Cartridges' was created successfully!")
    path = f"tape_cartridges/{made.data['id']}"
    row = (await house.call("GET", path)).data
    assert row.items() >= example["data"].items()
    assert (row["status"], row["location"], row["library_id"], row["format"]) == ("New", None, None, "")
    body = {"data": {"volume_tag": "RB10002L9", "description": "blue", "type": "LTO-5"}}
    changed = await house.call("PATCH", path, body)
    assert (changed.status, changed.message) == (200, "cartridge parameters changed")
    after = (await house.call("GET", path)).data
    assert (after["volume_tag"], after["description"], after["type"]) == ("RB10002L9", "blue", "LTO-9")
    assert (await house.call("DELETE", path)).status == 405, "the manual deletes them by list only"
    other = await register(house, "RB10003L9")
    assert (await house.call("DELETE", "tape_cartridges", {"ids": [made.data["id"], 999]})).status == 404
    assert len(await rows(house, "tape_cartridges")) == 2
    gone = await house.call("DELETE", "tape_cartridges", {"ids": [made.data["id"], other]})
    assert (gone.status, gone.message) == (200, "list of cartridges deleted")
    missing = await house.call("PATCH", path, {"data": {"description": ""}})
    assert (missing.status, missing.message) == (404, "tape cartridge not found")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"volume_tag": "TAKEN0L9"}, "volume_tag"),
        ({"volume_tag": ""}, "volume_tag"),
        ({"volume_tag": "rb10001l9"}, "volume_tag"),
        ({"volume_tag": "A" * 33}, "volume_tag"),
        ({"volume_tag": None}, "volume_tag"),
        ({"type": "LTO-5"}, "type"),
        ({"type": "DLT"}, "type"),
        ({"type": "CLN"}, "type"),
        ({"volume_tag": "CLN001CU"}, "type"),
        ({"pool": "Default"}, "pool"),
        ({"pool": "nothing"}, "pool"),
        ({"pool": "ltfs", "type": "LTO-4", "volume_tag": "RB0004L4"}, "pool"),
        ({"pool": "ltfs", "volume_tag": "RB0009LZ"}, "pool"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
async def test_bad_cartridges_name_the_field(house: House, fields: dict[str, Any], field: str) -> None:
    await make_pool(house)
    await make_pool(house, "ltfs", "Tape library, LTFS")
    await register(house, "TAKEN0L9")
    body = {"data": {"type": "LTO-9", "pool": "tape_pool", "volume_tag": "RB10001L9"} | fields}
    answer = await house.call("POST", "tape_cartridges", body)
    assert (answer.status, list(answer.errors)) == (400, [field])
    assert len(await rows(house, "tape_cartridges")) == 1


async def test_bar_codes_that_tell_no_type_go_with_every_type(house: House) -> None:
    await make_pool(house)
    for tag, kind in (("ABC123", "LTO-5"), ("SHORT", "CLN"), ("CLN002", "CLN")):
        await register(house, tag, type=kind)
    assert cartridge(house, "SHORT").status == "Cleaning"


async def test_a_bar_code_that_a_library_reads_stays(house: House) -> None:
    await add_library(house)
    path = f"tape_cartridges/{cartridge(house, TAGS[0]).id}"
    answer = await house.call("PATCH", path, {"data": {"volume_tag": "RB9999L9"}})
    assert (answer.status, list(answer.errors)) == (400, ["volume_tag"])
    assert "reads this bar code" in answer.errors["volume_tag"][0]
    assert (await house.call("PATCH", path, {"data": {"volume_tag": TAGS[0], "description": "x"}})).status == 200


async def test_what_holds_archives_or_is_mounted_stays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_pool(house)
    number = await register(house, TAGS[0])
    on_cartridge = house.journal.state.indexes.backups_on_cartridge
    monkeypatch.setitem(on_cartridge, number, {7})
    assert (await house.call("GET", f"tape_cartridges/{number}")).data["archives"] == 1
    kept = await house.call("DELETE", "tape_cartridges", {"ids": [number]})
    assert (kept.status, list(kept.errors)) == (400, [str(number)])
    renamed = await house.call("PATCH", f"tape_cartridges/{number}", {"data": {"volume_tag": "RB9999L9"}})
    assert (renamed.status, list(renamed.errors)) == (400, ["volume_tag"])
    assert "ids 7" in renamed.errors["volume_tag"][0]


# --- the verbs of slots ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "kind", "more"),
    [
        ("check_ltfs", "Check LTFS", {}),
        ("format_cartridge", "Format", {}),
        ("erase_cartridge", "Erase", {"is_long_erase": True}),
        ("erase_cartridge", "Erase", {}),
    ],
)
async def test_lists_of_cartridges_queue_a_task_each(house: House, verb: str, kind: str, more: Any) -> None:
    library = await add_library(house)
    body = {"data": [{"library_id": library, "volume_tag": tag} | more for tag in TAGS]}
    answer = await house.call("PATCH", f"library_slots/{verb}", body)
    assert answer.status == 200, answer.raw
    assert answer.message == facts()[f"PATCH /library_slots/{verb}"].responses["200"]
    queue = await rows(house, "tl_task_queue")
    assert [row["id"] for row in queue] == answer.data["tasks_ids"]
    assert [(row["task_type"], row["status"], row["volume_tag"]) for row in queue] == [
        (kind, "New", tag) for tag in TAGS
    ]
    whole = (await house.call("GET", f"tl_task_queue/{queue[0]['id']}")).data
    assert (whole["library_id"], whole["is_long_erase"]) == (library, bool(more))
    missing = await house.call("GET", "tl_task_queue/999")
    assert (missing.status, missing.message) == (404, "tape library task not found")


@pytest.mark.parametrize("verb", ["check_ltfs", "format_cartridge", "erase_cartridge"])
async def test_lists_of_cartridges_are_all_or_nothing(house: House, verb: str) -> None:
    library = await add_library(house)
    path = f"library_slots/{verb}"
    for body, field in (
        ({"data": {"library_id": library, "volume_tag": TAGS[0]}}, "data"),
        ({"data": []}, "data"),
        ({}, "data"),
        ({"data": [{"library_id": library}]}, "volume_tag"),
        ({"data": [{"volume_tag": TAGS[0]}]}, "library_id"),
        ({"data": [{"library_id": 0, "volume_tag": TAGS[0]}]}, "library_id"),
        ({"data": [{"library_id": "1", "volume_tag": TAGS[0]}]}, "library_id"),
        ({"data": [{"library_id": library, "volume_tag": TAGS[0], "x": 1}]}, "x"),
        (named(library, TAGS[0], TAGS[0]), "volume_tag"),
    ):
        answer = await house.call("PATCH", path, body)
        assert (answer.status, list(answer.errors)) == (400, [field]), body
    for body in (named(library, TAGS[0], "NOBODYL9"), named(999, TAGS[0])):
        answer = await house.call("PATCH", path, body)
        assert answer.status in (400, 404), answer.raw
        assert answer.errors
    assert await rows(house, "tl_task_queue") == []


async def test_export_and_move_queue_a_task(house: House) -> None:
    library = await add_library(house)
    slots = await rows(house, "library_slots?limit=100")
    target = next(one for one in slots if one["type"] == "storage" and not one["is_full"])
    body = {"data": {"library_id": library, "volume_tag": TAGS[0], "slot_id": target["id"]}}
    moved = await house.call("PATCH", "library_slots/move_cartridge", body)
    assert (moved.status, moved.message) == (200, "cartridge move task created")
    exported = await house.call(
        "PATCH", "library_slots/export_cartridge", {"data": {"library_id": library, "volume_tag": TAGS[1]}}
    )
    assert (exported.status, exported.message) == (200, "cartridge export task created")
    queue = await rows(house, "tl_task_queue")
    assert [(row["task_type"], row["volume_tag"]) for row in queue] == [("Move", TAGS[0]), ("Export", TAGS[1])]
    assert queue[0]["slot"] == target["name"]


async def test_bad_exports_and_moves_name_the_field(house: House) -> None:
    library = await add_library(house)
    full = next(one["id"] for one in await rows(house, "library_slots?limit=100") if one["volume_tag"] == TAGS[1])
    good = {"library_id": library, "volume_tag": TAGS[0]}
    for verb, data, field in (
        ("export_cartridge", [good], "data"),
        ("export_cartridge", {"library_id": library}, "volume_tag"),
        ("export_cartridge", good | {"x": 1}, "x"),
        ("move_cartridge", good, "slot_id"),
        ("move_cartridge", good | {"slot_id": 0}, "slot_id"),
        ("move_cartridge", good | {"slot_id": "5"}, "slot_id"),
        ("import_cartridge", {"library_id": library}, "pool_name"),
        ("import_cartridge", {"library_id": 0, "pool_name": "tape_pool"}, "library_id"),
        ("import_cartridge", {"library_id": library, "pool_name": "tape_pool", "volume_tag": "X"}, "volume_tag"),
    ):
        answer = await house.call("PATCH", f"library_slots/{verb}", {"data": data})
        assert (answer.status, list(answer.errors)) == (400, [field]), (verb, data)
    for slot in (full, 999):
        answer = await house.call("PATCH", "library_slots/move_cartridge", {"data": good | {"slot_id": slot}})
        assert answer.status in (400, 404), answer.raw
    assert await rows(house, "tl_task_queue") == []


async def test_importing_registers_what_lies_in_the_station(house: House) -> None:
    library = await add_library(house)
    await make_pool(house, "offsite")
    await house.start_site()
    body = {"data": {"library_id": library, "pool_name": "offsite"}}
    nothing = await house.call("PATCH", "library_slots/import_cartridge", body)
    assert nothing.status == 400, nothing.raw
    house.shelf.put("RB0007L9", IMPORT_EXPORT)
    done = await house.call("PATCH", "library_slots/import_cartridge", body)
    assert (done.status, done.message) == (200, "cartridge imported successfully")
    row = (await house.call("GET", f"tape_cartridges/{done.data['ids'][0]}")).data
    assert (row["volume_tag"], row["pool"], row["location"], row["exported"]) == (
        "RB0007L9",
        "offsite",
        "storage",
        False,
    )
    house.shelf.put("RB0008L9", IMPORT_EXPORT)
    for data, statuses in (
        ({"library_id": library, "pool_name": "Default"}, (400,)),
        ({"library_id": library, "pool_name": "nothing"}, (400, 404)),
        ({"library_id": 999, "pool_name": "offsite"}, (404,)),
    ):
        answer = await house.call("PATCH", "library_slots/import_cartridge", {"data": data})
        assert answer.status in statuses, answer.raw
    assert len(await rows(house, "tape_cartridges")) == 3, "what is refused is not registered"
