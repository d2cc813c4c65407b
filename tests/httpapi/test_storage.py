"""Media servers, pools' company and storages over HTTP: what goes beyond records, which ``test_contract_groups`` carries out."""

from __future__ import annotations

from typing import Any

import pytest

from rbcore.block_device import BlockDeviceFacts
from rbcore.commands import CatalogFacts
from tests.httpapi.house import BACKUP_TASK, HWID, House
from tests.httpapi.manual_storage import add_media_server
from tests.httpapi.stories import assigned, backed_up, queued


async def make(house: House, resource: str, **fields: Any) -> int:
    answer = await house.call("POST", resource, {"data": fields})
    assert answer.status == 201, answer.raw
    return int(answer.data["id"])


# --- media servers -------------------------------------------------------------------------------------------------------


async def test_a_media_server_waits_is_authorised_and_goes_back(house: House) -> None:
    row = await add_media_server(house, 7, authorise=False)
    waiting = (await house.call("GET", "unauthorised_media_servers")).data
    assert [(one["id"], one["hostname"], one["ip_address"]) for one in waiting["items"]] == [
        (row, "media-7", "192.0.2.9")
    ]
    state = (await house.call("GET", "server_state")).data["unauthorised_media_servers"]
    assert (state["total"], state["items"]) == (1, waiting["items"])
    nobody = await house.call("POST", "media_servers/authorize", {"data": {"hostname": "nobody"}})
    assert (nobody.status, nobody.message) == (404, "unauthorised media server not found")
    answer = await house.call("POST", "media_servers/authorize", {"data": {"hostname": "media-7"}})
    assert (answer.status, answer.message) == (201, "media server authorised")
    server = (await house.call("GET", f"media_servers/{answer.data['id']}")).data
    assert (server["type"], server["online"], server["version"]) == ("media", False, "0.1")
    assert (await house.call("GET", "server_state")).data["unauthorised_media_servers"]["total"] == 0
    gone = await house.call("DELETE", f"media_servers/{server['id']}")
    assert (gone.status, gone.message) == (200, "media server deleted")
    assert (await house.call("GET", "unauthorised_media_servers")).data["total"] == 1
    before = await house.call("GET", f"media_servers/{server['id']}?at={answer.position}")
    assert before.data["hostname"] == "media-7"
    log = (await house.call("GET", "media_servers_log")).data["items"]
    texts = [one["text"] for one in log if "media-7" in one["object"]]
    assert [text.partition(":")[0] for text in texts] == [
        "Asks for authorisation",
        "Authorised; its key is pinned",
        "No longer authorised",
    ]


async def test_the_main_server_is_not_deleted_and_all_or_nothing_holds(house: House) -> None:
    other = await add_media_server(house, 7)
    both = await house.call("DELETE", "media_servers", {"ids": [1, other]})
    assert both.status == 400
    assert list(both.errors) == ["1"]
    missing = await house.call("DELETE", "media_servers", {"ids": [other, 99]})
    assert (missing.status, missing.message) == (404, "media server not found")
    assert (await house.call("GET", "media_servers")).data["total"] == 2
    assert (await house.call("DELETE", "media_servers", {"ids": [other]})).status == 200


async def test_the_tree_shows_servers_pools_and_storages_with_and_without(house: House) -> None:
    await add_media_server(house, 7)
    await make(house, "pool_list", pool_name="far", pool_type="File system", media_server="media-7")
    await make(house, "pool_list", pool_name="own", pool_type="Client defined")
    await make(house, "client_defined_storages", pool="own", metadata_fs_pool="Default", name="appliance")
    catalog = await make(house, "storage_local_catalogs", path="/far", pool="far")
    tree = (await house.call("GET", "media_servers/tree")).data
    assert [(one["hostname"], [pool["pool_name"] for pool in one["pools"]]) for one in tree["items"]] == [
        ("rubackup-server", ["Default", "own"]),
        ("media-7", ["far"]),
    ]
    (far,) = tree["items"][1]["pools"]
    assert [one["id"] for one in far["storage_local_catalogs"]] == [catalog]
    assert far["tape_cartridges"] == []
    own = tree["items"][0]["pools"][1]
    assert [one["name"] for one in own["client_defined_storages"]] == ["appliance"]
    one = (await house.call("GET", 'media_servers/tree?filter_data=type="media"')).data
    assert [server["hostname"] for server in one["items"]] == ["media-7"]


