"""What tests of the tape methods of the API share."""

from __future__ import annotations

from typing import Any

import pytest

from rbcore.entities import TapeCartridge, TapeTask
from tests.httpapi.house import House
from tests.httpapi.shelves import SHELVES

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
        house.shelf.put(tag)
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


def named(library: int, *tags: str) -> dict[str, Any]:
    return {"data": [{"library_id": library, "volume_tag": tag} for tag in tags]}


ON_BOTH = pytest.mark.parametrize("shelf_name", SHELVES)
"""The tests of a module run on the simulated library and on the target."""


def info(device: str, server: str = SERVER) -> dict[str, Any]:
    return {"data": {"media_server": server, "medium_changer_sg_path": device}}


def is_over(house: House, tape_task_id: int) -> bool:
    task = house.journal.state.find(TapeTask, tape_task_id)
    return task is not None and task.status in ("Done", "Error")
