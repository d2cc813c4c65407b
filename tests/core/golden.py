"""Shapes of released events, as data: what a log on somebody's disk holds for ever.

``python -m tests.core.golden`` adds shapes that are new. It never changes one that is there: a shape that must change gets the next
``SCHEMA`` number and an upcaster (``eventlog/upcasting.py``), and both stand in the list.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from rbcore.events import all_events

PATH = Path(__file__).parent / "golden" / "events.json"

Shapes = dict[str, dict[str, dict[str, str]]]
"""Event type -> schema number -> field -> its type; a field that old events may lack says so."""


def current() -> Shapes:
    """The shapes of this code."""
    shapes: Shapes = {}
    for name, kind in sorted(all_events().items()):
        fields = {}
        for field in msgspec.structs.fields(kind):
            text = (
                field.type.__name__
                if isinstance(field.type, type) and not hasattr(field.type, "__args__")
                else str(field.type)
            )
            fields[field.name] = text.replace("typing.", "") + ("" if field.required else ", may be absent")
        shapes[name] = {str(kind.SCHEMA): fields}
    return shapes


def released() -> Shapes:
    found: Shapes = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def main() -> None:
    known = released() if PATH.exists() else {}
    for name, schemas in current().items():
        for number, fields in schemas.items():
            known.setdefault(name, {}).setdefault(number, fields)
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