async def test_hardware_ids_name_the_client_of_a_host_that_is_both(house: House) -> None:
    by_hwid = await add_media_server(house, int(HWID, 16))
    by_name = await add_media_server(house, 8, "both")
    client = await house.add_client()
    namesake = await house.add_client("ab" * 8, "both")
    rows = (await house.call("GET", "servers_hw_id_tmp")).data["items"]
    assert [(one["id"], one["client_id"], one["license_type"]) for one in rows] == [
        (1, None, "Open"),
        (by_hwid, client, "Open"),
        (by_name, namesake, "Open"),
    ]
    one = await house.call("GET", f"servers_hw_id_tmp/{by_hwid}")
    assert one.data == rows[1]
    found = await house.call("GET", f'servers_hw_id_tmp?filter_data=hwid="{HWID}"')
    assert found.data["items"] == [rows[1]]
    assert (await house.call("GET", "servers_hw_id_tmp/99")).status == 404


async def test_the_devices_of_a_further_server_are_not_those_of_this_host(house: House) -> None:
    await add_media_server(house, 7)
    listed = await house.call("GET", "tape_libraries/candidates?media_server=media-7")
    assert (listed.status, list(listed.errors)) == (400, ["media_server"])
    body = {"data": {"media_server": "media-7", "medium_changer_sg_path": "/dev/sg1"}}
    assert (await house.call("POST", "tape_libraries/candidates/info", body)).status == 400


# --- substitutions and groups --------------------------------------------------------------------------------------------


async def test_a_redirected_task_shows_what_was_asked_for_and_why(house: House) -> None:
    await house.add_client()
    await make(house, "pool_list", pool_name="empty", pool_type="File system")
    await make(house, "pool_substitution", pool="empty", substitution="Default")
    task = await queued(house, pool="empty")
    assert (await house.call("GET", f"task_queue/{task}")).data["pool"] == "empty"
    await assigned(house, task)
    shown = (await house.call("GET", f"task_queue/{task}")).data
    assert (shown["pool"], shown["requested_pool"]) == ("Default", "empty")
    why = (await house.call("GET", f"task_queue/{task}/why")).data["items"]
    (row,) = [one for one in why if one["event"] == "task.assigned"]
    assert (
        "pool 'empty' cannot take it (the pool has no catalog), so pool 'Default', its substitution, does"
        in row["text"]
    )
    assert row["rejected"] == ["Pool 'empty': the pool has no catalog."]


async def test_a_task_shows_its_group_until_a_pool_is_chosen_and_is_found_by_either(house: House) -> None:
    await house.add_client()
    group = await make(house, "dynamic_pool_groups", name="fast")
    await make(house, "dynamic_pool_groups_records", dynamic_pool_group=group, pool="Default")
    task = await queued(house, pool="fast")
    for name in ("fast", "Default"):
        found = await house.call("GET", f'task_queue?filter_data=pool="{name}"')
        assert [one["id"] for one in found.data["items"]] == ([task] if name == "fast" else [])
    await assigned(house, task)
    shown = (await house.call("GET", f"task_queue/{task}")).data
    assert (shown["pool"], shown["requested_pool"]) == ("Default", "fast")
    refused = await house.call("DELETE", f"dynamic_pool_groups/{group}")
    assert refused.status == 400
    assert "tasks that have not ended name it" in refused.message


async def test_a_group_is_no_target_of_a_copy_and_no_unwritable_pool_takes_a_task(house: House) -> None:
    await house.add_client()
    await make(house, "dynamic_pool_groups", name="fast")
    for pool, fields in (
        ("blocks", {"pool_type": "Block device", "meta_data_pool": "Default"}),
        ("cloud", {"pool_type": "Cloud"}),
        ("own", {"pool_type": "Client defined"}),
        ("fast", {}),
    ):
        if fields:
            await make(house, "pool_list", pool_name=pool, **fields)
        answer = await house.call("POST", "task_queue", {"data": {"task": BACKUP_TASK | {"pool": pool}}})
        assert answer.status == 400
        assert list(answer.errors) == ["pool"]
        assert "to which this release" in answer.errors["pool"][0]


