"""Trees to back up: many small real files, and fewer large ones, half text and half random."""

from __future__ import annotations

import os
import random
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SMALL_FILE_BYTES_MAX = 512 * 1024
MIB = 1024 * 1024
LARGE_FILE_BYTES = 4 * MIB


def small_files(folder: Path, count: int) -> int:
    """Copy ``count`` regular files of /usr with their directories, in path order; bytes. Again and again when there are not enough.

    Copies, not links: a further name of a file would not be a file of its own to a backup.
    """
    done = size = round_number = 0
    while done < count:
        root = folder / str(round_number)
        found = 0
        for path in _regular_files("/usr"):
            if done == count:
                break
            target = root / path.lstrip("/")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
            except OSError:
                continue  # files of a live system come and go
            done += 1
            found += 1
            size += target.stat().st_size
        assert found, "/usr holds no files"
        round_number += 1
    return size


def _regular_files(top: str) -> Iterator[str]:
    for folder, directories, names in os.walk(top):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            if os.path.getsize(path) <= SMALL_FILE_BYTES_MAX:
                yield path


def large_files(folder: Path, count: int) -> int:
    """``count`` files of 4 MiB: text and random bytes in turn, nothing twice; bytes."""
    draw = random.Random(1)
    lines: list[bytes] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        lines += path.read_bytes().splitlines(keepends=True)
    folder.mkdir(parents=True)
    for number in range(count):
        if number % 2:
            content = draw.randbytes(LARGE_FILE_BYTES)
        else:
            chosen = bytearray()
            while len(chosen) < LARGE_FILE_BYTES:
                chosen += b"".join(draw.choices(lines, k=20_000))
            content = bytes(chosen[:LARGE_FILE_BYTES])
        (folder / f"{number:05}").write_bytes(content)
    return count * LARGE_FILE_BYTES
