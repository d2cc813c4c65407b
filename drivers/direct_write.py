"""Writes at offsets past the page cache, for large files that are restored.

Measured per GiB on a virtual disk: through the page cache 2.7 s of processor when the kernel must find fresh pages, as it must for
gigabytes that come all at once; direct 0.11 s and a copy into an aligned buffer. A restored file is read much later, if at all.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Final

from drivers.volume import ALIGNMENT, STAGE_BYTES, Bounces

DIRECT_BYTES_MIN: Final = 256 * 1024
"""Shorter runs go through the page cache."""
_DIRECT_FLAG: Final = getattr(os, "O_DIRECT", 0)


class DirectWriter:
    """Writes to the open file ``fd``, whose close is the owner's matter. Safe to use from several threads."""

    def __init__(self, fd: int, bounces: Bounces) -> None:
        self._fd = fd
        self._bounces = bounces
        self._direct_fd = _reopened(fd)

    def write(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Pieces ascending by offset. Raises ``OSError``."""
        for offset, run in _runs(pieces):
            self._write_run(offset, run)

    def close(self) -> None:
        fd, self._direct_fd = self._direct_fd, -1
        if fd >= 0:
            os.close(fd)

    def _write_run(self, offset: int, run: list[memoryview]) -> None:
        length = sum(map(len, run))
        direct_bytes = length - length % ALIGNMENT
        if self._direct_fd < 0 or offset % ALIGNMENT or direct_bytes < DIRECT_BYTES_MIN:
            _pwritev(self._fd, run, offset)
            return
        buffer = self._bounces.take()
        try:
            tail = self._through(buffer, offset, direct_bytes, run)
        finally:
            self._bounces.give_back(buffer)
        if tail:
            _pwritev(self._fd, tail, offset + direct_bytes)

    def _through(self, buffer: mmap.mmap, offset: int, direct_bytes: int, run: list[memoryview]) -> list[memoryview]:
        """Write the first ``direct_bytes`` of the run through the buffer; what is left of it."""
        window = memoryview(buffer)
        filled = 0
        left = list(run)
        while direct_bytes:
            wanted = min(len(left[0]), STAGE_BYTES - filled, direct_bytes - filled)
            window[filled : filled + wanted] = left[0][:wanted]
            left[0] = left[0][wanted:]
            if not left[0]:
                left.pop(0)
            filled += wanted
            if filled in (STAGE_BYTES, direct_bytes):
                self._write_window(window[:filled], offset)
                offset += filled
                direct_bytes -= filled
                filled = 0
        return left

    def _write_window(self, window: memoryview, offset: int) -> None:
        done = 0
        while done < len(window):
            fd = self._fd if done % ALIGNMENT else self._direct_fd
            try:
                done += os.pwrite(fd, window[done:], offset + done)
            except OSError:
                if fd == self._fd:
                    raise
                # The device wants a coarser alignment than ours, or is full: the page cache knows which.
                done += os.pwrite(self._fd, window[done:], offset + done)


def _reopened(fd: int) -> int:
    """A second descriptor of the same file past the page cache; -1 where the file system cannot do that."""
    if not _DIRECT_FLAG:
        return -1
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC | _DIRECT_FLAG)
    except OSError:
        return -1


def _runs(pieces: Sequence[tuple[int, memoryview]]) -> Iterator[tuple[int, list[memoryview]]]:
    """Pieces that follow each other without a gap, together."""
    start, end, run = 0, -1, list[memoryview]()
    for offset, content in pieces:
        if not content:
            continue
        if offset != end and run:
            yield start, run
            run = []
        if not run:
            start = offset
        run.append(content)
        end = offset + len(content)
    if run:
        yield start, run


def _pwritev(fd: int, run: list[memoryview], offset: int) -> None:
    for content in run:
        done = 0
        while done < len(content):
            done += os.pwrite(fd, content[done:], offset + done)
        offset += len(content)
