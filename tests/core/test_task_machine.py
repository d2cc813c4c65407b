"""The life of a task: legal and illegal changes, compared with the table of the reference written down a second time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rbcore.commands import (
    AdvanceTask,
    AssignTask,
    Command,
    ContinueTask,
    KillTask,
    PauseTask,
    RecoverTasks,
    RemoveTasks,
    RestartTasks,
)
from rbcore.dispatch import EndKillStep, Facts, next_steps
from rbcore.entities import Task
from rbcore.errors import NotAllowedNow, NotFound
from rbcore.task import ATTEMPTS_MAX, TRANSITIONS, retry_delay_seconds
from rbcore.vocabulary import RUNNING_STATUSES, TASK_STATUSES, TERMINAL_STATUSES
from tests.core.world import World, archive_of

# From the reference, 1.2: which verb may be used in which status.
REFERENCE = """
    New             pause          kill          delete
    Assigned        pause          kill
    At_Client       pause          kill
    Execution       pause          kill
    Start_Transfer  pause          kill
    Transmission    pause          kill
    Suspended       pause continue kill restart  delete
    Paused                continue kill
    Kill
    Done                                         delete
    Error                               restart  delete
    Broken                              restart  delete
    Killed                              restart  delete
"""
VERBS = {line.split()[0]: set(line.split()[1:]) for line in REFERENCE.strip().splitlines()}

# How a fresh task gets to each status, by reports of actors and verbs of the operator.
PATHS: dict[str, tuple[str, ...]] = {
    "New": (),
    "Assigned": ("assign",),
    "At_Client": ("assign", "At_Client"),
    "Execution": ("assign", "At_Client", "Execution"),
    "Start_Transfer": ("assign", "At_Client", "Start_Transfer"),
    "Transmission": ("assign", "At_Client", "Transmission"),
    "Suspended": ("assign", "At_Client", "Suspended"),
    "Paused": ("assign", "At_Client", "pause"),
    "Done": ("assign", "At_Client", "record"),
    "Error": ("assign", "At_Client", "Error"),
    "Broken": ("assign", "At_Client", "Broken"),
    "Kill": ("assign", "At_Client", "kill"),
    "Killed": ("kill",),
}


def world_with_task() -> tuple[World, int]:
    world = World().installed()
    world.client()
    return world, world.queued()


def verb_command(verb: str, task_id: int) -> Command:
    match verb:
        case "pause":
            return PauseTask(task_id=task_id)
        case "continue":
            return ContinueTask(task_id=task_id)
        case "kill":
            return KillTask(task_id=task_id)
        case "restart":
            return RestartTasks(ids=[task_id])
        case "delete":
            return RemoveTasks(ids=[task_id])
    raise AssertionError(verb)


def carry_out(world: World, task_id: int, action: str) -> None:
    if action == "assign":
        world.assigned(task_id)
    elif action == "record":
        world.run(archive_of(world.task(task_id)))
    elif action in TASK_STATUSES:
        world.run(AdvanceTask(task_id=task_id, status=action))
    else:
        world.run(verb_command(action, task_id))


def world_at(status: str) -> tuple[World, int]:
    world, task_id = world_with_task()
    for action in PATHS[status]:
        carry_out(world, task_id, action)
    assert world.task(task_id).status == status
    return world, task_id


@pytest.mark.parametrize("status", TASK_STATUSES)
@pytest.mark.parametrize("verb", ["pause", "continue", "kill", "restart", "delete"])
def test_verbs_are_allowed_exactly_where_the_reference_says(status: str, verb: str) -> None:
    world, task_id = world_at(status)
    if verb in VERBS[status]:
        world.run(verb_command(verb, task_id))
        return
    with pytest.raises(NotAllowedNow) as refused:
        world.run(verb_command(verb, task_id))
    assert f"Task {task_id} is {status}" in str(refused.value)
    assert world.task(task_id).status == status


@pytest.mark.parametrize("status", TASK_STATUSES)
@pytest.mark.parametrize("wanted", TASK_STATUSES)
def test_reports_of_actors_follow_the_table(status: str, wanted: str) -> None:
    world, task_id = world_at(status)
    task = world.task(task_id)
    events = len(world.log)
    if wanted == status or is_late(task, wanted):
        world.run(AdvanceTask(task_id=task_id, status=wanted))
        assert world.task(task_id) == task
        assert len(world.log) == events
    elif wanted in TRANSITIONS[status] and wanted != "Done":  # a backup is Done by being recorded
        world.run(AdvanceTask(task_id=task_id, status=wanted))
        assert world.task(task_id).status == wanted
    else:
        with pytest.raises(NotAllowedNow, match=f"is {status}|by RecordBackup"):
            world.run(AdvanceTask(task_id=task_id, status=wanted))


def is_late(task: Task, report: str) -> bool:
    """A stage that is behind the task; or the task is Paused, and the report is about the work it was taken from."""
    stages = RUNNING_STATUSES
    if task.status == "Paused":
        given_out = task.resumes_as in (*stages, "Assigned")
        return report == task.resumes_as or (given_out and report in (*stages, "Suspended"))
    return report in stages and task.status in stages and stages.index(report) <= stages.index(task.status)


@pytest.mark.parametrize("status", ["New", "Assigned", "At_Client", "Execution", "Transmission", "Suspended"])
def test_continue_restores_what_the_task_was(status: str) -> None:
    world, task_id = world_at(status)
    before = world.task(task_id)
    world.run(PauseTask(task_id=task_id))
    assert world.task(task_id).resumes_as == status
    world.run(ContinueTask(task_id=task_id))
    after = world.task(task_id)
    assert (after.status, after.resumes_as, after.retry_at_ns) == (status, "", before.retry_at_ns)


def test_continue_of_a_suspended_task_tries_it_at_once() -> None:
    world, task_id = world_at("Suspended")
    world.run(ContinueTask(task_id=task_id))
    assert world.task(task_id).status == "New"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ((), "Killed"),
        (("assign", "At_Client", "Suspended"), "Killed"),
        (("pause",), "Killed"),
        (("assign",), "Kill"),
        (("assign", "At_Client"), "Kill"),
        (("assign", "At_Client", "pause"), "Kill"),
    ],
)
def test_kill_ends_at_once_what_nobody_works_on(path: tuple[str, ...], status: str) -> None:
    world, task_id = world_with_task()
    for action in path:
        carry_out(world, task_id, action)
    world.run(KillTask(task_id=task_id))
    assert world.task(task_id).status == status
    if status == "Kill":
        facts = Facts(online_clients={1}, under_way=set())
        assert next_steps(world.state, facts, world.now_ns) == [EndKillStep(task_id=task_id)]


def test_restart_makes_a_new_task_and_ends_a_suspended_one() -> None:
    world, task_id = world_at("Suspended")
    reply = world.run(RestartTasks(ids=[task_id]))
    assert reply.message.endswith(f"TASK WAS ADDED TO QUEUE:{reply.ids[0]}")
    assert world.task(task_id).status == "Killed"
    again = world.task(reply.ids[0])
    assert (again.status, again.restarted_from, again.resource) == ("New", task_id, "/home/")


def test_restart_and_removal_are_all_or_nothing() -> None:
    world, failed = world_at("Error")
    running = world.queued(resource="/etc")
    world.transmitting(running)
    for command in (RestartTasks(ids=[failed, running]), RemoveTasks(ids=[failed, running])):
        with pytest.raises(NotAllowedNow, match=f"Task {running}"):
            world.run(command)
    with pytest.raises(NotFound) as missing:
        world.run(RemoveTasks(ids=[failed, 77, 88]))
    assert missing.value.data == {"ids": [77, 88]}
    assert set(world.state.tables["task"]) == {failed, running}


@pytest.mark.parametrize(("word", "status"), [("error", "Error"), ("killed", "Killed"), ("obsoleted", "Done")])
def test_removal_by_word(word: str, status: str) -> None:
    world, _ended = world_at(status)
    other = world.queued(resource="/etc")
    world.run(RemoveTasks(status_word=word))
    assert set(world.state.tables["task"]) == {other}
    with pytest.raises(NotFound, match="no tasks with the chosen status"):
        world.run(RemoveTasks(status_word=word))


# --- attempts --------------------------------------------------------------------------------------------------------


def attempt(world: World, task_id: int, durable_blocks: int = 0, *, taken: bool = True) -> str:
    world.assigned(task_id)
    if taken:
        world.run(AdvanceTask(task_id=task_id, status="At_Client"))
    command = AdvanceTask(task_id=task_id, status="Suspended", reason="lost", durable_blocks=durable_blocks)
    status: str = world.run(command).data["status"]
    if status == "Suspended":
        world.run(AdvanceTask(task_id=task_id, status="New"))
    return status


@pytest.mark.parametrize("taken", [True, False])
def test_attempts_without_progress_end_as_broken(taken: bool) -> None:
    world, task_id = world_with_task()
    ends = [attempt(world, task_id, taken=taken) for _ in range(ATTEMPTS_MAX)]
    assert ends == ["Suspended"] * (ATTEMPTS_MAX - 1) + ["Broken"]
    assert "made no progress; the last: lost" in world.task(task_id).status_reason


@given(st.lists(st.booleans(), max_size=3 * ATTEMPTS_MAX))
@settings(max_examples=30, deadline=None)
def test_progress_starts_the_count_anew(progresses: list[bool]) -> None:
    world, task_id = world_with_task()
    in_a_row = blocks = 0
    for progress in progresses:
        in_a_row = 0 if progress else in_a_row + 1
        blocks += 10 * progress
        status = attempt(world, task_id, blocks)
        assert status == ("Broken" if in_a_row == ATTEMPTS_MAX else "Suspended")
        assert world.task(task_id).attempts == in_a_row
        if status == "Broken":
            return


def test_waiting_for_a_catalog_is_no_attempt() -> None:
    world, task_id = world_with_task()
    for _ in range(3 * ATTEMPTS_MAX):
        assert world.assigned(task_id, catalogs=world.facts(free_bytes=0)).status == "Suspended"
        world.run(AdvanceTask(task_id=task_id, status="New"))
    assert world.task(task_id).attempts == 0


def test_progress_of_a_crashed_attempt_is_seen_by_the_next() -> None:
    world, task_id = world_with_task()
    for number in range(3 * ATTEMPTS_MAX):
        world.assigned(task_id)
        world.run(AdvanceTask(task_id=task_id, status="At_Client"))
        world.run(AdvanceTask(task_id=task_id, status="Transmission", durable_blocks=number + 1))
        world.run(RecoverTasks())
        assert world.task(task_id).status == "Suspended", number
        world.run(AdvanceTask(task_id=task_id, status="New"))


def test_a_resumed_attempt_keeps_its_archive() -> None:
    world, task_id = world_with_task()
    first = world.assigned(task_id).archive
    world.run(AdvanceTask(task_id=task_id, status="At_Client"))
    world.run(RecoverTasks())
    assert world.task(task_id).retry_at_ns == world.now_ns
    world.run(AdvanceTask(task_id=task_id, status="New"))
    again = world.assigned(task_id)
    assert again.archive == first
    assert "goes on with the archive" in again.status_reason


def test_recovery_ends_kills_and_leaves_the_rest() -> None:
    world = World().installed()
    world.client()
    paths = {"New": (), "Assigned": ("assign",), "Kill": ("assign", "kill"), "Paused": ("assign", "pause")}
    tasks = {}
    for number, (status, path) in enumerate(paths.items()):
        tasks[status] = world.queued(resource=f"/{number}")
        for action in path:
            carry_out(world, tasks[status], action)
    world.run(RecoverTasks())
    found = {status: world.task(task_id).status for status, task_id in tasks.items()}
    assert found == {"New": "New", "Assigned": "Assigned", "Kill": "Killed", "Paused": "Paused"}
    assert world.run(RecoverTasks()).position == world.state.position


def test_retry_delays_grow_and_are_bounded() -> None:
    assert [retry_delay_seconds(number) for number in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert retry_delay_seconds(10**6) == 60


# --- any order of anything -------------------------------------------------------------------------------------------


class TaskMachine(RuleBasedStateMachine):
    """Any order of verbs and reports on one task: every answer is the one the tables give."""

    @initialize()
    def begin(self) -> None:
        self.world, self.id = world_with_task()
        self.ended: Task | None = None

    @property
    def task(self) -> Task:
        return self.world.task(self.id)

    def attempt(self, command: Command, *, legal: bool) -> None:
        before = self.task
        if legal:
            self.world.run(command)
        else:
            with pytest.raises(NotAllowedNow):
                self.world.run(command)
            assert self.task == before

    @rule(verb=st.sampled_from(["pause", "continue", "kill"]))
    def operate(self, verb: str) -> None:
        self.attempt(verb_command(verb, self.id), legal=verb in VERBS[self.task.status])

    @rule(status=st.sampled_from(TASK_STATUSES), blocks=st.integers(0, 5))
    def report(self, status: str, blocks: int) -> None:
        task = self.task
        follows = status in TRANSITIONS[task.status] and status != "Done"
        legal = status == task.status or is_late(task, status) or follows
        self.attempt(AdvanceTask(task_id=self.id, status=status, durable_blocks=blocks), legal=legal)

    @rule()
    def assign(self) -> None:
        command = AssignTask(task_id=self.id, catalogs=self.world.facts(), client_online=True)
        self.attempt(command, legal=self.task.status == "New")

    @rule()
    def finish(self) -> None:
        if not self.task.archive:
            return
        legal = self.task.status == "Done" or "Done" in TRANSITIONS[self.task.status]
        self.attempt(archive_of(self.task), legal=legal)

    @rule()
    def crash(self) -> None:
        self.world.run(RecoverTasks())

    @invariant()
    def ends_are_ends(self) -> None:
        task = self.task
        if self.ended is not None:
            assert task == self.ended
        if task.status in TERMINAL_STATUSES:
            assert task.ended_ns > 0
            self.ended = task
        else:
            assert task.ended_ns == 0
        assert (task.resumes_as != "") == (task.status == "Paused")
        assert task.attempts < ATTEMPTS_MAX or task.status == "Broken"
        assert not task.started_ns or task.started_ns >= task.created_ns


TestTaskMachine: Any = TaskMachine.TestCase
TestTaskMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
