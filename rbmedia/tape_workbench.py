"""Drives and a changer in the hands of one offline command: which cartridges are there, bringing one to a drive, and leaving all as it was found.

No daemon takes part. With a changer the robot carries cartridges; without one a person does, who is asked on the terminal. A cartridge that was
read once is recognised when it comes again: another one in its place is never read as if it were the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio

from actors.supervisor import cleanup_scope
from drivers.scsi.changer import MOVE_SECONDS_MAX, Changer, Element, ElementType, pair_drives
from drivers.scsi.drive import UNLOAD_SECONDS_MAX, Drive
from drivers.scsi.unit import LogicalUnit
from drivers.tape.identify import identify
from rbcore import errors
from rbcore.scsi import ScsiTransport
from rbcore.tape.barcode import is_cleaning
from rbcore.tape.session import Identified

Ask: TypeAlias = Callable[[str], Awaitable[None]]
"""Shows a sentence on the terminal and returns when Enter was pressed."""
Say: TypeAlias = Callable[[str], None]

TAPE_DRIVE, MEDIUM_CHANGER = 1, 8
CHANGER_READY_SECONDS_MAX: Final = 600.0
_KINDS: Final = {TAPE_DRIVE: "a tape drive", MEDIUM_CHANGER: "a medium changer"}


@dataclass(eq=False)
class Cartridge:
    """One cartridge, wherever it is now."""

    tag: str = ""
    """Its bar code; empty where nobody can read it."""
    home: int = 0
    """The element that it belongs in; 0 without a changer."""
    identified: Identified | None = None
    """Who it said it is when it was looked at first."""
    mounts: int = 0
    """How often it came into a drive: what was opened on it holds until the next time."""

    @property
    def name(self) -> str:
        """Its own label's tag, its bar code, or where it lies."""
        label = self.identified.volume_tag if self.identified is not None else ""
        if self.tag and label and not self.tag.startswith(label):
            return f"{label} (bar code {self.tag})"
        return self.tag or label or (f"of element {self.home}" if self.home else "without a label")


@dataclass(eq=False)
class Bay:
    """A drive and what is in it."""

    drive: Drive
    element: int = 0
    cartridge: Cartridge | None = None
    found: Cartridge | None = None
    """What was in it at the beginning."""
    used: int = 0


@dataclass(eq=False)
class Bench:
    """Drives without a changer: a person puts the cartridges in."""

    bays: list[Bay]
    say: Say
    ask: Ask | None
    """None: there is no terminal."""
    _turns: int = field(default=0, init=False)

    async def cartridges(self, tags: Sequence[str] = ()) -> list[Cartridge]:
        """What is in the drives. Raises ``NoCartridge`` when all are empty."""
        failure: errors.RbError | None = None
        for bay in self.bays:
            try:
                await bay.drive.load()
            except errors.NoCartridge as error:
                failure = error
                continue
            bay.cartridge = Cartridge(mounts=1)
        found = [bay.cartridge for bay in self.bays if bay.cartridge is not None]
        if not found and failure is not None:
            raise failure
        return found

    async def mount(self, cartridge: Cartridge) -> Drive:
        """The drive with the cartridge in it, loaded. Raises what changers and drives do, ``NotAllowedNow`` when nobody can be asked for it."""
        self._turns += 1
        for bay in self.bays:
            if bay.cartridge is cartridge:
                bay.used = self._turns
                if not cartridge.mounts:
                    await bay.drive.load()
                    cartridge.mounts = 1
                return bay.drive
        bay = min(self.bays, key=lambda one: (one.cartridge is not None, one.used))
        bay.used = self._turns
        await self._bring(bay, cartridge)
        bay.cartridge = cartridge
        cartridge.mounts += 1
        return bay.drive

    async def another(self, tags: Sequence[str]) -> Cartridge | None:
        """A cartridge that was not seen yet, when a person can be asked for one of these."""
        if self.ask is None:
            return None
        bay = min(self.bays, key=lambda one: (one.cartridge is not None, one.used))
        await self._exchange(bay, f"cartridge {' or '.join(tags)}")
        bay.cartridge = Cartridge(mounts=1)
        return bay.cartridge

    async def close(self) -> None:
        """Leave the cartridges where they were found."""

    async def _bring(self, bay: Bay, cartridge: Cartridge) -> None:
        while True:
            await self._exchange(bay, f"cartridge {cartridge.name}")
            now = await identify(bay.drive)
            if is_same(cartridge.identified, now):
                return
            self.say(f"This is not cartridge {cartridge.name}. {now.detail}")

    async def _exchange(self, bay: Bay, wanted: str) -> None:
        if self.ask is None:
            raise errors.NotAllowedNow(
                f"Wanted is {wanted}, and there is neither a changer to bring it nor a terminal to ask for it. Name the library's changer with "
                "--changer, or all drives that hold the cartridges with --drive, or run the command on a terminal."
            )
        if bay.cartridge is not None:
            bay.cartridge = None
            await bay.drive.unload()
        while True:
            await self.ask(f"Put {wanted} into {bay.drive.name} and press Enter (Ctrl-C to stop).")
            try:
                await bay.drive.load()
            except (errors.NoCartridge, errors.DeviceNotReady, errors.MediumFailed) as error:
                self.say(error.message)
            else:
                return


