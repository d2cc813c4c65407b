"""Users over HTTP: roles in the query, and passwords that are hashed, replaced, and nowhere to be found."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.httpapi.house import PASSWORD, USER, House

SECRET = "a password of eight or more"


async def made(house: House, username: str = "olga", query: str = "", **fields: Any) -> int:
    body = {"data": {"username": username, "user_password": SECRET, **fields}}
    answer = await house.call("POST", f"users{query}", body)
    assert answer.status == 201, answer.envelope
    return int(answer.data["id"])


def hashes(house: House) -> set[str]:
    return set(os.listdir(house.secrets))


async def test_a_user_signs_in_with_the_role_he_was_made_with(house: House) -> None:
    number = await made(house, query="?role=administrator&client_group=No%20group", fullname="Olga", group_id="Nobody")
    row = (await house.call("GET", f"users/{number}")).data
    assert row == {
        "id": number,
        "username": "olga",
        "fullname": "Olga",
        "address": "",
        "tel": "",
        "office": "",
        "email": "",
        "group_id": "Nobody",
        "group": "Nobody",
        "roles": ["administrator"],
    }
    (role,) = (await house.call("GET", "administrators")).data["items"]
    assert role == {"id": 1, "client_group": "No group", "administrator": "olga"}
    login = await house.login("olga", SECRET)
    assert (login.status, login.data["role"], login.data["user_name"]) == (200, ["administrator"], "olga")


async def test_roles_of_the_past_are_shown(house: House) -> None:
    number = await made(house)
    before = (await house.call("GET", "users")).position
    await house.call("POST", "supervisors", {"data": {"supervisor": "olga"}})
    assert (await house.call("GET", f"users/{number}")).data["roles"] == ["supervisor"]
    assert (await house.call("GET", f"users/{number}?at={before}")).data["roles"] == []
    found = await house.call("GET", 'users?filter_data=roles="supervisor"')
    assert [one["id"] for one in found.data["items"]] == [number]


@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        ("", {"username": "olga"}, "user_password"),
        ("", {"username": "olga", "user_password": "short"}, "user_password"),
        ("", {"username": "olga", "user_password": "x" * 1025}, "user_password"),
        ("", {"username": "olga", "user_password": 12345678}, "user_password"),
        ("", {"user_password": SECRET}, "username"),
        ("", {"username": USER, "user_password": SECRET}, "username"),
        ("", {"username": "olga", "user_password": SECRET, "group_id": "none"}, "group_id"),
        ("?role=superuser", {"username": "olga", "user_password": SECRET}, "role"),
        ("?role=maintainer", {"username": "olga", "user_password": SECRET}, "media_server"),
        ("?media_server=rubackup-server", {"username": "olga", "user_password": SECRET}, "media_server"),
    ],
)
async def test_what_is_wrong_is_refused_and_leaves_no_hash(
    house: House, query: str, body: dict[str, Any], field: str
) -> None:
    kept = hashes(house)
    answer = await house.call("POST", f"users{query}", {"data": body})
    assert (answer.status, set(answer.errors)) == (400, {field})
    assert hashes(house) == kept
    assert (await house.call("GET", "users")).data["total"] == 1


async def test_a_repeated_creation_gets_the_first_answer_and_keeps_one_hash(house: House) -> None:
    body = {"data": {"username": "olga", "user_password": SECRET}}
    first = await house.call("POST", "users", body, Idempotency_Key="one")
    kept = hashes(house)
    second = await house.call("POST", "users", body, Idempotency_Key="one")
    assert (second.status, second.data) == (first.status, first.data)
    assert hashes(house) == kept
    assert (await house.login("olga", SECRET)).status == 200


async def test_a_new_password_ends_every_login_of_the_user_and_of_nobody_else(house: House) -> None:
    number = await made(house, query="?role=supervisor")
    await house.login("olga", SECRET)
    olga = dict(house.tokens)
    await house.login()
    kept = hashes(house)
    changed = await house.call(
        "PATCH", f"users/{number}", {"data": {"new_password": "another password", "office": "12"}}
    )
    assert changed.status == 200
    assert len(hashes(house)) == len(kept)
    assert hashes(house) != kept, "the old hash is gone, the new one is there"
    superuser, house.tokens = dict(house.tokens), olga
    assert (await house.call("GET", "server_hello")).status == 401
    house.tokens = superuser
    assert (await house.call("GET", "server_hello")).status == 200
    assert (await house.login("olga", SECRET)).status == 401
    assert (await house.login("olga", "another password")).status == 200


async def test_everybody_changes_his_own_password_even_without_a_role(house: House) -> None:
    await made(house)
    await house.login("olga", SECRET)
    assert (await house.call("GET", "server_hello")).status == 403
    refused = await house.call("PATCH", "users/change_password", {"new_password": "short"})
    assert (refused.status, set(refused.errors)) == (400, {"new_password"})
    assert (await house.call("PATCH", "users/change_password", {"new_password": "my own password"})).status == 200
    assert (await house.call("GET", "server_hello")).status == 401, "his login has ended"
    assert (await house.login("olga", SECRET)).status == 401
    assert (await house.login("olga", "my own password")).status == 200
    assert (await house.login(USER, PASSWORD)).status == 200, "nobody else's password changed"


async def test_deleted_users_are_gone_with_their_roles_logins_and_hashes(house: House) -> None:
    kept = hashes(house)
    one = await made(house, "olga", "?role=maintainer&media_server=rubackup-server")
    two = await made(house, "ivan", "?role=supervisor")
    await house.login("olga", SECRET)
    olga = dict(house.tokens)
    await house.login()
    missing = await house.call("DELETE", "users", {"ids": [one, 99]})
    assert (missing.status, missing.data) == (404, {"ids": [99]})
    assert (await house.call("DELETE", "users", {"ids": [one, two]})).status == 200
    assert hashes(house) == kept
    for roles in ("maintainers", "supervisors"):
        assert (await house.call("GET", roles)).data["total"] == 0
    house.tokens = olga
    assert (await house.call("GET", "server_hello")).status == 401


async def test_the_superuser_and_the_caller_stay(house: House) -> None:
    refused = await house.call("DELETE", "users/1")
    assert (refused.status, refused.data) == (400, {"ids": [1]})
    assert (await house.call("DELETE", "users/7")).status == 404


async def test_no_password_is_in_the_log_or_in_an_answer(house: House) -> None:
    number = await made(house)
    await house.call("PATCH", f"users/{number}", {"data": {"new_password": "another password"}})
    await house.login("olga", "another password")
    await house.call("PATCH", "users/change_password", {"new_password": "my own password"})
    await house.login()
    for secret in (SECRET, "another password", "my own password"):
        assert all(secret.encode() not in bytes(one.body) for one in house.log.read())
    answer = await house.call("GET", f"users/{number}")
    assert not any("password" in key or "credential" in key for key in answer.data)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("supervisors", {"supervisor": "olga"}),
        ("maintainers", {"media_server": "rubackup-server", "maintainer": "olga"}),
        ("administrators", {"client_group": "No group", "administrator": "olga"}),
    ],
)
async def test_a_role_is_given_once_and_taken_again(house: House, path: str, body: dict[str, str]) -> None:
    await made(house)
    given = await house.call("POST", path, {"data": body})
    assert given.status == 201
    again = await house.call("POST", path, {"data": body})
    assert (again.status, again.errors) == (400, {"_schema": ["this user has this role already (id 1)"]})
    number = given.data["id"]
    assert (await house.call("GET", f"{path}/{number}")).data == {"id": number, **body}
    for wrong in ({}, dict.fromkeys(body, "nobody of this name")):
        refused = await house.call("POST", path, {"data": wrong})
        assert (refused.status, set(refused.errors)) == (400, set(body))
    assert (await house.call("DELETE", f"{path}/{number}")).status == 200
    assert (await house.call("DELETE", path, {"ids": [number]})).status == 404
    assert (await house.call("GET", f"{path}/{number}")).status == 404
