"""``audit verify``: is the log what was written? And the face of ``audit prove``.

Chain, tree and checkpoints are recomputed from the records; the indexes are compared with them. The records are read by child
processes (``eventlog.audit_worker``), one per core, because LMDB trusts its file and a damaged one may end the process that reads it: then
that, too, is a finding. Damage never shows as a traceback.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import msgspec

from eventlog import audit_worker as worker
from eventlog.checkpoint import Checkpoint, TreeHead
from eventlog.environment import DATA_FILE
from eventlog.log_reader import LogSummary
from eventlog.merkle import EMPTY_ROOT, SUBTREE_LEAVES, Frontier
from eventlog.proof import Proof, prove
from eventlog.record import HASH_BYTES
from eventlog.signing import signature_holds
from rbcore.errors import Damaged, NotFound

PIECE_RECORDS = 4 * SUBTREE_LEAVES
"""Records of one request to a worker: small enough that all cores end together."""

__all__ = ["Finding", "Proof", "VerifyReport", "prove", "verify"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a log."""

    kind: str
    """``record``, ``missing``, ``checkpoint``, ``index`` or ``file``."""
    sentence: str
    position: int = 0
    """The event it is about; 0 when it is about none."""
    stream: str = ""
    type: str = ""
    byte_offset: int = -1
    """Offset in the stored record of the first byte that differs; -1 when it cannot be told."""
    field: str = ""


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``verify`` found."""

    log_id: str
    events: int
    """Events that are what was written, counted from the first."""
    root: str
    """Merkle tree head over them, hex; empty when the tree was not verified or does not end there."""
    checkpoints: int
    """Checkpoints whose signature and tree head hold."""
    signed_events: int
    """Events under the newest of those."""
    public_keys: list[str]
    """Keys that signed them, hex."""
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        return not self.findings


def verify(
    path: Path,
    *,
    key: str | None = None,
    known: Sequence[Checkpoint] = (),
    tree: bool = True,
    indexes: bool = True,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Verify the log in directory ``path``, which may be open in a daemon.

    ``key`` is the hex public key that must have signed (default: the one the log names), ``known`` are checkpoints that were kept
    elsewhere, ``progress`` is called with (events verified, events). Without ``tree`` and ``indexes`` only the chain and the signed heads are
    verified, which finds every changed event in half the time; the tree matters for proofs. Blocking and CPU-bound: not for the trio thread.
    Raises ``NotFound`` when there is no log; everything else that is wrong is a finding.
    """
    if not (path / DATA_FILE).is_file():
        raise NotFound(f"There is no event log in {path}.")
    with _auditors(path, processes or len(os.sched_getaffinity(0))) as auditors:
        return _Verification(path, auditors, key, known, tree, indexes, progress or (lambda done, of: None)).run()


class _Auditor:
    """A worker process and the conversation with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._decode = msgspec.json.Decoder(worker.Answer).decode

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter, our own module)
            [sys.executable, "-m", worker.__name__, str(self._path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def ask(self, request: worker.Request) -> Iterator[worker.Answer]:
        """Answers up to ``Done`` or ``Failed``: take all of them. A worker that died is a failure, and is replaced for the next request."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        position = request.start if not isinstance(request, worker.SummaryRequest) else 0
        try:
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # It died, or could not even open the log: what it said before that is read below.
        for line in self._process.stdout:
            answer = self._decode(line)
            if isinstance(answer, worker.Progress):
                position = answer.position
            yield answer
            if isinstance(answer, worker.Done | worker.Failed):
                return
        yield worker.Failed(self._epitaph(self._process.wait()), position)

    def _epitaph(self, code: int) -> str:
        if code == -signal.SIGALRM:
            return f"reading it did not go on for {worker.SILENT_SECONDS_MAX} s"
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"reading it ended the reading process ({name})"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@contextmanager
def _auditors(path: Path, count: int) -> Iterator[list[_Auditor]]:
    auditors = [_Auditor(path) for _ in range(max(1, count))]
    try:
        for auditor in auditors:
            auditor.start()
        yield auditors
    finally:
        for auditor in auditors:
            auditor.stop()


