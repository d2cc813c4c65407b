"""What every entity is."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    KIND: ClassVar[str] = ""
    """Stream kind: ``task`` in ``task/17``."""

    id: int
