"""Decide: what a command comes to, given the state. ``decide(state, command, context) -> Decision``, pure.

A decision never changes the state; its events do, when they are applied. What cannot be done is an ``RbError`` that is raised: then
nothing is recorded. Where the refusal itself is a fact worth keeping (an agent with another's identity), the decision carries
events and a ``refusal``: the events are recorded, then the refusal is the answer.

Belongs here: rules of commands, one module per noun. Does not belong here: what an event means to the state
(``rbcore.evolve``), declarations (``rbcore.resources``), when a task goes on (``rbcore.dispatch``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from rbcore.commands import Command, Context
from rbcore.decide.access import DECIDERS as ACCESS
from rbcore.decide.assign import DECIDERS as ASSIGN
from rbcore.decide.clients import DECIDERS as CLIENTS
from rbcore.decide.configuration import DECIDERS as CONFIGURATION
from rbcore.decide.decision import Decision
from rbcore.decide.devices import DECIDERS as DEVICES
from rbcore.decide.installation import DECIDERS as INSTALLATION
from rbcore.decide.queue import DECIDERS as QUEUE
from rbcore.decide.records import DECIDERS as RECORDS
from rbcore.decide.recovery import DECIDERS as RECOVERY
from rbcore.decide.repository import DECIDERS as REPOSITORY
from rbcore.decide.requests import DECIDERS as REQUESTS
from rbcore.decide.schedule import DECIDERS as SCHEDULE
from rbcore.decide.servers import DECIDERS as SERVERS
from rbcore.decide.tape_cartridges import DECIDERS as TAPE_CARTRIDGES
from rbcore.decide.tape_drives import DECIDERS as TAPE_DRIVES
from rbcore.decide.tape_inventory import DECIDERS as TAPE_INVENTORY
from rbcore.decide.tape_libraries import DECIDERS as TAPE_LIBRARIES
from rbcore.decide.tape_moves import DECIDERS as TAPE_MOVES
from rbcore.decide.tape_tasks import DECIDERS as TAPE_TASKS
from rbcore.decide.tasks import DECIDERS as TASKS
from rbcore.decide.users import DECIDERS as USERS
from rbcore.notify import notifications_of
from rbcore.state import State

_DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    **RECORDS,
    **INSTALLATION,
    **CONFIGURATION,
    **CLIENTS,
    **SERVERS,
    **DEVICES,
    **QUEUE,
    **ASSIGN,
    **TASKS,
    **REPOSITORY,
    **TAPE_LIBRARIES,
    **TAPE_INVENTORY,
    **TAPE_MOVES,
    **TAPE_DRIVES,
    **TAPE_CARTRIDGES,
    **TAPE_TASKS,
    **ACCESS,
    **USERS,
    **SCHEDULE,
    **REQUESTS,
    **RECOVERY,
}
assert set(Command.__subclasses__()) == set(_DECIDERS), "every command is decided"


def decide(state: State, command: Command, context: Context) -> Decision:
    """Events and reply of ``command``, and whoever has to be told. Raises ``RbError``s, all of which leave everything as it was."""
    decision = _DECIDERS[type(command)](state, command, context)
    told = notifications_of(state, decision.events)
    if not told:
        return decision
    reply = msgspec.structs.replace(decision.reply, position=decision.reply.position + len(told))
    return replace(decision, events=[*decision.events, *told], reply=reply)


__all__ = ["Decision", "decide"]
