"""Tape drives: mounts and dismounts, whose fault a failure was, cleaning.

A mount is an intent (``BeginMount``), a look at the cartridge, and a judgement (``EndMount``): only a cartridge that is the one the log means, or is
blank where the log expects nothing, becomes mounted. Whatever else came out is taken out again and is quarantined, so that nothing is ever written
over data that the log does not know, and nothing is read from the wrong tape. An operator's Format, Erase or Check LTFS may mount anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rbcore.commands import (
    AskDriveCleaning,
    BeginDismount,
    BeginMount,
    CartridgeFacts,
    Command,
    Context,
    CountDriveFailure,
    EndDismount,
    EndMount,
    RecordDriveCleaned,
    RecordDriveFacts,
    SetDriveStatus,
)
from rbcore.decide.decision import Decision, Draft, bounded, get
from rbcore.decide.tape_cartridges import count_error, quarantine
from rbcore.entities import LibrarySlot, MediaServer, TapeCartridge, TapeDrive, TapeTask
from rbcore.errors import InvalidRequest, NotAllowedNow
from rbcore.events import (
    CartridgeErrorCounted,
    CartridgeIdentified,
    DriveCleaned,
    DriveCleaningAsked,
    DriveDismountBegun,
    DriveDismounted,
    DriveFactsFound,
    DriveMountBegun,
    DriveMounted,
    DriveMountFailed,
    DriveStatusChanged,
)
from rbcore.media import drive_with, why_kept, why_unreachable
from rbcore.state import State
from rbcore.tape.session import Contents
from rbcore.tape.vol1 import volume_identifier
from rbcore.vocabulary import DRIVE_STATUSES, CartridgeStatus, DriveStatus, TapeTaskType

DRIVE_FAILURES_MAX: Final = 5
"""In a row, without a mount that succeeded: then it is quarantined. A drive that is restarted or cabled anew is silent for less."""
BLAMES: Final = ("", "cartridge", "drive", "changer")
_OVERWRITING: Final = frozenset({TapeTaskType.FORMAT, TapeTaskType.ERASE})
_ORDERS: Final = _OVERWRITING | {TapeTaskType.CHECK_LTFS}
"""They may mount whatever is on the cartridge."""
_LABELLED: Final = frozenset({str(Contents.NATIVE), str(Contents.LTFS)})


# --- mounting --------------------------------------------------------------------------------------------------------------


def begin_mount(state: State, command: BeginMount, context: Context) -> Decision:
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    purpose = get(state, TapeTask, command.tape_task_id, "tape task").task_type if command.tape_task_id else ""
    why = _why_drive_not(state, drive, cartridge) or _why_cartridge_not(state, drive, cartridge, purpose)
    if why:
        raise NotAllowedNow(f"Cartridge {cartridge.volume_tag} is not mounted in drive {drive.id}: {why}.")
    draft = Draft(state)
    reason = bounded([command.reason])[0]
    event = DriveMountBegun(cartridge.id, reason, bounded(command.rejected), command.tape_task_id)
    draft.add(TapeDrive, drive.id, event)
    return draft.decision(ids=[drive.id])


def _why_drive_not(state: State, drive: TapeDrive, cartridge: TapeCartridge) -> str:
    if drive.cartridge_id:
        return f"the drive has cartridge {drive.cartridge_id} mounted, or is mounting or dismounting it"
    if drive.status != DriveStatus.FREE:
        return f"the drive is {drive.status}: {drive.status_reason}"
    slot = state.by_key(LibrarySlot, (drive.library_id, drive.element_address))
    if slot is not None and slot.is_full and slot.cartridge_id != cartridge.id:
        return f"{slot.volume_tag or 'a cartridge without a bar code'} lies in the drive"
    return ""


def _why_cartridge_not(state: State, drive: TapeDrive, cartridge: TapeCartridge, purpose: str) -> str:
    why = why_unreachable(state, cartridge.id)
    if why:
        return why
    if cartridge.library_id != drive.library_id:
        return f"it is in library {cartridge.library_id}, and the drive in library {drive.library_id}"
    if cartridge.moving_to_slot_id:
        return "it is on its way, and nobody knows how that ended: synchronise the library"
    other = drive_with(state, cartridge.id)
    if other is not None:
        return f"it is mounted in drive {other.id}"
    if cartridge.status == CartridgeStatus.CLEANING:
        return "it cleans drives"
    if cartridge.intent and purpose not in _ORDERS:
        return f"nobody knows how its last {cartridge.intent} ended: format or erase it"
    if purpose == TapeTaskType.WRITE and cartridge.status == CartridgeStatus.QUARANTINED:
        return f"it is quarantined ({cartridge.status_reason})"
    return ""


def end_mount(state: State, command: EndMount, context: Context) -> Decision:
    """See the module. A report about a mount that is not under way any more changes nothing."""
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    if command.blame not in BLAMES:
        raise InvalidRequest(
            f"'{command.blame}' is nobody's name: one of {', '.join(BLAMES[1:])} is expected, or nothing."
        )
    draft = Draft(state)
    if drive.cartridge_id != cartridge.id or not drive.mounting or drive.mounted_ns:
        is_mounted = drive.cartridge_id == cartridge.id and not drive.mounting and not command.failure
        reason = "" if is_mounted else f"the mount was given up: {drive.status_reason}"
        return draft.decision(ids=[drive.id], data={"usable": is_mounted, "reason": reason})
    if command.failure:
        draft.add(TapeDrive, drive.id, DriveMountFailed(cartridge.id, bounded([command.failure])[0]))
        if command.blame == "cartridge":
            count_error(draft, cartridge, "load", command.failure)
        return draft.decision(ids=[drive.id], data={"usable": False, "reason": command.failure})
    if command.found is None:
        raise InvalidRequest("A mount ends with what was found on the cartridge, or with a failure.")
    usable, reason = _judge(draft, drive, cartridge, command.found)
    return draft.decision(ids=[drive.id], data={"usable": usable, "reason": reason})


def _judge(draft: Draft, drive: TapeDrive, cartridge: TapeCartridge, found: CartridgeFacts) -> tuple[bool, str]:
    """Add what follows from the look. Whether the cartridge may be used, and why it is not what it should be."""
    state = draft.state
    task = state.find(TapeTask, drive.mount_task_id)
    purpose = task.task_type if task is not None else ""
    wrong = _why_other(state, cartridge, found)
    renamed = "" if wrong else _why_renamed(cartridge, found)
    usable = purpose in _ORDERS or not (wrong or (renamed and purpose != TapeTaskType.READ))
    if not wrong or purpose not in _OVERWRITING:  # what an order that may not come does not end stays unknown
        _identify(draft, cartridge, found, is_other=bool(wrong))
    if (wrong or renamed) and purpose not in _OVERWRITING:
        if found.contents == Contents.UNREADABLE and not usable:
            draft.add(TapeCartridge, cartridge.id, CartridgeErrorCounted("load", bounded([wrong])[0]))
        quarantine(draft, cartridge, wrong or renamed)
    if usable:
        draft.add(TapeDrive, drive.id, DriveMounted(cartridge.id))
    else:
        draft.add(TapeDrive, drive.id, DriveMountFailed(cartridge.id, bounded([wrong or renamed])[0]))
    return usable, wrong or renamed


def _why_other(state: State, cartridge: TapeCartridge, found: CartridgeFacts) -> str:
    """Why this is not the cartridge that the log means; empty when it is, or is as blank as it should be."""
    tag, kept = f"cartridge {cartridge.volume_tag}", why_kept(state, cartridge)
    detail = f" ({found.detail.rstrip('.')})" if found.detail else ""
    loss = f". BEWARE: {kept}" if kept else ""
    match found.contents:
        case Contents.UNREADABLE:
            return f"the beginning of {tag} cannot be read{detail}{loss}"
        case Contents.BLANK:
            if kept:
                return f"{tag} IS BLANK although {kept}: somebody erased it elsewhere, or another cartridge has its bar code. Find the right one"
            if cartridge.format and cartridge.status == CartridgeStatus.APPENDABLE:
                return f"{tag} is blank although something was written to it: erase or format it to use it again"
            return ""
        case Contents.NATIVE | Contents.LTFS:
            if cartridge.format:
                expected = (cartridge.format, cartridge.label_id, cartridge.use)
                if (found.contents, found.label_id, found.use) == expected:
                    return ""
                return (
                    f"what lies there as {tag} is another cartridge, or was labelled elsewhere: its label is {_named(found)}, the log has "
                    f"{cartridge.format} {cartridge.label_id}, use {cartridge.use}{loss}"
                )
            return _why_unknown(state, cartridge, found)
        case Contents.FOREIGN:
            return f"{tag} holds data of another program{detail}: erase or format it if they may go{loss}"
    return f"nobody knows what is on {tag}: '{found.contents}'"


def _named(found: CartridgeFacts) -> str:
    tag = f", tag {found.volume_tag}" if found.volume_tag else ""
    return f"{found.contents} {found.label_id}, use {found.use}{tag}"


def _why_unknown(state: State, cartridge: TapeCartridge, found: CartridgeFacts) -> str:
    """It has a label, and the log knows of none."""
    tag = f"cartridge {cartridge.volume_tag}"
    way_out = "erase or format it, or read it with rbmedia tape scan"
    if found.contents == Contents.LTFS:
        return f"{tag} holds an LTFS volume that the log does not know ({_named(found)}); {way_out}"
    if any(found.server == one.hwid for one in state.all(MediaServer)):
        return f"{tag} holds archives of this server that the log does not know; {way_out}"
    return f"{tag} holds archives of another server ({found.server or 'without a name'}); {way_out}"


def _why_renamed(cartridge: TapeCartridge, found: CartridgeFacts) -> str:
    """Its own label says another tag: what is on it is what the log means, but the bar codes cannot be trusted."""
    if found.contents not in _LABELLED or not found.volume_tag:
        return ""
    short = volume_identifier(cartridge.volume_tag)
    expected = short if found.contents == Contents.LTFS else cartridge.volume_tag
    if not expected or found.volume_tag == expected:
        return ""
    return f"cartridge {cartridge.volume_tag} says on its own label that it is {found.volume_tag}: look at its bar code"


def _identify(draft: Draft, cartridge: TapeCartridge, found: CartridgeFacts, *, is_other: bool) -> None:
    """Record what differs. The identity that archives of the repository depend on is never given up for that of another cartridge."""
    if is_other and why_kept(draft.state, cartridge):
        return
    has_label = found.contents in _LABELLED
    told = (found.contents if has_label else "", found.label_id, found.use, found.write_protected)
    known = (cartridge.format, cartridge.label_id, cartridge.use, cartridge.write_protected)
    if told != known:
        event = CartridgeIdentified(
            str(found.contents),
            found.label_id,
            found.use,
            found.write_protected,
            bounded([found.detail])[0],
        )
        draft.add(TapeCartridge, cartridge.id, event)


# --- dismounting -----------------------------------------------------------------------------------------------------------


def begin_dismount(state: State, command: BeginDismount, context: Context) -> Decision:
    """Where nothing is mounted (any more), or a dismount is under way, there is nothing to record."""
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    draft = Draft(state)
    if drive.cartridge_id and not drive.mounted_ns:
        raise NotAllowedNow(f"Drive {drive.id} is mounting cartridge {drive.cartridge_id}: that ends first.")
    if drive.cartridge_id and not drive.mounting:
        draft.add(TapeDrive, drive.id, DriveDismountBegun(drive.cartridge_id, bounded([command.reason])[0]))
    return draft.decision(ids=[drive.id])


def end_dismount(state: State, command: EndDismount, context: Context) -> Decision:
    """Whatever failed, nothing is mounted for anybody from here on; where the cartridge lies is for the inventory to say."""
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    if command.blame not in BLAMES:
        raise InvalidRequest(
            f"'{command.blame}' is nobody's name: one of {', '.join(BLAMES[1:])} is expected, or nothing."
        )
    draft = Draft(state)
    if drive.cartridge_id:
        cartridge = state.find(TapeCartridge, drive.cartridge_id)
        draft.add(TapeDrive, drive.id, DriveDismounted(drive.cartridge_id, bounded([command.failure])[0]))
        if command.failure and command.blame == "cartridge" and cartridge is not None:
            count_error(draft, cartridge, "load", command.failure)
    return draft.decision(ids=[drive.id])


# --- the drive itself ------------------------------------------------------------------------------------------------------


def set_status(state: State, command: SetDriveStatus, context: Context) -> Decision:
    """The same again changes nothing. A drive with a cartridge is busy, not free; a quarantined one is freed, not put offline."""
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    status = command.status
    if status not in DRIVE_STATUSES:
        raise InvalidRequest(f"'{status}' is not one of {', '.join(DRIVE_STATUSES)}.")
    if status == DriveStatus.CLEANING and status != drive.status:
        if drive.cartridge_id:
            raise NotAllowedNow(f"Drive {drive.id} is not cleaned now: cartridge {drive.cartridge_id} is in it.")
        if drive.status != DriveStatus.FREE:
            raise NotAllowedNow(f"Drive {drive.id} is not cleaned now: it is {drive.status}, {drive.status_reason}.")
    if status in (DriveStatus.FREE, DriveStatus.BUSY):
        status = DriveStatus.BUSY if drive.cartridge_id else DriveStatus.FREE
    if drive.status == DriveStatus.ERROR and status == DriveStatus.OFFLINE:
        status = DriveStatus.ERROR
    draft = Draft(state)
    if status != drive.status:
        draft.add(TapeDrive, drive.id, DriveStatusChanged(status, bounded([command.reason])[0]))
    return draft.decision(ids=[drive.id], data={"status": status})


def count_failure(state: State, command: CountDriveFailure, context: Context) -> Decision:
    """Offline, to be asked again; after too many in a row quarantined. The fold counts."""
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    draft = Draft(state)
    status = drive.status
    if status != DriveStatus.ERROR:
        status, reason, count = DriveStatus.OFFLINE, command.reason, drive.failures + 1
        if count >= DRIVE_FAILURES_MAX:
            status, reason = DriveStatus.ERROR, f"{count} failures in a row; the last: {command.reason}"
        draft.add(TapeDrive, drive.id, DriveStatusChanged(status, bounded([reason])[0]))
    return draft.decision(ids=[drive.id], data={"status": status})


def record_facts(state: State, command: RecordDriveFacts, context: Context) -> Decision:
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    facts = command.facts
    told = (facts.vendor, facts.product, facts.revision, facts.serial, facts.partitions_max, tuple(facts.lacks))
    known = (drive.vendor, drive.product, drive.revision, drive.serial, drive.partitions_max, drive.lacks)
    draft = Draft(state)
    if told != known:
        event = DriveFactsFound(
            facts.vendor, facts.product, facts.revision, facts.serial, facts.partitions_max, list(facts.lacks)
        )
        draft.add(TapeDrive, drive.id, event)
    return draft.decision(ids=[drive.id])


def ask_cleaning(state: State, command: AskDriveCleaning, context: Context) -> Decision:
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    draft = Draft(state)
    if not drive.cleaning_required:
        draft.add(TapeDrive, drive.id, DriveCleaningAsked(bounded([command.reason])[0]))
    return draft.decision(ids=[drive.id])


def record_cleaned(state: State, command: RecordDriveCleaned, context: Context) -> Decision:
    drive = get(state, TapeDrive, command.drive_id, "tape drive")
    draft = Draft(state)
    draft.add(TapeDrive, drive.id, DriveCleaned(command.cartridge_id))
    return draft.decision(ids=[drive.id])


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    BeginMount: begin_mount,
    EndMount: end_mount,
    BeginDismount: begin_dismount,
    EndDismount: end_dismount,
    SetDriveStatus: set_status,
    CountDriveFailure: count_failure,
    RecordDriveFacts: record_facts,
    AskDriveCleaning: ask_cleaning,
    RecordDriveCleaned: record_cleaned,
}
