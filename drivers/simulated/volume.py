"""A disk in memory with the faults of real ones, as a ``Volume``.

The fault model:

- What was written and not synced may be lost, wholly or page by page (zeros), or cut anywhere, when the machine crashes.
- A truncation that was not synced may be undone by a crash.
- Creations, renames and removals in a directory are durable after ``sync_directory``; of those after it a crash keeps a prefix, per directory.
- The disk is full at ``capacity_bytes``: the write that does not fit leaves a part of itself.
- Bits rot, sectors become unreadable, and one write may land in another place while its own place stays empty.
- ``before_each`` is called before each operation and may raise: a crash at any step.

What it never does: lose or change what was synced, except by the faults asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from rbcore.errors import Damaged, NotFound, Refused, StorageFull, Unavailable
from rbcore.ports import Randomness, VolumeRoom

PAGE_BYTES: Final = 4096


@dataclass(slots=True, eq=False)
class _File:
    content: bytearray = field(default_factory=bytearray)
    durable_size: int = 0
    before_truncation: bytes | None = None
    """What was durable when it was truncated, until the truncation is durable itself."""
    unreadable: list[tuple[int, int]] = field(default_factory=list)

    def size(self) -> int:
        return len(self.content)


@dataclass(slots=True, frozen=True)
class _Change:
    """A rename within a directory is one change: a crash leaves the old name or the new one."""

    removed: str | None
    added: str | None = None
    node: _Node | None = None

    def apply(self, entries: dict[str, _Node]) -> None:
        if self.removed is not None:
            entries.pop(self.removed, None)
        if self.added is not None and self.node is not None:
            entries[self.added] = self.node


@dataclass(slots=True, eq=False)
class _Directory:
    entries: dict[str, _Node] = field(default_factory=dict)
    durable: dict[str, _Node] = field(default_factory=dict)
    pending: list[_Change] = field(default_factory=list)
    """Since the last sync, in order."""

    def change(self, removed: str | None, added: str | None = None, node: _Node | None = None) -> None:
        change = _Change(removed, added, node)
        self.pending.append(change)
        change.apply(self.entries)

    def size(self) -> int:
        return sum(node.size() for node in self.entries.values())


_Node: TypeAlias = _File | _Directory


class SimulatedVolume:
    """``rbcore.ports.Volume``."""

    def __init__(self, *, capacity_bytes: int = 1 << 40, before_each: Callable[[str, str], None] | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.before_each = before_each
        """``before_each(operation, path)``."""
        self._root = _Directory()
        self._used = 0
        self._crashed = False
        self._misdirection: tuple[_File, int] | None = None

    def __repr__(self) -> str:
        return f"<SimulatedVolume {self._used} of {self.capacity_bytes} bytes{' crashed' if self._crashed else ''}>"

    # --- Volume ---

    def create(self, path: str) -> SimulatedFile:
        self._step("create", path)
        parent, name = self._parent(path)
        if name in parent.entries:
            raise FileExistsError(path)
        node = _File()
        parent.change(None, name, node)
        return SimulatedFile(self, path, node, writable=True)

    def open(self, path: str, *, writable: bool = False) -> SimulatedFile:
        self._step("open", path)
        return SimulatedFile(self, path, self._file(path), writable=writable)

    def exists(self, path: str) -> bool:
        self._step("exists", path)
        return self._find(path) is not None

    def list(self, path: str) -> list[str]:
        self._step("list", path)
        node = self._find(path)
        return sorted(node.entries) if isinstance(node, _Directory) else []

    def size(self, path: str) -> int:
        self._step("size", path)
        return self._file(path).size()

    def make_directory(self, path: str) -> None:
        self._step("make_directory", path)
        node = self._root
        for name in path.split("/"):
            found = node.entries.get(name)
            if found is None:
                found = _Directory()
                node.change(None, name, found)
            if not isinstance(found, _Directory):
                raise Unavailable(f"{path}: {name} is a file")
            node = found

    def rename(self, source: str, target: str) -> None:
        self._step("rename", source)
        origin, old_name = self._parent(source)
        goal, new_name = self._parent(target)
        node = origin.entries.get(old_name)
        if node is None:
            raise NotFound(f"{source} is not there")
        replaced = goal.entries.get(new_name)
        if replaced is not None and (isinstance(replaced, _Directory) or isinstance(node, _Directory)):
            raise Unavailable(f"{target} is there already")
        self._used -= replaced.size() if replaced is not None else 0
        if origin is goal:
            origin.change(old_name, new_name, node)
        else:
            goal.change(None, new_name, node)
            origin.change(old_name)

    def remove(self, path: str) -> int:
        """A directory goes file by file, as on a real disk: a crash may come between."""
        self._step("remove", path)
        parent, name = self._parent(path, missing_is_fine=True)
        node = parent.entries.get(name)
        if node is None:
            return 0
        if isinstance(node, _Directory):
            freed = sum([self.remove(f"{path}/{inner}") for inner in sorted(node.entries)])
        else:
            freed = node.size()
            self._used -= freed
        parent.change(name)
        return freed

    def protect(self, path: str, *, on: bool) -> None:
        self._step("protect", path)
        if on:
            raise Refused("a simulated volume knows no immutable files")

    def overwrite(self, path: str) -> Iterator[None]:
        self._step("overwrite", path)
        node = self._find(path)
        if not isinstance(node, _File):
            raise NotFound(f"{path} is not there")
        node.content[:] = bytes(len(node.content))
        yield

    def sync_directory(self, path: str) -> None:
        self._step("sync_directory", path)
        node = self._find(path)
        if not isinstance(node, _Directory):
            raise NotFound(f"{path} is not there")
        node.durable = dict(node.entries)
        node.pending.clear()

    def free_bytes(self) -> int:
        self._step("free_bytes", "")
        return max(0, self.capacity_bytes - self._used)

    def room(self) -> VolumeRoom:
        return VolumeRoom(size_bytes=self.capacity_bytes, free_bytes=self.free_bytes(), file_system=0)

    # --- faults ---

    def crash(self, randomness: Randomness) -> SimulatedVolume:
        """The machine loses power. This volume and its files are dead; what survives is a new one, all of it durable."""
        self._crashed = True
        survivor = SimulatedVolume(capacity_bytes=self.capacity_bytes)
        survivor._root = _survivors(self._root, _Draw(randomness), {})
        survivor._used = survivor._root.size()
        return survivor

    def flip_bit(self, path: str, bit: int) -> None:
        """Bit rot: bit 0 is the lowest of the first byte."""
        self._file(path).content[bit // 8] ^= 1 << (bit % 8)

    def spoil(self, path: str, offset: int, length: int) -> None:
        """Reads that touch this range fail from now on."""
        self._file(path).unreadable.append((offset, offset + length))

    def misdirect_next_write(self, path: str, offset: int) -> None:
        """The next write to any file lands in ``path`` at ``offset``; its own place gets zeros."""
        self._misdirection = (self._file(path), offset)

    # --- behind both ---

    def _step(self, operation: str, path: str) -> None:
        if self._crashed:
            raise Unavailable("the machine has crashed")
        if path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in path.split("/") if path):
            raise ValueError(f"{path!r} is not a path within a volume")
        if self.before_each is not None:
            self.before_each(operation, path)

    def _write(self, node: _File, data: memoryview) -> None:
        room = max(0, self.capacity_bytes - self._used)
        kept = data[:room]
        self._used += len(kept)
        if self._misdirection is not None:
            target, offset = self._misdirection
            self._misdirection = None
            hit = min(len(kept), max(0, len(target.content) - offset))
            target.content[offset : offset + hit] = kept[:hit]
            node.content += bytes(len(kept))
        else:
            node.content += kept
        if len(kept) < len(data):
            raise StorageFull(f"no room for {len(data)} bytes on a simulated disk of {self.capacity_bytes}")

    def _truncate(self, node: _File, size: int) -> None:
        if size < node.durable_size and node.before_truncation is None:
            node.before_truncation = bytes(node.content[: node.durable_size])
        node.durable_size = min(node.durable_size, size)
        self._used += size - len(node.content)
        if size < len(node.content):
            del node.content[size:]
        else:
            node.content += bytes(size - len(node.content))

    def _find(self, path: str) -> _Node | None:
        node: _Node = self._root
        for name in path.split("/") if path else ():
            if not isinstance(node, _Directory) or name not in node.entries:
                return None
            node = node.entries[name]
        return node

    def _file(self, path: str) -> _File:
        node = self._find(path)
        if not isinstance(node, _File):
            raise NotFound(f"{path} is not there")
        return node

    def _parent(self, path: str, *, missing_is_fine: bool = False) -> tuple[_Directory, str]:
        above, _, name = path.rpartition("/")
        node = self._find(above)
        if isinstance(node, _Directory):
            return node, name
        if missing_is_fine:
            return _Directory(), name
        raise NotFound(f"{above} is not there")


class SimulatedFile:
    """``rbcore.ports.VolumeFile``."""

    def __init__(self, volume: SimulatedVolume, path: str, node: _File, *, writable: bool) -> None:
        self._volume = volume
        self._path = path
        self._node = node
        self._writable = writable

    def write(self, data: bytes | memoryview) -> None:
        self._change("write")
        self._volume._write(self._node, memoryview(data).cast("B"))

    def read_at(self, offset: int, length: int) -> bytes:
        self._volume._step("read", self._path)
        end = min(offset + length, len(self._node.content))
        for start, stop in self._node.unreadable:
            if offset < stop and start < end:
                raise Damaged(f"{self._path} cannot be read at {start}", data={"offset": start})
        return bytes(self._node.content[offset:end])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        found = self.read_at(offset, len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def size(self) -> int:
        return self._node.size()

    def truncate(self, size: int) -> None:
        self._change("truncate")
        self._volume._truncate(self._node, size)

    def sync(self) -> None:
        self._volume._step("sync", self._path)
        self._node.durable_size = self._node.size()
        self._node.before_truncation = None

    def close(self) -> None:
        self._writable = False

    def _change(self, operation: str) -> None:
        self._volume._step(operation, self._path)
        assert self._writable, f"{self._path} is not open for writing"


class _Draw:
    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness

    def below(self, bound: int) -> int:
        """0 to ``bound`` - 1; the tiny bias of the remainder does not matter here."""
        return int.from_bytes(self._randomness.token_bytes(8), "little") % bound


def _survivors(directory: _Directory, draw: _Draw, seen: dict[int, _Node]) -> _Directory:
    entries = dict(directory.durable)
    for change in directory.pending[: draw.below(len(directory.pending) + 1)]:
        change.apply(entries)
    survivor = _Directory()
    for name in sorted(entries):
        node = entries[name]
        copy = seen.get(id(node))
        if copy is None:
            copy = _survivors(node, draw, seen) if isinstance(node, _Directory) else _survivor(node, draw)
            seen[id(node)] = copy
        survivor.entries[name] = copy
    survivor.durable = dict(survivor.entries)
    return survivor


def _survivor(file: _File, draw: _Draw) -> _File:
    if file.before_truncation is not None and draw.below(2):
        content = bytearray(file.before_truncation)
    else:
        kept = min(file.durable_size, len(file.content))
        content = file.content[: kept + draw.below(len(file.content) - kept + 1)]
        start = kept
        while start < len(content):
            end = min((start // PAGE_BYTES + 1) * PAGE_BYTES, len(content))
            if draw.below(4) == 0:
                content[start:end] = bytes(end - start)
            start = end
    return _File(content=content, durable_size=len(content), unreadable=list(file.unreadable))