class _Verification:
    """One run of ``verify``."""

    def __init__(
        self,
        path: Path,
        auditors: Sequence[_Auditor],
        key: str | None,
        known: Sequence[Checkpoint],
        tree: bool,
        indexes: bool,
        progress: Callable[[int, int], None],
    ) -> None:
        self._path = path
        self._auditors = auditors
        self._key = key
        self._known = known
        self._tree = tree
        self._indexes = indexes
        self._progress = progress
        self._findings: list[Finding] = []
        self._frontier = Frontier()
        """Over the records that proved sound, in whole subtrees."""
        self._heads: dict[int, tuple[bytes, bytes]] = {}
        """Size -> recomputed hash of the last record and tree head; the latter is empty when the tree is not verified."""
        self._sound = 0

    def run(self) -> VerifyReport:
        summary = self._summary()
        if summary is None:
            return self._report(None, [])
        self._findings += [Finding(kind="file", sentence=sentence) for sentence in summary.problems]
        size = summary.last_position if summary.last_position <= 2 * summary.entries else summary.entries
        heads = self._signed_heads(summary)
        self._verify_chain(size, sorted({head.size for head in heads if head.size <= size} | {size}))
        if self._sound == size and summary.entries != size:
            self._find("file", f"LMDB counts {summary.entries} records, and there are {size}.")
        held = self._verify_heads(heads, size)
        if self._indexes and not self._findings:
            self._verify_indexes(summary, size)
        return self._report(summary, held)

    def _find(self, kind: str, sentence: str, position: int = 0) -> None:
        self._findings.append(Finding(kind=kind, sentence=sentence, position=position))

    def _summary(self) -> LogSummary | None:
        summary = None
        for answer in self._auditors[0].ask(worker.SummaryRequest()):
            if isinstance(answer, worker.Summary):
                summary = answer.summary
            elif isinstance(answer, worker.Failed):
                self._file_damaged(answer.sentence, 0)
        return summary

    def _file_damaged(self, reason: str, position: int) -> None:
        readable = f"Events up to {position} were read before that; " if position else ""
        self._find(
            "file",
            f"The file {self._path / DATA_FILE} is damaged: {reason}. {readable}restore it from a copy or an export.",
            position,
        )

    # --- chain -----------------------------------------------------------------------------------------------------

    def _verify_chain(self, size: int, heads_at: Sequence[int]) -> None:
        requests = [
            worker.ChainRequest(
                start,
                end := min(start + PIECE_RECORDS, size),
                [head for head in heads_at if start < head <= end],
                self._tree,
            )
            for start in range(0, size, PIECE_RECORDS)
        ]
        done = 0
        for request, answers in zip(requests, self._spread(requests), strict=True):
            if not self._fold(request, answers):
                return
            done = request.end
            self._progress(done, size)
        self._sound = size
        self._heads.setdefault(0, (bytes(HASH_BYTES), EMPTY_ROOT if self._tree else b""))

    def _spread(self, requests: Iterable[worker.Request]) -> Iterator[list[worker.Answer]]:
        """Answers to each request, in order, worked on by all auditors side by side."""
        idle: SimpleQueue[_Auditor] = SimpleQueue()
        for auditor in self._auditors:
            idle.put(auditor)
        given_up = False

        def carry_out(request: worker.Request) -> list[worker.Answer]:
            if given_up:
                return []
            auditor = idle.get()
            try:
                return list(auditor.ask(request))
            finally:
                idle.put(auditor)

        with ThreadPoolExecutor(len(self._auditors)) as pool:
            try:
                yield from pool.map(carry_out, requests)
            finally:
                given_up = True

    def _fold(self, request: worker.ChainRequest, answers: Sequence[worker.Answer]) -> bool:
        """Take in what was found out about a piece; whether all of it is sound."""
        for answer in answers:
            if isinstance(answer, worker.Subtree):
                assert self._frontier.size == answer.start, "subtrees come in order"
                self._frontier.append_subtree(answer.root)
            elif isinstance(answer, worker.Progress):
                self._sound = answer.position
            elif isinstance(answer, worker.Head):
                self._heads[answer.size] = answer.hash, self._root(answer)
                self._sound = answer.size
            elif isinstance(answer, worker.Finding):
                damage = answer.damage
                self._sound = damage.position - 1
                kind = "missing" if damage.sentence.endswith("is missing.") else "record"
                self._findings.append(
                    Finding(
                        kind=kind,
                        sentence=damage.sentence,
                        position=damage.position,
                        stream=damage.stream,
                        type=damage.type,
                        byte_offset=damage.byte_offset,
                        field=damage.field,
                    )
                )
                return False
            elif isinstance(answer, worker.Failed):
                self._file_damaged(answer.sentence, answer.position)
                return False
        return True

    def _root(self, head: worker.Head) -> bytes:
        """Tree head at ``head.size``: from the subtrees before it and the edge that the worker found."""
        if not self._tree:
            return b""
        assert self._frontier.size == head.start, "a piece is folded after the pieces before it"
        return Frontier(head.size, [*self._frontier.peaks, *head.peaks]).root()

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def _signed_heads(self, summary: LogSummary) -> list[_SignedHead]:
        """Checkpoints, stored and known, whose signature holds and is by the right key."""
        key = self._key or summary.signing_key
        heads: list[_SignedHead] = []
        for origin, size, checkpoint in [
            *(("", size, checkpoint) for size, checkpoint in summary.checkpoints),
            *(("known ", None, checkpoint) for checkpoint in self._known),
        ]:
            try:
                head = checkpoint.head()
            except Damaged as error:
                self._find("checkpoint", error.message)
                continue
            name = f"The {origin}checkpoint over {head.size if size is None else size} events"
            if not signature_holds(checkpoint):
                self._find("checkpoint", f"{name} does not carry a valid signature.")
            elif checkpoint.public_key != key:
                self._find("checkpoint", f"{name} is signed by key {checkpoint.public_key} and not by {key}.")
            elif head.log_id != summary.log_id or size not in (None, head.size):
                self._find("checkpoint", f"{name} is one over {head.size} events of log {head.log_id.hex()}.")
            else:
                heads.append(_SignedHead(name, head, checkpoint.public_key))
        return sorted(heads, key=lambda one: one.size)

    def _verify_heads(self, heads: Sequence[_SignedHead], size: int) -> list[_SignedHead]:
        """Compare signed with recomputed tree heads; those that hold."""
        held: list[_SignedHead] = []
        good = 0
        for one in heads:
            if one.size > size:
                if self._sound == size:
                    self._find(
                        "missing",
                        f"{one.name} says that there were more events than the {size} that are here: "
                        f"events {size + 1} to {one.size} are lost.",
                        size + 1,
                    )
                    break
            elif one.size in self._heads and self._heads[one.size] == (
                one.head.head,
                one.head.root if self._tree else b"",
            ):
                held.append(one)
                good = one.size
            elif one.size in self._heads:
                self._find(
                    "checkpoint",
                    f"{one.name} does not fit: the chain holds together, but at least one of events {good + 1} to "
                    f"{one.size} was replaced after it was signed, with all hashes after it made anew.",
                    good + 1,
                )
                break
        return held

    # --- indexes ---------------------------------------------------------------------------------------------------

    def _verify_indexes(self, summary: LogSummary, size: int) -> None:
        if summary.indexed > size:
            self._find(
                "missing",
                f"The indexes go up to event {summary.indexed}: events {size + 1} to that are lost.",
                size + 1,
            )
            return
        if summary.stream_entries != summary.indexed:
            self._find(
                "index",
                f"The stream index has {summary.stream_entries} entries for {summary.indexed} events. Rebuild the indexes.",
            )
        requests = [
            worker.IndexRequest(start, min(start + PIECE_RECORDS, summary.indexed))
            for start in range(0, summary.indexed, PIECE_RECORDS)
        ]
        for answers in self._spread(requests):
            for answer in answers:
                if isinstance(answer, worker.IndexFinding):
                    self._find("index", f"{answer.sentence} The events are sound: rebuild the indexes.")
                    return
                if isinstance(answer, worker.Failed):
                    self._file_damaged(answer.sentence, answer.position)
                    return

    def _report(self, summary: LogSummary | None, held: Sequence[_SignedHead]) -> VerifyReport:
        return VerifyReport(
            log_id=summary.log_id.hex() if summary else "",
            events=self._sound,
            root=self._heads.get(self._sound, (b"", b""))[1].hex(),
            checkpoints=len(held),
            signed_events=max((one.size for one in held), default=0),
            public_keys=sorted({one.public_key for one in held}),
            findings=self._findings,
        )


class _SignedHead:
    """A checkpoint whose signature holds."""

    def __init__(self, name: str, head: TreeHead, public_key: str) -> None:
        self.name = name
        self.head = head
        self.size = head.size
        self.public_key = public_key
