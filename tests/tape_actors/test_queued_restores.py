"""Restores that wait in the queue take a cartridge into a drive once, however they are mixed."""

from __future__ import annotations

from pathlib import Path

from tests.tape_actors.queued_restores import loads_by_queued_restores


async def test_queued_restores_mount_each_cartridge_once(tmp_path: Path) -> None:
    """``bench.tape mounts`` does the same with a thousand restores."""
    loads = await loads_by_queued_restores(tmp_path, cartridges=10, backups_each=2, restores=80, seconds_max=60.0)
    assert set(loads.values()) == {1}, loads
