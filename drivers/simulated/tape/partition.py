"""One partition of a cartridge: objects (records and filemarks) in a row, and their files. Layout: ``docs/tape-simulator.md``.

What a drive has taken and not yet brought to the tape is ``unwritten``: it lies in the drive's buffer, is gone with its power, and
``flush`` brings it out. The order of a flush: first what was overwritten goes, from the end; then the new objects come, from the
front. Whatever interrupts it, what is found afterwards is a beginning of what was to be there, without a gap.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Final

from rbcore.errors import Damaged
from rbcore.ports import Volume

FILEMARK: Final = -1
"""In place of a size."""
FILEMARK_BYTES: Final = 1024
"""What a filemark takes of the capacity."""
OBJECTS_PER_DIRECTORY: Final = 1000

_NAME: Final = re.compile(r"([0-9]{9})\.(record|filemark)")
_UNFINISHED: Final = ".new"


class Partition:
    """Objects 0 to ``len(self) - 1``; behind the last one is the end of data."""

    def __init__(self, volume: Volume, path: str, capacity_bytes: int, early_warning_bytes: int, wraps: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.early_warning_bytes = early_warning_bytes
        """Room behind the early warning."""
        self.wraps = wraps
        self._volume = volume
        self._path = path
        self._sizes: list[int] = []
        self._starts: list[int] = []
        self._filemarks: list[int] = []
        self._used_bytes = 0
        self._unwritten: dict[int, bytes] = {}
        self._unwritten_bytes = 0
        self._stored = 0
        """Objects that have a file."""
        self._valid = 0
        """Of those, how many are not overwritten."""
        self._scan()

    def __repr__(self) -> str:
        buffered = f", {len(self._sizes) - self._valid} of them in the buffer" if len(self._sizes) > self._valid else ""
        return f"<Partition {len(self._sizes)} objects, {self._used_bytes} of {self.capacity_bytes} bytes{buffered}>"

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def used_bytes(self) -> int:
        return self._used_bytes

    @property
    def unwritten_objects(self) -> int:
        return len(self._sizes) - self._valid

    @property
    def unwritten_bytes(self) -> int:
        return self._unwritten_bytes

    @property
    def wrap_bytes(self) -> float:
        return self.capacity_bytes / self.wraps

    def size(self, number: int) -> int:
        """Of the object in bytes, or ``FILEMARK``."""
        return self._sizes[number]

    def start_bytes(self, position: int) -> int:
        """Where on the tape the object begins, or the end of data."""
        return self._starts[position] if position < len(self._starts) else self._used_bytes

    def is_past_early_warning(self, position: int) -> bool:
        return self.start_bytes(position) > self.capacity_bytes - self.early_warning_bytes

    def fits(self, position: int, size: int) -> bool:
        """Whether an object of this size can be written there."""
        return self.start_bytes(position) + _tape_bytes(size) <= self.capacity_bytes

    def filemarks_before(self, position: int) -> int:
        return bisect_left(self._filemarks, position)

    def filemark(self, number: int) -> int | None:
        """The object number of the filemark with this ordinal; None when there are not so many."""
        return self._filemarks[number] if 0 <= number < len(self._filemarks) else None

    def read(self, number: int) -> bytes:
        """Raises ``Damaged`` when its file is not what it was."""
        held = self._unwritten.get(number)
        if held is not None:
            return held
        size = self._sizes[number]
        file = self._volume.open(self._file(number, size))
        try:
            content = file.read_at(0, size)
        finally:
            file.close()
        if len(content) != size:
            raise Damaged(f"record {number} in {self._path} was {size} bytes long and is {len(content)}")
        return content

    def put(self, position: int, record: bytes | None) -> None:
        """Write one object (None: a filemark) into the buffer; everything that was at and behind ``position`` is gone."""
        size = FILEMARK if record is None else len(record)
        assert 0 <= position <= len(self._sizes)
        assert self.fits(position, size)
        self.cut(position)
        if record is None:
            self._filemarks.append(position)
        self._append(size)
        self._unwritten[position] = record or b""
        self._unwritten_bytes += max(0, size)

    def cut(self, position: int) -> None:
        """Make ``position`` the end of data; on the tape at the next flush."""
        if position >= len(self._sizes):
            return
        for number in range(max(position, self._valid), len(self._sizes)):
            self._unwritten_bytes -= len(self._unwritten.pop(number))
        self._valid = min(self._valid, position)
        self._used_bytes = self._starts[position]
        del self._sizes[position:], self._starts[position:]
        del self._filemarks[bisect_left(self._filemarks, position) :]

    def flush(self, keep: int | None = None) -> bool:
        """Bring the buffer to the tape; whether there was anything to bring.

        ``keep``: the power fails after so many objects of it, and the rest is lost.
        """
        last = len(self._sizes) if keep is None else min(len(self._sizes), self._valid + keep)
        if self._stored == self._valid == last:
            return False
        self._remove_overwritten()
        touched: list[str] = []
        for number in range(self._valid, last):
            directory = self._directory(number)
            if not touched or touched[-1] != directory:
                self._make_durable(touched)
                if number % OBJECTS_PER_DIRECTORY == 0:
                    self._volume.make_directory(directory)
                    self._volume.sync_directory(self._path)
                touched = [directory]
            self._store(number)
        self._make_durable(touched)
        self._stored = self._valid = last
        self._unwritten.clear()
        self._unwritten_bytes = 0
        if last < len(self._sizes):
            self._scan()
        return True

    def lose_buffer(self, keep: int = 0) -> None:
        """The drive lost its power: all but the first ``keep`` objects of its buffer never came to the tape."""
        if keep:
            self.flush(keep)
        self._scan()

    # --- files ---

    def _store(self, number: int) -> None:
        path = self._file(number, self._sizes[number])
        self._volume.remove(path + _UNFINISHED)
        file = self._volume.create(path + _UNFINISHED)
        try:
            if self._unwritten[number]:
                file.write(self._unwritten[number])
            file.sync()
        finally:
            file.close()
        self._volume.rename(path + _UNFINISHED, path)

    def _make_durable(self, directories: list[str]) -> None:
        for directory in directories:
            self._volume.sync_directory(directory)

    def _remove_overwritten(self) -> None:
        """From the end, so that no gap is left by whatever comes between; durable before anything new gets one of the numbers."""
        previous = ""
        for number in range(self._stored - 1, self._valid - 1, -1):
            directory = self._directory(number)
            if previous and previous != directory:
                self._volume.sync_directory(previous)
            previous = directory
            for size in (0, FILEMARK):
                self._volume.remove(self._file(number, size))
        if previous:
            self._volume.sync_directory(previous)
        self._stored = self._valid

    def _scan(self) -> None:
        """Take the objects from their files; what lies behind a gap was being removed or written, and goes."""
        self._sizes, self._starts, self._filemarks = [], [], []
        self._unwritten, self._unwritten_bytes, self._used_bytes = {}, 0, 0
        strays: list[str] = []
        for directory in self._volume.list(self._path):
            for name in self._volume.list(f"{self._path}/{directory}"):
                path = f"{self._path}/{directory}/{name}"
                found = _NAME.fullmatch(name)
                if found is None or int(found[1]) != len(self._sizes):
                    strays.append(path)
                elif found[2] == "filemark":
                    self._filemarks.append(len(self._sizes))
                    self._append(FILEMARK)
                else:
                    self._append(self._volume.size(path))
        for path in reversed(strays):
            self._volume.remove(path)
        self._stored = self._valid = len(self._sizes)

    def _append(self, size: int) -> None:
        self._sizes.append(size)
        self._starts.append(self._used_bytes)
        self._used_bytes += _tape_bytes(size)

    def _directory(self, number: int) -> str:
        return f"{self._path}/{number // OBJECTS_PER_DIRECTORY:06d}"

    def _file(self, number: int, size: int) -> str:
        return f"{self._directory(number)}/{number:09d}.{'filemark' if size == FILEMARK else 'record'}"


def _tape_bytes(size: int) -> int:
    return FILEMARK_BYTES if size == FILEMARK else size
