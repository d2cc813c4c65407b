"""The simulated library's iSCSI target, spoken to in PDUs: what RFC 7143 wants of it, and what it does about those who break the rules."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.simulated.tape import IscsiTarget, SharedUnits, SimulatedLibrary
from drivers.simulated.tape.iscsi_pdu import is_after, lun_number
from drivers.simulated.tape.iscsi_session import COMMANDS_MAX
from drivers.simulated.tape.iscsi_target import TARGET_NAME
from rbcore.errors import InvalidRequest
from rbcore.scsi import ScsiResult
from tests.tape.initiator import NO_TAG, Answer, Initiator, connected, keys, pdu, word
from tests.tape.simulated import DRIVE, SLOT, Device, library

READY = bytes(6)
INQUIRY = b"\x12\0\0\0\xff\0"
REWIND = b"\x01" + bytes(5)


def write_cdb(length: int) -> bytes:
    return b"\x0a\0" + length.to_bytes(3, "big") + b"\0"


def read_cdb(length: int) -> bytes:
    return b"\x08\0" + length.to_bytes(3, "big") + b"\0"


@dataclass
class Slow:
    """A logical unit that answers when it is told to; it keeps what it was told to do."""

    name: str = "slow"
    begun: list[bytes] = field(default_factory=list)
    ended: list[bytes] = field(default_factory=list)
    go: trio.Event = field(default_factory=trio.Event)

    async def execute(
        self, cdb: bytes, *, send: bytes | memoryview = b"", receive_bytes: int = 0, timeout_seconds: float
    ) -> ScsiResult:
        self.begun.append(cdb)
        await self.go.wait()
        self.ended.append(cdb)
        return ScsiResult(status=0)

    async def aclose(self) -> None:
        raise AssertionError("the target closes what is not its own")


def target_of(made: SimulatedLibrary | SharedUnits, **options: str) -> IscsiTarget:
    return IscsiTarget(made, "127.0.0.1:3260", **options)  # type: ignore[arg-type]


async def loaded_drive(made: SimulatedLibrary) -> None:
    changer = Device(made.changer)
    await changer.clear()
    assert await changer.move(SLOT, DRIVE) == "good"


async def past_attention(initiator: Initiator, lun: int = 0) -> None:
    while (await initiator.do(READY, lun=lun))[0].header[3]:
        pass


# --- login ---


async def test_a_login_in_one_step_agrees_on_everything_that_was_offered() -> None:
    async with connected(target_of(library())) as initiator:
        answer = await initiator.log_in(
            TARGET_NAME,
            HeaderDigest="CRC32C,None",
            DataDigest="CRC32C",
            MaxConnections="8",
            InitialR2T="No",
            ImmediateData="Yes",
            MaxRecvDataSegmentLength="0x10000",
            MaxBurstLength="1048576",
            FirstBurstLength="1048576",
            DefaultTime2Wait="2",
            DefaultTime2Retain="20",
            MaxOutstandingR2T="4",
            DataPDUInOrder="No",
            DataSequenceInOrder="No",
            ErrorRecoveryLevel="2",
            IFMarker="Yes",
            TaskReporting="FastAbort,RFC3720",
            iSCSIProtocolLevel="2",
            **{"X-com.example": "1"},
        )
        assert (answer.opcode, answer.flags, answer.login_status) == (0x23, 0x87, 0)
        assert int.from_bytes(answer.header[14:16], "big") != 0
        assert answer.header[8:14] == initiator.isid
        assert (answer.word(28), answer.word(32)) == (7, 7 + COMMANDS_MAX - 1)
        assert answer.text() == {
            "TargetPortalGroupTag": "1",
            "HeaderDigest": "None",
            "DataDigest": "Reject",
            "MaxConnections": "1",
            "InitialR2T": "No",
            "ImmediateData": "Yes",
            "MaxRecvDataSegmentLength": "1048576",
            "MaxBurstLength": "1048576",
            "FirstBurstLength": "262144",
            "DefaultTime2Wait": "2",
            "DefaultTime2Retain": "0",
            "MaxOutstandingR2T": "1",
            "DataPDUInOrder": "Yes",
            "DataSequenceInOrder": "Yes",
            "ErrorRecoveryLevel": "0",
            "IFMarker": "No",
            "TaskReporting": "RFC3720",
            "iSCSIProtocolLevel": "1",
            "X-com.example": "NotUnderstood",
        }


@pytest.mark.parametrize(
    ("status", "pairs"),
    [
        (0x0203, {"TargetName": "iqn.2026-01.test:another"}),
        (0x0207, {"TargetName": ""}),
        (0x0207, {"InitiatorName": ""}),
        (0x0200, {"InitiatorName": "x" * 224}),
        (0x0200, {"InitiatorName": "a b"}),
        (0x0209, {"SessionType": "Strange"}),
        (0x0200, {"MaxBurstLength": "511"}),
        (0x0200, {"MaxBurstLength": "16777216"}),
        (0x0200, {"MaxConnections": "-1"}),
        (0x0200, {"InitialR2T": "Perhaps"}),
    ],
)
async def test_a_login_that_cannot_be_is_told_why(status: int, pairs: dict[str, str]) -> None:
    async with connected(target_of(library())) as initiator:
        assert (await initiator.log_in(TARGET_NAME, **pairs)).login_status == status
        assert await initiator.is_closed()


@pytest.mark.parametrize(
    ("status", "flags", "places"),
    [
        (0x0205, 0x87, {"_3": b"\1"}),  # VersionMin
        (0x020A, 0x87, {"_14": b"\0\x09"}),  # joins a session that is not there
        (0x020B, 0x84 | 2, {}),  # to a stage that is none
        (0x020B, 0x85, {}),  # from 1 to 1
        (0x020B, 0x8F, {}),  # in the full feature phase already
        (0x020B, 0xC7, {}),  # goes on, and is the last
    ],
)
async def test_requests_that_make_no_sense_are_refused(status: int, flags: int, places: dict[str, bytes]) -> None:
    async with connected(target_of(library())) as initiator:
        text = keys(InitiatorName="iqn.x:y", TargetName=TARGET_NAME)
        await initiator.send(initiator.login_pdu(flags, text, **places))
        assert (await initiator.get()).login_status == status
        assert await initiator.is_closed()


@pytest.mark.parametrize(
    "raw",
    [
        pdu(0x01, 0x80),
        pdu(0x03, 0x87),
        pdu(0x43, 0x87, data=b"no end=1"),
        pdu(0x43, 0x87, data=b"\0"),
        pdu(0x43, 0x87, data=b"A=1\0A=2\0"),
        pdu(0x43, 0x87, data=b"A=\xff\0"),
        pdu(0x43, 0x87, data=b"".join(b"A%d=\0" % n for n in range(65))),
        pdu(0x43, 0x87, data=bytes(8193)),
        pdu(0x43, 0x87, extra=bytes(8)),
        pdu(0x43, 0x04)[:30],
    ],
)
async def test_what_is_no_login_ends_the_connection(raw: bytes) -> None:
    async with connected(target_of(library())) as initiator:
        await initiator.send(raw)
        if len(raw) < 48:
            assert isinstance(initiator.stream, trio.StapledStream)
            await initiator.stream.send_eof()
        assert await initiator.receive() is None


async def test_a_login_may_take_its_time_but_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(target_of(library())) as initiator:
        begun = trio.current_time()
        assert await initiator.receive() is None
        assert trio.current_time() - begun < 60
    async with connected(target_of(library())) as initiator:
        for _ in range(40):
            await initiator.send(initiator.login_pdu(0x04, keys(InitiatorName="iqn.x:y", TargetName=TARGET_NAME)))
            answer = await initiator.receive()
            if answer is None or answer.login_status:
                break
        assert await initiator.is_closed()


async def test_a_login_in_many_pieces() -> None:
    text = keys(InitiatorName="iqn.x:y", TargetName=TARGET_NAME, InitialR2T="No", Filler="x" * 3000)
    async with connected(target_of(library())) as initiator:
        for at in range(0, len(text), 1000):
            await initiator.send(initiator.login_pdu(0x44, text[at : at + 1000]))
            answer = await initiator.get()
            assert (answer.flags, answer.data) == (0x04, b"")
        await initiator.send(initiator.login_pdu(0x87, b""))
        answer = await initiator.get()
        assert (answer.flags, answer.text()["InitialR2T"]) == (0x87, "No")
        await past_attention(initiator)


@pytest.mark.parametrize("algorithm", ["5", "7"])
@pytest.mark.parametrize("fault", ["", "user", "password", "algorithm", "mutual", "skip", "none", "late"])
async def test_chap(algorithm: str, fault: str) -> None:
    """Security stage by hand: a digest of identifier, password and challenge."""
    async with connected(target_of(library(), user="me", password="long secret")) as initiator:
        names = {"InitiatorName": "iqn.x:y", "TargetName": TARGET_NAME}
        if fault == "skip":
            assert (await initiator.log_in(TARGET_NAME)).login_status == 0x0201
            return
        await initiator.send(
            initiator.login_pdu(0x81, keys(**names, AuthMethod="None" if fault == "none" else "CHAP,None"))
        )
        if fault == "none":
            assert (await initiator.get()).login_status == 0x0201
            return
        answer = await initiator.get()
        assert (answer.flags, answer.text()["AuthMethod"]) == (0x00, "CHAP")
        if fault == "late":
            await initiator.send(initiator.login_pdu(0x81, keys(CHAP_N="me", CHAP_R="0x00")))
            assert (await initiator.get()).login_status == 0x0201
            return
        await initiator.send(initiator.login_pdu(0x00, keys(CHAP_A="1" if fault == "algorithm" else f"1,{algorithm}")))
        if fault == "algorithm":
            assert (await initiator.get()).login_status == 0x0201
            return
        offered = (await initiator.get()).text()
        assert offered["CHAP_A"] == algorithm
        secret = b"short" if fault == "password" else b"long secret"
        material = bytes([int(offered["CHAP_I"])]) + secret + bytes.fromhex(offered["CHAP_C"][2:])
        digest = {"5": hashlib.md5, "7": hashlib.sha256}[algorithm](material).hexdigest()
        more = {"CHAP_I": "1", "CHAP_C": "0x00"} if fault == "mutual" else {}
        response = keys(CHAP_N="you" if fault == "user" else "me", CHAP_R=f"0x{digest}", **more)
        await initiator.send(initiator.login_pdu(0x83, response))
        answer = await initiator.get()
        assert (answer.login_status, answer.flags) == ((0x0201, 0) if fault else (0, 0x83))
        if fault:
            assert await initiator.is_closed()
        else:
            await past_attention(initiator)


def test_a_user_without_a_password_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        IscsiTarget(SharedUnits([]), "", user="me")


async def test_the_same_initiator_port_again_ends_the_earlier_session() -> None:
    made = library("VT0001L9")
    target = target_of(made)
    async with connected(target) as one, connected(target) as other, connected(target) as third:
        await one.log_in(TARGET_NAME)
        third.isid = b"\x80\0\0\0\0\x02"
        await third.log_in(TARGET_NAME)
        assert (await one.do(b"\x1e\0\0\0\x01\0"))[0].sense == "6/29/00"
        assert (await one.do(b"\x1e\0\0\0\x01\0"))[0].header[3] == 0
        changer = made.changer_unit
        assert [changer.is_removal_prevented] == [True]
        assert (await other.log_in(TARGET_NAME)).login_status == 0
        assert [changer.is_removal_prevented] == [False]
        assert await one.is_closed()
        assert (await other.do(READY))[0].sense == "6/29/00"
        await past_attention(third)


async def test_no_more_connections_than_there_may_be() -> None:
    target = IscsiTarget(library(), "h:1", connections_max=1)
    async with connected(target) as one:
        await one.log_in(TARGET_NAME)
        async with connected(target) as other:
            assert await other.receive() is None
        await past_attention(one)


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
