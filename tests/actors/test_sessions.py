"""Client sessions under the virtual clock: identity, authorisation, heartbeats, and what strangers may send."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.bus_memory import FaultPlan, Faults, MemoryNetwork
from actors.client_session import (
    HANDSHAKE_SECONDS_MAX,
    HEARTBEAT_SECONDS,
    SESSIONS_UNPROVEN_MAX,
    ClientSessions,
)
from actors.conversation import Conversation, ParcelCodec
from actors.journal import JournalActor
from actors.link import LinkClosed
from actors.works import Works
from drivers.simulated.world import SeededRandomness, SimulatedWorld
from eventlog.memory_log import open_memory_log
from rbcore.archive.keys import public_key, sign
from rbcore.commands import AuthoriseClients, Initialise, Order
from rbcore.entities import Client, UnauthorisedClient
from rbcore.errors import AuthenticationFailed, ProtocolViolation, RbError, Unavailable
from rbcore.messages import (
    MESSAGE_BYTES_MAX,
    PROTOCOL_VERSION,
    Accepted,
    Challenge,
    Heartbeat,
    Hello,
    ListFilesystem,
    Listing,
    Parcel,
    Proof,
    Welcome,
    WorkEnded,
    proof_message,
)

SERVER_ID = "fedcba9876543210"
PORT = 5


class Daemon:
    """Journal and sessions over memory."""

    def __init__(self, journal: JournalActor, sessions: ClientSessions, network: MemoryNetwork, world: Any) -> None:
        self.journal = journal
        self.sessions = sessions
        self.network = network
        self.world = world

    async def authorise(self, hwid: str) -> None:
        waiting = next(one for one in self.journal.state.all(UnauthorisedClient) if one.hwid == hwid)
        await self.journal.execute(
            Order(command=AuthoriseClients(ids=[waiting.id]), command_id=f"authorise-{waiting.id}", actor="user:x")
        )
        await self.sessions.authorised(hwid)

    def client(self, hwid: str) -> Client:
        found = self.journal.state.by_key(Client, hwid)
        assert found is not None
        return found


class FakeAgent:
    """The agent's half of the protocol, every step by itself."""

    def __init__(self, daemon: Daemon, number: int = 1, seed: bytes = b"") -> None:
        self.daemon = daemon
        self.hwid = f"{number:016x}"
        self.seed = seed or bytes([number]) * 32
        self.heard: list[Any] = []
        self.conversation: Conversation

    async def connect(self, nursery: trio.Nursery) -> None:
        link = await self.daemon.network.dial_control("daemon", PORT)
        self.conversation = Conversation(link, ParcelCodec(Parcel, MESSAGE_BYTES_MAX), self._handle, self.daemon.world)
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            await self.conversation.run()
        except (LinkClosed, ProtocolViolation):
            self.heard.append("closed")

    async def _handle(self, body: Any, _id: str) -> Any:
        self.heard.append(body)
        if isinstance(body, ListFilesystem):
            return Listing(rows=[{"name": body.path}])
        return None if isinstance(body, Heartbeat) else Accepted()

    def hello(self, **changes: Any) -> Hello:
        given = Hello(
            protocol=PROTOCOL_VERSION,
            hwid=self.hwid,
            hostname="host",
            public_key=public_key(self.seed),
            nonce=b"n" * 32,
        )
        return msgspec.structs.replace(given, **changes)

    async def prove(self, *, spoil: bytes = b"") -> Welcome:
        challenge = await self.conversation.ask(self.hello(), 30)
        assert isinstance(challenge, Challenge)
        signature = sign(self.seed, proof_message(challenge.server_id, b"n" * 32, challenge.nonce) + spoil)
        welcome = await self.conversation.ask(self.proof(signature), 30)
        assert isinstance(welcome, Welcome)
        return welcome

    def proof(self, signature: bytes) -> Proof:
        return Proof(
            signature=signature, os_type="Linux", os_version="6", agent_version="1", resource_types=["File system"]
        )

    async def beat(self) -> None:
        while True:
            await trio.sleep(HEARTBEAT_SECONDS)
            await self.conversation.tell(Heartbeat())


