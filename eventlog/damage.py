"""What exactly is wrong with a record whose hash does not fit: told from its neighbours and from its own hash.

Every record holds a hash over itself and its predecessor, so a damaged one can be narrowed down: the next record tells whether the
stored hash is the one that was written, and a single changed byte of the payload is found by trying all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec

from eventlog.record import (
    HASH_BYTES,
    LEAF_TAG,
    TRAILER_BYTES,
    decode_value,
    genesis_trailer,
    payload_of,
    record_hash,
    trailer_of,
)
from rbcore.errors import UNDECODABLE, Damaged
from rbcore.events import Envelope

SEARCHED_PAYLOAD_BYTES_MAX = 8192
"""Payloads up to this length are searched for a single changed byte: 256 hashes per byte, two seconds at the bound."""


class RecordDamage(msgspec.Struct, frozen=True, kw_only=True):
    """The first record of a log that is not what was written."""

    position: int
    sentence: str
    stream: str = ""
    type: str = ""
    """Empty when the record cannot be decoded."""
    byte_offset: int = -1
    """Offset in the stored record of the first byte that differs; -1 when it cannot be told."""
    field: str = ""
    """Envelope field that the byte belongs to, ``leaf tag`` or ``hash``; empty when it cannot be told."""


def explain(value_at: Callable[[int], bytes | None], log_id: bytes, position: int) -> RecordDamage:
    """Say what is wrong with the record at ``position``, whose predecessor is sound."""
    value = value_at(position)
    if value is None:
        return RecordDamage(position=position, sentence=f"Event {position} is missing.")
    if len(value) <= TRAILER_BYTES:
        return RecordDamage(
            position=position, sentence=f"Event {position} is cut off: {len(value)} bytes are left of it."
        )
    before = value_at(position - 1) if position > 1 else None
    previous_trailer = genesis_trailer(log_id) if before is None else trailer_of(before)
    payload, stored = payload_of(value), value[-HASH_BYTES:]
    computed = record_hash(previous_trailer, payload)
    after = value_at(position + 1)
    follows_stored = after is not None and record_hash(LEAF_TAG + stored, payload_of(after)) == after[-HASH_BYTES:]
    follows_computed = after is not None and record_hash(LEAF_TAG + computed, payload_of(after)) == after[-HASH_BYTES:]
    if computed == stored:
        tag = value[-TRAILER_BYTES]
        sentence = f"The leaf tag of event {position} is {tag:#04x} instead of 0x00."
        return _of(value, position, sentence, byte_offset=len(payload), field="leaf tag")
    if follows_computed or (not follows_stored and _differing(computed, stored) <= 2):
        offset = next(i for i in range(HASH_BYTES) if computed[i] != stored[i])
        sentence = (
            f"The stored hash of event {position} is damaged: byte {len(payload) + 1 + offset} of the record is "
            f"{stored[offset]:#04x} and was {computed[offset]:#04x}. The event itself is unchanged."
        )
        return _of(value, position, sentence, byte_offset=len(payload) + 1 + offset, field="hash")
    return _explain_payload(value, position, previous_trailer, follows_stored=follows_stored)


def _explain_payload(value: bytes, position: int, previous_trailer: bytes, *, follows_stored: bool) -> RecordDamage:
    payload, stored = payload_of(value), value[-HASH_BYTES:]
    found = _changed_byte(previous_trailer, payload, stored)
    if found is not None:
        offset, was = found
        original = payload[:offset] + bytes([was]) + payload[offset + 1 :]
        field = _field_at(original, offset)
        sentence = (
            f"Byte {offset} of event {position} is {payload[offset]:#04x} and was {was:#04x}"
            f"{f', in its field {field}' if field else ''}."
        )
        return _of(original + value[-TRAILER_BYTES:], position, sentence, byte_offset=offset, field=field)
    held = _decoded(value)
    if held is not None and held.position != position:
        return _of(value, position, f"Where event {position} should be there is the record of event {held.position}.")
    where = f"bytes 0 to {len(payload) - 1}" if follows_stored else f"one or more of bytes 0 to {len(value) - 1}"
    told = "The next event vouches for the stored hash. " if follows_stored else ""
    return _of(
        value, position, f"Event {position} is not what was written: {where} of the record differ. {told}".strip()
    )


def _changed_byte(previous_trailer: bytes, payload: bytes, stored: bytes) -> tuple[int, int] | None:
    """(offset, original value) if changing one byte of the payload makes the stored hash fit."""
    if len(payload) > SEARCHED_PAYLOAD_BYTES_MAX:
        return None
    for offset in range(len(payload)):
        before = sha256(previous_trailer + payload[:offset])
        rest = payload[offset + 1 :]
        for value in range(256):
            attempt = before.copy()
            attempt.update(bytes([value]) + rest)
            if attempt.digest() == stored:
                return offset, value
    return None


def _field_at(payload: bytes, offset: int) -> str:
    """Name of the envelope field that holds the byte at ``offset`` of an undamaged payload."""
    try:
        fields = msgspec.msgpack.decode(payload)
    except UNDECODABLE:
        return ""
    names = [*Envelope.__struct_fields__, "answer"]
    end = 1
    if offset < end:
        return "array header"
    for name, content in zip(names, fields, strict=False):
        end += len(msgspec.msgpack.encode(content))
        if offset < end:
            return name
    return ""


def _differing(one: bytes, other: bytes) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def _decoded(value: bytes) -> Envelope | None:
    try:
        return decode_value(value)
    except Damaged:
        return None


def _of(value: bytes, position: int, sentence: str, *, byte_offset: int = -1, field: str = "") -> RecordDamage:
    held = _decoded(value)
    return RecordDamage(
        position=position,
        sentence=sentence,
        stream=held.stream if held else "",
        type=held.type if held else "",
        byte_offset=byte_offset,
        field=field,
    )
