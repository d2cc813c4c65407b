"""The places of a library, and READ ELEMENT STATUS (SMC-3): what lies where, and what the library believes lies where.

The two differ when somebody reached in behind its back: the library knows what it saw at the last scan and what it moved itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from drivers.simulated.tape.drive import SimulatedDrive
from drivers.simulated.tape.medium import Cartridge
from drivers.simulated.tape.unit import VENDOR, text

ADDRESS_MAX: Final = 0xFFFF
_TAG_BYTES: Final = 36
_DEVICE_BYTES: Final = 34


class ElementType(IntEnum):
    """Element type codes."""

    TRANSPORT = 1
    STORAGE = 2
    IMPORT_EXPORT = 3
    DRIVE = 4


class ElementAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """The first address of each type; the ranges must not overlap."""

    transport: int = 1
    drives: int = 256
    import_export: int = 768
    storage: int = 1024


class Element:
    """One place."""

    def __init__(self, address: int, kind: ElementType, drive: SimulatedDrive | None = None) -> None:
        self.address = address
        self.kind = kind
        self.drive = drive
        self.source: int | None = None
        """The storage element from which its cartridge came last."""
        self.seen: str | None = None
        """The barcode that the library believes is here; empty when it could not read one, None when nothing is here."""
        self.was_put_by_operator = False
        self._held: Cartridge | None = None

    def __repr__(self) -> str:
        held = self.cartridge
        what = "empty" if held is None else held.card.barcode
        believed = (
            "" if self.seen == _tag(held) else f", believed {self.seen or ('empty' if self.seen is None else '?')}"
        )
        return f"<{self.kind.name.lower().replace('_', '/')} {self.address} {what}{believed}>"

    @property
    def cartridge(self) -> Cartridge | None:
        """What is really there."""
        return self._held if self.drive is None else self.drive.cartridge

    def put(self, cartridge: Cartridge, now: float) -> None:
        assert self.cartridge is None
        cartridge.card.element = self.address
        if self.drive is None:
            self._held = cartridge
        else:
            self.drive.insert(cartridge, now)

    def take(self) -> Cartridge:
        cartridge = self.cartridge
        assert cartridge is not None
        if self.drive is None:
            self._held = None
        else:
            self.drive.remove()
        self.was_put_by_operator = False
        cartridge.card.element = None
        return cartridge

    def scan(self) -> None:
        """Look: what is believed is what is there."""
        self.seen = _tag(self.cartridge)
        if self.seen is None:
            self.source = None


def _tag(cartridge: Cartridge | None) -> str | None:
    if cartridge is None:
        return None
    return cartridge.card.barcode if cartridge.card.barcode_readable else ""


def volume_tag(barcode: str | None) -> bytes:
    """36 bytes: identifier, two reserved, sequence number. Nothing there or not readable: zeros."""
    return text(barcode, 32) + bytes(4) if barcode else bytes(_TAG_BYTES)


def status_report(elements: Sequence[Element], *, with_tags: bool, with_devices: bool) -> bytes:
    """The whole report, one page per type, header first."""
    pages = b""
    for kind in ElementType:
        chosen = [element for element in elements if element.kind is kind]
        if chosen:
            devices = with_devices and kind is ElementType.DRIVE
            pages += _page(kind, chosen, with_tags=with_tags, with_devices=devices)
    first = min((element.address for element in elements), default=0)
    return first.to_bytes(2, "big") + len(elements).to_bytes(2, "big") + b"\0" + len(pages).to_bytes(3, "big") + pages


def _page(kind: ElementType, elements: Iterable[Element], *, with_tags: bool, with_devices: bool) -> bytes:
    rows = [_descriptor(element, with_tags=with_tags, with_devices=with_devices) for element in elements]
    body = b"".join(rows)
    head = bytes([kind, 0x80 if with_tags else 0]) + len(rows[0]).to_bytes(2, "big")
    return head + b"\0" + len(body).to_bytes(3, "big") + body


def _descriptor(element: Element, *, with_tags: bool, with_devices: bool) -> bytes:
    raw = bytearray(12)
    raw[0:2] = element.address.to_bytes(2, "big")
    raw[2] = _flags(element)
    drive = element.drive
    if element.seen is not None:
        raw[9] = 0x02 if element.seen.startswith("CLN") else 0x01
        if element.source is not None:
            raw[9] |= 0x80
            raw[10:12] = element.source.to_bytes(2, "big")
    if with_tags:
        raw += volume_tag(element.seen)
    raw += bytes(4)
    if with_devices and drive is not None:
        identifier = text(VENDOR, 8) + text(drive.product, 16) + text(drive.serial, _DEVICE_BYTES - 24)
        raw[-4:] = bytes([0x02, 0x01, 0, len(identifier)])
        raw += identifier
    return bytes(raw)


def _flags(element: Element) -> int:
    flags = 0x01 if element.seen is not None else 0
    if element.kind is ElementType.TRANSPORT:
        return flags
    if element.kind is ElementType.IMPORT_EXPORT:
        return flags | 0x38 | (0x02 if element.was_put_by_operator and flags else 0)
    if element.drive is not None and element.drive.cartridge is not None:
        return flags | (0 if element.drive.holds_fast else 0x08)
    return flags | 0x08
