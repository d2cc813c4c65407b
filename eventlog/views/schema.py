"""Tables, columns and indexes of the view file, derived from the declarations of resources and of append-only logs.

An entity table holds row versions: ``id, from_position, to_position`` and a column per declared field. The row whose
``to_position`` is null is the current one; a version holds at position p when ``from_position <= p < to_position``.
A log table holds lines that never change: ``id`` (1, 2, 3, ... in log order), ``position`` and the declared fields.

Stored values are what can be compared natively: times as microseconds since 1970-01-01 UTC (the wire's resolution),
truth values as 0 and 1, references as ids, "none" (0 in the entity) as null, lists and objects as JSON text.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

import msgspec
from blake3 import blake3

from rbcore import resource as declared
from rbcore.entities import Client, Entity, FormerClient
from rbcore.events import Envelope, Event
from rbcore.state import State

LAYOUT: Final = 1
"""Raise when the meaning of a stored value changes: every view file made before is rebuilt."""

POSITION_TABLE: Final = "view_position"
"""One row: position of the last folded event and the fingerprint of the schema."""

CLIENT_KIND: Final = Client.KIND
FORMER_CLIENT_KIND: Final = FormerClient.KIND
"""Names a client that is no longer authorised, under the same id."""

RESERVED: Final = frozenset({"id", "rowid", "position", "from_position", "to_position", "fork"})

Lines = Callable[[Envelope, Any, State, "Entity | None"], Iterable[Sequence[Any]]]
"""``lines(envelope, event, state after it, before) -> rows``, a value per declared field as the entity of a resource would hold it. ``before``: the
entity that the event's stream names, as it was before the event; None: there was none. Pure."""


class Kind(enum.Enum):
    """How a column compares and how it stands on the wire."""

    INTEGER = "integer"
    TEXT = "text"
    BOOLEAN = "boolean"
    YES_NO = "yes or no"
    TIME = "time"
    REFERENCE = "name"
    LIST = "list"
    JSON = "object"


_SQL_TYPES = {
    Kind.INTEGER: "INTEGER",
    Kind.TEXT: "TEXT",
    Kind.BOOLEAN: "INTEGER",
    Kind.YES_NO: "INTEGER",
    Kind.TIME: "INTEGER",
    Kind.REFERENCE: "INTEGER",
    Kind.LIST: "TEXT",
    Kind.JSON: "TEXT",
}
_MARKS = {
    Kind.TIME: "nullif(?, 0) / 1000",
    Kind.REFERENCE: "nullif(?, 0)",
    Kind.YES_NO: "? IN (1, 'yes')",
}
"""What SQLite makes of an entity's value when it is not stored as it is: cheaper than a Python call per value."""
SORTABLE: Final = frozenset({Kind.INTEGER, Kind.TEXT, Kind.BOOLEAN, Kind.YES_NO, Kind.TIME, Kind.REFERENCE})


@dataclass(frozen=True, slots=True)
class Column:
    """A declared field as it is stored."""

    name: str
    kind: Kind
    store: Callable[[Any], Any] | None
    """Converts the entity's attribute before it is handed to SQLite; None: handed over as it is."""
    source: str
    """Attribute of the entity; empty: ``store`` computes the value from the whole entity."""
    indexed: bool = False
    in_list: bool = True
    target: str = ""
    """Stream kind a reference points to."""
    by: str = ""
    """Column of the target that stands on the wire."""
    event_time: bool = False
    """A time that is never later than the event that set it."""
    or_target: str = ""
    """Stream kind that negative ids point to."""
    or_by: str = ""

    @property
    def quoted(self) -> str:
        return quoted(self.name)

    @property
    def sortable(self) -> bool:
        return self.kind in SORTABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTable:
    """Declaration of an append-only table: lines that follow from single events."""

    name: str
    """As in the path, ``task_log``; also the name of the table."""
    fields: tuple[declared.Field, ...]
    """All fields shown, in order, without ``id``."""
    lines: Mapping[type[Event], Lines]
    """What each type of event adds."""
    scope: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """As of ``Resource``: role -> path from a line to what the role is limited to."""

    @property
    def read(self) -> frozenset[str]:
        """Roles that may list it."""
        return declared.UNLIMITED_ROLES | self.scope.keys()

    def field(self, name: str) -> declared.Field:
        return next(one for one in self.fields if one.name == name)


