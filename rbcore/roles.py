"""Roles: who has which, and within what (reference 1.17).

A superuser is made with the installation. The other roles are given by records of their own, one per role and thing it is limited
to; what a user may do is the union. Pure.

Belongs here: how roles follow from records. Does not belong here: what a role sees and may do (``rbcore.access``).
"""

from __future__ import annotations

from typing import Final

from rbcore.entities import Administrator, Entity, Maintainer, StrategyAdministrator, Supervisor, User
from rbcore.state import State
from rbcore.vocabulary import ROLES, Role

ASSIGNMENT_OF: Final[dict[str, type[Entity]]] = {
    Role.SUPERVISOR: Supervisor,
    Role.MAINTAINER: Maintainer,
    Role.ADMINISTRATOR: Administrator,
    Role.STRATEGY_ADMINISTRATOR: StrategyAdministrator,
}
"""Role -> the kind of record that gives it."""
SCOPE_OF: Final[dict[str, str]] = {
    Role.MAINTAINER: "media_server",
    Role.ADMINISTRATOR: "client_group",
    Role.STRATEGY_ADMINISTRATOR: "strategy",
}
"""Role -> attribute of that record which says what the role is limited to."""
_ROLE_OF: Final = {kind.KIND: role for role, kind in ASSIGNMENT_OF.items()}


def assignments_of(state: State, user_id: int) -> list[Entity]:
    """Records that give the user roles, ordered by kind and id."""
    found = sorted(state.indexes.assignments_of_user.get(user_id, ()))
    return [state.tables[kind][number] for kind, number in found]


def roles_of(state: State, user: User) -> tuple[str, ...]:
    """Each once, in the order of the vocabulary."""
    given = {_ROLE_OF[one.KIND] for one in assignments_of(state, user.id)}
    if user.protected:
        given.add(Role.SUPERUSER)
    return tuple(role for role in ROLES if role in given)
