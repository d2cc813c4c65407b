"""How much of the storage a client may take (reference 3.13). Admission goes by what is stored already, not by what a backup will bring."""

from __future__ import annotations

from typing import Final

from rbcore.configuration import configured
from rbcore.entities import Backup, Client
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
