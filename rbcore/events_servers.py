"""Events about media servers besides the main one. Everybody takes them from ``rbcore.events``."""

from __future__ import annotations

from rbcore.events_base import Event


class MediaServerAppeared(Event, frozen=True, gc=False):
    """A media server that nobody authorised yet reported itself. Stream ``unauthorised_media_server/<id>``."""

    TYPE = "media_server.appeared"
    hwid: str
    hostname: str
    public_key: str
    """Ed25519 public key, hex."""
    address: str
    version: str


class MediaServerAuthorised(Event, frozen=True, gc=False):
    """The identity is pinned from here on. Stream ``media_server/<id>``; ``unauthorised_media_server/<unauthorised_id>`` ends."""

    TYPE = "media_server.authorised"
    unauthorised_id: int
    hwid: str
    hostname: str
    public_key: str
    address: str
    version: str


class MediaServerRevoked(Event, frozen=True, gc=False):
    """It is no longer authorised (DELETE media_servers): ``unauthorised_media_server/<unauthorised_id>`` takes its facts over.

    Stream ``media_server/<id>``.
    """

    TYPE = "media_server.revoked"
    unauthorised_id: int


class MediaServerReported(Event, frozen=True, gc=False):
    """Facts that it told about itself and that differ from what was known. Stream ``media_server/<id>``."""

    TYPE = "media_server.reported"
    address: str
    version: str


class MediaServerRefused(Event, frozen=True, gc=False):
    """Somebody came with this media server's hwid and another key or host name. Stream ``media_server/<id>``; state does not change."""

    TYPE = "media_server.refused"
    hostname: str
    address: str
    public_key: str
    reason: str
