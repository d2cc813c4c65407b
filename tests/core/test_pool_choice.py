"""Which pool takes a backup: substitutes in their order, members of a group by the published limits and order, against oracles."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.commands import (
    AdvanceTask,
    AssignTask,
    CatalogFacts,
    ChangeRecord,
    CreateRecord,
    DeleteRecords,
    KillTask,
    QueueCopy,
    QueueRestore,
    QueueVerification,
    RestartTasks,
)
from rbcore.decide.pool_choice import Member, choose_member, why_not
from rbcore.dispatch import AssignStep, Facts, next_steps
from rbcore.entities import DynamicPoolGroup, LocalCatalog, Task
from rbcore.errors import InvalidRequest, Refused
from rbcore.load import ServerLoad
from tests.core.world import PLENTY_BYTES, World, archive_of

LETTERS = "ABCDE"


@pytest.fixture
def world() -> World:
    return with_pools(LETTERS[:3])


def with_pools(names: str) -> World:
    """Pools A, B, C ..., each with a catalog; ids follow those of Default."""
    world = World().installed()
    world.client()
    for name in names:
        world.run(CreateRecord(resource="pool_list", fields={"pool_name": name, "pool_type": "File system"}))
        world.run(CreateRecord(resource="storage_local_catalogs", fields={"path": f"/srv/{name}", "pool": name}))
    return world


def substitute(world: World, pool: str, substitution: str) -> None:
    world.run(CreateRecord(resource="pool_substitution", fields={"pool": pool, "substitution": substitution}))


def group(world: World, members: str, **limits: Any) -> int:
    made = world.run(CreateRecord(resource="dynamic_pool_groups", fields={"name": "group", **limits})).ids[0]
    for name in members:
        fields = {"dynamic_pool_group": made, "pool": name}
        world.run(CreateRecord(resource="dynamic_pool_groups_records", fields=fields))
    return made


def facts(world: World, full: str = "", offline: str = "", free: dict[str, int] | None = None) -> list[CatalogFacts]:
    """Of every catalog; those of the named pools are full or offline."""
    found = []
    for catalog in world.state.all(LocalCatalog):
        name = catalog.path.removeprefix("/srv/")
        free_bytes = 0 if name in full else (free or {}).get(name, PLENTY_BYTES)
        found.append(CatalogFacts(local_catalog_id=catalog.id, online=name not in offline, free_bytes=free_bytes))
    return found


def assign(world: World, task_id: int, loads: list[ServerLoad] | None = None, **given: Any) -> Task:
    command = AssignTask(task_id=task_id, catalogs=facts(world, **given), client_online=True, loads=loads or [])
    world.run(command)
    return world.task(task_id)


def name_of(world: World, task: Task) -> str:
    return str(world.state.tables["pool"][task.pool_id].pool_name)


# --- substitution --------------------------------------------------------------------------------------------------------


def test_a_full_pool_hands_a_backup_to_its_substitution_and_says_so(world: World) -> None:
    substitute(world, "A", "B")
    task = assign(world, world.queued(pool="A"), full="A")
    assert (task.status, name_of(world, task), task.requested_pool_id) == ("Assigned", "B", 2)
    assert task.status_reason.startswith(
        "pool 'A' cannot take it (no catalog of the pool can take the archive), so pool 'B', its substitution, does: "
        "catalog /srv/B is the first with room"
    )
    assert world.log[-1][4] == "task.assigned"
    step = next_steps(world.state, Facts(online_clients={1}, under_way=set()), world.now_ns)
    assert len(step) == 1


def test_a_pool_that_can_take_it_does_although_it_has_a_substitution(world: World) -> None:
    substitute(world, "A", "B")
    assert name_of(world, assign(world, world.queued(pool="A"), full="B")) == "A"


def test_the_dispatcher_looks_at_every_pool_that_may_take_the_backup(world: World) -> None:
    substitute(world, "A", "B")
    substitute(world, "B", "Default")
    task_id = world.queued(pool="A")
    step = next_steps(world.state, Facts(online_clients={1}, under_way=set()), world.now_ns)
    assert step == [AssignStep(task_id=task_id, catalog_ids=(1, 2, 3))]


@given(
    order=st.permutations(range(5)),
    length=st.integers(0, 4),
    full=st.sets(st.sampled_from(LETTERS)),
    offline=st.sets(st.sampled_from(LETTERS)),
)
@settings(max_examples=60, deadline=None)
def test_the_first_pool_along_the_chain_that_can_take_it_does(
    order: list[int], length: int, full: set[str], offline: set[str]
) -> None:
    world = with_pools(LETTERS)
    chain = [LETTERS[one] for one in order[: length + 1]]
    for pool, substitution in itertools.pairwise(chain):
        substitute(world, pool, substitution)
    task = assign(world, world.queued(pool=chain[0]), full="".join(full), offline="".join(offline))
    usable = [name for name in chain if name not in full | offline]
    if usable:
        assert (task.status, name_of(world, task)) == ("Assigned", usable[0])
    else:
        assert task.status == "Suspended"
        assert task.retry_at_ns > world.now_ns
        assert all(f"/srv/{name}" in task.status_reason for name in chain)


def test_what_an_attempt_has_written_is_gone_on_with_in_the_substitution(world: World) -> None:
    substitute(world, "A", "B")
    task_id = world.queued(pool="A")
    first = assign(world, task_id, full="A")
    for status in ("At_Client", "Execution", "Start_Transfer", "Transmission"):
        world.run(AdvanceTask(task_id=task_id, status=status, durable_blocks=5 if status == "Transmission" else 0))
    world.run(AdvanceTask(task_id=task_id, status="Suspended", reason="lost", retry_at_ns=world.now_ns))
    world.run(AdvanceTask(task_id=task_id, status="New"))
    again = assign(world, task_id)
    assert (name_of(world, again), again.archive) == ("B", first.archive)
    assert "goes on in pool 'B', a substitution of pool 'A'" in again.status_reason


def test_without_anything_written_the_next_attempt_begins_with_what_was_asked_for(world: World) -> None:
    substitute(world, "A", "B")
    task_id = world.queued(pool="A")
    assign(world, task_id, full="A")
    world.run(AdvanceTask(task_id=task_id, status="Suspended", reason="lost", retry_at_ns=world.now_ns))
    world.run(AdvanceTask(task_id=task_id, status="New"))
    assert name_of(world, assign(world, task_id)) == "A"
    world.run(KillTask(task_id=task_id))
    world.run(AdvanceTask(task_id=task_id, status="Killed"))
    repeated = world.run(RestartTasks(ids=[task_id])).ids[0]
    assert world.task(repeated).requested_pool_id == 2


def test_a_pool_that_a_waiting_backup_asked_for_is_not_deleted(world: World) -> None:
    substitute(world, "A", "B")
    assign(world, world.queued(pool="A"), full="A")
    world.run(DeleteRecords(resource="pool_substitution", ids=[1]))
    world.run(DeleteRecords(resource="storage_local_catalogs", ids=[2]))
    for pool in (2, 3):
        with pytest.raises(Refused) as refused:
            world.run(DeleteRecords(resource="pool_list", ids=[pool]))
        assert "tasks that have not ended need it (ids 1)" in " ".join(refused.value.errors[str(pool)])


def test_a_copy_goes_where_it_was_told_or_waits(world: World) -> None:
    substitute(world, "A", "B")
    made = world.backed_up()
    task_id = world.run(QueueCopy(backup_id=made, pool_name="A")).ids[0]
    task = assign(world, task_id, full="A")
    assert (task.status, task.target_pool_id) == ("Suspended", 2)
    group(world, "AB")
    with pytest.raises(InvalidRequest) as refused:
        world.run(QueueCopy(backup_id=made, pool_name="group"))
    assert "dynamic pool group" in refused.value.errors["pool"][0]


# --- groups --------------------------------------------------------------------------------------------------------------


_LOADS = st.builds(
    ServerLoad,
    media_server_id=st.just(1),
    cpu_percent=st.sampled_from([0.0, 50.0, 79.9, 80.0, 100.0]),
    in_operations=st.sampled_from([0.0, 99.0, 100.0]),
    out_operations=st.sampled_from([0.0, 99.0, 100.0]),
)
_MEMBERS = st.lists(
    st.builds(
        Member,
        pool_id=st.integers(1, 30),
        pool_name=st.just("p"),
        server_name=st.just("s"),
        unusable=st.sampled_from(["", "", "", "it is full"]),
        pool_tasks=st.integers(0, 4),
        server_tasks=st.integers(0, 6),
        load=st.none() | _LOADS,
        free_bytes=st.sampled_from([0, 10, 20]),
        has_parent=st.booleans(),
    ),
    unique_by=lambda one: one.pool_id,
    max_size=6,
)
_GROUPS = st.builds(
    DynamicPoolGroup,
    id=st.just(1),
    name=st.just("g"),
    max_pool_tasks=st.integers(1, 4),
    max_media_server_tasks=st.integers(1, 6),
    max_cpu_usage=st.sampled_from([50, 80, 100]),
    max_in_block_operations=st.sampled_from([0, 100]),
    max_out_block_operations=st.sampled_from([0, 100]),
)


def comes_into_question(one: Member, limits: DynamicPoolGroup) -> bool:
    within = (
        not one.unusable and one.pool_tasks < limits.max_pool_tasks and one.server_tasks < limits.max_media_server_tasks
    )
    if one.load is None:
        return within
    return (
        within
        and one.load.cpu_percent < limits.max_cpu_usage
        and (limits.max_in_block_operations == 0 or one.load.in_operations < limits.max_in_block_operations)
        and (limits.max_out_block_operations == 0 or one.load.out_operations < limits.max_out_block_operations)
    )


def is_better(one: Member, other: Member) -> bool:
    """The published order, criterion by criterion."""
    cpu = [0.0 if each.load is None else each.load.cpu_percent for each in (one, other)]
    for mine, theirs in (
        (other.has_parent, one.has_parent),
        (one.pool_tasks, other.pool_tasks),
        (one.server_tasks, other.server_tasks),
        (cpu[0], cpu[1]),
        (other.free_bytes, one.free_bytes),
        (one.pool_id, other.pool_id),
    ):
        if mine != theirs:
            return mine < theirs
    return False


@given(_GROUPS, _MEMBERS, st.randoms(use_true_random=False))
@settings(max_examples=400)
def test_the_choice_is_the_best_of_those_within_the_limits(
    limits: DynamicPoolGroup, members: list[Member], draw: Any
) -> None:
    choice = choose_member(limits, members)
    within = [one for one in members if comes_into_question(one, limits)]
    best = [one for one in within if not any(is_better(other, one) for other in within)]
    assert ([choice.member] if choice.member else []) == best
    assert len(choice.rejected) == len(members) - len(within)
    assert all(bool(why_not(limits, one)) != (one in within) for one in members)
    draw.shuffle(members)
    assert choose_member(limits, members) == choice


def test_a_group_stands_where_a_pool_stands_until_one_is_chosen(world: World) -> None:
    made = group(world, "AB", calculation_period=30)
    task_id = world.queued(pool="group")
    assert (world.task(task_id).pool_id, world.task(task_id).requested_pool_id) == (-made, -made)
    (step,) = next_steps(world.state, Facts(online_clients={1}, under_way=set()), world.now_ns)
    assert step == AssignStep(task_id=task_id, catalog_ids=(2, 3), load_seconds=30)
    task = assign(world, task_id, free={"A": 10**12, "B": 2 * 10**12})
    assert (task.status, name_of(world, task)) == ("Assigned", "B")
    assert "pool 'B' out of group 'group': it is the least loaded of 2" in task.status_reason
    assert "load of its processors and block devices was not measured" in task.status_reason


def test_backups_spread_over_a_group_up_to_its_limits(world: World) -> None:
    group(world, "ABC", max_pool_tasks=2, max_media_server_tasks=5)
    tasks = [assign(world, world.queued(pool="group", resource=f"/{number}")) for number in range(6)]
    assert [name_of(world, task) for task in tasks[:5]] == ["A", "B", "C", "A", "B"]
    assert tasks[5].status == "Suspended"
    assert "5 tasks are under way on media server main (max_media_server_tasks 5)" in tasks[5].status_reason
    world.run(AdvanceTask(task_id=1, status="Suspended", reason="lost", retry_at_ns=world.now_ns))
    world.run(AdvanceTask(task_id=6, status="New"))
    assert name_of(world, assign(world, 6)) == "A"


def test_a_busy_media_server_takes_nothing_for_a_group(world: World) -> None:
    group(world, "AB", max_out_block_operations=100)
    task_id = world.queued(pool="group")
    for busy, says in (
        (ServerLoad(media_server_id=1, cpu_percent=80.0, in_operations=0, out_operations=0), "80 % busy"),
        (
            ServerLoad(media_server_id=1, cpu_percent=1.0, in_operations=0, out_operations=100),
            "max_out_block_operations",
        ),
    ):
        task = assign(world, task_id, loads=[busy])
        assert task.status == "Suspended"
        assert says in task.status_reason
        world.run(AdvanceTask(task_id=task_id, status="New"))
    calm = ServerLoad(media_server_id=1, cpu_percent=79.0, in_operations=10**6, out_operations=99)
    task = assign(world, task_id, loads=[calm])
    assert task.status == "Assigned"
    assert "processors 79 % busy over 10 s" in task.status_reason


def test_members_that_are_not_enabled_or_cannot_take_it_are_named(world: World) -> None:
    group(world, "A")
    fields = {"dynamic_pool_group": 1, "pool": "B", "enabled": False}
    world.run(CreateRecord(resource="dynamic_pool_groups_records", fields=fields))
    task = assign(world, world.queued(pool="group"), full="A")
    assert task.status == "Suspended"
    assert "Pool 'A': no catalog of the pool can take the archive" in task.status_reason
    assert "Pool 'B': it is not enabled in the group." in task.status_reason


def test_an_incremental_follows_its_parent_within_a_group(world: World) -> None:
    group(world, "ABC")
    full = world.transmitting(world.queued(pool="group"))
    world.run(archive_of(full))
    other = assign(world, world.queued(pool="group", resource="/busy"))
    assert (name_of(world, full), name_of(world, other)) == ("A", "A")
    world.run(CreateRecord(resource="pool_substitution", fields={"pool": "A", "substitution": "C"}))
    task = assign(world, world.queued(pool="group", backup_type="incremental"))
    assert (name_of(world, task), task.parent_backup_id) == ("A", 1)
    assert "the parent lies there" in task.status_reason
    again = assign(world, world.queued(pool="group", backup_type="incremental", resource="/else"))
    assert name_of(world, again) == "B", "nothing there is a parent of it"


def test_a_group_that_can_never_take_a_backup_is_refused_when_it_is_named(world: World) -> None:
    world.run(CreateRecord(resource="pool_list", fields={"pool_name": "own", "pool_type": "Client defined"}))
    group(world, "")
    for fields in ({"pool": "own"}, {"pool": "A", "enabled": "no"}):
        world.run(CreateRecord(resource="dynamic_pool_groups_records", fields={"dynamic_pool_group": 1, **fields}))
        with pytest.raises(InvalidRequest) as refused:
            world.queued(pool="group")
        assert "has no enabled pool to which this release can write" in refused.value.errors["pool"][0]


def test_a_group_with_waiting_backups_stays_and_a_restart_needs_it(world: World) -> None:
    made = group(world, "A")
    task_id = world.queued(pool="group")
    with pytest.raises(Refused, match="tasks that have not ended name it"):
        world.run(DeleteRecords(resource="dynamic_pool_groups", ids=[made]))
    world.run(KillTask(task_id=task_id))
    repeated = world.run(RestartTasks(ids=[task_id])).ids[0]
    assert world.task(repeated).requested_pool_id == -made
    world.run(KillTask(task_id=repeated))
    world.run(DeleteRecords(resource="dynamic_pool_groups", ids=[made]))
    with pytest.raises(Refused, match="its pool is no longer there"):
        world.run(RestartTasks(ids=[task_id]))


# --- service mode of a media server --------------------------------------------------------------------------------------


def test_a_server_in_service_mode_takes_no_task_of_any_kind(world: World) -> None:
    made = world.backed_up()
    substitute(world, "A", "B")
    group(world, "AB")
    running = world.transmitting(world.queued(resource="/running"))
    tasks = [
        world.queued(pool="A", resource="/a"),
        world.queued(pool="group", resource="/b"),
        world.run(QueueVerification(backup_id=made)).ids[0],
        world.run(QueueCopy(backup_id=made, pool_name="A")).ids[0],
    ]
    world.run(QueueRestore(backup_id=made, restore_task={"destination_path": "/back"}))
    tasks.append(max(world.state.tables["task"]))
    world.run(ChangeRecord(resource="media_servers", id=1, changes={"local_service_mode": "yes"}))
    for task_id in tasks:
        task = assign(world, task_id)
        assert task.status == "Suspended", task
        assert "media server main is in service mode and takes no new tasks" in task.status_reason
    world.run(archive_of(running))
    assert world.task(running.id).status == "Done", "what runs finishes"
    world.run(ChangeRecord(resource="media_servers", id=1, changes={"local_service_mode": "no"}))
    for task_id in tasks:
        world.run(AdvanceTask(task_id=task_id, status="New"))
        assert assign(world, task_id).status == "Assigned"


@given(
    limits=st.fixed_dictionaries({"max_pool_tasks": st.integers(1, 3), "max_media_server_tasks": st.integers(1, 6)}),
    enabled=st.lists(st.booleans(), min_size=3, max_size=3),
    rooms=st.lists(st.lists(st.sampled_from([0, 10**12, 2 * 10**12]), min_size=3, max_size=3), min_size=1, max_size=8),
)
@settings(max_examples=50, deadline=None)
def test_one_backup_after_the_other_goes_where_an_oracle_says(
    limits: dict[str, int], enabled: list[bool], rooms: list[list[int]]
) -> None:
    world = with_pools(LETTERS[:3])
    made = world.run(CreateRecord(resource="dynamic_pool_groups", fields={"name": "group", **limits})).ids[0]
    for name, flag in zip("ABC", enabled, strict=True):
        fields = {"dynamic_pool_group": made, "pool": name, "enabled": flag}
        world.run(CreateRecord(resource="dynamic_pool_groups_records", fields=fields))
    if not any(enabled):
        with pytest.raises(InvalidRequest):
            world.queued(pool="group")
        return
    under_way = dict.fromkeys("ABC", 0)
    for number, room in enumerate(rooms):
        free = dict(zip("ABC", room, strict=True))
        task = assign(world, world.queued(pool="group", resource=f"/{number}"), free=free)
        open_to = [
            name
            for name, flag in zip("ABC", enabled, strict=True)
            if flag and free[name] and under_way[name] < limits["max_pool_tasks"]
        ]
        if not open_to or sum(under_way.values()) >= limits["max_media_server_tasks"]:
            assert task.status == "Suspended"
            continue
        expected = min(open_to, key=lambda name: (under_way[name], -free[name], name))
        assert (task.status, name_of(world, task)) == ("Assigned", expected)
        under_way[expected] += 1
