"""One initiator's way to one logical unit: ``rbcore.scsi.ScsiTransport``. The only place of the simulation where anything waits."""

from __future__ import annotations

import trio

from drivers.simulated.tape.drive import DriveDied
from drivers.simulated.tape.unit import Command, LogicalUnit, Work
from rbcore.errors import DeadlineExceeded, StorageFull, Unavailable
from rbcore.ports import Threads
from rbcore.scsi import ScsiResult


class Gate:
    """Who may work on a unit, and on the state that units share."""

    def __init__(self, state: trio.Lock, threads: Threads) -> None:
        self.turn = trio.Lock()
        """One command at a time, over all initiators."""
        self.state = state
        """Held while the state changes; never while time passes."""
        self.threads = threads
        self.down = ""
        """Why nobody gets an answer now; empty when they do."""


class _Stroke:
    """What hits the command that is under way."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.reason = ""
        self.carries_on = True


class SimulatedTransport:
    """``rbcore.scsi.ScsiTransport``. Closing it ends its holds (PREVENT, RESERVE) as a logout does."""

    def __init__(self, name: str, unit: LogicalUnit, gate: Gate, initiator: str) -> None:
        self.name = name
        self.unit = unit
        self.initiator = initiator
        self._gate = gate
        self._nexus = unit.nexus(initiator)
        self._stroke = _Stroke()
        self.is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else f"down: {self._gate.down}" if self._gate.down else "up"
        return f"<SimulatedTransport {self.name} for {self.initiator}, {state}, {self.unit!r}>"

    async def execute(
        self,
        cdb: bytes,
        *,
        send: bytes | memoryview = b"",
        receive_bytes: int = 0,
        timeout_seconds: float,
    ) -> ScsiResult:
        """A command that runs into its deadline or is cancelled was begun: a move is carried to its end, a tape has moved."""
        assert not (send and receive_bytes), "a command sends or receives"
        with trio.move_on_after(timeout_seconds):
            async with self._gate.turn:
                return await self._carry_out(bytes(cdb), bytes(send), receive_bytes)
        raise DeadlineExceeded(f"{self.name} did not answer command {cdb[:1].hex()} within {timeout_seconds:g} seconds")

    async def _carry_out(self, cdb: bytes, send: bytes, receive_bytes: int) -> ScsiResult:
        gate, stroke = self._gate, self._stroke
        async with gate.state:
            self._must_be_up()
            command = Command(self._nexus, cdb, send, trio.current_time())
            try:
                work = await gate.threads.run(lambda: self.unit.start(command, receive_bytes))
            except DriveDied as died:
                raise Unavailable(f"{self.name}: {died}") from died
            except StorageFull as full:
                raise Unavailable(f"{self.name}: no room for the contents of simulated cartridges: {full}") from full
        self.unit.busy_seconds += work.seconds
        result = work.result
        try:
            with trio.move_on_after(work.seconds):
                await stroke.event.wait()
        finally:
            if work.finish is not None and stroke.carries_on:
                result = await self._finish(work)
        if stroke.reason:
            raise Unavailable(f"{self.name}: {stroke.reason}")
        return result

    async def _finish(self, work: Work) -> ScsiResult:
        finish = work.finish
        assert finish is not None
        result = work.result
        with trio.CancelScope(shield=True):
            async with self._gate.state:
                now = trio.current_time()
                result = await self._gate.threads.run(lambda: finish(now))
        return result

    def _must_be_up(self) -> None:
        if self.is_closed:
            raise Unavailable(f"{self.name} is closed")
        if self._gate.down:
            raise Unavailable(f"{self.name}: {self._gate.down}")

    def strike(self, reason: str, *, carries_on: bool, stays_down: bool) -> None:
        """Whatever is under way gets no answer; ``carries_on``: the device does not notice. Until ``mend`` when it ``stays_down``."""
        stroke, self._stroke = self._stroke, _Stroke()
        stroke.reason, stroke.carries_on = reason, carries_on
        stroke.event.set()
        if stays_down:
            self._gate.down = reason

    def mend(self) -> None:
        """Commands are answered again."""
        self._gate.down = ""

    def log_in_again(self) -> None:
        """The connection is a new one: the old one's holds are gone."""
        self.unit.logout(self._nexus)
        self._nexus = self.unit.nexus(self.initiator)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.log_out()

    def log_out(self) -> None:
        """Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self.unit.logout(self._nexus)
