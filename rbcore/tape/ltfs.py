"""The LTFS index: the tree of a volume as values, and its XML (ISO/IEC 20919, section 9; schema version 2.4.0).

Read strictly: what the format requires must be there once and be in bounds; elements that are not known are kept and written again. Labels, memory
attributes and the state of whole volumes are in ``ltfs_volume``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from rbcore.errors import ProtocolViolation
from rbcore.tape.ltfs_formats import (
    check_name,
    creator_of,
    format_time,
    parse_boolean,
    parse_number,
    parse_partition,
    parse_time,
    parse_uuid,
    parse_version,
    read_text,
    write_text,
)
from rbcore.tape.ltfs_xml import Element, XmlWriter, carries, parse_xml

VERSION: Final = "2.4.0"
INDEX_BYTES_MAX: Final = 2**30
DIRECTORY_DEPTH_MAX: Final = 256
COMMENT_BYTES_MAX: Final = 64 * 1024
XATTR_BYTES_MAX: Final = 4 * 1024 * 1024
"""Read; writers keep to 4096, which is what other implementations take."""
ROOT_UID: Final = 1
FIRST_CONTENT_BLOCK: Final = 4
"""Blocks 0 to 3 of a partition are the label construct."""

LockState: TypeAlias = Literal["unlocked", "locked", "permlocked"]
_U64_MAX: Final = 2**64 - 1
_TIME_ELEMENTS: Final = ("creationtime", "changetime", "modifytime", "accesstime", "backuptime")


class Pointer(msgspec.Struct, frozen=True):
    partition: str
    """One letter a-z."""
    block: int


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    file_offset: int
    partition: str
    start_block: int
    byte_offset: int
    """Into ``start_block``."""
    byte_count: int


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Nanoseconds since 1970; None where an index does not say."""

    creation: int | None
    change: int | None
    modify: int | None
    access: int | None
    backup: int | None

    @classmethod
    def all_at(cls, time_ns: int) -> Times:
        return cls(creation=time_ns, change=time_ns, modify=time_ns, access=time_ns, backup=time_ns)


