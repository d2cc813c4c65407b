"""Conditions against rows: every comparison means what the oracle says in plain Python, now and at past positions."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.simulated.world import InlineThreads
from eventlog.views import LOGS, Condition, Query, SqliteViewReader, ViewSchema, by_name, rebuild
from eventlog.views.port import Operator
from rbcore import resource as declared
from rbcore.errors import InvalidRequest
from rbcore.resource import Resource
from rbcore.resources import RESOURCES
from tests.views import oracle
from tests.views.histories import WORDS, History, ListedLog

SCHEMA = ViewSchema(RESOURCES, LOGS)
EVENTS = 600
OPERATORS: tuple[Operator, ...] = get_args(Operator)


class Built:
    """One history and its views, for every test of this module."""

    def __init__(self, folder: Path) -> None:
        self.envelopes = History(7).grow(EVENTS).envelopes
        self.log = ListedLog(self.envelopes)
        path = folder / "views.sqlite"
        rebuild(self.log.as_log(), path, SCHEMA)
        self.reader = SqliteViewReader(
            path, SCHEMA, InlineThreads(), head=lambda: self.log.head, position_at=self.log.position_at
        )
        self._records: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def records(self, resource: Resource, position: int) -> list[dict[str, Any]]:
        key = (resource.name, position)
        if key not in self._records:
            state = oracle.state_at(self.envelopes, position)
            self._records[key] = oracle.records(resource, state, RESOURCES)
        return self._records[key]

    def page(self, query: Query) -> Any:
        return trio.run(partial(self.reader.page, query))


@pytest.fixture(scope="module", params=[by_name.VALUES_MAX, 2])
def built(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Built]:
    """Once with columns of few values, once with such that have too many to be walked value by value."""
    made = Built(tmp_path_factory.mktemp("views"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_name, "VALUES_MAX", request.param)
        yield made
    trio.run(made.reader.close)


def field_of(resource: Resource, name: str) -> declared.Field | None:
    return None if name == "id" else resource.field(name)


def some_value(draw: random.Random, field: declared.Field | None, rows: list[dict[str, Any]], name: str) -> str:
    """Mostly what some row shows or a part of it, sometimes anything."""
    shown = [row[name] for row in rows if row[name] is not None]
    picked = draw.choice(shown) if shown and draw.random() < 0.8 else draw.choice(WORDS)
    if isinstance(picked, list):
        picked = draw.choice(picked) if picked else ""
    if isinstance(picked, bool):
        return draw.choice(("true", "false", "yes", "no", "TRUE"))
    text = str(picked)
    if draw.random() < 0.3 and isinstance(field, declared.Text | declared.Reference | declared.TextList) and text:
        start = draw.randrange(len(text))
        text = draw.choice((str.upper, str.lower, str.casefold))(text[start : start + draw.randrange(1, 4)])
    return text


def fits(condition: Condition, field: declared.Field | None) -> bool:
    """May this operator and this value be used with the field?"""
    operator, value = condition.operator, condition.value
    kind = "integer" if field is None else getattr(field, "kind", "")
    if isinstance(field, declared.TextList):
        return operator in ("=", "!=", "~")
    if kind == "boolean" or isinstance(field, declared.Boolean | declared.YesNo):
        return operator in ("=", "!=") and value.lower() in ("", "true", "false", "yes", "no")
    number = kind == "integer" or isinstance(field, declared.Integer)
    time = kind == "timestamp" or isinstance(field, declared.Timestamp)
    if not number and not time:
        return True
    if operator == "~" or (value == "" and operator not in ("=", "!=")):
        return False
    pattern = r"-?\d+" if number else r"\d{4}-\d\d-\d\dT[\d:.]+"
    return value == "" or re.fullmatch(pattern, value) is not None


@given(seed=st.integers(0, 2**32), walked=st.booleans())
@settings(max_examples=500, deadline=None)
def test_lists_equal_the_oracle(built: Built, seed: int, walked: bool) -> None:
    by_name.SORTED_ROWS_MAX = 0 if walked else 200  # type: ignore[misc]  # both ways to sort by names of references
    draw = random.Random(seed)
    resource = draw.choice(RESOURCES)
    at = draw.choice((None, draw.randrange(EVENTS + 1), EVENTS // 2))
    everything = built.records(resource, built.log.head if at is None else at)
    names = ["id", *(one.name for one in resource.fields if not isinstance(one, declared.JsonObject))]
    conditions = [
        Condition(
            name := draw.choice(names),
            draw.choice(OPERATORS),
            some_value(draw, field_of(resource, name), everything, name),
        )
        for _ in range(draw.choice((0, 1, 1, 2)))
    ]
    sortable = [name for name in names if not isinstance(field_of(resource, name), declared.TextList)]
    sort_by, descending = draw.choice(sortable), draw.random() < 0.5
    limit, page = draw.choice((1, 7, 1000)), draw.choice((1, 1, 2, 5))
    scopes = draw.choice((None, None, None, 0, 1, 2))
    visible = None if scopes is None else [("id", draw.sample(range(1, 60), 15)) for _ in range(scopes)]
    query = Query(
        resource=resource.name, conditions=conditions, sort_by=sort_by, descending=descending,
        page=page, limit=limit, at=at, visible=visible,
    )  # fmt: skip
    unfit = [one for one in conditions if not fits(one, field_of(resource, one.field))]
    if unfit:
        with pytest.raises(InvalidRequest) as refusal:
            built.page(query)
        assert list(refusal.value.errors) == [unfit[0].field]
        return
    answer = built.page(query)
    expected = [
        row
        for row in everything
        if all(oracle.holds(one, field_of(resource, one.field), row) for one in conditions)
        and (visible is None or any(row["id"] in allowed for _, allowed in visible))
    ]
    expected.sort(key=lambda row: oracle.sort_key(row[sort_by], row["id"]), reverse=descending)
    shown = ("id", *(one.name for one in resource.fields if one.in_list))
    rows = [{name: row[name] for name in shown} for row in expected]
    assert answer.rows == rows[(page - 1) * limit : page * limit], query
    assert answer.total == len(expected), query


@pytest.mark.parametrize(
    ("resource", "condition", "sentence"),
    [
        ("pool_list", Condition("colour", "=", "red"), "is not a field of pool_list"),
        ("pool_list", Condition("block_size", "~", "16"), "cannot be compared by ~"),
        ("pool_list", Condition("block_size", ">", "many"), "a whole number"),
        ("pool_list", Condition("id", "=", "9" * 30), "a whole number"),
        ("pool_list", Condition("id", "=", str(2**63)), "a whole number"),
        ("pool_list", Condition("id", "<", ""), "a whole number"),
        ("task_queue", Condition("created", "<", "yesterday"), "an ISO 8601 time"),
        ("task_queue", Condition("created", "<", "2024-13-01"), "an ISO 8601 time"),
        ("task_queue", Condition("archiving", "=", "perhaps"), "true, false, yes or no"),
        ("task_queue", Condition("archiving", "<", "true"), "cannot be compared by <"),
        ("task_queue", Condition("parameters", "=", "{}"), "free-form parameters"),
        ("clients", Condition("resource_types", "<", "a"), "is a list"),
        ("pool_list", Condition("pool_name", "=", "\ud800"), "cannot be encoded"),
        ("pool_list", Condition("pool_name", "~", "x" * 20_000), "longer than"),
    ],
)
def test_a_refusal_names_the_field(built: Built, resource: str, condition: Condition, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        built.page(Query(resource=resource, conditions=[condition]))
    assert list(refusal.value.errors) == [condition.field]
    assert sentence in refusal.value.errors[condition.field][0]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"sort_by": "colour"}, "colour"),
        ({"sort_by": "parameters"}, "parameters"),
        ({"page": 0}, "page"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"at": EVENTS * 2}, "at"),
        ({"at": -1}, "at"),
    ],
)
def test_a_query_beyond_its_bounds_is_refused(built: Built, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        built.page(Query(resource="task_queue", **arguments))
    assert list(refusal.value.errors) == [field]


@given(value=st.text(), name=st.sampled_from([one.name for one in SCHEMA.tables["clients"].columns.values()]))
@settings(max_examples=200, deadline=None)
def test_no_value_raises_anything_else(built: Built, value: str, name: str) -> None:
    for operator in OPERATORS:
        query = Query(resource="clients", conditions=[Condition(name, operator, value)])
        with contextlib.suppress(InvalidRequest):
            built.page(query)


def test_substrings_know_no_case_in_any_script(built: Built) -> None:
    pools = built.records(next(one for one in RESOURCES if one.name == "pool_list"), built.log.head)
    for part in ("СЕРВЕР", "сервер", "STRASSE", "straße", "STORE", "i̇zmir", "50%", "a_b", 'a"b', "a\\b", "L\0"):
        page = built.page(
            Query(
                resource="pool_list", limit=1000, conditions=[Condition("description", "~", part.replace("L\0", "\0l"))]
            )
        )
        wanted = part.replace("L\0", "\0l").casefold()
        assert page.rows == [row for row in pools if wanted in row["description"].casefold()]
