"""A simulated installation: one daemon, its disks, some protected hosts, and the network between them.

The processes are the real actors; disks, network, clock, threads and file trees are simulated. What outlives a process (log
store, pool volume, keys and trees of the hosts) belongs to the site; processes come and go.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from actors.agent.program import AgentSettings, run_agent
from actors.bus_memory import FaultPlan, Faults
from actors.daemon import DaemonActors, DaemonPorts, daemon_actors, directory_stores
from actors.journal import JournalActor
from drivers.simulated.file_tree import SimulatedTrees
from drivers.simulated.volume import SimulatedVolume
from drivers.simulated.world import SimulatedWorld
from eventlog.memory_log import MemoryLog, open_memory_log
from eventlog.memory_store import MemoryStore
from rbcore.commands import CreateRecord, Initialise, Order, Reply
from rbcore.entities import LocalCatalog, MediaServer, Pool
from rbcore.errors import DeadlineExceeded, Unavailable
from rbcore.vocabulary import PoolType
from rbmedia.simulation.network import BreakableNetwork
from rbmedia.simulation.tape import TapeRoom
from rbmedia.simulation.trace import Trace

CONTROL_PORT, DATA_PORT = 1, 2
SERVER_ID = "simulated-server"
SUPERUSER = "rubackup"
DEFAULT_CATALOG, SECOND_CATALOG = 1, 2
CATALOG_PATHS = {DEFAULT_CATALOG: "/pool/default", SECOND_CATALOG: "/pool/second"}
"""Catalog id -> where it is. Each is a disk and a pool of its own, so that backups can be copied and moved."""
SECOND_POOL = "Second"
COMMIT_SECONDS = 0.0005
RESTART_SECONDS = 2.0
"""How long a service manager takes to start a crashed process again."""
COMMAND_SECONDS_MAX = 3600.0
"""A consumer repeats a command for that long; afterwards the simulation calls it a failure."""


class ProcessGone(BaseException):
    """Raised inside a simulated process when it crashes in the middle of an operation. Nothing catches it but its host."""


@dataclass(slots=True, eq=False)
class Host:
    """A protected host."""

    name: str
    directory: Path
    trees: SimulatedTrees
    scope: trio.CancelScope | None = None
    crashes: int = 0


@dataclass(slots=True, eq=False)
class Daemon:
    """One life of the daemon's process."""

    log: MemoryLog
    journal: JournalActor
    scope: trio.CancelScope
    actors: DaemonActors | None = None