class File(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    uid: int
    length: int
    times: Times
    read_only: bool = False
    open_for_write: bool = False
    extents: tuple[Extent, ...] = ()
    symlink: str | None = None
    xattrs: dict[str, bytes] = {}
    unknown: tuple[Element, ...] = ()


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """Of the root: the volume's name, may be empty."""
    uid: int
    times: Times
    read_only: bool = False
    contents: tuple[File | Directory, ...] = ()
    xattrs: dict[str, bytes] = {}
    unknown: tuple[Element, ...] = ()


class PlacementPolicy(msgspec.Struct, frozen=True):
    """Which files may live in the index partition."""

    size: int
    names: tuple[str, ...] = ()
    """Patterns with ``*`` and ``?``; empty: every name."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    creator: str
    volume_uuid: str
    generation: int
    update_time_ns: int
    location: Pointer
    """The block of its own first record."""
    previous: Pointer | None
    """The last earlier full index in the data partition."""
    allow_policy_update: bool
    highest_uid: int
    root: Directory
    policy: PlacementPolicy | None = None
    lock_state: LockState | None = None
    comment: str | None = None
    version: str = VERSION
    unknown: tuple[Element, ...] = ()


def walk(root: Directory) -> Iterator[tuple[str, File | Directory]]:
    """Every file and directory below ``root`` with its path; a directory before what is in it."""
    waiting: list[tuple[str, Directory]] = [("", root)]
    while waiting:
        path, directory = waiting.pop()
        for entry in directory.contents:
            yield path + entry.name, entry
            if isinstance(entry, Directory):
                waiting.append((f"{path}{entry.name}/", entry))


# Reading (section 9.2)


def read_index(data: bytes) -> Index:
    """The index in ``data`` (the records of an index construct joined).

    Raises ``Damaged`` when it is no XML, ``ProtocolViolation`` when it is no index that the format allows. Whether it belongs to a volume and
    stands where it says is for ``ltfs_volume.check_index`` to tell.
    """
    root = parse_xml(
        data,
        root="ltfsindex",
        bytes_max=INDEX_BYTES_MAX,
        builders={"file": _read_file, "directory": _read_directory, "extent": _read_extent},
        within=frozenset({"ltfsindex", "directory", "contents", "file", "extentinfo"}),
    )
    directories = root.built
    if len(directories) != 1 or not isinstance(directories[0], Directory):
        raise ProtocolViolation("an index has exactly one root directory")
    lock_state = root.take("volumelockstate", required=False)
    comment = root.take("comment", required=False)
    previous = root.take("previousgenerationlocation", required=False)
    index = Index(
        version=parse_version(root.attributes.get("version", "")),
        creator=creator_of(root),
        volume_uuid=parse_uuid(root.word("volumeuuid")),
        generation=parse_number(root.word("generationnumber"), minimum=1),
        update_time_ns=parse_time(root.word("updatetime")),
        location=_read_pointer(root.need("location")),
        previous=None if previous is None else _read_pointer(previous),
        allow_policy_update=parse_boolean(root.word("allowpolicyupdate")),
        policy=_read_policy(root.take("dataplacementpolicy", required=False)),
        highest_uid=parse_number(root.word("highestfileuid")),
        lock_state=None if lock_state is None else _read_lock_state(lock_state.text.strip()),
        comment=None if comment is None else comment.text,
        root=directories[0],
        unknown=tuple(root.children),
    )
    _check_tree(index)
    return index


def _read_lock_state(text: str) -> LockState:
    for state in get_args(LockState):
        if text == state:
            known: LockState = state
            return known
    raise ProtocolViolation(f"volume lock state {text[:64]!r} is not known")


def _read_pointer(element: Element) -> Pointer:
    return Pointer(parse_partition(element.word("partition")), parse_number(element.word("startblock")))


def _read_policy(element: Element | None) -> PlacementPolicy | None:
    if element is None:
        return None
    criteria = element.need("indexpartitioncriteria")
    names = tuple(read_text(child) for child in criteria.children if child.name == "name")
    return PlacementPolicy(parse_number(criteria.word("size")), names)


def _read_times(element: Element) -> Times:
    found = [element.take(name, required=False) for name in _TIME_ELEMENTS]
    creation, change, modify, access, backup = (None if one is None else parse_time(one.text.strip()) for one in found)
    return Times(creation=creation, change=change, modify=modify, access=access, backup=backup)


def _read_xattrs(element: Element) -> dict[str, bytes]:
    group = element.take("extendedattributes", required=False)
    xattrs: dict[str, bytes] = {}
    for one in group.children if group is not None else ():
        if one.name != "xattr":
            continue
        key = read_text(one.need("key"))
        value = one.need("value")
        kind = value.attributes.get("type", "text")
        if key in xattrs or not key or kind not in ("text", "base64"):
            raise ProtocolViolation(f"extended attribute {key[:255]!r} twice, or of a type that is not known")
        try:
            xattrs[key] = (
                value.text.encode() if kind == "text" else base64.b64decode("".join(value.text.split()), validate=True)
            )
        except ValueError:  # what is no base64, and what is not even ASCII
            raise ProtocolViolation(f"extended attribute {key[:255]!r} is no base64") from None
        if len(xattrs[key]) > XATTR_BYTES_MAX:
            raise ProtocolViolation(f"extended attribute {key[:255]!r} of {len(xattrs[key])} bytes")
    return xattrs


def _read_extent(element: Element) -> Extent:
    return Extent(
        file_offset=parse_number(element.word("fileoffset")),
        partition=parse_partition(element.word("partition")),
        start_block=parse_number(element.word("startblock"), minimum=FIRST_CONTENT_BLOCK),
        byte_offset=parse_number(element.word("byteoffset")),
        byte_count=parse_number(element.word("bytecount"), minimum=1),
    )


def _read_file(element: Element) -> File:
    extent_info = element.take("extentinfo", required=False)
    symlink = element.take("symlink", required=False)
    open_for_write = element.take("openforwrite", required=False)
    if element.built or (extent_info is not None and symlink is not None):
        raise ProtocolViolation("a file with both extents and a symbolic link, or with other files in it")
    extents: list[Extent] = (
        [one for one in extent_info.built if isinstance(one, Extent)] if extent_info is not None else []
    )
    file = File(
        name=check_name(read_text(element.need("name"))),
        uid=parse_number(element.word("fileuid"), minimum=1),
        length=parse_number(element.word("length")),
        read_only=parse_boolean(element.word("readonly")),
        open_for_write=open_for_write is not None and parse_boolean(open_for_write.text.strip()),
        times=_read_times(element),
        extents=tuple(sorted(extents, key=lambda one: one.file_offset)),
        symlink=None if symlink is None else read_text(symlink),
        xattrs=_read_xattrs(element),
        unknown=tuple(element.children),
    )
    if extent_info is not None and len(extents) != len(extent_info.built):
        raise ProtocolViolation(f"file {file.name!r} with something in its extents that is no extent")
    check_extents(file)
    return file


def check_extents(file: File) -> None:
    """Raises ``ProtocolViolation`` when extents overlap or reach beyond the length."""
    end = 0
    for extent in file.extents:
        if extent.file_offset < end or extent.byte_count < 1:
            raise ProtocolViolation(f"file {file.name!r} with extents that overlap or are empty")
        end = extent.file_offset + extent.byte_count
    if end > file.length:
        raise ProtocolViolation(f"file {file.name!r} of {file.length} bytes with an extent that ends at {end}")


def _read_directory(element: Element) -> Directory:
    contents = element.take("contents", required=False)
    entries = tuple(contents.built) if contents is not None else ()
    if element.built or any(not isinstance(entry, File | Directory) for entry in entries):
        raise ProtocolViolation("a directory with something where only files and directories may be")
    return Directory(
        name=check_name(read_text(element.need("name")), root=True),
        uid=parse_number(element.word("fileuid"), minimum=1),
        read_only=parse_boolean(element.word("readonly")),
        times=_read_times(element),
        contents=entries,
        xattrs=_read_xattrs(element),
        unknown=tuple(element.children),
    )


def _check_tree(index: Index) -> None:
    """Raises ``ProtocolViolation``: uids not unique or over the highest, names twice in a directory or empty, nesting too deep."""
    if index.root.uid != ROOT_UID:
        raise ProtocolViolation(f"the root directory has uid {index.root.uid}, not {ROOT_UID}")
    uids = {ROOT_UID}
    waiting = [(index.root, 1)]
    while waiting:
        directory, depth = waiting.pop()
        if depth > DIRECTORY_DEPTH_MAX:
            raise ProtocolViolation(f"directories nested deeper than {DIRECTORY_DEPTH_MAX}")
        names = {check_name(entry.name) for entry in directory.contents}
        if len(names) != len(directory.contents):
            raise ProtocolViolation(f"a name stands twice in directory {directory.name!r}")
        for entry in directory.contents:
            if entry.uid in uids or entry.uid > (index.highest_uid or _U64_MAX):
                raise ProtocolViolation(f"uid {entry.uid} stands twice, or is over the highest, {index.highest_uid}")
            uids.add(entry.uid)
            if isinstance(entry, Directory):
                waiting.append((entry, depth + 1))


# Writing


def write_index(index: Index) -> bytes:
    """The XML of ``index``. Raises ``ProtocolViolation`` for whatever ``read_index`` would refuse to read back."""
    _check_tree(index)
    if index.comment is not None and (len(index.comment.encode()) > COMMENT_BYTES_MAX or not carries(index.comment)):
        raise ProtocolViolation(f"a comment of more than {COMMENT_BYTES_MAX} bytes, or one that XML cannot carry")
    xml = XmlWriter()
    xml.open("ltfsindex", version=index.version)
    xml.leaf("creator", index.creator)
    xml.leaf("volumeuuid", index.volume_uuid)
    xml.leaf("generationnumber", index.generation)
    if index.comment is not None:
        xml.leaf("comment", index.comment)
    xml.leaf("updatetime", format_time(index.update_time_ns))
    _write_pointer(xml, "location", index.location)
    if index.previous is not None:
        _write_pointer(xml, "previousgenerationlocation", index.previous)
    xml.leaf("allowpolicyupdate", _boolean(index.allow_policy_update))
    if index.policy is not None:
        xml.open("dataplacementpolicy")
        xml.open("indexpartitioncriteria")
        xml.leaf("size", index.policy.size)
        for name in index.policy.names:
            write_text(xml, "name", name)
        xml.close("indexpartitioncriteria")
        xml.close("dataplacementpolicy")
    if index.lock_state is not None:
        xml.leaf("volumelockstate", index.lock_state)
    xml.leaf("highestfileuid", index.highest_uid)
    _write_directory(xml, index.root)
    for element in index.unknown:
        xml.element(element)
    xml.close("ltfsindex")
    return xml.encode()


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _write_pointer(xml: XmlWriter, name: str, pointer: Pointer) -> None:
    xml.open(name)
    xml.leaf("partition", pointer.partition)
    xml.leaf("startblock", pointer.block)
    xml.close(name)


def _write_common(xml: XmlWriter, entry: File | Directory) -> None:
    write_text(xml, "name", entry.name)
    xml.leaf("fileuid", entry.uid)
    xml.leaf("readonly", _boolean(entry.read_only))
    times = (entry.times.creation, entry.times.change, entry.times.modify, entry.times.access, entry.times.backup)
    for name, time_ns in zip(_TIME_ELEMENTS, times, strict=True):
        if time_ns is not None:
            xml.leaf(name, format_time(time_ns))
    if entry.xattrs:
        xml.open("extendedattributes")
        for key, value in entry.xattrs.items():
            xml.open("xattr")
            write_text(xml, "key", key)
            _write_value(xml, value)
            xml.close("xattr")
        xml.close("extendedattributes")


def _write_value(xml: XmlWriter, value: bytes) -> None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if carries(text):
        xml.leaf("value", text)
    else:
        xml.leaf("value", base64.b64encode(value).decode(), type="base64")


def _write_directory(xml: XmlWriter, directory: Directory) -> None:
    xml.open("directory")
    _write_common(xml, directory)
    xml.open("contents")
    for entry in directory.contents:
        if isinstance(entry, Directory):
            _write_directory(xml, entry)
        else:
            _write_file(xml, entry)
    xml.close("contents")
    for element in directory.unknown:
        xml.element(element)
    xml.close("directory")


def _write_file(xml: XmlWriter, file: File) -> None:
    check_extents(file)
    if file.symlink is not None and file.extents:
        raise ProtocolViolation(f"file {file.name!r} with both extents and a symbolic link")
    xml.open("file")
    _write_common(xml, file)
    xml.leaf("length", file.length)
    if file.open_for_write:
        xml.leaf("openforwrite", "true")
    if file.symlink is not None:
        write_text(xml, "symlink", file.symlink)
    elif file.extents:
        xml.open("extentinfo")
        for extent in file.extents:
            xml.open("extent")
            xml.leaf("fileoffset", extent.file_offset)
            xml.leaf("partition", extent.partition)
            xml.leaf("startblock", extent.start_block)
            xml.leaf("byteoffset", extent.byte_offset)
            xml.leaf("bytecount", extent.byte_count)
            xml.close("extent")
        xml.close("extentinfo")
    for element in file.unknown:
        xml.element(element)
    xml.close("file")
