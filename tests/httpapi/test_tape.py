"""Tape libraries: everything that the manual documents, on a simulated library with the actors of the daemon.

What is queued is judged as it is queued; that robots and drives do it is tested where they are (``tests/tape``), but for what is answered when
it is done: synchronising and importing.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from drivers.simulated.tape import ElementAddresses
from httpapi.rubackup.catalogue import facts
from rbcore.entities import LibrarySlot, TapeCartridge, TapeDrive, TapeTask, User
from rbcore.vocabulary import TAPE_TASK_TYPES
from tests.httpapi.house import House

CHANGER = "simulated://SIM0000001/0"
DRIVES = ["simulated://SIM0000001/1", "simulated://SIM0000001/2"]
SERVER = "rubackup-server"
TAGS = ["RB0001L9", "RB0002L9"]


async def make_pool(house: House, name: str = "tape_pool", kind: str = "Tape library, Native") -> None:
    body = {"data": {"pool_name": name, "pool_type": kind, "media_server": SERVER}}
    answer = await house.call("POST", "pool_list", body)
    assert answer.status == 201, answer.raw


async def register(house: House, tag: str, **fields: Any) -> int:
    body = {"data": {"type": "LTO-9", "pool": "tape_pool", "volume_tag": tag, "description": ""} | fields}
    answer = await house.call("POST", "tape_cartridges", body)
    assert answer.status == 201, answer.raw
    return int(answer.data["id"])


async def list_candidates(house: House, query: str = "adding_method=automatic") -> dict[str, Any]:
    answer = await house.call("GET", f"tape_libraries/candidates?{query}")
    assert answer.status == 200, answer.raw
    found: dict[str, Any] = answer.data
    return found


async def add_library(house: House, *, drives: int = 2, registered: int = 2) -> int:
    """A pool, a library with ``drives`` drives and two cartridges in it, the first ``registered`` of which are known."""
    await make_pool(house)
    for tag in TAGS:
        house.library.add_cartridge(tag)
    for tag in TAGS[:registered]:
        await register(house, tag)
    found = await list_candidates(house)
    ids = [one["id"] for one in found["tape_drives"]][:drives]
    answer = await house.call("POST", "tape_libraries", added(found["medium_changers"][0]["id"], ids))
    assert answer.status == 201, answer.raw
    return int(answer.data["id"])


def added(changer: int, drives: list[int], **fields: Any) -> dict[str, Any]:
    data = {
        "pool": "tape_pool",
        "media_server": SERVER,
        "description": "",
        "medium_changer_candidate_id": changer,
        "tape_drives_candidates_ids": drives,
    }
    return {"data": data | fields}


async def rows(house: House, path: str) -> list[dict[str, Any]]:
    answer = await house.call("GET", path)
    assert answer.status == 200, answer.raw
    found: list[dict[str, Any]] = answer.data["items"]
    return found


def cartridge(house: House, tag: str) -> TapeCartridge:
    found = house.journal.state.by_key(TapeCartridge, tag)
    assert found is not None
    return found


# --- candidates ------------------------------------------------------------------------------------------------------


async def test_candidates_are_changers_and_drives_with_where_they_sit(house: House) -> None:
    found = await list_candidates(house, f"media_server={SERVER}&adding_method=automatic")
    (changer,) = found["medium_changers"]
    assert (changer["device"], changer["serial"], changer["problem"]) == (CHANGER, "SIM0000001", "")
    assert [one["device"] for one in found["tape_drives"]] == DRIVES
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
        house.library.add_cartridge(tag)
    answer = await house.call("POST", "tape_libraries/candidates/info", info(CHANGER))
    assert answer.status == 200, answer.raw
    assert answer.data["medium_changer"]["serial"] == "SIM0000001"
    assert (answer.data["slots_total"], answer.data["slots_used"]) == (6, 2)
    full = [one for one in answer.data["slots"] if one["is_full"]]
    assert [(one["volume_tag"], one["type"], one["registered"]) for one in full] == [
        (TAGS[0], "storage", True),
        (TAGS[1], "storage", False),
    ]
    assert sorted({one["type"] for one in answer.data["slots"]}) == ["drive", "import-export", "storage"]


def info(device: str, server: str = SERVER) -> dict[str, Any]:
    return {"data": {"media_server": server, "medium_changer_sg_path": device}}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (info("not an address"), 400, "medium_changer_sg_path"),
        (info(CHANGER, "nobody"), 400, "media_server"),
        ({"data": {"media_server": SERVER}}, 400, "medium_changer_sg_path"),
        ({"data": {"media_server": SERVER, "medium_changer_sg_path": CHANGER, "x": 1}}, 400, "x"),
        ({"data": {"media_server": SERVER, "medium_changer_sg_path": 5}}, 400, "medium_changer_sg_path"),
        ({"data": []}, 400, "data"),
        (info("simulated://OTHER/0"), 404, None),
        (info(DRIVES[0]), 404, None),
    ],
)
async def test_what_is_no_changer_is_refused(house: House, body: Any, status: int, field: str | None) -> None:
    answer = await house.call("POST", "tape_libraries/candidates/info", body)
    assert answer.status == status, answer.raw
    if field is not None:
        assert list(answer.errors) == [field]


# --- libraries -------------------------------------------------------------------------------------------------------


async def test_a_library_is_added_and_shown(house: House) -> None:
    library = await add_library(house, registered=1)
    row = (await house.call("GET", f"tape_libraries/{library}")).data
    assert (row["pool"], row["media_server"], row["status"]) == ("tape_pool", SERVER, "Online")
    assert row["medium_changer"].items() >= {"device": CHANGER, "serial": "SIM0000001"}.items()
    assert (row["drives"], row["slots_total"], row["slots_used"], row["import_export_slots"]) == (2, 6, 2, 2)
    assert row["unknown_cartridges"] == [TAGS[1]]
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
    assert [one["device"] for one in shown["medium_changers"]] == [CHANGER]
    assert [one["device"] for one in shown["tape_drives"]] == DRIVES
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
    house.library.add_cartridge("RB0003L9")
    assert house.library.faults.take_out(ElementAddresses().storage) == TAGS[0]
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


# --- changers and drives ---------------------------------------------------------------------------------------------


async def test_robots_are_listed_and_readdressed(house: House) -> None:
    await add_library(house)
    (robot,) = await rows(house, "medium_changers")
    path = f"medium_changers/{robot['id']}"
    assert (await house.call("GET", path)).data.items() >= robot.items()
    example = facts()["PATCH /medium_changers/{id}"].request_example
    changed = await house.call("PATCH", path, example)
    assert (changed.status, changed.message) == (200, "robot parameters changed")
    assert (await house.call("GET", path)).data == robot | example["data"]
    for fields, field in (
        ({"device": "/etc/passwd as such"}, "device"),
        ({"device": ""}, "device"),
        ({"device": "iscsi://user%word@host/target/0"}, "device"),
        ({"scsi_path": "0:0"}, "scsi_path"),
        ({"nonsense": 1}, "nonsense"),
    ):
        answer = await house.call("PATCH", path, {"data": fields})
        assert (answer.status, list(answer.errors)) == (400, [field]), fields
    missing = await house.call("PATCH", "medium_changers/999", example)
    assert (missing.status, missing.message) == (404, "robot not found")


async def test_drives_are_added_readdressed_and_removed(house: House) -> None:
    library = await add_library(house, drives=1)
    offered = (await house.call("GET", "library_tape_drives/candidates?adding_method=manual")).data["tape_drives"]
    assert [one["device"] for one in offered] == DRIVES[1:]
    query = f"adding_method=automatic&media_server={SERVER}&medium_changer_sg_path={CHANGER}"
    offered = (await house.call("GET", f"library_tape_drives/candidates?{query}")).data["tape_drives"]
    assert [(one["device"], one["sys_transfer_element"]) for one in offered] == [(DRIVES[1], 257)]
    body = {"data": {"ids": [offered[0]["id"]], "tape_library_id": library}}
    made = await house.call("POST", "library_tape_drives", body)
    assert made.status == 201, made.raw
    (second,) = made.data["ids"]
    row = (await house.call("GET", f"library_tape_drives/{second}")).data
    assert (row["library_id"], row["sys_transfer_element"], row["status"]) == (library, 257, "free")
    assert (row["volume_tag"], row["last_cleaned"], row["partitions_max"] >= 1) == (None, None, True)
    again = await house.call("POST", "library_tape_drives", body)
    assert (again.status, list(again.errors)) == (400, ["ids"])
    await check_changes_of_a_drive(house, second)
    assert (await house.call("DELETE", "library_tape_drives", {"ids": [second, 999]})).status == 404
    gone = await house.call("DELETE", "library_tape_drives", {"ids": [second]})
    assert (gone.status, gone.message) == (200, "tape library drive deleted")
    assert len(await rows(house, "library_tape_drives")) == 1


async def check_changes_of_a_drive(house: House, drive: int) -> None:
    path = f"library_tape_drives/{drive}"
    changed = await house.call("PATCH", path, {"data": {"scsi_path": "[6:0:0:0]", "sys_transfer_element": 0}})
    assert (changed.status, changed.message) == (200, "drive parameters changed")
    row = (await house.call("GET", path)).data
    assert (row["scsi_path"], row["sys_transfer_element"]) == ("[6:0:0:0]", 0)
    for fields, field in (
        ({"sys_transfer_element": 3}, "sys_transfer_element"),
        ({"sys_transfer_element": 256}, "sys_transfer_element"),
        ({"sys_transfer_element": -1}, "sys_transfer_element"),
        ({"sys_transfer_element": "257"}, "sys_transfer_element"),
        ({"device": DRIVES[0]}, "device"),
        ({"device": None}, "device"),
        ({"nonsense": 1}, "nonsense"),
    ):
        answer = await house.call("PATCH", path, {"data": fields})
        assert (answer.status, list(answer.errors)) == (400, [field]), fields
    assert (await house.call("PATCH", path, {"data": {"sys_transfer_element": 257}})).status == 200
    assert (await house.call("PATCH", "library_tape_drives/999", {"data": {"device": "/dev/sg1"}})).status == 404


@pytest.mark.parametrize(
    ("data", "status", "field"),
    [
        ({"ids": [], "tape_library_id": 1}, 400, "ids"),
        ({"ids": [99], "tape_library_id": 1}, 404, None),
        ({"ids": [1], "tape_library_id": 1}, 400, "ids"),
        ({"ids": [3], "tape_library_id": 0}, 400, "tape_library_id"),
        ({"ids": [3], "tape_library_id": 99}, 404, None),
        ({"ids": [3]}, 400, "tape_library_id"),
        ({"ids": [3], "tape_library_id": 1, "x": 1}, 400, "x"),
    ],
)
async def test_bad_drives_name_the_field(house: House, data: Any, status: int, field: str | None) -> None:
    await add_library(house, drives=1)
    answer = await house.call("POST", "library_tape_drives", {"data": data})
    assert answer.status == status, answer.raw
    if field is not None:
        assert list(answer.errors) == [field]
    assert len(await rows(house, "library_tape_drives")) == 1


async def test_a_drive_is_cleaned_by_a_cartridge_that_cleans(house: House) -> None:
    await add_library(house)
    drive = (await rows(house, "library_tape_drives"))[0]["id"]
    await register(house, "CLN001CU", type="CLN")
    assert cartridge(house, "CLN001CU").status == "Cleaning"
    house.library.add_cartridge("CLN001CU")
    await house.start_site()
    (library,) = await rows(house, "tape_libraries")
    assert (await house.call("POST", f"tape_libraries/{library['id']}/sync")).status == 200
    ordered = await house.call("PATCH", f"library_tape_drives/{drive}/clean")
    assert (ordered.status, ordered.message) == (200, "drive cleaning task created")
    await house.until(lambda: is_over(house, ordered.data["task_id"]))
    task = (await house.call("GET", f"tl_task_queue/{ordered.data['task_id']}")).data
    assert (task["task_type"], task["status"]) == ("Clean drive", "Done"), task
    assert (await house.call("GET", f"library_tape_drives/{drive}")).data["last_cleaned"] is not None
    assert (await house.call("PATCH", "library_tape_drives/999/clean")).status == 404


def is_over(house: House, tape_task_id: int) -> bool:
    task = house.journal.state.find(TapeTask, tape_task_id)
    return task is not None and task.status in ("Done", "Error")


async def test_why_a_cartridge_is_mounted(house: House) -> None:
    library = await add_library(house)
    drives = await rows(house, "library_tape_drives")
    assert (await house.call("GET", f"library_tape_drives/{drives[0]['id']}/why")).data["items"] == []
    queued = await house.call("PATCH", "library_slots/format_cartridge", named(library, TAGS[0]))
    (task_id,) = queued.data["tasks_ids"]
    await house.start_site()

    await house.until(lambda: is_over(house, task_id))
    task = house.journal.state.find(TapeTask, task_id)
    assert task is not None
    assert task.status == "Done", task.status_reason
    story = (await house.call("GET", f"library_tape_drives/{task.drive_id}/why")).data["items"]
    assert [row["id"] for row in story] == sorted(row["id"] for row in story)
    (mount,) = [row for row in story if row["event"] == "drive.mount_begun"]
    assert mount["details"]["tape_task_id"] == task_id
    assert mount["details"]["reason"]
    assert isinstance(mount["rejected"], list)
    assert {"tape_task.queued", "drive.mounted"} <= {row["event"] for row in story}
    early = await house.call("GET", f"library_tape_drives/{task.drive_id}/why?at={queued.position}")
    assert early.data["items"] == []
    assert (await house.call("GET", "library_tape_drives/999/why")).status == 404


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


def named(library: int, *tags: str) -> dict[str, Any]:
    return {"data": [{"library_id": library, "volume_tag": tag} for tag in tags]}


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
    house.library.add_cartridge("RB0007L9", ElementAddresses().import_export)
    done = await house.call("PATCH", "library_slots/import_cartridge", body)
    assert (done.status, done.message) == (200, "cartridge imported successfully")
    row = (await house.call("GET", f"tape_cartridges/{done.data['ids'][0]}")).data
    assert (row["volume_tag"], row["pool"], row["location"], row["exported"]) == (
        "RB0007L9",
        "offsite",
        "storage",
        False,
    )
    house.library.add_cartridge("RB0008L9", ElementAddresses().import_export)
    for data, statuses in (
        ({"library_id": library, "pool_name": "Default"}, (400,)),
        ({"library_id": library, "pool_name": "nothing"}, (400, 404)),
        ({"library_id": 999, "pool_name": "offsite"}, (404,)),
    ):
        answer = await house.call("PATCH", "library_slots/import_cartridge", {"data": data})
        assert answer.status in statuses, answer.raw
    assert len(await rows(house, "tape_cartridges")) == 3, "what is refused is not registered"


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
    for path in ("tape_libraries", "tape_cartridges", "library_slots", "tl_task_queue"):
        assert (await house.call("GET", path)).status == 200
    for verb, path, body in (
        ("GET", "tape_libraries/candidates", None),
        ("POST", "tape_libraries/candidates/info", info(CHANGER)),
        ("POST", "tape_libraries/1/sync", None),
        ("PATCH", "library_slots/format_cartridge", named(1, TAGS[0])),
        ("DELETE", "tape_cartridges", {"ids": [1]}),
        ("PATCH", "library_tape_drives/1/clean", None),
    ):
        assert (await house.call(verb, path, body)).status == 403, path
    monkeypatch.setitem(table, user.id, msgspec.structs.replace(user, roles=("maintainer",)))
    assert (await house.call("GET", "tape_libraries/candidates")).status == 200
    assert not house.journal.state.tables[LibrarySlot.KIND]
    assert not house.journal.state.tables[TapeDrive.KIND]
