"""Old event shapes become new ones here, and only here.

A released event shape is never edited. When one must change, the struct in ``rbcore/events.py`` gets the next ``SCHEMA`` number and
a function is registered here that turns a body of the old number into one of the next. Reading goes through :func:`upcast`, so
nothing above this module ever sees an old shape. ``tests/golden`` keeps logs of every released shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rbcore.errors import UNDECODABLE, Damaged
from rbcore.events import Envelope, Event, all_events

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Body with the field names of one schema -> body of the next schema."""


class Upcasting:
    """Newest schemas and the steps that lead to them."""

    def __init__(self, events: dict[str, type[Event]]) -> None:
        self._newest = {name: kind.SCHEMA for name, kind in events.items()}
        self._decoders = {name: msgspec.msgpack.Decoder(kind).decode for name, kind in events.items()}
        self._steps: dict[tuple[str, int], Upcaster] = {}

    def register(self, type: str, schema: int, step: Upcaster) -> None:
        """``step`` turns bodies of ``type`` with number ``schema`` into bodies of ``schema + 1``."""
        assert (type, schema) not in self._steps, f"{type} has one step from schema {schema}"
        assert schema < self._newest[type], f"{type} ends at schema {self._newest[type]}"
        self._steps[type, schema] = step

    def missing_steps(self) -> list[tuple[str, int]]:
        """(type, schema) of released shapes that no step leads away from: must be empty."""
        return [
            (name, schema)
            for name, newest in self._newest.items()
            for schema in range(1, newest)
            if (name, schema) not in self._steps
        ]

    def upcast(self, envelope: Envelope) -> Envelope:
        """The same event in its newest shape. A type that is not known here passes unchanged. Raises ``Damaged``."""
        newest = self._newest.get(envelope.type)
        if newest is None or envelope.schema == newest:
            return envelope
        if envelope.schema > newest:
            raise Damaged(
                f"Event {envelope.position} ({envelope.type}) has schema {envelope.schema}; this version knows up to {newest}. "
                "The log was written by a newer version: use that one."
            )
        try:
            body: dict[str, Any] = msgspec.msgpack.decode(envelope.body, type=dict)
            for schema in range(envelope.schema, newest):
                body = self._steps[envelope.type, schema](body)
        except (*UNDECODABLE, KeyError) as error:
            raise Damaged(f"The body of event {envelope.position} ({envelope.type}) is damaged: {error}") from error
        return msgspec.structs.replace(envelope, schema=newest, body=msgspec.Raw(msgspec.msgpack.encode(body)))

    def decode_event(self, envelope: Envelope) -> Event:
        """The event in an envelope. Raises ``Damaged`` for an unknown type and for a body that is not of its shape."""
        if envelope.schema != self._newest.get(envelope.type):
            envelope = self.upcast(envelope)
        try:
            return self._decoders[envelope.type](envelope.body)
        except KeyError:
            raise Damaged(
                f"Event {envelope.position} has the type {envelope.type!r}, which this version does not know. "
                "The log was written by a newer version: use that one."
            ) from None
        except UNDECODABLE as error:
            raise Damaged(f"The body of event {envelope.position} ({envelope.type}) is damaged: {error}") from error


def _task_of_no_rule(body: dict[str, Any]) -> dict[str, Any]:
    """``task.queued`` 1 -> 2: before there were rules, no task was of one."""
    return {**body, "rule_id": 0, "strategy_id": 0, "strategy_rule_id": 0}


_released = Upcasting(all_events())
_released.register("task.queued", 1, _task_of_no_rule)
assert not _released.missing_steps(), "every released event shape has a way to the newest"

upcast = _released.upcast
decode_event = _released.decode_event
