"""The chip of a cartridge (MAM): the attributes of SPC-4, READ ATTRIBUTE and WRITE ATTRIBUTE.

Identifiers below 0400h are kept by the drive, 0400h to 07FFh by the maker, 0800h to 0BFFh and 1400h to 17FFh by hosts.
"""

from __future__ import annotations

from typing import Final

from drivers.simulated.tape import sense as s
from drivers.simulated.tape.head import Head
from drivers.simulated.tape.unit import Command, Reply, text

BINARY, ASCII, TEXT = 0, 1, 2
_VALUES, _LIST, _VOLUMES, _PARTITIONS, _SUPPORTED = 0, 1, 2, 3, 5
VALUE_BYTES_MAX: Final = 4096
CHIP_BYTES: Final = 16 * 1024
_MEBI: Final = 1024 * 1024

HOST_LENGTHS: Final[dict[int, tuple[int, int, bool]]] = {
    0x0800: (ASCII, 8, True),
    0x0801: (ASCII, 32, True),
    0x0802: (ASCII, 8, True),
    0x0803: (TEXT, 160, True),
    0x0804: (ASCII, 12, True),
    0x0805: (BINARY, 1, True),
    0x0806: (ASCII, 32, True),
    0x0807: (TEXT, 80, True),
    0x0808: (TEXT, 160, True),
    0x0809: (ASCII, 16, True),
    0x080A: (ASCII, 16, True),
    0x080B: (ASCII, 16, True),
    0x080C: (BINARY, 1023, False),
    0x0820: (BINARY, 36, False),
    0x0821: (BINARY, 36, False),
}
"""Of the standard attributes of hosts: format, length, and whether exactly so long (else: at most)."""


def is_host_attribute(identifier: int) -> bool:
    return 0x0800 <= identifier <= 0x0BFF or 0x1400 <= identifier <= 0x17FF


