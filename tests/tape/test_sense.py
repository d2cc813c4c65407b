"""Sense data: what devices really send is understood, and nothing that they could send does harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.scsi.asc import ADDITIONAL_SENSE_TEXT, additional_sense_text
from drivers.scsi.sense import Advice, Attention, Condition, Key, decode_sense


def fixed(
    key: int, asc: int, ascq: int, *, flags: int = 0, information: int | None = None, specific: bytes = bytes(3)
) -> bytes:
    valid = 0x80 if information is not None else 0
    return (
        bytes([0x70 | valid, 0, key | flags])
        + (information or 0).to_bytes(4, "big", signed=True)
        + bytes([10, 0, 0, 0, 0, asc, ascq, 0])
        + specific
    )


def descriptor(key: int, asc: int, ascq: int, *descriptors: bytes) -> bytes:
    body = b"".join(descriptors)
    return bytes([0x72, key, asc, ascq, 0, 0, 0, len(body)]) + body


FILEMARK, END_OF_MEDIUM, INCORRECT_LENGTH = 0x80, 0x40, 0x20


@pytest.mark.parametrize(
    ("sense", "expected"),
    [
        (fixed(0, 0x00, 0x01, flags=FILEMARK), {Condition.FILEMARK}),
        (fixed(0, 0x00, 0x01, flags=FILEMARK | END_OF_MEDIUM), {Condition.FILEMARK, Condition.EARLY_WARNING}),
        (fixed(8, 0x00, 0x05), {Condition.BLANK_CHECK, Condition.END_OF_DATA}),
        (fixed(8, 0x00, 0x00, flags=END_OF_MEDIUM), {Condition.BLANK_CHECK, Condition.END_OF_DATA}),
        (fixed(0, 0x00, 0x05), {Condition.END_OF_DATA}),
        (fixed(0, 0x00, 0x02, flags=END_OF_MEDIUM), {Condition.EARLY_WARNING}),
        (fixed(0, 0x00, 0x00, flags=END_OF_MEDIUM), {Condition.EARLY_WARNING}),
        (fixed(0xD, 0x00, 0x02, flags=END_OF_MEDIUM), {Condition.END_OF_MEDIUM}),
        (fixed(0, 0x00, 0x04, flags=END_OF_MEDIUM), {Condition.BEGINNING_OF_PARTITION}),
        (fixed(0, 0x00, 0x00, flags=INCORRECT_LENGTH, information=-5), {Condition.INCORRECT_LENGTH}),
        (fixed(1, 0x00, 0x17), {Condition.RECOVERED, Condition.CLEANING_REQUIRED}),
        (fixed(2, 0x30, 0x03), {Condition.NOT_READY, Condition.CLEANING_IN_PROGRESS}),
        (fixed(2, 0x3A, 0x00), {Condition.NOT_READY, Condition.NO_MEDIUM}),
        (fixed(2, 0x04, 0x01), {Condition.NOT_READY, Condition.BECOMING_READY}),
        (fixed(3, 0x11, 0x00), {Condition.MEDIUM_ERROR}),
        (fixed(4, 0x15, 0x01), {Condition.HARDWARE_ERROR}),
        (fixed(5, 0x20, 0x00), {Condition.ILLEGAL_REQUEST, Condition.UNSUPPORTED_COMMAND}),
        (fixed(5, 0x24, 0x00), {Condition.ILLEGAL_REQUEST, Condition.INVALID_FIELD}),
        (fixed(5, 0x21, 0x01), {Condition.ILLEGAL_REQUEST, Condition.UNKNOWN_ELEMENT}),
        (fixed(5, 0x3B, 0x0D), {Condition.ILLEGAL_REQUEST, Condition.DESTINATION_FULL}),
        (fixed(5, 0x3B, 0x0E), {Condition.ILLEGAL_REQUEST, Condition.SOURCE_EMPTY}),
        (fixed(5, 0x53, 0x02), {Condition.ILLEGAL_REQUEST, Condition.REMOVAL_PREVENTED}),
        (fixed(7, 0x27, 0x00), {Condition.WRITE_PROTECTED}),
        (fixed(7, 0x74, 0x03), {Condition.DATA_PROTECT}),
        (fixed(0xB, 0x4E, 0x00), {Condition.ABORTED}),
        (b"", {Condition.UNREADABLE}),
        (bytes(18), {Condition.UNREADABLE}),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else None,
)
def test_conditions(sense: bytes, expected: set[Condition]) -> None:
    assert decode_sense(sense).conditions == expected


def test_both_formats_say_the_same() -> None:
    stream = bytes([0x04, 2, 0, FILEMARK | INCORRECT_LENGTH])
    information = bytes([0x00, 10, 0x80, 0]) + (-7).to_bytes(8, "big", signed=True)
    one = decode_sense(descriptor(0, 0x00, 0x01, information, stream))
    assert one == decode_sense(fixed(0, 0x00, 0x01, flags=FILEMARK | INCORRECT_LENGTH, information=-7))
    assert one.information == -7


@pytest.mark.parametrize(
    ("asc", "ascq", "expected"),
    [
        (0x28, 0x00, Attention.MEDIUM_CHANGED),
        (0x28, 0x01, Attention.IMPORT_EXPORT_ACCESSED),
        (0x29, 0x00, Attention.RESET),
        (0x2A, 0x01, Attention.PARAMETERS_CHANGED),
        (0x2A, 0x03, Attention.RESERVATIONS_CHANGED),
        (0x2A, 0x11, Attention.ENCRYPTION_CHANGED),
        (0x3B, 0x13, Attention.MAGAZINE_CHANGED),
        (0x3F, 0x01, Attention.MICROCODE_CHANGED),
        (0x5A, 0x01, Attention.OPERATOR_REQUEST),
        (0x99, 0x99, Attention.OTHER),
    ],
)
def test_reasons_of_unit_attentions(asc: int, ascq: int, expected: Attention) -> None:
    sense = decode_sense(fixed(6, asc, ascq))
    assert sense.attention is expected
    assert sense.conditions == {Condition.UNIT_ATTENTION}


@pytest.mark.parametrize(
    ("asc", "ascq", "expected"),
    [
        (0x04, 0x00, Advice.WAIT),
        (0x04, 0x01, Advice.WAIT),
        (0x04, 0x02, Advice.LOAD),
        (0x04, 0x03, Advice.INTERVENE),
        (0x04, 0x04, Advice.WAIT),
        (0x04, 0x12, Advice.INTERVENE),
        (0x30, 0x03, Advice.WAIT),
        (0x3A, 0x00, Advice.LOAD),
    ],
)
def test_what_gets_a_device_ready(asc: int, ascq: int, expected: Advice) -> None:
    assert decode_sense(fixed(2, asc, ascq)).advice is expected


def test_the_field_objected_to_and_the_progress() -> None:
    refused = decode_sense(fixed(5, 0x24, 0x00, specific=bytes([0xC0, 0, 5])))
    assert (refused.field_pointer, refused.field_in_command) == (5, True)
    assert "byte 5 of the command" in refused.text
    busy = decode_sense(fixed(2, 0x04, 0x04, specific=bytes([0x80, 0x80, 0])))
    assert busy.progress == 0.5


def test_deferred_errors_are_marked() -> None:
    assert decode_sense(b"\x71" + fixed(3, 0x0C, 0)[1:]).deferred
    assert decode_sense(b"\x73" + descriptor(3, 0x0C, 0)[1:]).deferred
    assert not decode_sense(fixed(3, 0x0C, 0)).deferred


def test_text_names_the_numbers() -> None:
    assert decode_sense(fixed(5, 0x3B, 0x0E)).text == "illegal request: medium source element empty (5/3b/0e)"
    assert "82h/99h" in additional_sense_text(0x82, 0x99) or "qualifier 99h" in additional_sense_text(0x82, 0x99)


def test_table_is_in_order() -> None:
    assert all(0 <= asc <= 0xFF and 0 <= ascq <= 0xFF and text for (asc, ascq), text in ADDITIONAL_SENSE_TEXT.items())


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(sense: bytes) -> None:
    decoded = decode_sense(sense)
    assert decoded.text
    assert decoded.key in Key


@given(st.sampled_from([0x70, 0x71, 0x72, 0x73, 0xF0, 0xF2]), st.binary(max_size=260), st.integers(0, 260))
def test_cut_off_sense_is_what_came_of_it(code: int, rest: bytes, length: int) -> None:
    whole = bytes([code]) + rest
    cut = decode_sense(whole[:length])
    if length >= 14 and code in (0x70, 0x71, 0xF0) and rest[6:7] >= b"\x06":
        assert (cut.key, cut.asc, cut.ascq) == (
            decode_sense(whole).key,
            decode_sense(whole).asc,
            decode_sense(whole).ascq,
        )
