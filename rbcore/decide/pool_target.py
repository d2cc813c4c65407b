"""The pool, and the place in it, that a backup is written to: what was asked for, a substitute of that, or a member of a dynamic pool group.

What a single pool can take now is for ``rbcore.decide.assign`` to say (``target_in``), and so is the parent that a backup would have there (``parent_in``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace as changed

from rbcore.capacity import free_on_cartridges
from rbcore.chain import Parent
from rbcore.commands import CatalogFacts
from rbcore.decide.decision import get
from rbcore.decide.pool_choice import Member, choose_member
from rbcore.destination import members_of, name_of, pools_for
from rbcore.entities import DynamicPoolGroup, LocalCatalog, MediaServer, Pool, Task
from rbcore.load import ServerLoad
from rbcore.state import State
from rbcore.task import GIVEN_OUT
from rbcore.vocabulary import TaskStatus

Facts = Mapping[int, CatalogFacts]
"""By catalog id."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where an archive is going to be written, or, with neither catalog nor library, why nowhere."""

    pool_id: int = 0
    media_server_id: int = 0
    local_catalog_id: int = 0
    library_id: int = 0
    reason: str
    rejected: list[str] = []

    @property
    def is_found(self) -> bool:
        return bool(self.local_catalog_id or self.library_id)


def is_given_out(task: Task) -> bool:
    """Somebody works on the task, or is about to."""
    status = task.resumes_as if task.status == TaskStatus.PAUSED else task.status
    return status in GIVEN_OUT or status == TaskStatus.KILL


def _lies_in(parent: Parent, pool: Pool) -> bool:
    return parent.backup is not None and parent.backup.pool_id == pool.id


def _pool_of_attempt(state: State, task: Task) -> int:
    """The pool in which the attempt before left blocks that can be gone on with; 0: in none."""
    catalog = state.find(LocalCatalog, task.local_catalog_id) if task.durable_blocks else None
    return catalog.pool if catalog is not None else 0


def target_or_substitute(state: State, task: Task, target_in: Callable[[Pool], Target]) -> Target:
    """In the pool that was asked for or, when that cannot take the backup, in the first of its substitutes that can (reference 2.10, 3.10).

    What an attempt has written already is gone on with, in whichever of them it is.
    """
    asked, attempt = task.requested_pool_id, _pool_of_attempt(state, task)
    pools = [get(state, Pool, one, "pool") for one in pools_for(state, asked)]
    rejected: list[str] = []
    problem = ""
    for pool in sorted(pools, key=lambda one: one.id != attempt):
        target = target_in(pool)
        if target.is_found:
            reason = target.reason
            if pool.id != asked and pool.id == attempt:
                reason = f"goes on in pool '{pool.pool_name}', a substitution of {name_of(state, asked)}: {reason}"
            elif pool.id != asked:
                reason = f"{name_of(state, asked)} cannot take it ({problem}), so pool '{pool.pool_name}', its substitution, does: {reason}"
            return changed(target, reason=reason, rejected=[*rejected, *target.rejected])
        if len(pools) == 1:
            return target
        if pool.id == asked:
            problem = target.reason
        rejected += [f"Pool '{pool.pool_name}': {target.reason}.", *target.rejected]
    return Target(reason=f"neither {name_of(state, asked)} nor its substitutions can take it", rejected=rejected)


def target_in_group(
    state: State,
    task: Task,
    group: DynamicPoolGroup,
    facts: Facts,
    loads: Sequence[ServerLoad],
    target_in: Callable[[Pool], Target],
    parent_in: Callable[[Pool], Parent],
) -> Target:
    """In the pool of the group that ``choose_member`` names; what an attempt has written already is gone on with."""
    attempt = _pool_of_attempt(state, task)
    in_pool, on_server = tasks_under_way(state)
    load_of = {one.media_server_id: one for one in loads}
    members: list[Member] = []
    targets: dict[int, Target] = {}
    disabled: list[str] = []
    for record in members_of(state, group.id):
        pool = get(state, Pool, record.pool, "pool")
        if not record.enabled:
            disabled.append(f"Pool '{pool.pool_name}': it is not enabled in the group.")
            continue
        target = targets[pool.id] = target_in(pool)
        if pool.id == attempt and target.is_found:
            return changed(
                target, reason=f"goes on in pool '{pool.pool_name}' of group '{group.name}': {target.reason}"
            )
        server = get(state, MediaServer, pool.media_server, "media server")
        members.append(
            Member(
                pool_id=pool.id,
                pool_name=pool.pool_name,
                server_name=server.hostname,
                unusable="" if target.is_found else " ".join([f"{target.reason}.", *target.rejected]).rstrip("."),
                pool_tasks=in_pool[pool.id],
                server_tasks=on_server[server.id],
                load=load_of.get(server.id),
                free_bytes=_free_bytes(state, pool, target, facts),
                has_parent=target.is_found and _lies_in(parent_in(pool), pool),
            )
        )
    choice = choose_member(group, members)
    if choice.member is None:
        return Target(reason=choice.reason, rejected=[*choice.rejected, *disabled])
    target = targets[choice.member.pool_id]
    rejected = [*choice.rejected, *disabled, *target.rejected]
    return changed(target, reason=f"{choice.reason}; {target.reason}", rejected=rejected)


def tasks_under_way(state: State) -> tuple[Counter[int], Counter[int]]:
    """By pool and by media server: tasks that are given out and read or write there."""
    in_pool: Counter[int] = Counter()
    on_server: Counter[int] = Counter()
    for task in state.active_tasks():
        if is_given_out(task):
            pools = [state.find(Pool, one) for one in {task.pool_id, task.target_pool_id}]
            at_work = [one for one in pools if one is not None]
            in_pool.update(one.id for one in at_work)
            on_server.update({one.media_server for one in at_work})
    return in_pool, on_server


def _free_bytes(state: State, pool: Pool, target: Target, facts: Facts) -> int:
    """Room for a backup: in the catalog that was found, or on the cartridges of the pool that can be written."""
    if target.local_catalog_id:
        return facts[target.local_catalog_id].free_bytes
    return free_on_cartridges(state, pool.id)
