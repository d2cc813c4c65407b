"""The repository: restore, verify, delete by chains, keep longer."""

from __future__ import annotations

from typing import Any

import pytest

from httpapi.rubackup.catalogue import facts
from tests.httpapi.house import CLIENT, House, parse_queue_number
from tests.httpapi.stories import backed_up

RESTORE: dict[str, Any] = {"target_client": CLIENT, "destination_path": "/for_restore/", "data_deployment": False}


async def test_a_finished_backup_is_listed_and_shown(house: House) -> None:
    await house.add_client()
    backup = await backed_up(house)
    row = (await house.call("GET", "repository")).data["items"][0]
    assert (row["id"], row["client"], row["backup_type"], row["pool"], row["ref_id"]) == (
        backup,
        CLIENT,
        "full",
        "Default",
        None,
    )
    assert (row["verification_status"], row["signed"]) == ("Not Verified", True)
    assert (await house.call("GET", f"repository/{backup}")).data["checksum"] == "ab" * 32
    missing = await house.call("GET", "repository/999")
    assert (missing.status, missing.message) == (404, "backup not found")


async def test_restoring_and_verification_queue_tasks(house: House) -> None:
    await house.add_client()
    backup = await backed_up(house)
    sample = facts()["POST /repository/{id}/restoring"].request_example
    body = sample | {"data": sample["data"] | {"restore_task": RESTORE | {"granular_restore_files": [""]}}}
    restored = await house.call("POST", f"repository/{backup}/restoring", body)
    assert restored.status == 201, restored.raw
    task = (await house.call("GET", f"task_queue/{parse_queue_number(restored.message)}")).data
    assert (task["task_type"], task["archive_id"]) == ("Restore", backup)
    assert task["parameters"]["restore_task"]["granular_restore_files"] == []
    verified = await house.call("POST", f"repository/{backup}/verification")
    assert verified.status == 201
    task = (await house.call("GET", f"task_queue/{verified.data['task_id']}")).data
    assert task["task_type"] == "Verify"
    for path, some in (("restoring", {"data": {"restore_task": RESTORE}}), ("verification", None)):
        answer = await house.call("POST", f"repository/999/{path}", some)
        assert (answer.status, answer.message) == (404, "backup not found")


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (RESTORE | {"target_client": "nobody"}, "target_client"),
        (RESTORE | {"destination_path": "relative"}, "destination_path"),
        (RESTORE | {"granular_restore_files": "x"}, "granular_restore_files"),
        (RESTORE | {"nonsense": 1}, "nonsense"),
        (RESTORE | {"data_deployment": 2}, "data_deployment"),
        ([], "restore_task"),
    ],
)
async def test_bad_restores_name_the_field(house: House, task: Any, field: str) -> None:
    await house.add_client()
    backup = await backed_up(house)
    answer = await house.call("POST", f"repository/{backup}/restoring", {"data": {"restore_task": task}})
    assert answer.status == 400
    assert list(answer.errors) == [field]


async def test_a_chain_is_shown_before_it_is_deleted(house: House) -> None:
    await house.add_client()
    full = await backed_up(house)
    links = [await backed_up(house, backup_type="incremental") for _ in range(2)]
    shown = await house.call("POST", "repository/deletion_reference_chain", {"ids": [full]})
    assert shown.status == 200
    assert [row["id"] for row in shown.data["items"]] == links
    assert shown.data["references"] == {str(full): links}
    leaf = await house.call("POST", "repository/deletion_reference_chain", {"ids": [links[-1]]})
    assert leaf.data["items"] == []
    assert (await house.call("POST", "repository/deletion_reference_chain", {"ids": [999]})).status == 404
    gone = await house.call("DELETE", f"repository/{full}")
    assert (gone.status, gone.message, gone.data["ids"]) == (200, "backup deleted", [full, *links])
    assert (await house.call("GET", "repository")).data["total"] == 0
    before = await house.call("GET", f"repository?at={shown.position}")
    assert before.data["total"] == 3


async def test_bulk_deletion_is_all_or_nothing(house: House) -> None:
    await house.add_client()
    backups = [await backed_up(house, resource=f"/srv/{number}") for number in range(2)]
    assert (await house.call("DELETE", "repository", {"ids": [*backups, 999]})).status == 404
    assert (await house.call("GET", "repository")).data["total"] == 2
    gone = await house.call("DELETE", "repository", {"ids": backups})
    assert (gone.status, gone.data["ids"]) == (200, backups)


