"""``users``, ``user_groups`` and ``client_groups`` (reference 2.1, 2.3)."""

from __future__ import annotations

from rbcore.entities import Client, ClientGroup, Entity, User, UserGroup
from rbcore.resource import Boolean, Integer, Resource, Text, TextList
from rbcore.resources.common import ids_of, is_protected, keeps_its_name, unique
from rbcore.state import State


def _has_clients(state: State, group: Entity) -> str | None:
    clients = [one for one in state.all(Client) if one.group_id == group.id]
    return f"clients belong to it (ids {ids_of(clients)})" if clients else None


CLIENT_GROUPS = Resource(
    name="client_groups",
    kind=ClientGroup.KIND,
    title="Client Groups",
    noun="client group",
    entity=ClientGroup,
    fields=(
        Text(name="name", required=True, max_length=255, pattern=r".*\S.*", example="group_name", indexed=True),
        Boolean(name="shared", default=False, description="A backup of one member can be restored on another member."),
        Boolean(name="clustered", default=False, description="The members are nodes of one cluster; implies shared."),
        Text(name="description", default=""),
        Integer(
            name="launch_attempts_limit",
            default=1,
            minimum=1,
            maximum=100,
            unit="attempts",
            description="How many members of a cluster are tried.",
        ),
    ),
    create=("name", "shared", "clustered", "description", "launch_attempts_limit"),
    change=("name", "shared", "clustered", "description", "launch_attempts_limit"),
    rules=(unique(ClientGroup.KIND, "name", "client group"), keeps_its_name(ClientGroup.KIND, "name", "client group")),
    refusals=(is_protected, _has_clients),
    prepare=lambda state, values: {**values, "shared": values["shared"] or values["clustered"]},
    deletable=True,
    searchable_name="name",
)

USER_GROUPS = Resource(
    name="user_groups",
    kind=UserGroup.KIND,
    title="User Groups",
    noun="user group",
    entity=UserGroup,
    fields=(
        Text(name="groupname", required=True, max_length=255, pattern=r".*\S.*", example="operators", indexed=True),
        Text(name="description", default=""),
    ),
    create=("groupname", "description"),
    change=("groupname", "description"),
    rules=(
        unique(UserGroup.KIND, "groupname", "user group"),
        keeps_its_name(UserGroup.KIND, "groupname", "user group"),
    ),
    refusals=(is_protected,),
    deletable=True,
    searchable_name="groupname",
)

USERS = Resource(
    name="users",
    kind=User.KIND,
    title="Users",
    noun="user",
    entity=User,
    fields=(
        Text(name="username", description="Never changes.", indexed=True),
        Text(name="fullname", default=""),
        Text(name="email", default=""),
        TextList(name="roles", description="What the user may do."),
    ),
    manage=frozenset({"superuser"}),
    searchable_name="username",
)
