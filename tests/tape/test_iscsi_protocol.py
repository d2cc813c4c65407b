"""The full feature phase of the simulated library's iSCSI target, in PDUs: what RFC 7143 wants of it."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.simulated.tape import IscsiTarget, SharedUnits
from drivers.simulated.tape.iscsi_session import COMMANDS_MAX
from drivers.simulated.tape.iscsi_target import TARGET_NAME
from tests.tape.initiator import (
    INQUIRY,
    NO_TAG,
    READY,
    REWIND,
    Initiator,
    Slow,
    connected,
    keys,
    loaded_drive,
    past_attention,
    pdu,
    read_cdb,
    target_of,
    word,
    write_cdb,
)
from tests.tape.simulated import Device, library

# --- discovery, text, NOP, logout, what is not known ---


async def test_discovery() -> None:
    async with connected(target_of(library())) as initiator:
        await initiator.log_in("", SessionType="Discovery")
        for wanted, is_there in (("All", True), (TARGET_NAME, True), ("", False), ("iqn.x:y", False)):
            await initiator.send(initiator.other_pdu(0x04, 0x80, word20=NO_TAG, data=keys(SendTargets=wanted)))
            answer = await initiator.get()
            assert (answer.opcode, answer.flags, answer.word(20)) == (0x24, 0x80, NO_TAG)
            found = {"TargetName": TARGET_NAME, "TargetAddress": "127.0.0.1:3260,1"}
            assert answer.text() == (found if is_there else {})
        await initiator.send(initiator.command_pdu(READY))
        assert await initiator.is_closed()


async def test_a_text_in_pieces_and_what_is_not_understood() -> None:
    async with connected(target_of(library())) as initiator:
        await initiator.log_in(TARGET_NAME)
        await initiator.send(initiator.other_pdu(0x04, 0x40, word20=NO_TAG, data=b"X-new=1\0SendTar"))
        answer = await initiator.get()
        assert (answer.flags, answer.data) == (0, b"")
        assert answer.word(20) != NO_TAG
        await initiator.send(initiator.other_pdu(0x04, 0x80, word20=answer.word(20), data=b"gets=\0"))
        answers = (await initiator.get()).text()
        assert answers == {
            "X-new": "NotUnderstood",
            "TargetName": TARGET_NAME,
            "TargetAddress": "127.0.0.1:3260,1",
        }


async def test_pings_come_back_in_the_order_of_the_answers() -> None:
    async with connected(target_of(library())) as initiator:
        login = await initiator.log_in(TARGET_NAME)
        for number, data in enumerate((b"", b"ping", bytes(8192), bytes(9000))):
            await initiator.send(initiator.other_pdu(0x00, 0x80, word20=NO_TAG, data=data))
            answer = await initiator.get()
            assert (answer.opcode, answer.word(20), answer.data) == (0x20, NO_TAG, data[:8192])
            assert answer.word(24) == login.word(24) + 1 + number


async def test_an_initiator_that_does_not_answer_pings_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    target = IscsiTarget(library(), "h:1", ping_seconds=5)
    async with connected(target) as initiator:
        await initiator.log_in(TARGET_NAME)
        for _ in range(3):
            ping = await initiator.get()
            assert (ping.opcode, ping.tag) == (0x20, NO_TAG)
            await initiator.send(pdu(0x40, 0x80, at={16: word(NO_TAG), 20: ping.header[20:24]}))
        assert (await initiator.get()).opcode == 0x20
        begun = trio.current_time()
        assert await initiator.receive() is None
        assert trio.current_time() - begun <= 5


@pytest.mark.parametrize(("reason", "connection", "response"), [(0, 0, 0), (1, 5, 0), (1, 6, 1), (2, 5, 2)])
async def test_logout(reason: int, connection: int, response: int) -> None:
    made = library()
    async with connected(target_of(made)) as initiator:
        await initiator.log_in(TARGET_NAME)
        await initiator.send(initiator.other_pdu(0x06, 0x80 | reason, word20=connection << 16))
        answer = await initiator.get()
        assert (answer.opcode, answer.header[2]) == (0x26, response)
        if response == 0:
            assert await initiator.receive() is None
        else:
            await past_attention(initiator)


async def test_what_is_not_known_is_rejected_with_its_header_and_the_session_goes_on() -> None:
    async with connected(target_of(library())) as initiator:
        await initiator.log_in(TARGET_NAME)
        for opcode, reason in ((0x1C, 0x05), (0x10, 0x03), (0x3E, 0x05)):
            raw = pdu(opcode, 0x80, at={16: word(3)})
            await initiator.send(raw)
            answer = await initiator.get()
            assert (answer.opcode, answer.header[2], answer.tag, answer.data) == (0x3F, reason, NO_TAG, raw)
        await past_attention(initiator)


# --- commands ---


async def test_residuals_say_how_much_less_or_more_there_was() -> None:
    async with connected(target_of(library())) as initiator:
        await initiator.log_in(TARGET_NAME)
        whole, data = await initiator.do(INQUIRY, reads=255)
        assert (whole.opcode, whole.flags & 0x81, whole.residual, len(data)) == (0x25, 0x81, 255 - len(data), len(data))
        part, some = await initiator.do(INQUIRY, reads=10)
        assert (part.residual, some) == (10 - len(data), data[:10])
        none, nothing = await initiator.do(INQUIRY)
        assert (none.opcode, none.residual, nothing) == (0x21, -len(data), b"")


async def test_what_came_with_a_check_condition_arrives_before_it() -> None:
    made = library("VT0001L9")
    await loaded_drive(made)
    async with connected(target_of(made)) as initiator:
        await initiator.log_in(TARGET_NAME)
        await past_attention(initiator, 1)
        await initiator.send(initiator.command_pdu(write_cdb(100), lun=1, writes=100, data=bytes(range(100))))
        assert (await initiator.outcome())[0].header[3] == 0
        await initiator.do(REWIND, lun=1)
        ended, data = await initiator.do(read_cdb(300), lun=1, reads=300)
        assert (ended.opcode, ended.sense, ended.residual) == (0x21, "0/00/00", 200)
        assert (ended.word(36), data) == (1, bytes(range(100)))


async def test_units_that_are_not_there() -> None:
    async with connected(target_of(library())) as initiator:
        await initiator.log_in(TARGET_NAME)
        assert (await initiator.do(INQUIRY, lun=9, reads=36))[1][0] == 0x7F
        assert (await initiator.do(READY, lun=9))[0].sense == "5/25/00"
        luns = bytes([0, 0, 0, 24, 0, 0, 0, 0]) + b"".join(bytes([0, lun, 0, 0, 0, 0, 0, 0]) for lun in range(3))
        for lun in (0, 9):
            assert (await initiator.do(b"\xa0" + bytes(7) + b"\1\0\0\0", lun=lun, reads=256))[1] == luns
        assert (await initiator.do(b"\x03\0\0\0\x12\0", lun=9, reads=18))[1][2] == 5
        await initiator.send(initiator.command_pdu(write_cdb(9), lun=9, writes=9, data=bytes(9)))
        assert (await initiator.outcome())[0].sense == "5/25/00"


@given(
    length=st.integers(1, 70000),
    first=st.integers(512, 40000),
    burst=st.integers(512, 40000),
    segment=st.integers(512, 20000),
    pieces=st.integers(300, 30000),
    initial_r2t=st.booleans(),
    immediate=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_data_of_any_length_come_back_whatever_was_agreed(
    length: int, first: int, burst: int, segment: int, pieces: int, initial_r2t: bool, immediate: bool
) -> None:
    async def main() -> None:
        made = library("VT0001L9")
        await loaded_drive(made)
        async with connected(target_of(made)) as initiator:
            answer = await initiator.log_in(
                TARGET_NAME,
                InitialR2T="Yes" if initial_r2t else "No",
                ImmediateData="Yes" if immediate else "No",
                MaxBurstLength=str(burst),
                FirstBurstLength=str(first),
                MaxRecvDataSegmentLength=str(segment),
            )
            agreed = answer.text()
            assert agreed["FirstBurstLength"] == str(min(first, burst))
            await past_attention(initiator, 1)
            data = bytes(n * 7 & 0xFF for n in range(length))
            unsolicited = min(length, first, burst)
            now = min(unsolicited, pieces) if immediate else 0
            goes_on = not initial_r2t and now < unsolicited
            tag = initiator.next_tag()
            await initiator.send(
                initiator.command_pdu(
                    write_cdb(length), lun=1, tag=tag, writes=length, data=data[:now], final=not goes_on
                )
            )
            if goes_on:
                now = await send_burst(initiator, tag, NO_TAG, data, now, unsolicited, pieces)
            requests = 0
            while (answer := await initiator.get()).opcode == 0x31:
                at, wanted = answer.word(40), answer.word(44)
                assert (at, wanted, answer.word(36)) == (now, min(burst, length - now), requests)
                now = await send_burst(initiator, tag, answer.word(20), data, at, at + wanted, pieces)
                requests += 1
            assert (answer.opcode, answer.tag, answer.header[3], answer.word(36)) == (0x21, tag, 0, requests)
            await initiator.do(REWIND, lun=1)
            await initiator.send(initiator.command_pdu(read_cdb(length), lun=1, reads=length))
            assert (await initiator.outcome())[1] == data

    trio.run(main)


async def send_burst(
    initiator: Initiator, tag: int, transfer: int, data: bytes, start: int, end: int, pieces: int
) -> int:
    for number, at in enumerate(range(start, end, pieces)):
        stop = min(at + pieces, end)
        await initiator.send(initiator.data_pdu(tag, transfer, number, at, data[at:stop], final=stop == end, lun=1))
    return end


async def test_bursts_of_data_in_end_where_they_must() -> None:
    made = library("VT0001L9")
    await loaded_drive(made)
    async with connected(target_of(made)) as initiator:
        await initiator.log_in(TARGET_NAME, MaxBurstLength="1200", MaxRecvDataSegmentLength="512")
        await past_attention(initiator, 1)
        assert await Device(made.drives[0]).clear()
        await Device(made.drives[0]).write(bytes(3000))
        await initiator.do(REWIND, lun=1)
        await initiator.send(initiator.command_pdu(read_cdb(3000), lun=1, reads=3000))
        came = [await initiator.get() for _ in range(8)]
        assert [len(one.data) for one in came] == [512, 512, 176, 512, 512, 176, 512, 88]
        assert [one.flags for one in came] == [0, 0, 0x80, 0, 0, 0x80, 0, 0x81]
        assert [one.word(24) > 0 for one in came] == [False] * 7 + [True]


async def test_a_peer_that_sends_single_bytes_is_understood() -> None:
    async with connected(target_of(library())) as initiator:
        await initiator.log_in(TARGET_NAME)
        for byte in initiator.command_pdu(b"\xff" * 6, writes=3, data=b"abc"):
            await initiator.send(bytes([byte]))
        assert (await initiator.outcome())[0].sense == "6/29/00"


# --- the window ---


async def test_the_window_closes_and_opens_and_what_is_outside_is_ignored() -> None:
    slow = Slow()
    async with connected(target_of(SharedUnits([slow]))) as initiator:
        await initiator.log_in(TARGET_NAME)
        first = initiator.command
        for _ in range(COMMANDS_MAX):
            await initiator.send(initiator.command_pdu(READY))
        await initiator.send(initiator.command_pdu(REWIND))  # one too many
        await initiator.send(initiator.command_pdu(REWIND, number=first))  # once more
        await initiator.send(initiator.other_pdu(0x00, 0x80, word20=NO_TAG))
        ping = await initiator.get()
        assert (ping.word(28), ping.word(32)) == (first + COMMANDS_MAX, first + COMMANDS_MAX - 1)
        slow.go.set()
        answers = [await initiator.get() for _ in range(COMMANDS_MAX)]
        assert [one.tag for one in answers] == list(range(1, COMMANDS_MAX + 1))
        assert answers[-1].word(32) == first + 2 * COMMANDS_MAX - 1
        assert slow.begun == slow.ended == [READY] * COMMANDS_MAX


async def test_immediate_commands_have_a_limit_of_their_own() -> None:
    slow = Slow()
    async with connected(target_of(SharedUnits([slow]))) as initiator:
        await initiator.log_in(TARGET_NAME)
        for _ in range(9):
            await initiator.send(initiator.command_pdu(READY, immediate=True))
        rejected = await initiator.get()
        assert (rejected.opcode, rejected.header[2]) == (0x3F, 0x06)
        slow.go.set()
        assert [(await initiator.get()).opcode for _ in range(8)] == [0x21] * 8


async def test_a_tag_that_is_in_use_is_rejected() -> None:
    slow = Slow()
    async with connected(target_of(SharedUnits([slow]))) as initiator:
        await initiator.log_in(TARGET_NAME)
        await initiator.send(initiator.command_pdu(READY, tag=5) + initiator.command_pdu(REWIND, tag=5))
        rejected = await initiator.get()
        assert (rejected.opcode, rejected.header[2]) == (0x3F, 0x07)
        slow.go.set()
        assert (await initiator.get()).tag == 5
        assert slow.begun == [READY]


# --- task management ---


@pytest.mark.parametrize("which", [1, 2, 3])
async def test_an_aborted_command_gets_no_answer(which: int) -> None:
    """The first of three runs, the others wait."""
    slow = Slow()
    async with connected(target_of(SharedUnits([slow]))) as initiator:
        await initiator.log_in(TARGET_NAME)
        for number in (1, 2, 3):
            await initiator.send(initiator.command_pdu(bytes([number, *bytes(5)]), tag=number))
        await initiator.send(initiator.other_pdu(0x02, 0x81, word20=which))
        answer = await initiator.get()
        assert (answer.opcode, answer.header[2]) == (0x22, 0)
        slow.go.set()
        assert [(await initiator.get()).tag for _ in range(2)] == [tag for tag in (1, 2, 3) if tag != which]
        assert which not in [cdb[0] for cdb in slow.ended]
        await initiator.send(initiator.other_pdu(0x02, 0x81, word20=which))
        assert (await initiator.get()).header[2] == 1


async def test_a_write_can_be_aborted_while_its_data_are_awaited() -> None:
    made = library("VT0001L9")
    await loaded_drive(made)
    async with connected(target_of(made)) as initiator:
        await initiator.log_in(TARGET_NAME)
        await past_attention(initiator, 1)
        await initiator.send(initiator.command_pdu(write_cdb(500), lun=1, tag=77, writes=500))
        ready = await initiator.get()
        await initiator.send(initiator.other_pdu(0x02, 0x81, word20=77, lun=1))
        assert (await initiator.get()).header[2] == 0
        await initiator.send(initiator.data_pdu(77, ready.word(20), 0, 0, bytes(500), final=True, lun=1))
        _, where = await initiator.do(b"\x34" + bytes(9), lun=1, reads=20)
        assert int.from_bytes(where[4:8], "big") == 0


async def test_a_reset_aborts_what_all_initiators_have_there_and_tells_them() -> None:
    made = library("VT0001L9")
    await loaded_drive(made)
    target = target_of(made)
    async with connected(target) as one, connected(target) as other:
        other.isid = b"\x80\0\0\0\0\x02"
        for initiator in (one, other):
            await initiator.log_in(TARGET_NAME)
            await past_attention(initiator, 1)
        await other.send(other.command_pdu(write_cdb(500), lun=1, writes=500))
        assert (await other.get()).opcode == 0x31
        await one.send(one.other_pdu(0x02, 0x85, lun=1))
        assert (await one.get()).header[2] == 0
        for initiator in (one, other):
            assert (await initiator.do(READY, lun=1))[0].sense == "6/29/00"
        await one.send(one.other_pdu(0x02, 0x86))
        assert (await one.get()).header[2] == 0
        assert (await other.do(READY, lun=0))[0].sense == "6/29/00"


@pytest.mark.parametrize(
    ("flags", "lun", "response"), [(0x82, 0, 0), (0x82, 9, 2), (0x85, 9, 2), (0x83, 0, 5), (0x87, 0, 5), (0x88, 0, 5)]
)
async def test_other_functions(flags: int, lun: int, response: int) -> None:
    async with connected(target_of(library())) as initiator:
        await initiator.log_in(TARGET_NAME)
        await initiator.send(initiator.other_pdu(0x02, flags, lun=lun))
        assert (await initiator.get()).header[2] == response
