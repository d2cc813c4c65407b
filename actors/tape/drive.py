"""The actor of a tape drive: the only one who talks to it. ``drive/<drive id>@<host>``.

A mount is: intent, the robot brings the cartridge, the drive threads it, a look at its beginning says who it is, and only then the log has it
mounted. A wrong, foreign or unreadable cartridge is taken out again. A dismount closes the session, unloads, and the robot puts the cartridge back.
What fails is blamed on the cartridge, the drive or the robot, as far as sense codes tell.

While a stream changes cartridges (``change_to``) the actor serves no message: the drive has one hand on it at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio

from actors.bus import Delivery
from actors.mailbox import Mailbox
from actors.tape.desk import Desk
from actors.tape.messages import (
    CarryOutOrder,
    CleanDrive,
    DismountCartridge,
    DriveStatistics,
    EmptyDrive,
    MountCartridge,
    Mounted,
    MoveCartridge,
    MoveUnknown,
    ProbeDrive,
    ReadInventory,
)
from actors.tape.orders import TapeIdentity, carry_out, facts_of_drive, found_facts, label, wait_cleaned
from actors.tape.recording import Recorder
from actors.tape.serving import serve
from actors.tape.sink import Next
from drivers.scsi.drive import UNLOAD_SECONDS_MAX, Drive
from drivers.scsi.drive_pages import TAPE_ALERTS
from drivers.tape import identify, open_session
from rbcore import media
from rbcore.commands import (
    AskDriveCleaning,
    BeginDismount,
    BeginMount,
    CountCartridgeError,
    CountDriveFailure,
    EndDismount,
    EndMount,
    QuarantineCartridge,
    RecordCartridgeWritten,
    RecordDriveCleaned,
    RecordDriveFacts,
    SetDriveStatus,
)
from rbcore.entities import LibrarySlot, TapeCartridge, TapeDrive
from rbcore.errors import (
    CleaningRequired,
    Damaged,
    DeadlineExceeded,
    DeviceNotReady,
    EndOfMedium,
    HardwareFailed,
    NoCartridge,
    NotAllowedNow,
    NotFound,
    PositionLost,
    RbError,
    Refused,
    Unavailable,
    UnsupportedByDevice,
    WriteProtected,
)
from rbcore.scsi import ScsiTransport
from rbcore.tape.session import CartridgeSession, Contents, Identified
from rbcore.vocabulary import CartridgeStatus, DriveStatus, SlotType

_log = logging.getLogger(__name__)

Ask = Callable[[Any], Awaitable[Any]]
"""Ask the changer of the library."""

CLEANING_SECONDS_MAX = 1800.0
LOG_SENSE = 0x4D
CLEANING_ALERTS = frozenset({20, 21})
CARTRIDGE_ALERTS = frozenset({4, 7, 8, 13, 14, 15})
"""After these a cartridge is not written any more: its data is at risk, its life is over, it is not data grade, it broke, its memory chip failed."""
UNLOAD_TRIES = 2


class DriveActor:
    """The owner of one drive."""

    def __init__(
        self,
        drive_id: int,
        transport: ScsiTransport,
        recorder: Recorder,
        identity: TapeIdentity,
        ask_changer: Ask,
        *,
        on_change: Callable[[], None],
    ) -> None:
        self.drive_id = drive_id
        self.desk = Desk(drive_id)
        self.busy = False
        """A message is being carried out, or a stream changes cartridges."""
        self._drive = Drive(transport)
        self._recorder = recorder
        self._identity = identity
        self._ask_changer = ask_changer
        self._on_change = on_change
        self._turn = trio.Lock()
        self._identified: Identified | None = None
        self._mounts = self._failed_mounts = 0

    def __repr__(self) -> str:
        return f"<drive {self.drive_id} at {self._drive.name}: {'busy' if self.busy else 'idle'}, {self.desk!r}>"

    def statistics(self) -> DriveStatistics:
        return DriveStatistics(
            drive_id=self.drive_id,
            mounts=self._mounts,
            failed_mounts=self._failed_mounts,
            bytes_written=self.desk.bytes_written,
            bytes_read=self.desk.bytes_read,
            streams=len(self.desk.streams),
        )

    @property
    def entity(self) -> TapeDrive:
        drive = self._recorder.journal.state.find(TapeDrive, self.drive_id)
        if drive is None:
            raise NotFound(f"Drive {self.drive_id} is not in the library any more.")
        return drive

    async def aclose(self) -> None:
        """End the session, so that the cartridge says itself what is on it; it stays in the drive. Bounded by the caller."""
        session = self.desk.shut()
        if session is not None:
            try:
                await session.close()
            except RbError as error:
                _log.warning("drive %d: the session was not closed in order: %s", self.drive_id, error.message)
        await self._drive.aclose()

    # --- as an actor -------------------------------------------------------------------------------------------------------

    async def run(self, mailbox: Mailbox[Delivery]) -> None:
        while True:
            delivery = await mailbox.get()
            async with self._turn:
                self.busy = True
                try:
                    await serve(delivery, self._answer, f"Drive {self.drive_id}")
                finally:
                    self.busy = False
                    self._on_change()

    async def _answer(self, message: Any) -> Any:
        match message:
            case MountCartridge():
                return await self._mount(message)
            case DismountCartridge():
                return await self._dismount(message.reason)
            case EmptyDrive():
                return await self._empty(message.reason)
            case CarryOutOrder():
                return await self._order(message)
            case CleanDrive():
                return await self._clean(message)
            case ProbeDrive():
                return await self._probe()
        raise NotFound(f"A drive does not know {type(message).__name__}.")

    # --- mounting ----------------------------------------------------------------------------------------------------------

    async def _mount(self, order: MountCartridge) -> Mounted:
        if self.desk.cartridge_id:
            raise NotAllowedNow(f"Drive {self.drive_id} holds cartridge {self.desk.cartridge_id} already.")
        self.desk.failure = ""
        await self._recorder.intend(
            BeginMount(
                drive_id=self.drive_id,
                cartridge_id=order.cartridge_id,
                reason=order.reason,
                rejected=order.rejected,
                tape_task_id=order.tape_task_id,
            )
        )
        try:
            await self._bring(order)
        except RbError as error:
            return await self._mount_failed(order, error, "changer")
        try:
            await self._drive.load()
            identified = await identify(self._drive)
        except RbError as error:
            failed = await self._mount_failed(order, error, self._blame(error))
            await self._take_out_again()
            return failed
        self._identified = identified
        reply = await self._recorder.outcome(
            EndMount(drive_id=self.drive_id, cartridge_id=order.cartridge_id, found=found_facts(identified))
        )
        if not reply.data.get("usable"):
            self._failed_mounts += 1
            await self._take_out_again()
            return Mounted(usable=False, reason=str(reply.data.get("reason", "")))
        self._mounts += 1
        await self._ask_for_cleaning()
        return await self._open(order)

    async def _bring(self, order: MountCartridge) -> None:
        """Let the robot put the cartridge into this drive, unless it lies there."""
        slot = self._own_slot()
        if slot.cartridge_id != order.cartridge_id:
            await self._ask_changer(
                MoveCartridge(
                    cartridge_id=order.cartridge_id,
                    to_slot_id=slot.id,
                    reason=order.reason,
                    tape_task_id=order.tape_task_id,
                )
            )

    async def _open(self, order: MountCartridge) -> Mounted:
        """Label the cartridge when it is going to be written, and open it. For an operator's order it only is mounted."""
        identified = self._identified
        assert identified is not None, "the mount has looked"
        state = self._recorder.journal.state
        cartridge = state.find(TapeCartridge, order.cartridge_id)
        assert cartridge is not None, "mounted cartridges stay registered"
        if order.label and identified.write_protected:
            # The mount has recorded that: the next look chooses another one.
            await self._dismount("it is write protected")
            return Mounted(usable=False, reason=f"cartridge {cartridge.volume_tag} is write protected: move its switch")
        try:
            await self._drive.prevent_removal(True)
            if order.label:
                session = await label(self._drive, self._recorder, self._identity, cartridge, self.drive_id, identified)
            elif identified.contents in (Contents.NATIVE, Contents.LTFS) and cartridge.format:
                session = await open_session(self._drive, identified)
                await session.forget(await self._forgotten(await session.parts()))
            else:
                self.desk.cartridge_id = cartridge.id
                return Mounted(usable=True)
        except RbError as error:
            await self._blame_for(error, cartridge.id, "write" if order.label else "load")
            await self._dismount(f"it could not be opened: {error.message}")
            return Mounted(usable=False, reason=error.message)
        await self._note_what_it_takes(session, cartridge)
        self.desk.open(session, cartridge.id)
        return Mounted(usable=True)

    async def _note_what_it_takes(self, session: CartridgeSession, cartridge: TapeCartridge) -> None:
        """A cartridge that counts as appendable and is not would be chosen again and again."""
        if session.may_write or cartridge.status != CartridgeStatus.APPENDABLE:
            return
        if session.full:
            written = RecordCartridgeWritten(cartridge_id=cartridge.id, used_bytes=session.used_bytes, full=True)
            await self._recorder.outcome(written)
        elif session.identified.write_protected:
            _log.warning("drive %d: cartridge %s is write protected", self.drive_id, cartridge.volume_tag)
        else:
            reason = f"it cannot be appended to: {session.why_not}"
            await self._recorder.outcome(QuarantineCartridge(cartridge_id=cartridge.id, reason=reason))

    async def _forgotten(self, parts: list[tuple[bytes, Any]]) -> frozenset[bytes]:
        """Archives on the cartridge that nothing in the repository and no task under way names."""
        state = self._recorder.journal.state
        known = {bytes.fromhex(one.archive) for one in state.tables["backup"].values()}
        known |= {bytes.fromhex(one.archive) for one in state.active_tasks() if one.archive}
        return frozenset(archive for archive, _ in parts) - known

    async def _mount_failed(self, order: MountCartridge, error: RbError, blame: str) -> Mounted:
        self._failed_mounts += 1
        _log.warning("drive %d: cartridge %d was not mounted: %s", self.drive_id, order.cartridge_id, error.message)
        await self._recorder.outcome(
            EndMount(drive_id=self.drive_id, cartridge_id=order.cartridge_id, failure=error.message, blame=blame)
        )
        if blame == "drive":
            await self._recorder.outcome(CountDriveFailure(drive_id=self.drive_id, reason=error.message))
        return Mounted(usable=False, reason=error.message)

    async def _take_out_again(self, reason: str = "the mount did not work out") -> None:
        """What cannot be taken out stays, and its element says so."""
        self._identified = None
        try:
            await self._unload()
            await self._put_back(reason)
        except RbError as error:
            _log.warning("drive %d: what lies in it could not be taken out: %s", self.drive_id, error.message)

    # --- dismounting -------------------------------------------------------------------------------------------------------

    async def _dismount(self, reason: str) -> None:
        session = self.desk.shut()
        cartridge_id = self.entity.cartridge_id
        self._identified = None
        await self._recorder.intend(BeginDismount(drive_id=self.drive_id, reason=reason))
        failure, blame = "", ""
        if session is not None:
            try:
                await session.close()
            except RbError as error:
                # What was ended on it is findable all the same; the next session writes the index anew.
                await self._blame_for(error, cartridge_id, "write")
                failure, blame = error.message, self._blame(error)
        try:
            await self._note_alerts(cartridge_id)
            await self._unload()
            await self._put_back(reason)
        except RbError as error:
            failure, blame = error.message, self._blame(error)
        await self._recorder.outcome(EndDismount(drive_id=self.drive_id, failure=failure, blame=blame))
        if failure and blame == "drive":
            await self._recorder.outcome(CountDriveFailure(drive_id=self.drive_id, reason=failure))

    async def _note_alerts(self, cartridge_id: int) -> None:
        """What drive and cartridge have to say for themselves (TapeAlert) while they still know of each other."""
        if self._drive.lacks(LOG_SENSE):
            return
        try:
            alerts = await self._drive.tape_alerts()
        except (Refused, UnsupportedByDevice):
            return
        for number in sorted(alerts):
            _log.warning(
                "drive %d, cartridge %d: %s", self.drive_id, cartridge_id, TAPE_ALERTS.get(number, f"alert {number}")
            )
        wishes = sorted(alerts & CLEANING_ALERTS)
        if wishes and not self.entity.cleaning_required:
            await self._recorder.outcome(AskDriveCleaning(drive_id=self.drive_id, reason=TAPE_ALERTS[wishes[0]]))
        for number in sorted(alerts & CARTRIDGE_ALERTS):
            if cartridge_id:
                reason = f"the drive says: {TAPE_ALERTS[number]}"
                await self._recorder.outcome(QuarantineCartridge(cartridge_id=cartridge_id, reason=reason))

    async def _unload(self) -> None:
        for attempt in range(UNLOAD_TRIES):
            try:
                await self._drive.prevent_removal(False)
                await self._drive.unload()
            except NoCartridge:
                return
            except (Unavailable, NotAllowedNow) as error:
                if attempt + 1 == UNLOAD_TRIES or isinstance(error, HardwareFailed):
                    raise
                _log.info("drive %d: unloading is tried again: %s", self.drive_id, error.message)
                if isinstance(error, DeviceNotReady):
                    with suppress(DeviceNotReady, NoCartridge):
                        await self._drive.wait_ready(UNLOAD_SECONDS_MAX)
            else:
                return

    async def _put_back(self, reason: str) -> None:
        """Into the slot it came from, or another free one."""
        slot = self._own_slot()
        if not slot.is_full:
            return
        target = self._free_slot(slot.cartridge_id)
        if slot.cartridge_id:
            order = MoveCartridge(cartridge_id=slot.cartridge_id, to_slot_id=target.id, reason=reason)
            await self._ask_changer(order)
        else:
            await self._ask_changer(
                MoveUnknown(
                    from_address=slot.address, to_address=target.address, reason=f"drive {self.drive_id}: {reason}"
                )
            )

    def _own_slot(self) -> LibrarySlot:
        drive, state = self.entity, self._recorder.journal.state
        slot = state.by_key(LibrarySlot, (drive.library_id, drive.element_address))
        if slot is None or slot.type != SlotType.DRIVE:
            raise NotFound(
                f"Drive {drive.id} says that it sits at element {drive.element_address}, which is no drive element of library "
                f"{drive.library_id}: set its sys_transfer_element."
            )
        return slot

    def _free_slot(self, cartridge_id: int) -> LibrarySlot:
        state = self._recorder.journal.state
        library_id = self.entity.library_id
        cartridge = state.find(TapeCartridge, cartridge_id)
        home = state.find(LibrarySlot, cartridge.home_slot_id) if cartridge is not None else None
        coming = {one.moving_to_slot_id for one in state.all(TapeCartridge)}
        if home is not None and home.library_id == library_id and not home.is_full and home.id not in coming:
            return home
        for number in sorted(state.indexes.slots_of_library.get(library_id, ())):
            slot = state.find(LibrarySlot, number)
            if slot is not None and slot.type == SlotType.STORAGE and not slot.is_full and slot.id not in coming:
                return slot
        raise NotAllowedNow(
            f"No storage slot of library {library_id} is free for the cartridge in drive {self.drive_id}: export one."
        )

    async def _empty(self, reason: str) -> None:
        """What lies in the drive although nothing is mounted (a start, a failure, hands)."""
        if self.desk.cartridge_id:
            raise NotAllowedNow(f"Drive {self.drive_id} has a cartridge mounted; it is dismounted, not emptied.")
        try:
            await self._unload()
        except RbError as error:
            await self._recorder.outcome(CountDriveFailure(drive_id=self.drive_id, reason=error.message))
            raise
        try:
            await self._put_back(reason)
        except RbError:
            await self._ask_changer(ReadInventory(reason=f"drive {self.drive_id} could not be emptied"))
            raise

    # --- what a sink needs -------------------------------------------------------------------------------------------------

    def choose_next(self, pool_id: int) -> Next:
        state, drive = self._recorder.journal.state, self.entity
        mounted = [
            state.tables[TapeDrive.KIND][one].cartridge_id for one in state.indexes.drives_of_library[drive.library_id]
        ]
        chosen = media.choose_for_writing(state, drive.library_id, pool_id, taken={*mounted, self.desk.cartridge_id})
        if chosen.cartridge is None:
            return Next(0, "", " ".join([chosen.reason, *chosen.rejected]), label=False)
        reason = chosen.reason.removeprefix(f"cartridge {chosen.cartridge.volume_tag} ")
        return Next(chosen.cartridge.id, chosen.cartridge.volume_tag, reason, chosen.relabel)

    async def change_to(self, chosen: Next, reason: str) -> None:
        """Within a stream's turn. Raises ``NotAllowedNow`` when the next cartridge cannot be mounted: the streams end, and try again."""
        async with self._turn:
            self.busy = True
            try:
                await self._dismount(reason)
                order = MountCartridge(cartridge_id=chosen.cartridge_id, reason=reason, label=chosen.label)
                mounted = await self._mount(order)
            finally:
                self.busy = False
                self._on_change()
        if not mounted.usable:
            raise NotAllowedNow(f"Cartridge {chosen.volume_tag} could not be mounted: {mounted.reason}")

    async def writing_failed(self, error: RbError) -> None:
        cartridge_id = self.desk.cartridge_id
        _log.error("drive %d: writing to cartridge %d failed: %s", self.drive_id, cartridge_id, error.message)
        await self._blame_for(error, cartridge_id, "write")
        self._on_change()

    async def reading_failed(self, error: RbError) -> None:
        _log.error("drive %d: reading failed: %s", self.drive_id, error.message)
        await self._blame_for(error, self.desk.cartridge_id, "read")
        if self._blame(error) == "drive":
            self.desk.failure = self.desk.failure or error.message
        self._on_change()

    # --- orders ------------------------------------------------------------------------------------------------------------

    async def _order(self, message: CarryOutOrder) -> str:
        identified = self._identified
        session = self.desk.session
        if session is not None:
            await session.close()
            self.desk.session = None
        if identified is None:
            raise Unavailable(f"Drive {self.drive_id} has no cartridge mounted any more.")
        try:
            return await carry_out(
                self._drive, self._recorder, self._identity, message.tape_task_id, self.drive_id, identified
            )
        except RbError as error:
            if self._blame(error) == "drive":
                await self._recorder.outcome(CountDriveFailure(drive_id=self.drive_id, reason=error.message))
            raise
        finally:
            await self._dismount("the order was carried out")

    async def _clean(self, message: CleanDrive) -> None:
        """The drive does it by itself once the cartridge is in; how it ended shows when it is out."""
        await self._recorder.intend(
            SetDriveStatus(
                drive_id=self.drive_id, status=DriveStatus.CLEANING, reason=f"tape task {message.tape_task_id}"
            )
        )
        slot = self._own_slot()
        reason = f"drive {self.drive_id} is cleaned (tape task {message.tape_task_id})"
        try:
            await self._ask_changer(
                MoveCartridge(
                    cartridge_id=message.cartridge_id,
                    to_slot_id=slot.id,
                    reason=reason,
                    tape_task_id=message.tape_task_id,
                )
            )
            await wait_cleaned(self._drive, CLEANING_SECONDS_MAX)
        except RbError as error:
            await self._recorder.outcome(
                CountCartridgeError(cartridge_id=message.cartridge_id, kind="load", reason=error.message)
            )
            await self._take_out_again()
            await self._recorder.outcome(
                SetDriveStatus(drive_id=self.drive_id, status=DriveStatus.FREE, reason=error.message)
            )
            raise
        await self._take_out_again("the drive is clean")
        await self._recorder.outcome(RecordDriveCleaned(drive_id=self.drive_id, cartridge_id=message.cartridge_id))
        await self._recorder.outcome(SetDriveStatus(drive_id=self.drive_id, status=DriveStatus.FREE, reason="cleaned"))

    async def _probe(self) -> None:
        """Also after it was silent: it is free again when it answers. Raises what the drive does."""
        try:
            facts = await facts_of_drive(self._drive, self.entity)
        except RbError as error:
            await self._recorder.outcome(CountDriveFailure(drive_id=self.drive_id, reason=error.message))
            raise
        await self._recorder.outcome(RecordDriveFacts(drive_id=self.drive_id, facts=facts))
        if self.entity.status == DriveStatus.OFFLINE:
            await self._recorder.outcome(
                SetDriveStatus(drive_id=self.drive_id, status=DriveStatus.FREE, reason="it answers again")
            )

    # --- blame -------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _blame(error: RbError) -> str:
        """Whose fault it looks like. A write-protected or full cartridge is nobody's."""
        if isinstance(error, WriteProtected | EndOfMedium | PositionLost):
            return ""
        if isinstance(error, Damaged | NoCartridge | CleaningRequired):
            return "drive" if isinstance(error, CleaningRequired) else "cartridge"
        if isinstance(error, HardwareFailed | DeviceNotReady | DeadlineExceeded | Unavailable):
            return "drive"
        return ""

    async def _blame_for(self, error: RbError, cartridge_id: int, kind: str) -> None:
        blame = self._blame(error)
        if blame == "cartridge" and cartridge_id:
            await self._recorder.outcome(
                CountCartridgeError(cartridge_id=cartridge_id, kind=kind, reason=error.message)
            )
        elif blame == "drive":
            await self._recorder.outcome(CountDriveFailure(drive_id=self.drive_id, reason=error.message))
        if isinstance(error, CleaningRequired):
            await self._recorder.outcome(AskDriveCleaning(drive_id=self.drive_id, reason=error.message))

    async def _ask_for_cleaning(self) -> None:
        if self._drive.cleaning_required and not self.entity.cleaning_required:
            self._drive.cleaning_required = False
            await self._recorder.outcome(
                AskDriveCleaning(drive_id=self.drive_id, reason="the drive said so in its sense data")
            )