@dataclass(eq=False)
class LibraryBench(Bench):
    """Drives of a library, whose changer brings the cartridges."""

    changer: Changer
    _displaced: list[tuple[Bay, Cartridge]] = field(default_factory=list, init=False)
    """Out of the drives that they were found in."""

    async def open(self, elements: Sequence[int]) -> None:
        """Find out which drive sits where. ``elements``: those of the drives, in their order, where the changer does not say.

        Raises ``InvalidRequest`` when that is not known.
        """
        await self.changer.wait_ready(CHANGER_READY_SECONDS_MAX)
        sites = await self._status(ElementType.DRIVE)
        if elements:
            known = {site.address for site in sites}
            if len(elements) != len(self.bays) or len(set(elements)) != len(elements) or not set(elements) <= known:
                raise errors.InvalidRequest(
                    f"--element is given once for each --drive, in their order. {self.changer.name} has the drive elements {_listed(sites)}."
                )
            for bay, element in zip(self.bays, elements, strict=True):
                bay.element = element
        else:
            identities = [await bay.drive.identity() for bay in self.bays]
            paired = {index: address for address, index in pair_drives(sites, identities).items()}
            for index, bay in enumerate(self.bays):
                if index not in paired:
                    raise errors.InvalidRequest(
                        f"{self.changer.name} does not say where {bay.drive.name} (serial number {identities[index].serial or 'unknown'}) sits. "
                        f"Say it with --element; there are the drive elements {_listed(sites)}."
                    )
                bay.element = paired[index]
        await self._take_stock(sites)

    async def _status(self, kind: ElementType) -> list[Element]:
        part = (await self.changer.element_addresses())[kind]
        return await self.changer.element_status(kind, part) if part.count else []

    async def _take_stock(self, sites: Sequence[Element]) -> None:
        """What is in the drives already, and where it belongs: where it came from, or any free slot."""
        slots = {one.address: one for one in await self._status(ElementType.STORAGE)}
        free = [
            address for address, one in slots.items() if not one.full
        ]  # some changers call empty slots inaccessible
        for site in sites:
            bay = next((one for one in self.bays if one.element == site.address), None)
            if not site.full:
                continue
            home = site.source if site.source in free else next(iter(free), 0)
            if home:
                free.remove(home)
            if bay is not None:
                if not home:
                    raise errors.NotAllowedNow(
                        f"{self.changer.name} has no free slot for the cartridge {site.volume_tag} in {bay.drive.name}. Take one out."
                    )
                bay.cartridge = bay.found = Cartridge(tag=site.volume_tag, home=home)

    async def cartridges(self, tags: Sequence[str] = ()) -> list[Cartridge]:
        """Those in slots and in the given drives; of them those named, in that order. Cleaning cartridges are left out.

        Raises ``InvalidRequest`` for tags that are not there, or of cleaning cartridges.
        """
        found = [bay.cartridge for bay in self.bays if bay.cartridge is not None]
        for kind in (ElementType.STORAGE, ElementType.IMPORT_EXPORT):
            found += [Cartridge(tag=one.volume_tag, home=one.address) for one in await self._status(kind) if one.full]
        by_tag = {one.tag: one for one in found if one.tag}
        missing = [tag for tag in tags if tag not in by_tag]
        if missing:
            raise errors.InvalidRequest(
                f"{self.changer.name} has no cartridge {', '.join(missing)} in a slot or in the drives given here. "
                f"It has {', '.join(sorted(by_tag)) or 'none whose bar code can be read'}."
            )
        if cleaning := [tag for tag in tags if is_cleaning(tag)]:
            raise errors.InvalidRequest(f"{', '.join(cleaning)} is a cleaning cartridge: there is nothing on it.")
        if tags:
            return [by_tag[tag] for tag in dict.fromkeys(tags)]
        return [one for one in found if not is_cleaning(one.tag)]

    async def another(self, tags: Sequence[str]) -> Cartridge | None:
        return None

    async def _bring(self, bay: Bay, cartridge: Cartridge) -> None:
        await self._put_away(bay)
        self.say(f"Mounting cartridge {cartridge.name} in {bay.drive.name}.")
        await self.changer.move(cartridge.home, bay.element)
        # From here on it is in the drive, whatever becomes of it there.
        bay.cartridge = cartridge
        await bay.drive.load()
        if cartridge.identified is not None:
            now = await identify(bay.drive)
            if not is_same(cartridge.identified, now):
                raise errors.PositionLost(
                    f"From element {cartridge.home} of {self.changer.name} came another cartridge than {cartridge.name}: {now.detail} Does "
                    "somebody else use the library? Stop that, and start anew."
                )

    async def _put_away(self, bay: Bay) -> None:
        cartridge = bay.cartridge
        if cartridge is None:
            return
        # A cartridge that cannot be loaded may be unloaded already; whether the robot gets it, it says itself.
        with contextlib.suppress(errors.MediumFailed, errors.DeviceNotReady, errors.NoCartridge):
            await bay.drive.unload()
        await self.changer.move(bay.element, cartridge.home)
        bay.cartridge = None
        if cartridge is bay.found:
            self._displaced.append((bay, cartridge))

    async def close(self) -> None:
        """What was brought goes back into its slot, and what had been in a drive into that drive."""
        for bay in self.bays:
            if bay.cartridge is not bay.found:
                await self._put_away(bay)
        for bay, cartridge in self._displaced:
            if bay.cartridge is None:
                await self.changer.move(cartridge.home, bay.element)
                bay.cartridge = cartridge


