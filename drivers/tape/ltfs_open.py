"""Where an LTFS volume stands: its current index, and whether and where it may be written. Looks only, writes nothing.

The cartridge's memory leads to the index when it says that nothing was written since; otherwise both partitions are searched from their ends.
"""

from __future__ import annotations

from typing import Final

import msgspec

from drivers.tape.ltfs_medium import FoundEnd, FoundIndex, LastIndex, LtfsMedium
from rbcore import errors
from rbcore.tape.ltfs import Index, Pointer
from rbcore.tape.ltfs_parts import blocked_by
from rbcore.tape.ltfs_volume import PartitionEnd, Standing, judge, trusted_block

_WRITTEN_VERSIONS: Final = ("2.0", "2.1", "2.2", "2.3", "2.4")
"""A volume of a later version may hold what an index of ours would not carry on."""


class VolumeState(msgspec.Struct, frozen=True, kw_only=True):
    """What opening found."""

    current: FoundIndex | None
    last: dict[str, LastIndex | None]
    """The last index of each partition, by its letter."""
    problem: str = ""
    """Why the volume must not be written; empty: it may."""


async def find_state(medium: LtfsMedium) -> VolumeState:
    """Raises what drives raise; a volume without an index has none."""
    state = await _by_memory(medium) or await _by_search(medium)
    if state.current is None or state.problem:
        return state
    problem = _forbidden(state.current.index)
    return msgspec.structs.replace(state, problem=problem) if problem else state


def _forbidden(index: Index) -> str:
    """Why the index itself says that nothing may be written behind it."""
    if index.lock_state not in (None, "unlocked"):
        return f"it is locked ({index.lock_state})"
    if index.highest_uid == 0:
        return "it has given all the file numbers that there are"
    if index.version.rpartition(".")[0] not in _WRITTEN_VERSIONS:
        return f"its index is of version {index.version}, later than what is written here"
    return blocked_by(index.root)


async def _by_memory(medium: LtfsMedium) -> VolumeState | None:
    coherencies = await medium.coherencies()
    place = trusted_block(coherencies, medium.label, await medium.change_reference())
    of_index, of_data = coherencies.get(medium.index_letter), coherencies.get(medium.data_letter)
    if place is None or of_index is None or of_data is None:
        return None
    found = await _index_or_none(medium, *place)
    if found is None or found.index.generation != max(of_index.generation, of_data.generation):
        return None
    if place[0] == medium.index_letter and found.index.previous != Pointer(medium.data_letter, of_data.block):
        return None
    return VolumeState(
        current=found,
        last={
            medium.index_letter: LastIndex(of_index.generation, of_index.block),
            medium.data_letter: LastIndex(of_data.generation, of_data.block),
        },
    )


async def _index_or_none(medium: LtfsMedium, letter: str, block: int) -> FoundIndex | None:
    try:
        return await medium.read_index_at(letter, block)
    except errors.MediumFailed:
        return None


async def _by_search(medium: LtfsMedium) -> VolumeState:
    of_index, of_data = await medium.find_end(medium.index_letter), await medium.find_end(medium.data_letter)
    ends = (of_index, of_data)
    verdict = judge(*(PartitionEnd(index=_index_of(end), trailing=end.trailing) for end in ends))
    current = next((end.last for end in ends if end.last and end.last.index is verdict.current), None)
    problem = ""
    if verdict.standing in (Standing.NO_INDEX, Standing.CONTRADICTION):
        problem = verdict.standing.value
    elif of_data.unreadable:
        problem = "what stands at the end of its data partition cannot be read, and may be an index"
    return VolumeState(
        current=current,
        last={medium.index_letter: LastIndex.of(of_index.last), medium.data_letter: LastIndex.of(of_data.last)},
        problem=problem,
    )


def _index_of(end: FoundEnd) -> Index | None:
    return None if end.last is None else end.last.index
