"""What makes an LTFS volume of an index: label constructs, index constructs, memory attributes, and what state two partitions are in.

ISO/IEC 20919 sections 5 (volume), 8 (label), 10 (medium auxiliary memory). The tree itself is in ``ltfs``.
"""

from __future__ import annotations

import enum
import fnmatch
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from rbcore.errors import Damaged, ProtocolViolation
from rbcore.tape.ltfs import FIRST_CONTENT_BLOCK, VERSION, File, Index, PlacementPolicy, read_index, walk
from rbcore.tape.ltfs_formats import (
    creator_of,
    format_time,
    parse_boolean,
    parse_number,
    parse_partition,
    parse_time,
    parse_uuid,
    parse_version,
)
from rbcore.tape.ltfs_xml import XmlWriter, parse_xml
from rbcore.tape.vol1 import LTFS_IMPLEMENTATION, Vol1, parse_vol1, volume_identifier

BLOCK_BYTES_MIN: Final = 4096
BLOCK_BYTES_MAX: Final = 16 * 1024 * 1024 - 1
"""The longest record READ(6) can ask for."""
BLOCK_BYTES_USUAL: Final = 524_288
LABEL_BYTES_MAX: Final = 4096

VOLUME_CHANGE_REFERENCE_ID: Final = 0x0009
COHERENCY_ID: Final = 0x080C
COHERENCY_BYTES: Final = 70
_COHERENCY: Final = struct.Struct(">B8sQQH5s37sB")
_ATTRIBUTE: Final = struct.Struct(">HBH")
_READ_ONLY_BIT: Final = 0x80
assert _COHERENCY.size == COHERENCY_BYTES


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """The label construct of one partition; equal in both but for ``partition``."""

    volume_identifier: str
    """Six characters, or empty."""
    creator: str
    format_time_ns: int
    volume_uuid: str
    partition: str
    """The partition this label stands in."""
    index_partition: str
    data_partition: str
    block_bytes: int
    compression: bool
    owner: str = ""
    version: str = VERSION

    @classmethod
    def of_cartridge(cls, volume_tag: str, **fields: object) -> Label:
        """A label whose volume identifier follows from the bar code; the other fields by name."""
        return msgspec.convert({**fields, "volume_identifier": volume_identifier(volume_tag)}, cls)


class AttributeFormat(enum.IntEnum):
    BINARY = 0
    ASCII = 1
    TEXT = 2


class Attribute(msgspec.Struct, frozen=True):
    """One attribute of the medium auxiliary memory, as READ and WRITE ATTRIBUTE carry it."""

    id: int
    format: AttributeFormat
    value: bytes
    read_only: bool = False

    def encode(self) -> bytes:
        return _ATTRIBUTE.pack(self.id, self.format | (_READ_ONLY_BIT * self.read_only), len(self.value)) + self.value


class Coherency(msgspec.Struct, frozen=True, kw_only=True):
    """The volume coherency information of one partition."""

    change_reference: int
    """The volume change reference right after the index was written."""
    generation: int
    block: int
    """Where the partition's last index begins."""
    volume_uuid: str


class Standing(enum.Enum):
    """What a volume is in, by the reference's crash states."""

    CONSISTENT = "both partitions are complete and the index partition points to the last index of the data partition"
    INDEX_PARTITION_BEHIND = "the index partition does not end in the newest index: write it there"
    DATA_PARTITION_BEHIND = "the data partition holds no index: write the index partition's there, then there again"
    DATA_AFTER_INDEX = "records stand behind the last index of the data partition: they belong to no file"
    NO_INDEX = "no partition holds an index of this volume"
    CONTRADICTION = "the index partition does not follow from the data partition: an index of one of them was lost"


class PartitionEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at the end of a partition."""

    index: Index | None
    """The last index of this volume with a true self pointer."""
    trailing: bool = False
    """Something other than the filemark of ``index`` stands behind it, or something but a label stands there without any index."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    standing: Standing
    current: Index | None
    """What the volume holds: the newest index, wherever it is."""


