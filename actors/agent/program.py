"""The program on a protected host: one identity, one daemon, reconnecting for ever.

A session is dial, prove, then serve what the daemon asks until the connection is gone. Works live no longer than their session: when
it is lost they are interrupted, and the daemon, which keeps the durable blocks, orders them anew after the next Welcome.
Nothing here is remembered across a restart but the keys.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from actors.agent.handshake import prove
from actors.agent.identity import Identity, authority_of, open_identity
from actors.agent.listing import list_block_devices, list_filesystem, list_module_resources
from actors.agent.port import ScriptSettings
from actors.agent.work import AgentWorks
from actors.conversation import Answers, Conversation, ParcelCodec
from actors.link import LinkClosed, Network
from actors.network import ClientNetwork
from actors.supervisor import Backoff, describe, leading_error
from drivers.file_tree import HostTrees
from rbcore.errors import AuthenticationFailed, ProtocolViolation, RbError, Unavailable
from rbcore.file_tree import Trees
from rbcore.messages import (
    MESSAGE_BYTES_MAX,
    Accepted,
    ContinueWork,
    Heartbeat,
    Hello,
    KillWork,
    ListArchive,
    ListBlockDevices,
    ListFilesystem,
    Listing,
    ListModuleResources,
    Parcel,
    PauseWork,
    StartBackup,
    StartRestore,
    Welcome,
)
from rbcore.ports import World

_log = logging.getLogger(__name__)

RECONNECT_FIRST_SECONDS = 0.5
RECONNECT_SECONDS_MAX = 30.0
HEARTBEATS_MISSED_MAX = 3
HEARTBEAT_SECONDS_LEAST, HEARTBEAT_SECONDS_MOST = 0.05, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What an agent is told by its operator."""

    data_directory: Path
    """Identity and keys; one directory, one agent."""
    daemon_host: str
    daemon_port: int
    """Of the control channel; the daemon says where the data channel is."""
    local_data: Path | None = None
    """The daemon's Unix socket for bulk, when it runs on this host."""
    ca_certificate: Path | None = None
    ca_fingerprint: str = ""
    hostname: str = ""
    """Empty: the host's."""
    hwid: str = ""
    """Empty: derived from the identity."""
    works_max: int = 4
    workers: int = 2
    """Per work: units that are read, compressed and encrypted at the same time."""
    nice: int = 0
    """Added to the process's niceness at start."""
    scripts: ScriptSettings = field(default_factory=ScriptSettings)