class Table:
    """A table of the view file: its columns, and the SQL that makes it."""

    def __init__(self, name: str, columns: Sequence[Column], positions: tuple[str, ...]) -> None:
        self.name = name
        self.quoted = quoted(name)
        self.columns = {column.name: column for column in columns}
        self._positions = positions
        if len(self.columns) != len(columns) or RESERVED & self.columns.keys():
            raise ValueError(f"table {name}: a field stands twice or is called like a column of every table")

    @property
    def insert_sql(self) -> str:
        """Parameters: the id, a value per column as the entity holds it, the positions."""
        columns = self.columns.values()
        names = ", ".join(["id", *(one.quoted for one in columns), *self._positions])
        marks = ", ".join(["?", *(_MARKS.get(one.kind, "?") for one in columns), *("?" for _ in self._positions)])
        return f"INSERT INTO {self.quoted} ({names}) VALUES ({marks})"

    def column_definitions(self) -> str:
        return "".join(f", {one.quoted} {_SQL_TYPES[one.kind]}" for one in self.columns.values())

    def create_table_sql(self) -> str:
        raise AssertionError("subclasses say")

    def create_indexes_sql(self) -> list[str]:
        raise AssertionError("subclasses say")


class EntityTable(Table):
    """Row versions of one kind of entity."""

    def __init__(self, resource: declared.Resource) -> None:
        super().__init__(
            resource.name, [_column(one) for one in resource.fields], ("from_position", "to_position", "fork")
        )
        self.kind = resource.kind
        columns = list(enumerate(self.columns.values(), start=1))
        # "id" comes first and stands in for computed columns: always a tuple, even of one declared field.
        self._fetch = attrgetter("id", *(one.source or "id" for _, one in columns))
        self._stores = [(at, one.store) for at, one in columns if one.store and one.source]
        self._computed = [(at, one.store) for at, one in columns if one.store and not one.source]

    def row(self, entity: Entity, from_position: int, to_position: int | None) -> tuple[Any, ...]:
        """The row version as ``insert_sql`` takes it."""
        fork = None if to_position is None else fork_of(from_position, to_position)
        values = [*self._fetch(entity), from_position, to_position, fork]
        for at, store in self._stores:
            values[at] = store(values[at])
        for at, of in self._computed:
            values[at] = of(entity)
        return tuple(values)  # of plain values: the garbage collector lets go of it at once, of a list it does not

    @property
    def close_sql(self) -> str:
        """Parameters: the position at which the current version ends, the entity's id."""
        return (
            f"UPDATE {self.quoted} SET to_position = ?1, fork = fork_of(from_position, ?1)"
            " WHERE id = ?2 AND to_position IS NULL"
        )

    @property
    def ended_by_end(self) -> str:
        """Quoted index of ended versions by fork and end (``past``)."""
        return quoted(f"{self.name}:ended by end")

    @property
    def ended_by_begin(self) -> str:
        return quoted(f"{self.name}:ended by begin")

    def create_table_sql(self) -> str:
        return (
            f"CREATE TABLE {self.quoted} (id INTEGER NOT NULL, from_position INTEGER NOT NULL, to_position INTEGER,"
            f" fork INTEGER{self.column_definitions()})"
        )

    def create_indexes_sql(self) -> list[str]:
        """By id (current rows, all versions), by position (what changed since), ended versions by fork (``past``), and current
        rows in the order of every sortable column of lists, so that a page costs the rows it shows.

        Indexes of current rows also hold where they began, and the null at which they end: so rows are counted and, at a past
        position, later ones passed over without being read (SQLite looks at ``to_position`` although the index implies it).
        """
        table, name = self.quoted, self.name
        made = [
            f"CREATE INDEX {quoted(current_index(name, 'id'))} ON {table} (id, from_position, to_position)"
            " WHERE to_position IS NULL",
            f"CREATE INDEX {quoted(f'{name}:versions')} ON {table} (id, from_position, to_position)",
            f"CREATE INDEX {quoted(f'{name}:opened')} ON {table} (from_position)",
            f"CREATE INDEX {quoted(f'{name}:closed')} ON {table} (to_position) WHERE to_position IS NOT NULL",
            f"CREATE INDEX {self.ended_by_end} ON {table} (fork, to_position) WHERE fork IS NOT NULL",
            f"CREATE INDEX {self.ended_by_begin} ON {table} (fork, from_position) WHERE fork IS NOT NULL",
        ]
        made += [
            f"CREATE INDEX {quoted(current_index(name, one.name))} ON {table} ({one.quoted}, id, from_position, to_position)"
            " WHERE to_position IS NULL"
            for one in self.columns.values()
            if one.sortable and (one.in_list or one.indexed)
        ]
        return made


