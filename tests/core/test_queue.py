"""What puts tasks into the queue: the documented bodies, and what makes them unacceptable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbcore.commands import (
    AdvanceTask,
    AssignTask,
    ChangeRecord,
    ChangeStoreUntil,
    CreateRecord,
    DeleteBackups,
    DeleteRecords,
    KillTask,
    NoteTask,
    QueueBackup,
    QueueRestore,
    QueueVerification,
    RecordBytesRemoved,
    RecordVerification,
    RestartTasks,
)
from rbcore.decide.decision import LINES_MAX, bounded
from rbcore.entities import Backup
from rbcore.errors import InvalidRequest, NotAllowedNow, NotFound, Refused
from rbcore.interval import parse_moment
from tests.core.world import SECOND_NS, World, archive_of, task_body

BETA = {"hwid": "55e05458152af100", "hostname": "beta", "key": "cd" * 32}


@pytest.fixture
def world() -> World:
    world = World().installed()
    world.client()
    return world


def refusal(world: World, **fields: Any) -> dict[str, list[str]]:
    with pytest.raises(InvalidRequest) as refused:
        world.queued(**fields)
    return refused.value.errors


def backup(world: World, id: int = 1) -> Backup:
    found = world.state.find(Backup, id)
    assert found is not None
    return found


# --- backups ---------------------------------------------------------------------------------------------------------


def test_the_manuals_sample_is_queued(world: World) -> None:
    extensions: dict[str, Any] = {
        "module_extensions": {"parameters": {"file_list": True}},
        "common_modules_extensions": {"parameters": {}},
    }
    reply = world.run(QueueBackup(task=task_body(), **extensions))
    expected = "Resource with name 'Task Queue' was created successfully! TASK WAS ADDED TO QUEUE:1"
    assert (reply.message, reply.data) == (expected, {"task_id": 1})
    task = world.task(1)
    assert (task.status, task.client_id, task.pool_id, task.storage_duration) == ("New", 1, 1, "1 year")
    assert task.parameters == extensions


@pytest.mark.parametrize("key", sorted(task_body()))
def test_all_nine_keys_are_required(world: World, key: str) -> None:
    body = task_body()
    del body[key]
    with pytest.raises(InvalidRequest) as refused:
        world.run(QueueBackup(task=body))
    assert refused.value.errors == {key: ["This field is required."]}


@pytest.mark.parametrize(
    ("wrong", "key", "says"),
    [
        ({"resource_type": "PostgreSQL universal"}, "resource_type", "it can back up: File system"),
        ({"resource_type": "Cassette"}, "resource_type", "must be one of"),
        ({"resource": "home"}, "resource", "absolute path"),
        ({"resource": "/home/../etc"}, "resource", "have no place"),
        ({"client": "alpha"}, "client", "hostname (hwid)"),
        ({"client": "alpha (ffffffffffffffff)"}, "client", "no authorised client"),
        ({"backup_type": "whole"}, "backup_type", "full, incremental, differential"),
        ({"pool": "nowhere"}, "pool", "no pool 'nowhere'"),
        ({"crypto": "rot13"}, "crypto", "AES-256-GCM"),
        ({"priority": 1001}, "priority", "between 0 and 1000"),
        ({"priority": True}, "priority", "whole number"),
        ({"storage_duration": "ever"}, "storage_duration", "interval"),
        ({"storage_duration": "0 days"}, "storage_duration", "longer than nothing"),
        ({"archiving": "perhaps"}, "archiving", "true or false"),
        ({"surprise": 1}, "surprise", "not known"),
    ],
)
def test_each_key_is_checked(world: World, wrong: dict[str, Any], key: str, says: str) -> None:
    errors = refusal(world, **wrong)
    assert list(errors) == [key]
    assert says in errors[key][0]
    assert not world.state.tables["task"]


def test_the_host_name_of_a_client_is_a_hint(world: World) -> None:
    assert world.task(world.queued(client="old name (525a99154f3505a2)")).client_id == 1


def test_pools_without_a_data_plane_are_refused_by_name(world: World) -> None:
    world.run(CreateRecord(resource="pool_list", fields={"pool_name": "own", "pool_type": "Client defined"}))
    (said,) = refusal(world, pool="own")["pool"]
    assert said == (
        "Pool 'own' is of the type Client defined, to which this release cannot write yet; "
        "name a pool of the type File system, Tape library, LTFS, Tape library, Native."
    )


def test_parameters_that_cannot_be_kept_are_refused(world: World) -> None:
    for wrong in ({"a": 2**70}, {"a": "\ud800"}, {"a": "x" * 10**6}):
        with pytest.raises(InvalidRequest, match="parameters of a module"):
            world.run(QueueBackup(task=task_body(), module_extensions=wrong))


# --- what finished work records --------------------------------------------------------------------------------------


def test_a_backup_and_the_end_of_its_task_are_one_batch(world: World) -> None:
    task = world.transmitting(world.queued(crypto="AES-256-GCM"))
    command = archive_of(
        task, signature="aa", signature_valid=True, problems=1, problem_lines=["/home/x vanished"], key_id="k"
    )
    before = len(world.log)
    reply = world.run(command)
    assert [stored[4] for stored in world.log[before:]] == ["backup.recorded", "task.noted", "task.status_changed"]
    made = backup(world, reply.ids[0])
    assert (made.crypto, made.compression, made.signature_valid, made.key_id) == ("AES-256-GCM", "fast", True, "k")
    assert made.store_until_ns == parse_moment("2028-01-15T08:00:11"), "one year later, by the calendar"
    done = world.task(task.id)
    assert (done.status, done.backup_id, done.ended_ns) == ("Done", made.id, world.now_ns)
    before = len(world.log)
    assert world.run(command).ids == reply.ids, "a repeat gets the first answer"
    assert len(world.log) == before


def test_an_archive_of_another_attempt_is_not_recorded(world: World) -> None:
    task = world.transmitting(world.queued())
    with pytest.raises(NotAllowedNow, match="does not wait for the archive"):
        world.run(archive_of(task, archive="00" * 16))
    world.run(KillTask(task_id=task.id))
    with pytest.raises(NotAllowedNow, match="is Kill"):
        world.run(archive_of(task))
    assert not world.state.tables["backup"]


def test_a_signature_that_does_not_hold_is_a_fact_and_a_note(world: World) -> None:
    task = world.transmitting(world.queued())
    before = len(world.log)
    world.run(archive_of(task, signature="aa", signature_valid=False))
    assert [stored[4] for stored in world.log[before:]] == ["backup.recorded", "task.noted", "task.status_changed"]
    assert not backup(world).signature_valid


def test_verification(world: World) -> None:
    made = world.backed_up()
    task = world.assigned(world.run(QueueVerification(backup_id=made)).ids[0])
    world.run(AdvanceTask(task_id=task.id, status="Execution"))
    with pytest.raises(NotAllowedNow, match="by RecordVerification"):
        world.run(AdvanceTask(task_id=task.id, status="Done"))
    with pytest.raises(InvalidRequest, match="not a result"):
        world.run(RecordVerification(task_id=task.id, status="Not Verified", bytes_read=0, findings=[]))
    command = RecordVerification(task_id=task.id, status="Trusted", bytes_read=9, findings=[])
    world.run(command)
    assert (backup(world, made).verification_status, backup(world, made).verified_ns) == ("Trusted", world.now_ns)
    before = len(world.log)
    world.run(command)
    assert len(world.log) == before
    with pytest.raises(NotFound, match="backup not found"):
        world.run(QueueVerification(backup_id=99))


def test_deleted_bytes_are_pending_until_they_are_gone(world: World) -> None:
    made = world.backed_up()
    (delete,) = world.run(DeleteBackups(ids=[made])).data["task_ids"]
    assert world.state.tables["pending_removal"][made].task_id == delete
    world.assigned(delete)
    world.run(RecordBytesRemoved(backup_id=made, bytes_removed=1_000))
    assert not world.state.tables["pending_removal"]
    assert (world.task(delete).status, world.task(delete).status_reason) == ("Done", "1000 bytes removed")
    before = len(world.log)
    world.run(RecordBytesRemoved(backup_id=made, bytes_removed=0))
    assert len(world.log) == before


def test_a_delete_whose_bytes_went_another_way_is_done_when_assigned(world: World) -> None:
    made = world.backed_up()
    (delete,) = world.run(DeleteBackups(ids=[made])).data["task_ids"]
    world.run(RecordBytesRemoved(backup_id=made, bytes_removed=1_000))
    assert world.task(delete).status == "New"
    assert world.assigned(delete).status == "Done"


def test_store_until(world: World) -> None:
    made = world.backed_up()
    world.run(ChangeStoreUntil(backup_id=made, store_until="2040-01-01T00:00:00+03:00"))
    assert backup(world).store_until_ns == parse_moment("2039-12-31T21:00:00")
    for wrong in ("2001-01-01", "soon", "", "3000-01-01"):
        with pytest.raises(InvalidRequest) as refused:
            world.run(ChangeStoreUntil(backup_id=made, store_until=wrong))
        assert list(refused.value.errors) == ["store_until"]


# --- restores --------------------------------------------------------------------------------------------------------


def restore(world: World, made: int, **given: Any) -> dict[str, Any]:
    task: dict[str, Any] = {
        "target_client": "alpha (525a99154f3505a2)",
        "destination_path": "/back",
        "data_deployment": False,
    }
    reply = world.run(QueueRestore(backup_id=made, restore_task={**task, **given}))
    found: dict[str, Any] = world.task(reply.ids[0]).parameters["restore_task"]
    return found


def test_restore_of_everything_or_of_single_files(world: World) -> None:
    made = world.backed_up()
    assert restore(world, made, granular_restore_files=[""])["granular_restore_files"] == []
    assert restore(world, made, granular_restore_files=["a", "", "b/c"])["granular_restore_files"] == ["a", "b/c"]
    assert restore(world, made, destination_path="", data_deployment=True)["data_deployment"] is True


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"destination_path": "back"}, "destination_path"),
        ({"destination_path": ""}, "destination_path"),
        ({"destination_path": "/a/../b"}, "destination_path"),
        ({"target_client": "gamma (0000000000000000)"}, "target_client"),
        ({"granular_restore_files": "a"}, "granular_restore_files"),
        ({"granular_restore_files": [1]}, "granular_restore_files"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_restore_is_checked(world: World, wrong: dict[str, Any], key: str) -> None:
    made = world.backed_up()
    with pytest.raises(InvalidRequest) as refused:
        restore(world, made, **wrong)
    assert key in refused.value.errors


def test_another_client_restores_only_within_a_shared_group(world: World) -> None:
    made = world.backed_up()
    beta = world.client(**BETA)
    target = "beta (55e05458152af100)"
    with pytest.raises(Refused, match="same shared client group"):
        restore(world, made, target_client=target)
    world.run(CreateRecord(resource="client_groups", fields={"name": "twins", "shared": True}))
    for one in (1, beta):
        world.run(ChangeRecord(resource="clients", id=one, changes={"group_id": "twins"}))
    assert restore(world, made, target_client=target)["target_client"] == target
    world.run(ChangeRecord(resource="clients", id=beta, changes={"centralized_restore": False}))
    with pytest.raises(Refused, match="centralized_restore"):
        restore(world, made, target_client=target)


def test_a_restore_whose_backup_is_gone_cannot_be_restarted(world: World) -> None:
    made = world.backed_up()
    restore(world, made)
    world.run(KillTask(task_id=2))
    world.run(DeleteBackups(ids=[made]))
    with pytest.raises(Refused, match=f"backup {made} is no longer in the repository"):
        world.run(RestartTasks(ids=[2]))


def test_a_restore_waits_for_the_catalog_of_its_archive(world: World) -> None:
    made = world.backed_up()
    restore(world, made)
    world.run(AssignTask(task_id=2, catalogs=[], client_online=True))
    task = world.task(2)
    assert (task.status, task.retry_at_ns) == ("Suspended", world.now_ns + 60 * SECOND_NS)
    assert "catalog /srv/default cannot be used" in task.status_reason


def test_a_server_in_service_mode_takes_no_backups(world: World) -> None:
    world.run(ChangeRecord(resource="media_servers", id=1, changes={"local_service_mode": True}))
    task = world.assigned(world.queued())
    assert task.status == "Suspended"
    assert "service mode" in task.status_reason


def test_the_free_space_check_can_be_ignored(world: World) -> None:
    world.run(ChangeRecord(resource="pool_list", id=1, changes={"ignore_free_space_check": "yes"}))
    assert world.assigned(world.queued(), catalogs=world.facts(free_bytes=0)).status == "Assigned"


# --- notes -----------------------------------------------------------------------------------------------------------


def test_notes_are_bounded_and_say_what_was_left_out(world: World) -> None:
    task_id = world.queued()
    world.run(NoteTask(task_id=task_id, side="client", severity="info", lines=[]))
    assert world.log[-1][4] == "task.queued"
    sample: dict[str, Any] = {"task_id": task_id, "side": "client", "severity": "info", "lines": ["x"]}
    wrongs: list[dict[str, Any]] = [{"side": "moon"}, {"severity": "loud"}]
    for wrong in wrongs:
        with pytest.raises(InvalidRequest):
            world.run(NoteTask(**{**sample, **wrong}))
    with pytest.raises(NotFound):
        world.run(NoteTask(task_id=99, side="client", severity="info", lines=["x"]))


@given(st.integers(0, 3 * LINES_MAX))
@settings(max_examples=40)
def test_bounded_lines(number: int) -> None:
    kept = bounded(["x" * 5_000] * number)
    assert len(kept) == min(number, LINES_MAX)
    assert all(len(line) <= 4_096 for line in kept)
    if number > LINES_MAX:
        assert kept[-1] == f"... and {number - LINES_MAX + 1} more"


def test_deleting_a_client_does_not_touch_its_backups(world: World) -> None:
    made = world.backed_up()
    world.run(DeleteRecords(resource="clients", ids=[1]))
    assert backup(world, made).client_id == 1
    with pytest.raises(InvalidRequest) as refused:
        world.run(QueueRestore(backup_id=made, restore_task={"destination_path": "/back"}))
    assert "no longer authorised" in refused.value.errors["target_client"][0]
