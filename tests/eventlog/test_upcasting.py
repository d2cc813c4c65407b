"""Old events are read as if they had been written today; the golden logs are the old events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventlog import decode_event
from eventlog.audit import verify
from eventlog.record import decode_value
from eventlog.transfer import import_log, read_export
from eventlog.upcasting import Upcasting, upcast
from rbcore.errors import Damaged
from rbcore.events import Envelope, TaskNoted, TaskRemoved, all_events
from tests.eventlog.golden import DIRECTORY, EXPECTED_FILE, LOG_FILE

GOLDEN = sorted(DIRECTORY.glob("log-v*"))


class Moved(TaskRemoved, frozen=True, gc=False):
    """Not a direct child of ``Event``: it is no event of the house."""

    TYPE = "test.moved"
    SCHEMA = 3
    place: str
    slot: int


def _envelope(schema: int, body: dict[str, Any], type: str = "test.moved") -> Envelope:
    raw = msgspec.Raw(msgspec.msgpack.encode(body))
    return Envelope(7, 1, "task/1", 1, type, schema, "user:rubackup", "c", 0, "c", raw)


@pytest.fixture
def three_schemas() -> Upcasting:
    upcasting = Upcasting({"test.moved": Moved, "task.noted": TaskNoted})
    assert upcasting.missing_steps() == [("test.moved", 1), ("test.moved", 2)]
    upcasting.register("test.moved", 1, lambda body: {"where": body["location"]})
    upcasting.register("test.moved", 2, lambda body: {"place": body["where"].split(":")[0], "slot": int(body["where"].split(":")[1])})  # fmt: skip
    assert upcasting.missing_steps() == []
    return upcasting


@pytest.mark.parametrize(
    ("schema", "body"), [(1, {"location": "a:4"}), (2, {"where": "a:4"}), (3, {"place": "a", "slot": 4})]
)
def test_every_step_is_taken(three_schemas: Upcasting, schema: int, body: dict[str, Any]) -> None:
    upcast_envelope = three_schemas.upcast(_envelope(schema, body))
    assert upcast_envelope.schema == 3
    assert three_schemas.decode_event(upcast_envelope) == Moved("a", 4)
    assert three_schemas.decode_event(_envelope(schema, body)) == Moved("a", 4)


def test_what_is_newer_or_unknown_is_told(three_schemas: Upcasting) -> None:
    with pytest.raises(Damaged, match="written by a newer version"):
        three_schemas.upcast(_envelope(4, {}))
    with pytest.raises(Damaged, match="written by a newer version"):
        three_schemas.decode_event(_envelope(1, {}, type="test.unheard"))
    with pytest.raises(Damaged, match="is damaged"):
        three_schemas.decode_event(_envelope(3, {"place": 1}))
    with pytest.raises(Damaged, match="is damaged"):
        three_schemas.upcast(_envelope(1, {"nowhere": 1}))


def test_there_is_a_golden_log_of_every_event() -> None:
    seen = {
        (one["type"], one["schema"]) for path in GOLDEN for one in json.loads((path / EXPECTED_FILE).read_text("utf-8"))
    }
    now = {(name, kind.SCHEMA) for name, kind in all_events().items()}
    assert now <= seen, (
        f"python -m tests.eventlog.golden log-v{len(GOLDEN) + 1}: {sorted(now - seen)} stand in no golden log"
    )


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_a_golden_log_is_read_as_it_was_written(path: Path) -> None:
    expected = json.loads((path / EXPECTED_FILE).read_text("utf-8"))
    with (path / LOG_FILE).open("rb") as file:
        envelopes = [decode_value(value) for value in read_export(file)]
    assert len(envelopes) == len(expected)
    for position, (envelope, known) in enumerate(zip(envelopes, expected, strict=True), start=1):
        assert (envelope.position, envelope.type, envelope.schema) == (position, known["type"], known["schema"])
        event = decode_event(upcast(envelope))
        if known["schema"] == event.SCHEMA:
            fields = msgspec.to_builtins(event)
            assert {name: fields[name] for name in known["fields"]} == known["fields"]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_a_golden_log_is_still_a_sound_log(path: Path, tmp_path: Path) -> None:
    with (path / LOG_FILE).open("rb") as file:
        end = import_log(file, tmp_path / "log", map_bytes=1 << 28)
    report = verify(tmp_path / "log")
    assert report.sound, report.findings
    assert (report.events, report.root, report.signed_events) == (end.events, end.root.hex(), end.events)
