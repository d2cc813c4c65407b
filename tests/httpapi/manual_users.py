"""The manual's examples that speak of users and their roles, and of pools that stand for others."""

from __future__ import annotations

from typing import Any

from httpapi.rubackup.catalogue import Fact
from tests.httpapi.house import PASSWORD
from tests.httpapi.manual import Asked, Manual, prepares
from tests.httpapi.tapes import rows


async def need(manual: Manual, collection: str, key: str, name: str, **fields: Any) -> int:
    """Id of the record of that name, made when it is not there."""
    known = {one[key]: one["id"] for one in await rows(manual.house, f"{collection}?limit=1000")}
    if name not in known:
        answer = await manual.house.call("POST", collection, {"data": {key: name, **fields}})
        assert answer.status == 201, answer.raw
        known[name] = answer.data["id"]
    return int(known[name])


@prepares("POST /users")
async def _user(manual: Manual, fact: Fact) -> Asked:
    """The manual's name and password are empty."""
    named = {"username": f"user{next(manual.numbers)}", "user_password": PASSWORD}
    return await manual.plain(fact, body={"data": fact.request_example["data"] | named})


@prepares("PATCH /users/{id}")
async def _change_user(manual: Manual, fact: Fact) -> Asked:
    return await manual.plain(fact, body={"data": fact.request_example["data"] | {"new_password": PASSWORD}})


@prepares("PATCH /users/change_password")
async def _own_password(manual: Manual, fact: Fact) -> Asked:
    """It ends all logins of the user, so it is a user of its own who asks."""
    house = manual.house
    name = f"user{next(manual.numbers)}"
    await need(manual, "users", "username", name, user_password=PASSWORD)
    ours = house.tokens
    await house.login(name)
    headers, house.tokens = house.headers, ours
    return Asked("PATCH", "users/change_password", {"new_password": f"{PASSWORD}!"}, headers)


@prepares("POST /administrators")
async def _administrator(manual: Manual, fact: Fact) -> Asked:
    await need(manual, "users", "username", "username", user_password=PASSWORD)
    await need(manual, "client_groups", "name", "Some group")
    return await manual.plain(fact)


@prepares("POST /maintainers")
async def _maintainer(manual: Manual, fact: Fact) -> Asked:
    """Of the media server that there is."""
    await need(manual, "users", "username", "username", user_password=PASSWORD)
    return await manual.plain(fact, body={"data": fact.request_example["data"] | {"media_server": "rubackup-server"}})


@prepares("POST /supervisors")
async def _supervisor(manual: Manual, fact: Fact) -> Asked:
    await need(manual, "users", "username", "Nobody", user_password=PASSWORD)
    return await manual.plain(fact)


@prepares("POST /client_defined_storages")
async def _client_defined_storage(manual: Manual, fact: Fact) -> Asked:
    """The manual's pool is of another type, and its name is empty."""
    pool = f"Client pool {next(manual.numbers)}"
    server = {"pool_type": "Client defined", "media_server": "rubackup-server"}
    await need(manual, "pool_list", "pool_name", pool, **server)
    named = {"pool": pool, "name": f"storage {next(manual.numbers)}"}
    return await manual.plain(fact, body={"data": fact.request_example["data"] | named})


@prepares("PATCH /client_defined_storages/{id}", "POST /dynamic_pool_groups", "PATCH /dynamic_pool_groups/{id}")
async def _named(manual: Manual, fact: Fact) -> Asked:
    """The manual's name is empty."""
    named = {"name": f"name {next(manual.numbers)}"}
    return await manual.plain(fact, body={"data": fact.request_example["data"] | named})


@prepares("POST /dynamic_pool_groups_records")
async def _pool_in_group(manual: Manual, fact: Fact) -> Asked:
    group = await manual.record("dynamic_pool_groups")
    return await manual.plain(fact, body={"data": fact.request_example["data"] | {"dynamic_pool_group": group}})
