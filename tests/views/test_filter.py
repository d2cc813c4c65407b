"""The grammar of ``filter_data``: what is accepted, what is refused and how, and that text and conditions say the same."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventlog.views.filter import CONDITIONS_MAX, OPERATORS, TEXT_LENGTH_MAX, parse, render
from eventlog.views.port import Condition
from rbcore.errors import InvalidRequest

fields = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=20)
conditions = st.builds(Condition, fields, st.sampled_from(sorted(OPERATORS)), st.text(max_size=40))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  ", ()),
        ('pool_name="test"', (Condition("pool_name", "=", "test"),)),
        ('pool_name~"te"', (Condition("pool_name", "~", "te"),)),
        (
            'last_online<"2024-08-19T19:20:28.614838+03:00"',
            (Condition("last_online", "<", "2024-08-19T19:20:28.614838+03:00"),),
        ),
        ('a!="1",b>="2"&&c<="3"', (Condition("a", "!=", "1"), Condition("b", ">=", "2"), Condition("c", "<=", "3"))),
        (' a = "x, && y" , b > "" ', (Condition("a", "=", "x, && y"), Condition("b", ">", ""))),
        (r'a="say \"hi\" \\ back"', (Condition("a", "=", r'say "hi" \ back'),)),
    ],
)
def test_documented_and_combined_filters_are_read(text: str, expected: tuple[Condition, ...]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "field", "position"),
    [
        ("=", "filter_data", 1),
        ("pool_name", "pool_name", 10),
        ("pool_name=", "pool_name", 11),
        ("pool_name=test", "pool_name", 11),
        ('pool_name="test', "pool_name", 11),
        ('pool_name="te\\nst"', "pool_name", 15),
        ('pool_name="test\\', "pool_name", 17),
        ('pool_name=="test"', "pool_name", 11),
        ('a="1" b="2"', "a", 7),
        ('a="1",', "filter_data", 7),
        ('a="1",,b="2"', "filter_data", 7),
        ('a="1"||b="2"', "a", 6),
        ('имя="1"', "filter_data", 1),
    ],
)
def test_a_refusal_names_field_and_position(text: str, field: str, position: int) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(text)
    assert list(refusal.value.errors) == [field]
    assert f"position {position} " in refusal.value.errors[field][0]
    assert field in refusal.value.message


def test_a_filter_has_bounds() -> None:
    one = Condition("a", "=", "1")
    assert len(parse(render([one] * CONDITIONS_MAX))) == CONDITIONS_MAX
    for text in (render([one] * (CONDITIONS_MAX + 1)), "a" * (TEXT_LENGTH_MAX + 1)):
        with pytest.raises(InvalidRequest, match=r"more than|longer than"):
            parse(text)


@given(st.lists(conditions, max_size=8))
def test_what_is_rendered_is_read_back(given: list[Condition]) -> None:
    assert parse(render(given)) == tuple(given)


@given(st.text() | st.text('ab_1=!~<>,&"\\ ', max_size=30))
@example("\ud800")
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        read = parse(text)
    except InvalidRequest:
        return
    assert parse(render(read)) == read