# --- block devices -------------------------------------------------------------------------------------------------------

DISK = "/dev/disk/by-id/one"


async def with_disk(house: House, **given: Any) -> None:
    """A pool that takes disks, and a disk."""
    await make(house, "pool_list", pool_name="blocks", pool_type="Block device", meta_data_pool="Default")
    facts: dict[str, Any] = {"real_path": "/dev/sdb", "size_bytes": 10**12, "contents": [], "same_as": [], **given}
    house.disks.there[DISK] = BlockDeviceFacts(**facts)


async def test_the_life_of_a_block_device(house: House) -> None:
    await with_disk(house)
    body = {"device": DISK, "pool": "blocks", "overwrite_file_system": False, "description": ""}
    made = await house.call("POST", "storage_block_devices", {"data": body})
    assert (made.status, made.message) == (201, "Resource with name 'Storage Block Devices' was created successfully!")
    path = f"storage_block_devices/{made.data['id']}"
    row = (await house.call("GET", path)).data
    shown = {"pool": "blocks", "size": 10**12, "used": 0, "free": 10**12, "status": "Registered", "contents": []}
    assert row.items() >= shown.items()
    change = {"data": {"description": "shelf 3", "parallel_workers": 4, "device": "/dev/other", "size": 1}}
    changed = await house.call("PATCH", path, change)
    assert (changed.status, changed.message) == (200, "block device parameters changed")
    after = (await house.call("GET", path)).data
    assert after == row | {"description": "shelf 3", "parallel_workers": 4}
    for workers in (0, 65, "2", True):
        assert (await house.call("PATCH", path, {"data": {"parallel_workers": workers}})).status == 400
    refused = await house.call("DELETE", "pool_list", {"ids": [2]})
    assert "block devices belong to it (ids 1)" in refused.message
    gone = await house.call("DELETE", path)
    assert (gone.status, gone.message) == (200, "block device deleted")
    assert (await house.call("GET", path)).message == "block device not found"
    assert house.disks.asked == [DISK], "nothing but its addition asks a device"


