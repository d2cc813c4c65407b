"""``media_servers`` and ``unauthorised_media_servers`` (reference 2.5). Media servers report themselves; an administrator moves them from one to the other."""

from __future__ import annotations

from rbcore.entities import Entity, Maintainer, MediaServer, Pool, TapeLibrary, UnauthorisedMediaServer
from rbcore.resource import Choice, Computed, Field, Resource, Text, Timestamp, YesNo
from rbcore.resources.common import EVERYBODY, ids_of
from rbcore.state import State
from rbcore.vocabulary import MAIN_SERVER, MEDIA_SERVER_TYPES, Role


def _is_the_main_server(state: State, server: Entity) -> str | None:
    return "it is the main server" if getattr(server, "type", "") == MAIN_SERVER else None


def _owns_pools(state: State, server: Entity) -> str | None:
    pools = [one for one in state.all(Pool) if one.media_server == server.id]
    return f"pools belong to it (ids {ids_of(pools)})" if pools else None


def _owns_libraries(state: State, server: Entity) -> str | None:
    libraries = [one for one in state.all(TapeLibrary) if one.media_server == server.id]
    return f"tape libraries belong to it (ids {ids_of(libraries)})" if libraries else None


def _has_tasks(state: State, server: Entity) -> str | None:
    tasks = [task for task in state.active_tasks() if task.media_server_id == server.id]
    return f"tasks that have not ended work there (ids {ids_of(tasks)}): kill them or wait" if tasks else None


def _has_maintainers(state: State, server: Entity) -> str | None:
    found = [one for one in state.all(Maintainer) if one.media_server == server.id]
    return f"it has maintainers (ids {ids_of(found)})" if found else None


_REPORTED: tuple[Field, ...] = (
    Text(name="ip_address", attribute="address"),
    Text(name="version", description="Version of its program; empty: it did not say."),
    Text(name="public_key", in_list=False, description="Ed25519 public key, hex; empty: the main server."),
)

MEDIA_SERVERS = Resource(
    name="media_servers",
    kind=MediaServer.KIND,
    title="Media Servers",
    noun="media server",
    entity=MediaServer,
    fields=(
        Text(name="hostname", indexed=True),
        Text(name="hwid", indexed=True),
        Choice(name="type", values=MEDIA_SERVER_TYPES),
        *_REPORTED,
        Computed(
            name="online",
            of=lambda server: server.type == MAIN_SERVER,
            kind="boolean",
            description="Of this release only the main server works: no further one has a session yet.",
        ),
        Text(name="description", default=""),
        YesNo(name="local_service_mode", default="no", description="yes: takes no new tasks; running ones finish."),
        Timestamp(name="created", attribute="created_ns", event_time=True),
    ),
    change=("description", "local_service_mode"),
    refusals=(_is_the_main_server, _owns_pools, _owns_libraries, _has_tasks, _has_maintainers),
    deletable=True,
    searchable_name="hostname",
    read=EVERYBODY,
    scope={Role.MAINTAINER: "id"},
)

UNAUTHORISED_MEDIA_SERVERS = Resource(
    name="unauthorised_media_servers",
    kind=UnauthorisedMediaServer.KIND,
    title="Unauthorised Media Servers",
    noun="unauthorised media server",
    entity=UnauthorisedMediaServer,
    fields=(
        Text(name="hostname", indexed=True),
        Text(name="hwid", indexed=True),
        *_REPORTED,
        Timestamp(name="first_seen", attribute="first_seen_ns"),
        Timestamp(name="last_seen", attribute="last_seen_ns"),
    ),
    deletable=True,
    searchable_name="hostname",
)
