"""What a role sees and may do: which records it reaches, and whether a command stays within that (reference 1.17). Pure.

- A superuser and a supervisor reach every record. A maintainer reaches what belongs to his media servers, an administrator what belongs to
  his client groups, an administrator of strategies what belongs to his strategies. Who has several roles reaches the union.
- By which path a record belongs to one of those is declared with its resource (``Resource.scope``).
- What somebody does not reach for reading is not there for him: lists pass over it, and whoever names its id learns that there is no such
  record. What he sees and may not change is denied.
- A new record, and a changed one as it would be, must be within reach as well, and so must everything that the request names in it. A name of nothing and
  a name of something out of reach are denied in the same words.

Judged is the live state, before a command is submitted (docs/ARCHITECTURE.md): ``decide`` knows nothing of roles.

Belongs here: the rules. Does not belong here: who has which role (``rbcore.roles``), what a command touches (``rbcore.targets``), which methods a role may
use at all (the declarations).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rbcore.entities import Entity
from rbcore.errors import AccessDenied, NotFound
from rbcore.resource import UNLIMITED_ROLES, Computed, Integer, Reference, Resource, Scoped
from rbcore.resources import by_kind, by_name
from rbcore.roles import ASSIGNMENT_OF, SCOPE_OF, assignments_of
from rbcore.state import State

Reach = tuple[tuple[str, tuple[int, ...]], ...] | None
"""Rows somebody reaches: those in which one of the (``id`` or referring field, ids) holds; None: all of them, (): none."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What a user was given: role -> ids of the media servers, client groups or strategies it is limited to."""

    limits: Mapping[str, frozenset[int]]

    @property
    def roles(self) -> frozenset[str]:
        return frozenset(self.limits)


def grants_of(state: State, user_id: int, roles: Iterable[str]) -> Grants:
    """``roles`` are those of the user's record; what limits them stands in the records that gave them."""
    limits: dict[str, set[int]] = {role: set() for role in roles}
    for one in assignments_of(state, user_id):
        for role, kind in ASSIGNMENT_OF.items():
            if isinstance(one, kind) and role in SCOPE_OF and role in limits:
                limits[role].add(getattr(one, SCOPE_OF[role]))
    return Grants({role: frozenset(ids) for role, ids in limits.items()})


def reach(state: State, grants: Grants, resource: Scoped, roles: frozenset[str]) -> Reach:
    """What the grants reach of ``resource`` through any of ``roles``, which are those that may do what is asked for."""
    clauses: list[tuple[str, tuple[int, ...]]] = []
    for role in sorted(grants.roles & roles):
        if role in UNLIMITED_ROLES or role not in resource.scope:
            return None
        for path in paths_of(resource, role):
            first, _, rest = path.partition(".")
            ids = grants.limits[role] if not rest else _ids_that_lead(state, resource, first, rest, grants.limits[role])
            clauses.append((first, tuple(sorted(ids))))
    return tuple(clauses)


def reaches(
    state: State, grants: Grants, resource: Resource, roles: frozenset[str], values: Entity | Mapping[str, Any]
) -> bool:
    """The same for one record, or for the values by attribute of one that is to be."""
    for role in grants.roles & roles:
        if role in UNLIMITED_ROLES or role not in resource.scope:
            return True
        if any(_leads(state, resource, path, values, grants.limits[role]) for path in paths_of(resource, role)):
            return True
    return False


def paths_of(resource: Scoped, role: str) -> tuple[str, ...]:
    paths = resource.scope[role]
    return (paths,) if isinstance(paths, str) else paths


def _leads(
    state: State, resource: Scoped, path: str, values: Entity | Mapping[str, Any], limit: frozenset[int]
) -> bool:
    first, _, rest = path.partition(".")
    if first == "id":
        return _value(values, "id") in limit
    number = _value(values, resource.field(first).source)
    if not rest:
        return number in limit
    target = by_kind[target_of(resource, first)]
    found = state.tables[target.kind].get(number)
    return found is not None and _leads(state, target, rest, found, limit)


