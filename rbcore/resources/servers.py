"""``media_servers`` (reference 2.5)."""

from __future__ import annotations

from rbcore.entities import MediaServer
from rbcore.resource import Choice, Resource, Text, Timestamp, YesNo
from rbcore.resources.common import EVERYBODY
from rbcore.vocabulary import MEDIA_SERVER_TYPES, Role

MEDIA_SERVERS = Resource(
    name="media_servers",
    kind=MediaServer.KIND,
    title="Media Servers",
    noun="media server",
    entity=MediaServer,
    fields=(
        Text(name="hostname", indexed=True),
        Text(name="hwid"),
        Choice(name="type", values=MEDIA_SERVER_TYPES),
        Text(name="description", default=""),
        YesNo(name="local_service_mode", default="no", description="yes: takes no new tasks; running ones finish."),
        Timestamp(name="created", attribute="created_ns"),
    ),
    change=("description", "local_service_mode"),
    searchable_name="hostname",
    read=EVERYBODY,
    scope={Role.MAINTAINER: "id"},
)
