"""Block devices of the host, asked and not written: size, whether somebody uses them, and what their signatures say stands on them.

Signatures are found by ``wipefs`` of util-linux (libblkid), which knows file systems, RAID members, volume groups, encrypted volumes and partition tables
by the hundred. It is run as a process of its own: what a hostile disk says of itself is parsed outside of the daemon.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from rbcore.block_device import BlockDeviceFacts
from rbcore.errors import InvalidRequest, Unavailable
from rbcore.ports import Threads

WIPEFS_SECONDS_MAX: Final = 30.0
CONTENTS_MAX: Final = 20
"""Signatures that are named; a disk that shows more has more than enough."""

_BLKROGET: Final = 0x125E
_BLKGETSIZE64: Final = 0x80081272


class _Signature(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    usage: str | None = None
    label: str | None = None


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    signatures: list[_Signature] = msgspec.field(default_factory=list)


class HostBlockDevices:
    """``rbcore.block_device.BlockDevices`` of this host."""

    def __init__(self, threads: Threads, *, wipefs: str = "wipefs") -> None:
        self._threads = threads
        self._wipefs = wipefs

    async def look(self, path: str, known: Sequence[str] = ()) -> BlockDeviceFacts:
        size_bytes = await self._threads.run(partial(_ask, path))
        real_path, same_as = await self._threads.run(partial(_same_as, path, known))
        contents = await self._contents(real_path)
        return BlockDeviceFacts(real_path=real_path, size_bytes=size_bytes, contents=contents, same_as=same_as)

    async def _contents(self, real_path: str) -> list[str]:
        command = [self._wipefs, "--no-act", "--json", "--output", "TYPE,USAGE,LABEL", "--", real_path]
        environment = {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
        with trio.move_on_after(WIPEFS_SECONDS_MAX):
            try:
                done = await trio.run_process(
                    command,
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    env=environment,
                )
            except OSError as error:
                raise Unavailable(
                    f"What stands on {real_path} cannot be told: the program wipefs (util-linux) does not start: {error.strerror}."
                ) from error
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip()[:500]
                raise Unavailable(f"What stands on {real_path} cannot be told: wipefs says: {said or done.returncode}.")
            return _read_report(real_path, done.stdout)
        raise Unavailable(f"{real_path} did not answer within {WIPEFS_SECONDS_MAX:g} s.")


def _read_report(real_path: str, output: bytes) -> list[str]:
    """Each thing once, in the order of the disk; wipefs prints nothing at all where it finds nothing."""
    if not output.strip():
        return []
    try:
        report = msgspec.json.decode(output, type=_Report)
    except msgspec.MsgspecError as error:
        raise Unavailable(
            f"What stands on {real_path} cannot be told: wipefs answers what is not understood."
        ) from error
    found = [_named(one) for one in report.signatures]
    return list(dict.fromkeys(found))[:CONTENTS_MAX]


_USAGES: Final = {
    "filesystem": "file system",
    "partition-table": "partition table",
    "raid": "member",
    "crypto": "encrypted volume",
}


def _named(signature: _Signature) -> str:
    usage = signature.usage or ""
    words = f"{signature.type} {_USAGES.get(usage, usage)}".strip()
    label = "".join(one for one in (signature.label or "") if one.isprintable())[:64]
    return f"{words} '{label}'" if label else words


def _ask(path: str) -> int:
    """Size in bytes. Blocking. Opened for nobody else: the kernel refuses that while a mount, swap, RAID or volume group holds it."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InvalidRequest(f"{path}: {_reason(error)}.") from error
    if not stat.S_ISBLK(mode):
        raise InvalidRequest(f"{path} is no block device, but {_kind(mode)}.")
    try:
        device = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise InvalidRequest(
                f"{path} is in use: it is mounted, or serves as swap, or belongs to a RAID, a volume group or an encrypted volume."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Unavailable(f"The daemon may not open {path}: {error.strerror}.") from error
        raise InvalidRequest(f"{path}: {_reason(error)}.") from error
    try:
        (is_read_only,) = struct.unpack("i", fcntl.ioctl(device, _BLKROGET, bytes(4)))
        (size_bytes,) = struct.unpack("Q", fcntl.ioctl(device, _BLKGETSIZE64, bytes(8)))
    except OSError as error:
        raise Unavailable(f"{path} does not tell its size: {error.strerror}.") from error
    finally:
        os.close(device)
    if is_read_only:
        raise InvalidRequest(f"{path} is read only.")
    if not size_bytes:
        raise InvalidRequest(f"{path} has no medium: its size is 0 bytes.")
    return int(size_bytes)


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR):
        return "there is no such device"
    return f"it cannot be opened: {error.strerror}"


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISCHR(mode):
        return "a character device"
    return "a file" if stat.S_ISREG(mode) else "something else"


def _same_as(path: str, known: Sequence[str]) -> tuple[str, list[str]]:
    """Where the path leads, and which of the known ones lead to the same disk. Blocking."""
    real_path = os.path.realpath(path)
    return real_path, [one for one in known if _overlap(real_path, os.path.realpath(one))]


def _overlap(one: str, other: str) -> bool:
    """Whether two real paths are one device, or one is a partition of the other."""
    return one == other or _whole_disk(one) == other or _whole_disk(other) == one


def _whole_disk(real_path: str) -> str:
    """The disk of a partition; empty for what is none."""
    entry = Path("/sys/class/block") / os.path.basename(real_path)
    if not (entry / "partition").exists():
        return ""
    return f"/dev/{entry.resolve().parent.name}"
