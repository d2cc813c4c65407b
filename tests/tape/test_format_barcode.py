"""Bar codes: what the last two characters of a volume tag tell."""

from __future__ import annotations

import pytest

from rbcore.tape import barcode
from rbcore.vocabulary import TAPE_TYPES


@pytest.mark.parametrize(
    ("tag", "tape_type"),
    [
        *((f"RB0001L{generation}", f"LTO-{generation}") for generation in range(1, 10)),
        ("ACS512L9", "LTO-9"),
        ("RB0001LZ", "LTO-9"),
        ("RB0001LT", "LTO-3"),
        ("RB0001M8", "LTO-8"),
        ("CLN001L9", "CLN"),
        ("CLNU01CU", "CLN"),
        ("RBCL01CU", "CLN"),
        ("RB0001", None),
        ("RB01L9", None),
        ("RB0001L0", None),
        ("RB0001XX", None),
        ("", None),
    ],
)
def test_the_type_a_bar_code_tells(tag: str, tape_type: str | None) -> None:
    assert barcode.tape_type_of(tag) == tape_type
    assert barcode.is_cleaning(tag) == (tape_type == "CLN")
    assert all(barcode.agrees(tag, one) == (tape_type in (None, one)) for one in TAPE_TYPES)


def test_only_lto_5_and_newer_can_be_ltfs_volumes() -> None:
    assert [one for one in TAPE_TYPES if barcode.can_partition(one)] == ["LTO-5", "LTO-6", "LTO-7", "LTO-8", "LTO-9"]
    assert not barcode.can_partition("DLT")


def test_tags_as_changers_report_them() -> None:
    assert barcode.clean_tag("RB0001L9" + " " * 24) == "RB0001L9"
    assert barcode.clean_tag("\0" * 32) == ""
    assert barcode.is_well_formed("RB0001L9")
    assert not any(barcode.is_well_formed(tag) for tag in ("", "rb0001L9", "RB 001L9", "R" * 33))
    assert barcode.is_worm("RB0001LY")
    assert not barcode.is_worm("RB0001L8")
    assert not barcode.is_worm("CLN001LY")
