"""The system monitoring over HTTP: what the ring holds, and no more."""

from __future__ import annotations

from urllib.parse import quote

from tests.httpapi.house import House

PATH = "rubackup_server_system_monitoring"


async def test_samples_are_listed_filtered_and_shown(house: House) -> None:
    listed = await house.call("GET", PATH)
    assert (listed.status, listed.data["total"]) == (200, 3)
    assert [one["id"] for one in listed.data["items"]] == [5, 6, 7]
    newest = await house.call("GET", f"{PATH}?sort_by=time&sort_order=desc&limit=1")
    assert newest.data["items"][0]["time"] == "2025-06-15T15:06:47.000000"
    busy = await house.call("GET", PATH + "?filter_data=" + quote('cpu_percent>"5.5"'))
    assert [one["id"] for one in busy.data["items"]] == [6, 7]
    assert (await house.call("GET", f"{PATH}/6")).data == listed.data["items"][1]
    unknown = await house.call("GET", PATH + "?filter_data=" + quote('no_such="1"'))
    assert (unknown.status, list(unknown.errors)) == (400, ["no_such"])


async def test_a_sample_that_left_the_ring_is_not_there(house: House) -> None:
    for gone in ("4", "8", "first"):
        answer = await house.call("GET", f"{PATH}/{gone}")
        assert (answer.status, answer.message) == (404, "server monitoring journal record not found")
