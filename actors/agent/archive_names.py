"""Names in an encrypted backup: only the client has the key, so it reads the manifest and tells."""

from __future__ import annotations

from typing import Any

import trio

from actors.agent.manifest_stream import ManifestStream, read_trailer
from actors.agent.sealing import sealing_of
from actors.agent.transfer import Transfer
from actors.framing import DataChannel
from actors.names import NameSelection
from rbcore.archive.block import BlockCodec
from rbcore.errors import Damaged, Unavailable
from rbcore.messages import ListArchive
from rbcore.ports import World


async def list_archive(
    order: ListArchive, channel: DataChannel, master_key: bytes, world: World
) -> list[dict[str, Any]]:
    """Rows as ``actors.names`` makes them. The caller closes the channel. Raises ``Refused`` (another key), ``Damaged``,
    ``Unavailable`` when the channel ends early.
    """
    sealing = sealing_of(order.archive, master_key)
    transfer = Transfer(channel, order.transfer_token)
    selection = NameSelection(order.prefix, order.limit)
    await transfer.attach()
    complete = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer.serve, nursery.cancel_scope)
        await _select(order.archive.archive, transfer, selection, sealing.codec(order.archive.archive), world)
        complete = True
        nursery.cancel_scope.cancel()
    if not complete:
        raise transfer.failure or Unavailable("The data channel ended before the listing was complete.")
    return selection.rows


async def _select(archive: str, transfer: Transfer, selection: NameSelection, codec: BlockCodec, world: World) -> None:
    trailer = await read_trailer(transfer, world, archive, codec)
    stream = ManifestStream(transfer, world, archive, codec, selection.manifest_blocks(trailer))
    while not selection.complete:
        piece = await stream.read()
        if piece is None:
            return
        if piece.problem:
            raise Damaged(f"The names are not all readable: {piece.problem}")
        selection.take(piece.entries)