async def test_what_holds_something_is_taken_only_on_order(house: House) -> None:
    await with_disk(house, contents=["ext4 file system 'data'", "gpt partition table"])
    body = {"device": DISK, "pool": "blocks", "overwrite_file_system": False}
    refused = await house.call("POST", "storage_block_devices", {"data": body})
    assert refused.status == 400
    (said,) = refused.errors["overwrite_file_system"]
    assert "holds something: ext4 file system 'data', gpt partition table" in said
    assert (await house.call("GET", "storage_block_devices")).data["total"] == 0
    body["overwrite_file_system"] = True
    made = await house.call("POST", "storage_block_devices", {"data": body})
    assert made.status == 201
    row = (await house.call("GET", f"storage_block_devices/{made.data['id']}")).data
    assert row["contents"] == ["ext4 file system 'data'", "gpt partition table"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"device": "sdb"}, "device"),
        ({"device": "/etc/passwd"}, "device"),
        ({"device": "/dev/../etc/passwd"}, "device"),
        ({"device": "/dev//sdb"}, "device"),
        ({"device": ""}, "device"),
        ({"device": None}, "device"),
        ({"device": 7}, "device"),
        ({"device": "/dev/\0"}, "device"),
        ({"pool": "Default"}, "pool"),
        ({"pool": "far blocks"}, "pool"),
        ({"pool": "nowhere"}, "pool"),
        ({"overwrite_file_system": "perhaps"}, "overwrite_file_system"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_a_request_that_cannot_be_right_touches_no_device(
    house: House, wrong: dict[str, Any], field: str
) -> None:
    await with_disk(house)
    await add_media_server(house, 7)
    far = {"pool_type": "File system", "media_server": "media-7"}
    await make(house, "pool_list", pool_name="far files", **far)
    blocks = {"pool_type": "Block device", "media_server": "media-7", "meta_data_pool": "far files"}
    await make(house, "pool_list", pool_name="far blocks", **blocks)
    body = {"device": DISK, "pool": "blocks", **wrong}
    refused = await house.call("POST", "storage_block_devices", {"data": body})
    assert refused.status == 400, refused.raw
    assert list(refused.errors) == [field]
    assert house.disks.asked == []


async def test_a_device_is_there_and_in_one_pool_once(house: House) -> None:
    await with_disk(house)
    missing = await house.call("POST", "storage_block_devices", {"data": {"device": "/dev/none", "pool": "blocks"}})
    assert (missing.status, list(missing.errors)) == (400, ["device"])
    assert "there is no such device" in missing.errors["device"][0]
    await make(house, "storage_block_devices", device=DISK, pool="blocks")
    twice = await house.call("POST", "storage_block_devices", {"data": {"device": DISK, "pool": "blocks"}})
    assert "block device 1 already" in twice.errors["device"][0]
    house.disks.there["/dev/sdb"] = house.disks.there[DISK]
    other_name = await house.call("POST", "storage_block_devices", {"data": {"device": "/dev/sdb", "pool": "blocks"}})
    assert other_name.status == 400
    assert f"the same disk as block device 1 ({DISK})" in other_name.errors["device"][0]


# --- room ----------------------------------------------------------------------------------------------------------------


def seen(house: House, catalog_id: int, **given: Any) -> None:
    facts: dict[str, Any] = {"online": True, "free_bytes": 600, "size_bytes": 1000, "file_system": 7, **given}
    house.rooms.facts[catalog_id] = CatalogFacts(local_catalog_id=catalog_id, **facts)


async def test_pools_and_catalogs_show_their_room(house: House) -> None:
    await house.add_client()
    figures = ("size", "used", "free", "archives")

    async def of_pool(number: int = 1, query: str = "") -> list[Any]:
        row = (await house.call("GET", f"pool_list/{number}{query}")).data
        return [row[name] for name in figures]

    assert await of_pool() == [None, 0, None, 0], "nobody looked yet"
    seen(house, 1)
    assert await of_pool() == [1000, 0, 600, 0]
    await backed_up(house)
    await backed_up(house, resource="/etc")
    assert await of_pool() == [1000, 2000, 600, 2]
    second = await make(house, "storage_local_catalogs", path="/second", pool="Default")
    assert await of_pool() == [None, 2000, None, 2], "one of two is not known"
    seen(house, second)
    assert await of_pool() == [1000, 2000, 600, 2], "two directories on one file system are one room"
    seen(house, second, file_system=8, size_bytes=50, free_bytes=5)
    assert await of_pool() == [1050, 2000, 605, 2]
    catalogs = (await house.call("GET", "storage_local_catalogs")).data["items"]
    assert [(one["size"], one["used"], one["free"], one["media_server"]) for one in catalogs] == [
        (1000, 2000, 600, "rubackup-server"),
        (50, 0, 5, "rubackup-server"),
    ]
    seen(house, second, online=False)
    assert await of_pool() == [None, 2000, None, 2]
    assert await of_pool(query=f"?at={house.log.head}") == [None] * 4, "the past is not known"
    by_size = await house.call("GET", 'pool_list?filter_data=used>"1"')
    assert by_size.status == 400, "what no view knows is refused, not found empty"
    await house.call("DELETE", "repository", {"ids": [1]})
    assert (await of_pool())[1::2] == [1000, 1]


async def test_other_pools_show_what_is_known_of_them(house: House) -> None:
    await with_disk(house)
    await make(house, "storage_block_devices", device=DISK, pool="blocks")
    await make(house, "pool_list", pool_name="tape", pool_type="Tape library")
    cartridge = {"type": "LTO-9", "volume_tag": "RB0001L9", "pool": "tape"}
    assert (await house.call("POST", "tape_cartridges", {"data": cartridge})).status == 201
    await make(house, "pool_list", pool_name="own", pool_type="Client defined")
    rows = {one["pool_name"]: one for one in (await house.call("GET", "pool_list")).data["items"]}
    shown = {name: (one["size"], one["used"], one["free"]) for name, one in rows.items()}
    assert shown["blocks"] == (10**12, 0, 10**12)
    assert shown["tape"] == (18 * 10**12, 0, 18 * 10**12)
    assert shown["own"] == (None, 0, None)
    device = (await house.call("GET", "storage_block_devices/1")).data
    assert device["media_server"] == "rubackup-server"
    tree = (await house.call("GET", "media_servers/tree")).data["items"][0]["pools"]
    assert [one["size"] for one in tree] == [rows[one["pool_name"]]["size"] for one in tree]
