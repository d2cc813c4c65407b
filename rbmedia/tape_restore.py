"""Restoring from cartridges that are found without their server: by the agent's own restore, in this process, with the cartridges as its daemon.

``extract`` writes an archive as it is into a catalog directory (``docs/format.md``), for whoever wants it on disk first.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio
import trio.socket

from actors.agent.port import AgentKeys, RestoreWork, WorkControl
from actors.agent.restore import run_restore
from actors.agent.sealing import Sealing
from actors.framing import DataChannel
from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.file_tree import HostTrees
from drivers.volume import DirectoryVolume
from rbcore import errors
from rbcore.archive.block import iter_blocks
from rbcore.archive.keys import MASTER_KEY_BYTES
from rbcore.archive.manifest import decode_trailer
from rbcore.archive.model import Trailer
from rbcore.messages import Archive, StartRestore
from rbcore.ports import World
from rbcore.tape.spanning import FoundArchive
from rbcore.vocabulary import NO_CRYPTO
from rbmedia.tape_scan import Catalogue
from rbmedia.tape_source import READ_BLOCKS_MAX, FoundSource, SourceServer

CATALOG_NAME: Final = "rbmedia tape scan"
"""In the mark of a catalog directory that ``extract`` makes: no daemon takes it for one of its own."""
TOKEN_BYTES: Final = 32
NOTE_LINES_MAX: Final = 10_000


class RestoreOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    archive: str
    destination: str
    """An absolute path."""
    only: list[str] = []
    keys: Path | None = None
    """The data directory of the agent that made the backup."""
    partly: bool = False
    """Restore what there is, although parts or archives are missing."""
    numeric_owner: bool = False


@dataclass
class Restored:
    """How it ended."""

    outcome: str
    """``done``, ``error``, or ``interrupted`` when a device failed."""
    reason: str
    files: int = 0
    bytes: int = 0
    problems: int = 0
    lines: list[str] = field(default_factory=list)
    """What the agent would write into the task's journal."""
    damage: list[str] = field(default_factory=list)
    """Blocks that could not be read, and where."""


class Extracted(msgspec.Struct, frozen=True, kw_only=True):
    """An archive that was written to disk."""

    archive: str
    blocks: int
    stored_bytes: int
    root: str
    root_agrees: bool | None
    """None: the final trailer, which says the root, is not there."""
    damage: list[str]


async def restore(catalogue: Catalogue, order: RestoreOrder, world: World) -> Restored:
    """Restore one archive with the chain that it needs.

    Raises ``NotFound`` when it, one of its chain, or a part is not on the cartridges seen, ``Refused`` without the keys of an encrypted one,
    ``Damaged`` when its trailer cannot be read; what cannot be read of the rest is in the answer.
    """
    keys = _keys(order.keys)
    await catalogue.complete([order.archive])
    main = _found(catalogue, order.archive, partly=order.partly)
    crypto = main.parts[0].found.header.crypto
    if crypto != NO_CRYPTO and order.keys is None:
        raise errors.Refused(
            f"Archive {order.archive} is encrypted ({crypto}). Name the data directory of the agent of client "
            f"{main.parts[0].found.header.client}, or of a copy with its file master-key, with --keys."
        )
    sealing = Sealing(crypto, keys.master_key)
    with ExitStack() as stack:

        def source_of(found: FoundArchive) -> FoundSource:
            return FoundSource(found, catalogue, world, stack.enter_context(tempfile.TemporaryFile()))

        sources = {order.archive: source_of(main)}
        trailer = await _trailer(sources[order.archive], sealing, order)
        ancestors = trailer.archives[1:]
        await catalogue.complete(ancestors)
        for name in ancestors:
            if order.partly and catalogue.find(name) is None:
                catalogue.bench.say(
                    f"Archive {name} is not on the cartridges seen: files whose content is in it stay incomplete."
                )
                continue
            sources[name] = source_of(_found(catalogue, name, partly=order.partly, of=order.archive))
        restored = await _run(order, sources, keys, sealing, world)
        restored.damage = [line for one in sources.values() for line in one.damage]
        return restored


def _keys(directory: Path | None) -> AgentKeys:
    """The master key of an agent; nothing is made that is not there. A restore signs nothing."""
    if directory is None:
        return AgentKeys(signing_seed=bytes(32), master_key=bytes(MASTER_KEY_BYTES))
    path = directory / "master-key"
    try:
        found = path.read_bytes()
    except OSError as error:
        raise errors.NotFound(
            f"The key {path} cannot be read: {error.strerror}. --keys is an agent's data directory."
        ) from None
    if len(found) != MASTER_KEY_BYTES:
        raise errors.Refused(f"{path} has {len(found)} bytes instead of {MASTER_KEY_BYTES}: it is no master key.")
    return AgentKeys(signing_seed=bytes(32), master_key=found)


