"""The ANSI VOL1 label (X3.27, ISO/IEC 20919 section 8.1.1): 80 bytes at the beginning of a partition that tell whose cartridge it is."""

from __future__ import annotations

from typing import Final

import msgspec

from rbcore.errors import Damaged, ProtocolViolation

VOL1_BYTES: Final = 80
LTFS_IMPLEMENTATION: Final = "LTFS"
NATIVE_IMPLEMENTATION: Final = "RBMEDIA NATIVE"[:13]
_IDENTIFIER: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_IDENTIFIER_LENGTH: Final = 6
_OWNER_LENGTH: Final = 14


class Vol1(msgspec.Struct, frozen=True, kw_only=True):
    volume_identifier: str
    """Six characters of A-Z and 0-9, or empty."""
    accessibility: str
    """``L`` on LTFS cartridges, a space elsewhere."""
    implementation: str
    """Up to 13 characters."""
    owner: str = ""
    """Up to 14 characters."""

    def encode(self) -> bytes:
        """The 80 bytes. Raises ``ValueError`` when a field does not fit: a bug of the caller."""
        identifier = self.volume_identifier
        if identifier and (len(identifier) != _IDENTIFIER_LENGTH or not set(identifier) <= _IDENTIFIER):
            raise ValueError(f"volume identifier {identifier!r} is not six characters of A-Z and 0-9")
        if len(self.accessibility) != 1 or len(self.implementation) > 13 or len(self.owner) > _OWNER_LENGTH:
            raise ValueError("a field of VOL1 is too long")
        text = (
            f"VOL1{identifier:6}{self.accessibility}{'':13}{self.implementation:13}{self.owner:{_OWNER_LENGTH}}{'':28}4"
        )
        return text.encode("ascii")


def volume_identifier(volume_tag: str) -> str:
    """The first six characters of a bar code where VOL1 can hold them, otherwise empty."""
    first = volume_tag[:_IDENTIFIER_LENGTH]
    return first if len(first) == _IDENTIFIER_LENGTH and set(first) <= _IDENTIFIER else ""


def parse_vol1(raw: bytes | memoryview) -> Vol1:
    """Raises ``Damaged`` when it is no VOL1 label at all, ``ProtocolViolation`` when it is one with something that is not allowed."""
    data = bytes(raw[: VOL1_BYTES + 1])
    if len(data) != VOL1_BYTES or data[:4] != b"VOL1":
        raise Damaged(f"no VOL1 label: {len(raw)} bytes that begin with {data[:4].hex()}")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolViolation("VOL1 label with characters that are not ASCII") from None
    label = Vol1(
        volume_identifier=text[4:10].rstrip(" "),
        accessibility=text[10],
        implementation=text[24:37].rstrip(" "),
        owner=text[37:51].rstrip(" "),
    )
    try:
        same = label.encode() == data
    except ValueError:
        same = False
    if not same:
        raise ProtocolViolation("VOL1 label with a field that is not known or not allowed")
    return label
