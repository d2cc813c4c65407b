"""Bar codes of cartridges: a volume tag is a name and a media id of two characters that tells the type (reference 1.10; LTO bar code label specification)."""

from __future__ import annotations

import re
from typing import Final

from rbcore.vocabulary import TAPE_TYPES

CLEANING: Final = "CLN"
_CLEANING_PREFIX: Final = "CLN"
_LTO: Final[dict[str, str]] = {f"L{generation}": f"LTO-{generation}" for generation in range(1, 10)}
_WORM: Final[dict[str, str]] = {
    media_id: f"LTO-{generation}"
    for generation, media_id in zip(range(3, 10), ("LT", "LU", "LV", "LW", "LX", "LY", "LZ"), strict=True)
}
_REDUCED: Final[dict[str, str]] = {"M8": "LTO-8"}
"""An LTO-7 cartridge that was initialised at 9 TB: only LTO-8 drives take it."""
_CLEANING_IDS: Final = re.compile(r"CU|C[1-9]")
_TAG: Final = re.compile(r"[A-Z0-9]{1,32}")
_NAME_LENGTH: Final = 6
_FIRST_WITH_PARTITIONS: Final = 5
assert {*_LTO.values(), *_WORM.values(), *_REDUCED.values(), CLEANING} == set(TAPE_TYPES)


def clean_tag(raw: str) -> str:
    """A volume tag as a changer reports it, without the padding. May be empty: no bar code, or one that cannot be read."""
    return raw.strip(" \0")


def is_well_formed(tag: str) -> bool:
    """Whether ``tag`` can be a bar code at all: A-Z and 0-9, at most 32 (what READ ELEMENT STATUS carries)."""
    return _TAG.fullmatch(tag) is not None


def tape_type_of(tag: str) -> str | None:
    """The value of ``TAPE_TYPES`` that the bar code tells; None when it tells none (six characters only, or another maker's rule).

    The media id is the last two characters behind a name of at least six. Cleaning cartridges are told by ``CLN`` at the beginning
    or by their media id; WORM cartridges are of their generation.
    """
    if tag.startswith(_CLEANING_PREFIX):
        return CLEANING
    if len(tag) < _NAME_LENGTH + 2:
        return None
    media_id = tag[-2:]
    if _CLEANING_IDS.fullmatch(media_id):
        return CLEANING
    return _LTO.get(media_id) or _WORM.get(media_id) or _REDUCED.get(media_id)


def is_cleaning(tag: str) -> bool:
    return tape_type_of(tag) == CLEANING


def is_worm(tag: str) -> bool:
    """Written once: an LTFS index partition cannot be overwritten there, and nothing can be erased."""
    return not tag.startswith(_CLEANING_PREFIX) and len(tag) >= _NAME_LENGTH + 2 and tag[-2:] in _WORM


def agrees(tag: str, tape_type: str) -> bool:
    """Whether a cartridge with this bar code may be registered as ``tape_type``: a bar code that tells nothing agrees with everything."""
    told = tape_type_of(tag)
    return told is None or told == tape_type


def can_partition(tape_type: str) -> bool:
    """Whether cartridges of the type can be LTFS volumes: from LTO-5 on."""
    return (
        tape_type in TAPE_TYPES
        and tape_type != CLEANING
        and int(tape_type.removeprefix("LTO-")) >= _FIRST_WITH_PARTITIONS
    )
