"""Commands about media servers besides the main one."""

from __future__ import annotations

from rbcore.commands_base import Command


class MediaServerHello(Command, frozen=True, kw_only=True):
    """A media server proved that it holds ``public_key``. Reply data: ``{"id": n, "authorised": bool}``, the id of the row in which it stands.

    A pinned hwid with another key or host name is recorded and refused (AuthenticationFailed).
    """

    hwid: str
    hostname: str
    public_key: str
    address: str
    version: str


class AuthoriseMediaServer(Command, frozen=True, kw_only=True):
    """POST media_servers/authorize: by host name. Reply ids: the media server it became."""

    hostname: str
