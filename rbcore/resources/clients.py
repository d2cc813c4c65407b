"""``clients`` and ``unauthorised_clients`` (reference 2.2). Both come from agents; an administrator moves them from one to the other."""

from __future__ import annotations

from rbcore.entities import Client, ClientGroup, Entity, Pool, UnauthorisedClient
from rbcore.resource import Boolean, Computed, Field, Integer, Reference, Resource, Text, TextList, Timestamp
from rbcore.resources.common import ids_of
from rbcore.resources.referred import is_not_referred_to
from rbcore.state import State
from rbcore.vocabulary import Role


def display_name(client: Client | UnauthorisedClient) -> str:
    """``hostname (hwid)``: how bodies and answers name a client."""
    return f"{client.hostname} ({client.hwid})"


def _has_tasks(state: State, client: Entity) -> str | None:
    tasks = [task for task in state.active_tasks() if task.client_id == client.id]
    return f"tasks that have not ended belong to it (ids {ids_of(tasks)}): kill them or wait" if tasks else None


_REPORTED: tuple[Field, ...] = (
    Computed(name="client", of=display_name, description="As other resources name it: hostname (hwid)."),
    Text(name="hostname", indexed=True),
    Text(name="hwid", description="Hardware id: what the client is recognised by.", indexed=True),
    Text(name="ip_address", attribute="address"),
    Text(name="os_type"),
    Text(name="os_version"),
    Text(name="client_version", attribute="agent_version"),
    TextList(name="resource_types", in_list=False, description="What its modules can back up."),
    Text(name="public_key", in_list=False, description="Ed25519 public key of the client, hex."),
)

UNAUTHORISED_CLIENTS = Resource(
    name="unauthorised_clients",
    kind=UnauthorisedClient.KIND,
    title="Unauthorised Clients",
    noun="unauthorised client",
    entity=UnauthorisedClient,
    fields=(
        *_REPORTED,
        Timestamp(name="first_seen", attribute="first_seen_ns", event_time=True),
        Timestamp(name="last_seen", attribute="last_seen_ns", event_time=True),
    ),
    deletable=True,
    searchable_name="hostname",
)

CLIENTS = Resource(
    name="clients",
    kind=Client.KIND,
    title="Clients",
    noun="authorised client",
    entity=Client,
    fields=(
        *_REPORTED,
        Boolean(name="online"),
        Timestamp(
            name="last_online",
            attribute="last_online_ns",
            event_time=True,
            description="Start or end of its last session.",
        ),
        Reference(name="group_id", to=ClientGroup.KIND, by="name", default=1, example="No group"),
        Boolean(name="lsf_flag", default=False, description="May use a local schedule."),
        Reference(
            name="ls_pool",
            to=Pool.KIND,
            by="pool_name",
            default=1,
            example="Default",
            description="Pool for backups of the local schedule.",
        ),
        Boolean(name="lrl_flag", default=False, description="The client's list of restrictions is honoured."),
        Integer(name="storage_capacity", default=0, unit="GiB", description="Quota; 0: none."),
        Text(name="description", default=""),
        Boolean(name="centralized_restore", default=True, description="Restores may be started from the server."),
        Boolean(name="client_side_backup", default=False),
        Boolean(name="client_side_restore", default=False),
    ),
    change=(
        "group_id",
        "lsf_flag",
        "ls_pool",
        "lrl_flag",
        "storage_capacity",
        "description",
        "centralized_restore",
        "client_side_backup",
        "client_side_restore",
    ),
    refusals=(_has_tasks, is_not_referred_to(Client.KIND)),
    deletable=True,
    searchable_name="client",
    scope={Role.ADMINISTRATOR: "group_id"},
)
