"""Commands about media servers besides the main one, and about the block devices of media servers."""

from __future__ import annotations

from typing import Any

from rbcore.block_device import BlockDeviceFacts
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


class AddBlockDevice(Command, frozen=True, kw_only=True):
    """POST storage_block_devices, after the device was asked what it is."""

    fields: dict[str, Any]
    """As on the wire."""
    facts: BlockDeviceFacts | None = None
    """None: nobody asked it; then only what the fields say can be judged, and the command is refused."""
