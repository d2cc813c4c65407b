"""Messages between daemon and agent, and on the data channel. Tagged msgpack structs; nothing else is accepted.

Control channel (nng, ``tls+tcp``, the agent dials): every message is an ``Parcel``. A request carries ``id``; the peer
answers with a Parcel whose ``reply_to`` is that id. Whoever sent a request repeats it until the answer or its deadline;
whoever got it twice answers the same again and does nothing twice (at-least-once delivery, exactly-once effect).

Data channel (TLS on TCP, the agent dials; docs/format.md has the frame): bulk only.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rbcore.errors import Failure

PROTOCOL_VERSION = 1
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""Largest control message either side accepts."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of control messages, tagged by class name."""


# --- identity ------------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    protocol: int
    hwid: str
    hostname: str
    public_key: bytes
    """Ed25519, 32 bytes."""
    nonce: bytes
    """32 random bytes of the agent."""


class Challenge(Message, frozen=True, kw_only=True):
    nonce: bytes
    """32 random bytes of the daemon."""
    server_id: str


class Proof(Message, frozen=True, kw_only=True):
    """Signature over ``b"rbmedia-agent-proof-v1\\0" + server_id + agent nonce + daemon nonce``, and what the agent reports."""

    signature: bytes
    os_type: str
    os_version: str
    agent_version: str
    resource_types: list[str]


PROOF_CONTEXT = b"rbmedia-agent-proof-v1\0"


def proof_message(server_id: str, agent_nonce: bytes, daemon_nonce: bytes) -> bytes:
    """What an agent signs to prove its identity in one session with one daemon."""
    return PROOF_CONTEXT + server_id.encode() + agent_nonce + daemon_nonce


class Welcome(Message, frozen=True, kw_only=True):
    """``authorised`` false: wait here; another Welcome comes when an administrator has authorised the client."""

    authorised: bool
    client_id: int
    data_port: int
    heartbeat_seconds: float


# --- daemon asks, agent answers --------------------------------------------------------------------------------------


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """One archive as the agent needs to know it."""

    archive: str
    root: str
    crypto: str
    key_id: str


class StartBackup(Message, frozen=True, kw_only=True):
    """Answered with ``Accepted`` or a ``Failure``. The work then goes over the data channel."""

    task_id: int
    transfer_token: bytes
    """32 random bytes, good for this attempt only; the first frame of the data channel carries it."""
    archive: str
    resource_type: str
    resource: str
    compression: str
    crypto: str
    parent: Archive | None
    """The archive to compare with; None for a full backup."""
    parameters: dict[str, Any]


class StartRestore(Message, frozen=True, kw_only=True):
    task_id: int
    transfer_token: bytes
    archive: Archive
    destination_path: str
    only: list[str]
    """Granular restore: paths within the backup, with everything below; empty: all."""
    parameters: dict[str, Any]
    medium_order: bool = False
    """Ask for blocks archive by archive, the oldest first, and in the order of their numbers: for media on which a jump costs a minute.

    Additive: an agent that does not know it restores in the order of paths, as without it.
    """


class ListFilesystem(Message, frozen=True, kw_only=True):
    path: str


class ListBlockDevices(Message, frozen=True, kw_only=True):
    path: str


class ListModuleResources(Message, frozen=True, kw_only=True):
    """What the client's module of the type finds that it could back up. Answered with ``Listing``."""

    resource_type: str
    secret_method: int = 0
    """Where the module gets credentials from; 0: no secret method."""


class Listing(Message, frozen=True, kw_only=True):
    rows: list[dict[str, Any]]


class ListArchive(Message, frozen=True, kw_only=True):
    """Names in an encrypted backup, which only the client can read. Answered with ``Listing``."""

    transfer_token: bytes
    archive: Archive
    prefix: str
    limit: int


class PauseWork(Message, frozen=True, kw_only=True):
    task_id: int


class ContinueWork(Message, frozen=True, kw_only=True):
    task_id: int


class KillWork(Message, frozen=True, kw_only=True):
    task_id: int


class Accepted(Message, frozen=True, kw_only=True):
    """Yes, and done as far as an answer is concerned."""


# --- agent tells -----------------------------------------------------------------------------------------------------


class Heartbeat(Message, frozen=True, kw_only=True):
    """Sent every ``heartbeat_seconds`` both ways; three missed ones end the session."""


class WorkStage(Message, frozen=True, kw_only=True):
    """``Execution``, ``Start_Transfer`` or ``Transmission`` is reached."""

    task_id: int
    stage: str


class WorkNotes(Message, frozen=True, kw_only=True):
    task_id: int
    severity: str
    lines: list[str]


class WorkProgress(Message, frozen=True, kw_only=True):
    """Telemetry: never logged, kept in a bounded ring."""

    task_id: int
    bytes_done: int
    bytes_total: int
    files_done: int


class WorkEnded(Message, frozen=True, kw_only=True):
    """Restore done, or any work failed. A backup's success is told by ``Commit`` on the data channel.

    ``outcome``: ``done``, ``error`` (the module's or the operator's matter), ``killed``, ``interrupted`` (try again).
    """

    task_id: int
    outcome: str
    reason: str
    files: int = 0
    bytes: int = 0
    problems: int = 0


