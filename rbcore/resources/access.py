"""``users``, ``user_groups``, ``client_groups`` and the four kinds of records that give users roles (reference 1.17, 2.1, 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbcore.entities import (
    Administrator,
    BackupStrategy,
    Client,
    ClientGroup,
    Entity,
    Maintainer,
    MediaServer,
    StrategyAdministrator,
    Supervisor,
    User,
    UserGroup,
)
from rbcore.resource import Boolean, Integer, Reference, Resource, Rule, Text, TextList
from rbcore.resources.common import EVERYBODY, ids_of, is_protected, keeps_its_name, unique
from rbcore.resources.referred import is_not_referred_to
from rbcore.state import State
from rbcore.vocabulary import Role


def _has_clients(state: State, group: Entity) -> str | None:
    clients = [one for one in state.all(Client) if one.group_id == group.id]
    return f"clients belong to it (ids {ids_of(clients)})" if clients else None


def _has_administrators(state: State, group: Entity) -> str | None:
    roles = [one for one in state.all(Administrator) if one.client_group == group.id]
    return f"users are its administrators (roles {ids_of(roles)}): take the role from them first" if roles else None


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
    refusals=(is_protected, _has_clients, _has_administrators),
    prepare=lambda state, values: {**values, "shared": values["shared"] or values["clustered"]},
    deletable=True,
    searchable_name="name",
    scope={Role.ADMINISTRATOR: "id"},
)


def _has_users(state: State, group: Entity) -> str | None:
    users = [one for one in state.all(User) if one.group_id == group.id]
    return f"users belong to it (ids {ids_of(users)})" if users else None


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
    refusals=(is_protected, _has_users, is_not_referred_to(UserGroup.KIND)),
    deletable=True,
    searchable_name="groupname",
    read=EVERYBODY,
)

USERS = Resource(
    name="users",
    kind=User.KIND,
    title="Users",
    noun="user",
    entity=User,
    fields=(
        Text(
            name="username",
            required=True,
            max_length=63,
            pattern=r"[A-Za-z_][A-Za-z0-9_$-]{0,62}",
            example="operator",
            description="Unique. Never changes.",
            indexed=True,
        ),
        Text(name="fullname", default="", max_length=255),
        Text(name="address", default=""),
        Text(name="tel", default="", max_length=255),
        Text(name="office", default="", max_length=255),
        Text(
            name="email",
            default="",
            max_length=320,
            pattern=r"|[^\s@]+@[^\s@]+",
            example="operator@example.org",
            description="Where notifications go; empty: nowhere.",
        ),
        Reference(
            name="group_id",
            to=UserGroup.KIND,
            by="groupname",
            default=1,
            example="Nobody",
            description="Group of users that is told of things together.",
        ),
        Reference(name="group", attribute="group_id", to=UserGroup.KIND, by="groupname", description="The same."),
        TextList(name="roles", description="What the user may do: follows from the roles that were given."),
    ),
    create=("group_id", "fullname", "address", "tel", "office", "email", "username"),
    change=("group_id", "fullname", "address", "tel", "office", "email"),
    rules=(unique(User.KIND, "username", "user"),),
    refusals=(is_protected, is_not_referred_to(User.KIND)),
    deletable=True,
    manage=frozenset({Role.SUPERUSER}),
    searchable_name="username",
)


def _given_once(kind: type[Entity], *attributes: str) -> Rule:
    """Nobody has the same role within the same thing twice."""

    def rule(state: State, id: int, values: Mapping[str, Any]) -> str | None:
        key = tuple(values[one] for one in attributes)
        other = state.by_key(kind, key if len(key) > 1 else key[0])
        return None if other is None or other.id == id else f"this user has this role already (id {other.id})"

    return rule


def _role(
    kind: type[Entity], name: str, title: str, *, user: str, noun: str, scope: tuple[Reference, ...] = ()
) -> Resource:
    """Records that give users a role. There is no change (manual): what is wrong is deleted and given anew."""
    return Resource(
        name=name,
        kind=kind.KIND,
        title=title,
        noun=noun,
        entity=kind,
        fields=(
            *scope,
            Reference(name=user, attribute="user", required=True, to=User.KIND, by="username", example="operator"),
        ),
        create=(*(one.name for one in scope), user),
        rules=(_given_once(kind, *(one.source for one in scope), "user"),),
        deletable=True,
        manage=frozenset({Role.SUPERUSER}),
    )


SUPERVISORS = _role(Supervisor, "supervisors", "Supervisors", user="supervisor", noun="supervisor role")
MAINTAINERS = _role(
    Maintainer,
    "maintainers",
    "Maintainers",
    user="maintainer",
    noun="maintainer role",
    scope=(
        Reference(name="media_server", required=True, to=MediaServer.KIND, by="hostname", example="rubackup-server"),
    ),
)
ADMINISTRATORS = _role(
    Administrator,
    "administrators",
    "Administrators",
    user="administrator",
    noun="administrator role",
    scope=(Reference(name="client_group", required=True, to=ClientGroup.KIND, by="name", example="No group"),),
)
STRATEGY_ADMINISTRATORS = _role(
    StrategyAdministrator,
    "strategy_administrators",
    "Strategy Administrators",
    user="administrator",
    noun="strategy administrator",
    scope=(Reference(name="strategy", required=True, to=BackupStrategy.KIND, by="name", example="Default"),),
)
