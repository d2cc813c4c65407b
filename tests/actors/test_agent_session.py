"""The agent's program under the virtual clock: reconnecting for ever, waiting for authorisation, a silent daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from actors.agent.program import HEARTBEATS_MISSED_MAX, RECONNECT_SECONDS_MAX, AgentSettings, run_agent
from actors.bus_memory import FaultPlan, Faults, MemoryLink, MemoryNetwork
from actors.client_session import HEARTBEAT_SECONDS
from drivers.simulated.world import SeededRandomness, SimulatedWorld
from tests.actors.test_sessions import PORT, daemon


def settings(tmp_path: Path) -> AgentSettings:
    return AgentSettings(data_directory=tmp_path / "agent", daemon_host="daemon", daemon_port=PORT, hostname="host")


class CountingNetwork(MemoryNetwork):
    """Remembers when it was dialled."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled_at: list[float] = []
        self.newest: MemoryLink | None = None

    async def dial_control(self, host: str, port: int) -> MemoryLink:
        self.dialled_at.append(trio.current_time())
        self.newest = await super().dial_control(host, port)
        return self.newest


async def test_it_dials_for_ever_with_growing_pauses(autojump_clock: MockClock, tmp_path: Path) -> None:
    network = CountingNetwork()
    with trio.move_on_after(24 * 3600):
        await run_agent(settings(tmp_path), SimulatedWorld.of_seed(1), network=network)
    pauses = [later - earlier for earlier, later in zip(network.dialled_at, network.dialled_at[1:], strict=False)]
    assert pauses[0] <= 0.5
    assert all(RECONNECT_SECONDS_MAX / 2 <= pause <= RECONNECT_SECONDS_MAX for pause in pauses[10:])
    assert len(set(pauses[10:])) > 100, "jitter: agents do not come back all at once"
    assert len(pauses) > 24 * 3600 / RECONNECT_SECONDS_MAX


async def test_it_waits_until_it_is_authorised_and_comes_back_when_it_is_cut_off(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    states: list[str] = []
    async with daemon() as (host, nursery):
        identity = await nursery.start(
            lambda task_status: run_agent(
                settings(tmp_path), host.world, network=host.network, on_state=states.append, task_status=task_status
            )
        )
        await trio.sleep(5)
        assert states == ["connecting", "waiting"]
        await trio.sleep(1000)
        assert states == ["connecting", "waiting"], "heartbeats keep the waiting session"
        await host.authorise(identity.hwid)
        assert states[-1] == "authorised"
        client_id = host.client(identity.hwid).id
        for _ in range(5):
            (session,) = host.sessions._sessions
            session.link.close()
            await trio.sleep(5)
            assert states[-2:] == ["connecting", "authorised"]
            assert host.sessions.online(client_id)
            assert host.client(identity.hwid).online


async def test_a_silent_daemon_is_left(autojump_clock: MockClock, tmp_path: Path) -> None:
    states: list[tuple[float, str]] = []

    def note(state: str) -> None:
        states.append((trio.current_time(), state))

    faults = Faults(SeededRandomness(1), FaultPlan())
    async with daemon(faults) as (host, nursery):
        nursery.start_soon(lambda: run_agent(settings(tmp_path), host.world, network=host.network, on_state=note))
        await trio.sleep(5)
        assert states[-1][1] == "waiting"
        faults.plan = FaultPlan(lose=1.0)
        silent_since = trio.current_time()
        await trio.sleep((HEARTBEATS_MISSED_MAX + 3) * HEARTBEAT_SECONDS)
        assert states[2][1] == "connecting"
        assert states[2][0] - silent_since <= (HEARTBEATS_MISSED_MAX + 2) * HEARTBEAT_SECONDS
        faults.plan = FaultPlan()
        await trio.sleep(2 * RECONNECT_SECONDS_MAX + 60)
        assert states[-1][1] == "waiting"


@pytest.mark.parametrize("seed", range(10))
async def test_it_gets_through_a_bad_network(autojump_clock: MockClock, tmp_path: Path, seed: int) -> None:
    states: list[str] = []
    plan = FaultPlan(lose=0.2, repeat=0.2, delay=0.2, delay_seconds_max=2.0, cut=0.02)
    async with daemon(Faults(SeededRandomness(seed), plan)) as (host, nursery):
        nursery.start_soon(
            lambda: run_agent(settings(tmp_path), host.world, network=host.network, on_state=states.append)
        )
        await trio.sleep(600)
        assert "waiting" in states
        appeared = [one for one in host.journal.log.read() if one.type == "client.appeared"]
        assert len({one.stream for one in appeared}) == 1
