"""Times as text: microseconds since 1970-01-01 UTC to ISO 8601 and back.

The manual's bodies carry local time without a zone (``2024-08-13T14:33:31.359954``); its filters carry one. So answers are
in the server's zone without saying it, input with a zone means what it says, and input without one is in the server's zone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_BLANK_OFFSET = re.compile(r" (?=\d\d:?\d\d$)")
"""``+03:00`` arrives as `` 03:00`` from a URL in which the plus was not encoded, as in the manual's own curl lines."""


def render(time_us: int, zone: tzinfo) -> str:
    """``2024-08-13T14:33:31.359954`` in ``zone``; always six digits of fraction, so that texts of one zone sort as times."""
    if zone is UTC:
        return (_NAIVE_EPOCH + timedelta(0, 0, time_us)).isoformat("T", "microseconds")
    moment = (_EPOCH + timedelta(0, 0, time_us)).astimezone(zone)
    return moment.replace(tzinfo=None).isoformat("T", "microseconds")


def parse(text: str, zone: tzinfo) -> int:
    """Microseconds since 1970-01-01 UTC. A date alone is its midnight. Raises ``ValueError`` for what is no ISO 8601 time."""
    text = text.strip()
    if "T" in text or "t" in text:
        text = _BLANK_OFFSET.sub("+", text)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    try:
        return (moment - _EPOCH) // _MICROSECOND
    except OverflowError as error:
        raise ValueError(f"{text} is outside of what can be represented") from error
