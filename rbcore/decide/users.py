"""Users: made with their first role, changed with or without a new password, deleted with their roles (reference 2.1).

A password never comes here: whoever sends the command has put its hash into the secrets store and names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from rbcore.commands import ChangeUser, Command, Context, CreateUser
from rbcore.decide.decision import Decision, Draft, get, get_all
from rbcore.decide.declared import changed_values, new_values
from rbcore.decide.fields import invalid
from rbcore.entities import Administrator, ClientGroup, Entity, Maintainer, MediaServer, Supervisor, User
from rbcore.errors import InvalidRequest, Refused
from rbcore.events import RecordChanged, RecordCreated, RecordDeleted
from rbcore.resources.access import USERS
from rbcore.roles import assignments_of
from rbcore.state import State
from rbcore.vocabulary import Role

ROLES_AT_CREATION: Final = (Role.ADMINISTRATOR, Role.SUPERVISOR, Role.MAINTAINER)
"""Values of the query parameter ``role`` (manual); the role of a strategy is given by ``strategy_administrators``."""


def create_user(state: State, command: CreateUser, context: Context) -> Decision:
    """The user and his first role come together, so that nobody exists half made."""
    draft = Draft(state)
    user_id = draft.take_id(User)
    errors: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    assignment: Entity | None = None
    try:
        values = new_values(USERS, state, command.fields)
    except InvalidRequest as wrong:
        errors |= wrong.errors
    try:
        assignment = _first_role(draft, user_id, command)
    except InvalidRequest as wrong:
        errors |= wrong.errors
    if errors:
        raise invalid(USERS.title, errors)
    draft.add(User, user_id, RecordCreated({**values, "credential_id": command.credential_id}))
    if assignment is not None:
        draft.add_record(assignment)
    return draft.decision(ids=[user_id], message=f"Resource with name '{USERS.title}' was created successfully!")


def _first_role(draft: Draft, user_id: int, command: CreateUser) -> Entity | None:
    """Raises ``InvalidRequest`` for a parameter that is missing, names nothing or does not belong to the role."""
    state = draft.state
    if command.role and command.role not in ROLES_AT_CREATION:
        raise _unfit("role", f"must be one of: {', '.join(ROLES_AT_CREATION)}")
    for name, role in (("client_group", Role.ADMINISTRATOR), ("media_server", Role.MAINTAINER)):
        given = getattr(command, name)
        if command.role == role and not given:
            raise _unfit(name, f"is required for the role {role}")
        if command.role != role and given:
            raise _unfit(name, f"belongs to the role {role}")
    if command.role == Role.ADMINISTRATOR:
        group = state.by_key(ClientGroup, command.client_group)
        if group is None:
            raise _unfit("client_group", f"there is no client group '{command.client_group}'")
        return Administrator(id=draft.take_id(Administrator), client_group=group.id, user=user_id)
    if command.role == Role.MAINTAINER:
        server = state.by_key(MediaServer, command.media_server)
        if server is None:
            raise _unfit("media_server", f"there is no media server '{command.media_server}'")
        return Maintainer(id=draft.take_id(Maintainer), media_server=server.id, user=user_id)
    if command.role == Role.SUPERVISOR:
        return Supervisor(id=draft.take_id(Supervisor), user=user_id)
    return None


def _unfit(name: str, sentence: str) -> InvalidRequest:
    return invalid(USERS.title, {name: [f"{name}: {sentence}"]})


def change_user(state: State, command: ChangeUser, context: Context) -> Decision:
    """Reply data ``{"former_credential_id": ...}`` when the password changed: that hash is needed no longer."""
    user = get(state, User, command.user_id, USERS.noun)
    changes = changed_values(USERS, state, user, command.changes)
    data = {}
    if command.credential_id and command.credential_id != user.credential_id:
        changes["credential_id"] = command.credential_id
        data["former_credential_id"] = user.credential_id
    draft = Draft(state)
    if changes:
        draft.add(User, user.id, RecordChanged(changes))
    return draft.decision(ids=[user.id], data=data)


def delete_users(
    state: State, ids: Sequence[int], context: Context, refuse: Callable[[Sequence[Entity]], None]
) -> Decision:
    """With their roles. ``refuse`` raises when one of them cannot go. Reply data ``{"former_credential_ids": [...]}``."""
    users = get_all(state, User, ids, USERS.noun)
    refuse(users)
    for user in users:
        if context.actor == f"user:{user.username}":
            raise Refused(
                f"User {user.id} is you, and nobody deletes himself.",
                errors={str(user.id): ["It is you."]},
                data={"ids": [user.id]},
            )
    draft = Draft(state)
    for user in users:
        for one in assignments_of(state, user.id):
            draft.add(one.KIND, one.id, RecordDeleted())
        draft.add(User, user.id, RecordDeleted())
    former = [user.credential_id for user in users if user.credential_id]
    return draft.decision(ids=[user.id for user in users], data={"former_credential_ids": former})


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    CreateUser: create_user,
    ChangeUser: change_user,
}
