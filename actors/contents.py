"""Names in backups, for granular restore. A backup without encryption is read here; of an encrypted one only its client can tell."""

from __future__ import annotations

from typing import Any

from actors.client_session import ClientSessions
from actors.names import NameSelection
from actors.places import Places
from actors.port import ArchiveSource, Journal
from actors.starting import readable_with
from actors.works import Works
from rbcore.archive.block import BlockCodec
from rbcore.archive.manifest import decode_manifest, decode_trailer
from rbcore.entities import Backup
from rbcore.errors import Damaged, NotFound
from rbcore.messages import Archive, ListArchive
from rbcore.ports import World
from rbcore.vocabulary import NO_CRYPTO

CLIENT_SECONDS_MAX = 60.0


class ContentsReader:
    """Implements ``actors.port.BackupContents``."""

    def __init__(self, journal: Journal, sessions: ClientSessions, places: Places, works: Works, world: World) -> None:
        self._journal = journal
        self._sessions = sessions
        self._places = places
        self._works = works
        self._world = world

    async def list_names(self, backup_id: int, prefix: str, limit: int) -> list[dict[str, Any]]:
        """The entry ``prefix`` and everything below it, depth first, at most ``limit`` rows: ``path`` (relative to the backup's
        root), ``type``, ``size``, ``mode``, ``owner``, ``group``, ``mtime_ns``, ``link_target``, ``problem``.

        Raises ``NotFound``, ``Damaged``, ``Unavailable`` when the catalog, or the client of an encrypted backup, is offline, or when the names of a
        backup on cartridges are not kept beside them: nothing is mounted for a list.
        """
        backup = self._journal.state.find(Backup, backup_id)
        if backup is None:
            raise NotFound(f"There is no backup {backup_id}.")
        if backup.crypto != NO_CRYPTO:
            return await self._ask_client(backup, prefix, limit)
        async with self._places.source(backup, 0) as reader:
            return await self._read(backup.archive, reader, NameSelection(prefix, limit))

    async def _read(self, archive: str, reader: ArchiveSource, selection: NameSelection) -> list[dict[str, Any]]:
        codec = BlockCodec(bytes.fromhex(archive))
        stored = await reader.read([await reader.trailer_block()])
        trailer = await self._world.threads.run(lambda: decode_trailer(codec.open(stored)))
        for number in selection.manifest_blocks(trailer):
            if selection.complete:
                break
            block = await reader.read([number])
            try:
                entries = await self._world.threads.run(lambda data=block: decode_manifest(codec.open(data)))  # type: ignore[misc]
            except Damaged as error:
                raise Damaged(
                    f"Manifest block {number} of archive {archive}: {error.message}", data=error.data
                ) from error
            selection.take(entries)
        return selection.rows

    async def _ask_client(self, backup: Backup, prefix: str, limit: int) -> list[dict[str, Any]]:
        work, token = self._works.begin(
            "listing",
            task_id=0,
            client_id=backup.client_id,
            archive=backup.archive,
            readable=readable_with(self._journal.state, backup),
        )
        question = ListArchive(
            transfer_token=token,
            archive=Archive(archive=backup.archive, root=backup.root, crypto=backup.crypto, key_id=backup.key_id),
            prefix=prefix,
            limit=limit,
        )
        try:
            return (await self._sessions.ask(backup.client_id, question, CLIENT_SECONDS_MAX)).rows
        finally:
            self._works.end(work)
