"""Media servers besides the main one: they report themselves, an administrator pins their identity by host name, and gives them back.

As clients do (``rbcore.decide.clients``): known by hwid, proved by a key. A host name is pinned along with them, because pools, catalogs and
authorisation go by it. Deleting a media server makes it an unauthorised one (reference 2.5, by symmetry with clients); authorised again
it is a new record, as nothing of the repository can be left that names the old one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from rbcore.commands import Command, Context
from rbcore.commands_servers import AuthoriseMediaServer, MediaServerHello
from rbcore.decide.decision import Decision, Draft, get_all
from rbcore.decide.fields import text
from rbcore.entities import Entity, MediaServer, UnauthorisedMediaServer
from rbcore.errors import AuthenticationFailed, InvalidRequest, NotFound, Refused, Unavailable
from rbcore.events import (
    MediaServerAppeared,
    MediaServerAuthorised,
    MediaServerRefused,
    MediaServerReported,
    MediaServerRevoked,
)
from rbcore.state import State
from rbcore.vocabulary import MAIN_SERVER

UNAUTHORISED_SERVERS_MAX: Final = 100
"""Media servers that wait for authorisation. More are turned away until the list is worked off: strangers cannot fill the log."""
SERVER_SEEN_STEP_NS: Final = 60 * 10**9
"""An unauthorised media server that reports nothing new is recorded at most this often."""

_HWID = re.compile(r"[0-9a-f]{8,128}", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FACT_LENGTH_MAX: Final = 255


def hello(state: State, command: MediaServerHello, context: Context) -> Decision:
    """See ``MediaServerHello``."""
    _check_hello(command)
    server = next((one for one in state.all(MediaServer) if one.hwid == command.hwid), None)
    if server is None:
        return _unauthorised_hello(state, command, context)
    draft = Draft(state)
    reason = _why_another(server, command)
    if reason:
        refused = MediaServerRefused(command.hostname, command.address, command.public_key, reason)
        draft.add(MediaServer, server.id, refused)
        refusal = AuthenticationFailed(
            f"Media server {server.hostname} ({server.hwid}) is known otherwise: {reason}. If the host was set up anew, delete the media "
            "server and authorise it again."
        )
        return draft.decision(refusal=refusal)
    if (server.address, server.version) != (command.address, command.version):
        draft.add(MediaServer, server.id, MediaServerReported(command.address, command.version))
    return draft.decision(ids=[server.id], data={"id": server.id, "authorised": True})


def _why_another(server: MediaServer, command: MediaServerHello) -> str:
    if server.type == MAIN_SERVER:
        return "that is the main server itself"
    if server.public_key != command.public_key:
        return "the key is not the one that was pinned when it was authorised"
    if server.hostname != command.hostname:
        return f"it was authorised as {server.hostname}, not as {command.hostname}"
    return ""


def _unauthorised_hello(state: State, command: MediaServerHello, context: Context) -> Decision:
    draft = Draft(state)
    known = state.by_key(UnauthorisedMediaServer, (command.hwid, command.public_key))
    if known is None and len(state.tables[UnauthorisedMediaServer.KIND]) >= UNAUTHORISED_SERVERS_MAX:
        raise Unavailable(
            f"{UNAUTHORISED_SERVERS_MAX} media servers wait for authorisation; authorise or delete some of them, then this one is let in."
        )
    row = draft.take_id(UnauthorisedMediaServer) if known is None else known.id
    is_news = known is None or (known.hostname, known.address, known.version) != (
        command.hostname,
        command.address,
        command.version,
    )
    if is_news or (known is not None and context.now_ns >= known.last_seen_ns + SERVER_SEEN_STEP_NS):
        appeared = MediaServerAppeared(
            command.hwid, command.hostname, command.public_key, command.address, command.version
        )
        draft.add(UnauthorisedMediaServer, row, appeared)
    return draft.decision(ids=[row], data={"id": row, "authorised": False})


def _check_hello(command: MediaServerHello) -> None:
    if not _HWID.fullmatch(command.hwid):
        raise InvalidRequest("hwid: 8 to 128 lowercase hex digits are expected.")
    if not _KEY.fullmatch(command.public_key):
        raise InvalidRequest("public_key: 64 lowercase hex digits are expected.")
    try:
        for fact in (command.hostname, command.address, command.version):
            text(fact, _FACT_LENGTH_MAX)
    except ValueError as wrong:
        raise InvalidRequest(f"What the media server reports about itself {wrong}.") from wrong
    if not command.hostname.strip():
        raise InvalidRequest("hostname: it must not be empty.")


def authorise(state: State, command: AuthoriseMediaServer, context: Context) -> Decision:
    """Pin hwid, key and host name of the one that waits under that name."""
    waiting = [one for one in state.all(UnauthorisedMediaServer) if one.hostname == command.hostname]
    if not waiting:
        sentence = f"There is no unauthorised media server {command.hostname[:255]!r}."
        raise NotFound("unauthorised media server not found", errors={"hostname": [sentence]})
    if len(waiting) > 1:
        ids = ", ".join(str(one.id) for one in waiting)
        raise Refused(
            f"{len(waiting)} media servers wait under the name {command.hostname} (unauthorised_media_servers {ids}): delete all but the "
            "right one, then authorise it.",
            errors={"hostname": ["Several media servers wait under that name."]},
        )
    (one,) = waiting
    known = state.by_key(MediaServer, one.hostname)
    if known is not None:
        raise Refused(
            f"Media server {known.id} is authorised under the name {one.hostname}: delete that first.",
            errors={"hostname": ["There is a media server of that name already."]},
        )
    draft = Draft(state)
    server_id = draft.take_id(MediaServer)
    event = MediaServerAuthorised(one.id, one.hwid, one.hostname, one.public_key, one.address, one.version)
    draft.add(MediaServer, server_id, event)
    return draft.decision(ids=[server_id])


def revoke(state: State, ids: Sequence[int], refuse: Callable[[Sequence[Entity]], None]) -> Decision:
    """DELETE media_servers: back to the unauthorised ones. ``refuse`` raises when one of them cannot go."""
    servers = get_all(state, MediaServer, ids, "media server")
    refuse(servers)
    draft = Draft(state)
    for server in servers:
        draft.add(MediaServer, server.id, MediaServerRevoked(draft.take_id(UnauthorisedMediaServer)))
    return draft.decision(ids=[server.id for server in servers])


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    MediaServerHello: hello,
    AuthoriseMediaServer: authorise,
}
