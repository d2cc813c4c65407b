"""The port of cartridge sessions: one cartridge in one drive, opened in its format, whatever that is.

``drivers/tape/`` implements it for native and LTFS cartridges. A session has one owner, the actor of its drive, and is used by one task at
a time. Archives lie on cartridges in parts (``docs/format-tape.md``): a part is begun, takes whole blocks, and is ended; what does not fit goes on in
another part, on another cartridge. Nothing here decides which cartridge that is.

Errors: those of the drive (``Unavailable``, ``DeadlineExceeded``, ``HardwareFailed``, ``MediumFailed``, ``WriteProtected``, ``PositionLost`` ...). After
one of them in a writing call the session writes no more (``may_write`` is False); what was ended before stays readable.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from rbcore.archive.block import Buffer
from rbcore.archive.container import Index


class CartridgeFormat(enum.StrEnum):
    NATIVE = "native"
    LTFS = "ltfs"


class Contents(enum.StrEnum):
    """What a look at the beginning of a cartridge tells."""

    BLANK = "blank"
    """Nothing was ever written, or everything was erased."""
    NATIVE = "native"
    LTFS = "ltfs"
    FOREIGN = "foreign"
    """Data of another program."""
    UNREADABLE = "unreadable"


class Identified(msgspec.Struct, frozen=True, kw_only=True):
    """Who a cartridge says it is. Facts of the log: they are compared, never trusted blindly."""

    contents: Contents
    volume_tag: str = ""
    """By its own label (LTFS: the volume identifier, six characters); empty where it says none."""
    cartridge: str = ""
    """Native: the cartridge id, LTFS: the volume UUID; hex digits without dashes. Empty otherwise."""
    use: int = 0
    """Native: how often it has been labelled. LTFS: 0."""
    server: str = ""
    """Native: id of the server that labelled it."""
    pool: str = ""
    write_protected: bool = False
    partitions: int = 1
    detail: str = ""
    """One sentence for people: what was found."""


class LabelOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a new label says."""

    volume_tag: str
    pool: str
    server: str
    software: str
    cartridge: bytes
    """16 random bytes, taken when the cartridge has no id of its own yet (LTFS: the volume UUID is made of them each time)."""
    created_ns: int


class ArchiveInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a catalogue wants to know about an archive, for whoever finds the cartridge without its server."""

    client: str
    resource: str
    backup_type: str
    crypto: str
    created_ns: int


class PartStart(msgspec.Struct, frozen=True, kw_only=True):
    """A part to be begun, as the header says it."""

    archive: bytes
    """16 bytes."""
    part: int
    info: ArchiveInfo
    first_block: int = 0
    """Blocks of the archive from this number on stand in this part."""
    blocks_before: int = 0
    stored_before: int = 0
    """Bytes of blocks in the parts before."""
    previous_tag: str = ""
    previous_cartridge: bytes = bytes(16)


class PartPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where an ended part lies: enough to read it without a search. Goes into the log, so it is small and plain."""

    part: int
    position: int
    """Native: object number of the archive header. LTFS: start block of the part's file in the data partition."""
    records: int
    """Native: records of the part before its trailer. LTFS: records of the part's file."""
    first_block: int
    """-1: the part holds no block."""
    last_block: int
    blocks: int
    stored_bytes: int
    """Of the blocks, headers included."""
    final: bool


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What became of what was handed to ``write``."""

    last_block: int
    """The drive has taken every block up to this one whole; -1: none of this part."""
    full: bool
    """Early warning: no more blocks fit. End the part; blocks behind ``last_block`` belong into the next part, on another cartridge."""


class PartReader(Protocol):
    """One part, read by block number. Reading in ascending order streams; going back costs a locate."""

    place: PartPlace

    async def index(self) -> Index:
        """Where each block of the part lies (read from the medium once, then kept). Raises ``Damaged``, ``MediumFailed``."""

    async def read(self, numbers: Sequence[int]) -> bytes:
        """These blocks (ascending), whole, checked against their digests, one after the other.

        Raises ``NotFound`` (no such block in this part), ``Damaged`` or ``MediumFailed`` for the first that cannot be read (``data["block"]``); the
        session can be read on afterwards.
        """


class CartridgeSession(Protocol):
    """See the module. Made by ``drivers.tape.open_session`` or ``label_cartridge``."""

    format: CartridgeFormat
    identified: Identified

    @property
    def may_write(self) -> bool:
        """Whether a part may be begun: not full, not write protected, no failure before, a place to append is known."""

    @property
    def why_not(self) -> str:
        """Why ``may_write`` is False, for people."""

    @property
    def full(self) -> bool:
        """The medium has no more room: early warning was met, or the bounds of the format are reached."""

    @property
    def used_bytes(self) -> int:
        """Stored bytes of all parts on the cartridge, as far as the session knows."""

    @property
    def part_open(self) -> bool: ...

    async def parts(self) -> list[tuple[bytes, PartPlace]]:
        """Ended parts on the cartridge (archive id, place), in order of their positions."""

    async def begin_part(self, start: PartStart) -> None:
        """Open a part. Raises ``NotAllowedNow`` unless ``may_write`` and no part is open."""

    async def write(self, blocks: Sequence[Buffer]) -> Written:
        """Write whole blocks with ascending numbers; each buffer holds one or more. Returns when the drive has taken what fills records: the rest
        of the last record may wait for more (``sync`` and the ends of a part write it).

        The blocks' digests are checked by the caller. Raises ``ProtocolViolation`` for malformed ones.
        """

    async def sync(self) -> Written:
        """Everything taken so far is on the medium when this returns (a flush; not cheap on a real drive)."""

    async def end_part(self, *, next_tag: str, ended_ns: int) -> PartPlace:
        """End the part, not the archive. Durable when it returns."""

    async def finish_part(self, *, root: bytes, ended_ns: int) -> PartPlace | None:
        """End part and archive. Durable and findable without its server when it returns (LTFS: named by an index in the data partition).

        None: early warning dropped what was waiting (``write``'s answer says up to which block); ``end_part``, and go on in another part.
        """

    async def forget(self, archives: frozenset[bytes]) -> int:
        """These archives are not offered any more: LTFS leaves their files out of its next index; native keeps them until it is labelled again.
        Returns how many were taken out."""

    def reader(self, archive: bytes, place: PartPlace) -> PartReader: ...

    async def close(self) -> None:
        """Write what the format wants at the end of a session (index); afterwards the cartridge may be unloaded. Idempotent; a session that wrote
        nothing writes nothing. Raises what the drive does; the parts that were ended are findable all the same."""
