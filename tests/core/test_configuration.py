"""The global configuration: any change is refused naming every bad key, or applies exactly; and each key has the effect it promises."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from rbcore import housekeeping
from rbcore.commands import (
    AdvanceTask,
    AgentGone,
    CatalogFacts,
    ChangeConfiguration,
    ChangeRecord,
    ChangeStoreUntil,
    CreateRecord,
    DeleteBackups,
    KillTask,
    NoteLogin,
    QueueRestore,
    QueueVerification,
    RecordBytesRemoved,
    RemoveTasks,
    RestartTasks,
    SetServiceMode,
)
from rbcore.configuration import configured, in_service_mode
from rbcore.decide.access import login_blocked
from rbcore.dispatch import OFFLINE_SECONDS, Facts, GiveUpStep, next_steps
from rbcore.entities import CONFIGURATION_ID, Backup, Configuration, Task
from rbcore.errors import InvalidRequest, NotAllowedNow, Refused
from rbcore.housekeeping import PERIODS, tasks_to_remove
from rbcore.quota import stored_bytes_of
from rbcore.schedule_commands import ExecuteRule
from rbcore.vocabulary import GLOBAL_CONFIGURATION, ConfigurationKey, TaskType
from tests.core.test_schedule import rule
from tests.core.world import SECOND_NS, World, archive_of, task_body

KEYS = tuple(GLOBAL_CONFIGURATION.values())
_MINUTE_NS = 60 * SECOND_NS


def good(key: ConfigurationKey) -> st.SearchStrategy[Any]:
    """Values that the reference allows for the key (1.21), said here anew."""
    match key.type:
        case "integer":
            steps = st.integers(-(-key.minimum // key.multiple_of), key.maximum // key.multiple_of)
            return steps.map(lambda one: one * key.multiple_of)
        case "boolean":
            return st.booleans()
        case "yes_no" | "choice":
            return st.sampled_from(key.values)
        case "path":
            return st.text("abc/._ü ", max_size=20).map(lambda one: f"/{one}")
        case "time":
            return st.tuples(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59)).map(
                lambda one: "{:02}:{:02}:{:02}".format(*one)
            )
        case "text":
            return st.binary(max_size=64).map(bytes.hex)


def bad(key: ConfigurationKey) -> st.SearchStrategy[Any]:
    """Values that no key of this type can take."""
    always: list[Any] = [None, [], {}, 1.5, float("inf"), "no such value", "\0", "\ud800"]
    match key.type:
        case "integer":
            always += [key.minimum - 1, key.maximum + 1, str(key.default), True]
            always += [key.minimum + 1] if key.multiple_of > 1 else []
        case "boolean" | "yes_no":
            always += [0, 1, "", "maybe"]
        case "choice":
            always += [0, True, "", key.default.upper()]
        case "path":
            always += ["", "relative/path", "/" + 4096 * "x", 7]
        case "time":
            always += ["24:00:00", "12:60:00", "12:00", "1:00:00", "12:00:00\n", 0]
        case "text":
            always += ["abc", "zz", "00 ", 0, 130 * "ab"]
    return st.sampled_from(always)


@st.composite
def changes(draw: st.DrawFn) -> tuple[dict[str, Any], set[str]]:
    """A request and the keys of it that must be refused."""
    chosen = draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=12))
    names = [key.name for key in chosen] if draw(st.booleans()) else []
    spoilt = draw(st.sets(st.sampled_from(names))) if names else set()
    asked = {key.name: draw(bad(key) if key.name in spoilt else good(key)) for key in chosen}
    strangers = (
        draw(st.sets(st.sampled_from(["service_mode", "id", "no_such_key", ""]), max_size=2)) if spoilt else set()
    )
    return {**asked, **dict.fromkeys(strangers, True)}, spoilt | strangers


def values(world: World) -> dict[str, Any]:
    return {key.name: configured(world.state, key.name) for key in KEYS}


@given(requests=st.lists(changes(), max_size=4))
def test_any_change_is_refused_naming_every_bad_key_or_applies_exactly(
    requests: list[tuple[dict[str, Any], set[str]]],
) -> None:
    world = World()
    expected = {key.name: key.default for key in KEYS}
    for asked, refused in requests:
        position = world.state.position
        if refused:
            with pytest.raises(InvalidRequest) as caught:
                world.run(ChangeConfiguration(changes=asked))
            assert set(caught.value.errors) == refused
            assert world.state.position == position
        else:
            reply = world.run(ChangeConfiguration(changes=asked))
            differing = sorted(name for name, value in asked.items() if value != expected[name])
            assert reply.data == {"changed": differing}
            assert world.state.position == position + bool(differing), "what changes nothing is not recorded"
            expected |= asked
        assert values(world) == expected


@pytest.mark.parametrize("key", KEYS, ids=lambda one: one.name)
def test_the_record_has_an_attribute_per_key_with_its_default(key: ConfigurationKey) -> None:
    assert asdict(Configuration(id=CONFIGURATION_ID))[key.name] == key.default


def test_yes_and_no_are_taken_for_truth_values_and_the_other_way_round() -> None:
    world = World()
    world.run(ChangeConfiguration(changes={"immutable_archives": "no", "verify_archive_after_creation": True}))
    assert configured(world.state, "immutable_archives") is False
    assert configured(world.state, "verify_archive_after_creation") == "yes"


# --- service mode ------------------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    world = World().installed()
    world.client()
    return world


def configure(world: World, **changes: Any) -> None:
    world.run(ChangeConfiguration(changes=changes))


def steps(world: World, *, under_way: frozenset[int] = frozenset()) -> list[Any]:
    return next_steps(world.state, Facts(online_clients={1}, under_way=under_way), world.now_ns)


def test_service_mode_gives_nothing_out(world: World) -> None:
    new, assigned = world.queued(), world.assigned(world.queued(resource="/var")).id
    suspended = world.assigned(world.queued(resource="/opt"), catalogs=world.facts(0))
    world.now_ns = suspended.retry_at_ns
    assert {one.task_id for one in steps(world)} == {new, assigned, suspended.id}
    world.run(SetServiceMode(on=True))
    assert in_service_mode(world.state)
    assert steps(world) == []
    world.run(SetServiceMode(on=True))
    world.run(SetServiceMode(on=False))
    assert {one.task_id for one in steps(world)} == {new, assigned, suspended.id}


def test_service_mode_lets_run_what_runs_and_operators_steer_it(world: World) -> None:
    task = world.transmitting(world.queued())
    under_way = frozenset({task.id})
    world.run(SetServiceMode(on=True))
    assert steps(world, under_way=under_way) == []
    world.run(KillTask(task_id=task.id))
    assert [type(one).__name__ for one in steps(world, under_way=under_way)] == ["StopStep"]
    assert [type(one).__name__ for one in steps(world)] == ["EndKillStep"]


def test_service_mode_takes_no_new_tasks(world: World) -> None:
    backup_id = world.backed_up()
    failed = world.queued(resource="/srv")
    world.run(SetServiceMode(on=True))
    restore = {"destination_path": "/tmp/there"}
    for command in (
        QueueRestore(backup_id=backup_id, restore_task=restore),
        QueueVerification(backup_id=backup_id),
        RestartTasks(ids=[failed]),
    ):
        with pytest.raises(NotAllowedNow, match="service mode"):
            world.run(command)
    with pytest.raises(NotAllowedNow, match="service mode"):
        world.queued(**task_body(resource="/opt"))
    world.run(SetServiceMode(on=False))
    world.run(QueueVerification(backup_id=backup_id))


# --- keys and what they do ---------------------------------------------------------------------------------------------


def test_mandatory_storage_time_keeps_what_is_young(world: World) -> None:
    backup_id = world.backed_up()
    configure(world, mandatory_storage_time=2)
    with pytest.raises(Refused, match="mandatory_storage_time"):
        world.run(DeleteBackups(ids=[backup_id]))
    with pytest.raises(InvalidRequest, match="store_until"):
        world.run(ChangeStoreUntil(backup_id=backup_id, store_until=_iso(world.now_ns + 86_400 * SECOND_NS)))
    world.run(ChangeStoreUntil(backup_id=backup_id, store_until=_iso(world.now_ns + 3 * 86_400 * SECOND_NS)))
    world.now_ns += 2 * 86_400 * SECOND_NS
    world.run(DeleteBackups(ids=[backup_id]))
    assert world.state.find(Backup, backup_id) is None


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat()


@pytest.mark.parametrize("takes_along", ["yes", "no"])
def test_repository_remove_chain_says_whether_dependants_go_too(world: World, takes_along: str) -> None:
    full, dependant = world.backed_up(), world.backed_up(backup_type="incremental")
    configure(world, repository_remove_chain=takes_along)
    if takes_along == "no":
        with pytest.raises(Refused):
            world.run(DeleteBackups(ids=[full]))
        world.run(DeleteBackups(ids=[full, dependant]))
    else:
        world.run(DeleteBackups(ids=[full]))
    assert not list(world.state.all(Backup))


@pytest.mark.parametrize(("free_bytes", "status"), [(10_001, "Assigned"), (10_000, "Suspended")])
def test_pool_storage_capacity_reserve_stays_free(world: World, free_bytes: int, status: str) -> None:
    configure(world, pool_storage_capacity_reserve=10_000)
    assert world.assigned(world.queued(), catalogs=world.facts(free_bytes)).status == status


@pytest.mark.parametrize("minutes", [1, 7, 1_440])
def test_suspended_task_restart_period_says_when_it_is_tried_again(world: World, minutes: int) -> None:
    configure(world, suspended_task_restart_period=minutes)
    task = world.assigned(world.queued(), catalogs=world.facts(0))
    assert task.retry_at_ns == world.now_ns + minutes * _MINUTE_NS
    assert steps(world) == []
    world.now_ns = task.retry_at_ns
    assert [type(one).__name__ for one in steps(world)] == ["RetryStep"]


def test_a_shorter_restart_period_holds_for_tasks_that_wait_already(world: World) -> None:
    configure(world, suspended_task_restart_period=1_440)
    world.assigned(world.queued(), catalogs=world.facts(0))
    assert steps(world) == []
    configure(world, suspended_task_restart_period=1)
    assert [type(one).__name__ for one in steps(world)] == ["RetryStep"]


def test_wrong_auth_keys_say_after_how_many_failures_and_for_how_long(world: World) -> None:
    def fail() -> None:
        world.run(NoteLogin(user_name="eve", address="192.0.2.9", succeeded=False, reason="wrong password"))

    def blocked(after_minutes: int = 0) -> bool:
        return login_blocked(world.state, "eve", "192.0.2.9", world.now_ns + after_minutes * _MINUTE_NS)

    configure(world, wrong_auth_attempts_count=2, wrong_auth_block_period=5)
    fail()
    assert not blocked()
    fail()
    assert blocked()
    assert blocked(4)
    assert not blocked(5)
    configure(world, wrong_auth_block_period=60)
    assert blocked(5)
    configure(world, wrong_auth_attempts_count=0)
    assert not blocked()


# --- capacity, verification, spreading ---------------------------------------------------------------------------------

_GIB = 1 << 30


def test_clients_capacity_limits_admit_by_what_is_stored(world: World) -> None:
    task = world.transmitting(world.queued())
    backup_id = world.run(archive_of(task, archive_size=_GIB)).ids[0]
    world.run(ChangeRecord(resource="clients", id=1, changes={"storage_capacity": 1}))
    killed = world.queued(resource="/srv")
    world.run(KillTask(task_id=killed))
    configure(world, clients_capacity_limits=True)
    with pytest.raises(InvalidRequest) as refused:
        world.queued(resource="/srv")
    assert set(refused.value.errors) == {"client"}
    with pytest.raises(Refused, match="storage capacity"):
        world.run(RestartTasks(ids=[killed]))
    with pytest.raises(InvalidRequest):
        world.run(ExecuteRule(rule_id=rule(world)))
    world.run(QueueVerification(backup_id=backup_id))
    world.run(ChangeRecord(resource="clients", id=1, changes={"storage_capacity": 2}))
    world.queued(resource="/srv")
    world.run(ChangeRecord(resource="clients", id=1, changes={"storage_capacity": 0}))
    world.queued(resource="/srv")


@given(sizes=st.lists(st.tuples(st.integers(0, 5 * _GIB), st.sampled_from(["/a", "/b"])), max_size=4))
def test_what_a_client_has_stored_is_the_sum_of_its_archives(sizes: list[tuple[int, str]]) -> None:
    world = World().installed()
    world.client()
    other = world.client(hwid="bb" * 8, hostname="beta", key="cd" * 32)
    for size, resource in sizes:
        world.run(archive_of(world.transmitting(world.queued(resource=resource)), archive_size=size))
    assert stored_bytes_of(world.state, 1) == sum(size for size, _ in sizes)
    assert stored_bytes_of(world.state, other) == 0


@pytest.mark.parametrize("wanted", ["yes", "no"])
def test_verify_archive_after_creation_queues_a_verification_with_the_backup(world: World, wanted: str) -> None:
    configure(world, verify_archive_after_creation=wanted)
    backup_id = world.backed_up()
    tasks = [one for one in world.state.all(Task) if one.task_type == TaskType.VERIFY]
    assert [(one.backup_id, one.status, one.client_id) for one in tasks] == [(backup_id, "New", 1)] * (wanted == "yes")
    if tasks:
        assert world.assigned(tasks[0].id).status == "Assigned"


@pytest.mark.parametrize(("spread", "chosen"), [("sequentially", 1), ("uniformly", 2)])
def test_data_spred_into_pool_says_which_catalog_is_taken(world: World, spread: str, chosen: int) -> None:
    configure(world, data_spred_into_pool=spread, pool_storage_capacity_reserve=0)
    world.run(CreateRecord(resource="storage_local_catalogs", fields={"path": "/srv/second", "pool": "Default"}))
    facts = [
        CatalogFacts(local_catalog_id=1, online=True, free_bytes=10),
        CatalogFacts(local_catalog_id=2, online=True, free_bytes=20),
    ]
    assert world.assigned(world.queued(), catalogs=facts).local_catalog_id == chosen


# --- clients that are gone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["yes", "no"])
def test_kill_task_of_offline_client_gives_up_what_was_begun(world: World, wanted: str) -> None:
    configure(world, kill_task_of_offline_client=wanted)
    begun = world.transmitting(world.queued())
    waiting = world.queued(resource="/srv")
    world.run(AgentGone(client_id=1, reason="it vanished"))
    world.run(AdvanceTask(task_id=begun.id, status="Suspended", reason="the client is gone"))

    def given_up() -> list[int]:
        facts = Facts(online_clients=set(), under_way=set())
        return [one.task_id for one in next_steps(world.state, facts, world.now_ns) if isinstance(one, GiveUpStep)]

    world.now_ns += (OFFLINE_SECONDS - 10) * SECOND_NS
    assert given_up() == [], "a machine that starts anew goes on where it was"
    world.now_ns += 20 * SECOND_NS
    assert given_up() == [begun.id] * (wanted == "yes")
    assert waiting not in given_up(), "what nobody has begun waits"
    facts = Facts(online_clients={1}, under_way=set())
    assert not [one for one in next_steps(world.state, facts, world.now_ns) if isinstance(one, GiveUpStep)]


# --- ended tasks -------------------------------------------------------------------------------------------------------


def ended(world: World, status: str, resource: str) -> int:
    task = world.transmitting(world.queued(resource=resource))
    if status == "Done":
        world.run(archive_of(task))
    else:
        if status == "Killed":
            world.run(KillTask(task_id=task.id))
        world.run(AdvanceTask(task_id=task.id, status=status, reason="as it happens"))
    return task.id


@given(
    periods=st.fixed_dictionaries({key: st.integers(0, 200) for key in PERIODS.values()}),
    statuses=st.lists(st.sampled_from(list(PERIODS)), max_size=6),
    minutes=st.integers(0, 200),
)
@settings(max_examples=30)
def test_ended_tasks_go_when_their_period_is_over_and_not_before(
    periods: dict[str, int], statuses: list[str], minutes: int
) -> None:
    world = World().installed()
    world.client()
    configure(world, **periods)
    tasks = [ended(world, status, f"/{number}") for number, status in enumerate(statuses)]
    world.now_ns += minutes * _MINUTE_NS
    due = tasks_to_remove(world.state, world.now_ns)
    for task_id, status in zip(tasks, statuses, strict=True):
        period = periods[PERIODS[status]]
        age_ns = world.now_ns - world.task(task_id).ended_ns
        assert (task_id in due) == (period > 0 and age_ns >= period * _MINUTE_NS)
    if due:
        world.run(RemoveTasks(ids=due))
    assert tasks_to_remove(world.state, world.now_ns) == []
    world.run(SetServiceMode(on=True))
    world.now_ns += 10**6 * _MINUTE_NS
    assert tasks_to_remove(world.state, world.now_ns) == []


def test_a_removal_that_failed_stays_while_bytes_wait_for_it(world: World) -> None:
    configure(world, error_tasks_remove_period=1, done_tasks_remove_period=0)
    task_id = world.run(DeleteBackups(ids=[world.backed_up()])).data["task_ids"][0]
    world.assigned(task_id)
    world.run(AdvanceTask(task_id=task_id, status="Error", reason="the disk is gone"))
    world.now_ns += 10 * _MINUTE_NS
    assert tasks_to_remove(world.state, world.now_ns) == []
    again = world.run(RestartTasks(ids=[task_id])).ids[0]
    world.assigned(again)
    world.run(RecordBytesRemoved(backup_id=world.task(again).backup_id, bytes_removed=1))
    assert tasks_to_remove(world.state, world.now_ns) == [task_id]


def test_one_look_takes_a_bounded_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "REMOVED_AT_ONCE_MAX", 2)
    configure(world, killed_tasks_remove_period=1)
    tasks = [ended(world, "Killed", f"/{number}") for number in range(3)]
    world.now_ns += 10 * _MINUTE_NS
    assert tasks_to_remove(world.state, world.now_ns) == tasks[:2]


def test_the_table_of_effects_names_every_key_once() -> None:
    text = (Path(__file__).parents[2] / "docs/configuration.md").read_text(encoding="utf-8")
    named = [
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    assert sorted(named) == sorted(GLOBAL_CONFIGURATION)
