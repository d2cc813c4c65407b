"""What the simulated library's iSCSI target does about initiators that break the rules, vanish, or send anything at all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.simulated.tape import SharedUnits
from drivers.simulated.tape.iscsi_pdu import is_after, lun_number
from drivers.simulated.tape.iscsi_target import TARGET_NAME
from rbcore.scsi import ScsiResult
from tests.tape.initiator import (
    NO_TAG,
    READY,
    Answer,
    Initiator,
    Slow,
    connected,
    keys,
    loaded_drive,
    past_attention,
    pdu,
    target_of,
    word,
    write_cdb,
)
from tests.tape.simulated import Device, library

# --- breaking the rules ---

BREACHES: dict[str, Callable[[Initiator], bytes]] = {
    "a gap in the command numbers": lambda one: one.command_pdu(READY, number=one.command + 1),
    "a second login": lambda one: one.login_pdu(0x87, b""),
    "no tag": lambda one: one.command_pdu(READY, tag=NO_TAG),
    "data of a read": lambda one: one.command_pdu(READY, reads=5, data=b"12345"),
    "more data than announced": lambda one: one.command_pdu(READY, writes=3, data=b"1234"),
    "unsolicited data that are not agreed": lambda one: one.command_pdu(READY, writes=9, final=False),
    "a read that announces data": lambda one: one.command_pdu(READY, reads=9, final=False),
    "length without direction": lambda one: pdu(
        0x01, 0x80, at={16: word(1), 20: word(9), 24: word(one.command), 32: READY}
    ),
    "a data segment that is too long": lambda one: pdu(0x00, 0x80, at={5: b"\xff\xff\xff"}),
    "header segments on a ping": lambda one: pdu(0x40, 0x80, at={16: word(1)}, extra=bytes(4)),
    "a ping's answer that is not immediate": lambda one: pdu(0x00, 0x80, at={16: word(NO_TAG), 24: word(one.command)}),
    "a text that never ends": lambda one: b"".join(one.other_pdu(0x04, 0x40, data=bytes(8000)) for _ in range(4)),
    "a text that is none": lambda one: one.other_pdu(0x04, 0x80, data=b"nonsense\0"),
    "a bad segment length": lambda one: one.other_pdu(0x04, 0x80, data=keys(MaxRecvDataSegmentLength="5")),
}


@pytest.mark.parametrize("what", BREACHES)
async def test_who_breaks_the_rules_loses_the_connection_and_nobody_else(what: str) -> None:
    target = target_of(library())
    async with connected(target) as good, connected(target) as bad:
        good.isid = b"\x80\0\0\0\0\x02"
        await good.log_in(TARGET_NAME)
        await bad.log_in(TARGET_NAME)
        await bad.send(BREACHES[what](bad))
        assert await bad.is_closed()
        await past_attention(good)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 1},
        {"offset": 1},
        {"data": bytes(499)},
        {"data": bytes(501)},
        {"final": False},
        {"lun": 0},
        {"transfer": 12345},
        {"transfer": NO_TAG},
    ],
    ids=str,
)
async def test_data_that_nobody_asked_for_so_end_the_connection(change: dict[str, object]) -> None:
    made = library("VT0001L9")
    await loaded_drive(made)
    async with connected(target_of(made)) as initiator:
        await initiator.log_in(TARGET_NAME)
        await past_attention(initiator, 1)
        await initiator.send(initiator.command_pdu(write_cdb(500), lun=1, tag=77, writes=500))
        ready = await initiator.get()
        right: dict[str, object] = {"transfer": ready.word(20), "number": 0, "offset": 0, "data": bytes(500)}
        await initiator.send(initiator.data_pdu(77, **(right | {"final": True, "lun": 1} | change)))  # type: ignore[arg-type]
        assert await initiator.is_closed()
    assert await Device(made.drives[0]).clear()
    assert await Device(made.drives[0]).position() == (0, 0, 0)


async def test_a_connection_that_is_cut_in_the_middle_of_a_write_writes_nothing() -> None:
    made = library("VT0001L9")
    await loaded_drive(made)
    async with connected(target_of(made)) as initiator:
        await initiator.log_in(TARGET_NAME)
        await past_attention(initiator, 1)
        await initiator.send(initiator.command_pdu(write_cdb(500), lun=1, tag=1, writes=500, data=bytes(500)))
        assert (await initiator.get()).header[3] == 0
        await initiator.send(initiator.command_pdu(write_cdb(500), lun=1, tag=2, writes=500, data=bytes(200)))
        assert (await initiator.get()).opcode == 0x31
        await initiator.send(initiator.command_pdu(write_cdb(9), lun=1, tag=3, writes=9, data=bytes(9))[:50])
    await Device(made.drives[0]).clear()
    assert await Device(made.drives[0]).position() == (0, 1, 0)


async def test_no_answer_of_a_unit_ends_the_session_without_a_made_up_status() -> None:
    made = library("VT0001L9")
    await loaded_drive(made)
    target = target_of(made)
    async with connected(target) as one, connected(target) as other:
        other.isid = b"\x80\0\0\0\0\x02"
        for initiator in (one, other):
            await initiator.log_in(TARGET_NAME)
            await past_attention(initiator, 1)
        made.faults.kill_drive(0)
        await one.send(one.command_pdu(READY, lun=1))
        assert await one.receive() is None
        await past_attention(other, 0)


async def test_who_does_not_read_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.lockstep_stream_pair()
    target = target_of(library())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(target.serve, far)
        initiator = Initiator(near)
        await initiator.log_in(TARGET_NAME)
        await initiator.send(initiator.other_pdu(0x00, 0x80, word20=NO_TAG))
        await trio.sleep(120)
        assert not list(target.sessions())


@dataclass
class Buggy(Slow):
    async def execute(
        self, cdb: bytes, *, send: bytes | memoryview = b"", receive_bytes: int = 0, timeout_seconds: float
    ) -> ScsiResult:
        raise ZeroDivisionError


async def test_an_error_of_the_program_is_logged_and_ends_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    target = target_of(SharedUnits([Buggy()]))
    async with connected(target) as one, connected(target) as other:
        other.isid = b"\x80\0\0\0\0\x02"
        await one.log_in(TARGET_NAME)
        await other.log_in(TARGET_NAME)
        await one.send(one.command_pdu(READY))
        assert await one.receive() is None
        assert "ZeroDivisionError" in caplog.text
        assert (await other.do(READY, lun=3))[0].sense == "5/25/00"


# --- anything at all ---


class Errors(logging.Handler):
    """An error of the target ends a connection, too: only the log tells it from a rule that was broken."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def no_errors_logged() -> Iterator[None]:
    errors, log = Errors(), logging.getLogger("rbmedia.iscsi")
    log.addHandler(errors)
    try:
        yield
    finally:
        log.removeHandler(errors)
    assert not errors.records, errors.records[0].exc_info


