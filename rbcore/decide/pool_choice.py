"""Which pool of a dynamic pool group takes a backup: a pure function of what is known of its members (reference 3.11, inferred from names of parameters).

A member comes into question while it has fewer tasks than ``max_pool_tasks``, its media server fewer than ``max_media_server_tasks``, and the server's
processors and block devices are less busy than the limits say. What nobody measured limits nothing: the reason of the choice says so. Of
those that are left, the pool with the parent of an incremental or differential backup goes first, then fewest tasks in the pool, fewest on its media
server, least processor load, most free space, lowest id.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rbcore.entities import DynamicPoolGroup
from rbcore.load import ServerLoad


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """An enabled pool of the group, and all that the choice depends on."""

    pool_id: int
    pool_name: str
    server_name: str
    unusable: str = ""
    """Why the pool cannot take a backup at all now."""
    pool_tasks: int = 0
    server_tasks: int = 0
    load: ServerLoad | None = None
    """None: nobody measured it."""
    free_bytes: int = 0
    has_parent: bool = False


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """``rejected``: a sentence per member that comes into no question."""

    member: Member | None
    reason: str
    rejected: list[str]


def why_not(group: DynamicPoolGroup, member: Member) -> str:
    """Why the member may not be given another backup now; empty: it may."""
    if member.unusable:
        return member.unusable
    if member.pool_tasks >= group.max_pool_tasks:
        return f"{member.pool_tasks} tasks are under way in it (max_pool_tasks {group.max_pool_tasks})"
    server = f"media server {member.server_name}"
    if member.server_tasks >= group.max_media_server_tasks:
        limit = group.max_media_server_tasks
        return f"{member.server_tasks} tasks are under way on {server} (max_media_server_tasks {limit})"
    load = member.load
    if load is None:
        return ""
    if load.cpu_percent >= group.max_cpu_usage:
        return f"the processors of {server} are {load.cpu_percent:.0f} % busy (max_cpu_usage {group.max_cpu_usage})"
    for limit, operations, name in (
        (group.max_in_block_operations, load.in_operations, "max_in_block_operations"),
        (group.max_out_block_operations, load.out_operations, "max_out_block_operations"),
    ):
        if limit and operations >= limit:
            return f"{server} does {operations:.0f} block operations per second ({name} {limit})"
    return ""


def choose_member(group: DynamicPoolGroup, members: Sequence[Member]) -> Choice:
    """See the module. Pure; the order of ``members`` does not matter."""
    rejected: list[str] = []
    left: list[Member] = []
    for member in sorted(members, key=lambda one: one.pool_id):
        reason = why_not(group, member)
        if reason:
            rejected.append(f"Pool '{member.pool_name}': {reason}.")
        else:
            left.append(member)
    if not left:
        reason = (
            f"no pool of group '{group.name}' can take it now"
            if members
            else f"group '{group.name}' has no enabled pool"
        )
        return Choice(member=None, reason=reason, rejected=rejected)
    chosen = min(left, key=_rank)
    return Choice(member=chosen, reason=_reason(group, chosen, len(left)), rejected=rejected)


def _rank(member: Member) -> tuple[bool, int, int, float, int, int]:
    cpu_percent = member.load.cpu_percent if member.load is not None else 0.0
    return (
        not member.has_parent,
        member.pool_tasks,
        member.server_tasks,
        cpu_percent,
        -member.free_bytes,
        member.pool_id,
    )


def _reason(group: DynamicPoolGroup, chosen: Member, candidates: int) -> str:
    if chosen.has_parent:
        because = "the parent lies there"
    elif candidates == 1:
        because = "no other pool of it can take the backup now"
    else:
        because = f"it is the least loaded of {candidates}"
    if chosen.load is not None:
        load = f"processors {chosen.load.cpu_percent:.0f} % busy over {group.calculation_period} s"
    else:
        load = "the load of its processors and block devices was not measured"
    return (
        f"pool '{chosen.pool_name}' out of group '{group.name}': {because} ({chosen.pool_tasks} tasks in it, {chosen.server_tasks} on "
        f"media server {chosen.server_name}, {load})"
    )