def is_same(known: Identified | None, now: Identified) -> bool:
    """Whether a cartridge is the one that was looked at before; one that says no name is told by its bar code alone."""
    return known is None or (known.contents, known.cartridge, known.use) == (now.contents, now.cartridge, now.use)


def _listed(elements: Sequence[Element]) -> str:
    return ", ".join(f"{one.address}{f' ({one.device})' if one.device else ''}" for one in elements) or "none"


@contextlib.asynccontextmanager
async def open_bench(
    drives: Sequence[ScsiTransport],
    changer: ScsiTransport | None,
    *,
    elements: Sequence[int] = (),
    say: Say,
    ask: Ask | None,
) -> AsyncIterator[Bench]:
    """The devices, checked to be what they are named as. At the end cartridges are put back and connections closed.

    Raises ``InvalidRequest`` for devices of another kind, and what they raise themselves.
    """
    async with contextlib.AsyncExitStack() as stack:
        for transport in (*drives, *([changer] if changer is not None else [])):
            stack.push_async_callback(_close_transport, transport)
        bays = [Bay(Drive(transport)) for transport in drives]
        for bay in bays:
            await _must_be(bay.drive, TAPE_DRIVE, "--drive")
            await bay.drive.probe()
        if changer is None:
            yield Bench(bays, say, ask)
            return
        robot = Changer(changer)
        await _must_be(robot, MEDIUM_CHANGER, "--changer")
        bench = LibraryBench(bays, say, ask, robot)
        await bench.open(elements)
        try:
            yield bench
        except BaseException:
            with cleanup_scope(len(bays) * (UNLOAD_SECONDS_MAX + 2 * MOVE_SECONDS_MAX)):
                try:
                    await bench.close()
                except errors.RbError as error:
                    say(f"Not all cartridges were put back where they were. {error.message}")
            raise
        await bench.close()


async def _must_be(unit: LogicalUnit, kind: int, option: str) -> None:
    found = (await unit.identity()).device_type
    if found != kind:
        raise errors.InvalidRequest(
            f"{option} {unit.name} is not {_KINDS[kind]}, but {_KINDS.get(found, f'a device of SCSI type {found}')}."
        )


async def _close_transport(transport: ScsiTransport) -> None:
    with trio.CancelScope(shield=True):
        await transport.aclose()
