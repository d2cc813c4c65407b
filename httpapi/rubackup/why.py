"""GET task_queue/{id}/why and library_tape_drives/{id}/why: a story from the log itself and not from any view of it.

Of a task, in log order: every event of it and whatever was recorded together with it (the backup that it made), what caused it, what was
chosen, and which options were rejected for which reason. Of a drive: the same of its newest mount, with the tape task that it was made for
and how the task behind that came to be. Nothing is reasoned out for the occasion: decisions recorded all of it when they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import trio

from eventlog.port import EventLog
from httpapi import schema
from rbcore.events import (
    DriveMountBegun,
    Envelope,
    Event,
    TapeTaskQueued,
    TapeTaskStatusChanged,
    TaskAssigned,
    TaskNoted,
    TaskPlaced,
    TaskQueued,
    TaskStatusChanged,
    all_events,
)
from rbcore.interval import format_moment

_DECODERS = {name: msgspec.msgpack.Decoder(kind).decode for name, kind in all_events().items()}
_decode_mount = msgspec.msgpack.Decoder(DriveMountBegun).decode
_decode_tape_task = msgspec.msgpack.Decoder(TapeTaskQueued).decode
_CHECKPOINT_EVENTS = 128
"""Events read between two chances for other requests; each costs some ten microseconds."""
_COMMAND_EVENTS_MAX = 64
"""Events of one command that are looked at on either side of a task's event."""

ROW: schema.Schema = {
    "type": "object",
    "properties": {
        "id": schema.ID | {"description": "Position in the log."},
        "time": {"type": "string", "description": "ISO 8601 in UTC."},
        "stream": {"type": "string"},
        "event": {"type": "string"},
        "actor": {"type": "string", "description": "Who: `user:...`, `client:...`, `actor:...`."},
        "text": {"type": "string"},
        "caused_by": {
            "type": ["object", "null"],
            "description": "The event that led to this one; null when a person or a device did.",
        },
        "rejected": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Options that were looked at and not taken, each with its reason.",
        },
        "details": {"type": "object", "description": "The event's body."},
        "command_id": {"type": "string"},
        "correlation": {"type": "string", "description": "Command id of the first command of the conversation."},
    },
    "required": ["id", "time", "stream", "event", "actor", "text", "caused_by", "rejected", "details"],
}


async def explain(log: EventLog, task_id: int, until: int) -> list[dict[str, Any]]:
    """Rows up to position ``until``; empty when the task was never queued."""
    story: dict[int, Envelope] = {}
    for number, envelope in enumerate(log.read_stream(f"task/{task_id}")):
        if envelope.position > until:
            break
        story[envelope.position] = envelope
        if envelope.type != TaskNoted.TYPE:
            for companion in _same_command(log, envelope, until):
                story.setdefault(companion.position, companion)
        if number % _CHECKPOINT_EVENTS == 0:
            await trio.lowlevel.checkpoint()
    return [_row(log, story[position]) for position in sorted(story)]


async def explain_mount(log: EventLog, drive_id: int, until: int) -> list[dict[str, Any]]:
    """Rows up to position ``until`` about the newest mount that was begun in the drive; empty when there was none."""
    mount: list[Envelope] = []
    for number, envelope in enumerate(log.read_stream(f"tape_drive/{drive_id}")):
        if envelope.position > until:
            break
        if envelope.type == DriveMountBegun.TYPE:
            mount = [envelope]
        elif mount:
            mount.append(envelope)
        if number % _CHECKPOINT_EVENTS == 0:
            await trio.lowlevel.checkpoint()
    if not mount:
        return []
    tape_task_id = _decode_mount(mount[0].body).tape_task_id
    story = mount + (_story_of_tape_task(log, tape_task_id, until) if tape_task_id else [])
    return [_row(log, one) for one in sorted(story, key=lambda one: one.position)]


def _story_of_tape_task(log: EventLog, tape_task_id: int, until: int) -> list[Envelope]:
    """Its events, and of the task that reads or writes how it was queued and where it was put."""
    own = [one for one in log.read_stream(f"tape_task/{tape_task_id}") if one.position <= until]
    queued = [_decode_tape_task(one.body) for one in own if one.type == TapeTaskQueued.TYPE]
    parents = [one.parent_task_id for one in queued if one.parent_task_id]
    return own + [
        one
        for parent in parents
        for one in log.read_stream(f"task/{parent}")
        if one.position <= until and one.type in _ORIGINS
    ]


_ORIGINS = frozenset({TaskQueued.TYPE, TaskAssigned.TYPE, TaskPlaced.TYPE})


def _same_command(log: EventLog, envelope: Envelope, until: int) -> Iterator[Envelope]:
    """Events that landed in one batch with ``envelope``: they stand side by side and share the command id."""
    first = max(0, envelope.position - _COMMAND_EVENTS_MAX - 1)
    last = min(until, envelope.position + _COMMAND_EVENTS_MAX)
    before: list[Envelope] = []
    for other in log.read(first, last):
        if other.command_id != envelope.command_id:
            if other.position > envelope.position:
                break
            before.clear()
        elif other.position < envelope.position:
            before.append(other)
        elif other.position > envelope.position:
            yield other
    yield from before


def within_reach(rows: list[dict[str, Any]], own: str, sees: Callable[[str], bool]) -> list[dict[str, Any]]:
    """What a limited caller is told: one command may have been about records of others too. ``own`` is the stream that was asked for."""

    def is_told(stream: str) -> bool:
        return stream == own or sees(stream)

    return [
        row | {"caused_by": row["caused_by"] if row["caused_by"] and is_told(row["caused_by"]["stream"]) else None}
        for row in rows
        if is_told(row["stream"])
    ]


def _row(log: EventLog, envelope: Envelope) -> dict[str, Any]:
    event: Event = _DECODERS[envelope.type](envelope.body)
    return {
        "id": envelope.position,
        "time": format_moment(envelope.time_ns),
        "stream": envelope.stream,
        "event": envelope.type,
        "actor": envelope.actor,
        "text": _sentence(event),
        "caused_by": _cause(log, envelope.causation),
        "rejected": event.rejected if isinstance(event, TaskAssigned | DriveMountBegun) else [],
        "details": msgspec.to_builtins(event),
        "command_id": envelope.command_id,
        "correlation": envelope.correlation,
    }


def _cause(log: EventLog, position: int) -> dict[str, Any] | None:
    if position <= 0:
        return None
    cause = next(iter(log.read(position - 1, position)), None)
    if cause is None:
        return None
    event: Event = _DECODERS[cause.type](cause.body)
    return {"id": position, "stream": cause.stream, "event": cause.type, "text": _sentence(event)}


def _sentence(event: Event) -> str:
    match event:
        case (
            TaskStatusChanged(previous=previous, status=status, reason=reason)
            | TapeTaskStatusChanged(previous=previous, status=status, reason=reason)
        ):
            return f"{previous} -> {status}: {reason}" if reason else f"{previous} -> {status}"
        case TaskNoted(side=side, lines=lines):
            return f"{side}: " + " | ".join(lines)
        case _:
            reason = getattr(event, "reason", "")
            return f"{event.TYPE}: {reason}" if reason else event.TYPE
