"""The full feature phase of an iSCSI target (RFC 7143): one session, which is one connection, from the login to its end.

Who does what. The reader takes PDUs apart and puts commands in the line of their logical unit; it never waits for a device. A worker
per unit takes them from there one after another, asks for their data (R2T) and carries them out. The writer alone sends, and gives
the numbers (StatSN, ExpCmdSN, MaxCmdSN) at that moment; so an aborted command can never leave half a PDU behind.

Error recovery level 0: what breaks the rules ends the session, and the end of the session aborts what it had under way. A unit that
gives no answer (``Unavailable``) ends it, too: no status may be made up for a command of which it is not known what became of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import trio

from drivers.simulated.tape import sense as s
from drivers.simulated.tape.iscsi_login import (
    SEGMENT_BYTES_MAX,
    TEXT_BYTES_MAX,
    Login,
    LoginRefused,
    declare_segment_bytes,
)
from drivers.simulated.tape.iscsi_pdu import (
    CONTINUES,
    FINAL,
    NO_TAG,
    Opcode,
    Outgoing,
    Pdu,
    PduReader,
    Pieces,
    RejectReason,
    StatusNumber,
    encode_text,
    header,
    is_after,
    lun_number,
    parse_text,
    send_pdu,
)
from drivers.simulated.tape.iscsi_tasks import Burst, Line, NoUnit, Task, Units, checked, task_of
from rbcore.errors import ProtocolViolation, Unavailable
from rbcore.scsi import ScsiResult, ScsiTransport

COMMANDS_MAX: Final = 32
"""The window: commands that a session may have sent and that are not answered."""
IMMEDIATE_MAX: Final = 8
"""Beside it: immediate commands, and as many task management functions."""
TRANSFER_BYTES_MAX: Final = 1 << 26
"""Of one command. A longest block is 16 MiB - 1."""
EXECUTE_SECONDS_MAX: Final = 86400.0
"""How long a command may take belongs to the initiator, which aborts it; this bound is behind all of theirs."""
STALLED_SECONDS_MAX: Final = 60.0
"""How long an initiator may leave unread what is sent to it."""
CLOSE_SECONDS_MAX: Final = 10.0
_OUTPUT_PDUS: Final = 32
_ABORT_TASK, _ABORT_TASK_SET, _LUN_RESET, _TARGET_WARM_RESET = 1, 2, 5, 6
_DONE, _NO_TASK, _NO_LUN, _NOT_SUPPORTED = 0, 1, 2, 5


class Neighbours(Protocol):
    """The other sessions of the target, for functions that concern them all."""

    units: Units
    portal: str
    """Where initiators find it: ``127.0.0.1:3260,1``."""
    target_name: str

    def sessions(self) -> Iterable[Session]: ...


class Session:
    """``run`` serves it; ``end`` ends it from outside, ``ended`` is set when nothing of it is left."""

    def __init__(self, neighbours: Neighbours, login: Login, stream: trio.abc.Stream, reader: PduReader) -> None:
        self.login = login
        self.ended = trio.Event()
        self._neighbours = neighbours
        self._stream = stream
        self._reader = reader
        self._scope = trio.CancelScope()
        self._agreed = login.agreed
        self._expected_command = login.command_number
        self._status_number = login.status_number
        self._outstanding = 0
        """Commands in the window."""
        self._immediate = 0
        self._managed = 0
        self._tasks: dict[int, Task] = {}
        self._lines: dict[int | None, Line] = {}
        """By LUN; None: of all that are not there."""
        self._text = b""
        self._next_transfer_tag = 0
        self._heard = 0.0
        self._is_leaving = False
        self._output, self._to_send = trio.open_memory_channel[Outgoing](_OUTPUT_PDUS)
        self._handlers: dict[int, Callable[[Pdu], Awaitable[None]]] = {
            Opcode.NOP_OUT: self._nop,
            Opcode.COMMAND: self._command,
            Opcode.MANAGEMENT: self._management,
            Opcode.TEXT: self._text_request,
            Opcode.DATA_OUT: self._data_out,
            Opcode.LOGOUT: self._logout,
        }

    def __repr__(self) -> str:
        kind = "discovery" if self.login.is_discovery else "normal"
        return f"<Session of {self.login.port}, {kind}, {len(self._tasks)} commands under way>"

    @property
    def last_command(self) -> int:
        """MaxCmdSN."""
        return self._expected_command + COMMANDS_MAX - self._outstanding - 1 & 0xFFFFFFFF

    def end(self) -> None:
        self._scope.cancel()

    async def run(self, accept: Callable[[int], Awaitable[None]], *, ping_seconds: float | None) -> None:
        """Until the initiator leaves or ``end`` is called. Raises what ended it otherwise.

        ``accept(MaxCmdSN)`` tells the initiator that it is logged in. Before that its nexuses are made: what happens to a unit from then
        on is a unit attention of this session.
        """
        try:
            with self._scope:
                if not self.login.is_discovery:
                    units = self._neighbours.units
                    for lun in units.luns:
                        self._lines[lun] = Line(units.connect(lun, self.login.port))
                    self._lines[None] = Line(NoUnit(units.luns))
                await self._within_bounds(accept(self.last_command))
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._write)
                    for line in self._lines.values():
                        nursery.start_soon(self._work, line)
                    if ping_seconds is not None:
                        nursery.start_soon(self._ping, ping_seconds)
                    await self._read()
                    nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(CLOSE_SECONDS_MAX, shield=True):
                for line in self._lines.values():
                    await line.transport.aclose()
            self.ended.set()

    # --- reading and writing ---

    async def _read(self) -> None:
        while (pdu := await self._reader.read(SEGMENT_BYTES_MAX)) is not None:
            self._heard = trio.current_time()
            handler = self._handlers.get(pdu.opcode)
            if handler is None:
                if pdu.opcode == Opcode.LOGIN:
                    raise ProtocolViolation("a second login came on the connection")
                snack = pdu.opcode == Opcode.SNACK
                await self._reject(pdu, RejectReason.SNACK if snack else RejectReason.NOT_SUPPORTED)
                continue
            if pdu.extra and pdu.opcode != Opcode.COMMAND:
                raise ProtocolViolation(f"additional header segments came with opcode {pdu.opcode:#x}")
            await handler(pdu)
            if self._is_leaving:
                await trio.sleep_forever()  # the writer ends the session behind the last answer

    async def _within_bounds(self, sending: Awaitable[None]) -> None:
        with trio.move_on_after(STALLED_SECONDS_MAX) as scope:
            await sending
        if scope.cancelled_caught:
            raise Unavailable(f"{self.login.port} does not read what is sent to it")

    async def _write(self) -> None:
        async for pdu in self._to_send:
            pdu.number(self._status_number, self._expected_command, self.last_command)
            if pdu.status_number is StatusNumber.TAKES:
                self._status_number = self._status_number + 1 & 0xFFFFFFFF
            await self._within_bounds(send_pdu(self._stream, pdu))
            if pdu.is_last:
                self._scope.cancel()

    async def _ping(self, seconds: float) -> None:
        """An initiator that is silent for that long is asked, and gone when it stays silent as long again."""
        while True:
            await trio.sleep(seconds)
            if trio.current_time() - self._heard < seconds:
                continue
            asked = trio.current_time()
            await self._send(header(Opcode.NOP_IN, word20=self._transfer_tag()), status_number=StatusNumber.SHOWS)
            await trio.sleep(seconds)
            if self._heard < asked:
                raise Unavailable(f"{self.login.port} does not answer pings")

    async def _send(
        self,
        head: bytearray,
        data: bytes | memoryview = b"",
        *,
        status_number: StatusNumber = StatusNumber.TAKES,
        is_last: bool = False,
    ) -> None:
        await self._output.send(Outgoing(head, data, status_number, is_last))

    async def _reject(self, pdu: Pdu, reason: int) -> None:
        await self._send(header(Opcode.REJECT, byte2=reason, length=len(pdu.header)), pdu.header)

    def _is_in_order(self, pdu: Pdu) -> bool:
        """Count a command; False: outside of the window, to be ignored. A gap cannot be filled any more on the only connection."""
        if pdu.is_immediate:
            return True
        number = pdu.word(24)
        if is_after(self._expected_command, number) or is_after(number, self.last_command):
            return False
        if number != self._expected_command:
            raise ProtocolViolation(f"command number {self._expected_command} was left out")
        self._expected_command = number + 1 & 0xFFFFFFFF
        return True

    def _transfer_tag(self) -> int:
        self._next_transfer_tag = (self._next_transfer_tag + 1) % NO_TAG
        return self._next_transfer_tag

    # --- commands ---

    async def _command(self, pdu: Pdu) -> None:
        task = task_of(pdu)
        self._check_command(task, is_final=bool(pdu.flags & FINAL))
        if not self._is_in_order(pdu):
            return
        if task.tag in self._tasks:
            await self._reject(pdu, RejectReason.TASK_IN_PROGRESS)
            return
        if task.is_immediate and self._immediate == IMMEDIATE_MAX:
            await self._reject(pdu, RejectReason.TOO_MANY_IMMEDIATE)
            return
        if pdu.extra or (task.reads and task.writes):
            # Long CDBs and two directions at once: no command here has them.
            task.refusal = s.INVALID_OPCODE
        elif task.length > TRANSFER_BYTES_MAX:
            task.refusal = s.invalid_field(0)
        if not pdu.flags & FINAL:
            end = min(self._agreed.first_burst_bytes_max, task.length)
            task.burst = Burst(NO_TAG, end, trio.Event())
        self._tasks[task.tag] = task
        self._count(task, 1)
        number = lun_number(task.lun)
        self._lines[number if number in self._lines else None].put(task)

    def _check_command(self, task: Task, *, is_final: bool) -> None:
        """Raises ``ProtocolViolation``."""
        if self.login.is_discovery:
            raise ProtocolViolation("a SCSI command came in a discovery session")
        if task.tag == NO_TAG:
            raise ProtocolViolation("a SCSI command came without a tag")
        if not is_final and not task.writes:
            raise ProtocolViolation("a command that sends nothing announces data")
        if task.length and not (task.reads or task.writes):
            raise ProtocolViolation("a command announces data in no direction")
        agreed = self._agreed
        unsolicited = min(agreed.first_burst_bytes_max, task.length) if task.writes else 0
        limit = unsolicited if agreed.immediate_data else 0
        if task.received > limit:
            raise ProtocolViolation(f"{task.received} bytes of immediate data came, {limit} are allowed")
        if not is_final and (agreed.initial_r2t or task.received == unsolicited):
            raise ProtocolViolation("unsolicited data are announced that are not allowed")

    def _count(self, task: Task, by: int) -> None:
        if task.is_immediate:
            self._immediate += by
        else:
            self._outstanding += by

    def _forget(self, task: Task) -> None:
        """Its tag is free again, and its place in the window."""
        if self._tasks.pop(task.tag, None) is not None:
            self._count(task, -1)

    async def _data_out(self, pdu: Pdu) -> None:
        task = self._tasks.get(pdu.tag)
        if task is None or task.refusal is not None:
            return  # of a command that has ended before its data came
        burst, is_final = task.burst, bool(pdu.flags & FINAL)
        if burst is None or burst.tag != pdu.word(20):
            raise ProtocolViolation("data came that nobody asked for")
        if burst.tag != NO_TAG and pdu.header[8:16] != task.lun:
            raise ProtocolViolation("data came for another logical unit")
        if pdu.word(36) != burst.next_number or pdu.word(40) != task.received:
            raise ProtocolViolation("data came out of order")
        received = task.received + pdu.data.length
        if received > burst.end or (received == burst.end and not is_final):
            raise ProtocolViolation("more data came than were asked for")
        if is_final and burst.tag != NO_TAG and received < burst.end:
            raise ProtocolViolation("less data came than were asked for")
        task.pieces.take_over(pdu.data)
        task.received = received
        burst.next_number += 1
        if is_final:
            task.burst = None
            burst.is_over.set()

    async def _work(self, line: Line) -> None:
        """Carry out the commands of one unit."""
        while True:
            task = await line.next()
            try:
                result = None
                with task.scope:
                    result = await self._carry_out(line.transport, task)
                if result is not None and not task.is_aborted:
                    await self._answer(task, result)
            finally:
                task.ended.set()

    async def _carry_out(self, transport: ScsiTransport, task: Task) -> ScsiResult:
        if task.refusal is not None:
            return checked(task.refusal, task.length)
        if task.writes:
            await self._gather(task)
        data, task.pieces = task.pieces.join(), Pieces()
        return await transport.execute(
            task.cdb,
            send=data,
            receive_bytes=task.length if task.reads else 0,
            timeout_seconds=EXECUTE_SECONDS_MAX,
        )

    async def _gather(self, task: Task) -> None:
        """Wait for what comes by itself, then ask for the rest."""
        if task.burst is not None:
            await task.burst.is_over.wait()
        while task.received < task.length:
            length = min(self._agreed.burst_bytes_max, task.length - task.received)
            burst = task.burst = Burst(self._transfer_tag(), task.received + length, trio.Event())
            head = header(
                Opcode.READY_TO_TRANSFER,
                lun=task.lun,
                tag=task.tag,
                word20=burst.tag,
                words36=(task.transfers, task.received, length),
            )
            task.transfers += 1
            await self._send(head, status_number=StatusNumber.SHOWS)
            await burst.is_over.wait()

    async def _answer(self, task: Task, result: ScsiResult) -> None:
        flags, residual = FINAL, 0
        if result.residual_bytes:
            flags |= 0x02 if result.residual_bytes > 0 else 0x04
            residual = abs(result.residual_bytes)
        data = memoryview(result.data)[: task.length if task.reads else 0]
        # The status may come with the last of the data, but only one that needs no sense.
        with_status = bool(data) and result.status == s.GOOD
        if not with_status:
            await self._send_data(task, data, None)
            self._forget(task)
            segment = len(result.sense).to_bytes(2, "big") + result.sense if result.sense else b""
            head = header(
                Opcode.RESPONSE,
                flags,
                byte3=result.status,
                length=len(segment),
                tag=task.tag,
                words36=(task.transfers, 0, residual),
            )
            await self._send(head, segment)
            return
        await self._send_data(task, data, (flags | 0x01, residual))

    async def _send_data(self, task: Task, data: memoryview, end: tuple[int, int] | None) -> None:
        """``end``: flags and residual for the last PDU, which ends the command then."""
        burst_left = self._agreed.burst_bytes_max
        at = 0
        while at < len(data):
            size = min(self._agreed.peer_segment_bytes_max, burst_left, len(data) - at)
            burst_left -= size
            is_last = at + size == len(data)
            flags = FINAL if is_last or not burst_left else 0
            burst_left = burst_left or self._agreed.burst_bytes_max
            residual = 0
            if is_last and end is not None:
                flags, residual = end
                self._forget(task)
            head = header(
                Opcode.DATA_IN,
                flags,
                length=size,
                tag=task.tag,
                word20=NO_TAG,
                words36=(task.transfers, at, residual),
            )
            task.transfers += 1
            status_number = StatusNumber.TAKES if is_last and end is not None else StatusNumber.NONE
            await self._send(head, data[at : at + size], status_number=status_number)
            at += size

    # --- task management ---

    async def _management(self, pdu: Pdu) -> None:
        if pdu.tag == NO_TAG or self.login.is_discovery:
            raise ProtocolViolation("task management came without a tag, or in a discovery session")
        if not self._is_in_order(pdu):
            return
        if self._managed == IMMEDIATE_MAX:
            await self._reject(pdu, RejectReason.TOO_MANY_IMMEDIATE)
            return
        self._managed += 1
        self._nursery.start_soon(self._manage, pdu)

    async def _manage(self, pdu: Pdu) -> None:
        response = await self._managed_response(pdu)
        self._managed -= 1
        await self._send(header(Opcode.MANAGED, byte2=response, tag=pdu.tag))

    async def _managed_response(self, pdu: Pdu) -> int:
        function, lun, units = pdu.flags & 0x7F, lun_number(pdu.header[8:16]), self._neighbours.units
        if function == _ABORT_TASK:
            task = self._tasks.get(pdu.word(20))
            if task is None:
                return _NO_TASK
            await self._abort([task])
            return _DONE
        if function == _TARGET_WARM_RESET:
            await self._reset(units.luns)
            return _DONE
        if function not in (_ABORT_TASK_SET, _LUN_RESET):
            return _NOT_SUPPORTED
        if lun is None or lun not in units.luns:
            return _NO_LUN
        if function == _ABORT_TASK_SET:
            await self.abort_all({lun})
        else:
            await self._reset([lun])
        return _DONE

    async def _reset(self, luns: Iterable[int]) -> None:
        wanted = set(luns)
        for session in list(self._neighbours.sessions()):
            await session.abort_all(wanted)
        for lun in sorted(wanted):
            await self._neighbours.units.reset(lun)

    async def abort_all(self, luns: set[int]) -> None:
        """End all commands of these logical units without an answer."""
        await self._abort([task for task in self._tasks.values() if lun_number(task.lun) in luns])

    async def _abort(self, tasks: Iterable[Task]) -> None:
        aborted = list(tasks)
        for task in aborted:
            task.is_aborted = True
            self._forget(task)
            task.scope.cancel()
            number = lun_number(task.lun)
            line = self._lines[number if number in self._lines else None]
            if task in line.waiting:
                line.waiting.remove(task)
                task.ended.set()
        for task in aborted:
            await task.ended.wait()

    # --- the rest ---

    async def _nop(self, pdu: Pdu) -> None:
        if not self._is_in_order(pdu):
            return
        if pdu.tag == NO_TAG:
            if not pdu.is_immediate:
                raise ProtocolViolation("an answer to a ping is to be immediate")
            return
        data = pdu.data.join()[: self._agreed.peer_segment_bytes_max]
        head = header(Opcode.NOP_IN, length=len(data), lun=pdu.header[8:16], tag=pdu.tag, word20=NO_TAG)
        await self._send(head, data)

    async def _text_request(self, pdu: Pdu) -> None:
        if pdu.tag == NO_TAG:
            raise ProtocolViolation("a text came without a tag")
        if not self._is_in_order(pdu):
            return
        is_final, goes_on = bool(pdu.flags & FINAL), bool(pdu.flags & CONTINUES)
        self._text += pdu.data.join()
        if len(self._text) > TEXT_BYTES_MAX or (is_final and goes_on):
            raise ProtocolViolation("a text is too long, or goes on behind its end")
        raw = b""
        if not goes_on:
            keys, self._text = parse_text(self._text), b""
            raw = encode_text(self._text_answers(keys))
        if len(raw) > self._agreed.peer_segment_bytes_max:
            await self._reject(pdu, RejectReason.PROTOCOL_ERROR)
            return
        head = header(
            Opcode.TEXT_RESPONSE,
            FINAL if is_final else 0,
            length=len(raw),
            tag=pdu.tag,
            word20=NO_TAG if is_final else self._transfer_tag(),
        )
        await self._send(head, raw)

    def _text_answers(self, keys: dict[str, str]) -> dict[str, str]:
        answers: dict[str, str] = {}
        for key, value in keys.items():
            if key == "SendTargets":
                name = self._neighbours.target_name
                wanted = value == "All" if self.login.is_discovery else value == ""
                if wanted or value == name:
                    answers |= {"TargetName": name, "TargetAddress": self._neighbours.portal}
            elif key == "MaxRecvDataSegmentLength":
                try:
                    declare_segment_bytes(self._agreed, value)
                except LoginRefused as refused:
                    raise ProtocolViolation(str(refused)) from refused
            else:
                answers[key] = "NotUnderstood"
        return answers

    async def _logout(self, pdu: Pdu) -> None:
        if pdu.tag == NO_TAG:
            raise ProtocolViolation("a logout came without a tag")
        if not self._is_in_order(pdu):
            return
        reason, response = pdu.flags & 0x7F, 0
        if reason == 1 and int.from_bytes(pdu.header[20:22], "big") != self.login.connection:
            response = 1
        elif reason > 1:
            response = 2
        self._is_leaving = not response
        await self._send(header(Opcode.LOGGED_OUT, byte2=response, tag=pdu.tag), is_last=self._is_leaving)
