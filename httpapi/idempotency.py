"""``Idempotency-Key``: what makes a POST that is sent twice happen once.

The key becomes part of the command id, which the log remembers with the first answer, also over a restart. A digest of what was
asked for is remembered beside it, so that a key that is used again for something else is refused instead of answered wrongly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from rbcore.errors import InvalidRequest

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 128
SECRET_PARTS = ("password",)
"""Fields with these in their names stay out of the digest: the log must not hold what a password could be guessed from."""

_encode = msgspec.json.Encoder(order="sorted").encode


def key_of(headers: Any) -> str:
    """The key of a request; empty: it has none. Raises ``InvalidRequest``."""
    key: str = headers.get(HEADER, "")
    if len(key) > KEY_LENGTH_MAX or not (key.isascii() and (key.isprintable() or not key)):
        raise refusal(f"Must be at most {KEY_LENGTH_MAX} printable ASCII characters.")
    return key


def digest_of(query: Mapping[str, Any], document: Any) -> str:
    """The same for the same parameters and the same JSON, whatever the order of its keys; 32 hexadecimal digits."""
    return hashlib.sha256(_encode([query, _public(document)])).hexdigest()[:32]


def refusal(sentence: str) -> InvalidRequest:
    return InvalidRequest("Bad request", errors={HEADER: [sentence]})


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _public(one) for name, one in value.items() if not any(part in name for part in SECRET_PARTS)}
    if isinstance(value, list):
        return [_public(one) for one in value]
    return value