def attributes(head: Head, partition: int, alerts: int, drive_serial: str) -> dict[int, tuple[int, bytes]]:
    """All attributes of a partition: identifier -> (format, value)."""
    cartridge = head.cartridge
    card, made, tape = cartridge.card, cartridge.generation, cartridge.partitions[partition]
    written, read = head.mounted_with
    found: dict[int, tuple[int, bytes]] = {
        0x0000: (BINARY, ((tape.capacity_bytes - tape.used_bytes) // _MEBI).to_bytes(8, "big")),
        0x0001: (BINARY, (tape.capacity_bytes // _MEBI).to_bytes(8, "big")),
        0x0002: (BINARY, alerts.to_bytes(8, "big")),
        0x0003: (BINARY, card.loads.to_bytes(8, "big")),
        0x0004: (BINARY, max(0, CHIP_BYTES - _host_bytes(head)).to_bytes(8, "big")),
        0x0005: (ASCII, text("LTO-CVE", 8)),
        0x0006: (BINARY, bytes([made.density])),
        0x0007: (BINARY, card.initialisations.to_bytes(2, "big")),
        0x0009: (BINARY, card.change_reference.to_bytes(4, "big")),
        0x020A: (ASCII, text("RBMEDIA", 8) + text(drive_serial, 32)),
        0x0220: (BINARY, (card.bytes_written // _MEBI).to_bytes(8, "big")),
        0x0221: (BINARY, (card.bytes_read // _MEBI).to_bytes(8, "big")),
        0x0222: (BINARY, ((card.bytes_written - written) // _MEBI).to_bytes(8, "big")),
        0x0223: (BINARY, ((card.bytes_read - read) // _MEBI).to_bytes(8, "big")),
        0x0400: (ASCII, text("RBMEDIA", 8)),
        0x0401: (ASCII, text(card.serial, 32)),
        0x0402: (BINARY, made.length_metres.to_bytes(4, "big")),
        0x0403: (BINARY, (127).to_bytes(4, "big")),
        0x0404: (ASCII, text("LTO-CVE", 8)),
        0x0405: (BINARY, bytes([made.density])),
        0x0406: (ASCII, b"20250101"),
        0x0407: (BINARY, CHIP_BYTES.to_bytes(8, "big")),
        0x0408: (BINARY, bytes([{"data": 0x00, "cleaning": 0x01, "worm": 0x80}[card.kind]])),
        0x0409: (BINARY, bytes(2)),
    }
    for key, (kind, value) in card.attributes.items():
        where, identifier = key.split(":")
        if int(where) == partition:
            found[int(identifier, 16)] = (kind, bytes.fromhex(value))
    return dict(sorted(found.items()))


def _host_bytes(head: Head) -> int:
    return sum(5 + len(value) // 2 for _, value in head.cartridge.card.attributes.values())


def read_attribute(command: Command, head: Head, alerts: int, drive_serial: str) -> Reply:
    """READ ATTRIBUTE: values, list, volumes and partitions."""
    action, partition = command.cdb[1] & 0x1F, command.cdb[7]
    first, allocation = command.number(8, 2), command.number(10, 4)
    count = len(head.cartridge.partitions)
    if partition >= count:
        raise s.CheckCondition(s.invalid_field(7))
    if action in (_VOLUMES, _PARTITIONS):
        return Reply(bytes([0, 2, 0, 1 if action == _VOLUMES else count])[:allocation])
    found = attributes(head, partition, alerts, drive_serial)
    if action == _VALUES:
        if first not in found and first > max(found):
            raise s.CheckCondition(s.invalid_field(8))
        body = b"".join(
            identifier.to_bytes(2, "big")
            + bytes([kind | (0 if is_host_attribute(identifier) else 0x80)])
            + len(value).to_bytes(2, "big")
            + value
            for identifier, (kind, value) in found.items()
            if identifier >= first
        )
    elif action in (_LIST, _SUPPORTED):
        known = set(found) | (set(HOST_LENGTHS) if action == _SUPPORTED else set())
        body = b"".join(identifier.to_bytes(2, "big") for identifier in sorted(known))
    else:
        raise s.CheckCondition(s.invalid_field(1))
    return Reply((len(body).to_bytes(4, "big") + body)[:allocation])


def write_attribute(command: Command, head: Head) -> Reply:
    """WRITE ATTRIBUTE: all of the list or, when one of it is wrong, nothing. Length 0 removes an attribute."""
    partition, length = command.cdb[7], command.number(10, 4)
    if partition >= len(head.cartridge.partitions):
        raise s.CheckCondition(s.invalid_field(7))
    if length == 0:
        return Reply()
    raw = command.send[:length]
    if len(raw) < 4 or len(raw) < length or int.from_bytes(raw[:4], "big") != len(raw) - 4:
        raise s.CheckCondition(s.PARAMETER_LIST_LENGTH)
    wanted = dict(head.cartridge.card.attributes)
    at = 4
    while at < len(raw):
        if at + 5 > len(raw):
            raise s.CheckCondition(s.PARAMETER_LIST_LENGTH)
        identifier, size = int.from_bytes(raw[at : at + 2], "big"), int.from_bytes(raw[at + 3 : at + 5], "big")
        kind, value = raw[at + 2] & 0x03, raw[at + 5 : at + 5 + size]
        if len(value) < size:
            raise s.CheckCondition(s.PARAMETER_LIST_LENGTH)
        expected = HOST_LENGTHS.get(identifier, (kind, VALUE_BYTES_MAX, False))
        wrong_length = size > expected[1] or (expected[2] and size not in (0, expected[1]))
        if not is_host_attribute(identifier) or kind != expected[0] or wrong_length:
            raise s.CheckCondition(s.INVALID_PARAMETER)
        key = f"{partition}:{identifier:04x}"
        if size:
            wanted[key] = (kind, value.hex())
        else:
            wanted.pop(key, None)
        at += 5 + size
    if sum(5 + len(value) // 2 for _, value in wanted.values()) > CHIP_BYTES:
        raise s.CheckCondition(s.Sense(s.ILLEGAL_REQUEST, 0x55, 0x06))
    head.cartridge.card.attributes = wanted
    head.cartridge.save()
    return Reply()
