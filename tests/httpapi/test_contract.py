"""The catalogue of the manual against what is served: nothing undocumented, nothing promised left out."""

from __future__ import annotations

import re
from pathlib import Path

from httpapi.rubackup import methods
from httpapi.rubackup.catalogue import facts
from tests.httpapi.house import API, House

NOT_SERVED = Path(__file__).with_name("not_served.txt")
SAME_ROUTE = {"DELETE /task_queue/{status}": "DELETE /task_queue/{id}"}
"""Documented twice, one pattern on the wire: what stands in the segment decides."""
ADDITIONS = {"GET /task_queue/{id}/why", "GET /task_queue/{id}/progress", "GET /library_tape_drives/{id}/why"}


def not_served() -> set[str]:
    lines = NOT_SERVED.read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_the_catalogue_is_whole() -> None:
    assert len(facts()) == 256


def test_every_documented_method_is_served_or_stands_in_the_list_of_those_that_are_not() -> None:
    served = {method.name for method in methods()}
    missing = {name for name in facts() if SAME_ROUTE.get(name, name) not in served}
    listed = not_served()
    assert listed <= facts().keys(), "the list names documented methods only"
    assert missing - listed == set(), "documented, and no longer served"
    assert listed - missing == set(), f"served by now: delete these lines from {NOT_SERVED.name}"


async def test_every_documented_method_has_a_route_of_its_own(house: House) -> None:
    routed = {
        (verb, re.sub(r"<(\w+)>", r"{\1}", rule.rule.removeprefix(API)))
        for rule in house.app.url_map.iter_rules()
        for verb in rule.methods or ()
    }
    for name in facts().keys() - not_served() - SAME_ROUTE.keys():
        verb, path = name.split(" ")
        assert (verb, path) in routed, f"{name} is served by the route of another path"


def test_everything_served_is_documented_or_says_that_it_is_ours() -> None:
    for method in methods():
        assert method.addition == (method.name in ADDITIONS), method.name
        assert method.addition or method.name in facts(), method.name


def test_success_codes_are_the_manuals() -> None:
    for method in methods():
        if not method.addition:
            assert method.status == facts()[method.name].success, method.name
