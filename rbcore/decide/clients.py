"""Clients: they report themselves, an administrator pins their identity, and nobody else can come with their name.

An agent is known by its hwid; what it proves is the key. Two agents that report the same hwid with different keys before any is authorised
stand side by side in the list, so that the administrator pins exactly the key that was shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from rbcore.commands import AgentGone, AgentHello, AllAgentsGone, AuthoriseClients, Command, Context
from rbcore.decide.decision import Decision, Draft, get_all
from rbcore.decide.fields import text
from rbcore.entities import Client, Entity, FormerClient, UnauthorisedClient
from rbcore.errors import AuthenticationFailed, InvalidRequest, Refused, Unavailable
from rbcore.events import (
    ClientAppeared,
    ClientAuthorised,
    ClientConnected,
    ClientDisconnected,
    ClientRefused,
    ClientReported,
    ClientRevoked,
)
from rbcore.state import State

UNAUTHORISED_MAX: Final = 1000
"""Clients that wait for authorisation. More are turned away until the list is worked off: strangers cannot fill the log."""
LAST_SEEN_STEP_NS: Final = 60 * 10**9
"""An unauthorised agent that reports nothing new is recorded at most this often."""

_HWID = re.compile(r"[0-9a-f]{8,128}", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FACT_LENGTH_MAX: Final = 255
_RESOURCE_TYPES_MAX: Final = 100


def agent_hello(state: State, command: AgentHello, context: Context) -> Decision:
    """Reply data ``{"client_id": id of the row the agent stands in, "authorised": bool}``."""
    _check_hello(command)
    client = state.by_key(Client, command.hwid)
    if client is None:
        return _unauthorised_hello(state, command, context)
    draft = Draft(state)
    if client.public_key != command.public_key:
        reason = "the key is not the one that was pinned when the client was authorised"
        draft.add(Client, client.id, ClientRefused(command.address, command.public_key, reason))
        refusal = AuthenticationFailed(
            f"Client {client.hostname} ({client.hwid}) is known with another key. If the host was set up anew, "
            "delete the client and authorise it again."
        )
        return draft.decision(refusal=refusal)
    reported = ClientReported(
        command.hostname,
        command.address,
        command.os_type,
        command.os_version,
        command.agent_version,
        command.resource_types,
    )
    if _facts_of(client) != _facts_of(command):
        draft.add(Client, client.id, reported)
    if not client.online:
        draft.add(Client, client.id, ClientConnected())
    return draft.decision(ids=[client.id], data={"client_id": client.id, "authorised": True})


def _unauthorised_hello(state: State, command: AgentHello, context: Context) -> Decision:
    draft = Draft(state)
    known = state.by_key(UnauthorisedClient, (command.hwid, command.public_key))
    if known is None and len(state.tables[UnauthorisedClient.KIND]) >= UNAUTHORISED_MAX:
        raise Unavailable(
            f"{UNAUTHORISED_MAX} clients wait for authorisation; authorise or delete some of them, then this one is let in."
        )
    row = draft.take_id(UnauthorisedClient) if known is None else known.id
    seen_lately = known is not None and context.now_ns < known.last_seen_ns + LAST_SEEN_STEP_NS
    if known is None or not seen_lately or _facts_of(known) != _facts_of(command):
        appeared = ClientAppeared(
            command.hwid,
            command.hostname,
            command.public_key,
            command.address,
            command.os_type,
            command.os_version,
            command.agent_version,
            command.resource_types,
        )
        draft.add(UnauthorisedClient, row, appeared)
    return draft.decision(ids=[row], data={"client_id": row, "authorised": False})


def _check_hello(command: AgentHello) -> None:
    if not _HWID.fullmatch(command.hwid):
        raise InvalidRequest("hwid: 8 to 128 lowercase hex digits are expected.")
    if not _KEY.fullmatch(command.public_key):
        raise InvalidRequest("public_key: 64 lowercase hex digits are expected.")
    if len(command.resource_types) > _RESOURCE_TYPES_MAX:
        raise InvalidRequest(f"resource_types: at most {_RESOURCE_TYPES_MAX} are expected.")
    try:
        facts = (command.hostname, command.address, command.os_type, command.os_version, command.agent_version)
        for fact in (*facts, *command.resource_types):
            text(fact, _FACT_LENGTH_MAX)
    except ValueError as wrong:
        raise InvalidRequest(f"What the agent reports about itself {wrong}.") from wrong
    if not command.hostname:
        raise InvalidRequest("hostname: it must not be empty.")


def _facts_of(one: Client | UnauthorisedClient | AgentHello) -> tuple[Any, ...]:
    return (
        one.hostname,
        one.address,
        one.os_type,
        one.os_version,
        one.agent_version,
        tuple(one.resource_types),
    )


def agent_gone(state: State, command: AgentGone, context: Context) -> Decision:
    draft = Draft(state)
    client = state.find(Client, command.client_id)
    if client is not None and client.online:
        draft.add(Client, client.id, ClientDisconnected(command.reason))
    return draft.decision()


def all_agents_gone(state: State, command: AllAgentsGone, context: Context) -> Decision:
    draft = Draft(state)
    for client_id in sorted(state.indexes.online_clients):
        draft.add(Client, client_id, ClientDisconnected("the daemon was started"))
    return draft.decision()


def authorise(state: State, command: AuthoriseClients, context: Context) -> Decision:
    """Pin the keys. A client that was authorised before gets its id back, and with it its backups."""
    waiting = get_all(state, UnauthorisedClient, command.ids, "unauthorised client")
    _refuse_known_hwids(state, waiting)
    draft = Draft(state)
    ids = []
    for one in waiting:
        former = state.by_key(FormerClient, one.hwid)
        client_id = former.id if former is not None else draft.take_id(Client)
        event = ClientAuthorised(
            one.id,
            one.hwid,
            one.hostname,
            one.public_key,
            one.address,
            one.os_type,
            one.os_version,
            one.agent_version,
            list(one.resource_types),
        )
        draft.add(Client, client_id, event)
        ids.append(client_id)
    return draft.decision(ids=ids)


def _refuse_known_hwids(state: State, waiting: Sequence[UnauthorisedClient]) -> None:
    errors: dict[str, list[str]] = {}
    seen: set[str] = set()
    for one in waiting:
        if one.hwid in seen:
            errors[str(one.id)] = [f"Two of the named clients have the hwid {one.hwid}: authorise the right one alone."]
        client = state.by_key(Client, one.hwid)
        if client is not None:
            errors[str(one.id)] = [
                f"Client {client.id} is authorised with the hwid {one.hwid} and another key: delete it first."
            ]
        seen.add(one.hwid)
    if errors:
        raise Refused(next(iter(errors.values()))[0], errors=errors)


def revoke(state: State, ids: Sequence[int], refuse: Callable[[Sequence[Entity]], None]) -> Decision:
    """DELETE clients: back to the unauthorised ones (manual). ``refuse`` raises when one of them cannot go."""
    clients = get_all(state, Client, ids, "authorised client")
    refuse(clients)
    draft = Draft(state)
    for client in clients:
        assert state.by_key(UnauthorisedClient, (client.hwid, client.public_key)) is None, (
            "authorisation ended that row"
        )
        draft.add(Client, client.id, ClientRevoked(draft.take_id(UnauthorisedClient)))
    return draft.decision(ids=[client.id for client in clients])


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    AgentHello: agent_hello,
    AgentGone: agent_gone,
    AllAgentsGone: all_agents_gone,
    AuthoriseClients: authorise,
}