# Label construct (section 8)


def label_records(label: Label) -> tuple[bytes, bytes]:
    """The VOL1 record and the label XML record; each is followed by a filemark. Raises ``ProtocolViolation`` for fields that are not allowed."""
    _check_label(label)
    vol1 = Vol1(
        volume_identifier=label.volume_identifier,
        accessibility="L",
        implementation=LTFS_IMPLEMENTATION,
        owner=label.owner,
    )
    xml = XmlWriter()
    xml.open("ltfslabel", version=label.version)
    xml.leaf("creator", label.creator)
    xml.leaf("formattime", format_time(label.format_time_ns))
    xml.leaf("volumeuuid", label.volume_uuid)
    xml.open("location")
    xml.leaf("partition", label.partition)
    xml.close("location")
    xml.open("partitions")
    xml.leaf("index", label.index_partition)
    xml.leaf("data", label.data_partition)
    xml.close("partitions")
    xml.leaf("blocksize", label.block_bytes)
    xml.leaf("compression", "true" if label.compression else "false")
    xml.close("ltfslabel")
    record = xml.encode()
    if len(record) > LABEL_BYTES_MAX:
        raise ProtocolViolation(f"label of {len(record)} bytes, more than {LABEL_BYTES_MAX}")
    return vol1.encode(), record


def read_label(vol1_record: bytes, label_record: bytes) -> Label:
    """The label construct from its two records. Raises ``Damaged`` when it is none, ``ProtocolViolation`` when it says what is not allowed."""
    vol1 = parse_vol1(vol1_record)
    if vol1.implementation != LTFS_IMPLEMENTATION or vol1.accessibility != "L":
        raise ProtocolViolation(f"a cartridge of {vol1.implementation!r}, not of LTFS")
    root = parse_xml(label_record, root="ltfslabel", bytes_max=LABEL_BYTES_MAX)
    partitions = root.need("partitions")
    label = Label(
        volume_identifier=vol1.volume_identifier,
        owner=vol1.owner,
        version=parse_version(root.attributes.get("version", "")),
        creator=creator_of(root),
        format_time_ns=parse_time(root.word("formattime")),
        volume_uuid=parse_uuid(root.word("volumeuuid")),
        partition=parse_partition(root.need("location").word("partition")),
        index_partition=parse_partition(partitions.word("index")),
        data_partition=parse_partition(partitions.word("data")),
        block_bytes=parse_number(root.word("blocksize")),
        compression=parse_boolean(root.word("compression")),
    )
    _check_label(label)
    return label


def _check_label(label: Label) -> None:
    pair = {label.index_partition, label.data_partition}
    if len(pair) != 2 or label.partition not in pair:
        raise ProtocolViolation(
            f"label of partition {label.partition} with index in {label.index_partition} and data in {label.data_partition}"
        )
    if not BLOCK_BYTES_MIN <= label.block_bytes <= BLOCK_BYTES_MAX:
        raise ProtocolViolation(f"block size {label.block_bytes} is not within {BLOCK_BYTES_MIN}..{BLOCK_BYTES_MAX}")


def check_labels(one: Label, other: Label) -> None:
    """Raises ``ProtocolViolation`` unless the two are of one volume, one in each partition."""
    if one.partition == other.partition or msgspec.structs.replace(one, partition=other.partition) != other:
        raise ProtocolViolation("the labels of the two partitions differ in more than where they stand")


# Index construct (sections 5.2.3, 5.4.2)


def index_records(xml: bytes, block_bytes: int) -> list[bytes]:
    """Records of an index construct: all full but the last. A filemark goes before and after."""
    return [xml[start : start + block_bytes] for start in range(0, len(xml), block_bytes)]


def find_index(records: Sequence[bytes], label: Label, partition: str, block: int) -> Index | None:
    """The index in the records between two filemarks, the first at ``block`` of ``partition``; None when they are something else.

    A whole index that names another place or another volume is data of the user, and so are records that are not as long as an index's are.
    """
    full = label.block_bytes
    if not records or any(len(one) != full for one in records[:-1]) or not 0 < len(records[-1]) <= full:
        return None
    try:
        index = read_index(b"".join(records))
        check_index(index, label)
    except (Damaged, ProtocolViolation):
        return None
    here = index.location.partition == partition and index.location.block == block
    return index if here else None


