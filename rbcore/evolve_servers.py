"""Folds of the events about media servers. Part of ``rbcore.evolve``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace as changed

from rbcore.entities import MediaServer, UnauthorisedMediaServer
from rbcore.events import (
    Event,
    MediaServerAppeared,
    MediaServerAuthorised,
    MediaServerRefused,
    MediaServerReported,
    MediaServerRevoked,
)
from rbcore.state import State, Undo
from rbcore.vocabulary import FURTHER_SERVER


def _appeared(state: State, kind: str, id: int, time_ns: int, event: MediaServerAppeared) -> list[Undo]:
    known = state.find(UnauthorisedMediaServer, id)
    server = UnauthorisedMediaServer(
        id=id,
        hwid=event.hwid,
        hostname=event.hostname,
        public_key=event.public_key,
        address=event.address,
        version=event.version,
        first_seen_ns=known.first_seen_ns if known else time_ns,
        last_seen_ns=time_ns,
    )
    return [state.replace(kind, id, server)]


def _authorised(state: State, kind: str, id: int, time_ns: int, event: MediaServerAuthorised) -> list[Undo]:
    server = MediaServer(
        id=id,
        hwid=event.hwid,
        hostname=event.hostname,
        public_key=event.public_key,
        address=event.address,
        version=event.version,
        type=FURTHER_SERVER,
        created_ns=time_ns,
    )
    gone = state.replace(UnauthorisedMediaServer.KIND, event.unauthorised_id, None)
    return [gone, state.replace(kind, id, server)]


def _revoked(state: State, kind: str, id: int, time_ns: int, event: MediaServerRevoked) -> list[Undo]:
    server: MediaServer = state.tables[kind][id]
    unauthorised = UnauthorisedMediaServer(
        id=event.unauthorised_id,
        hwid=server.hwid,
        hostname=server.hostname,
        public_key=server.public_key,
        address=server.address,
        version=server.version,
        first_seen_ns=time_ns,
        last_seen_ns=time_ns,
    )
    return [
        state.replace(kind, id, None),
        state.replace(UnauthorisedMediaServer.KIND, event.unauthorised_id, unauthorised),
    ]


def _reported(state: State, kind: str, id: int, time_ns: int, event: MediaServerReported) -> list[Undo]:
    server: MediaServer = state.tables[kind][id]
    return [state.replace(kind, id, changed(server, address=event.address, version=event.version))]


def _refused(state: State, kind: str, id: int, time_ns: int, event: MediaServerRefused) -> list[Undo]:
    return []


FOLDS: dict[type[Event], Callable[[State, str, int, int, Any], list[Undo]]] = {
    MediaServerAppeared: _appeared,
    MediaServerAuthorised: _authorised,
    MediaServerRevoked: _revoked,
    MediaServerReported: _reported,
    MediaServerRefused: _refused,
}
