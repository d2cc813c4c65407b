"""Cartridges in drives: labelling, erasing, what was written, and when one is not trusted any more.

A cartridge is judged by what went wrong with it. Drives retry by themselves for a long time before they report a medium error, and a dirty drive
reports them of sound cartridges; so one error is a hint and a few are a verdict. Quarantined means: nothing is written to it, what is on it
can be read (``rbcore.media``), until an operator formats or erases it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rbcore.commands import (
    BeginErasing,
    BeginLabelling,
    Command,
    Context,
    CountCartridgeError,
    EndErasing,
    EndLabelling,
    QuarantineCartridge,
    RecordCartridgeWritten,
)
from rbcore.decide.decision import Decision, Draft, bounded, get
from rbcore.entities import TapeCartridge, TapeDrive
from rbcore.errors import InvalidRequest, NotAllowedNow, Refused
from rbcore.events import (
    CartridgeErased,
    CartridgeErasingBegun,
    CartridgeErrorCounted,
    CartridgeLabelled,
    CartridgeLabellingBegun,
    CartridgeStatusChanged,
    CartridgeWritten,
)
from rbcore.media import why_kept
from rbcore.state import State
from rbcore.tape.barcode import can_partition, is_worm
from rbcore.tape.session import CartridgeFormat
from rbcore.vocabulary import CartridgeStatus

WRITE_ERRORS_MAX: Final = 3
"""In its life. After the first the cartridge takes no more until it is labelled anew, because what stands behind the place of the error is in
doubt; the next archive goes to another one. The third ends it: three drives' worth of retries are not all dirt."""
READ_ERRORS_MAX: Final = 3
"""In its life. Only writing ends with them: what is on it is still read, from wherever it can be."""
LOAD_ERRORS_MAX: Final = 3
"""In a row: a cartridge that loads well in between was not the cause."""
_MAX: Final = {"read": READ_ERRORS_MAX, "write": WRITE_ERRORS_MAX, "load": LOAD_ERRORS_MAX}


# --- trust -----------------------------------------------------------------------------------------------------------------


def quarantine(draft: Draft, cartridge: TapeCartridge, reason: str) -> None:
    """Nothing new changes nothing. A cleaning cartridge stays one: it is never written."""
    text = bounded([reason])[0]
    if cartridge.status == CartridgeStatus.CLEANING:
        return
    if cartridge.status != CartridgeStatus.QUARANTINED or cartridge.status_reason != text or cartridge.intent:
        draft.add(TapeCartridge, cartridge.id, CartridgeStatusChanged(CartridgeStatus.QUARANTINED, text))


def count_error(draft: Draft, cartridge: TapeCartridge, kind: str, reason: str) -> None:
    """One more error, and what follows from it. ``kind``: ``read``, ``write`` or ``load``."""
    text = bounded([reason])[0]
    draft.add(TapeCartridge, cartridge.id, CartridgeErrorCounted(kind, text))
    count = getattr(cartridge, f"{kind}_errors") + 1
    if cartridge.status in (CartridgeStatus.QUARANTINED, CartridgeStatus.CLEANING):
        return
    if count >= _MAX[kind]:
        in_a_row = " in a row" if kind == "load" else ""
        quarantine(draft, cartridge, f"{count} {kind} errors{in_a_row}; the last: {reason}")
    elif kind == "write" and cartridge.status == CartridgeStatus.APPENDABLE:
        why = bounded([f"it takes no more after a write error: {reason}"])[0]
        draft.add(TapeCartridge, cartridge.id, CartridgeStatusChanged(CartridgeStatus.FULL, why))


def count_cartridge_error(state: State, command: CountCartridgeError, context: Context) -> Decision:
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    if command.kind not in _MAX:
        raise InvalidRequest(f"'{command.kind}' is not one of {', '.join(_MAX)}.")
    draft = Draft(state)
    count_error(draft, cartridge, command.kind, command.reason)
    return draft.decision(ids=[cartridge.id])


def quarantine_cartridge(state: State, command: QuarantineCartridge, context: Context) -> Decision:
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    draft = Draft(state)
    quarantine(draft, cartridge, command.reason)
    return draft.decision(ids=[cartridge.id])


# --- labelling and erasing -------------------------------------------------------------------------------------------------


def _to_be_overwritten(state: State, cartridge_id: int, drive_id: int, verb: str) -> tuple[TapeCartridge, TapeDrive]:
    """A cartridge whose contents may end, in the drive that is going to do it. Raises ``Refused`` while something on it must stay."""
    cartridge = get(state, TapeCartridge, cartridge_id, "tape cartridge")
    drive = get(state, TapeDrive, drive_id, "tape drive")
    kept = why_kept(state, cartridge)
    if kept:
        raise Refused(f"Cartridge {cartridge.volume_tag} cannot be {verb}: {kept}. Delete them first.")
    if cartridge.status == CartridgeStatus.CLEANING:
        raise Refused(f"Cartridge {cartridge.volume_tag} cannot be {verb}: it cleans drives.")
    if drive.cartridge_id != cartridge.id or drive.mounting:
        raise NotAllowedNow(
            f"Cartridge {cartridge.volume_tag} cannot be {verb}: it is not mounted in drive {drive.id}."
        )
    return cartridge, drive