async def run_agent(
    settings: AgentSettings,
    world: World,
    *,
    network: Network | None = None,
    trees: Trees | None = None,
    identity: Identity | None = None,
    on_state: Callable[[str], None] = lambda _state: None,
    task_status: trio.TaskStatus[Identity] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until cancelled. ``identity``: instead of the one in the data directory. ``on_state`` is told ``connecting``, ``waiting`` (for authorisation) and ``authorised``.

    Raises ``RbError`` only for what no retry mends: keys that are damaged, no authority to trust, a wrong fingerprint.
    """
    if settings.nice:
        os.nice(settings.nice)
    if identity is None:
        identity = await world.threads.run(
            functools.partial(open_identity, settings.data_directory, world.randomness, hwid=settings.hwid)
        )
    task_status.started(identity)
    if network is None:
        network = ClientNetwork(await authority_of_daemon(settings, world), settings.local_data)
    agent = _Agent(settings, world, identity, network, trees or HostTrees(), on_state)
    await agent.run()


async def authority_of_daemon(settings: AgentSettings, world: World) -> str:
    """Wait for the daemon when the certificate has to be fetched from it."""
    backoff = Backoff(RECONNECT_FIRST_SECONDS, RECONNECT_SECONDS_MAX, world.randomness)
    while True:
        try:
            return await world.threads.run(
                functools.partial(
                    authority_of,
                    settings.data_directory,
                    certificate=settings.ca_certificate,
                    fingerprint=settings.ca_fingerprint,
                    daemon_host=settings.daemon_host,
                    daemon_port=settings.daemon_port,
                )
            )
        except Unavailable as error:
            _log.warning("%s", error.message)
            await trio.sleep(backoff.next_seconds())


class _Agent:
    def __init__(
        self,
        settings: AgentSettings,
        world: World,
        identity: Identity,
        network: Network,
        trees: Trees,
        on_state: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.world = world
        self.identity = identity
        self.network = network
        self.trees = trees
        self.hostname = settings.hostname or socket.gethostname()
        self.on_state = on_state
        self.backoff = Backoff(RECONNECT_FIRST_SECONDS, RECONNECT_SECONDS_MAX, world.randomness)

    async def run(self) -> None:
        while True:
            self.on_state("connecting")
            try:
                link = await self.network.dial_control(self.settings.daemon_host, self.settings.daemon_port)
                await _Session(self).run(link)
            except LinkClosed as error:
                _log.warning("%s", error)
            except AuthenticationFailed as error:
                _log.error("the daemon refuses this agent: %s", error.message)
            except RbError as error:
                _log.warning("the session ended: %s", error.message)
            except Exception as error:
                if leading_error(error) is None:
                    _log.exception("the session failed: %s", describe(error))
                else:
                    _log.warning("the session ended: %s", describe(error))
            await trio.sleep(self.backoff.next_seconds())


class _Session:
    """One connection to the daemon."""

    def __init__(self, agent: _Agent) -> None:
        self._agent = agent
        self._heard_at = trio.current_time()
        self._welcome: Welcome | None = None

    async def run(self, link: Any) -> None:
        """Returns or raises when the connection is over; all works have ended then."""
        agent = self._agent
        conversation = Conversation(link, ParcelCodec(Parcel, MESSAGE_BYTES_MAX), self._handle, agent.world, Answers())
        try:
            async with trio.open_nursery() as nursery:
                self._works = AgentWorks(
                    conversation,
                    nursery,
                    agent.world,
                    open_data=self._open_data,
                    keys=agent.identity.keys,
                    hostname=agent.hostname,
                    trees=agent.trees,
                    scripts=agent.settings.scripts,
                    works_max=agent.settings.works_max,
                    workers=agent.settings.workers,
                )
                nursery.start_soon(self._talk, conversation)
                try:
                    await conversation.run()
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            link.close()

    async def _talk(self, conversation: Conversation) -> None:
        """Handshake, then heartbeats and their absence."""
        try:
            agent = self._agent
            self._take_welcome(await prove(conversation, agent.identity, agent.hostname, agent.world, Hello))
        except RbError:
            conversation.link.close()
            raise
        while True:
            assert self._welcome is not None, "proven"
            pause = min(max(self._welcome.heartbeat_seconds, HEARTBEAT_SECONDS_LEAST), HEARTBEAT_SECONDS_MOST)
            await trio.sleep(pause)
            if trio.current_time() - self._heard_at > HEARTBEATS_MISSED_MAX * pause:
                _log.warning("the daemon is silent: %d heartbeats were missed", HEARTBEATS_MISSED_MAX)
                conversation.link.close()
                return
            try:
                await conversation.tell(Heartbeat())
            except LinkClosed:
                return

    def _take_welcome(self, welcome: Welcome) -> None:
        if welcome.authorised and not (self._welcome and self._welcome.authorised):
            _log.info("authorised as client %d", welcome.client_id)
        elif not welcome.authorised:
            _log.info("waiting until an administrator authorises this client: %s", self._agent.identity.hwid)
        self._welcome = welcome
        self._agent.backoff.reset()
        self._agent.on_state("authorised" if welcome.authorised else "waiting")

    async def _handle(self, body: Any, _message_id: str) -> Any:
        self._heard_at = trio.current_time()
        match body:
            case Heartbeat():
                return None
            case Welcome():
                self._take_welcome(body)
                return Accepted()
        if self._welcome is None or not self._welcome.authorised:
            raise ProtocolViolation(f"{type(body).__name__} before the Welcome")
        return await self._serve(body)

    async def _serve(self, body: Any) -> Any:
        threads = self._agent.world.threads
        match body:
            case StartBackup() | StartRestore():
                await self._works.start(body)
            case ListArchive():
                return await self._works.list_archive(body)
            case PauseWork():
                self._works.steer(body.task_id, "pause")
            case ContinueWork():
                self._works.steer(body.task_id, "continue")
            case KillWork():
                self._works.steer(body.task_id, "kill")
            case ListFilesystem():
                return Listing(rows=await threads.run(functools.partial(list_filesystem, body.path)))
            case ListBlockDevices():
                return Listing(rows=await threads.run(functools.partial(list_block_devices, body.path)))
            case ListModuleResources():
                return Listing(rows=await threads.run(functools.partial(list_module_resources, body.resource_type)))
            case _:
                raise ProtocolViolation(f"{type(body).__name__} is not for an agent")
        return Accepted()

    async def _open_data(self) -> trio.abc.Stream:
        assert self._welcome is not None, "works come after the Welcome"
        return await self._agent.network.dial_data(self._agent.settings.daemon_host, self._welcome.data_port)
