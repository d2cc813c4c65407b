"""Data formats of LTFS (ISO/IEC 20919, section 7): times, numbers, identifiers, names. Parsers are strict and raise ``ProtocolViolation``."""

from __future__ import annotations

import datetime
import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

from rbcore.errors import ProtocolViolation
from rbcore.tape.ltfs_xml import Element, XmlWriter

NAME_CHARACTERS_MAX: Final = 255
CREATOR_BYTES_MAX: Final = 1024
_U64_MAX: Final = 2**64 - 1
_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_VERSION: Final = re.compile(r"2\.[0-9]{1,3}\.[0-9]{1,3}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})\.([0-9]{9})Z")
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SECOND: Final = datetime.timedelta(seconds=1)
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_NO_TIME: Final = (0,) * 7


def format_time(time_ns: int) -> str:
    """``2026-01-02T03:04:05.678901234Z``. Raises ``OverflowError`` outside of the years 1 to 9999."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    moment = _EPOCH + datetime.timedelta(seconds=seconds)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}.{nanoseconds:09}Z"


def parse_time(text: str) -> int:
    """Nanoseconds since 1970. Raises ``ProtocolViolation``."""
    found = _TIME.fullmatch(text)
    year, month, day, hour, minute, second, nanoseconds = map(int, found.groups()) if found else _NO_TIME
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
    except ValueError:
        raise ProtocolViolation(f"{text[:64]!r} is no time") from None
    return (moment - _EPOCH) // _SECOND * 10**9 + nanoseconds


def parse_number(text: str, *, minimum: int = 0) -> int:
    number = int(text) if _NUMBER.fullmatch(text) else -1
    if not minimum <= number <= _U64_MAX:
        raise ProtocolViolation(f"{text[:64]!r} is no number from {minimum}")
    return number


def parse_boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise ProtocolViolation(f"{text[:64]!r} is no boolean")
    return _BOOLEANS[text]


def parse_uuid(text: str) -> str:
    """Lower case."""
    if not _UUID.fullmatch(text.lower()):
        raise ProtocolViolation(f"{text[:64]!r} is no UUID")
    return text.lower()


def parse_partition(text: str) -> str:
    if len(text) != 1 or not "a" <= text <= "z":
        raise ProtocolViolation(f"{text[:64]!r} is no partition")
    return text


def parse_version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ProtocolViolation(f"LTFS version {text[:64]!r} is not known (this reader knows 2.x.y)")
    return text


def creator_of(element: Element) -> str:
    creator = element.word("creator")
    if len(creator.encode()) > CREATOR_BYTES_MAX:
        raise ProtocolViolation(f"creator of more than {CREATOR_BYTES_MAX} bytes")
    return creator


def _needs_percent(text: str) -> bool:
    return ":" in text or any(ord(one) < 0x20 or one in "\x7f\ufffe\uffff" for one in text)


def write_text(xml: XmlWriter, element: str, text: str) -> None:
    """A name, key or target: literal, or percent-encoded where it must be (section 7.4)."""
    if _needs_percent(text):
        plain = "".join(
            chr(byte) if 0x20 <= byte < 0x7F and byte not in b"%:" else f"%{byte:02X}" for byte in text.encode()
        )
        xml.leaf(element, plain, percentencoded="true")
    else:
        xml.leaf(element, text)


def read_text(element: Element) -> str:
    """Undoes ``write_text``. Raises ``ProtocolViolation`` for bad escapes and what is no UTF-8."""
    if not parse_boolean(element.attributes.get("percentencoded", "false")):
        return element.text
    if _BAD_PERCENT.search(element.text):
        raise ProtocolViolation(f"{element.name} with a bad percent escape")
    try:
        return unquote_to_bytes(element.text).decode()
    except UnicodeDecodeError:
        raise ProtocolViolation(f"{element.name} is no UTF-8") from None


def check_name(name: str, *, root: bool = False) -> str:
    """The name itself. Raises ``ProtocolViolation`` unless it may stand in an index (``root``: the volume's name, which may be empty)."""
    if not 1 - root <= len(name) <= NAME_CHARACTERS_MAX or "/" in name or "\0" in name or name in (".", ".."):
        raise ProtocolViolation(f"{name[:300]!r} is no name")
    if any(0xD800 <= ord(one) <= 0xDFFF for one in name) or not unicodedata.is_normalized("NFC", name):
        raise ProtocolViolation(f"name {name[:300]!r} is not in normal form C")
    return name
