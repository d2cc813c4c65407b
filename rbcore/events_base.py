"""What the body of every event is. The events themselves: ``rbcore.events``."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """Base of event bodies. ``TYPE`` is the name in the log."""

    TYPE: ClassVar[str] = ""
    SCHEMA: ClassVar[int] = 1
