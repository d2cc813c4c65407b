"""What goes wrong in a simulation, and how often. All drawn from the seed; each name is one line of the fault model.

- ``daemon_crash``: the daemon's process is gone at once, at a scheduling point or in the middle of a disk operation. Its disk
  keeps what was synced and, of the rest, what the disk's fault model lets survive. It is started again.
- ``agent_crash``: the same for an agent. It keeps its keys and nothing else.
- ``network``: messages of the control channel are lost, repeated, late, or break the link (``actors.bus_memory.FaultPlan``).
- ``cut``: every bulk stream and link breaks at once.
- ``pool_full`` / ``log_full``: no room in the pool, or on the log volume, for a while.
- ``library_fault``: bad luck in the tape library (``rbmedia.simulation.tape``).
- ``clock_jump``: the wall clock moves by up to a day, in either direction.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.bus_memory import FaultPlan

CALM = FaultPlan()
STORMY = FaultPlan(lose=0.05, repeat=0.05, delay=0.2, delay_seconds_max=3.0, cut=0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How a simulated history is drawn: relative weights of what happens next."""

    name: str
    steps: int
    agents: int = 2
    work: int = 10
    """Backups, restores, verifications, deletions."""
    orders: int = 3
    """Pause, continue, kill, restart."""
    has_tape: bool = False
    cartridge_orders: int = 0
    """Export, import, format, erase, check, move, synchronise."""
    library_fault: int = 0
    daemon_crash: int = 0
    agent_crash: int = 0
    network: int = 0
    cut: int = 0
    pool_full: int = 0
    log_full: int = 0
    clock_jump: int = 0


SCENARIOS = {
    one.name: one
    for one in (
        Scenario(name="calm", steps=30),
        Scenario(name="crashes", steps=40, daemon_crash=4, agent_crash=3),
        Scenario(name="network", steps=40, network=4, cut=3),
        Scenario(name="full", steps=40, pool_full=4, log_full=3, daemon_crash=1),
        Scenario(
            name="tape",
            steps=40,
            has_tape=True,
            cartridge_orders=3,
            library_fault=3,
            daemon_crash=1,
            agent_crash=1,
            pool_full=1,
        ),
        Scenario(
            name="everything",
            steps=40,
            has_tape=True,
            cartridge_orders=1,
            library_fault=1,
            daemon_crash=2,
            agent_crash=2,
            network=2,
            cut=2,
            pool_full=1,
            log_full=1,
            clock_jump=1,
        ),
    )
}
