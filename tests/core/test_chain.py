"""Chains: which parent a backup gets, and what goes along with a deletion."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.chain import (
    CHAIN_LENGTH_MAX,
    ancestors,
    chain_of,
    choose_parent,
    deletion_reference_chain,
    dependants,
    taken_along,
)
from rbcore.commands import (
    AdvanceTask,
    CatalogFacts,
    CreateRecord,
    DeleteBackups,
    QueueVerification,
    RecordVerification,
)
from rbcore.decide.repository import refuse_dependants
from rbcore.entities import Backup, Pool
from rbcore.errors import NotFound, Refused
from rbcore.state import State
from tests.core.world import PLENTY_BYTES, World

GROUP = (1, "File system", "/home")
POOL = Pool(id=1, pool_name="Default", pool_type="File system", media_server=1)


def backup(id: int, ref_id: int = 0, **given: Any) -> Backup:
    values: dict[str, Any] = {
        "archive": f"{id:032x}",
        "client_id": 1,
        "resource_type": "File system",
        "resource": "/home/",
        "backup_type": "incremental" if ref_id else "full",
        "pool_id": 1,
        "local_catalog_id": 1,
        "media_server_id": 1,
        "task_id": id,
        "created_ns": id,
        "started_ns": id,
        "archive_size": 1,
        "data_size": 1,
        "files": 1,
        "problems": 0,
        "blocks": 1,
        "root": "",
        "signature": "",
        "crypto": "nocrypt",
        "compression": "fast",
        "key_id": "",
        "store_until_ns": 0,
    }
    return Backup(id=id, ref_id=ref_id, **{**values, **given})


def repository(*backups: Backup) -> State:
    state = State()
    state.replace("pool", 1, POOL)
    for one in backups:
        state.replace("backup", one.id, one)
    return state


def parent_of(
    state: State, backup_type: str = "incremental", crypto: str = "nocrypt", **unreadable: str
) -> tuple[int, str]:
    found = choose_parent(
        state,
        backup_type=backup_type,
        group=GROUP,
        pool=POOL,
        crypto=crypto,
        unreadable_catalogs={int(key[1:]): why for key, why in unreadable.items()},
    )
    return (found.backup.id if found.backup else 0), " ".join([found.reason, *found.rejected])


def test_an_incremental_refers_to_the_newest_and_a_differential_to_the_newest_full() -> None:
    state = repository(backup(1), backup(2, 1), backup(3), backup(4, 3), backup(5, 4))
    assert parent_of(state)[0] == 5
    assert parent_of(state, "differential")[0] == 3
    assert parent_of(state, "full") == (0, "a full backup has no parent")


def test_backups_of_another_resource_or_client_are_no_parents() -> None:
    state = repository(backup(1, resource="/etc"), backup(2, client_id=2), backup(3, resource_type="Block device"))
    assert parent_of(state) == (0, "made full instead of incremental: there is no backup of the resource yet")


@pytest.mark.parametrize(
    ("newest", "why"),
    [
        (backup(2, verification_status="Broken"), "backup 2 is Broken"),
        (backup(2, crypto="AES-256-GCM"), "its crypto is AES-256-GCM, not nocrypt"),
        (backup(2, pool_id=9), "a pool that is not of the type File system"),
        (backup(2, local_catalog_id=7), "its catalog cannot be read: unplugged"),
        (backup(2, 99), "backup 99, its ancestor, is not in the repository"),
    ],
)
def test_an_unusable_parent_is_passed_over_and_says_why(newest: Backup, why: str) -> None:
    chosen, said = parent_of(repository(backup(1), newest), _7="unplugged")
    assert chosen == 1
    assert why in said
    chosen, said = parent_of(repository(newest), _7="unplugged")
    assert chosen == 0
    assert "made full instead of incremental: none of them is usable" in said
    assert why in said


def test_a_broken_ancestor_breaks_what_depends_on_it() -> None:
    state = repository(backup(1), backup(2, verification_status="Broken"), backup(3, 2), backup(4, 3))
    chosen, said = parent_of(state)
    assert chosen == 1
    assert "Backup 4 is no parent: backup 2 is Broken." in said


def test_chains_are_bounded() -> None:
    state = repository(*(backup(number, number - 1) for number in range(1, CHAIN_LENGTH_MAX + 1)))
    chosen, said = parent_of(state)
    assert chosen == CHAIN_LENGTH_MAX - 1  # a branch off the chain is as long as the chain may be
    assert f"its chain has {CHAIN_LENGTH_MAX} links already" in said


def test_a_long_faulty_chain_is_walked_once() -> None:
    broken = backup(1, verification_status="Broken")
    state = repository(broken, *(backup(number, number - 1) for number in range(2, 900)))
    looked_up: list[int] = []
    find = state.find

    class Counting(State):
        def find(self, kind: Any, id: int) -> Any:
            looked_up.append(id)
            return find(kind, id)

    counting = Counting()
    counting.tables, counting.indexes = state.tables, state.indexes
    assert parent_of(counting)[0] == 0
    assert len(looked_up) < 10 * 900


PARENTS = st.lists(st.floats(0, 1, exclude_max=True), max_size=30)
"""One number per backup: where its parent lies among the older ones; the first part of the range means none."""


def tree(draws: list[float]) -> State:
    found = []
    for number, draw in enumerate(draws, start=1):
        found.append(backup(number, int(draw * number)))
    return repository(*found)


@given(PARENTS)
def test_dependants_are_exactly_those_whose_chain_holds_the_backup(draws: list[float]) -> None:
    state = tree(draws)
    everything = list(state.all(Backup))
    for one in everything:
        expected = [other.id for other in everything if one in ancestors(state, other)]
        assert dependants(state, [one.id]) == expected
        assert deletion_reference_chain(state, [one.id, 999]) == {one.id: expected}
        chain = chain_of(state, one)
        assert chain[0].ref_id == 0
        assert all(later.ref_id == earlier.id for earlier, later in pairwise(chain))


@given(PARENTS, st.data())
def test_a_deletion_takes_exactly_the_dependants_along(draws: list[float], data: st.DataObject) -> None:
    state = tree(draws)
    named = data.draw(st.lists(st.sampled_from(sorted(state.tables["backup"])), unique=True)) if draws else []
    because_of = taken_along(state, named)
    assert sorted(because_of) == sorted({*named, *dependants(state, named)})
    for gone, cause in because_of.items():
        assert (cause == 0) == (gone in named)
        assert not cause or gone in dependants(state, [cause])


# --- deletion --------------------------------------------------------------------------------------------------------


def world_with_chain() -> tuple[World, list[int]]:
    world = World().installed()
    world.client()
    return world, [world.backed_up(backup_type=kind) for kind in ("full", "incremental", "incremental", "differential")]


def test_deletion_takes_the_chain_along() -> None:
    world, (full, first, second, differential) = world_with_chain()
    assert [world.state.tables["backup"][one].ref_id for one in (full, first, second, differential)] == [
        0,
        full,
        first,
        full,
    ]
    reply = world.run(DeleteBackups(ids=[first]))
    assert reply.ids == [first, second]
    assert sorted(world.state.tables["backup"]) == [full, differential]
    assert sorted(world.state.tables["pending_removal"]) == [first, second]
    deletes = [world.task(task_id) for task_id in reply.data["task_ids"]]
    assert [(task.task_type, task.status, task.backup_id) for task in deletes] == [
        ("Delete", "New", second),
        ("Delete", "New", first),
    ]


def test_deletion_is_all_or_nothing() -> None:
    world, (full, *_others) = world_with_chain()
    with pytest.raises(NotFound) as missing:
        world.run(DeleteBackups(ids=[full, 999_999]))
    assert missing.value.data == {"ids": [999_999]}
    verification = world.run(QueueVerification(backup_id=full)).ids[0]
    with pytest.raises(Refused, match=f"task {verification} .Verify, New. needs it") as refused:
        world.run(DeleteBackups(ids=[full]))
    assert refused.value.data == {"ids": [full]}
    assert len(world.state.tables["backup"]) == 4


def test_a_parent_stays_while_a_backup_is_being_made_on_it() -> None:
    world, (full, _first, second, _differential) = world_with_chain()
    task = world.assigned(world.queued(backup_type="incremental"))
    assert task.parent_backup_id == 4
    with pytest.raises(Refused, match=f"task {task.id}"):
        world.run(DeleteBackups(ids=[full]))
    assert world.run(DeleteBackups(ids=[second])).ids == [second]


def test_without_repository_remove_chain_dependants_protect_their_ancestors() -> None:
    world, (full, first, second, differential) = world_with_chain()
    backups = [world.state.tables["backup"][one] for one in (full, first, second, differential)]
    refuse_dependants(world.state, backups)
    refuse_dependants(world.state, [backups[2]])
    with pytest.raises(Refused, match=f"Backup {first} cannot be deleted: backups {second} depend on it"):
        refuse_dependants(world.state, [backups[1]])


def test_after_a_broken_verification_the_next_backup_is_full_and_says_so() -> None:
    world, (_full, _first, second, differential) = world_with_chain()
    for broken in (second, differential):
        task = world.assigned(world.run(QueueVerification(backup_id=broken)).ids[0])
        world.run(AdvanceTask(task_id=task.id, status="Execution"))
        world.run(RecordVerification(task_id=task.id, status="Broken", bytes_read=5, findings=["block 7 is damaged"]))
        assert world.task(task.id).status == "Done"
        assert world.state.tables["backup"][broken].findings == ("block 7 is damaged",)
    assert world.assigned(world.queued(backup_type="incremental")).parent_backup_id == 2


@given(st.lists(st.sampled_from(["full", "incremental", "differential"]), min_size=1, max_size=6), st.data())
@settings(max_examples=25, deadline=None)
def test_no_backup_ever_refers_to_one_that_is_gone(kinds: list[str], data: st.DataObject) -> None:
    world = World().installed()
    world.client()
    for kind in kinds:
        world.backed_up(backup_type=kind)
        if data.draw(st.booleans()):
            alive = sorted(world.state.tables["backup"])
            if alive:
                world.run(DeleteBackups(ids=[data.draw(st.sampled_from(alive))]))
        for one in world.state.all(Backup):
            assert not one.ref_id or world.state.find(Backup, one.ref_id) is not None


def test_the_first_catalog_with_room_is_taken_and_the_others_say_why_not() -> None:
    world = World().installed()
    world.client()
    for name in ("b", "c"):
        world.run(CreateRecord(resource="storage_local_catalogs", fields={"path": f"/srv/{name}", "pool": "Default"}))
    facts = [
        CatalogFacts(local_catalog_id=1, online=False, free_bytes=0, problem="it is not mounted"),
        CatalogFacts(local_catalog_id=2, online=True, free_bytes=2_000_000_000),
        CatalogFacts(local_catalog_id=3, online=True, free_bytes=PLENTY_BYTES),
    ]
    task = world.assigned(world.queued(), catalogs=facts)
    assert task.local_catalog_id == 3
    suspended = world.assigned(world.queued(resource="/etc"), catalogs=facts[:2])
    assert suspended.status == "Suspended"
    assert suspended.retry_at_ns == world.now_ns + 60 * 10**9
    for reason in ("it is not mounted", "2000000000 bytes are free", "/srv/c: nobody could look at it"):
        assert reason in suspended.status_reason
