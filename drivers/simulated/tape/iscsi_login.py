"""The login phase of an iSCSI target (RFC 7143, 6 and 13): who comes, whether he may, and what both sides agree on.

``Negotiation`` is a synchronous machine, one text in and one text out; ``log_in`` feeds it from a connection.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec
import trio

from drivers.simulated.tape.iscsi_pdu import (
    CONTINUES,
    FINAL,
    PLAIN_SEGMENT_BYTES,
    Opcode,
    Outgoing,
    Pdu,
    PduReader,
    encode_text,
    header,
    parse_text,
    printable,
    send_pdu,
)
from rbcore.errors import ProtocolViolation

LOGIN_SECONDS_MAX: Final = 15.0
REQUESTS_MAX: Final = 32
"""In one login."""
TEXT_BYTES_MAX: Final = 16384
"""Of one text, however many PDUs it comes in."""
SEGMENT_BYTES_MAX: Final = 1 << 20
"""What this target takes in one data segment."""
BURST_BYTES_MAX: Final = (1 << 24) - 1
FIRST_BURST_BYTES_MAX: Final = 1 << 18
"""Unsolicited data lie in memory for each waiting command: keep it small."""
NAME_BYTES_MAX: Final = 223
PORTAL_GROUP: Final = 1
_SECURITY, _OPERATIONAL, _FULL_FEATURE = 0, 1, 3
"""Stages."""
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}")
_DIGESTS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "5": lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
    "7": lambda data: hashlib.sha256(data).digest(),
}
"""CHAP_A. The first is what everybody speaks."""
_DECLARED: Final = frozenset({"InitiatorName", "InitiatorAlias", "TargetName", "SessionType"})
"""Keys that are told and not answered."""


class LoginStatus:
    """Class and detail."""

    SUCCESS, INITIATOR_ERROR, AUTHENTICATION_FAILED, NOT_FOUND = 0x0000, 0x0200, 0x0201, 0x0203
    UNSUPPORTED_VERSION, TOO_MANY_CONNECTIONS, MISSING_PARAMETER = 0x0205, 0x0206, 0x0207
    UNSUPPORTED_TYPE, NO_SUCH_SESSION, INVALID_REQUEST, OUT_OF_RESOURCES = 0x0209, 0x020A, 0x020B, 0x0302


class LoginRefused(Exception):
    """With the status for the initiator."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Agreed(msgspec.Struct):
    """Operational parameters; the defaults are those of the standard."""

    initial_r2t: bool = True
    immediate_data: bool = True
    burst_bytes_max: int = 262144
    first_burst_bytes_max: int = 65536
    peer_segment_bytes_max: int = PLAIN_SEGMENT_BYTES
    """What the initiator takes in one data segment."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A login that is complete but for the session's handle."""

    initiator: str
    port: str
    """The name of the initiator port: ``iqn...,i,0x<ISID>``."""
    is_discovery: bool
    agreed: Agreed
    connection: int
    """CID."""
    command_number: int
    """CmdSN of the first command."""
    status_number: int
    """The StatSN of the next response."""
    last_request: Pdu
    last_answer: bytes


