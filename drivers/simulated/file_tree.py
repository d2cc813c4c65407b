"""The names of a simulated host: the port of file trees in memory, and the calls by which a test or simulation changes them.

One ``SimulatedTrees`` is one host's name space. Times come from a counter, so every change has a time of its own and a run of the
simulation repeats exactly. ``snapshot`` is what the oracle compares: everything a restore must bring back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from rbcore.archive.manifest import path_order_key
from rbcore.archive.model import Entry, EntryType
from rbcore.errors import InvalidRequest, NotFound
from rbcore.file_tree import FileContent, Problem, RangeContent, Run, ScanBatch, SmallFile, SourceTree, TargetTree

BATCH_ENTRIES: Final = 64
EPOCH_NS: Final = 1_000_000_000
TICK_NS: Final = 1_000_000


@dataclass(slots=True, eq=False)
class Node:
    """What a name stands for; several names of one file share it. A file's content is its data runs, the rest is hole."""

    type: EntryType
    inode: int
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    owner: str = "root"
    group: str = "root"
    mtime_ns: int = 0
    atime_ns: int = 0
    ctime_ns: int = 0
    content: bytes = b""
    holes: bool = False
    """Runs of zeros of at least 4096 bytes are holes."""
    link_target: bytes = b""
    rdev: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    flags: int = 0


