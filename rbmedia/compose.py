"""The composition of the daemon: opens the log, brings the parts up in order, and takes them down in the other one.

Order matters. The log first (its lock says that no other daemon has this home), then the state, then the views, then the actors,
HTTP last: whoever can connect finds everything there. Going down, HTTP goes first, so that nobody is told no by a part that is
gone already, and the log last, with a closing checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import trio

from actors.bus import Bus
from actors.daemon import DaemonActors, DaemonPorts, daemon_actors, directory_stores
from actors.journal import JournalActor
from actors.monitor import Monitor
from actors.network import ServerNetwork
from actors.room import RoomWatch
from actors.supervisor import RestartPolicy, Supervisor
from actors.tape.libraries import TapeSite
from drivers.allocator import keep_freed_memory
from drivers.block_device import HostBlockDevices
from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.host import ProcHost
from drivers.scsi.devices import HostScsiDevices
from drivers.tls import Authority, open_authority
from drivers.volume import DirectoryVolume
from drivers.world import RealWorld
from eventlog.lmdb_log import LmdbLog, open_log
from eventlog.lmdb_store import StoreOptions
from eventlog.views.projector import Projector
from eventlog.views.reader import SqliteViewReader
from httpapi.application import create_app
from httpapi.channel import Hello
from httpapi.credentials import VolumeCredentials
from httpapi.front import Front
from httpapi.handover import Handover
from httpapi.server import Listen, Serving, serve
from httpapi.services import Services
from httpapi.services import Settings as HttpSettings
from httpapi.tokens import Tokens
from rbmedia import __version__, companion
from rbmedia.endpoint import Endpoint
from rbmedia.exits import CommandFailed
from rbmedia.http_workers import HttpWorkers
from rbmedia.schema import view_path, view_schema
from rbmedia.secrets import DATABASE, forget_unused_credentials, initialise, server_hwid
from rbmedia.settings import Home, Settings
from rbmedia.stopping import run_until_told

log = logging.getLogger("rbmedia")

AGENT_RESTART_SECONDS = 2.0
AGENT_STOP_SECONDS = 10.0
NEVER_GIVEN_UP = RestartPolicy(delay_seconds_max=10.0, failures_max=2**31)
"""The views' volume may be full for hours: reads go on, and the views catch up when there is room."""
VIEWS_READY_SECONDS = 3600.0
"""At start the views may have to be made anew; nothing is answered before they stand at the log's head."""


def run_daemon(settings: Settings, *, with_agent: bool, until_stdin_closes: bool) -> int:
    """Run until a signal; the exit code. Raises ``CommandFailed`` or an ``RbError`` when it cannot start or go on."""
    keep_freed_memory()
    program = functools.partial(_daemon, settings, with_agent)
    return run_until_told(program, "the daemon", settings.stop_seconds, until_stdin_closes=until_stdin_closes)


async def _daemon(settings: Settings, with_agent: bool, stop: trio.Event) -> None:
    home = Home(settings.home)
    world = RealWorld()
    authority = await world.threads.run(
        functools.partial(open_authority, home.pki, world.clock.now_ns(), {settings.host, settings.server_host})
    )
    options = StoreOptions(map_bytes=settings.log_map_gib << 30)
    async with open_log(home.log, secrets=home.secrets, options=options) as event_log:
        journal = JournalActor(event_log, world)
        log.info("replayed %d events", await journal.recover())
        credentials = _credentials(home, world)
        await initialise(journal, credentials, world, settings, home)
        await forget_unused_credentials(journal, credentials, home.secrets / "credentials")
        server_id = server_hwid(socket.gethostname())
        monitor = Monitor(journal, ProcHost(), world, server=socket.gethostname())
        async with (
            _running("monitor", monitor.run, world),
            _views(home, event_log, world) as views,
            daemon_actors(
                journal,
                ServerNetwork(authority, home.local_data),
                world,
                directory_stores(journal, _volume, server_id),
                ports=_agents_ports(settings),
                server_id=server_id,
                on_giving_up=_given_up,
                tape=functools.partial(_tape_site, settings, home, journal, world, server_id),
                loads=monitor.loads,
                protecting=settings.immutable_files,
            ) as actors,
        ):
            assert actors.tape is not None, "it was asked for"
            rooms = RoomWatch(journal, actors.storages)
            app = create_app(
                Services(
                    journal=journal,
                    views=views,
                    sessions=actors.sessions,
                    contents=actors.contents,
                    tape=actors.tape,
                    block_devices=HostBlockDevices(world.threads),
                    rooms=rooms,
                    monitoring=monitor,
                    tokens=Tokens(world.clock, world.randomness),
                    credentials=credentials,
                    clock=world.clock,
                    randomness=world.randomness,
                    settings=_http_settings(settings),
                )
            )
            async with _running("rooms", rooms.run, world):
                await _serve(settings, home, app, authority, actors, with_agent, stop)


@contextlib.asynccontextmanager
async def _running(name: str, run: Callable[[], Awaitable[None]], world: RealWorld) -> AsyncIterator[None]:
    """What only looks: nothing needs its figures so much that their end would be the daemon's."""
    supervisor = Supervisor(world, policy=NEVER_GIVEN_UP)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run, name, run)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _views(home: Home, event_log: LmdbLog, world: RealWorld) -> AsyncIterator[SqliteViewReader]:
    """The projector, running, and a reader of views that stand at the log's head."""
    schema, path = view_schema(), view_path(home)
    projector = Projector(event_log, path, schema, world.threads)
    reader = SqliteViewReader(
        path,
        schema,
        world.threads,
        head=lambda: event_log.head,
        position_at=event_log.position_at,
        time_at=event_log.time_at,
        wait_for=projector.wait_for,
    )
    supervisor = Supervisor(world, policy=NEVER_GIVEN_UP)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run, "view projector", projector.run)
        await projector.wait_for(event_log.head, VIEWS_READY_SECONDS)
        try:
            yield reader
        finally:
            nursery.cancel_scope.cancel()
    await reader.close()


