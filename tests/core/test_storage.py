"""Substitutions, dynamic pool groups and client-defined storages as records: one namespace, no cycle, nothing left hanging."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.commands import ChangeRecord, CreateRecord, DeleteRecords
from rbcore.destination import pools_for, substitutes_of
from rbcore.entities import DynamicPoolGroupRecord, PoolSubstitution
from rbcore.errors import InvalidRequest, Refused
from tests.core.world import World


@pytest.fixture
def world() -> World:
    return World().installed()


def create(world: World, resource: str, **fields: Any) -> int:
    return world.run(CreateRecord(resource=resource, fields=fields)).ids[0]


def pool(world: World, name: str, pool_type: str = "File system", **fields: Any) -> int:
    return create(world, "pool_list", pool_name=name, pool_type=pool_type, **fields)


def refusal(world: World, resource: str, **fields: Any) -> dict[str, list[str]]:
    with pytest.raises(InvalidRequest) as refused:
        create(world, resource, **fields)
    return refused.value.errors


def why_not_deleted(world: World, resource: str, id: int) -> str:
    with pytest.raises(Refused) as refused:
        world.run(DeleteRecords(resource=resource, ids=[id]))
    return " ".join(refused.value.errors[str(id)])


def test_a_pool_has_one_substitution_that_is_another_pool_of_its_class(world: World) -> None:
    pool(world, "second")
    pool(world, "tape", "Tape library, Native")
    pool(world, "blocks", "Block device", meta_data_pool="Default")
    pool(world, "own", "Client defined")
    assert (
        "does not stand in for itself"
        in refusal(world, "pool_substitution", pool="second", substitution="second")["substitution"][0]
    )
    for other in ("blocks", "own"):
        errors = refusal(world, "pool_substitution", pool="second", substitution=other)
        assert "pools that keep archives whole" in errors["substitution"][0]
    create(world, "pool_substitution", pool="second", substitution="tape")
    assert (
        "has a substitution already (id 1)"
        in refusal(world, "pool_substitution", pool="second", substitution="Default")["pool"][0]
    )
    for number in (2, 3):
        assert "pool substitutions name it (ids 1)" in why_not_deleted(world, "pool_list", number)
    world.run(DeleteRecords(resource="pool_substitution", ids=[1]))
    world.run(DeleteRecords(resource="pool_list", ids=[2, 3]))


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_chains_of_substitutions_end_whatever_is_asked_for(links: list[tuple[int, int]]) -> None:
    world = World().installed()
    for number in range(2, 7):
        pool(world, f"p{number}")
    names = {1: "Default"} | {number: f"p{number}" for number in range(2, 7)}
    kept: dict[int, int] = {}

    def reaches(start: int, goal: int) -> bool:
        while start in kept:
            start = kept[start]
            if start == goal:
                return True
        return start == goal

    for source, target in links:
        allowed = source not in kept and source != target and not reaches(target, source)
        try:
            create(world, "pool_substitution", pool=names[source], substitution=names[target])
        except InvalidRequest:
            assert not allowed, (source, target, kept)
        else:
            assert allowed, (source, target, kept)
            kept[source] = target
    for start in names:
        walk, here = [], start
        while here in kept:
            here = kept[here]
            walk.append(here)
        assert substitutes_of(world.state, start) == walk
        assert pools_for(world.state, start) == [start, *walk]
    assert len(world.state.tables[PoolSubstitution.KIND]) == len(kept)


def test_pools_and_groups_share_one_namespace_both_ways(world: World) -> None:
    group = create(world, "dynamic_pool_groups", name="fast")
    second = pool(world, "second")
    assert "pools and groups share their names" in refusal(world, "dynamic_pool_groups", name="second")["name"][0]
    errors = refusal(world, "pool_list", pool_name="fast", pool_type="File system")
    assert "pools and groups share their names" in errors["pool_name"][0]
    for resource, number, changes in (
        ("pool_list", second, {"pool_name": "fast"}),
        ("dynamic_pool_groups", group, {"name": "Default"}),
    ):
        with pytest.raises(InvalidRequest, match="not acceptable"):
            world.run(ChangeRecord(resource=resource, id=number, changes=changes))
    world.run(DeleteRecords(resource="dynamic_pool_groups", ids=[group]))
    world.run(ChangeRecord(resource="pool_list", id=second, changes={"pool_name": "fast"}))


def test_a_group_takes_its_records_along_and_a_pool_in_a_group_stays(world: World) -> None:
    pool(world, "second")
    group = create(world, "dynamic_pool_groups", name="fast")
    other = create(world, "dynamic_pool_groups", name="other")
    for name in ("Default", "second"):
        create(world, "dynamic_pool_groups_records", dynamic_pool_group=group, pool=name)
    create(world, "dynamic_pool_groups_records", dynamic_pool_group=other, pool="second", enabled=False)
    assert pools_for(world.state, -group) == [1, 2]
    assert pools_for(world.state, -other) == []
    errors = refusal(world, "dynamic_pool_groups_records", dynamic_pool_group=group, pool="second")
    assert "in the group already (record 2)" in errors["pool"][0]
    errors = refusal(world, "dynamic_pool_groups_records", dynamic_pool_group=9, pool="second")
    assert "no pool group with id 9" in errors["dynamic_pool_group"][0]
    assert "dynamic_pool_groups_records 2, 3" in why_not_deleted(world, "pool_list", 2)
    world.run(DeleteRecords(resource="dynamic_pool_groups", ids=[group]))
    assert [one.id for one in world.state.all(DynamicPoolGroupRecord)] == [3]


def test_client_defined_storages_belong_to_pools_of_their_type(world: World) -> None:
    pool(world, "own", "Client defined")
    pool(world, "second")
    assert (
        "name a pool of the type Client defined"
        in refusal(world, "client_defined_storages", pool="Default", metadata_fs_pool="second")["pool"][0]
    )
    assert (
        "File system pool of the same media server"
        in refusal(world, "client_defined_storages", pool="own", metadata_fs_pool="own")["metadata_fs_pool"][0]
    )
    made = create(world, "client_defined_storages", pool="own", metadata_fs_pool="second", name="appliance")
    for number in (2, 3):
        assert "client-defined storages name it (ids 1)" in why_not_deleted(world, "pool_list", number)
    world.run(ChangeRecord(resource="client_defined_storages", id=made, changes={"metadata_fs_pool": "Default"}))
    world.run(DeleteRecords(resource="pool_list", ids=[3]))
    with pytest.raises(InvalidRequest):
        world.run(ChangeRecord(resource="client_defined_storages", id=made, changes={"metadata_fs_pool": "own"}))


@pytest.mark.parametrize(
    ("pool_type", "compression", "deduplication"),
    [
        ("File system", "best", (None, None, None, 0)),
        ("Tape library", "best", (None, None, None, 0)),
        ("Tape library, LTFS", "best", (None, None, None, 0)),
        ("Tape library, Native", "best", (None, None, None, 0)),
        ("Cloud", "best", (None, None, None, 0)),
        ("Client defined", "None", (None, None, None, 0)),
        ("Block device", "None", ("sha2", 512, 65_536, 1)),
    ],
)
def test_each_type_keeps_the_parameters_that_fit_it(
    world: World, pool_type: str, compression: str, deduplication: tuple[Any, ...]
) -> None:
    """The others are ignored, not refused (reference 2.6), when a pool is made and when it is changed."""
    given = {"algorithm": "sha2", "hash_length": 512, "block_size": 65_536, "meta_data_pool": "Default"}
    made = pool(world, "p", pool_type, compression_type="best", retention_period="1 year", **given)

    def shown() -> tuple[Any, ...]:
        one = world.state.tables["pool"][made]
        return one.compression_type, (one.algorithm, one.hash_length, one.block_size, one.meta_data_pool)

    assert shown() == (compression, deduplication)
    changes = {"compression_type": "optimal", "algorithm": "sha1", "block_size": 16_384, "pool_type": "Cloud"}
    world.run(ChangeRecord(resource="pool_list", id=made, changes=changes))
    assert shown() == ("optimal" if compression == "best" else "None", deduplication)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"algorithm": "sha1", "hash_length": 256}, "hash_length"),
        ({"block_size": 1000}, "block_size"),
        ({"meta_data_pool": None}, "meta_data_pool"),
        ({"meta_data_pool": "blocks"}, "meta_data_pool"),
        ({"algorithm": "md5"}, "algorithm"),
    ],
)
def test_a_block_device_pool_is_whole(world: World, wrong: dict[str, Any], field: str) -> None:
    pool(world, "blocks", "Block device", meta_data_pool="Default")
    errors = refusal(
        world, "pool_list", pool_name="p", pool_type="Block device", **{"meta_data_pool": "Default", **wrong}
    )
    assert list(errors) == [field]
