"""The answer of a decision, and the small words that all deciders share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from rbcore.commands import Reply
from rbcore.entities import Entity
from rbcore.errors import NotFound, RbError
from rbcore.events import Event, NewEvent, RecordCreated
from rbcore.state import State

E = TypeVar("E", bound=Entity)

LINES_MAX: Final = 1000
"""Lines of one note, findings of one verification; a last line says how many more there were."""
LINE_LENGTH_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    events: list[NewEvent]
    """Recorded together or not at all; empty: nothing changes."""
    reply: Reply
    """Its position is that of the last event, or the state's when there is none."""
    refusal: RbError | None = None
    """Raised at the sender after the events are recorded."""


@dataclass(slots=True)
class Draft:
    """Collects the events of one decision. ``take_id`` numbers entities that the same decision makes."""

    state: State
    events: list[NewEvent] = field(default_factory=list)
    _taken: dict[str, int] = field(default_factory=dict)
    _begun: dict[str, int] = field(default_factory=dict)
    """By kind: how many of the taken ids have had an event."""

    def add(self, kind: type[Entity] | str, id: int, event: Event) -> None:
        name = kind if isinstance(kind, str) else kind.KIND
        if self._taken:
            self._check_order(name, id)
        self.events.append(NewEvent(f"{name}/{id}", event))

    def _check_order(self, name: str, id: int) -> None:
        """New entities begin in the order of their ids: at each position of the log those that there are have the lowest (``eventlog.views.past``)."""
        number = id - self.state.next_ids[name]
        if number >= 0:
            begun = self._begun.get(name, 0)
            assert number <= begun, f"{name} {id} begins before one with a lower id"
            self._begun[name] = max(begun, number + 1)

    def add_record(self, entity: Entity) -> None:
        """The entity is new, and its record is made. ``created_ns`` is the time of the event."""
        fields = msgspec.to_builtins(entity)
        del fields["id"]
        fields.pop("created_ns", None)
        self.add(entity.KIND, entity.id, RecordCreated(fields))

    def take_id(self, kind: type[Entity]) -> int:
        taken = self._taken.get(kind.KIND, 0)
        self._taken[kind.KIND] = taken + 1
        return self.state.next_id(kind) + taken

    def decision(
        self,
        *,
        ids: Sequence[int] = (),
        message: str = "",
        data: dict[str, Any] | None = None,
        refusal: RbError | None = None,
    ) -> Decision:
        position = self.state.position + len(self.events)
        reply = Reply(position=position, ids=list(ids), message=message, data=data or {})
        return Decision(events=self.events, reply=reply, refusal=refusal)


def get(state: State, kind: type[E], id: int, noun: str) -> E:
    """The entity, or ``NotFound``."""
    found = state.find(kind, id)
    if found is None:
        raise NotFound(f"{noun} not found", errors={"id": [f"There is no {noun} with id {id}."]}, data={"ids": [id]})
    return found


def get_all(state: State, kind: type[E], ids: Iterable[int], noun: str) -> list[E]:
    """The entities, each once, in the order given; ``NotFound`` names every id that is missing."""
    unique = list(dict.fromkeys(ids))
    missing = [one for one in unique if state.find(kind, one) is None]
    if missing:
        named = ", ".join(map(str, missing))
        raise NotFound(
            f"{noun} not found", errors={"ids": [f"There is no {noun} with id {named}."]}, data={"ids": missing}
        )
    return [get(state, kind, one, noun) for one in unique]


def bounded(lines: Sequence[str]) -> list[str]:
    """At most ``LINES_MAX`` lines of at most ``LINE_LENGTH_MAX`` characters; what was left out is said, not hidden."""
    kept = [line if len(line) <= LINE_LENGTH_MAX else f"{line[: LINE_LENGTH_MAX - 3]}..." for line in lines[:LINES_MAX]]
    if len(lines) > LINES_MAX:
        kept[-1] = f"... and {len(lines) - LINES_MAX + 1} more"
    return kept
