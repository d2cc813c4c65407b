"""How much of the storage a client may take (reference 3.13). Admission goes by what is stored already, not by what a backup will bring."""

from __future__ import annotations

from typing import Final

from rbcore.configuration import configured
from rbcore.entities import Backup, Client, ScheduleRule
from rbcore.indexes import canonical_resource
from rbcore.state import State

GIB: Final = 1 << 30


def stored_bytes_of(state: State, client_id: int) -> int:
    """What the archives of the client's backups occupy, copies included. Costs the backups of that client, and a look at every resource."""
    table = state.tables[Backup.KIND]
    of_client = (ids for (owner, _, _), ids in state.indexes.groups.items() if owner == client_id)
    return sum(table[one].archive_size for ids in of_client for one in ids)


def why_no_more(state: State, client: Client) -> str:
    """Why the client gets no further backup, empty: it does. A ``storage_capacity`` of 0 is none."""
    if not configured(state, "clients_capacity_limits") or not client.storage_capacity:
        return ""
    used = stored_bytes_of(state, client.id)
    if used < client.storage_capacity * GIB:
        return ""
    return (
        f"client {client.hostname} has used its storage capacity: its backups occupy {used} bytes, and {client.storage_capacity} GiB are "
        "allowed (clients_capacity_limits). Delete backups of it, or raise its storage_capacity."
    )


def stored_bytes_of_rule(state: State, rule: ScheduleRule) -> int:
    """What the archives of the rule's backups occupy, copies included. Costs the backups of its resource."""
    table = state.tables[Backup.KIND]
    group = (rule.client_id, rule.resource_type, canonical_resource(rule.resource))
    return sum(table[one].archive_size for one in state.indexes.groups.get(group, ()) if table[one].rule_id == rule.id)


def why_no_more_of_rule(state: State, rule: ScheduleRule) -> str:
    """Why the rule makes no further backup, empty: it does. ``rule_storage_capacity_reserve`` is kept free of it; a ``storage_capacity`` of 0 is none."""
    if not configured(state, "global_schedule_capacity_limits") or not rule.storage_capacity:
        return ""
    used, reserve = stored_bytes_of_rule(state, rule), int(configured(state, "rule_storage_capacity_reserve"))
    if used + reserve * GIB < rule.storage_capacity * GIB:
        return ""
    kept = f", of which {reserve} GiB are kept in reserve" if reserve else ""
    return (
        f"rule {rule.id} has used its storage capacity: its backups occupy {used} bytes, and {rule.storage_capacity} GiB are allowed{kept} "
        "(global_schedule_capacity_limits). Delete backups of it, or raise its storage_capacity."
    )