class Negotiation:
    """The texts of one login."""

    def __init__(self, target_name: str, *, user: str = "", password: str = "") -> None:
        self.agreed = Agreed()
        self.declared: dict[str, str] = {}
        self._target_name = target_name
        self._user = user
        self._password = password
        self._is_authenticated = not user
        self._challenge: tuple[str, bytes, bytes] | None = None
        """Algorithm, identifier, challenge."""
        self._wants_chap = False
        self._seen: set[str] = set()
        self._has_answered = False
        self._has_declared = False

    @property
    def is_discovery(self) -> bool:
        return self.declared.get("SessionType") == "Discovery"

    def answer(self, stage: int, keys: dict[str, str], *, wants_on: bool) -> dict[str, str]:
        """The keys of the answer. ``wants_on``: the initiator is ready for the next stage. Raises ``LoginRefused``."""
        for key in keys:
            if key in self._seen and not key.startswith("CHAP_"):
                raise LoginRefused(LoginStatus.INITIATOR_ERROR, f"{key} was negotiated before")
        self._seen.update(keys)
        self.declared.update({key: value for key, value in keys.items() if key in _DECLARED})
        answers: dict[str, str] = {}
        if not self._has_answered:
            self._identify()
            self._has_answered = True
            if not self.is_discovery:
                answers["TargetPortalGroupTag"] = str(PORTAL_GROUP)
        rest = {key: value for key, value in keys.items() if key not in _DECLARED}
        if stage == _SECURITY:
            answers |= self._secure(rest, wants_on=wants_on)
            return answers
        if not self._is_authenticated:
            raise LoginRefused(LoginStatus.AUTHENTICATION_FAILED, "the initiator skipped the authentication")
        answers |= {key: _operational(self.agreed, key, value) for key, value in rest.items()}
        answers.pop("MaxRecvDataSegmentLength", None)
        if not self._has_declared:
            self._has_declared = True
            answers["MaxRecvDataSegmentLength"] = str(SEGMENT_BYTES_MAX)
        if self.agreed.first_burst_bytes_max > self.agreed.burst_bytes_max:
            self.agreed.first_burst_bytes_max = self.agreed.burst_bytes_max
            if "FirstBurstLength" in answers:
                answers["FirstBurstLength"] = str(self.agreed.burst_bytes_max)
        return answers

    def may_leave(self, stage: int) -> bool:
        return stage == _OPERATIONAL or self._is_authenticated

    def _identify(self) -> None:
        """Names come with the first request."""
        for key in ("InitiatorName", "TargetName"):
            name = self.declared.get(key, "")
            if len(name.encode()) > NAME_BYTES_MAX or not name.isprintable() or " " in name:
                raise LoginRefused(LoginStatus.INITIATOR_ERROR, f"{printable(name.encode())} is no iSCSI name")
        if not self.declared.get("InitiatorName"):
            raise LoginRefused(LoginStatus.MISSING_PARAMETER, "the initiator does not tell its name")
        if self.declared.get("SessionType", "Normal") not in ("Normal", "Discovery"):
            raise LoginRefused(LoginStatus.UNSUPPORTED_TYPE, "neither a normal nor a discovery session")
        if self.is_discovery:
            return
        if "TargetName" not in self.declared:
            raise LoginRefused(LoginStatus.MISSING_PARAMETER, "a normal session needs the name of a target")
        if self.declared["TargetName"] != self._target_name:
            raise LoginRefused(LoginStatus.NOT_FOUND, f"there is no target {self.declared['TargetName']}")

    # --- security ---

    def _secure(self, keys: dict[str, str], *, wants_on: bool) -> dict[str, str]:
        answers: dict[str, str] = {}
        if "AuthMethod" in keys:
            method = "None" if self._is_authenticated else "CHAP"
            if method not in keys.pop("AuthMethod").split(","):
                self._fail(f"the initiator does not offer {method}")
            answers["AuthMethod"] = method
            self._wants_chap = method == "CHAP"
        if self._wants_chap and "CHAP_A" in keys:
            answers |= self._challenged(keys.pop("CHAP_A"))
        if self._challenge is not None and "CHAP_R" in keys:
            self._verify(keys)
            keys = {}
        if any(key.startswith("CHAP_") for key in keys):
            self._fail("a step of CHAP is missing")
        answers |= dict.fromkeys(keys, "NotUnderstood")
        if wants_on and not self._is_authenticated and not answers:
            self._fail("the initiator does not authenticate itself")
        return answers

    def _challenged(self, offered: str) -> dict[str, str]:
        algorithm = next((one for one in offered.split(",") if one in _DIGESTS), None)
        if algorithm is None or self._challenge is not None:
            self._fail("no CHAP algorithm in common, or asked for twice")
        self._challenge = algorithm, secrets.token_bytes(1), secrets.token_bytes(16)
        identifier, challenge = self._challenge[1:]
        return {"CHAP_A": algorithm, "CHAP_I": str(identifier[0]), "CHAP_C": f"0x{challenge.hex()}"}

    def _verify(self, keys: dict[str, str]) -> None:
        assert self._challenge is not None
        algorithm, identifier, challenge = self._challenge
        if "CHAP_I" in keys or "CHAP_C" in keys:
            self._fail("the target has no secret to authenticate itself with")
        wanted = _DIGESTS[algorithm](identifier + self._password.encode() + challenge)
        given = re.fullmatch(r"0[xX]([0-9a-fA-F]{1,128})", keys.get("CHAP_R", ""))
        right = given is not None and hmac.compare_digest(given[1].lower().encode(), wanted.hex().encode())
        if not hmac.compare_digest(keys.get("CHAP_N", "").encode(), self._user.encode()) or not right:
            self._fail("user or password is wrong")
        if keys.keys() - {"CHAP_N", "CHAP_R"}:
            self._fail("there are keys beside the response")
        self._challenge, self._wants_chap, self._is_authenticated = None, False, True

    def _fail(self, reason: str) -> NoReturn:
        raise LoginRefused(LoginStatus.AUTHENTICATION_FAILED, reason)


