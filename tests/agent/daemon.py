"""A daemon's end of the data channel in memory, for tests: strict about the protocol, and damaged or cut short on demand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from actors.agent.backup import run_backup
from actors.agent.port import AgentKeys, BackupWork, RestoreWork, ScriptSettings, WorkControl, WorkOutcome
from actors.agent.restore import run_restore
from actors.agent.sealing import Sealing
from actors.framing import DataChannel
from drivers.file_tree import HostTrees
from drivers.world import RealWorld
from rbcore.archive.block import BlockHeader, check_stored, iter_blocks
from rbcore.archive.keys import public_key, verify_root
from rbcore.archive.manifest import ManifestReader, decode_trailer
from rbcore.archive.model import BlockKind, Entry, Trailer
from rbcore.archive.root import RootHasher
from rbcore.errors import Failure, StorageFull, Unavailable
from rbcore.file_tree import Trees
from rbcore.messages import (
    Archive,
    Attach,
    Attached,
    Blocks,
    Commit,
    Committed,
    EndOfBlocks,
    Fetch,
    FetchTrailer,
    Received,
    Refusal,
    StartBackup,
    StartRestore,
    Stored,
)
from rbcore.ports import World

TOKEN = bytes(range(32))
KEYS = AgentKeys(signing_seed=bytes(range(32)), master_key=bytes(range(100, 132)))


@dataclass
class StoredArchive:
    """Blocks by number, in the order they came."""

    blocks: dict[int, tuple[BlockHeader, bytes]] = field(default_factory=dict)
    commit: Commit | None = None
    root_so_far: bytes = b""

    def numbers(self, kind: BlockKind) -> list[int]:
        return [number for number, (header, _) in self.blocks.items() if header.kind is kind]

    @property
    def stored_bytes(self) -> int:
        return sum(len(payload) for _, payload in self.blocks.values())


class MemoryDaemon:
    """Keeps archives. One channel at a time."""

    def __init__(self, *, credit_bytes: int = 8 * 1024 * 1024) -> None:
        self.archives: dict[str, StoredArchive] = {}
        self.credit_bytes = credit_bytes
        self.break_after_blocks: int | None = None
        """Close the channel when so many blocks came in this attempt."""
        self.full_after_blocks: int | None = None
        self.unreadable: set[tuple[str, int]] = set()
        self.fetched: list[tuple[str, int]] = []
        """(archive, number) of every payload block that was asked for, in the order of the requests."""
        self.on_fetch: Callable[[str, int], None] = lambda _archive, _number: None
        """Called for every block that is asked for, of any kind."""
        self.unacknowledged_bytes_max = 0
        self.on_block: Callable[[BlockHeader], Awaitable[None]] | None = None

    async def serve(self, stream: trio.abc.Stream, archive: str) -> None:
        channel = DataChannel(stream)
        try:
            frame, _ = await channel.receive()
            assert isinstance(frame, Attach)
            assert frame.transfer_token == TOKEN
            stored = self.archives.setdefault(archive, StoredArchive())
            numbers = list(stored.blocks)
            await channel.send(
                Attached(
                    credit_bytes=self.credit_bytes,
                    next_block=numbers[-1] + 1 if numbers and stored.commit is None else 0,
                    manifest_blocks=stored.numbers(BlockKind.MANIFEST) if stored.commit is None else [],
                    root_so_far=stored.root_so_far if stored.commit is None else b"",
                )
            )
            await self._serve(channel, archive, stored)
        except Unavailable:
            return
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve(self, channel: DataChannel, archive: str, stored: StoredArchive) -> None:
        archive_id = bytes.fromhex(archive)
        numbers = list(stored.blocks)
        root = (
            RootHasher(archive_id, resume=stored.root_so_far, last_block=numbers[-1])
            if numbers and stored.commit is None
            else RootHasher(archive_id)
        )
        came = 0
        unreturned = 0
        while True:
            frame, payload = await channel.receive()
            if isinstance(frame, Blocks):
                last = -1
                found = list(iter_blocks(payload))
                assert len(found) == frame.count
                for header, content in found:
                    check_stored(header, content)
                    assert header.archive_id == archive_id
                    if self.break_after_blocks is not None and came >= self.break_after_blocks:
                        raise Unavailable("broken on purpose")
                    if self.full_after_blocks is not None and came >= self.full_after_blocks:
                        await channel.send(Refusal(failure=Failure.of(StorageFull("the pool is full"))))
                        raise Unavailable("refused")
                    came += 1
                    root.add(header)
                    stored.blocks[header.number] = (header, bytes(content))
                    stored.root_so_far = root.value
                    last = header.number
                    if self.on_block is not None:
                        await self.on_block(header)
                self.unacknowledged_bytes_max = max(self.unacknowledged_bytes_max, len(payload))
                await channel.send(Stored(block=last, bytes=len(payload)))
            elif isinstance(frame, Commit):
                assert frame.root == root.value
                assert verify_root(public_key(KEYS.signing_seed), archive_id, frame.root, frame.signature)
                assert frame.blocks == came or numbers
                stored.commit = frame
                await channel.send(Committed(backup_id=7))
            elif isinstance(frame, Fetch | FetchTrailer):
                source = self.archives[frame.archive]
                wanted = frame.numbers if isinstance(frame, Fetch) else source.numbers(BlockKind.TRAILER)
                assert wanted == sorted(set(wanted))
                for number in wanted:
                    self.on_fetch(frame.archive, number)
                    if source.blocks[number][0].kind is BlockKind.PAYLOAD:
                        self.fetched.append((frame.archive, number))
                    if (frame.archive, number) not in self.unreadable:
                        kept, body = source.blocks[number]
                        unreturned += len(kept.raw) + len(body)
                        await channel.send(Blocks(count=1), [kept.raw, body])
                await channel.send(EndOfBlocks())
            elif isinstance(frame, Received):
                unreturned -= frame.bytes
                assert unreturned >= 0
            else:
                pytest.fail(f"{frame!r} has no place here")

    # --- looking inside -------------------------------------------------------------------------------------------

    def trailer(self, archive: str, crypto: str) -> Trailer:
        stored = self.archives[archive]
        header, payload = stored.blocks[stored.numbers(BlockKind.TRAILER)[-1]]
        return decode_trailer(Sealing(crypto, KEYS.master_key).codec(archive).open_payload(header, payload))

    def entries(self, archive: str, crypto: str = "nocrypt") -> dict[bytes, Entry]:
        """The manifest, checked as a whole by the strict reader."""
        codec = Sealing(crypto, KEYS.master_key).codec(archive)
        trailer = self.trailer(archive, crypto)
        reader = ManifestReader()
        found: dict[bytes, Entry] = {}
        for row in trailer.manifest:
            header, payload = self.archives[archive].blocks[row.block]
            for entry in reader.add(codec.open_payload(header, payload)):
                found[entry.path] = entry
        reader.finish(trailer)
        return found

    def describe(self, archive: str, crypto: str) -> Archive:
        commit = self.archives[archive].commit
        assert commit is not None
        return Archive(archive=archive, root=commit.root.hex(), crypto=crypto, key_id=commit.key_id)


class Host:
    """A protected host whose agent talks to ``daemon``."""

    def __init__(self, daemon: MemoryDaemon, world: World | None = None, trees: Trees | None = None) -> None:
        self.daemon = daemon
        self.world: World = world or RealWorld()
        self.trees = trees or HostTrees()
        self.keys = KEYS
        self.notes: list[tuple[str, str]] = []
        self.stages: list[str] = []
        self.control = self.new_control()
        self._made = 0

    def new_control(self) -> WorkControl:
        async def stage(name: str) -> None:
            self.stages.append(name)

        async def notes(severity: str, lines: list[str]) -> None:
            self.notes += [(severity, line) for line in lines]

        self.control = WorkControl(stage=stage, notes=notes)
        return self.control

    @property
    def note_text(self) -> str:
        return "\n".join(line for _, line in self.notes)

    def new_name(self) -> str:
        self._made += 1
        return f"{self._made:032x}"

    async def backup(
        self,
        resource: str,
        *,
        archive: str | None = None,
        parent: str | None = None,
        crypto: str = "nocrypt",
        compression: str = "fast",
        parameters: dict[str, object] | None = None,
        scripts: ScriptSettings | None = None,
        workers: int = 2,
    ) -> tuple[str, WorkOutcome]:
        name = archive or self.new_name()
        order = StartBackup(
            task_id=1,
            transfer_token=TOKEN,
            archive=name,
            resource_type="File system",
            resource=resource,
            compression=compression,
            crypto=crypto,
            parent=None if parent is None else self.daemon.describe(parent, crypto),
            parameters=parameters or {},
        )
        work = BackupWork(order, self.keys, "host", self.trees, scripts or ScriptSettings(), workers)
        control = self.new_control()
        return name, await self._talk(name, lambda channel: run_backup(work, channel, control, self.world))

    async def restore(
        self,
        archive: str,
        destination: str,
        *,
        crypto: str = "nocrypt",
        only: list[str] | None = None,
        parameters: dict[str, object] | None = None,
        medium_order: bool = False,
    ) -> WorkOutcome:
        order = StartRestore(
            task_id=2,
            transfer_token=TOKEN,
            archive=self.daemon.describe(archive, crypto),
            destination_path=destination,
            only=only or [],
            parameters=parameters or {},
            medium_order=medium_order,
        )
        work = RestoreWork(order, self.keys, self.trees)
        control = self.new_control()
        return await self._talk(archive, lambda channel: run_restore(work, channel, control, self.world))

    async def _talk(self, archive: str, job: Callable[[DataChannel], Awaitable[WorkOutcome]]) -> WorkOutcome:
        ours, theirs = trio.testing.memory_stream_pair()
        outcome: WorkOutcome | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.daemon.serve, theirs, archive)
            channel = DataChannel(ours)
            try:
                outcome = await job(channel)
            finally:
                await trio.aclose_forcefully(ours)
        assert outcome is not None
        return outcome