@asynccontextmanager
async def daemon(faults: Faults | None = None) -> AsyncIterator[tuple[Daemon, trio.Nursery]]:
    async with open_memory_log() as log, trio.open_nursery() as nursery:
        world = SimulatedWorld.of_seed(1)
        journal = JournalActor(log, world)
        command = Initialise(
            hostname="m", hwid="0" * 16, superuser="rubackup", credential_id="c", default_catalog_path="/pool"
        )
        await journal.execute(Order(command=command, command_id="init", actor="actor:daemon"))
        network = MemoryNetwork(faults)
        sessions = ClientSessions(journal, Works(journal, world), world, server_id=SERVER_ID)
        sessions.admitting = True
        listener = await network.listen_control("daemon", PORT)
        nursery.start_soon(listener.serve, sessions.serve)
        yield Daemon(journal, sessions, network, world), nursery
        nursery.cancel_scope.cancel()


async def authorised(host: Daemon, nursery: trio.Nursery, number: int = 1) -> FakeAgent:
    agent = FakeAgent(host, number)
    await agent.connect(nursery)
    assert not (await agent.prove()).authorised
    await host.authorise(agent.hwid)
    assert any(isinstance(one, Welcome) and one.authorised for one in agent.heard)
    return agent


async def test_an_unknown_agent_waits_and_is_welcomed_when_authorised(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        client = host.client(agent.hwid)
        assert client.online
        assert client.public_key == public_key(agent.seed).hex()
        assert host.sessions.online(client.id)
        listing = await host.sessions.ask(client.id, ListFilesystem(path="/etc"), 10)
        assert listing.rows == [{"name": "/etc"}]


async def test_two_agents_are_two_clients(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        one, two = await authorised(host, nursery, 1), await authorised(host, nursery, 2)
        ids = {host.client(one.hwid).id, host.client(two.hwid).id}
        assert len(ids) == 2
        assert host.sessions.online_ids() == ids


async def test_another_key_for_a_pinned_hwid_is_refused_and_recorded(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        nursery.start_soon(agent.beat)
        thief = FakeAgent(host, 1, seed=b"t" * 32)
        await thief.connect(nursery)
        with pytest.raises(AuthenticationFailed):
            await thief.prove()
        await trio.sleep(5)
        assert thief.heard == ["closed"]
        assert host.sessions.online(host.client(agent.hwid).id), "the true agent is not disturbed"
        events = [one.type for one in host.journal.log.read()]
        assert events.count("client.refused") == 1
        assert host.client(agent.hwid).public_key == public_key(agent.seed).hex()


async def test_a_wrong_signature_is_refused_and_nothing_recorded(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        head = host.journal.log.head
        agent = FakeAgent(host)
        await agent.connect(nursery)
        with pytest.raises(AuthenticationFailed):
            await agent.prove(spoil=b"!")
        await trio.sleep(5)
        assert agent.heard == ["closed"]
        assert host.journal.log.head == head
        assert host.sessions.statistics().connected == 0


async def test_three_missed_heartbeats_end_the_session(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        client = host.client(agent.hwid)
        async with trio.open_nursery() as beating:
            beating.start_soon(agent.beat)
            await trio.sleep(100 * HEARTBEAT_SECONDS)
            assert host.sessions.online(client.id)
            beating.cancel_scope.cancel()
        silent_since = trio.current_time()
        gone = trio.Event()
        host.sessions.on_presence = gone.set
        await gone.wait()
        assert 3 * HEARTBEAT_SECONDS <= trio.current_time() - silent_since <= 5 * HEARTBEAT_SECONDS
        await trio.sleep(1)
        assert not host.client(agent.hwid).online
        assert "closed" in agent.heard


async def test_a_new_connection_replaces_the_old_one(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        first = await authorised(host, nursery)
        second = FakeAgent(host)
        await second.connect(nursery)
        assert (await second.prove()).authorised
        await trio.sleep(1)
        assert "closed" in first.heard
        assert host.sessions.online(host.client(first.hwid).id)
        assert host.client(first.hwid).online


async def test_who_proves_nothing_is_closed(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = FakeAgent(host)
        await agent.connect(nursery)
        await trio.sleep(HANDSHAKE_SECONDS_MAX + 1)
        assert agent.heard == ["closed"]


async def test_many_who_prove_nothing_are_bounded(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agents = [FakeAgent(host) for _ in range(SESSIONS_UNPROVEN_MAX + 20)]
        for agent in agents:
            await agent.connect(nursery)
            await trio.testing.wait_all_tasks_blocked()
        assert host.sessions.statistics().unproven == SESSIONS_UNPROVEN_MAX
        assert sum(1 for agent in agents if agent.heard == ["closed"]) == 20


@pytest.mark.parametrize(
    "spoil",
    [
        lambda agent: b"",
        lambda agent: b"\xc1" * 100,
        lambda agent: b"\x91" * 100_000,
        lambda agent: b"x" * (MESSAGE_BYTES_MAX + 1),
        lambda agent: msgspec.msgpack.encode({"id": "1", "body": {"type": "DropTables"}}),
        lambda agent: msgspec.msgpack.encode(Parcel(id="1", body=agent.hello(nonce=b"short"))),
        lambda agent: msgspec.msgpack.encode(Parcel(id="1", body=agent.hello(protocol=99))),
        lambda agent: msgspec.msgpack.encode(Parcel(id="1", body=agent.hello(hwid="../../etc"))),
        lambda agent: msgspec.msgpack.encode(Parcel(id="1", body=agent.hello(hostname="a\nb"))),
        lambda agent: msgspec.msgpack.encode(Parcel(id="1", body=agent.proof(b"s" * 64))),
        lambda agent: msgspec.msgpack.encode(Parcel(id="1", body=WorkEnded(task_id=1, outcome="done", reason=""))),
        lambda agent: msgspec.msgpack.encode(Parcel(id="1", body=None)),
    ],
)
async def test_rubbish_is_refused_logged_and_changes_nothing(
    autojump_clock: MockClock, spoil: Callable[[FakeAgent], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with daemon() as (host, nursery):
        good = await authorised(host, nursery, 2)
        nursery.start_soon(good.beat)
        head, digest = host.journal.log.head, host.journal.state.digest()
        agent = FakeAgent(host)
        await agent.connect(nursery)
        await agent.conversation.link.send(spoil(agent))
        await trio.sleep(5)
        assert agent.heard == ["closed"]
        assert "refused from agent-" in caplog.text
        assert (host.journal.log.head, host.journal.state.digest()) == (head, digest)
        assert host.sessions.online(host.client(good.hwid).id)


async def test_an_agent_cannot_speak_about_others_work(autojump_clock: MockClock) -> None:
    async with daemon() as (host, nursery):
        agent = await authorised(host, nursery)
        with pytest.raises(RbError):
            await agent.conversation.ask(WorkEnded(task_id=1, outcome="done", reason=""), 30)
        assert "closed" not in agent.heard


async def test_the_handshake_survives_lost_repeated_and_late_messages(autojump_clock: MockClock) -> None:
    for seed in range(20):
        faults = Faults(SeededRandomness(seed), FaultPlan(lose=0.2, repeat=0.3, delay=0.3, delay_seconds_max=0.5))
        async with daemon(faults) as (host, nursery):
            agent = FakeAgent(host)
            await agent.connect(nursery)
            await agent.prove()
            events = [one.type for one in host.journal.log.read()]
            assert events.count("client.appeared") == 1, f"seed {seed}"


async def test_asking_an_offline_client_says_so(autojump_clock: MockClock) -> None:
    async with daemon() as (host, _nursery):
        with pytest.raises(Unavailable, match="not connected"):
            await host.sessions.ask(7, ListFilesystem(path="/"), 5)