# --- operational parameters ---


def _operational(agreed: Agreed, key: str, value: str) -> str:
    """The answer to one offer; what counts is put into ``agreed``."""
    match key:
        case "HeaderDigest" | "DataDigest":
            return "None" if "None" in value.split(",") else "Reject"
        case "InitialR2T":
            agreed.initial_r2t = _yes(key, value)
            return value
        case "ImmediateData":
            agreed.immediate_data = _yes(key, value)
            return value
        case "DataPDUInOrder" | "DataSequenceInOrder":
            _yes(key, value)
            return "Yes"
        case "IFMarker" | "OFMarker":
            _yes(key, value)
            return "No"
        case "MaxRecvDataSegmentLength":
            agreed.peer_segment_bytes_max = _number(key, value, 512, BURST_BYTES_MAX)
            return value
        case "MaxBurstLength":
            agreed.burst_bytes_max = _number(key, value, 512, BURST_BYTES_MAX)
            return str(agreed.burst_bytes_max)
        case "FirstBurstLength":
            agreed.first_burst_bytes_max = min(_number(key, value, 512, BURST_BYTES_MAX), FIRST_BURST_BYTES_MAX)
            return str(agreed.first_burst_bytes_max)
        case "MaxConnections" | "MaxOutstandingR2T":
            _number(key, value, 1, 65535)
            return "1"
        case "ErrorRecoveryLevel":
            _number(key, value, 0, 2)
            return "0"
        case "DefaultTime2Wait":
            return str(_number(key, value, 0, 3600))
        case "DefaultTime2Retain":
            _number(key, value, 0, 3600)
            return "0"
        case "iSCSIProtocolLevel":
            return str(min(_number(key, value, 0, 31), 1))
        case "TaskReporting":
            return "RFC3720" if "RFC3720" in value.split(",") else "Reject"
        case _:
            return "NotUnderstood"


def declare_segment_bytes(agreed: Agreed, value: str) -> None:
    """``MaxRecvDataSegmentLength`` in the full feature phase. Raises ``LoginRefused``."""
    _operational(agreed, "MaxRecvDataSegmentLength", value)


def _yes(key: str, value: str) -> bool:
    if value not in ("Yes", "No"):
        raise LoginRefused(LoginStatus.INITIATOR_ERROR, f"{key} is Yes or No")
    return value == "Yes"


def _number(key: str, value: str, least: int, most: int) -> int:
    number = int(value, 0 if value[:2].lower() == "0x" else 10) if _NUMBER.fullmatch(value) else -1
    if not least <= number <= most:
        raise LoginRefused(LoginStatus.INITIATOR_ERROR, f"{key} is a number from {least} to {most}")
    return number


# --- on a connection ---