def begin_labelling(state: State, command: BeginLabelling, context: Context) -> Decision:
    formats = [str(one) for one in CartridgeFormat]
    if command.format not in formats:
        raise InvalidRequest(f"'{command.format}' is not one of {', '.join(formats)}.")
    cartridge, drive = _to_be_overwritten(state, command.cartridge_id, command.drive_id, "labelled")
    if command.format == CartridgeFormat.LTFS:
        if not can_partition(cartridge.type):
            raise Refused(f"Cartridge {cartridge.volume_tag} is {cartridge.type}, and LTFS needs LTO-5 or newer.")
        if drive.partitions_max < 2:
            raise Refused(f"Drive {drive.id} cannot partition cartridges, which LTFS needs: use a Native pool with it.")
    draft = Draft(state)
    event = CartridgeLabellingBegun(command.format, drive.id, bounded([command.reason])[0])
    draft.add(TapeCartridge, cartridge.id, event)
    return draft.decision(ids=[cartridge.id])


def end_labelling(state: State, command: EndLabelling, context: Context) -> Decision:
    """A repeat changes nothing."""
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    draft = Draft(state)
    if command.failure:
        if cartridge.intent:
            quarantine(draft, cartridge, f"labelling failed: {command.failure}")
        return draft.decision(ids=[cartridge.id])
    told = (command.format, command.label_id, command.use)
    if cartridge.intent == "label":
        draft.add(TapeCartridge, cartridge.id, CartridgeLabelled(*told, command.capacity_bytes))
    elif told != (cartridge.format, cartridge.label_id, cartridge.use):
        raise NotAllowedNow(f"Nobody began to label cartridge {cartridge.volume_tag}.")
    return draft.decision(ids=[cartridge.id])


def begin_erasing(state: State, command: BeginErasing, context: Context) -> Decision:
    cartridge, drive = _to_be_overwritten(state, command.cartridge_id, command.drive_id, "erased")
    if is_worm(cartridge.volume_tag):
        raise Refused(f"Cartridge {cartridge.volume_tag} cannot be erased: it is written only once.")
    if command.is_long and "ERASE" in drive.lacks:
        raise Refused(
            f"Cartridge {cartridge.volume_tag} cannot be overwritten: drive {drive.id} has no ERASE. Order a short erase, or use "
            "another drive."
        )
    draft = Draft(state)
    event = CartridgeErasingBegun(command.is_long, drive.id, bounded([command.reason])[0])
    draft.add(TapeCartridge, cartridge.id, event)
    return draft.decision(ids=[cartridge.id])


def end_erasing(state: State, command: EndErasing, context: Context) -> Decision:
    """A repeat changes nothing."""
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    draft = Draft(state)
    if command.failure:
        if cartridge.intent:
            quarantine(draft, cartridge, f"erasing failed: {command.failure}")
    elif cartridge.intent == "erase":
        draft.add(TapeCartridge, cartridge.id, CartridgeErased(command.is_long))
    elif cartridge.format:
        raise NotAllowedNow(f"Nobody began to erase cartridge {cartridge.volume_tag}.")
    return draft.decision(ids=[cartridge.id])


# --- writing ---------------------------------------------------------------------------------------------------------------


def record_written(state: State, command: RecordCartridgeWritten, context: Context) -> Decision:
    """A part was ended. A cartridge that is full stays full, whoever reports later."""
    cartridge = get(state, TapeCartridge, command.cartridge_id, "tape cartridge")
    if cartridge.intent or cartridge.status == CartridgeStatus.CLEANING:
        what = f"its last {cartridge.intent} has not ended" if cartridge.intent else "it cleans drives"
        raise NotAllowedNow(f"Nothing can have been written to cartridge {cartridge.volume_tag}: {what}.")
    if command.used_bytes < 0:
        raise InvalidRequest("used_bytes: it is not negative.")
    full = command.full or cartridge.status == CartridgeStatus.FULL
    draft = Draft(state)
    draft.add(TapeCartridge, cartridge.id, CartridgeWritten(command.used_bytes, full, command.task_id))
    return draft.decision(ids=[cartridge.id])


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    BeginLabelling: begin_labelling,
    EndLabelling: end_labelling,
    BeginErasing: begin_erasing,
    EndErasing: end_erasing,
    RecordCartridgeWritten: record_written,
    CountCartridgeError: count_cartridge_error,
    QuarantineCartridge: quarantine_cartridge,
}
