"""The catalogue of the manual against what is served: nothing undocumented, nothing promised left out."""

from __future__ import annotations

from httpapi.rubackup import methods
from httpapi.rubackup.catalogue import facts

SERVED_GROUPS = {
    "Auth",
    "Backup Types",
    "Client Groups",
    "Clients",
    "Compression Type",
    "Crypto",
    "Deduplication Hash Algorithm",
    "Destination Storage Types",
    "Disaster Recovery Record Status",
    "Library Slots",
    "Library Tape Drives",
    "License Types",
    "Medium Changers",
    "Notification Status",
    "OS Types",
    "Pool List",
    "Repository",
    "Resourse Types",
    "Server State",
    "Status Of Rule",
    "Storage Local Catalogs",
    "Tape Cartridges",
    "Tape Libraries",
    "Tape Types",
    "Task Queue",
    "Task Status",
    "Tl Task Queue",
    "Unauthorised Clients",
    "Verification Status",
    "Client Task Info",
    "Continue Task Working",
    "Kill Task",
    "List Client Block Devices",
    "List Client Filesystem",
    "Pause Task",
    "Repository Record File List",
    "Restart Task",
    "Server Hello",
    "Server Task Info",
}
OF_OTHER_GROUPS = {"GET /media_servers/filtered_by_tape_library_pool"}
"""Served, although the rest of their group is not."""
SAME_ROUTE = {"DELETE /task_queue/{status}": "DELETE /task_queue/{id}"}
ADDITIONS = {"GET /task_queue/{id}/why", "GET /task_queue/{id}/progress", "GET /library_tape_drives/{id}/why"}


def test_the_catalogue_is_whole() -> None:
    assert len(facts()) == 256


def test_every_method_of_the_served_groups_is_there() -> None:
    served = {method.name for method in methods()}
    wanted = {name for name, fact in facts().items() if fact.group in SERVED_GROUPS} | OF_OTHER_GROUPS
    assert {SAME_ROUTE.get(name, name) for name in wanted} <= served


def test_everything_served_is_documented_or_says_that_it_is_ours() -> None:
    for method in methods():
        assert method.addition == (method.name in ADDITIONS), method.name
        assert method.addition or method.name in facts(), method.name


def test_success_codes_are_the_manuals() -> None:
    for method in methods():
        if not method.addition:
            assert method.status == facts()[method.name].success, method.name
