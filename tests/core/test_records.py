"""Records of declared resources: what a declaration promises is what ``decide`` enforces."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.commands import (
    AddBuiltIns,
    ChangeRecord,
    CreateRecord,
    DeleteRecords,
    Initialise,
    KillTask,
    RestartTasks,
    SetCredential,
)
from rbcore.entities import ENTITIES, Pool, UserGroup
from rbcore.errors import InvalidRequest, NotFound, Refused
from rbcore.indexes import KEYS
from rbcore.resource import (
    Boolean,
    Choice,
    Computed,
    Field,
    Integer,
    Interval,
    JsonObject,
    Reference,
    Text,
    Timestamp,
    YesNo,
)
from rbcore.resources import RESOURCES, by_kind, by_name
from rbcore.vocabulary import NOBODY
from tests.core.world import World


@pytest.fixture
def world() -> World:
    return World().installed()


def create(world: World, resource: str, **fields: Any) -> int:
    return world.run(CreateRecord(resource=resource, fields=fields)).ids[0]


def change(world: World, resource: str, record: int, /, **changes: Any) -> None:
    world.run(ChangeRecord(resource=resource, id=record, changes=changes))


def pool(world: World, id: int) -> Pool:
    found = world.state.find(Pool, id)
    assert found is not None
    return found


# --- declarations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda one: one.name)
def test_declarations_fit_their_entities(resource: Any) -> None:
    attributes = set(resource.entity.__struct_fields__)
    assert by_name[resource.name] is by_kind[resource.kind] is resource
    assert ENTITIES[resource.kind] is resource.entity
    names = [field.name for field in resource.fields]
    assert len(set(names)) == len(names)
    assert "id" not in names
    assert set(resource.create) | set(resource.change) <= set(names)
    assert set(resource.change) <= set(resource.create) or not resource.create
    for field in resource.fields:
        assert isinstance(field, Computed) or field.source in attributes, field.name
        if isinstance(field, Reference):
            target = by_kind[field.to]
            assert field.by in {one.name for one in target.fields}, field.name
            assert field.to in KEYS
    required = set(attributes) - {"id", "created_ns"} if resource.create else set()
    defaults = {name for name in required if name not in {f.source for f in map(resource.field, resource.create)}}
    with_default = dict(zip(resource.entity.__struct_fields__, _defaults(resource.entity), strict=True))
    assert all(with_default[name] is not msgspec.NODEFAULT for name in defaults), defaults


def _defaults(entity: Any) -> list[Any]:
    return [
        one.default if one.default_factory is msgspec.NODEFAULT else one.default_factory
        for one in msgspec.structs.fields(entity)
    ]


# --- create ----------------------------------------------------------------------------------------------------------


def test_the_manuals_sample_pool_ignores_what_does_not_fit_its_type(world: World) -> None:
    made_id = create(
        world,
        "pool_list",
        pool_name="my_pool_name",
        pool_type="File system",
        media_server="main",
        compression_type="None",
        description="",
        retention_period="1 Years",
        ignore_free_space_check=False,
        algorithm="streebog",
        block_size=131072,
        hash_length=256,
        meta_data_pool="Default",
    )
    made = pool(world, made_id)
    assert (made.algorithm, made.block_size, made.hash_length, made.meta_data_pool) == (None, None, None, 0)
    assert (made.compression_type, made.retention_period, made.media_server) == ("None", "1 year", 1)


def test_block_device_pools_check_their_deduplication(world: World) -> None:
    sample: dict[str, Any] = {"pool_type": "Block device", "compression_type": "best", "meta_data_pool": "Default"}
    made = pool(world, create(world, "pool_list", pool_name="a", **sample))
    assert (made.algorithm, made.hash_length, made.block_size) == ("streebog", 256, 131072)
    assert (made.compression_type, made.meta_data_pool) == ("None", 1)
    sha1 = pool(world, create(world, "pool_list", pool_name="b", algorithm="sha1", **sample))
    assert sha1.hash_length == 160
    for wrong, field in (
        ({"algorithm": "sha1", "hash_length": 256}, "hash_length"),
        ({"block_size": 1000}, "block_size"),
        ({"meta_data_pool": None}, "meta_data_pool"),
        ({"meta_data_pool": "a"}, "meta_data_pool"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            create(world, "pool_list", pool_name="c", **{**sample, **wrong})
        assert list(refused.value.errors) == [field]


def test_all_faults_are_named_at_once(world: World) -> None:
    before = world.state.position
    with pytest.raises(InvalidRequest) as refused:
        create(world, "pool_list", pool_type="File", media_server="nowhere", retention_period="soon", wrong=1)
    assert set(refused.value.errors) == {"pool_name", "pool_type", "media_server", "retention_period", "wrong"}
    assert refused.value.errors["media_server"] == ["media_server: there is no media server 'nowhere'"]
    assert world.state.position == before


def test_names_are_unique_and_references_go_by_name(world: World) -> None:
    with pytest.raises(InvalidRequest, match="not acceptable: pool_name"):
        create(world, "pool_list", pool_name="Default", pool_type="File system")
    second = create(world, "pool_list", pool_name="second", pool_type="Tape library")
    assert pool(world, second).pool_type == "Tape library, LTFS"
    with pytest.raises(InvalidRequest) as refused:
        create(world, "storage_local_catalogs", path="/x", pool="second")
    assert "belongs to a File system pool" in refused.value.errors["pool"][0]


@pytest.mark.parametrize("pool_type", ["Cloud", "Block device", "Client defined"])
def test_pools_without_a_data_plane_can_be_managed(world: World, pool_type: str) -> None:
    made = create(world, "pool_list", pool_name="later", pool_type=pool_type, meta_data_pool="Default")
    assert pool(world, made).pool_type == pool_type
    change(world, "pool_list", made, pool_name="much later")
    world.run(DeleteRecords(resource="pool_list", ids=[made]))


@pytest.mark.parametrize("path", ["relative", "", "/a/../b", "/a/", "/a//b", "/srv/default/inner", "/srv", "/nul\0"])
def test_catalog_paths_are_plain_and_not_nested(world: World, path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        create(world, "storage_local_catalogs", path=path, pool="Default")
    assert "path" in refused.value.errors


def test_what_is_not_made_or_deleted_by_requests_says_so(world: World) -> None:
    with pytest.raises(Refused, match="A media server is not made by a request"):
        create(world, "media_servers", hostname="x")
    with pytest.raises(Refused, match="A robot is not deleted by a request"):
        world.run(DeleteRecords(resource="medium_changers", ids=[1]))
    with pytest.raises(NotFound):
        create(world, "nothing")


# --- change ----------------------------------------------------------------------------------------------------------


def test_immutable_fields_are_never_applied(world: World) -> None:
    made_id = create(world, "pool_list", pool_name="p", pool_type="File system")
    change(world, "pool_list", made_id, id=99, pool_type="Cloud", media_server="nowhere", description="new")
    assert (pool(world, made_id).pool_type, pool(world, made_id).description) == ("File system", "new")
    position = world.state.position
    change(world, "pool_list", made_id, description="new")
    assert world.state.position == position, "nothing differs, so nothing is recorded"
    with pytest.raises(InvalidRequest, match="wrong"):
        change(world, "pool_list", made_id, wrong=1)
    with pytest.raises(InvalidRequest, match="pool_name"):
        change(world, "pool_list", made_id, pool_name="Default")
    with pytest.raises(NotFound, match="pool not found"):
        change(world, "pool_list", 77, description="x")


def test_built_in_records_keep_their_names_and_stay(world: World) -> None:
    change(world, "pool_list", 1, description="may change", compression_type="best")
    for resource, field in (("pool_list", "pool_name"), ("client_groups", "name")):
        with pytest.raises(InvalidRequest) as refused:
            change(world, resource, 1, **{field: "other"})
        assert list(refused.value.errors) == [field]
        with pytest.raises(Refused, match="it is built in"):
            world.run(DeleteRecords(resource=resource, ids=[1]))


def test_a_client_is_changed_by_names(world: World) -> None:
    client = world.client()
    group = create(world, "client_groups", name="web", clustered=True)
    assert world.state.tables["client_group"][group].shared
    change(world, "clients", client, group_id="web", ls_pool="Default", lsf_flag="yes", storage_capacity=10)
    found = world.state.tables["client"][client]
    assert (found.group_id, found.lsf_flag, found.storage_capacity) == (group, True, 10)
    with pytest.raises(Refused, match=f"clients belong to it .ids {client}"):
        world.run(DeleteRecords(resource="client_groups", ids=[group]))


# --- delete ----------------------------------------------------------------------------------------------------------


def test_deletion_is_all_or_nothing_and_names_what_is_missing(world: World) -> None:
    first = create(world, "pool_list", pool_name="a", pool_type="File system")
    second = create(world, "pool_list", pool_name="b", pool_type="File system")
    create(world, "storage_local_catalogs", path="/b", pool="b")
    with pytest.raises(NotFound) as missing:
        world.run(DeleteRecords(resource="pool_list", ids=[first, 88, 99]))
    assert missing.value.data == {"ids": [88, 99]}
    with pytest.raises(Refused) as refused:
        world.run(DeleteRecords(resource="pool_list", ids=[first, second]))
    assert refused.value.data == {"ids": [second]}
    assert "local catalogs belong to it (ids 2)" in refused.value.errors[str(second)][0]
    assert sorted(world.state.tables["pool"]) == [1, first, second]
    world.run(DeleteRecords(resource="storage_local_catalogs", ids=[2]))
    world.run(DeleteRecords(resource="pool_list", ids=[second, first, first]))
    assert sorted(world.state.tables["pool"]) == [1]
    assert create(world, "pool_list", pool_name="a", pool_type="File system") == second + 1, "ids are never used twice"


def test_what_has_backups_or_work_stays(world: World) -> None:
    world.client()
    backup = world.backed_up()
    world.queued(resource="/etc")
    with pytest.raises(Refused) as refused:
        world.run(DeleteRecords(resource="storage_local_catalogs", ids=[1]))
    assert "1 backup of the repository is stored there" in str(refused.value)
    with pytest.raises(Refused) as refused:
        world.run(DeleteRecords(resource="clients", ids=[1]))
    assert "tasks that have not ended belong to it (ids 2)" in str(refused.value)
    with pytest.raises(Refused) as refused:
        world.run(DeleteRecords(resource="pool_list", ids=[1]))
    said = " ".join(refused.value.errors["1"])
    assert "the repository has 1 backup in it" in said
    assert "tasks that have not ended need it (ids 2)" in said
    world.run(DeleteRecords(resource="repository", ids=[backup]))
    with pytest.raises(NotFound, match="task not found"):
        world.run(DeleteRecords(resource="task_queue", ids=[2, 99]))
    world.run(DeleteRecords(resource="task_queue", ids=[1, 2]))
    assert sorted(world.state.tables["task"]) == [3], "the Delete task of the backup"


# --- anything whatsoever ---------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def plausible(field: Field) -> st.SearchStrategy[Any]:
    match field:
        case Integer():
            return st.integers(-1, 2**70)
        case Boolean() | YesNo():
            return st.sampled_from([True, False, "yes", "no", "YES", "true"])
        case Choice():
            return st.sampled_from(field.values)
        case Interval():
            return st.sampled_from(["1 Years", "3 days", "1 min", "never"])
        case Reference():
            return st.sampled_from(["Default", "main", "No group", "nowhere"])
        case Timestamp():
            return st.just("2030-01-01")
        case Text():
            return st.sampled_from(["/srv/x", "name", "", "\ud800", "a" * 5000, "Default", "\0"])
        case JsonObject():
            return JSON
    return JSON


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_body_is_applied_or_refused_with_an_address(data: st.DataObject) -> None:
    world = World().installed()
    resource = data.draw(st.sampled_from([one for one in RESOURCES if one.create]))
    names = st.sampled_from([*resource.create, "unknown", "id"])
    chosen = data.draw(st.lists(names, unique=True))
    fields = {
        name: data.draw(JSON if name not in resource.create else plausible(resource.field(name)) | JSON)
        for name in chosen
    }
    for command in (
        CreateRecord(resource=resource.name, fields=fields),
        ChangeRecord(resource=resource.name, id=1, changes=fields),
    ):
        with suppress(InvalidRequest, NotFound, Refused):
            world.run(command)


def test_initialise_happens_once(world: World) -> None:
    position = world.state.position
    again = Initialise(hostname="x", hwid="y", superuser="z", credential_id="w", default_catalog_path="/v")
    assert world.run(again).position == position
    assert world.state.tables["user"][1].roles == ("superuser",)
    world.run(SetCredential(user_id=1, credential_id="second"))
    assert world.state.tables["user"][1].credential_id == "second"
    with pytest.raises(NotFound, match="user not found"):
        world.run(SetCredential(user_id=2, credential_id="x"))


def test_an_installation_of_an_earlier_release_gets_what_it_lacks_once() -> None:
    world = World()
    assert world.run(AddBuiltIns()).position == 0, "nothing is added where nothing is installed"
    world.installed()
    (nobody,) = world.state.all(UserGroup)
    assert (nobody.id, nobody.groupname, nobody.protected) == (1, NOBODY, True)
    position = world.state.position
    assert world.run(AddBuiltIns()).position == position, "it has all of it"
    world.state.replace(UserGroup.KIND, 1, None)  # as if it had never been made
    world.run(AddBuiltIns())
    (again,) = world.state.all(UserGroup)
    assert (again.groupname, again.protected) == (NOBODY, True)
    world.run(AddBuiltIns())
    assert list(world.state.all(UserGroup)) == [again]


@pytest.mark.parametrize(
    "command",
    [
        ChangeRecord(resource="user_groups", id=1, changes={"groupname": "Somebody"}),
        DeleteRecords(resource="user_groups", ids=[1]),
    ],
)
def test_nobody_is_neither_renamed_nor_deleted(world: World, command: ChangeRecord | DeleteRecords) -> None:
    with pytest.raises((InvalidRequest, Refused)) as refused:
        world.run(command)
    assert "built" in str(refused.value.errors)


def test_the_end_of_a_catalog_ends_waiting_removals(world: World) -> None:
    world.client()
    backup = world.backed_up()
    (delete,) = world.run(DeleteRecords(resource="repository", ids=[backup])).data["task_ids"]
    assert set(world.state.tables["pending_removal"]) == {backup}
    world.run(KillTask(task_id=delete))
    world.run(DeleteRecords(resource="storage_local_catalogs", ids=[1]))
    assert world.state.tables["pending_removal"] == {}
    with pytest.raises(Refused, match=f"no bytes of backup {backup} are left"):
        world.run(RestartTasks(ids=[delete]))