def _ids_that_lead(
    state: State, resource: Scoped, first: str, rest: str, limit: frozenset[int]
) -> frozenset[int] | set[int]:
    """Ids of what ``first`` refers to from which ``rest`` leads into ``limit``. Goes the path backwards, one look at each table on it: lists of
    whole installations are asked for by everybody all day."""
    *middle, last = rest.split(".")
    at = by_kind[target_of(resource, first)]
    hops: list[tuple[str, str]] = []
    for step in middle:
        hops.append((at.kind, at.field(step).source))
        at = by_kind[target_of(at, step)]
    if last != "id":
        hops.append((at.kind, at.field(last).source))
    ids: frozenset[int] | set[int] = limit
    for kind, attribute in reversed(hops):
        ids = {one.id for one in state.tables[kind].values() if getattr(one, attribute) in ids}
    return ids


def target_of(resource: Scoped, field: str) -> str:
    """Stream kind of the records that a field of a path refers to."""
    declared = resource.field(field)
    assert isinstance(declared, Reference | Integer | Computed), f"{resource.name}.{field} refers to nothing"
    return declared.to if isinstance(declared, Reference) else declared.refers_to


def _value(values: Entity | Mapping[str, Any], attribute: str) -> int:
    found = values.get(attribute, 0) if isinstance(values, Mapping) else getattr(values, attribute)
    return found if isinstance(found, int) else 0


# --- commands ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Acts:
    """Something is done to records that are there."""

    resource: str
    ids: tuple[int, ...]
    field: str = "id"
    """What the request calls them."""


@dataclass(frozen=True, slots=True)
class Puts:
    """A record would come to be, or would be so: values by attribute."""

    resource: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Uses:
    """A field names a record; 0: nothing of that name is there."""

    kind: str
    id: int
    field: str


Target = Acts | Puts | Uses


def judge(state: State, grants: Grants, roles: frozenset[str], targets: Sequence[Target]) -> None:
    """Whether somebody with these grants may do that by a method for ``roles``.

    Raises ``NotFound`` for ids that are not there for him, ``AccessDenied`` for the rest.
    """
    for one in targets:
        _JUDGES[type(one)](state, grants, roles, one)


def _judge_acts(state: State, grants: Grants, roles: frozenset[str], target: Acts) -> None:
    resource = by_name[target.resource]
    table = state.tables[resource.kind]
    hidden = [
        one for one in target.ids if one not in table or not reaches(state, grants, resource, resource.read, table[one])
    ]
    if hidden:
        named = ", ".join(map(str, hidden))
        sentence = f"There is no {resource.noun} with id {named}."
        raise NotFound(f"{resource.noun} not found", errors={target.field: [sentence]}, data={"ids": hidden})
    denied = [one for one in target.ids if not reaches(state, grants, resource, roles, table[one])]
    if denied:
        named = ", ".join(map(str, denied))
        sentence = f"{resource.noun} {named} is out of reach of the roles that may do this"
        raise AccessDenied(f"Access denied: {sentence}.", errors={target.field: [sentence]}, data={"ids": denied})


def _judge_puts(state: State, grants: Grants, roles: frozenset[str], target: Puts) -> None:
    resource = by_name[target.resource]
    if not reaches(state, grants, resource, roles, target.values):
        sentence = f"this {resource.noun} would be out of reach of the roles that may do this"
        raise AccessDenied(f"Access denied: {sentence}.", errors={"_schema": [sentence]})


def _judge_uses(state: State, grants: Grants, roles: frozenset[str], target: Uses) -> None:
    resource = by_kind[target.kind]
    if reach(state, grants, resource, resource.read) is None:
        return
    found = state.tables[resource.kind].get(target.id)
    if found is None or not reaches(state, grants, resource, resource.read, found):
        sentence = f"{target.field}: no {resource.noun} of this name is within reach of your roles"
        raise AccessDenied(f"Access denied: {sentence}.", errors={target.field: [sentence]})


_JUDGES: dict[type[Target], Callable[[State, Grants, frozenset[str], Any], None]] = {
    Acts: _judge_acts,
    Puts: _judge_puts,
    Uses: _judge_uses,
}
