"""Users and their roles: roles follow from the records that give them, now and in every past."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbcore.commands import ChangeUser, CreateRecord, CreateUser, DeleteRecords, SetCredential
from rbcore.entities import Administrator, User
from rbcore.errors import InvalidRequest, NotFound, Refused
from rbcore.passwords import BYTES_MAX, LENGTH_MIN, password_fault
from rbcore.vocabulary import NOBODY, ROLES, Role
from tests.core.world import World


@pytest.fixture
def world() -> World:
    return World().installed()


def made(world: World, username: str = "olga", **given: Any) -> int:
    fields = {"username": username, **given.pop("fields", {})}
    return world.run(CreateUser(fields=fields, credential_id=f"secret of {username}", **given)).ids[0]


def user(world: World, number: int) -> User:
    found = world.state.find(User, number)
    assert found is not None
    return found


def add(world: World, resource: str, **fields: Any) -> int:
    return world.run(CreateRecord(resource=resource, fields=fields)).ids[0]


def test_a_user_has_what_was_given_and_the_defaults(world: World) -> None:
    number = made(world, fields={"fullname": "Ольга", "email": "olga@example.org", "tel": "+7 1", "group_id": NOBODY})
    assert user(world, number) == User(
        id=number,
        username="olga",
        fullname="Ольга",
        email="olga@example.org",
        tel="+7 1",
        credential_id="secret of olga",
    )


@pytest.mark.parametrize(
    ("given", "roles", "kind"),
    [
        ({}, (), None),
        ({"role": "supervisor"}, ("supervisor",), "supervisor"),
        ({"role": "maintainer", "media_server": "main"}, ("maintainer",), "maintainer"),
        ({"role": "administrator", "client_group": "No group"}, ("administrator",), "administrator"),
    ],
)
def test_the_first_role_comes_with_the_user(
    world: World, given: dict[str, str], roles: tuple[str, ...], kind: str | None
) -> None:
    number = made(world, **given)
    assert user(world, number).roles == roles
    if kind is not None:
        (record,) = world.state.tables[kind].values()
        assert record.user == number


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"role": "superuser"}, "role"),
        ({"role": "strategy_administrator"}, "role"),
        ({"role": "administrator"}, "client_group"),
        ({"role": "administrator", "client_group": "none"}, "client_group"),
        ({"role": "administrator", "client_group": "No group", "media_server": "main"}, "media_server"),
        ({"role": "maintainer"}, "media_server"),
        ({"role": "maintainer", "media_server": "none"}, "media_server"),
        ({"role": "supervisor", "media_server": "main"}, "media_server"),
        ({"client_group": "No group"}, "client_group"),
        ({"fields": {"username": "rubackup"}}, "username"),
        ({"fields": {"username": "1st"}}, "username"),
        ({"fields": {"username": "a b"}}, "username"),
        ({"fields": {"username": "a\n"}}, "username"),
        ({"fields": {"username": ""}}, "username"),
        ({"fields": {"username": "a" * 64}}, "username"),
        ({"fields": {"email": "nowhere"}}, "email"),
        ({"fields": {"group_id": "none"}}, "group_id"),
        ({"fields": {"roles": ["superuser"], "password": "x"}}, "password"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_field_and_nothing_is_made(
    world: World, given: dict[str, Any], field: str
) -> None:
    before = world.state.position
    with pytest.raises(InvalidRequest) as refused:
        made(world, **given)
    assert set(refused.value.errors) == {field}
    assert world.state.position == before


def test_faults_of_fields_and_of_the_role_are_named_together(world: World) -> None:
    with pytest.raises(InvalidRequest) as refused:
        made(world, fields={"username": "", "email": "x"}, role="administrator")
    assert set(refused.value.errors) == {"username", "email", "client_group"}


GIVING: dict[str, dict[str, str]] = {
    "supervisors": {"supervisor": "olga"},
    "maintainers": {"maintainer": "olga", "media_server": "main"},
    "administrators": {"administrator": "olga", "client_group": "No group"},
    "strategy_administrators": {"administrator": "olga", "strategy": "nightly"},
}


@given(st.lists(st.tuples(st.sampled_from(sorted(GIVING)), st.booleans()), max_size=20))
def test_roles_are_those_that_are_given_at_the_moment(steps: list[tuple[str, bool]]) -> None:
    world = World().installed()
    world.state.replace("backup_strategy", 1, _strategy())
    number = made(world)
    given: dict[str, int] = {}
    for resource, give in steps:
        if give and resource not in given:
            given[resource] = add(world, resource, **GIVING[resource])
        elif give:
            with pytest.raises(InvalidRequest, match="has this role already"):
                add(world, resource, **GIVING[resource])
        elif resource in given:
            world.run(DeleteRecords(resource=resource, ids=[given.pop(resource)]))
        assert set(user(world, number).roles) == {one.removesuffix("s") for one in given}
        assert list(user(world, number).roles) == [one for one in ROLES if f"{one}s" in given]
    world.run(DeleteRecords(resource="users", ids=[number]))
    for resource in GIVING:
        assert world.state.tables[resource.removesuffix("s")] == {}, "roles go with their user"
    assert world.state.indexes.assignments_of_user == {}


def _strategy() -> Any:
    from rbcore.entities import BackupStrategy

    return BackupStrategy(id=1, name="nightly", pool_id=1)


def test_the_superuser_keeps_his_role_beside_others(world: World) -> None:
    role = add(world, "supervisors", supervisor="rubackup")
    assert user(world, 1).roles == (Role.SUPERUSER, Role.SUPERVISOR)
    world.run(DeleteRecords(resource="supervisors", ids=[role]))
    assert user(world, 1).roles == (Role.SUPERUSER,)


def test_a_group_is_kept_while_somebody_belongs_to_it_or_administers_it(world: World) -> None:
    add(world, "user_groups", groupname="night shift")
    add(world, "client_groups", name="branch")
    number = made(world, fields={"group_id": "night shift"}, role="administrator", client_group="branch")
    with pytest.raises(Refused, match=rf"users belong to it \(ids {number}\)"):
        world.run(DeleteRecords(resource="user_groups", ids=[2]))
    with pytest.raises(Refused, match=r"users are its administrators \(roles 1\)"):
        world.run(DeleteRecords(resource="client_groups", ids=[2]))
    world.run(DeleteRecords(resource="users", ids=[number]))
    world.run(DeleteRecords(resource="user_groups", ids=[2]))
    world.run(DeleteRecords(resource="client_groups", ids=[2]))
    assert not list(world.state.all(Administrator))


def test_neither_the_superuser_nor_the_caller_is_deleted(world: World) -> None:
    number = made(world)
    with pytest.raises(Refused, match="built in"):
        world.run(DeleteRecords(resource="users", ids=[number, 1]))
    with pytest.raises(Refused, match="nobody deletes himself"):
        world.run(DeleteRecords(resource="users", ids=[number]), actor="user:olga")
    with pytest.raises(NotFound):
        world.run(DeleteRecords(resource="users", ids=[number, 99]))
    assert world.run(DeleteRecords(resource="users", ids=[number])).data == {
        "former_credential_ids": ["secret of olga"]
    }


def test_a_change_keeps_the_name_and_tells_which_hash_is_needed_no_longer(world: World) -> None:
    number = made(world)
    reply = world.run(ChangeUser(user_id=number, changes={"username": "other", "office": "7"}))
    assert (user(world, number).username, user(world, number).office, reply.data) == ("olga", "7", {})
    reply = world.run(ChangeUser(user_id=number, changes={}, credential_id="second"))
    assert (user(world, number).credential_id, reply.data) == ("second", {"former_credential_id": "secret of olga"})
    reply = world.run(SetCredential(user_id=number, credential_id="third"))
    assert reply.data == {"former_credential_id": "second"}
    with pytest.raises(InvalidRequest) as refused:
        world.run(ChangeUser(user_id=number, changes={"email": "x", "what": 1}))
    assert set(refused.value.errors) == {"email", "what"}
    with pytest.raises(NotFound):
        world.run(ChangeUser(user_id=99, changes={}))


@given(st.text(max_size=40) | st.text("я€😀", min_size=200, max_size=600))
def test_length_alone_decides_about_a_password(password: str) -> None:
    fits = len(password) >= LENGTH_MIN and len(password.encode("utf-8", "surrogatepass")) <= BYTES_MAX
    assert (password_fault(password) is None) == fits
