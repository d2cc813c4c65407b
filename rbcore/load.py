"""How busy a media server is: a fact of the outside that the choice of a pool is given."""

from __future__ import annotations

import msgspec


class ServerLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How busy a media server was, averaged over the period that was asked for."""

    media_server_id: int
    cpu_percent: float
    """Of all its processors: 0 to 100."""
    in_operations: float
    """Writes to its block devices, per second."""
    out_operations: float
    """Reads from them, per second."""
