"""Any history: random operators, agents and crashes, with a dispatcher that carries out what ``next_steps`` says.

Held after every command (``World``): decide changes nothing, everything can be taken back, indexes are what the tables say.
Held by this machine: what refers to something refers to something that is there; every step can be carried out; a replay of
the log gives the same digest; and when the world is kind for a while, every task ends.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rbcore.commands import (
    AdvanceTask,
    AgentGone,
    AllAgentsGone,
    AssignTask,
    AuthoriseClients,
    CatalogFacts,
    Command,
    ContinueTask,
    CreateRecord,
    DeleteBackups,
    DeleteRecords,
    KillTask,
    PauseTask,
    QueueCopy,
    QueueRestore,
    QueueVerification,
    RecordBytesRemoved,
    RecordCopy,
    RecordVerification,
    RecoverTasks,
    RemoveTasks,
    RestartTasks,
)
from rbcore.destination import is_there
from rbcore.dispatch import (
    AnyStep,
    AssignStep,
    ContinueStep,
    CopyStep,
    EndKillStep,
    Facts,
    PauseStep,
    RecoverStep,
    RemoveBytesStep,
    RetryStep,
    StartOnClientStep,
    StopStep,
    VerifyStep,
    next_steps,
)
from rbcore.entities import Backup, LocalCatalog, PendingRemoval, Pool, Task, UnauthorisedClient
from rbcore.errors import InvalidRequest, NotAllowedNow, NotFound, Refused
from rbcore.vocabulary import (
    BACKUP_TASKS,
    BACKUP_TYPES,
    CLIENT_TASKS,
    COPY_TASKS,
    CRYPTO,
    RUNNING_STATUSES,
    TERMINAL_STATUSES,
    TaskType,
)
from tests.core.world import PLENTY_BYTES, World, archive_of, hello_of, replay

AGENTS = {"525a99154f3505a2": "alpha", "55e05458152af100": "beta"}
DELETED = {
    "clients": "client",
    "storage_local_catalogs": "local_catalog",
    "pool_list": "pool",
    "pool_substitution": "pool_substitution",
    "dynamic_pool_groups": "dynamic_pool_group",
}
ROUNDS_TO_REST_MAX = 100
REFUSALS = (Refused, NotAllowedNow, NotFound, InvalidRequest)


class Domain(RuleBasedStateMachine):
    """See the module."""

    @initialize(history=st.lists(st.sampled_from(BACKUP_TYPES), max_size=4))
    def begin(self, history: list[str]) -> None:
        self.world = World().installed()
        self.under_way: set[int] = set()
        self.told_to_pause: set[int] = set()
        self.told_to_stop: set[int] = set()
        self.world.run(CreateRecord(resource="pool_list", fields={"pool_name": "Second", "pool_type": "File system"}))
        self.add_catalog(9, "Second")
        self.world.run(CreateRecord(resource="dynamic_pool_groups", fields={"name": "Both", "max_pool_tasks": 2}))
        for pool in ("Default", "Second"):
            fields = {"dynamic_pool_group": 1, "pool": pool}
            self.world.run(CreateRecord(resource="dynamic_pool_groups_records", fields=fields))
        for hwid in AGENTS:
            self.connect(hwid)
        for backup_type in history:
            self.world.backed_up(backup_type=backup_type)

    # --- the world outside -------------------------------------------------------------------------------------------

    def ask(self, command: Command) -> None:
        """What an operator does may be refused; it must never break."""
        with suppress(*REFUSALS):
            self.world.run(command)

    def pick(self, data: st.DataObject, kind: str) -> int:
        known = sorted(self.world.state.tables[kind])
        return data.draw(st.sampled_from(known)) if known else 0

    @rule(hwid=st.sampled_from(sorted(AGENTS)))
    def connect(self, hwid: str) -> None:
        hello = hello_of(hwid=hwid, hostname=AGENTS[hwid])
        self.world.run(hello)
        for row in self.world.state.all(UnauthorisedClient):
            if row.hwid == hwid:
                self.world.run(AuthoriseClients(ids=[row.id]))
                self.world.run(hello)

    @rule(data=st.data())
    def lose_agent(self, data: st.DataObject) -> None:
        client_id = self.pick(data, "client")
        self.ask(AgentGone(client_id=client_id, reason="lost"))
        for task in self.world.state.active_tasks():
            if task.id in self.under_way and task.client_id == client_id and task.task_type in CLIENT_TASKS:
                self.ended(task.id)

    @rule()
    def crash(self) -> None:
        self.under_way.clear()
        self.told_to_pause.clear()
        self.told_to_stop.clear()
        self.world.run(AllAgentsGone())
        self.world.run(RecoverTasks())
        assert not self.world.state.tasks_in(*RUNNING_STATUSES, "Kill")

    # --- operators ---------------------------------------------------------------------------------------------------

    @rule(
        hwid=st.sampled_from(sorted(AGENTS)),
        backup_type=st.sampled_from(BACKUP_TYPES),
        crypto=st.sampled_from(CRYPTO[:2]),
        resource=st.sampled_from(["/home/", "/home", "/etc"]),
        pool=st.sampled_from(["Default", "Default", "Second", "Both"]),
    )
    def queue_backup(self, hwid: str, backup_type: str, crypto: str, resource: str, pool: str) -> None:
        client = f"{AGENTS[hwid]} ({hwid})"
        with suppress(InvalidRequest):
            self.world.queued(client=client, backup_type=backup_type, crypto=crypto, resource=resource, pool=pool)

    @rule(pools=st.permutations(["Default", "Second"]))
    def substitute(self, pools: list[str]) -> None:
        fields = dict(zip(("pool", "substitution"), pools, strict=True))
        self.ask(CreateRecord(resource="pool_substitution", fields=fields))

    @rule(data=st.data())
    def queue_restore(self, data: st.DataObject) -> None:
        self.ask(QueueRestore(backup_id=self.pick(data, "backup"), restore_task={"destination_path": "/back"}))

    @rule(data=st.data())
    def queue_verification(self, data: st.DataObject) -> None:
        self.ask(QueueVerification(backup_id=self.pick(data, "backup")))

    @rule(data=st.data(), pool=st.sampled_from(["Default", "Second"]), move=st.booleans())
    def queue_copy(self, data: st.DataObject, pool: str, move: bool) -> None:
        self.ask(QueueCopy(backup_id=self.pick(data, "backup"), pool_name=pool, move=move))

    @rule(data=st.data(), verb=st.sampled_from([PauseTask, ContinueTask, KillTask]))
    def order(self, data: st.DataObject, verb: Any) -> None:
        self.ask(verb(task_id=self.pick(data, "task")))

    @rule(data=st.data(), verb=st.sampled_from([RestartTasks, RemoveTasks]))
    def order_about_the_queue(self, data: st.DataObject, verb: Any) -> None:
        self.ask(verb(ids=[self.pick(data, "task")]))

    @rule(data=st.data())
    def delete_backup(self, data: st.DataObject) -> None:
        self.ask(DeleteBackups(ids=[self.pick(data, "backup")]))

    @precondition(lambda self: len(self.world.log) % 5 == 0)  # now and then: without a catalog little happens
    @rule(data=st.data(), resource=st.sampled_from(sorted(DELETED)))
    def delete_record(self, data: st.DataObject, resource: str) -> None:
        kind = DELETED[resource]
        self.ask(DeleteRecords(resource=resource, ids=[self.pick(data, kind)]))

    @rule(number=st.integers(0, 3), pool=st.sampled_from(["Default", "Default", "Second"]))
    def add_catalog(self, number: int, pool: str) -> None:
        fields = {"path": f"/srv/{number}", "pool": pool}
        self.ask(CreateRecord(resource="storage_local_catalogs", fields=fields))

    # --- the dispatcher ----------------------------------------------------------------------------------------------

    def steps(self) -> list[AnyStep]:
        facts = Facts(
            online_clients=self.world.state.indexes.online_clients,
            under_way=self.under_way,
            told_to_pause=self.told_to_pause,
            told_to_stop=self.told_to_stop,
        )
        return next_steps(self.world.state, facts, self.world.now_ns)

    def ended(self, task_id: int) -> None:
        self.under_way.discard(task_id)
        self.told_to_pause.discard(task_id)
        self.told_to_stop.discard(task_id)

    def report(self, task_id: int, status: str, **given: Any) -> None:
        self.world.run(AdvanceTask(task_id=task_id, status=status, **given))

    def carry_out(self, step: AnyStep, *, free_bytes: int = PLENTY_BYTES, online: bool = True) -> None:
        """As the dispatcher does. Nothing here may be refused."""
        task_id = step.task_id
        match step:
            case AssignStep():
                facts = [
                    CatalogFacts(local_catalog_id=one, online=online, free_bytes=free_bytes) for one in step.catalog_ids
                ]
                client_online = self.world.task(task_id).client_id in self.world.state.indexes.online_clients
                self.world.run(AssignTask(task_id=task_id, catalogs=facts, client_online=client_online))
            case StartOnClientStep():
                self.under_way.add(task_id)
                self.report(task_id, "At_Client")
            case VerifyStep() | RemoveBytesStep() | CopyStep():
                self.under_way.add(task_id)
                self.report(task_id, "Execution")
            case RetryStep():
                self.report(task_id, "New")
            case RecoverStep():
                self.report(task_id, "Suspended", reason="lost", retry_at_ns=self.world.now_ns)
            case PauseStep():
                self.told_to_pause.add(task_id)
            case ContinueStep():
                self.told_to_pause.discard(task_id)
            case StopStep():
                self.told_to_stop.add(task_id)
            case EndKillStep():
                self.report(task_id, "Killed")

    @precondition(lambda self: self.steps())
    @rule(data=st.data(), free_bytes=st.sampled_from([0, PLENTY_BYTES, PLENTY_BYTES]), online=st.booleans())
    def dispatch(self, data: st.DataObject, free_bytes: int, online: bool) -> None:
        self.carry_out(data.draw(st.sampled_from(self.steps())), free_bytes=free_bytes, online=online)

    @rule(rounds=st.integers(1, 4), kind=st.booleans())
    def let_it_run(self, rounds: int, kind: bool) -> None:
        for hwid in AGENTS if kind else ():
            self.connect(hwid)
        for _ in range(rounds):
            self.one_round()

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(["stage", "finish", "finish", "lost", "Error", "Broken"]))
    def work(self, data: st.DataObject, outcome: str) -> None:
        task = self.world.task(data.draw(st.sampled_from(sorted(self.under_way))))
        if task.status == "Kill" or task.id in self.told_to_stop:
            self.ended(task.id)
        elif outcome == "stage":
            self.report(
                task.id, data.draw(st.sampled_from(RUNNING_STATUSES)), durable_blocks=data.draw(st.integers(0, 9))
            )
        elif outcome == "finish":
            self.finish(task)
        elif outcome == "lost":
            self.ended(task.id)
        elif task.status in RUNNING_STATUSES:
            self.report(task.id, outcome, reason="as drawn")
            self.ended(task.id)

    def finish(self, task: Task) -> None:
        if task.task_type in BACKUP_TASKS:
            self.world.run(archive_of(task))
        elif task.task_type == TaskType.VERIFY:
            status = "Trusted" if task.id % 3 else "Broken"
            self.world.run(RecordVerification(task_id=task.id, status=status, bytes_read=1, findings=[]))
        elif task.task_type in COPY_TASKS:
            backup = self.world.state.find(Backup, task.backup_id)
            assert backup is not None, "a backup that is copied stays"
            self.world.run(RecordCopy(task_id=task.id, archive_size=1_000, root=backup.root))
        elif task.task_type == TaskType.DELETE:
            self.world.run(RecordBytesRemoved(backup_id=task.backup_id, bytes_removed=1))
        else:
            self.report(task.id, "Done")
        self.ended(task.id)

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def what_is_referred_to_is_there(self) -> None:
        state = self.world.state
        for backup in state.all(Backup):
            assert not backup.ref_id or state.find(Backup, backup.ref_id) is not None
            assert state.find(LocalCatalog, backup.local_catalog_id) is not None
        for task in state.active_tasks():
            if task.task_type in (TaskType.RESTORE, TaskType.VERIFY, *COPY_TASKS):
                assert state.find(Backup, task.backup_id) is not None
            assert not task.parent_backup_id or state.find(Backup, task.parent_backup_id) is not None
            if task.task_type in BACKUP_TASKS:
                assert is_there(state, task.requested_pool_id)
                assert task.status == "New" or task.pool_id < 0 or state.find(Pool, task.pool_id) is not None
        archives = [(one.archive, one.pool_id) for one in state.all(Backup)]
        assert len(set(archives)) == len(archives)
        places = {(one.archive, one.local_catalog_id) for one in state.all(Backup)}
        assert not places & {(one.archive, one.local_catalog_id) for one in state.all(PendingRemoval)}

    @invariant()
    def steps_are_about_tasks_that_live(self) -> None:
        found = [step.task_id for step in self.steps()]
        assert len(set(found)) == len(found)
        assert all(self.world.task(one).status not in TERMINAL_STATUSES for one in found)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        assert replay(self.world.log).digest() == self.world.state.digest()
        self.every_task_ends()

    def every_task_ends(self) -> None:
        """Agents return, catalogs have room, nobody gives orders: then there is an end."""
        for hwid in AGENTS:
            self.connect(hwid)
        for pool in self.world.state.all(Pool):
            if not self.world.state.indexes.catalogs_of_pool.get(pool.id):
                fields = {"path": f"/new/{pool.id}", "pool": pool.pool_name}
                self.world.run(CreateRecord(resource="storage_local_catalogs", fields=fields))
        for task in self.world.state.tasks_in("Paused"):
            self.world.run(ContinueTask(task_id=task.id))
        for _ in range(ROUNDS_TO_REST_MAX):
            if not self.world.state.active_tasks():
                return
            self.world.now_ns += 60 * 10**9
            assert self.one_round(), self.world.state.active_tasks()
        raise AssertionError(f"no end: {self.world.state.active_tasks()}")

    def one_round(self) -> bool:
        """Everything that can be begun is begun, everything begun is finished; whether there was anything."""
        steps = self.steps()
        for step in steps:
            self.carry_out(step)
        working = sorted(self.under_way)
        for task_id in working:
            task = self.world.task(task_id)
            if task.status == "Kill":
                self.ended(task_id)
            else:
                self.finish(task)
        return bool(steps or working)


TestDomain: Any = Domain.TestCase
TestDomain.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
