"""Any history of rules, strategies, requests, plans and what they name: what is named is there, and nothing but a refusal comes of any order."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rbcore.commands import AuthoriseClients, ChangeRecord, Command, CreateRecord, DeleteRecords, KillTask
from rbcore.entities import (
    BackupStrategy,
    Client,
    DeleteRuleRequest,
    DynamicPoolGroup,
    NewRuleRequest,
    Pool,
    ScheduleRule,
    UnauthorisedClient,
)
from rbcore.errors import AccessDenied, InvalidRequest, NotAllowedNow, NotFound, Refused
from rbcore.resource import Reference
from rbcore.resources import by_name
from rbcore.schedule_commands import (
    AnswerRuleRequests,
    ChangeStatuses,
    CheckPlan,
    ExecuteRule,
    RequestRule,
    RequestRuleDeletion,
)
from rbcore.vocabulary import DISASTER_RECOVERY_STATUSES
from tests.core.world import World, archive_of, hello_of, replay

REFUSALS = (Refused, NotAllowedNow, NotFound, InvalidRequest, AccessDenied)
HWIDS = {"525a99154f3505a2": "alpha", "55e05458152af100": "beta"}
POOLS = ["Default", "Second", "Blocks", "group"]
RULE: dict[str, Any] = {
    "name": "rule",
    "client_id": "alpha (525a99154f3505a2)",
    "resource_type": "File system",
    "resource": "/home/",
    "backup_type": "full",
    "pool_id": "Second",
    "hour": 3,
}
PLANNED = (
    "global_schedule",
    "backup_strategies",
    "strategy_rules",
    "new_rule_requests",
    "delete_rule_requests",
    "disaster_recovery_plan",
    "reports",
    "client_bandwidth",
)
NAMED = ("clients", "pool_list", "dynamic_pool_groups", "user_groups", "users")

names = st.sampled_from(sorted(f"{name} ({hwid})" for hwid, name in HWIDS.items()))
moments = st.sampled_from(
    [
        {"hour": 3},
        {"min": 0, "dow": 7},
        {"periodic_launch": "1 day"},
        {"periodic_launch": "2 hours", "min": -1},
        {"dom": 31, "mon": 12},
        {"dom": 31, "mon": 2},
        {"min": 60},
        {"periodic_launch": "1 sec"},
        {},
    ]
)
resources = st.sampled_from(["/home/", "/home", "/etc", "home"])
types = st.sampled_from(["File system", "File system", "File system", "Block device"])
groups = st.sampled_from(["Nobody", "operators"])


class Schedules(RuleBasedStateMachine):
    """See the module."""

    @initialize()
    def begin(self) -> None:
        self.world = World().installed()
        for hwid in HWIDS:
            self.connect(hwid)
        self.make("user_groups", groupname="operators")
        for name in POOLS[1:]:
            self.make_pool(name)
        self.make("global_schedule", **RULE)
        self.make("backup_strategies", name="a", pool_id="Second", notify_verify="operators")
        self.make("backup_strategies", name="b", pool_id="group")

    def ask(self, command: Command) -> None:
        with suppress(*REFUSALS):
            self.world.run(command)

    def make(self, into: str, /, **fields: Any) -> None:
        self.ask(CreateRecord(resource=into, fields=fields))

    def pick(self, data: st.DataObject, kind: str) -> int:
        known = sorted(self.world.state.tables[kind])
        return data.draw(st.sampled_from([*known, *known, 999])) if known else 999

    # --- what is named -----------------------------------------------------------------------------------------------

    @rule(hwid=st.sampled_from(sorted(HWIDS)), modules=st.sampled_from([["File system"], []]))
    def connect(self, hwid: str, modules: list[str] | None = None) -> None:
        hello = hello_of(hwid=hwid, hostname=HWIDS[hwid], resource_types=modules or ["File system"])
        self.world.run(hello)
        for row in list(self.world.state.all(UnauthorisedClient)):
            self.world.run(AuthoriseClients(ids=[row.id]))

    @rule(name=st.sampled_from(POOLS[1:]))
    def add_pool(self, name: str) -> None:
        self.make_pool(name)

    def make_pool(self, name: str) -> None:
        if name == "group":
            self.make("dynamic_pool_groups", name=name)
            for one in self.world.state.all(DynamicPoolGroup):
                self.make("dynamic_pool_groups_records", dynamic_pool_group=one.id, pool="Default")
        else:
            kind = "Block device" if name == "Blocks" else "File system"
            self.make("pool_list", pool_name=name, pool_type=kind, meta_data_pool="Default")

    @rule(data=st.data())
    def delete_what_may_be_named(self, data: st.DataObject) -> None:
        for resource in NAMED:
            self.ask(DeleteRecords(resource=resource, ids=[self.pick(data, by_name[resource].kind)]))

    @rule(hwid=st.sampled_from(sorted(HWIDS)), may=st.booleans())
    def allow(self, hwid: str, may: bool) -> None:
        client = self.world.state.by_key(Client, hwid)
        if client is not None:
            self.ask(ChangeRecord(resource="clients", id=client.id, changes={"client_side_backup": may}))

    # --- what names --------------------------------------------------------------------------------------------------

    @rule(
        client=names,
        pool=st.sampled_from(POOLS),
        move_to=st.sampled_from([None, *POOLS[:3]]),
        moment=moments,
        resource=resources,
        resource_type=types,
        group=groups,
        flag=st.booleans(),
    )
    def make_rule(
        self,
        client: str,
        pool: str,
        move_to: str | None,
        moment: dict[str, Any],
        resource: str,
        resource_type: str,
        group: str,
        flag: bool,
    ) -> None:
        fields = {"name": "rule", "client_id": client, "resource": resource, "resource_type": resource_type}
        move = {"move_copy_flag": flag, "move_copy_pool": move_to, "move_copy_while": "1 day"}
        more = {"backup_type": "full", "pool_id": pool, "notify_normal": group}
        self.make("global_schedule", **fields, **more, **move, **moment)

    @rule(name=st.sampled_from(["a", "b"]), pool=st.sampled_from(POOLS), moment=moments, enabled=st.booleans())
    def make_strategy(self, name: str, pool: str, moment: dict[str, Any], enabled: bool) -> None:
        block = {f"inc_{one}": value for one, value in moment.items()}
        self.make("backup_strategies", name=name, pool_id=pool, inc_archive_enabled=enabled, **block)

    @rule(client=names, strategy=st.sampled_from(["a", "b"]), resource=resources)
    def make_strategy_rule(self, client: str, strategy: str, resource: str) -> None:
        self.make(
            "strategy_rules", client_id=client, strategy_id=strategy, resource_type="File system", resource=resource
        )

    @rule(client=names, resource=resources, owner=st.sampled_from(["Nobody", "rubackup"]), group=groups)
    def make_others(self, client: str, resource: str, owner: str, group: str) -> None:
        self.make("disaster_recovery_plan", client=client, resource_type="File system", resource=resource)
        self.make("reports", name="weekly", owner=owner, notify=group, dow=1)
        self.make("client_bandwidth", client=client, backup_bandwidth=1)

    @rule(data=st.data(), moment=moments, pool=st.sampled_from(POOLS), resource=st.sampled_from(PLANNED[:3]))
    def change(self, data: st.DataObject, moment: dict[str, Any], pool: str, resource: str) -> None:
        changes = {"pool_id": pool} | (moment if resource == "global_schedule" else {})
        changes = {"priority": 7} if resource == "strategy_rules" else changes
        record = self.pick(data, by_name[resource].kind)
        self.ask(ChangeRecord(resource=resource, id=record, changes=changes))

    @rule(data=st.data(), resource=st.sampled_from(PLANNED))
    def delete(self, data: st.DataObject, resource: str) -> None:
        self.ask(DeleteRecords(resource=resource, ids=[self.pick(data, by_name[resource].kind)]))

    @rule(data=st.data(), status=st.sampled_from(["run", "wait", "sleep"]))
    def switch(self, data: st.DataObject, status: str) -> None:
        for resource, kind in (("global_schedule", ScheduleRule), ("backup_strategies", BackupStrategy)):
            self.ask(ChangeStatuses(resource=resource, statuses={self.pick(data, kind.KIND): status}))

    # --- requests and work -------------------------------------------------------------------------------------------

    @rule(data=st.data(), moment=moments, resource=resources, pool=st.sampled_from([None, *POOLS]))
    def request(self, data: st.DataObject, moment: dict[str, Any], resource: str, pool: str | None) -> None:
        wish = {"name": "wish", "resource_type": "File system", "resource": resource, "backup_type": "full"}
        client_id = self.pick(data, "client")
        self.ask(RequestRule(client_id=client_id, rule={**wish, **moment, "pool": pool}))
        self.ask(RequestRuleDeletion(client_id=client_id, rule_id=self.pick(data, ScheduleRule.KIND)))

    @rule(data=st.data(), approve=st.booleans())
    def answer(self, data: st.DataObject, approve: bool) -> None:
        for name, kind in (("new_rule_requests", NewRuleRequest), ("delete_rule_requests", DeleteRuleRequest)):
            self.ask(AnswerRuleRequests(resource=name, ids=[self.pick(data, kind.KIND)], approve=approve))

    @rule(data=st.data())
    def execute(self, data: st.DataObject) -> None:
        self.ask(ExecuteRule(rule_id=self.pick(data, ScheduleRule.KIND)))

    @rule(data=st.data(), kill=st.booleans())
    def end_task(self, data: st.DataObject, kill: bool) -> None:
        for task in self.world.state.tasks_in("New"):
            if kill or task.requested_pool_id < 0:
                self.ask(KillTask(task_id=task.id))
            elif self.world.state.indexes.catalogs_of_pool.get(task.pool_id):
                assigned = self.world.transmitting(task.id)
                self.world.run(archive_of(assigned))

    @rule(data=st.data())
    def check_plan(self, data: st.DataObject) -> None:
        self.ask(CheckPlan(plan_id=self.pick(data, "disaster_recovery_plan")))

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def what_is_named_is_there(self) -> None:
        """Derived from the declarations, not from the list of refusals that is tested."""
        state = self.world.state
        for resource in map(by_name.__getitem__, PLANNED):
            for record in state.tables[resource.kind].values():
                for field in resource.fields:
                    if not isinstance(field, Reference):
                        continue
                    target = getattr(record, field.source)
                    kind = field.or_to if target < 0 else field.to
                    assert target == 0 or abs(target) in state.tables[kind], (resource.name, record, field.name)

    @invariant()
    def records_keep_their_rules(self) -> None:
        state = self.world.state
        for one in state.all(ScheduleRule):
            given = (one.min, one.hour, one.dom, one.mon, one.dow)
            assert one.periodic_launch is not None or any(value is not None for value in given)
            assert not one.move_copy_flag or one.move_copy_pool not in (0, one.pool_id)
            assert one.status in ("wait", "run")
        for request in state.all(DeleteRuleRequest):
            assert request.rule_id in state.tables[ScheduleRule.KIND]
        for plan in state.tables["disaster_recovery_plan"].values():
            assert plan.status in DISASTER_RECOVERY_STATUSES
        for task in state.active_tasks():
            assert not task.rule_id or task.rule_id in state.tables[ScheduleRule.KIND]
        assert state.by_key(Pool, "Default") is not None

    def teardown(self) -> None:
        if hasattr(self, "world"):
            assert replay(self.world.log).digest() == self.world.state.digest()


Schedules.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSchedules = Schedules.TestCase