async def _serve(
    settings: Settings,
    home: Home,
    app: Front,
    authority: Authority,
    actors: DaemonActors,
    with_agent: bool,
    stop: trio.Event,
) -> None:
    """Answer HTTP, say where, keep an agent when asked, until ``stop``."""
    listen = Listen(
        host=settings.host,
        port=settings.port,
        certificate=authority.server_certificate_path,
        key=authority.server_key_path,
    )
    handover = Handover()
    workers = HttpWorkers(
        count=settings.http_workers,
        home=home,
        front=app,
        handover=handover,
        hello=_hello(home, listen, app),
        debug=settings.debug,
    )
    async with trio.open_nursery() as beside:
        async with trio.open_nursery() as http:
            serving: Serving = await http.start(
                functools.partial(serve, app, listen, handover=handover, stop=stop.wait)
            )
            endpoint = Endpoint(
                url=serving.url,
                server_host=settings.server_host,
                control_port=actors.control_port,
                data_port=actors.data_port,
                process=os.getpid(),
                ca_certificate=str(home.ca_certificate),
                ca_fingerprint=authority.fingerprint,
            )
            # What lives since the start is never looked at again: that halves the p99 of answers. It takes seconds with millions of records, so nobody
            # is told of this daemon before.
            gc.collect()
            gc.freeze()
            with _announced(endpoint, home):
                log.info("rbmedia %s is running on [%s]", __version__, serving.url)
                http.start_soon(workers.run, stop)
                log.info("agents: control port %d, data port %d", endpoint.control_port, endpoint.data_port)
                if with_agent:
                    beside.start_soon(_keep_agent, home)
                await stop.wait()
        beside.cancel_scope.cancel()


def _hello(home: Home, listen: Listen, app: Front) -> Hello:
    return Hello(
        version=__version__,
        views_fingerprint=view_schema().fingerprint,
        views=str(view_path(home)),
        host=listen.host,
        certificate=str(listen.certificate),
        key=str(listen.key),
        requests_max=app.services.settings.requests_max,
    )


@contextlib.contextmanager
def _announced(endpoint: Endpoint, home: Home) -> Iterator[None]:
    endpoint.write(home.daemon_file)
    try:
        yield
    finally:
        home.daemon_file.unlink(missing_ok=True)


async def _keep_agent(home: Home) -> None:
    """An agent as a child process, started again whenever it ends; it ends with the daemon, however the daemon ends."""
    environment = {**os.environ, "RBMEDIA_HOME": str(home.path)}
    environment.pop("RBMEDIA_SUPERUSER_PASSWORD", None)
    command = [*companion.COMMAND, "agent", "--until-stdin-closes"]
    while True:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, env=environment, start_new_session=True
        )
        try:
            code = await process.wait()
        finally:
            with trio.move_on_after(AGENT_STOP_SECONDS, shield=True) as patience:
                process.terminate()
                await process.wait()
            if patience.cancelled_caught:
                process.kill()
            if process.stdin is not None:
                await process.stdin.aclose()
        log.warning("the agent of this host ended with code %d; it is started again", code)
        await trio.sleep(AGENT_RESTART_SECONDS)


def _tape_site(
    settings: Settings, home: Home, journal: JournalActor, world: RealWorld, server_id: str, bus: Bus
) -> TapeSite:
    return TapeSite(
        journal,
        bus,
        world,
        HostScsiDevices(settings.iscsi_targets.split(), world.threads),
        functools.partial(_open_kept, home, server_id),
        server_id=server_id,
        software=f"rbmedia {__version__}",
    )


def _open_kept(home: Home, server_id: str) -> DirectoryStore:
    """Where the manifests of archives on cartridges are kept. Blocking."""
    volume, name = DirectoryVolume(home.kept_of_tape), f"{server_id}/kept of tape"
    initialise_catalog(volume, name)
    return DirectoryStore(volume, name)


def _volume(path: str) -> DirectoryVolume:
    return DirectoryVolume(Path(path))


def _agents_ports(settings: Settings) -> DaemonPorts:
    """With port 0 a name with two addresses would get two ports, of which one could be told: so loopback is one address."""
    host = settings.agent_host or settings.host
    return DaemonPorts(
        host="127.0.0.1" if host == "localhost" else host, control=settings.control_port, data=settings.data_port
    )


async def _given_up(name: str, reason: str) -> None:
    raise CommandFailed(
        f"{name} failed too often and was given up: {reason}. The daemon ends; start it again when that is mended."
    )


def _credentials(home: Home, world: RealWorld) -> VolumeCredentials:
    folder = home.secrets / "credentials"
    folder.mkdir(mode=0o700, exist_ok=True)
    return VolumeCredentials(DirectoryVolume(folder, direct=False), world.threads, world.randomness)


def _http_settings(settings: Settings) -> HttpSettings:
    return HttpSettings(
        app_host=settings.host,
        server_address=settings.server_host,
        server_name=socket.gethostname(),
        database=DATABASE,
        version=__version__,
    )