words = st.one_of(st.sampled_from([0, 1, 2, 7, 8, 9, NO_TAG, 0x7FFFFFFF]), st.integers(0, NO_TAG))
headers = st.one_of(
    st.binary(min_size=48, max_size=48),
    st.builds(
        lambda opcode, flags, tail, numbers, cdb: pdu(
            opcode,
            flags,
            at={8: tail, **{16 + 4 * n: word(value) for n, value in enumerate(numbers)}, 32: cdb},
        ),
        st.sampled_from([0x00, 0x40, 0x01, 0x41, 0x02, 0x42, 0x43, 0x04, 0x44, 0x05, 0x06, 0x46, 0x10]),
        st.integers(0, 255),
        st.sampled_from([bytes(8), bytes([0, 1, *bytes(6)]), bytes([0x40, 2, *bytes(6)]), b"\xff" * 8]),
        st.lists(words, min_size=4, max_size=4),
        st.binary(min_size=16, max_size=16),
    ),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    head = bytearray(draw(headers))
    data = draw(st.binary(max_size=64))
    if draw(st.booleans()):
        head[4:8] = len(data).to_bytes(4, "big")
        data += bytes(-len(data) % 4)
    return bytes(head) + data


@given(raw=st.lists(messages(), max_size=6), after_login=st.booleans(), cut=st.integers(0, 40))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_the_target_neither_hangs_nor_breaks(raw: list[bytes], after_login: bool, cut: int) -> None:
    async def main() -> None:
        made = library("VT0001L9")
        await loaded_drive(made)
        near, far = trio.testing.memory_stream_pair()
        target = target_of(made)
        with trio.fail_after(100), no_errors_logged():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(target.serve, far)
                initiator = Initiator(near)
                if after_login:
                    await initiator.log_in(TARGET_NAME, InitialR2T="No")
                await initiator.send(b"".join(raw)[: -cut or None])
                await near.send_eof()
                assert await initiator.is_closed()
        assert not list(target.sessions())
        async with connected(target) as next_one:
            assert (await next_one.log_in(TARGET_NAME)).login_status == 0
            await past_attention(next_one)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@given(st.binary(min_size=8, max_size=8))
def test_logical_unit_numbers(raw: bytes) -> None:
    number = lun_number(raw)
    assert number is None or (number < 1 << 14 and not any(raw[2:]))
    assert lun_number(bytes([0, raw[0], *bytes(6)])) == raw[0]
    assert lun_number(bytes([0x40 | raw[0] & 0x3F, raw[1], *bytes(6)])) == (raw[0] & 0x3F) << 8 | raw[1]


@given(st.integers(0, NO_TAG), st.integers(1, (1 << 31) - 1))
def test_numbers_wrap_around(number: int, step: int) -> None:
    assert is_after(number + step & NO_TAG, number)
    assert not is_after(number, number + step & NO_TAG)
    assert not is_after(number, number)


def test_answers_are_read_as_they_are_meant() -> None:
    assert Answer(pdu(0x21, 0x84, at={44: word(3)}), b"").residual == -3
