"""Small trees to back up, and what makes two of them equal."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path
from typing import Any


def make_tree(root: Path, seed: int = 1, *, files: int = 40, large_bytes: int = 3_000_000) -> Path:
    """Directories, small files, one large one, a hole, links, odd names and times."""
    draw = random.Random(seed)
    root.mkdir(parents=True)
    for number in range(files):
        folder = root / f"d{number % 5}" / f"e{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(draw.randbytes(draw.randrange(20_000)))
    (root / "empty").touch()
    (root / "large").write_bytes(draw.randbytes(large_bytes))
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(1_000_000)
        sparse.seek(500_000)
        sparse.write(b"island")
    (root / "link").symlink_to("d0/e0/f0")
    os.link(root / "large", root / "twin")
    os.close(os.open(bytes(root) + b"/odd\xff\n name", os.O_CREAT | os.O_WRONLY, 0o640))
    (root / "d1").chmod(0o750)
    os.utime(root / "empty", ns=(1, 1_234_567_890_123_456_789))
    return root


def describe(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Every name with what a restore has to bring back."""
    found: dict[bytes, tuple[Any, ...]] = {}
    base = bytes(root)
    for folder, directories, files in os.walk(base):
        for name in [*directories, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content: Any = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, base)] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                0 if stat.S_ISDIR(status.st_mode) else status.st_nlink,
                status.st_mtime_ns,
                content,
            )
    return found