class SimulatedTrees:
    """``rbcore.file_tree.Trees`` of one simulated host. Paths are absolute strings; bytes that are no UTF-8 as surrogate escapes."""

    def __init__(self) -> None:
        self._now_ns = EPOCH_NS
        self._inode = 1
        self.restores: dict[bytes, str] = {}
        """Destinations whose root belongs to a restore, as a mark on the root would say."""
        self.nodes: dict[bytes, Node] = {}
        """By absolute path without the leading ``/``."""
        self.on_read: Callable[[str], None] = lambda _path: None
        """Called before the content of a file is read: change the tree here to have files vanish, grow or shrink."""
        self.unreadable: set[str] = set()
        """Files whose content the device cannot read."""
        self.nodes[b""] = self._new(EntryType.DIRECTORY, mode=0o755)

    def __repr__(self) -> str:
        return f"<SimulatedTrees {len(self.nodes)} names>"

    # --- changing the tree ------------------------------------------------------------------------------------------

    def tick(self) -> int:
        """The time of the next change."""
        self._now_ns += TICK_NS
        return self._now_ns

    def make_directory(self, path: str) -> None:
        """With its parents, where they are not there."""
        key = _key(path)
        parts = key.split(b"/") if key else []
        for count in range(1, len(parts) + 1):
            part = b"/".join(parts[:count])
            if part not in self.nodes:
                self.put(part, self._new(EntryType.DIRECTORY, mode=0o755))

    def write(self, path: str, content: bytes, *, holes: bool = False) -> None:
        """A file with this content; an existing one keeps its inode."""
        key = _key(path)
        found = self.nodes.get(key)
        if found is None or found.type is not EntryType.FILE:
            found = self._new(EntryType.FILE)
            self.put(key, found)
        found.content, found.holes = content, holes
        found.mtime_ns = found.ctime_ns = self.tick()

    def make_special(self, path: str, type: EntryType, *, link_target: bytes = b"", rdev: int = 0) -> None:
        """A symbolic link, pipe, socket or device."""
        node = self._new(type, mode=0o777 if type is EntryType.SYMLINK else 0o600)
        node.link_target, node.rdev = link_target, rdev
        self.put(_key(path), node)

    def link(self, source: str, path: str) -> None:
        """A further name of a file."""
        node = self.nodes[_key(source)]
        self.put(_key(path), node)
        node.ctime_ns = self.tick()

    def change(self, path: str, **metadata: Any) -> None:
        """Set fields of the node: ``mode``, ``uid``, ``mtime_ns``, ``xattrs`` ..."""
        node = self.nodes[_key(path)]
        for name, value in metadata.items():
            setattr(node, name, value)
        node.ctime_ns = self.tick()

    def remove(self, path: str) -> None:
        """A name and everything below it; nothing happens when it is not there."""
        key = _key(path)
        gone = [one for one in self.nodes if one == key or one.startswith(key + b"/")]
        for one in gone:
            del self.nodes[one]
        if gone:
            self._touch_parent(key)

    def names(self, path: str) -> list[str]:
        """Absolute paths of everything below ``path``, in manifest order."""
        key = _key(path)
        below = [one for one in self.nodes if _below(one, key) and one != key]
        return ["/" + one.decode("utf-8", "surrogateescape") for one in sorted(below, key=path_order_key)]

    def snapshot(self, path: str) -> dict[str, Any]:
        """Everything below ``path``, itself included, by relative path: what must be the same after a restore."""
        key = _key(path)
        first_names: dict[int, str] = {}
        found: dict[str, Any] = {}
        for name in sorted((one for one in self.nodes if _below(one, key)), key=path_order_key):
            node = self.nodes[name]
            relative = name[len(key) :].lstrip(b"/").decode("utf-8", "surrogateescape")
            found[relative] = (
                node.type.name, node.mode, node.uid, node.gid, node.mtime_ns, node.atime_ns, node.content,
                node.link_target, node.rdev, tuple(sorted(node.xattrs.items())), node.flags,
                first_names.setdefault(node.inode, relative),
            )  # fmt: skip
        return found

    # --- the port ---------------------------------------------------------------------------------------------------

    def source(self, resource: str, *, one_file_system: bool = False) -> SourceTree:
        if _key(resource) not in self.nodes:
            raise NotFound(f"{resource} does not exist on the client")
        return _SimulatedSource(self, _key(resource))

    def target(
        self, destination: str, *, numeric_owner: bool = False, root_metadata: bool = False, restore: str = ""
    ) -> TargetTree:
        key = _key(destination)
        found = self.nodes.get(key)
        if found is not None and found.type is not EntryType.DIRECTORY:
            raise InvalidRequest(f"{destination} on the client is not a directory.")
        empty = not self.names(destination)
        self.make_directory(destination)
        root_metadata = root_metadata or empty or (restore != "" and self.restores.get(key) == restore)
        if root_metadata:
            self.restores[key] = restore
        return _SimulatedTarget(self, key, root_metadata=root_metadata)

    # --- within the module ------------------------------------------------------------------------------------------

    def put(self, key: bytes, node: Node) -> None:
        """A name in an existing directory."""
        parent = self.nodes.get(key.rpartition(b"/")[0])
        if parent is None or parent.type is not EntryType.DIRECTORY:
            raise NotFound(f"{key!r} does not lie in a directory")
        self.nodes[key] = node
        self._touch_parent(key)

    def new_node(self, entry: Entry) -> Node:
        """As ``entry`` describes it, without content."""
        node = self._new(EntryType.FILE if entry.type is EntryType.HARDLINK else entry.type)
        self.describe(node, entry)
        node.link_target, node.rdev = entry.link_target, entry.rdev
        return node

    def describe(self, node: Node, entry: Entry) -> None:
        """Set all metadata that a restore sets."""
        node.mode, node.uid, node.gid = entry.mode, entry.uid, entry.gid
        node.owner, node.group = entry.owner, entry.group
        node.mtime_ns, node.atime_ns = entry.mtime_ns, entry.atime_ns
        node.xattrs, node.flags = dict(entry.xattrs), entry.flags

    def links(self, node: Node) -> int:
        return 1 if node.type is EntryType.DIRECTORY else sum(1 for one in self.nodes.values() if one is node)

    def _new(self, type: EntryType, mode: int = 0o644) -> Node:
        self._inode += 1
        now_ns = self.tick()
        return Node(type, self._inode, mode=mode, mtime_ns=now_ns, atime_ns=now_ns, ctime_ns=now_ns)

    def _touch_parent(self, key: bytes) -> None:
        parent = self.nodes.get(key.rpartition(b"/")[0])
        if parent is not None:
            parent.mtime_ns = parent.ctime_ns = self.tick()


