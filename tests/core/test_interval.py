"""Intervals and moments: what is read, what is written back, and how the calendar adds them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbcore.interval import NS_MAX, YEARS_MAX, Duration, format_moment, later, parse_interval, parse_moment

DURATIONS = st.builds(
    Duration,
    months=st.integers(0, 12 * 60),
    days=st.integers(0, 365 * 60),
    seconds=st.integers(0, 60 * 365 * 86_400),
)
MOMENTS = st.integers(0, NS_MAX)


def moment(text: str) -> int:
    return parse_moment(text)


@pytest.mark.parametrize(
    ("given_text", "normalised"),
    [
        ("1 Years", "1 year"),
        ("1 year", "1 year"),
        ("1 min", "1 min"),
        ("  90   MINUTES ", "1 hour 30 min"),
        ("18 months", "1 year 6 months"),
        ("1 mon", "1 month"),
        ("2 weeks", "14 days"),
        ("1 year 2 mons 3 days 04:05:06", "1 year 2 months 3 days 4 hours 5 min 6 sec"),
        ("00:01", "1 min"),
        ("1 year, 1 day", "1 year 1 day"),
        ("3hours", "3 hours"),
        ("0 days", "0 sec"),
    ],
)
def test_reads_what_the_manual_writes(given_text: str, normalised: str) -> None:
    assert str(parse_interval(given_text)) == normalised


@pytest.mark.parametrize(
    "text",
    ["", " ", "year", "1", "1 fortnight", "-1 day", "1 day -", "x 1 day", "1 day x", "1.5 days", "12:75", "1e3 days",
     "9999999999 days", f"{YEARS_MAX + 1} years", "1 " + "y" * 300, "١ day"],
)  # fmt: skip
def test_refuses_the_rest_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"interval|unit of time"):
        parse_interval(text)


@given(DURATIONS)
def test_text_and_back(duration: Duration) -> None:
    assert parse_interval(str(duration)) == duration


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        duration = parse_interval(text)
    except ValueError:
        return
    assert parse_interval(str(duration)) == duration


@given(MOMENTS, DURATIONS)
def test_adding_never_goes_back_nor_beyond_64_bits(start: int, duration: Duration) -> None:
    assert start <= later(start, duration) <= NS_MAX


@given(st.integers(0, 4 * 10**18), DURATIONS)
def test_adding_keeps_the_fraction_of_the_second(start: int, duration: Duration) -> None:
    assert later(start, duration) % 10**9 == start % 10**9


@pytest.mark.parametrize(
    ("start", "interval", "end"),
    [
        ("2024-02-29T12:00:00", "1 year", "2025-02-28T12:00:00"),
        ("2024-01-31T00:00:00", "1 month", "2024-02-29T00:00:00"),
        ("2023-12-31T23:59:59", "2 months", "2024-02-29T23:59:59"),
        ("2024-01-31T00:00:00", "1 month 1 day", "2024-03-01T00:00:00"),
        ("2026-03-28T12:00:00", "1 day 01:00:00", "2026-03-29T13:00:00"),
    ],
)
def test_months_and_days_are_those_of_the_calendar(start: str, interval: str, end: str) -> None:
    assert later(moment(start), parse_interval(interval)) == moment(end)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2261, 12, 31)))
def test_moments_and_back(given_moment: datetime) -> None:
    moment_ns = parse_moment(given_moment.isoformat())
    assert parse_moment(format_moment(moment_ns)) == moment_ns
    assert datetime.fromisoformat(format_moment(moment_ns)) == given_moment.replace(tzinfo=UTC)


def test_zones_are_honoured() -> None:
    assert moment("2024-08-19T19:20:28.614838+03:00") == moment("2024-08-19T16:20:28.614838")


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "1969-12-31T23:59:59", "2300-01-01", "2024-13-01", "0001-01-01T00:00+14:00"]
)
def test_refuses_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_moment(text)
