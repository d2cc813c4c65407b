"""Every role, and nobody, at every method: against a table of its own, group by group (reference 1.17)."""

from __future__ import annotations

import re

import pytest

from httpapi.method import Method
from httpapi.rubackup import methods
from httpapi.rubackup.catalogue import facts
from rbcore.events import AccessDeniedNoted
from tests.httpapi.house import House
from tests.httpapi.people import everybody, person, signed_in

U, V, M, A, S = "superuser", "supervisor", "maintainer", "administrator", "strategy_administrator"
ROLES = (U, V, M, A, S)
ALL = frozenset(ROLES)
MANAGERS = frozenset({U, V})
STORAGE = frozenset({U, V, M})
CLIENTS = frozenset({U, V, A})
STRATEGIES = frozenset({U, V, A, S})
WORK = frozenset({U, V, A, S})
SUPERUSER = frozenset({U})
NOBODY: frozenset[str] = frozenset()

GROUPS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    # group of the manual: (who reads, who makes, changes, deletes and acts)
    "Administrators": (MANAGERS, SUPERUSER),
    "Supervisors": (MANAGERS, SUPERUSER),
    "Maintainers": (MANAGERS, SUPERUSER),
    "Strategy Administrators": (MANAGERS, SUPERUSER),
    "Users": (MANAGERS, SUPERUSER),
    "User Groups": (ALL, MANAGERS),
    "Global Configuration": (MANAGERS, SUPERUSER),
    "Clients": (CLIENTS, MANAGERS),
    "Client Groups": (CLIENTS, MANAGERS),
    "Unauthorised Clients": (MANAGERS, MANAGERS),
    "Client Bandwidth": (CLIENTS, CLIENTS),
    "Clients Log": (CLIENTS, NOBODY),
    "Global Schedule": (CLIENTS, CLIENTS),
    "Global Schedule Log": (CLIENTS, NOBODY),
    "New Rule Requests": (CLIENTS, CLIENTS),
    "Delete Rule Request": (CLIENTS, CLIENTS),
    "Disaster Recovery Plan": (CLIENTS, CLIENTS),
    "Module Resource List": (NOBODY, CLIENTS),
    "List Client Filesystem": (NOBODY, CLIENTS),
    "List Client Block Devices": (NOBODY, CLIENTS),
    "Backup Strategies": (STRATEGIES, frozenset({U, V, S})),
    "Strategy Rules": (STRATEGIES, STRATEGIES),
    "Task Queue": (ALL, WORK),
    "Kill Task": (NOBODY, WORK),
    "Pause Task": (NOBODY, WORK),
    "Continue Task Working": (NOBODY, WORK),
    "Restart Task": (NOBODY, WORK),
    "Task Log": (CLIENTS, NOBODY),
    "Server Task Info": (ALL, NOBODY),
    "Client Task Info": (ALL, NOBODY),
    "Repository": (ALL, WORK),
    "Repository Record File List": (ALL, NOBODY),
    "Repository Log": (STORAGE | {A}, NOBODY),
    "Pool List": (ALL, STORAGE),
    "Pool Substitution": (STORAGE, STORAGE),
    "Dynamic Pool Groups": (ALL, MANAGERS),
    "Dynamic Pool Groups Records": (STORAGE, STORAGE),
    "Storage Local Catalogs": (STORAGE, STORAGE),
    "Storage Block Devices": (STORAGE, STORAGE),
    "Client defined storages": (STORAGE, STORAGE),
    "Media Servers": (ALL, MANAGERS),
    "Media Servers Log": (STORAGE, NOBODY),
    "Unauthorised Media Servers": (MANAGERS, MANAGERS),
    "Servers HWID": (MANAGERS, NOBODY),
    "Rubackup Server System Monitoring": (MANAGERS, NOBODY),
    "Tape Libraries": (STORAGE, STORAGE),
    "Tape Cartridges": (STORAGE, STORAGE),
    "Library Slots": (STORAGE, STORAGE),
    "Library Tape Drives": (STORAGE, STORAGE),
    "Medium Changers": (STORAGE, STORAGE),
    "Tl Task Queue": (STORAGE, NOBODY),
    "Reports": (MANAGERS, MANAGERS),
    "Notifications": (CLIENTS, NOBODY),
    "Server Hello": (ALL, NOBODY),
    "Server State": (ALL, NOBODY),
    **dict.fromkeys(
        (
            "Backup Types",
            "Compression Type",
            "Crypto",
            "Deduplication Hash Algorithm",
            "Destination Storage Types",
            "Disaster Recovery Record Status",
            "License Types",
            "Notification Status",
            "OS Types",
            "Resourse Types",
            "Status Of Rule",
            "Tape Types",
            "Task Status",
            "Verification Status",
        ),
        (ALL, NOBODY),
    ),
}
METHODS: dict[str, frozenset[str]] = {
    # where a method differs from its group
    "PATCH /users/change_password": ALL | {""},
    "POST /clients/tree": CLIENTS,
    "POST /tape_libraries/tree": STORAGE,
    "POST /repository/deletion_reference_chain": ALL,
    "DELETE /repository": CLIENTS,
    "DELETE /repository/{id}": CLIENTS,
    "PATCH /repository/{id}": CLIENTS,
}
OPEN = {"POST /auth/login", "POST /auth/refresh", "DELETE /auth/logout"}
"""They judge the credentials themselves."""


