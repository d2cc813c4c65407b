"""Bodies that somebody wrote to do harm to what answers for tape: refused with a sentence, and never an error of the program."""

from __future__ import annotations

from typing import Any

import pytest

from tests.httpapi.house import House
from tests.httpapi.tapes import ON_BOTH, SERVER, add_library, info

pytestmark = ON_BOTH

METHODS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "tape_libraries/candidates/info"): {"media_server": SERVER, "medium_changer_sg_path": "/dev/sg0"},
    ("POST", "tape_libraries"): {
        "pool": "tape_pool",
        "media_server": SERVER,
        "medium_changer_candidate_id": 999,
        "tape_drives_candidates_ids": [998],
        "description": "",
    },
    ("POST", "library_tape_drives"): {"ids": [998], "tape_library_id": 1},
    ("PATCH", "library_slots/export_cartridge"): {"library_id": 1, "volume_tag": "RB9999L9"},
    ("PATCH", "library_slots/move_cartridge"): {"library_id": 1, "volume_tag": "RB9999L9", "slot_id": 9999},
    ("PATCH", "library_slots/import_cartridge"): {"library_id": 999, "pool_name": "none"},
    ("POST", "tape_cartridges"): {"volume_tag": "a\x1b[2J", "pool": "tape_pool", "tape_type": "LTO-9"},
}
LISTS = ("check_ltfs", "erase_cartridge", "format_cartridge")
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64,
    10**40,
    1.5,
    "",
    "x" * 100_000,
    "a\x00\x1b[2J\r\nb",
    "../../etc/passwd",
    f"iscsi://host/target/{'9' * 5000}",
    "iscsi://me%a-long-secret@host:port/target/1",
    "iscsi://[::1/t/1",
    [],
    {},
    [[]],
    [0],
    [2**64],
    [1] * 20_000,
    {"a": {"a": {}}},
]


def is_refused(status: int) -> bool:
    """503: a device that is not there."""
    return 400 <= status < 500 or status == 503


async def test_any_value_of_any_field_is_refused_or_taken(house: House) -> None:
    library = await add_library(house)
    for (verb, path), good in METHODS.items():
        bodies = [good] + [good | {field: value} for field in good for value in VALUES]
        for data in bodies:
            data = data | ({"library_id": library} if data.get("library_id") == 1 else {})
            answer = await house.call(verb, path, {"data": data})
            assert is_refused(answer.status) or answer.status in (200, 201), (path, str(data)[:200], answer.raw)
        for value in VALUES:
            answer = await house.call(verb, path, {"data": value})
            assert is_refused(answer.status), (path, str(value)[:200], answer.raw)


async def test_any_list_of_cartridges_is_refused_or_taken(house: House) -> None:
    library = await add_library(house)
    for verb in LISTS:
        for value in VALUES:
            for data in (
                value,
                [value],
                [{"library_id": value, "volume_tag": "x"}],
                [{"library_id": library, "volume_tag": value}],
            ):
                answer = await house.call("PATCH", f"library_slots/{verb}", {"data": data})
                assert is_refused(answer.status), (verb, str(data)[:200], answer.raw)
        many = [{"library_id": library, "volume_tag": f"X{number}"} for number in range(9_999)]
        answer = await house.call("PATCH", f"library_slots/{verb}", {"data": [*many, many[-1]]})
        assert is_refused(answer.status), answer.raw


@pytest.mark.parametrize("number", ["0", "-1", "99999", str(2**63), str(2**64), "9" * 5000, "x", "%00", "1.5"])
async def test_any_id_is_refused_or_not_found(house: House, number: str) -> None:
    for verb, path in (
        ("POST", "tape_libraries/{}/sync"),
        ("PATCH", "library_tape_drives/{}/clean"),
        ("GET", "library_tape_drives/{}/why"),
        ("DELETE", "tape_libraries/{}"),
    ):
        answer = await house.call(verb, path.format(number))
        assert is_refused(answer.status), (path, answer.raw)


async def test_a_password_in_an_address_is_not_told_again(house: House) -> None:
    answer = await house.call("POST", "tape_libraries/candidates/info", info("ISCSI://me%a-long-secret@host/target/1"))
    assert is_refused(answer.status)
    assert b"secret" not in answer.raw