def check_index(index: Index, label: Label) -> None:
    """Raises ``ProtocolViolation`` unless ``index`` may be one of the volume of ``label``."""
    partitions = {label.index_partition, label.data_partition}
    if index.volume_uuid != label.volume_uuid:
        raise ProtocolViolation(f"an index of volume {index.volume_uuid}, not {label.volume_uuid}")
    location, previous = index.location, index.previous
    if location.partition not in partitions or location.block <= FIRST_CONTENT_BLOCK:
        raise ProtocolViolation(f"an index at {location.partition}:{location.block}, where none can be")
    if previous is not None:
        in_order = location.partition != label.data_partition or previous.block < location.block
        if previous.partition != label.data_partition or previous.block <= FIRST_CONTENT_BLOCK or not in_order:
            raise ProtocolViolation(f"a back pointer to {previous.partition}:{previous.block}, where none can lead")
    for path, entry in walk(index.root):
        for extent in entry.extents if isinstance(entry, File) else ():
            if extent.partition not in partitions or extent.byte_offset >= label.block_bytes:
                raise ProtocolViolation(f"file {path!r} with an extent that is not in this volume")
            blocks = -(-(extent.byte_offset + extent.byte_count) // label.block_bytes)
            if extent.partition == location.partition and extent.start_block + blocks >= location.block:
                raise ProtocolViolation(f"file {path!r} with an extent behind the index that names it")


# State of a volume (section 5.3; crash states)


def judge(index_partition: PartitionEnd, data_partition: PartitionEnd) -> Verdict:
    """What state the volume is in, from the end of both partitions, and which index holds.

    The newest index is the one with the higher generation, the index partition's when they are equal.
    """
    of_ip, of_dp = index_partition.index, data_partition.index
    if of_dp is None:
        standing = Standing.NO_INDEX if of_ip is None else Standing.DATA_PARTITION_BEHIND
        named = of_ip is not None and of_ip.previous is not None
        return Verdict(standing=Standing.CONTRADICTION if named else standing, current=of_ip)
    current = of_ip if of_ip is not None and of_ip.generation >= of_dp.generation else of_dp
    if of_ip is not None:
        beyond = of_ip.previous is not None and of_ip.previous.block > of_dp.location.block
        if beyond or (current is of_ip and of_ip.previous != of_dp.location):
            return Verdict(standing=Standing.CONTRADICTION, current=current)
    if data_partition.trailing:
        return Verdict(standing=Standing.DATA_AFTER_INDEX, current=current)
    if current is of_dp or index_partition.trailing:
        return Verdict(standing=Standing.INDEX_PARTITION_BEHIND, current=current)
    return Verdict(standing=Standing.CONSISTENT, current=current)


def trusted_block(
    coherencies: dict[str, Coherency | None], label: Label, change_reference: int
) -> tuple[str, int] | None:
    """Partition and block of the current index by the memory attributes alone; None: search the partitions.

    ``coherencies``: by partition. They are trusted only when both are of this volume and name the medium's present ``change_reference``.
    """
    if not is_usable_reference(change_reference):
        return None
    found: list[tuple[int, bool, str, int]] = []
    for partition in (label.index_partition, label.data_partition):
        one = coherencies.get(partition)
        if one is None or one.volume_uuid != label.volume_uuid or one.change_reference != change_reference:
            return None
        found.append((one.generation, partition == label.index_partition, partition, one.block))
    _, _, partition, block = max(found)
    return partition, block


def is_usable_reference(change_reference: int) -> bool:
    """A volume change reference of 0 or all ones says nothing."""
    return change_reference not in (0, 2**32 - 1, 2**64 - 1)


# Placement (section 9.2: dataplacementpolicy)


def belongs_in_index_partition(policy: PlacementPolicy | None, name: str, size: int) -> bool:
    """Whether a new file of that name and size is to be placed in the index partition: within the size, and one of the patterns if there are any."""
    if policy is None or size > policy.size:
        return False
    return not policy.names or any(fnmatch.fnmatchcase(name, _literal_brackets(pattern)) for pattern in policy.names)


def _literal_brackets(pattern: str) -> str:
    """Only ``*`` and ``?`` are special in LTFS."""
    return pattern.replace("[", "[[]")


# Medium auxiliary memory (section 10)


def coherency_attribute(coherency: Coherency) -> Attribute:
    value = _COHERENCY.pack(
        8,
        coherency.change_reference.to_bytes(8),
        coherency.generation,
        coherency.block,
        43,
        b"LTFS\0",
        coherency.volume_uuid.encode("ascii") + b"\0",
        1,
    )
    return Attribute(COHERENCY_ID, AttributeFormat.BINARY, value)


def read_coherency(value: bytes) -> Coherency:
    """Raises ``ProtocolViolation`` for the value of another application, or of a version that is not known."""
    if len(value) != COHERENCY_BYTES:
        raise ProtocolViolation(f"coherency information of {len(value)} bytes, not {COHERENCY_BYTES}")
    reference_bytes, reference, generation, block, rest, application, uuid, version = _COHERENCY.unpack(value)
    if (reference_bytes, rest, application, version) != (8, 43, b"LTFS\0", 1) or uuid[-1:] != b"\0":
        raise ProtocolViolation("coherency information of another application or version")
    try:
        volume_uuid = parse_uuid(uuid[:-1].decode("ascii"))
    except UnicodeDecodeError:
        raise ProtocolViolation("coherency information without a UUID") from None
    return Coherency(
        change_reference=int.from_bytes(reference), generation=generation, block=block, volume_uuid=volume_uuid
    )


def read_attributes(data: bytes) -> list[Attribute]:
    """An attribute list, without the length before it. Raises ``ProtocolViolation`` when it ends within an attribute."""
    attributes: list[Attribute] = []
    offset = 0
    while offset < len(data):
        if len(data) - offset < _ATTRIBUTE.size:
            raise ProtocolViolation("attribute list that ends within a header")
        identifier, flags, length = _ATTRIBUTE.unpack_from(data, offset)
        offset += _ATTRIBUTE.size
        value = data[offset : offset + length]
        offset += length
        if len(value) != length or flags & ~_READ_ONLY_BIT > AttributeFormat.TEXT:
            raise ProtocolViolation(f"attribute {identifier:04x}h that ends early, or of a format that is not known")
        attributes.append(
            Attribute(identifier, AttributeFormat(flags & ~_READ_ONLY_BIT), value, bool(flags & _READ_ONLY_BIT))
        )
    return attributes


def application_attributes(
    *, vendor: str, name: str, version: str, volume_name: str, volume_tag: str, pool: str
) -> list[Attribute]:
    """What a formatter writes once, to partition 0. Texts are cut to their fields, never within a character."""
    return [
        Attribute(0x0800, AttributeFormat.ASCII, _ascii(vendor, 8)),
        Attribute(0x0801, AttributeFormat.ASCII, _ascii(name, 32)),
        Attribute(0x0802, AttributeFormat.ASCII, _ascii(version, 8)),
        Attribute(0x0803, AttributeFormat.TEXT, _text(volume_name, 160)),
        Attribute(0x0805, AttributeFormat.BINARY, b"\x81"),
        Attribute(0x0806, AttributeFormat.ASCII, _ascii(volume_tag, 32)),
        Attribute(0x0808, AttributeFormat.TEXT, _text(pool, 160)),
        Attribute(0x080B, AttributeFormat.ASCII, _ascii(VERSION, 16)),
    ]


def _ascii(text: str, length: int) -> bytes:
    return text.encode("ascii", "replace")[:length].ljust(length)


def _text(text: str, length: int) -> bytes:
    return text.encode()[:length].decode(errors="ignore").encode().ljust(length, b"\0")
