"""A whole house in one process, for tests: real log, real TLS, real sockets and directories, as many agents as wanted."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from actors.agent.identity import Identity
from actors.agent.program import AgentSettings, run_agent
from actors.bus import Bus
from actors.daemon import DaemonActors, DaemonPorts, daemon_actors, directory_stores
from actors.journal import JournalActor
from actors.network import ServerNetwork
from actors.tape.libraries import TapeSite
from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.simulated.tape import SimulatedLibrary
from drivers.simulated.tape.devices import SimulatedDevices
from drivers.tls import open_authority
from drivers.volume import DirectoryVolume
from drivers.world import RealWorld
from eventlog.lmdb_log import open_log
from eventlog.lmdb_store import StoreOptions
from rbcore.commands import (
    AuthoriseClients,
    DeleteBackups,
    Initialise,
    KillTask,
    Order,
    QueueBackup,
    QueueRestore,
    QueueVerification,
    Reply,
)
from rbcore.entities import Backup, Client, Task, UnauthorisedClient
from rbcore.vocabulary import TERMINAL_STATUSES

SERVER_ID = "fedcba9876543210"
WAIT_SECONDS = 60.0


class House:
    """The daemon's side of a test."""

    def __init__(self, actors: DaemonActors, path: Path, world: RealWorld) -> None:
        self.actors = actors
        self.path = path
        self.world = world
        self._orders = 0

    @property
    def journal(self) -> JournalActor:
        return self.actors.journal

    @property
    def pool(self) -> Path:
        return self.path / "pool"

    async def execute(self, command: Any, command_id: str = "") -> Reply:
        name = command_id or self.world.randomness.token_bytes(8).hex()
        return await self.journal.execute(Order(command=command, command_id=name, actor="user:test"))

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for events until ``condition`` holds."""
        with trio.move_on_after(WAIT_SECONDS):
            if condition():
                return
            async for _ in self.journal.log.subscribe(self.journal.log.head):
                if condition():
                    return
        tasks = [f"{one.id} {one.task_type} {one.status}: {one.status_reason}" for one in self.journal.state.all(Task)]
        raise AssertionError(f"never came: {what}; tasks: {tasks}")

    async def authorise(self, hwid: str) -> Client:
        state = self.journal.state
        await self.until(
            lambda: any(one.hwid == hwid for one in state.all(UnauthorisedClient)), f"client {hwid} appears"
        )
        row = next(one for one in state.all(UnauthorisedClient) if one.hwid == hwid)
        await self.execute(AuthoriseClients(ids=[row.id]))
        return await self.online(hwid)

    async def online(self, hwid: str) -> Client:
        state = self.journal.state

        def there() -> bool:
            client = state.by_key(Client, hwid)
            return client is not None and client.online

        await self.until(there, f"client {hwid} is online")
        client = state.by_key(Client, hwid)
        assert client is not None
        return client

    async def queue_backup(
        self, client: Client, resource: Path, *, extensions: dict[str, Any] | None = None, **changes: Any
    ) -> int:
        task = {
            "resource_type": "File system",
            "resource": str(resource),
            "client": f"{client.hostname} ({client.hwid})",
            "backup_type": "full",
            "pool": "Default",
            "crypto": "nocrypt",
            "priority": 100,
            "storage_duration": "1 year",
            "archiving": False,
        }
        command = QueueBackup(task={**task, **changes}, module_extensions={"parameters": extensions or {}})
        return (await self.execute(command)).ids[0]

    async def backup(self, client: Client, resource: Path, **changes: Any) -> Backup:
        return self.backup_of(await self.done(await self.queue_backup(client, resource, **changes)))

    def backup_of(self, task: Task) -> Backup:
        found = next(one for one in self.journal.state.all(Backup) if one.task_id == task.id)
        return found

    async def queue_restore(self, backup: Backup, destination: Path, only: list[str] | None = None) -> int:
        wanted = {"destination_path": str(destination), "granular_restore_files": only or []}
        return (await self.execute(QueueRestore(backup_id=backup.id, restore_task=wanted))).ids[0]

    async def restore(self, backup: Backup, destination: Path, only: list[str] | None = None) -> Task:
        return await self.done(await self.queue_restore(backup, destination, only))

    async def verify(self, backup: Backup) -> Backup:
        await self.done((await self.execute(QueueVerification(backup_id=backup.id))).ids[0])
        found = self.journal.state.find(Backup, backup.id)
        assert found is not None
        return found

    async def delete(self, backup: Backup) -> None:
        reply = await self.execute(DeleteBackups(ids=[backup.id]))
        for task_id in reply.data["task_ids"]:
            await self.done(task_id)

    async def kill(self, task_id: int) -> Task:
        await self.execute(KillTask(task_id=task_id))
        return await self.ended(task_id)

    def task(self, task_id: int) -> Task:
        found = self.journal.state.find(Task, task_id)
        assert found is not None
        return found

    async def ended(self, task_id: int) -> Task:
        await self.until(lambda: self.task(task_id).status in TERMINAL_STATUSES, f"task {task_id} ends")
        await self.journal.settled()
        return self.task(task_id)

    async def done(self, task_id: int) -> Task:
        task = await self.ended(task_id)
        assert task.status == "Done", f"task {task.id} is {task.status}: {task.status_reason}; {self.notes(task.id)}"
        return task

    def notes(self, task_id: int) -> list[str]:
        return [f"{one.type} {bytes(one.body)!r}" for one in self.journal.log.read_stream(f"task/{task_id}")]

    def archives_on_disk(self) -> set[str]:
        return {name for _, names, _ in os.walk(self.pool) for name in names if len(name) >= 32}


@asynccontextmanager
async def house(path: Path, *, library: SimulatedLibrary | None = None, **options: Any) -> AsyncIterator[House]:
    """A daemon over the directories in ``path``; started anew over the same ones it goes on. With ``library`` it drives that."""
    world = RealWorld()
    (path / "pool").mkdir(parents=True, exist_ok=True)
    authority = open_authority(path / "pki", world.clock.now_ns())
    async with open_log(path / "log", secrets=path / "secrets", options=StoreOptions(map_bytes=1 << 30)) as log:
        journal = JournalActor(log, world)
        await journal.recover()
        command = Initialise(
            hostname="media-1",
            hwid=SERVER_ID,
            superuser="rubackup",
            credential_id="c1",
            default_catalog_path=str(path / "pool"),
        )
        await journal.execute(Order(command=command, command_id="initialise", actor="actor:daemon"))
        stores = directory_stores(journal, lambda name: DirectoryVolume(Path(name), direct=False), SERVER_ID)
        if library is not None:
            options["tape"] = functools.partial(_tape_site, journal, world, library, path)
        ports = DaemonPorts(host="127.0.0.1", control=_kept_port(path / "control"), data=_kept_port(path / "data"))
        async with daemon_actors(
            journal, ServerNetwork(authority), world, stores, ports=ports, server_id=SERVER_ID, **options
        ) as actors:
            (path / "control").write_text(str(actors.control_port))
            (path / "data").write_text(str(actors.data_port))
            yield House(actors, path, world)


def _tape_site(journal: JournalActor, world: RealWorld, library: SimulatedLibrary, path: Path, bus: Bus) -> TapeSite:
    (path / "kept").mkdir(exist_ok=True)

    def open_kept() -> DirectoryStore:
        volume = DirectoryVolume(path / "kept", direct=False)
        initialise_catalog(volume, "kept")
        return DirectoryStore(volume, "kept")

    devices = SimulatedDevices([library])
    return TapeSite(journal, bus, world, devices, open_kept, server_id=SERVER_ID, software="rbmedia test")


def _kept_port(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


@dataclass(slots=True)
class RunningAgent:
    identity: Identity
    scope: trio.CancelScope

    @property
    def hwid(self) -> str:
        return self.identity.hwid

    def stop(self) -> None:
        self.scope.cancel()


async def start_agent(nursery: trio.Nursery, path: Path, name: str = "agent", **changes: Any) -> RunningAgent:
    """An agent with its data in ``path / name``, dialling the daemon over ``path``'s certificate."""
    settings = AgentSettings(
        **{
            "data_directory": path / name,
            "daemon_host": "127.0.0.1",
            "daemon_port": int((path / "control").read_text()),
            "ca_certificate": path / "pki" / "ca.pem",
            "hostname": name,
            **changes,
        }
    )
    scope = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[Identity]) -> None:
        with scope:
            await run_agent(settings, RealWorld(), task_status=task_status)

    return RunningAgent(await nursery.start(run), scope)