class _SimulatedSource:
    def __init__(self, trees: SimulatedTrees, root: bytes) -> None:
        self._trees = trees
        self._root = root

    def scan(self) -> Iterator[ScanBatch]:
        """As on a real file system: every batch sees the names as they are when it is its turn."""
        seen: dict[int, bytes] = {}
        last: bytes | None = None
        while True:
            below = [one for one in self._trees.nodes if _below(one, self._root)]
            left = sorted(one for one in map(path_order_key, below) if last is None or one > last)
            if not left:
                return
            entries: list[Entry] = []
            sparse: set[int] = set()
            for key in left[:BATCH_ENTRIES]:
                last = key
                node = self._trees.nodes[key.replace(b"\0", b"/")]
                path = key.replace(b"\0", b"/")[len(self._root) :].lstrip(b"/")
                if node.holes:
                    sparse.add(len(entries))
                first = seen.setdefault(node.inode, path)
                entries.append(self._entry(path, node, None if first == path else first))
            yield ScanBatch(entries, frozenset(sparse))

    def _entry(self, path: bytes, node: Node, linked_to: bytes | None = None) -> Entry:
        file = node.type is EntryType.FILE
        return Entry(
            path, EntryType.HARDLINK if linked_to is not None else node.type, node.mode, node.uid, node.gid, node.owner,
            node.group, node.mtime_ns, node.ctime_ns, len(node.content) if file and linked_to is None else 0, 1, node.inode,
            self._trees.links(node), [], node.link_target if linked_to is None else linked_to, node.rdev,
            {} if file else dict(node.xattrs), "", node.atime_ns, 0 if file else node.flags,
        )  # fmt: skip

    def _find(self, path: bytes) -> tuple[Node | None, str]:
        key = _join(self._root, path)
        shown = "/" + key.decode("utf-8", "surrogateescape")
        self._trees.on_read(shown)
        if shown in self._trees.unreadable:
            return None, "cannot be read: Input/output error"
        node = self._trees.nodes.get(key)
        if node is None:
            return None, "vanished before it was read"
        if node.type is not EntryType.FILE:
            return None, "was replaced by something that is not a regular file"
        return node, ""

    def read_small(self, entries: Sequence[Entry]) -> list[FileContent]:
        return [self._read_small(entry) for entry in entries]

    def _read_small(self, entry: Entry) -> FileContent:
        node, problem = self._find(entry.path)
        if node is None:
            return FileContent(msgspec.structs.replace(entry, problem=problem), b"", ())
        found = msgspec.structs.replace(self._entry(entry.path, node), xattrs=dict(node.xattrs), flags=node.flags)
        runs = _runs(node, 0, len(node.content), len(node.content) + 1)
        return FileContent(found, b"".join(node.content[start : start + length] for start, length in runs), runs)

    def describe(self, entry: Entry) -> Entry:
        node, problem = self._find(entry.path)
        if node is None:
            return msgspec.structs.replace(entry, problem=problem)
        return msgspec.structs.replace(
            self._entry(entry.path, node), xattrs=dict(node.xattrs), flags=node.flags, size=entry.size
        )

    def data_runs(self, entry: Entry, offset: int, limit: int) -> list[Run]:
        node = self._trees.nodes.get(_join(self._root, entry.path))
        return [(offset, entry.size - offset)] if node is None else _runs(node, offset, entry.size, limit)

    def read_range(self, entry: Entry, runs: Sequence[Run]) -> RangeContent:
        node, problem = self._find(entry.path)
        if node is None:
            return RangeContent([b""] * len(runs), problem)
        parts = [node.content[start : start + length] for start, length in runs]
        if (node.inode, len(node.content), node.mtime_ns) == (entry.inode, entry.size, entry.mtime_ns):
            return RangeContent(parts)
        now = len(node.content)
        return RangeContent(
            parts, f"changed while it was backed up: size {entry.size}, then {now}", now if now < entry.size else -1
        )

    def close(self) -> None:
        """Nothing is held."""


