"""Robots and drives of tape libraries: adding, readdressing, removing, cleaning, and why a cartridge is mounted."""

from __future__ import annotations

from typing import Any

import pytest

from httpapi.rubackup.catalogue import facts
from rbcore.entities import TapeDrive, TapeLibrary, TapeTask
from tests.httpapi.house import House
from tests.httpapi.tapes import ON_BOTH, SERVER, TAGS, add_library, cartridge, is_over, named, register, rows

pytestmark = ON_BOTH


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
    assert [one["device"] for one in offered] == house.shelf.drives[1:]
    query = f"adding_method=automatic&media_server={SERVER}&medium_changer_sg_path={house.shelf.changer}"
    offered = (await house.call("GET", f"library_tape_drives/candidates?{query}")).data["tape_drives"]
    assert [(one["device"], one["sys_transfer_element"]) for one in offered] == [(house.shelf.drives[1], 257)]
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
        ({"device": house.shelf.drives[0]}, "device"),
        ({"device": None}, "device"),
        ({"nonsense": 1}, "nonsense"),
    ):
        answer = await house.call("PATCH", path, {"data": fields})
        assert (answer.status, list(answer.errors)) == (400, [field]), fields
    assert (await house.call("PATCH", path, {"data": {"sys_transfer_element": 257}})).status == 200
    assert (await house.call("PATCH", "library_tape_drives/999", {"data": {"device": "/dev/sg1"}})).status == 404


async def test_devices_that_are_readdressed_are_opened_anew(house: House) -> None:
    """No restart is needed, neither for the wrong address nor for the right one after it."""
    library = await add_library(house, drives=1)
    await house.start_site()
    assert (await house.call("POST", f"tape_libraries/{library}/sync")).status == 200
    (drive,), (robot,) = await rows(house, "library_tape_drives"), await rows(house, "medium_changers")

    async def becomes(kind: type[TapeDrive] | type[TapeLibrary], id: int, status: str) -> str:
        def holds() -> bool:
            found = house.journal.state.find(kind, id)
            return found is not None and found.status == status

        await house.until(holds)
        return str(house.journal.state.tables[kind.KIND][id].status_reason)

    for path, kind, number, usable, unusable in (
        (f"library_tape_drives/{drive['id']}", TapeDrive, drive["id"], "free", "offline"),
        (f"medium_changers/{robot['id']}", TapeLibrary, library, "Online", "Offline"),
    ):
        right = (await house.call("GET", path)).data["device"]
        base, _, lun = right.rpartition("/")
        assert (await house.call("PATCH", path, {"data": {"device": house.shelf.nowhere}})).status == 200
        assert await becomes(kind, number, unusable), "it says why"
        assert (await house.call("PATCH", path, {"data": {"device": f"{base}/0{lun}"}})).status == 200
        await becomes(kind, number, usable)
    queued = await house.call("PATCH", "library_slots/format_cartridge", named(library, TAGS[0]))
    (task_id,) = queued.data["tasks_ids"]
    await house.until(lambda: is_over(house, task_id))
    task = (await house.call("GET", f"tl_task_queue/{task_id}")).data
    assert (task["status"], task["drive"].rpartition("/")[2]) == ("Done", f"0{drive['device'][-1]}"), task


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
    house.shelf.put("CLN001CU")
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
