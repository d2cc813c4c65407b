"""The global configuration and the service mode (reference 1.21, 3.15).

They may be changed at any time; a change takes effect at the next decision that reads it. A change names the keys that change: all of them are
taken, or none, and the refusal names every one that is not acceptable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rbcore.commands import ChangeConfiguration, Command, Context, SetServiceMode
from rbcore.decide.decision import Decision, Draft
from rbcore.decide.fields import accept_all
from rbcore.entities import CONFIGURATION_ID, Configuration
from rbcore.events import RecordChanged, RecordCreated
from rbcore.resources import by_kind
from rbcore.state import State

_RESOURCE = by_kind[Configuration.KIND]


def change(state: State, command: ChangeConfiguration, context: Context) -> Decision:
    """Unlike records elsewhere, a key that is not known is refused even when the answer of a GET has it: nobody is to believe that it was set."""
    wanted = [_RESOURCE.field(name) for name in _RESOURCE.change]
    return _set(state, accept_all(state, wanted, command.changes, subject=_RESOURCE.title, creating=False))


def set_service_mode(state: State, command: SetServiceMode, context: Context) -> Decision:
    return _set(state, {"service_mode": command.on})


def _set(state: State, values: Mapping[str, Any]) -> Decision:
    """Record what differs. The first change makes the record, and says no more than what is changed: defaults stay the vocabulary's."""
    known = state.find(Configuration, CONFIGURATION_ID)
    before = known if known is not None else Configuration(id=CONFIGURATION_ID)
    changes = {name: value for name, value in values.items() if value != getattr(before, name)}
    draft = Draft(state)
    if changes:
        event = RecordChanged(changes) if known is not None else RecordCreated(changes)
        draft.add(Configuration, CONFIGURATION_ID, event)
    return draft.decision(data={"changed": sorted(changes)})


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    ChangeConfiguration: change,
    SetServiceMode: set_service_mode,
}
