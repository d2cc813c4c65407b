"""Scopes: the declarations lead where they should, and what is reached is the same whichever way it is asked."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.access import Acts, Grants, Puts, Uses, grants_of, judge, paths_of, reach, reaches, target_of
from rbcore.commands import (
    ChangeRecord,
    CreateRecord,
    CreateUser,
    DeleteRecords,
    KillTask,
    QueueBackup,
    QueueCopy,
    QueueRestore,
    RemoveTasks,
)
from rbcore.entities import Backup, BackupStrategy, Client, ClientGroup, Entity, LocalCatalog, MediaServer, Pool, Task
from rbcore.errors import AccessDenied, NotFound
from rbcore.resource import UNLIMITED_ROLES, Resource
from rbcore.resources import RESOURCES, by_kind, by_name
from rbcore.state import State
from rbcore.targets import targets_of
from rbcore.vocabulary import ROLES, Role
from tests.core.world import World, task_body

LIMITED_TO = {
    Role.MAINTAINER: MediaServer.KIND,
    Role.ADMINISTRATOR: ClientGroup.KIND,
    Role.STRATEGY_ADMINISTRATOR: BackupStrategy.KIND,
}


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda one: one.name)
def test_every_path_leads_from_the_record_to_what_the_role_is_limited_to(resource: Resource) -> None:
    for role in resource.scope:
        for path in paths_of(resource, role):
            *steps, last = path.split(".")
            at = resource
            for step in steps:
                at = by_kind[target_of(at, step)]
            end = at.kind if last == "id" else target_of(at, last)
            assert end == LIMITED_TO[role], path


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda one: one.name)
def test_whoever_manages_also_reads_and_limited_roles_manage_within_a_scope(resource: Resource) -> None:
    assert resource.manage <= resource.read <= set(ROLES)
    assert resource.manage - UNLIMITED_ROLES <= resource.scope.keys()
    assert resource.scope.keys() <= resource.read


# --- one question, two answers -----------------------------------------------------------------------------------------


def some_state(seed: int) -> State:
    """Servers, groups, strategies and what belongs to them, wired at random; some references lead nowhere."""
    draw = random.Random(seed)
    state = State()

    def put(entity: Entity) -> None:
        state.replace(entity.KIND, entity.id, entity)

    def some(limit: int) -> int:
        return draw.randrange(0, limit + 2)

    for number in range(1, 4):
        put(MediaServer(id=number, hostname=f"server {number}", hwid=f"{number}"))
        put(ClientGroup(id=number, name=f"group {number}"))
        put(BackupStrategy(id=number, name=f"strategy {number}", pool_id=1))
    for number in range(1, 6):
        put(Pool(id=number, pool_name=f"pool {number}", pool_type="File system", media_server=some(3)))
        put(LocalCatalog(id=number, path=f"/{number}", pool=some(5)))
        put(Client(id=number, hwid=f"{number}", hostname="h", public_key="k", group_id=some(3)))
    for number in range(1, 12):
        put(
            Task(
                id=number,
                task_type="Backup urgent",
                status="New",
                resource_type="File system",
                resource="/",
                backup_type="full",
                client_id=some(5),
                pool_id=draw.choice((some(5), -some(2))),
                target_pool_id=some(5),
                strategy_id=some(3),
                crypto="nocrypt",
                priority=1,
                storage_duration="1 day",
            )
        )
    return state


def holds(entity: Entity, resource: Resource, clauses: Any) -> bool:
    """What the views do with a reach."""
    if clauses is None:
        return True
    values = {name: getattr(entity, "id" if name == "id" else resource.field(name).source) for name, _ in clauses}
    return any(values[name] in ids for name, ids in clauses)


@given(st.integers(0, 10**6), st.data())
@settings(max_examples=150, deadline=None)
def test_a_list_shows_exactly_what_may_be_acted_upon(seed: int, data: st.DataObject) -> None:
    state = some_state(seed)
    roles = data.draw(st.sets(st.sampled_from(ROLES)))
    limits = {role: data.draw(st.frozensets(st.integers(1, 3))) for role in sorted(roles)}
    grants = Grants(limits)
    for name in ("media_servers", "client_groups", "clients", "pool_list", "storage_local_catalogs", "task_queue"):
        resource = by_name[name]
        for asked in (resource.read, resource.manage):
            clauses = reach(state, grants, resource, asked)
            for entity in state.tables[resource.kind].values():
                assert holds(entity, resource, clauses) == reaches(state, grants, resource, asked, entity), entity
        if roles & UNLIMITED_ROLES:
            assert reach(state, grants, resource, resource.read) is None


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_tasks_are_reached_by_client_pool_or_strategy_and_by_nothing_else(seed: int) -> None:
    state = some_state(seed)
    limits = {one: frozenset({2}) for one in LIMITED_TO}

    def of_client(task: Task) -> bool:
        client = state.find(Client, task.client_id)
        return client is not None and client.group_id == 2

    def of_pool(task: Task) -> bool:
        pools = [state.find(Pool, one) for one in (task.pool_id, task.target_pool_id)]
        return any(one is not None and one.media_server == 2 for one in pools)

    tasks = by_name["task_queue"]
    for task in state.tables[Task.KIND].values():
        expected = {
            Role.ADMINISTRATOR: of_client(task),
            Role.MAINTAINER: of_pool(task),
            Role.STRATEGY_ADMINISTRATOR: task.strategy_id == 2,
        }
        for role, wanted in expected.items():
            assert reaches(state, Grants({role: limits[role]}), tasks, tasks.read, task) == wanted
        assert reaches(state, Grants(limits), tasks, tasks.read, task) == any(expected.values())


# --- commands ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    """Client 1 of group 1 ("No group") and client 2 of group 2 ("branch"), each with a backup; olga administers group 2."""
    world = World().installed()
    world.run(CreateRecord(resource="client_groups", fields={"name": "branch"}))
    for hwid, name in ("525a99154f3505a2", "alpha"), ("55e05458152af100", "beta"):
        world.client(hwid, name, key=(hwid * 4)[:64])
        world.backed_up(client=f"{name} ({hwid})")
    world.run(ChangeRecord(resource="clients", id=2, changes={"group_id": "branch"}))
    world.run(CreateUser(fields={"username": "olga"}, credential_id="x", role="administrator", client_group="branch"))
    return world


OURS, THEIRS = "beta (55e05458152af100)", "alpha (525a99154f3505a2)"
WORK = frozenset({Role.SUPERUSER, Role.ADMINISTRATOR})


def judged(world: World, command: Any, roles: frozenset[str] = WORK) -> None:
    targets = targets_of(world.state, command)
    assert targets is not None
    judge(world.state, grants_of(world.state, 2, (Role.ADMINISTRATOR,)), roles, targets)


def test_what_is_granted_follows_from_the_records(world: World) -> None:
    assert grants_of(world.state, 2, (Role.ADMINISTRATOR,)) == Grants({Role.ADMINISTRATOR: frozenset({2})})
    world.run(CreateRecord(resource="administrators", fields={"client_group": "No group", "administrator": "olga"}))
    assert grants_of(world.state, 2, (Role.ADMINISTRATOR,)).limits[Role.ADMINISTRATOR] == {1, 2}
    assert grants_of(world.state, 1, (Role.SUPERUSER,)).roles == {Role.SUPERUSER}


def test_what_is_within_reach_may_be_done(world: World) -> None:
    judged(world, QueueBackup(task=task_body(client=OURS)))
    judged(world, QueueCopy(backup_id=2, pool_name="Default"))
    judged(world, KillTask(task_id=2))
    judged(world, DeleteRecords(resource="repository", ids=[2]))
    judged(world, RemoveTasks(status_word="obsoleted", within=[2]))


@pytest.mark.parametrize(
    "command",
    [
        QueueCopy(backup_id=1, pool_name="Default"),
        KillTask(task_id=1),
        KillTask(task_id=99),
        DeleteRecords(resource="repository", ids=[2, 1]),
        RemoveTasks(ids=[1, 2]),
        RemoveTasks(status_word="obsoleted"),
    ],
)
def test_ids_out_of_reach_are_not_there(world: World, command: Any) -> None:
    with pytest.raises(NotFound) as refused:
        judged(world, command)
    assert set(refused.value.data["ids"]) <= {1, 99}


def test_a_hidden_id_and_a_missing_one_are_refused_in_the_same_words(world: World) -> None:
    sentences = []
    for number in (1, 99):
        with pytest.raises(NotFound) as refused:
            judged(world, KillTask(task_id=number))
        sentences.append((refused.value.message, str(refused.value.errors).replace(str(number), "N")))
    assert sentences[0] == sentences[1]


def test_a_name_out_of_reach_and_a_name_of_nothing_are_refused_in_the_same_words(world: World) -> None:
    refusals = []
    for client in (THEIRS, "nobody (ffffffffffffffff)", "no client's name"):
        with pytest.raises(AccessDenied) as refused:
            judged(world, QueueBackup(task=task_body(client=client)))
        refusals.append((refused.value.message, refused.value.errors))
    assert refusals[0] == refusals[1] == refusals[2]
    assert set(refusals[0][1]) == {"client"}


def test_what_is_seen_and_not_managed_is_denied(world: World) -> None:
    with pytest.raises(AccessDenied) as refused:
        judged(world, ChangeRecord(resource="clients", id=2, changes={"description": "x"}), frozenset({Role.SUPERUSER}))
    assert refused.value.data == {"ids": [2]}


def test_a_record_must_stay_within_reach_when_it_changes(world: World) -> None:
    state, grants = world.state, grants_of(world.state, 2, (Role.ADMINISTRATOR,))
    inside = Puts("task_queue", {"client_id": 2})
    judge(state, grants, WORK, [inside, Acts("task_queue", (2,)), Uses(Client.KIND, 2, "client")])
    for outside in (Puts("task_queue", {"client_id": 1}), Puts("task_queue", {}), Uses(Client.KIND, 1, "client")):
        with pytest.raises(AccessDenied):
            judge(state, grants, WORK, [inside, outside])


def test_backups_of_a_client_that_is_no_longer_authorised_are_for_unlimited_roles(world: World) -> None:
    world.run(DeleteRecords(resource="clients", ids=[2]))
    backup = world.state.find(Backup, 2)
    assert backup is not None
    resource = by_name["repository"]
    assert not reaches(world.state, Grants({Role.ADMINISTRATOR: frozenset({1, 2})}), resource, resource.read, backup)
    assert reaches(world.state, Grants({Role.SUPERVISOR: frozenset()}), resource, resource.read, backup)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=20) | st.sampled_from([OURS, THEIRS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
_WORLDS: list[World] = []


def prepared() -> World:
    """One for all examples: nothing is changed in it."""
    if not _WORLDS:
        made = World().installed()
        made.client()
        made.backed_up()
        made.run(
            CreateUser(fields={"username": "olga"}, credential_id="x", role="administrator", client_group="No group")
        )
        _WORLDS.append(made)
    return _WORLDS[0]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_body_is_judged_without_a_fault(data: st.DataObject) -> None:
    """What cannot be a name is out of reach like any other; nothing of it gets as far as an exception."""
    world = prepared()
    resource = data.draw(st.sampled_from([one for one in RESOURCES if one.create or one.change]))
    names = st.sampled_from([*resource.create, *resource.change, "unknown", "id"])
    fields = data.draw(st.dictionaries(names, JSON, max_size=6))
    number = data.draw(st.integers(-1, 3) | st.just(10**30))
    commands = [
        CreateRecord(resource=resource.name, fields=fields),
        ChangeRecord(resource=resource.name, id=number, changes=fields),
        QueueBackup(task=data.draw(st.dictionaries(st.sampled_from([*task_body(), "x"]), JSON))),
        QueueRestore(backup_id=number, restore_task=data.draw(st.dictionaries(st.just("target_client"), JSON))),
        QueueCopy(backup_id=number, pool_name=data.draw(st.text())),
        KillTask(task_id=number),
    ]
    for command in commands:
        with suppress(NotFound, AccessDenied):
            judged(world, command)
