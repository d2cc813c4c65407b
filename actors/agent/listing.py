"""What an administrator browses on a protected host before choosing a resource: directories, file systems, block devices."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

from rbcore.errors import AccessDenied, InvalidRequest, NotFound, Refused
from rbcore.vocabulary import ResourceType

ROWS_MAX = 10_000


def list_filesystem(path: str) -> list[dict[str, Any]]:
    """Names in the directory ``path``, directories first, each ``{"name", "path", "type", "size", "modified_ns", "filesystem"}``.

    ``filesystem``: type of the file system that is mounted there, else empty. Names that are no UTF-8 are shown with
    backslash escapes. Blocking. Raises ``InvalidRequest``, ``NotFound``, ``AccessDenied``.
    """
    mounts = _mounts()
    rows: list[dict[str, Any]] = []
    for name, found in _entries(path):
        full = os.path.join(path, name)
        rows.append(
            {
                "name": _shown(name),
                "path": _shown(full),
                "type": _type_of(found.st_mode),
                "size": found.st_size,
                "modified_ns": found.st_mtime_ns,
                "filesystem": mounts.get(full, ""),
            }
        )
    rows.sort(key=lambda row: (row["type"] != "directory", row["name"]))
    return rows


def list_block_devices(path: str) -> list[dict[str, Any]]:
    """Block devices below ``path`` (``/dev/``): ``{"name", "path", "size", "device"}``, size in bytes, 0 when unknown. Blocking."""
    rows: list[dict[str, Any]] = []
    for name, found in _entries(path):
        if stat.S_ISBLK(found.st_mode):
            number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
            rows.append(
                {
                    "name": _shown(name),
                    "path": _shown(os.path.join(path, name)),
                    "size": _sectors(number) * 512,
                    "device": number,
                }
            )
    rows.sort(key=lambda row: str(row["name"]))
    return rows


def list_module_resources(resource_type: str) -> list[dict[str, Any]]:
    """What the module of the type finds here: of file systems the mounted ones that hold data, ``{"name", "path", "type", "device"}``,
    ascending by path. Blocking. Raises ``Refused`` for a type without a module."""
    if resource_type != ResourceType.FILE_SYSTEM:
        raise Refused(f"This agent has no module for {resource_type}.")
    virtual = _virtual_types()
    rows: dict[str, dict[str, Any]] = {}
    for source, point, kind in _mounted():
        if kind not in virtual:
            rows[point] = {"name": _shown(point), "path": _shown(point), "type": kind, "device": _shown(source)}
    return [rows[point] for point in sorted(rows)][:ROWS_MAX]


_HOLD_DATA: Final = frozenset(
    {
        "9p",
        "afs",
        "btrfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.sshfs",
        "nfs",
        "nfs4",
        "overlay",
        "smb3",
        "virtiofs",
        "zfs",
    }
)
"""Types that the kernel calls ``nodev`` because no single device is behind them, and that hold data all the same."""


def _virtual_types() -> frozenset[str]:
    """Types of file systems whose contents the kernel makes up."""
    try:
        lines = Path("/proc/filesystems").read_text("ascii", "replace").splitlines()
    except OSError:
        return frozenset()
    nodev = {line.split("\t")[1] for line in lines if line.startswith("nodev\t")}
    return frozenset(nodev) - _HOLD_DATA


def _entries(path: str) -> list[tuple[str, os.stat_result]]:
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequest(f"{path!r} is no absolute path.", errors={"path": ["An absolute path is needed."]})
    found: list[tuple[str, os.stat_result]] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue  # it vanished meanwhile
                if len(found) > ROWS_MAX:
                    raise InvalidRequest(f"{path} holds more than {ROWS_MAX} names: choose one below it.")
    except FileNotFoundError as error:
        raise NotFound(f"{path} is not there.") from error
    except NotADirectoryError as error:
        raise InvalidRequest(f"{path} is no directory.") from error
    except PermissionError as error:
        raise AccessDenied(f"{path} may not be read by the agent.") from error
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error
    return found


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _type_of(mode: int) -> str:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFBLK: "block device"}
    return kinds.get(stat.S_IFMT(mode), "other")


def _mounts() -> dict[str, str]:
    """Mount point -> file system type."""
    return {point: kind for _, point, kind in _mounted()}


def _mounted() -> list[tuple[str, str, str]]:
    """(source, mount point, file system type), as the kernel lists them for this process."""
    try:
        lines = Path("/proc/self/mounts").read_bytes().splitlines()
    except OSError:
        return []
    found: list[tuple[str, str, str]] = []
    for line in lines:
        fields = line.split(b" ")
        if len(fields) >= 3:
            source, point = (os.fsdecode(one.decode("unicode_escape").encode("latin-1")) for one in fields[:2])
            found.append((source, point, fields[2].decode("ascii", "replace")))
    return found


def _sectors(number: str) -> int:
    try:
        return int(Path(f"/sys/dev/block/{number}/size").read_text())
    except (OSError, ValueError):
        return 0
