"""Intervals as the API writes them (``1 year``, ``30 days``, ``1 Years``, ``1 min``) and moments as it writes those (ISO 8601).

An interval is months, days and seconds, because a month and a day have no fixed length: ``1 year`` after 29 February is 28 February.
Moments are nanoseconds since 1970-01-01 UTC; a text without a zone is read as UTC. All of it is calendar arithmetic in UTC.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta

import msgspec

YEARS_MAX = 200
"""Longest interval. Far enough for every archive, near enough that every moment fits into 64 bits of nanoseconds (year 2262)."""
NS_MAX = 2**63 - 1

_UNITS: dict[str, tuple[str, int]] = {
    "year": ("months", 12),
    "month": ("months", 1),
    "mon": ("months", 1),
    "week": ("days", 7),
    "day": ("days", 1),
    "hour": ("seconds", 3600),
    "minute": ("seconds", 60),
    "min": ("seconds", 60),
    "second": ("seconds", 1),
    "sec": ("seconds", 1),
}
_PART = re.compile(r"([0-9]{1,9})\s*([a-z]+)|([0-9]{1,9}):([0-5][0-9])(?::([0-5][0-9]))?", re.ASCII)
_TEXT_LENGTH_MAX = 200


class Duration(msgspec.Struct, frozen=True):
    """Months and days of the calendar, and seconds. Never negative."""

    months: int = 0
    days: int = 0
    seconds: int = 0

    def __str__(self) -> str:
        """Normalised text: ``1 year 6 months``, ``30 days``, ``1 hour 30 min``; nothing at all is ``0 sec``."""
        years, months = divmod(self.months, 12)
        hours, rest = divmod(self.seconds, 3600)
        minutes, seconds = divmod(rest, 60)
        parts = [
            _counted(years, "year"),
            _counted(months, "month"),
            _counted(self.days, "day"),
            _counted(hours, "hour"),
            f"{minutes} min" if minutes else "",
            f"{seconds} sec" if seconds else "",
        ]
        return " ".join(part for part in parts if part) or "0 sec"


def _counted(number: int, unit: str) -> str:
    return "" if not number else f"1 {unit}" if number == 1 else f"{number} {unit}s"


def parse_interval(text: str) -> Duration:
    """Read an interval. Raises ``ValueError`` with a sentence; units in any case, singular or plural, ``HH:MM[:SS]`` too."""
    lowered = text.strip().lower()
    if not lowered or len(lowered) > _TEXT_LENGTH_MAX:
        raise ValueError("an interval is a number and a unit, such as '1 year' or '30 days'")
    totals = {"months": 0, "days": 0, "seconds": 0}
    end = 0
    for part in _PART.finditer(lowered):
        if lowered[end : part.start()].strip(" ,"):
            break
        end = part.end()
        number, unit, hours, minutes, seconds = part.groups()
        if unit is None:
            totals["seconds"] += int(hours) * 3600 + int(minutes) * 60 + int(seconds or 0)
            continue
        known = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s"))
        if known is None:
            raise ValueError(f"'{unit}' is not a unit of time: use year, month, week, day, hour, min or sec")
        totals[known[0]] += int(number) * known[1]
    if lowered[end:].strip(" ,"):
        raise ValueError(
            f"'{text.strip()}' is not an interval: write a number and a unit, such as '1 year' or '30 days'"
        )
    found = Duration(**totals)
    if found.months / 12 + found.days / 365 + found.seconds / (365 * 86400) > YEARS_MAX:
        raise ValueError(f"an interval is at most {YEARS_MAX} years")
    return found


def later(moment_ns: int, duration: Duration) -> int:
    """``moment_ns`` plus the interval by the calendar: months first (the day is clipped to the month), then days, then seconds."""
    seconds, fraction_ns = divmod(moment_ns, 10**9)
    start = datetime.fromtimestamp(seconds, tz=UTC)
    month_number = start.year * 12 + start.month - 1 + duration.months
    year, month = divmod(month_number, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    end = start.replace(year=year, month=month + 1, day=day) + timedelta(days=duration.days, seconds=duration.seconds)
    return min(_whole_seconds(end) * 10**9 + fraction_ns, NS_MAX)


def _whole_seconds(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86400 + since.seconds


def parse_moment(text: str) -> int:
    """ISO 8601, with or without zone (then UTC), as nanoseconds. Raises ``ValueError`` with a sentence."""
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError) as wrong:
        raise ValueError(f"'{text[:64]}' is not a time: write ISO 8601, such as 2026-08-13T14:33:31+03:00") from wrong
    moment_ns = _whole_seconds(moment) * 10**9 + moment.microsecond * 1000
    if not 0 <= moment_ns <= NS_MAX:
        raise ValueError("a time lies between 1970 and 2262")
    return moment_ns


def format_moment(moment_ns: int) -> str:
    """ISO 8601 in UTC with microseconds and zone, ``2026-08-13T14:33:31.359954+00:00``."""
    seconds, fraction_ns = divmod(moment_ns, 10**9)
    return (
        datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=fraction_ns // 1000).isoformat("T", "microseconds")
    )