@dataclass(frozen=True, slots=True)
class Target:
    """A table that a reference points to, by the column that stands on the wire. ``sign``: the reference holds the id with it."""

    table: EntityTable
    by: str
    sign: str = ""


class LinesTable(Table):
    """Lines of one append-only log."""

    def __init__(self, declaration: LogTable) -> None:
        super().__init__(declaration.name, [_column(one) for one in declaration.fields], ("position",))
        for one in self.columns.values():
            if not one.source:
                raise ValueError(f"log {self.name}: field {one.name} cannot be computed from an entity")
        self.lines = declaration.lines
        self._width = len(self.columns) + 2
        self._stores = [(at, one.store) for at, one in enumerate(self.columns.values(), start=1) if one.store]

    def row(self, id: int, position: int, line: Sequence[Any]) -> tuple[Any, ...]:
        """The line as ``insert_sql`` takes it."""
        values = [id, *line, position]
        assert len(values) == self._width, f"log {self.name}: a line has a value per declared field"
        for at, store in self._stores:
            values[at] = store(values[at])
        return tuple(values)

    def create_table_sql(self) -> str:
        return (
            f"CREATE TABLE {self.quoted} (id INTEGER PRIMARY KEY, position INTEGER NOT NULL{self.column_definitions()})"
        )

    def create_indexes_sql(self) -> list[str]:
        made = [f"CREATE INDEX {quoted(f'{self.name}:opened')} ON {self.quoted} (position)"]
        made += [
            f"CREATE INDEX {quoted(current_index(self.name, one.name))} ON {self.quoted} ({one.quoted}, id)"
            for one in self.columns.values()
            if one.sortable and one.indexed
        ]
        return made


_FORMER_CLIENTS: Final = declared.Resource(
    name="former_clients",
    kind=FORMER_CLIENT_KIND,
    title="Former Clients",
    noun="former client",
    entity=FormerClient,
    fields=(
        declared.Computed(name="client", of=lambda former: f"{former.hostname} ({former.hwid})"),
        declared.Text(name="hostname"),
        declared.Text(name="hwid"),
    ),
)
"""Kept for the names alone when nobody declares it."""


