"""A scratch tree with every kind of file its maker is allowed to create, and changes to it that a backup must notice.

Deterministic: the same seed makes the same bytes and names. What the file system or the user may not create (devices without
root, attributes on a file system that has none) is left out and named in the answer.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

MIB = 1024 * 1024
NS = 1_000_000_000
WORDS = ("segment", "cartridge", "catalogue", "retention", "manifest", "parity", "drive", "window", "shelf", "offsite")


class Scratch:
    """The tree below ``root``, which must not exist yet."""

    def __init__(
        self,
        root: Path,
        *,
        seed: int = 1,
        big_bytes: int = 24 * MIB,
        sparse_bytes: int = 512 * MIB,
        small_files: int = 400,
    ) -> None:
        self.root = root
        self.left_out: list[str] = []
        self._random = random.Random(seed)  # noqa: S311 - content of test files
        self._big_bytes = big_bytes
        self._sparse_bytes = sparse_bytes
        self._small_files = small_files

    # --- first state --------------------------------------------------------------------------------------------------

    def make(self) -> None:
        self.root.mkdir(parents=True)
        self._contents()
        self._names()
        self._links()
        self._directories()
        self._attempt("fifo", lambda: os.mkfifo(self.root / "fifo", 0o640))
        self._attempt("socket", self._socket)
        self._attempt("character device", lambda: os.mknod(self.root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)))
        self._attempt("block device", lambda: os.mknod(self.root / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 3)))
        self._attributes()
        self._times()

    def _contents(self) -> None:
        folder = self.root / "content"
        folder.mkdir()
        (folder / "empty").touch()
        (folder / "one byte").write_bytes(b"\0")
        (folder / "text.txt").write_text(self._text(3 * MIB))
        (folder / "noise.bin").write_bytes(self._random.randbytes(5 * MIB + 1))
        (folder / "zeros.bin").write_bytes(bytes(2 * MIB))
        half = self._big_bytes // 2
        (folder / "big.mixed").write_bytes(self._text(half).encode() + self._random.randbytes(half))
        with open(folder / "sparse.img", "wb") as file:
            for offset in (0, self._sparse_bytes // 70 + 123, self._sparse_bytes // 2):
                file.seek(offset)
                file.write(self._random.randbytes(4096))
            file.truncate(self._sparse_bytes + 1)
        with open(folder / "only a hole", "wb") as file:
            file.truncate(self._sparse_bytes // 8)
        many = self.root / "many"
        for number in range(self._small_files):
            below = many / f"{number % 13:02d}"
            below.mkdir(parents=True, exist_ok=True)
            (below / f"{self._random.choice(WORDS)}-{number}.log").write_text(self._text(self._random.randrange(4000)))

    def _names(self) -> None:
        folder = os.fsencode(self.root / "names")
        os.mkdir(folder)
        names = (
            b"not utf-8 \xff\xfe\x80",
            b"new\nline",
            b"tab\tand\\backslash",
            "снимок 📼 naïve".encode(),
            b"-rf",
            b" leading and trailing ",
            b"...",
            b"quote'\"`$(x)",
            b"n" * 255,
            b"\x01\x1b[31mred",
        )
        for name in names:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(name)
        deep = self.root / "deep"
        for level in range(40):
            deep = deep / f"level {level}"
        deep.mkdir(parents=True)
        (deep / "bottom").write_text("here")

    def _links(self) -> None:
        folder = self.root / "links"
        folder.mkdir()
        (folder / "original").write_text("shared by three names")
        os.link(folder / "original", folder / "second name")
        (self.root / "aside").mkdir()
        os.link(folder / "original", self.root / "aside" / "third name")
        os.symlink("original", folder / "relative")
        os.symlink("/etc/hostname", folder / "absolute")
        os.symlink("nowhere/at all", folder / "dangling")
        os.symlink("..", folder / "to a directory")
        os.symlink(b"bytes \xff", os.fsencode(folder / "odd target"))

    def _directories(self) -> None:
        for name, mode in (
            ("private", 0o700),
            ("shared", 0o1777),
            ("setgid", 0o2775),
            ("empty", 0o755),
            ("read only", 0o555),
        ):
            (self.root / "directories" / name).mkdir(parents=True)
            (self.root / "directories" / name).chmod(mode)

    def _socket(self) -> None:
        here = os.getcwd()
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(self.root)  # a socket's path may have 107 bytes only
            try:
                listener.bind("socket")
            finally:
                os.chdir(here)

    def _attributes(self) -> None:
        folder = self.root / "attributes"
        folder.mkdir()
        for name, mode in (("setuid", 0o4755), ("setgid", 0o2755), ("plain", 0o644), ("write only for others", 0o602)):
            (folder / name).write_text(name)
            (folder / name).chmod(mode)
        marked = folder / "marked"
        marked.write_text("has extended attributes")
        self._attempt("user attributes", lambda: os.setxattr(marked, "user.origin", b"\0binary\xff value"))
        self._attempt("directory attributes", lambda: os.setxattr(folder, "user.empty", b""))
        acl = struct.pack("<I", 2) + b"".join(
            struct.pack("<HHI", tag, allowed, who)
            for tag, allowed, who in (
                (1, 6, 2**32 - 1),
                (2, 4, 1),
                (4, 4, 2**32 - 1),
                (16, 6, 2**32 - 1),
                (32, 0, 2**32 - 1),
            )
        )
        controlled = folder / "access list"
        controlled.write_text("has an access control list")
        self._attempt("access control list", lambda: os.setxattr(controlled, "system.posix_acl_access", acl))
        if os.geteuid() == 0:
            foreign = folder / "foreign"
            foreign.write_text("belongs to nobody here")
            self._attempt("foreign owner", lambda: os.chown(foreign, 61234, 61235))
            locked = folder / "no permissions"
            locked.write_text("only root reads this")
            locked.chmod(0)

    def _times(self) -> None:
        folder = self.root / "times"
        folder.mkdir()
        moments = {
            "before 1970": -86_400 * NS + 7,
            "nanoseconds": 1_700_000_000 * NS + 123_456_789,
            "future": 4_102_444_800 * NS,
        }
        for name, moment in moments.items():
            (folder / name).write_text(name)
            self._attempt(f"time {name}", lambda name=name, moment=moment: os.utime(folder / name, ns=(moment, moment)))  # type: ignore[misc]
        os.utime(self.root / "links" / "dangling", ns=(NS, NS + 5), follow_symlinks=False)
        os.utime(folder, ns=(2 * NS, 3 * NS + 3))

    # --- changes ------------------------------------------------------------------------------------------------------

    def change(self) -> None:
        """Changes of every kind, some of which neither size nor modification time give away."""
        content, links = self.root / "content", self.root / "links"
        with open(content / "text.txt", "a") as file:
            file.write("appended\n")
        os.truncate(content / "noise.bin", MIB + 17)
        self._rewrite_secretly(content / "zeros.bin")
        with open(content / "big.mixed", "r+b") as file:
            file.seek(self._big_bytes // 3)
            file.write(b"changed in the middle")
        with open(content / "sparse.img", "r+b") as file:
            file.seek(self._sparse_bytes // 4 * 3)
            file.write(b"a new island")
        shutil.rmtree(self.root / "many" / "03")
        (self.root / "many" / "04").rename(self.root / "many" / "renamed")
        (self.root / "new folder").mkdir()
        (self.root / "new folder" / "new file").write_text(self._text(100_000))
        (links / "second name").unlink()
        os.link(content / "one byte", links / "fourth name")
        (links / "relative").unlink()
        os.symlink("second target", links / "relative")
        (self.root / "attributes" / "plain").chmod(0o600)
        self._attempt(
            "user attributes", lambda: os.setxattr(self.root / "attributes" / "marked", "user.origin", b"other")
        )
        self._swap_kinds()
        (self.root / "directories" / "empty").rmdir()
        os.utime(self.root / "times" / "nanoseconds", ns=(5, 1_700_000_000 * NS + 987_654_321))

    def _rewrite_secretly(self, path: Path) -> None:
        """Other bytes under the same size and modification time: only the change time tells."""
        before = path.stat()
        with open(path, "r+b") as file:
            file.seek(MIB)
            file.write(b"not zero any more")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _swap_kinds(self) -> None:
        """A file becomes a directory, a directory becomes a file."""
        file, folder = self.root / "content" / "empty", self.root / "directories" / "private"
        file.unlink()
        file.mkdir()
        (file / "inside").write_text("was a file before")
        folder.rmdir()
        folder.write_text("was a directory before")

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _text(self, length: int) -> str:
        line = " ".join(self._random.choice(WORDS) for _ in range(12))
        return "".join(f"{number} {line}\n" for number in range(length // (len(line) + 4) + 1))[:length]

    def _attempt(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self.left_out.append(f"{what} ({error.strerror})")