def allowed(method: Method) -> frozenset[str]:
    if method.name in METHODS:
        return METHODS[method.name]
    readers, changers = GROUPS[method.group]
    return readers if method.verb == "GET" else changers


def path_of(method: Method) -> str:
    """With ids of nothing: what is refused for want of a record was not refused for want of a role."""
    return re.sub(r"\{\w+\}", "999999", method.path)[1:]


def test_the_table_knows_every_group_of_the_manual() -> None:
    assert {one.group for one in facts().values()} - {"Auth"} == set(GROUPS)


async def test_every_role_may_use_exactly_its_methods(house: House) -> None:
    people = await everybody(house)
    wrong: list[str] = []
    for method in methods():
        if method.name in OPEN:
            continue
        assert (await house.raw(method.verb, path_of(method))).status == 401, method.name
        for role, tokens in people.items():
            house.tokens = tokens
            answer = await house.call(method.verb, path_of(method))
            assert answer.status not in (401, 500), (method.name, role)
            if (answer.status != 403) != (role in allowed(method)):
                wrong.append(f"{role or 'nobody in particular'}: {method.name} -> {answer.status} {answer.message}")
    assert not wrong, "\n".join(wrong)


async def test_an_unused_group_of_the_table_is_a_mistake_in_it() -> None:
    assert METHODS.keys() <= {one.name for one in methods()}


async def test_a_csrf_value_is_needed_for_every_method(house: House) -> None:
    tokens = signed_in(house, "rubackup")
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    for method in methods():
        if method.name not in OPEN:
            answer = await house.raw(method.verb, path_of(method), headers=headers)
            assert answer.status == 401, method.name


async def test_a_denied_method_is_in_the_audit_with_name_method_and_path(house: House) -> None:
    house.tokens = await person(house, "olga", ("supervisors", {}))
    before = house.log.head
    answer = await house.call("DELETE", "users/1")
    assert (answer.status, answer.data) == (403, {})
    assert "superuser" in answer.message
    (denied,) = list(house.log.read(before))
    assert denied.type == AccessDeniedNoted.TYPE
    for part in (b"olga", b"DELETE", b"/api/v1/users/1"):
        assert part in bytes(denied.body)


@pytest.mark.parametrize("path", ["users", "supervisors", "global_configuration", "administrators"])
async def test_a_supervisor_looks_at_users_and_settings_and_changes_neither(house: House, path: str) -> None:
    house.tokens = await person(house, "olga", ("supervisors", {}))
    assert (await house.call("GET", path)).status == 200
    verb = "PATCH" if path == "global_configuration" else "POST"
    assert (await house.call(verb, path, {"data": {}})).status == 403


async def test_roles_add_up(house: House) -> None:
    house.tokens = await person(
        house,
        "olga",
        ("administrators", {"client_group": "No group"}),
        ("maintainers", {"media_server": "rubackup-server"}),
    )
    for path in ("clients", "storage_local_catalogs"):
        assert (await house.call("GET", path)).status == 200
    assert (await house.call("GET", "reports")).status == 403


async def test_a_role_that_is_taken_away_ends_at_once(house: House) -> None:
    tokens = await person(house, "olga", ("supervisors", {}))
    house.tokens = tokens
    assert (await house.call("GET", "clients")).status == 200
    house.tokens = signed_in(house, "rubackup")
    assert (await house.call("DELETE", "supervisors/1")).status == 200
    house.tokens = tokens
    assert (await house.call("GET", "clients")).status == 403
