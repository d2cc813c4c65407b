"""Chains of backups: who may be whose parent, and who goes when one goes. Pure functions of the state.

An incremental backup refers to the newest usable backup of its group, a differential one to the newest usable full backup
(reference 3.5). A group is one resource of one client. Usable means: it and every ancestor are there and not Broken, it was
written with the same crypto, and into a pool of the same type. Compression may differ: blocks describe themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from rbcore.entities import Backup, Pool
from rbcore.errors import Refused
from rbcore.state import State
from rbcore.vocabulary import BackupType, VerificationStatus

CHAIN_LENGTH_MAX = 1000
"""Links of one chain. A backup that would be longer is made full, so that a restore stays bounded."""


REFERENCES_MAX = 100_000
"""Ids in one answer of ``deletion_reference_chain``."""
_REJECTED_SHOWN_MAX = 20


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """What a new backup refers to, and why; ``rejected``: why not the newest of the others, one sentence each."""

    backup: Backup | None
    reason: str
    rejected: list[str] = []


def ancestors(state: State, backup: Backup) -> list[Backup]:
    """The chain below ``backup``, nearest first, as far as it is there."""
    found: list[Backup] = []
    while backup.ref_id:
        parent = state.find(Backup, backup.ref_id)
        if parent is None:
            break
        found.append(parent)
        backup = parent
    return found


def chain_of(state: State, backup: Backup) -> list[Backup]:
    """What a restore of ``backup`` needs: the full backup first, ``backup`` last."""
    return [*reversed(ancestors(state, backup)), backup]


def dependants(state: State, backup_ids: Iterable[int]) -> list[int]:
    """Ids of everything that refers to these backups, directly or through others, without themselves; ascending."""
    given = set(backup_ids)
    found: set[int] = set()
    waiting = list(given)
    while waiting:
        for child in state.indexes.children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return sorted(found - given)


def taken_along(state: State, backup_ids: Iterable[int]) -> dict[int, int]:
    """Everything that goes when these backups go: id -> the named backup because of which it goes, 0 for those named."""
    because_of = dict.fromkeys(sorted(backup_ids), 0)
    waiting = list(because_of)
    while waiting:
        parent = waiting.pop()
        for child in sorted(state.indexes.children.get(parent, ())):
            if child not in because_of:
                because_of[child] = because_of[parent] or parent
                waiting.append(child)
    return because_of


def deletion_reference_chain(state: State, backup_ids: Iterable[int]) -> dict[int, list[int]]:
    """Dry run of a deletion: id -> ids that go along with it (reference 3.5). Ids that are not there are left out.

    Raises ``Refused`` when the answer would hold more than ``REFERENCES_MAX`` ids.
    """
    found: dict[int, list[int]] = {}
    total = 0
    for one in backup_ids:
        if state.find(Backup, one) is not None:
            found[one] = dependants(state, [one])
            total += len(found[one])
            if total > REFERENCES_MAX:
                raise Refused(f"The answer would hold more than {REFERENCES_MAX} backups: name fewer at a time.")
    return found


def problem_of(state: State, backup: Backup, known: dict[int, str] | None = None) -> str:
    """Why nothing can be restored from ``backup``; empty when all is well.

    ``known`` remembers faults by backup id from call to call, so that many links of one faulty chain cost one walk.
    """
    known = {} if known is None else known
    above: list[int] = []
    for link in [backup, *ancestors(state, backup)]:
        fault = known.get(link.id, "")
        if not fault and link.verification_status == VerificationStatus.BROKEN:
            fault = f"backup {link.id} is Broken"
        if not fault and link.ref_id and state.find(Backup, link.ref_id) is None:
            fault = f"backup {link.ref_id}, its ancestor, is not in the repository"
        above.append(link.id)
        if fault:
            known.update(dict.fromkeys(above, fault))
            return fault
    return ""


def choose_parent(
    state: State,
    *,
    backup_type: str,
    group: tuple[int, str, str],
    pool: Pool,
    crypto: str,
    unreadable_catalogs: Mapping[int, str],
) -> Parent:
    """The parent of a new backup of ``group``, or none and then it has to be full.

    ``unreadable_catalogs``: catalog id -> why its archives cannot be read now (a parent's manifest has to be).
    """
    if backup_type == BackupType.FULL:
        return Parent(backup=None, reason="a full backup has no parent")
    rejected: list[str] = []
    faults: dict[int, str] = {}
    for backup_id in sorted(state.indexes.groups.get(group, ()), reverse=True):
        candidate = state.find(Backup, backup_id)
        assert candidate is not None, "the index follows the table"
        if backup_type == BackupType.DIFFERENTIAL and candidate.backup_type != BackupType.FULL:
            continue
        why_not = _why_not(state, candidate, pool, crypto, unreadable_catalogs, faults)
        if not why_not:
            newest = "newest usable full backup" if backup_type == BackupType.DIFFERENTIAL else "newest usable backup"
            reason = f"backup {backup_id} is the {newest} of the resource"
            return Parent(backup=candidate, reason=reason, rejected=rejected[:_REJECTED_SHOWN_MAX])
        rejected.append(f"Backup {backup_id} is no parent: {why_not}.")
    wanted = "full backup" if backup_type == BackupType.DIFFERENTIAL else "backup"
    why = "none of them is usable" if rejected else f"there is no {wanted} of the resource yet"
    reason = f"made full instead of {backup_type}: {why}"
    return Parent(backup=None, reason=reason, rejected=rejected[:_REJECTED_SHOWN_MAX])


def _why_not(
    state: State,
    candidate: Backup,
    pool: Pool,
    crypto: str,
    unreadable_catalogs: Mapping[int, str],
    faults: dict[int, str],
) -> str:
    if candidate.crypto != crypto:
        return f"its crypto is {candidate.crypto}, not {crypto}"
    its_pool = state.find(Pool, candidate.pool_id)
    if its_pool is None or its_pool.pool_type != pool.pool_type:
        return f"it lies in a pool that is not of the type {pool.pool_type}"
    if candidate.local_catalog_id in unreadable_catalogs:
        return f"its catalog cannot be read: {unreadable_catalogs[candidate.local_catalog_id]}"
    if candidate.id in faults:
        return faults[candidate.id]
    problem = problem_of(state, candidate, faults)
    if not problem and len(ancestors(state, candidate)) + 2 > CHAIN_LENGTH_MAX:
        return f"its chain has {CHAIN_LENGTH_MAX} links already"
    return problem
