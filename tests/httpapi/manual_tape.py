"""The manual's examples that speak of tape: a library with a working robot, cartridges in slots, orders for them."""

from __future__ import annotations

import copy

from httpapi.rubackup.catalogue import Fact
from rbcore.entities import TapeCartridge
from tests.httpapi.manual import Asked, Manual, maker, prepares
from tests.httpapi.shelves import IMPORT_EXPORT
from tests.httpapi.tapes import add_library, added, list_candidates, make_pool, rows


@maker("tape_libraries")
async def _library(manual: Manual) -> int:
    """The first with two cartridges in it; later ones are made of the same devices. Its robot and drives work."""
    pools = {one["pool_name"] for one in await rows(manual.house, "pool_list")}
    if "tape_pool" in pools:
        library = await manual.create("tape_libraries")
    else:
        library = await add_library(manual.house, drives=1)
    if "site" not in manual.made:
        manual.made["site"] = library
        await manual.house.start_site()
    return library


@maker("library_tape_drives")
async def _drive(manual: Manual) -> int:
    await manual.record("tape_libraries")
    drives = await rows(manual.house, "library_tape_drives")
    if not drives:
        request = await manual.asked("POST /library_tape_drives")
        assert (await manual.house.call(request.verb, request.path, request.body)).status == 201
        drives = await rows(manual.house, "library_tape_drives")
    return int(drives[0]["id"])


@maker("medium_changers")
async def _changer(manual: Manual) -> int:
    await manual.record("tape_libraries")
    return int((await rows(manual.house, "medium_changers"))[0]["id"])


@maker("library_slots")
async def _slot(manual: Manual) -> int:
    await manual.record("tape_libraries")
    return int((await rows(manual.house, "library_slots"))[0]["id"])


@maker("tl_task_queue")
async def _tape_task(manual: Manual) -> int:
    request = await manual.asked("PATCH /library_slots/check_ltfs")
    answer = await manual.house.call(request.verb, request.path, request.body)
    return int(answer.data["tasks_ids"][0])


@maker("tape_cartridges")
async def _cartridge(manual: Manual) -> int:
    return await manual.create("tape_cartridges")


async def _tag_in_slot(manual: Manual) -> tuple[int, str]:
    """A library, and a registered cartridge in one of its slots."""
    house = manual.house
    library = await manual.record("tape_libraries")
    slots = await rows(house, "library_slots")
    free = [one["volume_tag"] for one in slots if one["type"] == "storage" and one["cartridge_id"]]
    if not free:
        tag = f"RB01{next(manual.numbers):02d}L9"
        house.shelf.put(tag)
        body = {"data": {"type": "LTO-9", "pool": "tape_pool", "volume_tag": tag, "description": ""}}
        assert (await house.call("POST", "tape_cartridges", body)).status == 201
        answer = await house.call("POST", f"tape_libraries/{library}/sync")
        assert answer.status in (200, 422), answer.raw
        free = [tag]
    return library, free[0]


@prepares(
    "PATCH /library_slots/check_ltfs",
    "PATCH /library_slots/erase_cartridge",
    "PATCH /library_slots/format_cartridge",
    "PATCH /library_slots/export_cartridge",
)
async def _order(manual: Manual, fact: Fact) -> Asked:
    library, tag = await _tag_in_slot(manual)
    data = copy.deepcopy(fact.request_example["data"])
    for one in data if isinstance(data, list) else [data]:
        one |= {"library_id": library, "volume_tag": tag}
    return await manual.plain(fact, body={"data": data}, record=library)


@prepares("PATCH /library_slots/move_cartridge")
async def _move(manual: Manual, fact: Fact) -> Asked:
    library, tag = await _tag_in_slot(manual)
    slots = await rows(manual.house, "library_slots")
    empty = next(one["id"] for one in slots if one["type"] == "storage" and not one["is_full"])
    data = {"library_id": library, "volume_tag": tag, "slot_id": empty}
    return await manual.plain(fact, body={"data": data}, record=library)


@prepares("PATCH /library_slots/import_cartridge")
async def _import(manual: Manual, fact: Fact) -> Asked:
    library = await manual.record("tape_libraries")
    slots = await rows(manual.house, "library_slots")
    exported = [one["number"] for one in slots if one["type"] == "import-export" and one["is_full"]]
    for address in exported:
        manual.house.shelf.take_out(address)
    manual.house.shelf.put(f"RB02{next(manual.numbers):02d}L9", IMPORT_EXPORT)
    return await manual.plain(fact, body={"data": {"library_id": library, "pool_name": "tape_pool"}}, record=library)


@prepares("POST /tape_cartridges")
async def _register(manual: Manual, fact: Fact) -> Asked:
    pools = {one["pool_name"] for one in await rows(manual.house, "pool_list")}
    if "tape_pool" not in pools:
        await make_pool(manual.house)
    known = {one.volume_tag for one in manual.house.journal.state.all(TapeCartridge)}
    body = fact.request_example
    if body["data"]["volume_tag"] in known:
        body = {"data": body["data"] | {"volume_tag": f"RB03{next(manual.numbers):02d}L9"}}
    return Asked("POST", "tape_cartridges", body)


@prepares("PATCH /tape_cartridges/{id}")
async def _change_cartridge(manual: Manual, fact: Fact) -> Asked:
    """The manual's bar code is empty, which none is."""
    tag = f"RB04{next(manual.numbers):02d}L9"
    return await manual.plain(fact, body={"data": fact.request_example["data"] | {"volume_tag": tag}})


@prepares("POST /tape_libraries")
async def _add_library(manual: Manual, fact: Fact) -> Asked:
    pools = {one["pool_name"] for one in await rows(manual.house, "pool_list")}
    if "tape_pool" not in pools:
        await make_pool(manual.house)
    if "tape_libraries" in manual.made:
        await manual.house.call("DELETE", f"tape_libraries/{manual.made.pop('tape_libraries')}")
    found = await list_candidates(manual.house)
    drives = [one["id"] for one in found["tape_drives"]][:1]
    return Asked("POST", "tape_libraries", added(found["medium_changers"][0]["id"], drives))


@prepares("POST /tape_libraries/{id}/sync")
async def _sync(manual: Manual, fact: Fact) -> Asked:
    """Every cartridge in it is known."""
    library = await manual.record("tape_libraries")
    return await manual.plain(fact, record=library)


@prepares("POST /tape_libraries/candidates/info")
async def _info(manual: Manual, fact: Fact) -> Asked:
    data = {"media_server": "rubackup-server", "medium_changer_sg_path": manual.house.shelf.changer}
    return Asked("POST", "tape_libraries/candidates/info", {"data": data})


@prepares("POST /library_tape_drives")
async def _add_drive(manual: Manual, fact: Fact) -> Asked:
    library = await manual.record("tape_libraries")
    found = await list_candidates(manual.house)
    taken = {one["device"] for one in await rows(manual.house, "library_tape_drives")}
    free = [one["id"] for one in found["tape_drives"] if one["device"] not in taken]
    return Asked("POST", "library_tape_drives", {"data": {"ids": free[:1], "tape_library_id": library}})


@prepares("PATCH /library_tape_drives/{id}")
async def _change_drive(manual: Manual, fact: Fact) -> Asked:
    """The device and the element address that it has: at those of the manual there is nothing."""
    drive = await manual.record("library_tape_drives")
    row = (await manual.house.call("GET", f"library_tape_drives/{drive}")).data
    data = fact.request_example["data"] | {name: row[name] for name in ("device", "sys_transfer_element")}
    return await manual.plain(fact, body={"data": data}, record=drive)
