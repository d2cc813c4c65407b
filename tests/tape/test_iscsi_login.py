"""Logging in at the simulated library's iSCSI target, in PDUs: who may come, and what is agreed (RFC 7143, 6 and 13)."""

from __future__ import annotations

import hashlib

import pytest
import trio
import trio.testing

from drivers.simulated.tape import IscsiTarget, SharedUnits
from drivers.simulated.tape.iscsi_session import COMMANDS_MAX
from drivers.simulated.tape.iscsi_target import TARGET_NAME
from rbcore.errors import InvalidRequest
from tests.tape.initiator import (
    READY,
    connected,
    keys,
    past_attention,
    pdu,
    target_of,
)
from tests.tape.simulated import library

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
