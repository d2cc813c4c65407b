"""Tape libraries: everything that the manual documents, on the simulated library and the target, with the actors of the daemon.

What is queued is judged as it is queued; that robots and drives do it is tested where they are (``tests/tape``), but for what is answered when
it is done: synchronising and importing.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from httpapi.rubackup.catalogue import facts
from rbcore.commands import CreateRecord
from rbcore.entities import LibrarySlot, TapeDrive, User
from rbcore.vocabulary import TAPE_TASK_TYPES
from tests.httpapi.house import USER, House
from tests.httpapi.shelves import STORAGE
from tests.httpapi.tapes import (
    ON_BOTH,
    SERVER,
    TAGS,
    add_library,
    added,
    cartridge,
    info,
    list_candidates,
    make_pool,
    named,
    register,
    rows,
)

pytestmark = ON_BOTH

# --- candidates ------------------------------------------------------------------------------------------------------


async def test_candidates_are_changers_and_drives_with_where_they_sit(house: House) -> None:
    found = await list_candidates(house, f"media_server={SERVER}&adding_method=automatic")
    (changer,) = found["medium_changers"]
    assert (changer["device"], changer["serial"], changer["problem"]) == (house.shelf.changer, house.shelf.serial, "")
    assert [one["device"] for one in found["tape_drives"]] == house.shelf.drives
    assert [one["sys_transfer_element"] for one in found["tape_drives"]] == [256, 257]
    assert {one["medium_changer_candidate_id"] for one in found["tape_drives"]} == {changer["id"]}
    by_hand = await list_candidates(house, "adding_method=manual")
    assert [one["sys_transfer_element"] for one in by_hand["tape_drives"]] == [None, None]
    assert [one["id"] for one in by_hand["tape_drives"]] == [one["id"] for one in found["tape_drives"]]


@pytest.mark.parametrize(
    ("query", "field"),
    [("media_server=nobody", "media_server"), ("adding_method=maybe", "adding_method"), ("method=manual", "method")],
)
@pytest.mark.parametrize("path", ["tape_libraries/candidates", "library_tape_drives/candidates"])
async def test_candidates_of_nowhere_are_refused(house: House, path: str, query: str, field: str) -> None:
    answer = await house.call("GET", f"{path}?{query}")
    assert (answer.status, list(answer.errors)) == (400, [field])


async def test_a_candidate_tells_what_lies_in_it(house: House) -> None:
    await make_pool(house)
    await register(house, TAGS[0])
    for tag in TAGS:
        house.shelf.put(tag)
    answer = await house.call("POST", "tape_libraries/candidates/info", info(house.shelf.changer))
    assert answer.status == 200, answer.raw
    assert answer.data["medium_changer"]["serial"] == house.shelf.serial
    assert (answer.data["slots_total"], answer.data["slots_used"]) == (6, 2)
    full = [one for one in answer.data["slots"] if one["is_full"]]
    assert [(one["volume_tag"], one["type"], one["registered"]) for one in full] == [
        (TAGS[0], "storage", True),
        (TAGS[1], "storage", False),
    ]
    assert sorted({one["type"] for one in answer.data["slots"]}) == ["drive", "import-export", "storage"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (info("not an address"), 400, "medium_changer_sg_path"),
        (info("changer", "nobody"), 400, "media_server"),
        ({"data": {"media_server": SERVER}}, 400, "medium_changer_sg_path"),
        ({"data": {"media_server": SERVER, "medium_changer_sg_path": "changer", "x": 1}}, 400, "x"),
        ({"data": {"media_server": SERVER, "medium_changer_sg_path": 5}}, 400, "medium_changer_sg_path"),
        ({"data": []}, 400, "data"),
        (info("nowhere"), 404, None),
        (info("drive"), 404, None),
    ],
)
async def test_what_is_no_changer_is_refused(house: House, body: Any, status: int, field: str | None) -> None:
    places = {"changer": house.shelf.changer, "drive": house.shelf.drives[0], "nowhere": house.shelf.nowhere}
    data = body["data"]
    if isinstance(data, dict) and data.get("medium_changer_sg_path") in places:
        body = {"data": data | {"medium_changer_sg_path": places[data["medium_changer_sg_path"]]}}
    answer = await house.call("POST", "tape_libraries/candidates/info", body)
    assert answer.status == status, answer.raw
    if field is not None:
        assert list(answer.errors) == [field]


# --- libraries -------------------------------------------------------------------------------------------------------


async def test_a_library_is_added_and_shown(house: House) -> None:
    library = await add_library(house, registered=1)
    row = (await house.call("GET", f"tape_libraries/{library}")).data
    assert (row["pool"], row["media_server"], row["status"]) == ("tape_pool", SERVER, "Online")
    assert row["medium_changer"].items() >= {"device": house.shelf.changer, "serial": house.shelf.serial}.items()
    assert (row["drives"], row["slots_total"], row["slots_used"], row["import_export_slots"]) == (2, 6, 2, 2)
    assert row["unknown_cartridges"] == [TAGS[1]]
    robot, *drives = [*await rows(house, "medium_changers"), *await rows(house, "library_tape_drives")]
    assert [one["scsi_path"] for one in (robot, *drives)] == [
        one.rpartition("/")[2] for one in (house.shelf.changer, *house.shelf.drives)
    ], "of what is not behind a generic device, the logical unit"
    assert await rows(house, "tape_libraries") == [row]
    slots = await rows(house, "library_slots?sort_by=number&limit=100")
    full = [one for one in slots if one["is_full"]]
    assert [(one["volume_tag"], one["pool"], one["cartridge_type"]) for one in full] == [
        (TAGS[0], "tape_pool", "LTO-9"),
        (TAGS[1], None, None),
    ]
    assert (await house.call("GET", f"library_slots/{full[0]['id']}")).data.items() >= full[0].items()
    known = (await rows(house, "tape_cartridges"))[0]
    assert (known["slot"], known["location"], known["library_id"]) == (full[0]["name"], "storage", library)
    assert (known["archives"], known["size"], known["has_ltfs"]) == (0, 18 * 10**12, False)
    for path, noun in (("tape_libraries", "tape library"), ("library_slots", "tape library slot")):
        missing = await house.call("GET", f"{path}/999")
        assert (missing.status, missing.message) == (404, f"{noun} not found")


async def test_of_the_past_rows_say_what_their_own_columns_know(house: House) -> None:
    library = await add_library(house)
    at = (await house.call("GET", f"tape_libraries/{library}")).position
    then = (await house.call("GET", f"tape_libraries/{library}?at={at}")).data
    assert (then["pool"], then["medium_changer"], then["slots_total"]) == ("tape_pool", None, None)
    assert (await rows(house, f"tape_cartridges?at={at}"))[0]["archives"] is None
    for path, name in (("tape_libraries", "slots_total"), ("tape_cartridges", "archives"), ("library_slots", "pool")):
        refused = await house.call("GET", f"{path}?filter_data={name}%3D%221%22")
        assert (refused.status, list(refused.errors)) == (400, [name]), "a filter that cannot be answered finds nothing"


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"medium_changer_candidate_id": 99}, 404, None),
        ({"medium_changer_candidate_id": 0}, 400, "medium_changer_candidate_id"),
        ({"medium_changer_candidate_id": 2}, 400, "medium_changer_candidate_id"),
        ({"medium_changer_candidate_id": "1"}, 400, "medium_changer_candidate_id"),
        ({"tape_drives_candidates_ids": [1]}, 400, "tape_drives_candidates_ids"),
        ({"tape_drives_candidates_ids": [2, 99]}, 404, None),
        ({"tape_drives_candidates_ids": []}, 400, "tape_drives_candidates_ids"),
        ({"tape_drives_candidates_ids": 2}, 400, "tape_drives_candidates_ids"),
        ({"pool": "Default"}, 400, "pool"),
        ({"pool": "nothing"}, 400, "pool"),
        ({"media_server": "nobody"}, 400, "media_server"),
        ({"nonsense": 1}, 400, "nonsense"),
    ],
)
async def test_bad_libraries_name_the_field(house: House, fields: Any, status: int, field: str | None) -> None:
    await make_pool(house)
    await list_candidates(house)
    answer = await house.call("POST", "tape_libraries", added(1, [2, 3], **fields))
    assert answer.status == status, answer.raw
    if field is not None:
        assert list(answer.errors) == [field]
    assert await rows(house, "tape_libraries") == []


async def test_a_library_is_added_once(house: House) -> None:
    await add_library(house)
    again = await house.call("POST", "tape_libraries", added(1, [2]))
    assert again.status == 400
    assert "medium_changer_candidate_id" in again.errors
    assert await list_candidates(house) == {"medium_changers": [], "tape_drives": []}


async def test_the_tree_has_libraries_with_drives_and_tape_pools(house: House) -> None:
    library = await add_library(house)
    await make_pool(house, "spare", "Tape library, LTFS")
    tree = await house.call("POST", "tape_libraries/tree", facts()["POST /tape_libraries/tree"].request_example)
    assert tree.status == 200, tree.raw
    (shown,) = tree.data["tape_libraries"]
    assert (shown["id"], shown["slots"], shown["slots_total"]) == (library, [], 6)
    assert [one["device"] for one in shown["medium_changers"]] == [house.shelf.changer]
    assert [one["device"] for one in shown["tape_drives"]] == house.shelf.drives
    pools = tree.data["pools"]
    assert [(one["pool_name"], one["tape_libraries_ids"]) for one in pools["items"]] == [
        ("tape_pool", [library]),
        ("spare", []),
    ]
    second = await house.call("POST", "tape_libraries/tree", {"data": {"pools": {"limit": 1, "page": 2}}})
    assert [one["pool_name"] for one in second.data["pools"]["items"]] == ["spare"]
    assert (second.data["pools"]["total"], second.data["pools"]["page"]) == (2, 2)
    before = await house.call("POST", "tape_libraries/tree?at=1", {"data": {}})
    assert (before.data["tape_libraries"], before.data["pools"]["total"]) == ([], 0)
    for pools_asked, field in (
        ({"limit": 0}, "limit"),
        ({"page": 0}, "page"),
        ({"limit": "x"}, "limit"),
        ({"x": 1}, "x"),
    ):
        answer = await house.call("POST", "tape_libraries/tree", {"data": {"pools": pools_asked}})
        assert (answer.status, list(answer.errors)) == (400, [field])


async def test_synchronising_records_what_is_known_and_names_what_is_not(house: House) -> None:
    library = await add_library(house)
    await house.start_site()
    good = await house.call("POST", f"tape_libraries/{library}/sync")
    assert (good.status, good.message) == (200, "library synchronised successfully")
    house.shelf.put("RB0003L9")
    house.shelf.take_out(STORAGE)
    bad = await house.call("POST", f"tape_libraries/{library}/sync")
    assert (bad.status, bad.errors) == (422, {"unknown_cartridges": ["RB0003L9"]})
    assert "RB0003L9" in bad.message
    by_tag = {row["volume_tag"]: row for row in await rows(house, "tape_cartridges")}
    assert (by_tag[TAGS[0]]["location"], by_tag[TAGS[1]]["location"]) == (None, "storage"), "known ones are updated"
    await register(house, "RB0003L9")
    assert (await house.call("POST", f"tape_libraries/{library}/sync")).status == 200
    assert (await house.call("POST", "tape_libraries/999/sync")).status == 404


async def test_libraries_are_removed_and_their_cartridges_stay(house: House) -> None:
    library = await add_library(house)
    assert (await house.call("DELETE", "tape_libraries", {"ids": [library, 999]})).status == 404
    assert len(await rows(house, "tape_libraries")) == 1
    gone = await house.call("DELETE", f"tape_libraries/{library}")
    assert (gone.status, gone.message, gone.data) == (200, "tape library deleted", {"ids": [library]})
    for path in ("tape_libraries", "medium_changers", "library_tape_drives", "library_slots"):
        assert await rows(house, path) == [], path
    assert [row["location"] for row in await rows(house, "tape_cartridges")] == [None, None]
    assert (await house.call("DELETE", f"tape_libraries/{library}")).status == 404
    found = await list_candidates(house)
    again = await house.call("POST", "tape_libraries", added(found["medium_changers"][0]["id"], [2]))
    assert again.status == 201
    many = await house.call("DELETE", "tape_libraries", {"ids": [again.data["id"]]})
    assert (many.status, many.message) == (200, "list of tape libraries deleted")


async def test_a_library_at_work_stays(house: House) -> None:
    library = await add_library(house)
    queued = await house.call("PATCH", "library_slots/format_cartridge", named(library, TAGS[0]))
    assert queued.status == 200, queued.raw
    refused = await house.call("DELETE", f"tape_libraries/{library}")
    assert refused.status == 400
    assert "tape tasks" in refused.message
    kept = await house.call("DELETE", "tape_cartridges", {"ids": [cartridge(house, TAGS[0]).id]})
    assert kept.status == 400
    assert "tape tasks" in kept.message


# --- and the rest ----------------------------------------------------------------------------------------------------


async def test_media_servers_that_own_a_tape_pool(house: House) -> None:
    path = "media_servers/filtered_by_tape_library_pool"
    empty = await house.call("GET", path)
    assert (empty.status, empty.data["total"]) == (200, 0)
    await make_pool(house)
    answer = await house.call("GET", f"{path}?filter_data=hostname%3D%22{SERVER}%22")
    assert [row["hostname"] for row in answer.data["items"]] == [SERVER]
    assert (await house.call("GET", f"{path}?at={empty.position}")).data["total"] == 0


async def test_tape_types_are_those_of_the_standard(house: House) -> None:
    listed = await rows(house, "tape_types")
    assert [row["name"] for row in listed] == [*(f"LTO-{number}" for number in range(1, 10)), "CLN"]
    assert set(TAPE_TASK_TYPES) >= {"Format", "Erase", "Check LTFS", "Import", "Export", "Move", "Clean drive"}


async def test_storage_is_for_those_who_keep_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.login()
    table = house.journal.state.tables[User.KIND]
    (user,) = table.values()
    monkeypatch.setitem(table, user.id, msgspec.structs.replace(user, roles=("administrator",)))
    for verb, path, body in (
        *(("GET", one, None) for one in ("tape_libraries", "tape_cartridges", "library_slots", "tl_task_queue")),
        ("GET", "tape_libraries/candidates", None),
        ("POST", "tape_libraries/candidates/info", info(house.shelf.changer)),
        ("POST", "tape_libraries/1/sync", None),
        ("PATCH", "library_slots/format_cartridge", named(1, TAGS[0])),
        ("DELETE", "tape_cartridges", {"ids": [1]}),
        ("PATCH", "library_tape_drives/1/clean", None),
    ):
        assert (await house.call(verb, path, body)).status == 403, path
    monkeypatch.setitem(table, user.id, msgspec.structs.replace(user, roles=("maintainer",)))
    assert (await house.call("GET", "tape_libraries/candidates")).status == 403, "maintainer of no media server"
    await house.execute(CreateRecord(resource="maintainers", fields={"media_server": SERVER, "maintainer": USER}))
    monkeypatch.setitem(table, user.id, msgspec.structs.replace(user, roles=("maintainer",)))
    assert (await house.call("GET", "tape_libraries/candidates")).status == 200
    assert not house.journal.state.tables[LibrarySlot.KIND]
    assert not house.journal.state.tables[TapeDrive.KIND]
