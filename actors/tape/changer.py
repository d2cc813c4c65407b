"""The actor of a changer: the only one who moves its robot. ``changer/<library id>@<host>``.

Every move is an intent, the move, and its outcome. After anything but a clean success the element status is read and recorded: it never guesses
where a cartridge is.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from actors.bus import Delivery
from actors.mailbox import Mailbox
from actors.tape.messages import ChangerStatistics, Inventory, LibraryReport, MoveCartridge, MoveUnknown, ReadInventory
from actors.tape.recording import Recorder
from actors.tape.serving import serve
from drivers.scsi.changer import Changer, Element, ElementType
from drivers.scsi.sense import Attention
from rbcore.commands import BeginMove, DeviceFacts, ElementFacts, EndMove, RecordInventory
from rbcore.entities import LibrarySlot, TapeCartridge
from rbcore.errors import HardwareFailed, NotAllowedNow, NotFound, RbError, Unavailable
from rbcore.scsi import ScsiTransport
from rbcore.vocabulary import SlotType

_log = logging.getLogger(__name__)

T = TypeVar("T")

_TYPES = {
    ElementType.STORAGE: SlotType.STORAGE,
    ElementType.IMPORT_EXPORT: SlotType.IMPORT_EXPORT,
    ElementType.DRIVE: SlotType.DRIVE,
}
_TOUCHED = frozenset(
    {Attention.MEDIUM_CHANGED, Attention.IMPORT_EXPORT_ACCESSED, Attention.MAGAZINE_CHANGED, Attention.RESET}
)
LOOK_SECONDS = 900.0
"""How often an idle changer is asked whether hands were in it."""


class ChangerActor:
    """The owner of one changer."""

    def __init__(
        self,
        library_id: int,
        transport: ScsiTransport,
        recorder: Recorder,
        *,
        on_silence: Callable[[Unavailable], None] = lambda _error: None,
    ) -> None:
        """``on_silence``: the changer did not answer, or said that it is broken."""
        self.library_id = library_id
        self._on_silence = on_silence
        self._changer = Changer(transport)
        self._recorder = recorder
        self._turn = trio.Lock()
        self._moves = self._failed_moves = self._inventories = 0

    def __repr__(self) -> str:
        return f"<changer of library {self.library_id} at {self._changer.name}: {self._moves} moves>"

    def statistics(self) -> ChangerStatistics:
        return ChangerStatistics(
            library_id=self.library_id,
            moves=self._moves,
            failed_moves=self._failed_moves,
            inventories=self._inventories,
        )

    async def aclose(self) -> None:
        await self._changer.aclose()

    async def run(self, mailbox: Mailbox[Delivery]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                delivery = await mailbox.get()
                async with self._turn:
                    await serve(delivery, self._answer, f"The changer of library {self.library_id}")

    async def _answer(self, message: Any) -> Any:
        match message:
            case ReadInventory():
                return await self._inventory(message.reason, anew=message.anew)
            case MoveCartridge():
                return await self._move(message)
            case MoveUnknown():
                await self._device(self._changer.move(message.from_address, message.to_address))
                await self._inventory(message.reason)
                return None
        raise NotFound(f"A changer does not know {type(message).__name__}.")

    async def _device(self, call: Awaitable[T]) -> T:
        """A call that the changer itself answers."""
        try:
            return await call
        except Unavailable as error:
            self._on_silence(error)
            raise

    async def _watch(self) -> None:
        """Hands in the library show as unit attentions of whatever command comes next."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            async with self._turn:
                try:
                    await self._device(self._changer.test_unit_ready())
                    if self._was_touched():
                        await self._inventory("somebody opened the library or used its import-export station")
                except RbError as error:
                    _log.info("changer of library %d: %s", self.library_id, error.message)

    def _was_touched(self) -> bool:
        return any(sense.attention in _TOUCHED for sense in self._changer.take_attentions())

    # --- what lies where -------------------------------------------------------------------------------------------------

    async def _inventory(self, reason: str, *, anew: bool = False) -> Inventory:
        if anew:
            await self._device(self._changer.initialize_element_status())
        elements = await self._device(self._changer.elements())
        if await self._empty_hand(elements):
            elements = await self._device(self._changer.elements())
        self._changer.take_attentions()
        self._inventories += 1
        facts = element_facts(elements)
        reply = await self._recorder.outcome(RecordInventory(library_id=self.library_id, elements=facts, reason=reason))
        return Inventory(unknown=list(reply.data.get("unknown", [])), changes=int(reply.data.get("changes", 0)))

    async def _empty_hand(self, elements: list[Element]) -> bool:
        """A robot that jammed may still hold a cartridge: it is put into a slot. Whether anything moved.

        Raises ``Unavailable`` when it keeps it. It can do nothing else then, and the cartridge is not lost: what the log says of it stays
        until the robot was helped.
        """
        held = [one for one in elements if one.type is ElementType.TRANSPORT and one.full]
        free = [one for one in elements if one.type is ElementType.STORAGE and not one.full]
        moved = False
        for number, hand in enumerate(held):
            try:
                if number >= len(free):
                    raise NotAllowedNow("no slot is free")
                await self._changer.move(hand.address, free[number].address)
            except RbError as error:
                kept = Unavailable(
                    f"The robot holds cartridge {hand.volume_tag or '(no bar code)'} and cannot put it into a slot ({error.message}). "
                    "Open the library and help it, then synchronise the library."
                )
                self._on_silence(kept)
                raise kept from error
            moved = True
            _log.warning(
                "library %d: the robot held a cartridge; it lies in slot %d now", self.library_id, free[number].address
            )
        return moved

    # --- moving ------------------------------------------------------------------------------------------------------------

    async def _move(self, order: MoveCartridge) -> None:
        state = self._recorder.journal.state
        target = state.find(LibrarySlot, order.to_slot_id)
        cartridge = state.find(TapeCartridge, order.cartridge_id)
        if target is None or cartridge is None:
            raise NotFound(f"Cartridge {order.cartridge_id} or element {order.to_slot_id} is not known (any more).")
        source = state.find(LibrarySlot, cartridge.slot_id)
        await self._recorder.intend(
            BeginMove(
                cartridge_id=cartridge.id,
                to_slot_id=target.id,
                reason=order.reason,
                tape_task_id=order.tape_task_id,
            )
        )
        assert source is not None, "decide refuses to move what lies nowhere"
        try:
            await self._device(self._changer.move(source.address, target.address))
        except RbError as error:
            self._failed_moves += 1
            await self._find_out(order, error)
            return
        self._moves += 1
        await self._recorder.outcome(EndMove(cartridge_id=cartridge.id))
        if self._was_touched():
            await self._inventory("somebody opened the library or used its import-export station")

    async def _find_out(self, order: MoveCartridge, error: RbError) -> None:
        """Whatever the changer said, where the cartridge is now is for the element status to tell. Raises ``error`` unless it has arrived."""
        try:
            await self._inventory("after a failed move")
        except RbError as silence:
            _log.warning("library %d: %s; and then: %s", self.library_id, error.message, silence.message)
            # The intent stays open: the inventory of the next start of this actor, or the next synchronisation, closes it.
            raise HardwareFailed(
                f"The move failed ({error.message}), and the library does not say where the cartridge is: {silence.message}"
            ) from error
        cartridge = self._recorder.journal.state.find(TapeCartridge, order.cartridge_id)
        if cartridge is None or cartridge.slot_id != order.to_slot_id:
            raise error
        _log.info("library %d: %s; the cartridge has arrived all the same", self.library_id, error.message)


def element_facts(elements: list[Element]) -> list[ElementFacts]:
    """Elements that hold cartridges, as the log knows them; the robot's hand is not one of them."""
    return [
        ElementFacts(
            address=one.address,
            type=_TYPES[one.type],
            is_full=one.full,
            volume_tag=one.volume_tag,
            source_address=one.source or 0,
            exception=one.exception,
        )
        for one in elements
        if one.type in _TYPES
    ]


async def report_library(transport: ScsiTransport, device: str) -> LibraryReport:
    """Ask a changer that is in no library yet. Raises ``NotFound`` when the device is none."""
    changer = Changer(transport)
    identity = await changer.identity()
    if identity.device_type != 8:
        raise NotFound(f"{device} is no medium changer: it says that it is {identity.vendor} {identity.product}.")
    elements = await changer.elements()
    robots = [one.address for one in elements if one.type is ElementType.TRANSPORT]
    return LibraryReport(
        changer=DeviceFacts(
            device=device,
            vendor=identity.vendor,
            product=identity.product,
            revision=identity.revision,
            serial=identity.serial,
        ),
        transport_element=robots[0] if robots else 0,
        elements=element_facts(elements),
        devices={one.address: one.device for one in elements if one.type is ElementType.DRIVE},
    )
