"""State: the fold of the log, and the only input of decisions besides the command.

``State`` holds entities by kind and id. ``apply`` folds one event in place and returns what it replaced, so that a commit
that did not reach the disk can be taken back; entities themselves are immutable values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from blake3 import blake3

from rbcore.entities import ENTITIES, Entity, Task
from rbcore.indexes import Indexes
from rbcore.vocabulary import ACTIVE_STATUSES

E = TypeVar("E", bound=Entity)


class Undo(msgspec.Struct, frozen=True, gc=False):
    """What ``State.replace`` replaced: enough to take it back."""

    kind: str
    id: int
    before: Entity | None
    next_id_before: int


class State:
    """All live entities.

    ``tables[kind][id]`` is the entity; ``versions[stream]`` the version of the stream's last event; ``next_ids[kind]`` the id the next
    entity of that kind gets (ids are never used twice).
    """

    __slots__ = ("indexes", "next_ids", "position", "tables", "versions")

    def __init__(self) -> None:
        self.tables: dict[str, dict[int, Any]] = {kind: {} for kind in ENTITIES}
        self.versions: dict[str, int] = {}
        self.next_ids: dict[str, int] = dict.fromkeys(ENTITIES, 1)
        self.position = 0
        self.indexes = Indexes()

    def find(self, kind: type[E], id: int) -> E | None:
        found: E | None = self.tables[kind.KIND].get(id)
        return found

    def all(self, kind: type[E]) -> Iterator[E]:
        """Entities of one kind, ascending by id."""
        table: dict[int, E] = self.tables[kind.KIND]
        return iter([table[key] for key in sorted(table)])

    def by_key(self, kind: type[E], key: object) -> E | None:
        """The entity that its own key names: a pool by name, a client by hwid (``rbcore.indexes.KEYS``)."""
        found = self.indexes.by_key[kind.KIND].get(key)
        return None if found is None else self.find(kind, found)

    def tasks_in(self, *statuses: str) -> list[Task]:
        """Tasks with one of these statuses, ascending by id. Costs what it returns."""
        by_status = self.indexes.tasks_by_status
        table: dict[int, Task] = self.tables[Task.KIND]
        return [table[key] for key in sorted(key for status in statuses for key in by_status[status])]

    def active_tasks(self) -> list[Task]:
        """Tasks that have not ended, ascending by id."""
        return self.tasks_in(*ACTIVE_STATUSES)

    def next_id(self, kind: type[Entity]) -> int:
        return self.next_ids[kind.KIND]

    def replace(self, kind: str, id: int, entity: Entity | None) -> Undo:
        """Put ``entity`` (None: remove) in its place and say what was there."""
        table = self.tables[kind]
        before = table.get(id)
        undo = Undo(kind, id, before, self.next_ids[kind])
        if entity is None:
            table.pop(id, None)
        else:
            table[id] = entity
            if id >= self.next_ids[kind]:
                self.next_ids[kind] = id + 1
        self.indexes.update(kind, before, entity)
        return undo

    def replace_task(self, before: Task, after: Task) -> Undo:
        """``replace`` for a task that is there, without what cannot change then: the most frequent step of a replay."""
        number = before.id
        self.tables["task"][number] = after
        if before.status != after.status:
            by_status = self.indexes.tasks_by_status
            by_status[before.status].discard(number)
            by_status[after.status].add(number)
        return Undo("task", number, before, self.next_ids["task"])

    def take_back(self, undo: Undo) -> None:
        """Undo one ``replace``; later ones on the same entity must have been taken back before."""
        table = self.tables[undo.kind]
        self.indexes.update(undo.kind, table.get(undo.id), undo.before)
        if undo.before is None:
            table.pop(undo.id, None)
        else:
            table[undo.id] = undo.before
        self.next_ids[undo.kind] = undo.next_id_before

    def take_back_all(self, undos: Sequence[Undo], stream: str, version: int, position: int) -> None:
        """Undo what ``apply`` did with the event at ``position``, version ``version`` of ``stream``: the newest event first."""
        assert self.position == position, "events are taken back in reverse order"
        assert self.versions[stream] == version, "events are taken back in reverse order"
        for undo in reversed(undos):
            self.take_back(undo)
        if version > 1:
            self.versions[stream] = version - 1
        else:
            del self.versions[stream]
        self.position = position - 1

    def digest(self) -> str:
        """BLAKE3-256 over all entities and counters in a canonical order: two replays agree or they do not."""
        hasher = blake3()
        encode = msgspec.msgpack.Encoder(order="deterministic").encode
        for kind in sorted(self.tables):
            table = self.tables[kind]
            hasher.update(encode([kind, self.next_ids[kind], len(table)]))
            for key in sorted(table):
                hasher.update(encode(table[key]))
        return hasher.hexdigest()
