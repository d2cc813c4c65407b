"""``actors.port.TapeLibraries`` of a daemon that reaches no tape devices: there is nothing to add, and nothing to ask."""

from __future__ import annotations

from collections.abc import Sequence

from actors.port import LibraryFacts, TapeCandidate
from rbcore.errors import NotFound, Unavailable


class NoTapeLibraries:
    """Says of everything that it is not there."""

    async def candidates(self, *, automatic: bool) -> list[TapeCandidate]:
        return []

    def candidate(self, id: int) -> TapeCandidate:
        raise NotFound(f"There is no candidate {id}: this daemon reaches no tape devices.", data={"ids": [id]})

    async def describe(self, changer_device: str, drive_devices: Sequence[str] = ()) -> LibraryFacts:
        raise NotFound(f"There is no device {changer_device!r}: this daemon reaches no tape devices.")

    async def synchronise(self, library_id: int) -> list[str]:
        raise Unavailable(f"Library {library_id} cannot be asked: this daemon reaches no tape devices.")

    async def import_cartridges(self, library_id: int, pool_name: str) -> list[int]:
        raise Unavailable(f"Library {library_id} cannot be asked: this daemon reaches no tape devices.")