class ViewSchema:
    """All tables of a view file.

    ``revision`` distinguishes what the declarations do not show, such as the code of computed fields: the composition root
    hands in the version of the program, so that a new release makes its views anew.
    """

    def __init__(
        self, resources: Iterable[declared.Resource], logs: Iterable[LogTable] = (), *, revision: str = ""
    ) -> None:
        self.entities = {one.kind: EntityTable(one) for one in resources}
        if CLIENT_KIND in self.entities and FORMER_CLIENT_KIND not in self.entities:
            self.entities[FORMER_CLIENT_KIND] = EntityTable(_FORMER_CLIENTS)
        self.logs = {one.name: LinesTable(one) for one in logs}
        tables: list[EntityTable | LinesTable] = [*self.entities.values(), *self.logs.values()]
        self.tables = {one.name: one for one in tables}
        if len(self.tables) != len(tables) or POSITION_TABLE in self.tables:
            raise ValueError("two declarations want the same table")
        self._check_references()
        self._revision = revision
        self.fingerprint = self._fingerprint()

    def targets_of(self, column: Column) -> tuple[Target, ...]:
        """Tables that know the name a reference shows; the first one that has the id at the position in question says."""
        kinds = (column.target, FORMER_CLIENT_KIND) if column.target == CLIENT_KIND else (column.target,)
        found = [Target(self.entities[kind], column.by) for kind in kinds if column.by in self.entities[kind].columns]
        if column.or_target:
            found.append(Target(self.entities[column.or_target], column.or_by, sign="-"))
        return tuple(found)

    def create_tables_sql(self) -> list[str]:
        position = f"CREATE TABLE {POSITION_TABLE} (one INTEGER PRIMARY KEY, position INTEGER NOT NULL, fingerprint TEXT NOT NULL)"
        return [position, *(table.create_table_sql() for table in self.tables.values())]

    def create_indexes_sql(self) -> list[str]:
        return [sql for table in self.tables.values() for sql in table.create_indexes_sql()]

    def _fingerprint(self) -> str:
        meaning = [
            (
                table.name,
                [
                    (one.name, one.kind.name, one.source, one.target, one.by, one.or_target, one.or_by)
                    for one in table.columns.values()
                ],
            )
            for table in self.tables.values()
        ]
        text = repr((LAYOUT, self._revision, self.create_tables_sql(), self.create_indexes_sql(), meaning))
        return blake3(text.encode()).hexdigest()

    def _check_references(self) -> None:
        for table in self.tables.values():
            for column in table.columns.values():
                if column.kind is not Kind.REFERENCE:
                    continue
                self._check_target(f"{table.name}.{column.name}", column.target, column.by)
                if column.or_target:
                    self._check_target(f"{table.name}.{column.name}", column.or_target, column.or_by)

    def _check_target(self, subject: str, kind: str, by: str) -> None:
        target = self.entities.get(kind)
        shown = target.columns.get(by) if target else None
        if target is None:
            raise ValueError(f"{subject} refers to {kind!r}, which is not declared")
        if shown is None or shown.kind is not Kind.TEXT:
            raise ValueError(f"{subject} is shown by {by!r}, which is no text")


def current_index(table: str, column: str) -> str:
    return f"{table}/{column}"


def fork_of(from_position: int, to_position: int) -> int:
    """The position within ``from_position .. to_position - 1`` that is a multiple of the highest power of two (``past``)."""
    last = to_position - 1
    bit = (from_position ^ last).bit_length() - 1
    return last >> bit << bit if bit >= 0 else last


def quoted(name: str) -> str:
    assert '"' not in name, "declared names are plain"
    return f'"{name}"'


def _column(field: declared.Field) -> Column:
    kind = _KINDS.get(type(field), Kind.TEXT)
    store: Callable[[Any], Any] | None = _json if kind in (Kind.LIST, Kind.JSON) else None
    if isinstance(field, declared.Computed):
        if field.kind not in _COMPUTED_KINDS:
            raise ValueError(f"computed field {field.name}: {field.kind!r} is not a kind of value")
        kind, store = _COMPUTED_KINDS[field.kind], field.of
    return Column(
        field.name,
        kind,
        store,
        source="" if isinstance(field, declared.Computed) else field.source,
        indexed=field.indexed,
        in_list=field.in_list,
        target=field.to if isinstance(field, declared.Reference) else "",
        by=field.by if isinstance(field, declared.Reference) else "",
        or_target=field.or_to if isinstance(field, declared.Reference) else "",
        or_by=field.or_by if isinstance(field, declared.Reference) else "",
        event_time=isinstance(field, declared.Timestamp) and field.event_time,
    )


_KINDS: Final[dict[type[declared.Field], Kind]] = {
    declared.Integer: Kind.INTEGER,
    declared.Boolean: Kind.BOOLEAN,
    declared.YesNo: Kind.YES_NO,
    declared.Timestamp: Kind.TIME,
    declared.Reference: Kind.REFERENCE,
    declared.TextList: Kind.LIST,
    declared.JsonObject: Kind.JSON,
}
_COMPUTED_KINDS: Final = {
    "text": Kind.TEXT,
    "integer": Kind.INTEGER,
    "boolean": Kind.BOOLEAN,
    "timestamp": Kind.TIME,
}


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