# --- a client's user asks ---------------------------------------------------------------------------------------------


class Visit(Message, frozen=True, kw_only=True):
    """As ``Hello``, of somebody on the client's host who has its identity and is not its agent: after the proof he may ask for rules, and
    nothing else. The agent's own session goes on beside it, and the client is no more online by it than before."""

    protocol: int
    hwid: str
    hostname: str
    public_key: bytes
    nonce: bytes


class AskForRule(Message, frozen=True, kw_only=True):
    """That a rule of the global schedule is made about this client. Answered with ``Asked`` or a ``Failure``."""

    rule: dict[str, Any]
    """Fields of ``new_rule_requests``: name, resource_type, resource, backup_type, and what else is wanted."""


class AskForRuleDeletion(Message, frozen=True, kw_only=True):
    rule_id: int
    comment: str = ""


class Asked(Message, frozen=True, kw_only=True):
    """An administrator will answer the request."""

    request_id: int


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope on the control channel."""

    id: str
    """Unique per sender and message; repeats carry the same."""
    reply_to: str = ""
    body: (
        Hello
        | Challenge
        | Proof
        | Welcome
        | StartBackup
        | StartRestore
        | ListFilesystem
        | ListBlockDevices
        | Listing
        | ListModuleResources
        | ListArchive
        | PauseWork
        | ContinueWork
        | KillWork
        | Accepted
        | Heartbeat
        | WorkStage
        | WorkNotes
        | WorkProgress
        | WorkEnded
        | Visit
        | AskForRule
        | AskForRuleDeletion
        | Asked
        | None
    ) = None
    failure: Failure | None = None


# --- data channel ----------------------------------------------------------------------------------------------------


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of data channel frames: u32 length of the msgpack header, u32 length of the raw payload, header, payload."""


FRAME_HEADER_BYTES_MAX = 1024 * 1024
FRAME_PAYLOAD_BYTES_MAX = 16 * 1024 * 1024


class Attach(Frame, frozen=True, kw_only=True):
    """First frame of the agent."""

    protocol: int
    transfer_token: bytes


class Attached(Frame, frozen=True, kw_only=True):
    """For a backup: what is durable already. ``credit_bytes`` may be under way unacknowledged."""

    credit_bytes: int
    next_block: int
    """Block numbers below this one are stored; 0: nothing is."""
    manifest_blocks: list[int]
    """Numbers of the manifest blocks among them, ascending: what a resumed backup compares with."""
    root_so_far: bytes = b""
    """Where the root's chain (``rbcore.archive.root``) stands after the last durable block: the agent goes on from it.

    Empty when nothing is durable, and for a restore.
    """


class Blocks(Frame, frozen=True, kw_only=True):
    """Payload: ``count`` whole blocks (docs/format.md), one after the other, numbers ascending. Both directions."""

    count: int


class Stored(Frame, frozen=True, kw_only=True):
    """Daemon: every block up to and including ``block`` is on stable storage; ``bytes`` of credit return."""

    block: int
    bytes: int


class Received(Frame, frozen=True, kw_only=True):
    """Agent, restoring: it has worked off ``bytes`` of what it asked for, so that much may follow."""

    bytes: int


class Commit(Frame, frozen=True, kw_only=True):
    """The archive is complete."""

    root: bytes
    signature: bytes
    key_id: str
    blocks: int
    files: int
    data_size: int
    problems: int
    problem_lines: list[str]
    """The first thousand; all of them stand in the manifest."""


class Committed(Frame, frozen=True, kw_only=True):
    """The event is on stable storage: the backup exists."""

    backup_id: int


class Fetch(Frame, frozen=True, kw_only=True):
    """Blocks ``numbers`` (ascending) of ``archive``, which must be the task's archive or one of its chain.

    Answered, in the order of the requests, with Blocks frames and one ``EndOfBlocks``. A block that the store cannot read or that
    is damaged there is left out: the agent names the files that needed it. Several requests may be under way; the daemon sends no
    more than ``credit_bytes`` that ``Received`` has not returned. Valid for a backup, too: its own unfinished archive and its parent.
    """

    archive: str
    numbers: list[int]


class FetchManifest(Frame, frozen=True, kw_only=True):
    """All manifest blocks, then the trailer block, of ``archive``; answered with Blocks frames and ``EndOfBlocks``."""

    archive: str


class FetchTrailer(Frame, frozen=True, kw_only=True):
    """The trailer block of ``archive``, answered as ``Fetch`` is.

    A reader starts here: the trailer's index says which manifest blocks are valid (a resumed archive also holds those of the
    attempt before), and the reader then asks for them by number as it goes.
    """

    archive: str


class EndOfBlocks(Frame, frozen=True, kw_only=True):
    """The answer to one ``Fetch``, ``FetchTrailer`` or ``FetchManifest`` is complete."""


class Refusal(Frame, frozen=True, kw_only=True):
    """Either side: the work ends here, and why."""

    failure: Failure


DataFrame = (
    Attach
    | Attached
    | Blocks
    | Stored
    | Received
    | Commit
    | Committed
    | Fetch
    | FetchManifest
    | FetchTrailer
    | EndOfBlocks
    | Refusal
)
