"""The catalogue of the manual against what is served: nothing undocumented, nothing promised left out."""

from __future__ import annotations

import re

from httpapi.rubackup import methods
from httpapi.rubackup.catalogue import facts
from tests.httpapi.contract import SAME_ROUTE
from tests.httpapi.house import API, House

ADDITIONS = {"GET /task_queue/{id}/why", "GET /task_queue/{id}/progress", "GET /library_tape_drives/{id}/why"}


def test_the_catalogue_is_whole() -> None:
    assert len(facts()) == 256


def test_every_documented_method_is_served() -> None:
    served = {method.name for method in methods()}
    missing = {name for name in facts() if SAME_ROUTE.get(name, name) not in served}
    assert not missing


async def test_every_documented_method_has_a_route_of_its_own(house: House) -> None:
    routed = {
        (verb, re.sub(r"<(\w+)>", r"{\1}", rule.rule.removeprefix(API)))
        for rule in house.app.url_map.iter_rules()
        for verb in rule.methods or ()
    }
    for name in facts().keys() - SAME_ROUTE.keys():
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