async def test_store_until_changes_and_nothing_else(house: House) -> None:
    await house.add_client()
    backup = await backed_up(house)
    later = await house.call("PATCH", f"repository/{backup}", {"data": {"store_until": "2030-09-07T22:06:09.801038"}})
    assert (later.status, later.message) == (200, "backup retention period changed")
    assert (
        (await house.call("GET", f"repository/{backup}")).data["store_until"].startswith("2030-09-07T22:06:09.801038")
    )
    for body in (
        {"store_until": "2001-01-01T00:00:00"},
        {"store_until": "soon"},
        {"store_until": 5},
        {"archive_size": 1},
        {},
    ):
        answer = await house.call("PATCH", f"repository/{backup}", {"data": body})
        assert answer.status == 400, body
        assert answer.errors
    assert (await house.call("PATCH", "repository/999", {"data": {"store_until": "2030-01-01"}})).status == 404


async def test_names_in_a_backup_are_listed_and_a_cut_list_says_so(house: House) -> None:
    await house.add_client()
    backup = await backed_up(house)
    house.contents.names = [{"path": f"/home/{number}", "type": "file"} for number in range(5)]
    whole = (await house.call("GET", f"repository_record_file_list?id={backup}")).data
    assert (len(whole["items"]), whole["total"], whole["complete"]) == (5, 5, True)
    cut = (await house.call("GET", f"repository_record_file_list?id={backup}&limit=3&path=/home/")).data
    assert (len(cut["items"]), cut["total"], cut["complete"]) == (3, None, False)
    assert (await house.call("GET", "repository_record_file_list?id=999")).status == 404
    assert (await house.call("GET", "repository_record_file_list")).status == 400


async def test_pools_that_can_take_a_copy(house: House) -> None:
    await house.add_client()
    backup = await backed_up(house)
    for name, kind in (("files", "File system"), ("defined", "Client defined")):
        body = {"data": {"pool_name": name, "pool_type": kind, "media_server": "rubackup-server"}}
        await house.call("POST", "pool_list", body)
    able = await house.call("GET", "pool_list/available_for_copy_or_move")
    assert [row["pool_name"] for row in able.data["items"]] == ["Default", "files"]
    able = await house.call("GET", f"pool_list/available_for_copy_or_move?id={backup}")
    assert [row["pool_name"] for row in able.data["items"]] == ["files"]
    assert (await house.call("GET", "pool_list/available_for_copy_or_move?id=999")).status == 404


@pytest.mark.parametrize(("verb", "kind"), [("copying", "Copy"), ("moving", "Move")])
async def test_full_backups_are_copied_and_moved(house: House, verb: str, kind: str) -> None:
    await house.add_client()
    full = await backed_up(house)
    part = await backed_up(house, backup_type="incremental")
    body = {"data": {"pool_name": "files", "pool_type": "File system", "media_server": "rubackup-server"}}
    assert (await house.call("POST", "pool_list", body)).status == 201
    for path, status in (
        (f"{full}/{verb}", 400),
        (f"{full}/{verb}?pool=nothing", 400),
        (f"{full}/{verb}?pool=Default", 400),
        (f"{full}/{verb}?pool=files&pools=files", 400),
        (f"{part}/{verb}?pool=files", 400),
        (f"999/{verb}?pool=files", 404),
    ):
        answer = await house.call("POST", f"repository/{path}")
        assert answer.status == status, (path, answer.raw)
    queued = await house.call("POST", f"repository/{full}/{verb}?pool=files")
    assert queued.status == 201, queued.raw
    task = (await house.call("GET", f"task_queue/{parse_queue_number(queued.message)}")).data
    assert (task["task_type"], task["archive_id"], task["pool"], task["target_pool"]) == (
        kind,
        full,
        "Default",
        "files",
    )


async def test_restore_extension(house: House) -> None:
    await house.add_client()
    backup = await backed_up(house)
    sample = facts()["POST /repository/{id}/restoring"].request_example["data"]
    for path in ("repository/extension", f"repository/extension?id={backup}"):
        answer = await house.call("GET", path)
        assert answer.data["module_extensions"] == sample["module_extensions"]
        assert answer.data["common_modules_extensions"] == sample["common_modules_extensions"]
    assert (await house.call("GET", "repository/extension?id=999")).status == 404
