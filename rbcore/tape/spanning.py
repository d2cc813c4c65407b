"""How parts on several native cartridges make archives: ``docs/format-tape.md``, "Spanning"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from rbcore.tape.native import Places
from rbcore.tape.native_scan import Contents, FoundPart


class PlacedPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part, and of its blocks those that count."""

    volume_tag: str
    cartridge: bytes
    found: FoundPart
    places: Places
    """Empty when the part's containers were skipped: its maps lead to the blocks."""


class FoundArchive(msgspec.Struct, frozen=True, kw_only=True):
    archive: bytes
    parts: list[PlacedPart]
    """Ascending by part number; numbers may be missing."""
    problems: list[str]
    """Why the archive is not whole, for people; empty when it is."""
    wanted_tags: list[str]
    """Cartridges that other parts name as holding a missing part."""

    @property
    def whole(self) -> bool:
        return not self.problems

    @property
    def root(self) -> bytes:
        """Of the final trailer; empty when that was not found."""
        trailer = self.parts[-1].found.trailer
        return trailer.root if trailer is not None else b""


def join_parts(cartridges: Iterable[Contents]) -> list[FoundArchive]:
    """The archives whose parts stand on these cartridges, ascending by id.

    Where a part is there twice (a copied cartridge) the one with more readable blocks is taken. A skipped part is taken to hold what its trailer says.
    """
    by_archive: dict[bytes, dict[int, tuple[Contents, FoundPart]]] = {}
    for contents in cartridges:
        for found in contents.parts:
            parts = by_archive.setdefault(found.archive, {})
            other = parts.get(found.part)
            if other is None or len(other[1].places) < len(found.places):
                parts[found.part] = (contents, found)
    return [_join(archive, parts) for archive, parts in sorted(by_archive.items())]


def _join(archive: bytes, found: dict[int, tuple[Contents, FoundPart]]) -> FoundArchive:
    placed: list[PlacedPart] = []
    problems: list[str] = []
    wanted: list[str] = []
    before = 0
    """Blocks that count in the parts so far."""
    last_number = max(found)
    expected = 1
    for number in sorted(found):
        for sentence, tag in _missing(found, expected, number - 1):
            problems.append(sentence)
            wanted += [tag] if tag else []
        expected = number + 1
        contents, part = found[number]
        if number - 1 in found and part.header.blocks_before != before:
            problems.append(f"{part.header.blocks_before - before} blocks before part {number} cannot be read")
        successor = found.get(number + 1)
        limit = 2**63 if successor is None else successor[1].header.first_block
        places = part.places.below(limit)
        counted = len(places)
        if part.skipped and part.trailer is not None:
            counted = part.trailer.blocks
            if part.trailer.last_block >= limit:
                problems.append(
                    f"part {number} must be read as a whole: its last blocks stand again in part {number + 1}"
                )
        tag = contents.label.volume_tag if contents.label is not None else ""
        placed.append(PlacedPart(volume_tag=tag, cartridge=contents.cartridge, found=part, places=places))
        before = part.header.blocks_before + counted
    trailer = found[last_number][1].trailer
    if trailer is None:
        problems.append(f"part {last_number} has no trailer: the archive was not finished")
    elif not trailer.final:
        tag = trailer.next_tag
        problems.append(f"part {last_number + 1} was not found{f': it is on {tag}' if tag else ''}")
        wanted += [tag] if tag else []
    elif trailer.blocks_total != before:
        problems.append(f"{trailer.blocks_total - before} blocks cannot be read")
    return FoundArchive(archive=archive, parts=placed, problems=problems, wanted_tags=wanted)


def _missing(found: dict[int, tuple[Contents, FoundPart]], first: int, last: int) -> Iterator[tuple[str, str]]:
    """What to say of the parts from ``first`` to ``last``, and the cartridge it names. Only those beside a part that was found can be named, and
    a number on a cartridge may be any: nothing is done for each of those between."""
    between = (first + 1, last - 1)
    for low, high in ((first, min(first, last)), between, (max(first + 1, last), last)):
        if low < high:
            yield f"parts {low} to {high} were not found", ""
        elif low == high:
            tag = _named_tag(found, low)
            yield f"part {low} was not found{f': it is on {tag}' if tag else ''}", tag


def _named_tag(found: dict[int, tuple[Contents, FoundPart]], number: int) -> str:
    """Which cartridge holds part ``number``, by what its neighbours say; empty when they do not."""
    if number + 1 in found and (tag := found[number + 1][1].header.previous_tag):
        return tag
    before = found.get(number - 1)
    return before[1].trailer.next_tag if before is not None and before[1].trailer is not None else ""
