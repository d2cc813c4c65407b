"""Where a running daemon can be reached: ``daemon.json`` in its home, written when it answers and removed when it stops.

With ``APP_PORT=0`` this file is the only place that knows the port. It says where to knock, not that anybody is there:
after a crash it may be stale, and whoever reads it finds that out by connecting.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from rbcore.errors import UNDECODABLE


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    """Root of the API without a path: ``https://localhost:5656``."""
    server_host: str
    """What agents dial."""
    control_port: int
    data_port: int
    process: int
    """Process id of the daemon."""
    ca_certificate: str
    """Path of the authority's certificate."""
    ca_fingerprint: str
    """SHA-256 of its DER form, hex: what an agent on another host is told."""

    def write(self, path: Path) -> None:
        """Replace the file in one step: a reader sees the old one or the new one."""
        temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
        temporary.replace(path)


def read_endpoint(path: Path) -> Endpoint | None:
    """None when no daemon wrote one, or what stands there is not one."""
    with contextlib.suppress(FileNotFoundError, *UNDECODABLE):
        return msgspec.json.decode(path.read_bytes(), type=Endpoint)
    return None