def _found(catalogue: Catalogue, name: str, *, partly: bool, of: str = "") -> FoundArchive:
    """Raises ``NotFound`` when it is not there, or not with all its parts."""
    found = catalogue.find(name)
    if found is None:
        raise errors.NotFound(
            f"Archive {of} needs archive {name}, which is not on the cartridges seen. Add the cartridge that holds it."
            if of
            else f"Archive {name} is not on the cartridges seen."
        )
    if not found.whole and not partly:
        raise errors.NotFound(
            f"Archive {name} is not whole: {'; '.join(found.problems)}. Add what is missing, or restore what there is with --partial."
        )
    return found


async def _trailer(source: FoundSource, sealing: Sealing, order: RestoreOrder) -> Trailer:
    """Raises ``Damaged``, ``Refused`` when the keys do not open it."""
    raw = await source.read([await source.trailer_block()])
    ((header, payload),) = iter_blocks(raw)
    try:
        return decode_trailer(sealing.codec(order.archive).open_payload(header, payload))
    except errors.Damaged as error:
        if order.keys is None or sealing.key_id == "":
            raise
        # The digest of the block was right when it was read: what does not fit is the key.
        raise errors.Refused(
            f"Archive {order.archive} cannot be opened with the key in {order.keys}: {error.message}. Is it that of client "
            f"{source.archive.parts[0].found.header.client}?"
        ) from error


async def _run(
    order: RestoreOrder, sources: dict[str, FoundSource], keys: AgentKeys, sealing: Sealing, world: World
) -> Restored:
    lines: list[str] = []

    async def notes(_severity: str, more: list[str]) -> None:
        lines.extend(more[: max(0, NOTE_LINES_MAX - len(lines))])

    start = StartRestore(
        task_id=0,
        transfer_token=bytes(TOKEN_BYTES),
        archive=Archive(
            archive=order.archive,
            root=sources[order.archive].archive.root.hex(),
            crypto=sources[order.archive].archive.parts[0].found.header.crypto,
            key_id=sealing.key_id,
        ),
        destination_path=order.destination,
        only=order.only,
        parameters={"numeric_owner": True} if order.numeric_owner else {},
        medium_order=True,
    )
    ours, theirs = trio.socket.socketpair()
    channel, other = DataChannel(trio.SocketStream(ours)), DataChannel(trio.SocketStream(theirs))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(SourceServer(other, sources).run)
            ended = await run_restore(RestoreWork(start, keys, HostTrees()), channel, WorkControl(notes=notes), world)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await channel.aclose()
            await other.aclose()
    return Restored(ended.outcome, ended.reason, ended.files, ended.bytes, ended.problems, lines)


# Extracting


async def extract(catalogue: Catalogue, name: str, directory: Path, world: World, *, partly: bool = False) -> Extracted:
    """Write the archive's blocks, as they are, into the catalog in ``directory``, which is made when it is not there. Needs no keys.

    Raises as ``restore`` does, ``Refused`` when the directory is another catalog, ``StorageFull``. Blocks that cannot be read are left out and named.
    """
    await catalogue.complete([name])
    found = _found(catalogue, name, partly=partly)
    store = await world.threads.run(partial(_opened_store, directory))
    if name in await world.threads.run(store.archives):
        raise errors.NotAllowedNow(f"Archive {name} is in {directory} already.")
    # What an interrupted extraction left is not gone on with: a new one is as fast as finding out where to.
    await world.threads.run(lambda: store.remove(name))
    writer = await world.threads.run(lambda: store.open_writer(name))
    finished = False
    with tempfile.TemporaryFile() as spool:
        source = FoundSource(found, catalogue, world, spool)
        try:
            for at in range(source.part_count):
                numbers = await source.block_numbers_of(at)
                for start in range(0, len(numbers), READ_BLOCKS_MAX):
                    data, _ = await source.read_most(numbers[start : start + READ_BLOCKS_MAX])
                    if data:
                        await world.threads.run(partial(writer.write, data))
            try:
                summary = await world.threads.run(writer.finish)
            except errors.ProtocolViolation as error:
                raise errors.Damaged(
                    f"The trailer block of archive {name} cannot be read, so it cannot be kept in a catalog. {'; '.join(found.problems)}"
                ) from error
            finished = True
        finally:
            if not finished:
                with trio.CancelScope(shield=True):
                    await world.threads.run(writer.discard)
        return Extracted(
            archive=name,
            blocks=summary.blocks,
            stored_bytes=summary.archive_size,
            root=summary.root.hex(),
            root_agrees=summary.root == found.root if found.root else None,
            damage=source.damage,
        )


def _opened_store(directory: Path) -> DirectoryStore:
    directory.mkdir(parents=True, exist_ok=True)
    volume = DirectoryVolume(directory)
    initialise_catalog(volume, CATALOG_NAME)
    return DirectoryStore(volume, CATALOG_NAME)
