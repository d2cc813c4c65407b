"""The declaration of a resource: one place from which validation, rules, views, filters, routes and OpenAPI follow.

A declaration is data. ``rbcore.decide`` enforces fields and rules, ``eventlog.views`` makes the table and the predicates,
``httpapi`` makes the routes and the schemas. A resource that is only created, changed, listed and deleted needs nothing
but its declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rbcore.entities import Entity
    from rbcore.state import State


UNLIMITED_ROLES = frozenset({"superuser", "supervisor"})
"""They see all records; which methods they may use is a matter of each method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key on the wire, and one column of the view. Subclasses are the types."""

    name: str
    attribute: str = ""
    """Attribute of the entity when it is not called like the key (``created`` shows ``created_ns``)."""
    description: str = ""
    default: Any = None
    required: bool = False
    """Must stand in the body of a create. Otherwise ``default`` is taken."""
    nullable: bool = False
    example: Any = None
    in_list: bool = True
    """Shown in list rows as well as in the detail."""
    indexed: bool = False

    @property
    def source(self) -> str:
        return self.attribute or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer(Field):
    minimum: int = 0
    maximum: int = 2**63 - 1
    multiple_of: int = 1
    unit: str = ""
    refers_to: str = ""
    """Stream kind of the record whose id it is, where the wire shows ids and not names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Field):
    max_length: int = 4096
    pattern: str = ""
    """Whole-match regular expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boolean(Field):
    """Also takes "yes" and "no"; answers true and false (reference 1.20)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YesNo(Field):
    """Also takes true and false; answers "yes" and "no" (reference 1.20)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Field):
    """A text out of a vocabulary."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timestamp(Field):
    """Nanoseconds in the entity, ISO 8601 with microseconds on the wire; 0 is null."""

    event_time: bool = False
    """Never later than the event that set it: lists of the past, newest first, begin at that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval(Field):
    """``1 year``, ``30 days``; normalised on input (``rbcore.interval``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(Field):
    """Names a record of another resource on the wire; an integer id in the entity, 0 for none (null on the wire).

    ``default`` is an id. Names are looked up by the target's own key (``rbcore.indexes.KEYS``).
    """

    to: str
    """Stream kind of the target, ``pool``."""
    by: str
    """Column of the target that stands on the wire; ``client`` references stand as ``hostname (hwid)``, which is the target's
    computed column ``client``."""
    or_to: str = ""
    """Stream kind of another target that may be named instead, from the same namespace. The entity then holds its id with a minus: -3."""
    or_by: str = ""
    placeholder: str = ""
    """A name that means none where no record is called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextList(Field):
    """A list of texts; JSON in the view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonObject(Field):
    """Free-form parameters; JSON in the view; cannot be filtered or sorted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed(Field):
    """Follows from the entity alone. ``of`` must be pure; the value is stored in the view so that it can be filtered."""

    of: Callable[[Any], Any]
    kind: str = "text"
    """``text``, ``integer``, ``boolean``, ``timestamp``."""
    refers_to: str = ""
    """As of ``Integer``; the entity's attribute of the same name holds the id."""


class Scoped(Protocol):
    """Declared rows of which roles may reach a part: those of a ``Resource``, and of an append-only view."""

    @property
    def name(self) -> str: ...

    @property
    def scope(self) -> Mapping[str, str | tuple[str, ...]]: ...

    @property
    def read(self) -> frozenset[str]: ...

    def field(self, name: str) -> Field: ...


Rule = Callable[["State", int, Mapping[str, Any]], str | None]
"""``rule(state, id or 0, resolved fields) -> sentence why not, or None``. Pure."""

Refusal = Callable[["State", "Entity"], str | None]
"""``refusal(state, entity) -> sentence why it cannot be deleted, or None``. Pure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource of the API: see the module. ``id`` is a field of every resource and is never declared."""

    name: str
    """As in the path, ``pool_list``. Also the name of the view's table."""
    kind: str
    """Stream kind and key of the state's table, ``pool``."""
    title: str
    """As in the manual's messages: ``Resource with name 'Pool List' was created successfully!``."""
    noun: str
    """As in sentences: ``pool not found``."""
    entity: type[Entity]
    fields: tuple[Field, ...]
    """All fields shown, in order, without ``id``."""
    create: tuple[str, ...] = ()
    """Names a create may carry; empty: no create by the generic command."""
    change: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    prepare: Callable[[State, dict[str, Any]], dict[str, Any]] | None = None
    """Last word on resolved fields before the event: drops what the type does not know. Pure."""
    deletable: bool = False
    manage: frozenset[str] = UNLIMITED_ROLES
    read: frozenset[str] = frozenset()
    """Roles that may list and show it; not given: the unlimited ones and those of ``scope``."""
    scope: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Role -> path, or paths of which one is enough, from a record to what the role is limited to: ``{"maintainer": "pool.media_server"}``.
    The steps are names of fields; the last one is ``id``, or refers to the media server, client group or strategy (``rbcore.access``). A role
    that may read or manage and is not named here reaches every record."""
    searchable_name: str = ""
    """Column that names a record to people and to references."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", self.read or UNLIMITED_ROLES | self.scope.keys())

    def field(self, name: str) -> Field:
        for one in self.fields:
            if one.name == name:
                return one
        raise KeyError(name)


def table_of(resources: Sequence[Resource]) -> dict[str, Resource]:
    """Declarations by stream kind; each kind has exactly one."""
    by_kind = {one.kind: one for one in resources}
    assert len(by_kind) == len(resources), "one declaration per stream kind"
    return by_kind


__all__ = [
    "Boolean",
    "Choice",
    "Computed",
    "Field",
    "Integer",
    "Interval",
    "JsonObject",
    "Reference",
    "Refusal",
    "Resource",
    "Rule",
    "Scoped",
    "Text",
    "TextList",
    "Timestamp",
    "YesNo",
    "table_of",
]
