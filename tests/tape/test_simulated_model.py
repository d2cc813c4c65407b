"""A drive against a list: whatever sequence of commands, records, filemarks and position are those of a model of ten lines."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from drivers.simulated.tape import NO_DELAY
from drivers.simulated.tape.drive import SimulatedDrive
from drivers.simulated.tape.generations import GENERATIONS
from drivers.simulated.tape.medium import Cartridge
from drivers.simulated.tape.unit import Command
from drivers.simulated.volume import SimulatedVolume
from tests.tape.simulated import number, said


class TapeAgainstList(RuleBasedStateMachine):
    """``tape`` is what is on the model's tape: records, and None for filemarks. ``safe`` is what a power failure leaves."""

    @initialize()
    def begin(self) -> None:
        self.volume = SimulatedVolume()
        Cartridge.create(self.volume, "c", barcode="VT0001L9", generation_number=9, capacity_factor=1e-6)
        self.tape: list[bytes | None] = []
        self.safe: list[bytes | None] = []
        self.at = 0
        self.insert()

    def insert(self) -> None:
        self.drive = SimulatedDrive(0, GENERATIONS[9], "S", NO_DELAY, buffer_bytes=2000)
        self.nexus = self.drive.nexus("host")
        self.drive.insert(Cartridge.open(self.volume, "c"), 0.0)
        self.drive.settle(0.0)
        self.nexus.attentions.clear()

    def do(self, cdb: bytes, receive: int = 0, send: bytes = b"") -> tuple[str, bytes]:
        result = self.drive.start(Command(self.nexus, cdb, send, 0.0), receive).result
        return said(result), result.data

    def flushed(self) -> None:
        self.safe = list(self.tape)

    @rule(record=st.binary(min_size=1, max_size=600))
    def write(self, record: bytes) -> None:
        answer, _ = self.do(b"\x0a\0" + number(len(record), 3) + b"\0", send=record)
        assert answer == "good"
        self.tape[self.at :] = [record]
        self.at += 1
        if self.drive.head is not None and self.drive.head.tape.unwritten_objects == 0:
            self.flushed()

    @rule(count=st.integers(0, 3), immediate=st.booleans())
    def filemarks(self, count: int, immediate: bool) -> None:
        assert self.do(bytes([0x10, immediate]) + number(count, 3) + b"\0")[0] == "good"
        if count:
            self.tape[self.at :] = [None] * count
            self.at += count
        if not immediate:
            self.flushed()

    @rule(length=st.integers(1, 700))
    def read(self, length: int) -> None:
        answer, data = self.do(b"\x08\0" + number(length, 3) + b"\0", receive=length)
        self.flushed()
        if self.at == len(self.tape):
            assert answer == f"8/00/05 {length}"
            return
        record = self.tape[self.at]
        self.at += 1
        if record is None:
            assert answer == f"0/00/01 FM {length}"
        else:
            assert data == record[:length]
            assert answer == ("good" if len(record) == length else f"0/00/00 ILI {length - len(record)}")

    @rule(code=st.sampled_from([0, 1]), count=st.integers(-6, 6))
    def space(self, code: int, count: int) -> None:
        answer = self.do(bytes([0x11, code]) + number(count, 3) + b"\0")[0]
        if count:
            self.flushed()
        assert answer == self._spaced(code, count)

    def _spaced(self, code: int, count: int) -> str:
        """Object by object, as SSC says it."""
        left = abs(count)
        while left:
            if count > 0 and self.at == len(self.tape):
                return f"8/00/05 {left}"
            if count < 0 and self.at == 0:
                return f"0/00/04 EOM {left}"
            passed = self.tape[self.at if count > 0 else self.at - 1]
            self.at += 1 if count > 0 else -1
            if code == 0 and passed is None:
                return f"0/00/01 FM {left}"
            left -= 1 if code == 0 or passed is None else 0
        return "good"

    @rule(wanted=st.integers(0, 12))
    def locate(self, wanted: int) -> None:
        answer = self.do(b"\x92\0\0\0" + number(wanted, 8) + bytes(4))[0]
        self.flushed()
        assert answer == ("good" if wanted <= len(self.tape) else "8/00/05 0")
        self.at = min(wanted, len(self.tape))

    @rule()
    def end_of_data(self) -> None:
        assert self.do(b"\x11\x03" + bytes(4))[0] == "good"
        self.flushed()
        self.at = len(self.tape)

    @rule()
    def erase(self) -> None:
        assert self.do(b"\x19" + bytes(5))[0] == "good"
        del self.tape[self.at :]
        self.flushed()

    @rule()
    def change_drives(self) -> None:
        self.drive.unload()
        self.flushed()
        self.drive.remove()
        self.insert()
        self.at = 0

    @rule()
    def lose_power(self) -> None:
        self.drive.die()
        self.insert()
        self.tape, self.at = list(self.safe), 0

    @invariant()
    def position_and_length_are_the_models(self) -> None:
        answer, raw = self.do(b"\x34\x06" + bytes(8), receive=32)
        assert answer == "good"
        marks = sum(one is None for one in self.tape[: self.at])
        assert (int.from_bytes(raw[8:16], "big"), int.from_bytes(raw[16:24], "big")) == (self.at, marks)
        assert self.drive.head is not None
        assert len(self.drive.head.tape) == len(self.tape)


TapeAgainstList.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTapeAgainstList = TapeAgainstList.TestCase
