"""Names in an encrypted backup, which only its client can read: asked over the control channel, read over a data channel."""

from __future__ import annotations

from typing import Any

import trio

from actors.agent.manifest_stream import ManifestStream, read_trailer
from actors.agent.port import AgentKeys
from actors.agent.sealing import sealing_of
from actors.agent.transfer import Transfer, first_error
from actors.framing import DataChannel
from actors.names import NameSelection
from rbcore.errors import Damaged, RbError
from rbcore.messages import ListArchive
from rbcore.ports import World


async def list_archive(order: ListArchive, channel: DataChannel, keys: AgentKeys, world: World) -> list[dict[str, Any]]:
    """Rows as ``actors.names`` makes them. The caller closes the channel.

    Raises ``Refused`` when the archive has another key than this client's, ``Damaged``, ``Unavailable``, what the daemon refused with.
    """
    transfer = Transfer(channel, order.transfer_token)
    rows: list[dict[str, Any]] | None = None
    failure: RbError | None = None
    try:
        rows = await _list(order, transfer, keys, world)
    except* RbError as group:
        failure = first_error(group)
    if rows is None:
        raise transfer.failure or failure or Damaged(f"archive {order.archive.archive} could not be listed")
    return rows


async def _list(order: ListArchive, transfer: Transfer, keys: AgentKeys, world: World) -> list[dict[str, Any]] | None:
    """None when the channel ended first: the transfer says why."""
    archive = order.archive.archive
    codec = sealing_of(order.archive, keys.master_key).codec(archive)
    await transfer.attach()
    rows: list[dict[str, Any]] | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer.serve, nursery.cancel_scope)
        trailer = await read_trailer(transfer, world, archive, codec)
        selection = NameSelection(order.prefix, order.limit)
        stream = ManifestStream(transfer, world, archive, codec, selection.manifest_blocks(trailer))
        while not selection.complete and (piece := await stream.read()) is not None:
            if piece.problem:
                raise Damaged(piece.problem)
            selection.take(piece.entries)
        rows = selection.rows
        nursery.cancel_scope.cancel()
    return rows
