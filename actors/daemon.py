"""All actors of one daemon, put together: what the composition root starts beside the log, the views and HTTP.

Order matters at both ends. First the state is recovered; then the dispatcher records what the last run left (nobody connected,
nobody working), which on a full log volume waits for room, and agents with it, while readers do not. Going down everything is cancelled at once: each transfer
suspends its archive, each session ends, and the next start goes on from what is durable.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from actors.bus import Bus
from actors.client_session import HEARTBEAT_SECONDS, ClientSessions
from actors.contents import ContentsReader
from actors.data_channel import DataChannelServer
from actors.dispatcher import Dispatcher
from actors.housekeeper import Housekeeper
from actors.jobs import Jobs
from actors.journal import JournalActor
from actors.link import Network
from actors.places import Places
from actors.port import ServerLoads, nothing_measured
from actors.protector import Protector
from actors.storage import Storages
from actors.supervisor import RestartPolicy, Supervisor
from actors.tape.libraries import TapeSite
from actors.works import Works
from drivers.directory_store import DirectoryStore, initialise_catalog
from rbcore.archive.store import ArchiveStore
from rbcore.entities import Backup, LocalCatalog, PendingRemoval
from rbcore.messages import WorkProgress
from rbcore.ports import Volume, World

_log = logging.getLogger(__name__)

OPEN_STORE = Callable[[LocalCatalog], ArchiveStore]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonPorts:
    """Where agents are listened for. Port 0: any free one."""

    host: str = "localhost"
    control: int = 0
    data: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonActors:
    """The running actors."""

    journal: JournalActor
    sessions: ClientSessions
    contents: ContentsReader
    dispatcher: Dispatcher
    storages: Storages
    places: Places
    tape: TapeSite | None
    jobs: Jobs
    works: Works
    data: DataChannelServer
    bus: Bus
    supervisor: Supervisor
    control_port: int
    data_port: int


def directory_stores(journal: JournalActor, volumes: Callable[[str], Volume], server_id: str) -> OPEN_STORE:
    """Opens the store of a catalog. The directory is marked as this catalog when nothing in the repository lies there yet;
    after that a directory without the mark is not the catalog (an unmounted file system, a wrong disk). Blocking.
    """

    def open_store(catalog: LocalCatalog) -> ArchiveStore:
        volume = volumes(catalog.path)
        name = f"{server_id}/{catalog.id}"
        tables = journal.state.tables
        used = any(
            one.local_catalog_id == catalog.id
            for kind in (Backup.KIND, PendingRemoval.KIND)
            for one in list(tables[kind].values())
        )
        if not used:
            initialise_catalog(volume, name)
        return DirectoryStore(volume, name)

    return open_store


@asynccontextmanager
async def daemon_actors(
    journal: JournalActor,
    network: Network,
    world: World,
    open_store: OPEN_STORE,
    *,
    ports: DaemonPorts,
    server_id: str,
    host_name: str = "local",
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    policy: RestartPolicy | None = None,
    on_giving_up: Callable[[str, str], Awaitable[None]] | None = None,
    tape: Callable[[Bus], TapeSite] | None = None,
    loads: ServerLoads = nothing_measured,
    protecting: bool = False,
) -> AsyncIterator[DaemonActors]:
    """All actors over a recovered journal; they run while the block does.

    ``on_giving_up(name, reason)``: an actor failed too often; without it that ends the daemon, which is then started anew.
    ``tape(bus)``: the tape libraries, made but not run; without it what needs cartridges is ``Unavailable``.
    ``protecting``: whether archives may become immutable files (``immutable_archives``).
    ``loads``: how busy media servers are; without it pools out of dynamic groups are chosen by tasks and room alone.
    """
    bus = Bus(host_name, world)
    works = Works(journal, world)
    supervisor = Supervisor(world, policy=policy, on_giving_up=on_giving_up or _end_the_daemon)
    sessions = ClientSessions(journal, works, world, server_id=server_id, heartbeat_seconds=heartbeat_seconds)
    async with trio.open_nursery() as nursery:

        def start(name: str, body: Callable[[], Awaitable[None]]) -> None:
            nursery.start_soon(supervisor.run, name, body)

        def progress(task_id: int, bytes_read: int) -> None:
            report = WorkProgress(task_id=task_id, bytes_done=bytes_read, bytes_total=0, files_done=0)
            sessions.take_progress(report)

        jobs = Jobs()
        storages = Storages(journal, bus, world, open_store, start, jobs=jobs, on_progress=progress)
        site = tape(bus) if tape is not None else None
        places = Places(storages, site)
        data = DataChannelServer(journal, works, places, world)
        dispatcher = Dispatcher(journal, works, sessions, storages, places, jobs, world, loads=loads)
        sessions.data_port = await nursery.start(
            functools.partial(network.serve_data, ports.host, ports.data, data.serve)
        )
        listener = await network.listen_control(ports.host, ports.control)
        nursery.start_soon(listener.serve, sessions.serve)
        start("dispatcher", dispatcher.run)

        async def after_start(body: Callable[[], Awaitable[None]]) -> None:
            await dispatcher.has_recorded_start.wait()
            await body()

        start("housekeeper", functools.partial(after_start, Housekeeper(journal, world).run))
        if protecting:
            start("protector", functools.partial(after_start, Protector(journal, storages, world).run))
        if site is not None:
            start("tape", functools.partial(after_start, site.run))
        try:
            yield DaemonActors(
                journal=journal,
                sessions=sessions,
                contents=ContentsReader(journal, sessions, places, works, world),
                dispatcher=dispatcher,
                storages=storages,
                places=places,
                jobs=jobs,
                tape=site,
                works=works,
                data=data,
                bus=bus,
                supervisor=supervisor,
                control_port=listener.port,
                data_port=sessions.data_port,
            )
        finally:
            nursery.cancel_scope.cancel()


async def _end_the_daemon(name: str, reason: str) -> None:
    raise RuntimeError(f"{name} failed too often: {reason}")