@dataclass(slots=True, eq=False)
class Site:
    """Make it inside of a seeded run; ``run`` it in a nursery of that run."""

    world: SimulatedWorld
    trace: Trace
    directory: Path
    """Real and temporary: the agents' key files."""
    agents: int
    store: MemoryStore = field(default_factory=MemoryStore)
    volumes: dict[int, SimulatedVolume] = field(
        default_factory=lambda: {one: SimulatedVolume() for one in CATALOG_PATHS}
    )
    """By catalog id."""
    hosts: list[Host] = field(default_factory=list)
    network: BreakableNetwork = field(init=False)
    daemon: Daemon | None = None
    started: trio.Event = field(default_factory=trio.Event)
    daemon_crashes: int = 0
    nursery: trio.Nursery | None = None
    tape: TapeRoom | None = None
    on_start: Callable[[Daemon], None] = lambda _daemon: None
    unhandled: list[BaseException] = field(default_factory=list)
    """What came out of a process that was not crashed: a bug."""

    def __post_init__(self) -> None:
        self.network = BreakableNetwork(Faults(self.world.randomness))
        for number in range(1, self.agents + 1):
            name = f"host-{number}"
            self.hosts.append(Host(name, self.directory / name, SimulatedTrees()))

    async def run(self, nursery: trio.Nursery) -> None:
        """Start all processes; each is started again when it is gone."""
        self.nursery = nursery
        nursery.start_soon(self._keep_daemon)
        for host in self.hosts:
            nursery.start_soon(self._keep_agent, host)
        await self.started.wait()

    # --- the daemon -------------------------------------------------------------------------------------------------------

    async def _keep_daemon(self) -> None:
        while True:
            scope = trio.CancelScope()
            try:
                with scope:
                    await self._daemon(scope)
            except trio.Cancelled:
                raise
            except BaseException as error:
                if not _only_crash(error, scope):
                    self.unhandled.append(error)
                    raise
            self._is_down()
            await trio.sleep(RESTART_SECONDS)

    async def _daemon(self, scope: trio.CancelScope) -> None:
        async with open_memory_log(self.store, commit_seconds=COMMIT_SECONDS) as log:
            journal = JournalActor(log, self.world)
            daemon = Daemon(log, journal, scope)
            self.daemon = daemon
            await journal.recover()
            await self._initialise(journal)
            # Of this life: after a crash the site has others.
            volumes = {path: self.volumes[number] for number, path in CATALOG_PATHS.items()}
            stores = directory_stores(journal, volumes.__getitem__, SERVER_ID)
            ports = DaemonPorts(host="daemon", control=CONTROL_PORT, data=DATA_PORT)
            tape = None if self.tape is None else functools.partial(self.tape.site, journal, SERVER_ID)
            async with daemon_actors(
                journal, self.network, self.world, stores, ports=ports, server_id=SERVER_ID, tape=tape
            ) as daemon.actors:
                self.trace.note("daemon", f"up at {log.head}")
                self.on_start(daemon)
                self.started.set()
                await trio.sleep_forever()

    async def _initialise(self, journal: JournalActor) -> None:
        state = journal.state
        commands: list[Any] = []
        if state.find(MediaServer, 1) is None:
            commands.append(
                Initialise(
                    hostname="daemon",
                    hwid="0123456789abcdef",
                    superuser=SUPERUSER,
                    credential_id="none",
                    default_catalog_path=CATALOG_PATHS[DEFAULT_CATALOG],
                )
            )
        if state.by_key(Pool, SECOND_POOL) is None:
            fields = {"pool_name": SECOND_POOL, "pool_type": PoolType.FILE_SYSTEM}
            commands.append(CreateRecord(resource="pool_list", fields=fields))
        if state.find(LocalCatalog, SECOND_CATALOG) is None:
            fields = {"path": CATALOG_PATHS[SECOND_CATALOG], "pool": SECOND_POOL}
            commands.append(CreateRecord(resource="storage_local_catalogs", fields=fields))
        for number, command in enumerate(commands):
            command_id = f"initialise/{state.position}/{number}"
            await journal.execute(Order(command=command, command_id=command_id, actor="actor:daemon"))

    def crash_daemon(self, *, why: str) -> None:
        """The process is gone now. Its disks keep what their fault models say."""
        daemon = self.daemon
        if daemon is None:
            return
        self.daemon_crashes += 1
        self.trace.note("fault", f"daemon crashes: {why}")
        lose = self.world.randomness.token_bytes(1)[0] < 128
        self.store = daemon.log.crash(lose_commit_under_way=lose)
        for number, volume in self.volumes.items():
            before_each, volume.before_each = volume.before_each, None
            self.volumes[number] = volume.crash(self.world.randomness)
            self.volumes[number].before_each = before_each
        if self.tape is not None:
            self.tape.crash()
        daemon.scope.cancel()
        self._is_down()

    def _is_down(self) -> None:
        """Consumers wait for the next life; those that wait already are not forgotten."""
        self.daemon = None
        if self.started.is_set():
            self.started = trio.Event()

    # --- agents -------------------------------------------------------------------------------------------------------------

    async def _keep_agent(self, host: Host) -> None:
        while True:
            host.scope = trio.CancelScope()
            with host.scope:
                await run_agent(
                    AgentSettings(
                        data_directory=host.directory,
                        daemon_host="daemon",
                        daemon_port=CONTROL_PORT,
                        hostname=host.name,
                    ),
                    self.world,
                    network=self.network,
                    trees=host.trees,
                    on_state=functools.partial(self.trace.note, host.name),
                )
            await trio.sleep(RESTART_SECONDS)

    def crash_agent(self, host: Host) -> None:
        if host.scope is not None:
            host.crashes += 1
            self.trace.note("fault", f"{host.name} crashes")
            host.scope.cancel()

    # --- network ----------------------------------------------------------------------------------------------------------

    def weather(self, plan: FaultPlan) -> None:
        self.network.faults.plan = plan
        self.trace.note("fault", f"network {plan}")

    def cut_connections(self) -> None:
        """Every connection breaks; new ones can be made at once."""
        self.trace.note("fault", "all connections break")
        self.network.cut()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""

        async def later() -> None:
            await trio.sleep(seconds)
            action()

        assert self.nursery is not None, "the site runs"
        self.nursery.start_soon(later)

    # --- a consumer ------------------------------------------------------------------------------------------------------

    async def execute(self, command: Any, command_id: str) -> Reply:
        """What a careful consumer does: repeat a command, with its id, until it is answered. Raises the daemon's refusals."""
        with trio.fail_after(COMMAND_SECONDS_MAX):
            while True:
                await self.started.wait()
                daemon = self.daemon
                if daemon is not None and daemon.actors is not None:
                    order = Order(command=command, command_id=command_id, actor=f"user:{SUPERUSER}")
                    try:
                        return await daemon.journal.execute(order)
                    except (Unavailable, DeadlineExceeded) as error:
                        self.trace.note("consumer", f"{command_id} is repeated: {error.code}")
                await trio.sleep(1.0)


def _only_crash(error: BaseException, scope: trio.CancelScope) -> bool:
    """A process that was killed may die with any complaint; one that was not may not."""
    return scope.cancel_called or (
        error.split(ProcessGone)[1] is None if isinstance(error, BaseExceptionGroup) else isinstance(error, ProcessGone)
    )
