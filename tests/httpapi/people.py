"""Users with roles, signed in without the work that a password costs."""

from __future__ import annotations

from collections.abc import Sequence

from rbcore.commands import CreateRecord, CreateUser
from rbcore.entities import User
from tests.httpapi.house import House

Assignment = tuple[str, dict[str, str]]
"""Resource that gives the role -> its fields without the user: ``("maintainers", {"media_server": "..."})``."""

_USER_FIELD = {
    "supervisors": "supervisor",
    "maintainers": "maintainer",
    "administrators": "administrator",
    "strategy_administrators": "administrator",
}


async def person(house: House, name: str, *assignments: Assignment) -> dict[str, str]:
    """Make the user with these roles; tokens of his login, for ``house.tokens``."""
    credential_id = f"secret of {name}"
    await house.execute(CreateUser(fields={"username": name}, credential_id=credential_id))
    for resource, fields in assignments:
        await house.execute(CreateRecord(resource=resource, fields={**fields, _USER_FIELD[resource]: name}))
    return signed_in(house, name)


def signed_in(house: House, name: str) -> dict[str, str]:
    user = house.journal.state.by_key(User, name)
    assert user is not None
    pair = house.services.tokens.begin(user.id, user.username, user.credential_id)
    return {"access_token": pair.access_token, "csrf_token": pair.csrf_token}


async def everybody(house: House) -> dict[str, dict[str, str]]:
    """One user per role, each with that role alone, and one without any: role -> tokens."""
    await house.execute(CreateRecord(resource="backup_strategies", fields=_STRATEGY))
    (server,) = [one.hostname for one in house.journal.state.tables["media_server"].values()]
    given: dict[str, Sequence[Assignment]] = {
        "supervisor": [("supervisors", {})],
        "maintainer": [("maintainers", {"media_server": server})],
        "administrator": [("administrators", {"client_group": "No group"})],
        "strategy_administrator": [("strategy_administrators", {"strategy": "nightly"})],
        "": [],
    }
    people = {"superuser": signed_in(house, "rubackup")}
    for role, assignments in given.items():
        people[role] = await person(house, role or "roleless", *assignments)
    return people


_STRATEGY = {"name": "nightly", "pool_id": "Default"}