class _SimulatedTarget:
    def __init__(self, trees: SimulatedTrees, root: bytes, *, root_metadata: bool) -> None:
        self._trees = trees
        self._root = root
        self._root_metadata = root_metadata

    def _put(self, entry: Entry, node: Node, problems: list[Problem]) -> bool:
        """The name, if no directory stands in its place and it lies in one."""
        key = _join(self._root, entry.path)
        standing = self._trees.nodes.get(key)
        if standing is not None and standing.type is EntryType.DIRECTORY:
            problems.append((entry.path, "was not restored: a directory stands in its place"))
            return False
        try:
            self._trees.put(key, node)
        except NotFound:
            problems.append((entry.path, "was not restored: something that is not a directory stands in its path"))
            return False
        return True

    def make_directories(self, entries: Sequence[Entry]) -> list[Problem]:
        problems: list[Problem] = []
        for entry in entries:
            standing = self._trees.nodes.get(_join(self._root, entry.path))
            if standing is None or standing.type is not EntryType.DIRECTORY:
                node = self._trees.new_node(msgspec.structs.replace(entry, mode=0o700))
                self._put(entry, node, problems)
        return problems

    def make_parents(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[Problem]]:
        lacking = [entry for entry in entries if _join(self._root, entry.path) not in self._trees.nodes]
        return lacking, self.make_directories(lacking)

    def write_small(self, files: Sequence[SmallFile]) -> list[Problem]:
        problems: list[Problem] = []
        for file in files:
            node = self._trees.new_node(file.entry)
            content = bytearray(file.entry.size)
            for offset, piece in file.pieces:
                content[offset : offset + len(piece)] = piece
            node.content, node.holes = bytes(content), _has_holes(file.entry)
            self._put(file.entry, node, problems)
        return problems

    def create_large(self, entry: Entry) -> _SimulatedLarge:
        node = self._trees.new_node(entry)
        problems: list[Problem] = []
        if not self._put(entry, node, problems):
            raise NotFound(problems[0][1])
        return _SimulatedLarge(self._trees, entry, node)

    def make_special(self, entries: Sequence[Entry]) -> list[Problem]:
        problems: list[Problem] = []
        for entry in entries:
            self._put(entry, self._trees.new_node(entry), problems)
        return problems

    def make_links(self, entries: Sequence[Entry]) -> list[Problem]:
        problems: list[Problem] = []
        for entry in entries:
            node = self._trees.nodes.get(_join(self._root, entry.link_target))
            if node is None:
                problems.append((entry.path, "was not restored: No such file or directory"))
            else:
                self._put(entry, node, problems)
        return problems

    def finish_directories(self, entries: Sequence[Entry]) -> list[Problem]:
        for entry in entries:
            node = self._trees.nodes.get(_join(self._root, entry.path))
            if node is not None and (entry.path or self._root_metadata):
                self._trees.describe(node, entry)
        return []

    def close(self) -> list[Problem]:
        return []


class _SimulatedLarge:
    def __init__(self, trees: SimulatedTrees, entry: Entry, node: Node) -> None:
        self._trees = trees
        self._entry = entry
        self._node = node
        self._content = bytearray(entry.size)

    def write(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        for offset, piece in pieces:
            self._content[offset : offset + len(piece)] = piece

    def finish(self) -> list[str]:
        self._node.content, self._node.holes = bytes(self._content), _has_holes(self._entry)
        self._trees.describe(self._node, self._entry)
        return []


def _runs(node: Node, offset: int, end: int, limit: int) -> list[Run]:
    """Runs of data from ``offset``: of a file with holes, the pages that are not all zeros."""
    if not node.holes:
        return [(offset, end - offset)] if end > offset else []
    runs: list[Run] = []
    page = 4096
    position = offset - offset % page
    while position < end and len(runs) < limit:
        if any(node.content[position : position + page]):
            start = max(position, offset)
            length = min(position + page, end) - start
            if runs and sum(runs[-1]) == start:
                runs[-1] = (runs[-1][0], runs[-1][1] + length)
            else:
                runs.append((start, length))
        position += page
    return runs


def _has_holes(entry: Entry) -> bool:
    return sum(extent.length for extent in entry.extents) < entry.size


def _key(path: str) -> bytes:
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequest(f"{path!r} is not an absolute path.")
    return path.strip("/").encode("utf-8", "surrogateescape")


def _join(root: bytes, path: bytes) -> bytes:
    return root + b"/" + path if root and path else root or path


def _below(key: bytes, root: bytes) -> bool:
    return not root or key == root or key.startswith(root + b"/")