async def log_in(reader: PduReader, stream: trio.abc.SendStream, negotiation: Negotiation) -> Login:
    """Up to the last answer, which is left to ``accept``: a session must be there before its initiator hears of it.

    Raises ``ProtocolViolation`` or ``LoginRefused``; in both cases the connection is to be closed, in the latter after ``refuse``.
    """
    text = b""
    first: Pdu | None = None
    stage: int | None = None
    for number in range(REQUESTS_MAX):
        request = await reader.read(PLAIN_SEGMENT_BYTES)
        if request is None:
            raise ProtocolViolation("the connection ended before the login did")
        first = first or request
        _check_request(first, request)
        wants_on, current, following = request.flags & FINAL, request.flags >> 2 & 3, request.flags & 3
        stage = current if stage is None else stage
        text += request.data.join()
        status_number = first.word(28) + number & 0xFFFFFFFF
        try:
            _check_stage(request, stage)
            _check_length(text)
            if request.flags & CONTINUES:
                await _send(stream, request, status_number, current << 2, b"")
                continue
            keys, text = parse_text(text), b""
            answer = encode_text(negotiation.answer(current, keys, wants_on=bool(wants_on)))
        except LoginRefused as refused:
            await refuse(stream, request, status_number, refused.status)
            raise
        goes_on = wants_on and negotiation.may_leave(current)
        if goes_on and following == _FULL_FEATURE:
            return _complete(negotiation, request, status_number, answer)
        await _send(stream, request, status_number, (FINAL | following if goes_on else 0) | current << 2, answer)
        stage = following if goes_on else current
    raise ProtocolViolation(f"a login takes {REQUESTS_MAX} requests at most")


def _check_stage(request: Pdu, stage: int) -> None:
    current, following = request.flags >> 2 & 3, request.flags & 3
    if request.header[3]:
        raise LoginRefused(LoginStatus.UNSUPPORTED_VERSION, "the initiator speaks a later version only")
    if current != stage or current > _OPERATIONAL:
        raise LoginRefused(LoginStatus.INVALID_REQUEST, "the stages of the login are out of order")
    if request.flags & FINAL and (following <= current or following == 2 or request.flags & CONTINUES):
        raise LoginRefused(LoginStatus.INVALID_REQUEST, "there is no such next stage")


def _check_length(text: bytes) -> None:
    if len(text) > TEXT_BYTES_MAX:
        raise LoginRefused(LoginStatus.INITIATOR_ERROR, f"a login text has {TEXT_BYTES_MAX} bytes at most")


def _complete(negotiation: Negotiation, request: Pdu, status_number: int, answer: bytes) -> Login:
    initiator = negotiation.declared["InitiatorName"]
    return Login(
        initiator=initiator,
        port=f"{initiator},i,0x{request.header[8:14].hex()}",
        is_discovery=negotiation.is_discovery,
        agreed=negotiation.agreed,
        connection=int.from_bytes(request.header[20:22], "big"),
        command_number=request.word(24),
        status_number=status_number + 1 & 0xFFFFFFFF,
        last_request=request,
        last_answer=answer,
    )


def _check_request(first: Pdu, request: Pdu) -> None:
    if request.opcode != Opcode.LOGIN or not request.is_immediate or request.extra:
        raise ProtocolViolation(f"a login was expected, {request.header[0]:#x} came")
    if (request.header[8:16], request.header[20:22]) != (first.header[8:16], first.header[20:22]):
        raise ProtocolViolation("two logins are mixed up on one connection")


async def accept(stream: trio.abc.SendStream, login: Login, handle: int, last_command: int) -> None:
    """The last answer of a login: full feature phase. ``handle`` is the TSIH, ``last_command`` the MaxCmdSN."""
    flags = FINAL | _FULL_FEATURE | login.last_request.flags & 0x0C
    status_number = login.status_number - 1 & 0xFFFFFFFF
    await _send(stream, login.last_request, status_number, flags, login.last_answer, handle, last_command=last_command)


async def refuse(stream: trio.abc.SendStream, request: Pdu, status_number: int, status: int) -> None:
    """Tell the initiator why not."""
    await _send(stream, request, status_number, 0, b"", status=status)


async def _send(
    stream: trio.abc.SendStream,
    request: Pdu,
    status_number: int,
    flags: int,
    text: bytes,
    handle: int = 0,
    *,
    status: int = LoginStatus.SUCCESS,
    last_command: int | None = None,
) -> None:
    command_number = request.word(24)
    head = header(
        Opcode.LOGIN_RESPONSE,
        flags,
        length=len(text),
        lun=request.header[8:14] + handle.to_bytes(2, "big"),
        tag=request.tag,
        words36=(status << 16, 0, 0),
    )
    pdu = Outgoing(head, text)
    pdu.number(status_number, command_number, command_number if last_command is None else last_command)
    await send_pdu(stream, pdu)
