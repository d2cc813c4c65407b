"""Events: released shapes do not change, every one has a fold, and bodies can be read without this code."""

from __future__ import annotations

import msgspec
import pytest

from rbcore.events import Event, TaskStatusChanged, all_events
from rbcore.evolve import apply
from rbcore.state import State
from tests.core import golden
from tests.core.world import World

CURRENT, RELEASED = golden.current(), golden.released()


@pytest.mark.parametrize("name", sorted(CURRENT))
def test_a_released_shape_does_not_change(name: str) -> None:
    for number, fields in CURRENT[name].items():
        assert RELEASED.get(name, {}).get(number) == fields, (
            f"{name} schema {number} differs from tests/core/golden/events.json: a new event is added there with "
            "python -m tests.core.golden; a changed one gets the next SCHEMA number and an upcaster"
        )


def test_no_released_event_is_forgotten() -> None:
    assert set(RELEASED) == set(CURRENT)


def test_types_are_named_by_noun_and_past_participle() -> None:
    for name, kind in all_events().items():
        noun, _, happened = name.partition(".")
        assert noun.isidentifier(), kind
        assert happened.isidentifier(), kind


def test_bodies_are_maps_with_field_names() -> None:
    body = msgspec.msgpack.encode(TaskStatusChanged("New", "Killed", "ordered"))
    assert msgspec.msgpack.decode(body)["status"] == "Killed"


@pytest.mark.parametrize(("version", "position"), [(2, 1), (0, 1), (1, 2), (1, 0)])
def test_an_event_out_of_order_is_a_bug_and_changes_nothing(version: int, position: int) -> None:
    world = World().installed()
    _stream, _version, time_ns, _position, _type, _body = world.log[0]
    state, digest = State(), State().digest()
    event: Event = all_events()["record.deleted"]()
    with pytest.raises(AssertionError):
        apply(state, "pool/1", version, time_ns, position, event)
    assert (state.digest(), state.position, state.versions) == (digest, 0, {})
