"""The golden log: one event of every released shape, as an export that later versions must still read.

``python -m tests.eventlog.golden NAME`` writes ``tests/golden/NAME/`` from the shapes of this code. It refuses to replace one that is
there: what was released stays, and new shapes go into a new golden log beside it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from eventlog import Batch
from eventlog.lmdb_store import LmdbStore, StoreOptions
from eventlog.sequencer import Sequencer
from eventlog.signing import Signer
from eventlog.transfer import export_log
from rbcore.events import Event, NewEvent, all_events

DIRECTORY = Path(__file__).parent.parent / "golden"
LOG_FILE = "events.rblog"
EXPECTED_FILE = "expected.json"


def sample(kind: type[Event]) -> Event:
    """An event with a telling value in every field."""
    return kind(**{field.name: _value(field.name, field.type) for field in msgspec.structs.fields(kind)})


def _value(name: str, type: Any) -> Any:
    arguments = get_args(type)
    if get_origin(type) is list:
        return [_value(name, arguments[0]), _value(name, arguments[0])]
    if get_origin(type) is tuple:
        return tuple(_value(name, one) for one in arguments if one is not Ellipsis)
    if get_origin(type) is dict:
        return {"größe": 2**40, "liste": [1, "zwei", None, True], "name": name}
    if arguments:
        return _value(name, arguments[0])
    number = int.from_bytes(sha256(name.encode()).digest()[:5], "big")
    samples: dict[Any, Any] = {int: number, str: f"{name} ü", bool: True, float: 0.5, bytes: name.encode()}
    return samples[type]


def write(directory: Path) -> None:
    """Make a golden log of the shapes of this code."""
    directory.mkdir(parents=True)
    expected = []
    with tempfile.TemporaryDirectory() as scratch:
        options = StoreOptions(checkpoint_every_events=10, map_bytes=1 << 28)
        store = LmdbStore(Path(scratch), Signer(sha256(b"golden").digest()), options, log_id=b"golden log of 16")
        sequencer = Sequencer(store)
        for number, (name, kind) in enumerate(sorted(all_events().items()), start=1):
            event = sample(kind)
            commit = sequencer.sequence(
                Batch(
                    events=[NewEvent(f"golden/{number}", event)],
                    expected={},
                    command_id=f"command-{number}",
                    actor="user:rubackup",
                    causation=number - 1,
                    correlation="conversation",
                    time_ns=1_767_225_600_000_000_000 + number,
                    answer=b"\x80",
                )
            )
            store.append([commit])
            sequencer.settle([commit])
            expected.append({"type": name, "schema": kind.SCHEMA, "fields": msgspec.to_builtins(event)})
        store.round_off()
        store.close()
        with (directory / LOG_FILE).open("wb") as file:
            export_log(Path(scratch), file)
    text = json.dumps(expected, indent=1, ensure_ascii=False, sort_keys=True)
    (directory / EXPECTED_FILE).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(DIRECTORY / sys.argv[1])
