"""Trees that do not hold still, and hosts on which something is wrong: recorded per file, the rest is good."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trio

from actors.agent.backup import PROBLEM_LINES_MAX
from actors.agent.port import AgentKeys, ScriptSettings
from drivers.file_tree import HostTrees
from drivers.world import RealWorld, WallClock
from rbcore.archive.block import BlockHeader
from rbcore.archive.model import BlockKind, Entry
from rbcore.errors import Unavailable
from rbcore.file_tree import FileContent, RangeContent, Run, ScanBatch, SourceTree
from tests.agent.daemon import Host, MemoryDaemon
from tests.agent.trees import describe

MIB = 1024 * 1024


class LaterClock(WallClock):
    """An hour ahead: files that were just written count as old, not as racily clean."""

    def now_ns(self) -> int:
        return super().now_ns() + 3600 * 10**9


class MeddledTrees(HostTrees):
    """Real trees in which something happens between the scan and the reading."""

    def __init__(self, meddle: Callable[[bytes], None]) -> None:
        self.meddle = meddle
        self.files_read: list[bytes] = []

    def source(self, resource: str, *, one_file_system: bool = False) -> SourceTree:
        return _Meddled(super().source(resource, one_file_system=one_file_system), self)


class _Meddled:
    def __init__(self, tree: SourceTree, trees: MeddledTrees) -> None:
        self._tree = tree
        self._trees = trees

    def scan(self) -> Iterator[ScanBatch]:
        return self._tree.scan()

    def read_small(self, entries: Sequence[Entry]) -> list[FileContent]:
        for entry in entries:
            self._trees.files_read.append(entry.path)
            self._trees.meddle(entry.path)
        return self._tree.read_small(entries)

    def describe(self, entry: Entry) -> Entry:
        self._trees.files_read.append(entry.path)
        return self._tree.describe(entry)

    def data_runs(self, entry: Entry, offset: int, limit: int) -> list[Run]:
        return self._tree.data_runs(entry, offset, limit)

    def read_range(self, entry: Entry, runs: Sequence[Run]) -> RangeContent:
        if runs[0][0]:
            self._trees.meddle(entry.path)
        return self._tree.read_range(entry, runs)

    def close(self) -> None:
        self._tree.close()


async def test_files_that_vanish_shrink_grow_or_turn_into_something_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("good", "vanishes", "becomes a link", "becomes a directory", "replaced"):
        (source / name).write_bytes(name.encode() * 100)
    for name in ("large vanishes", "large shrinks", "large grows", "large good"):
        (source / name).write_bytes(os.urandom(20 * MIB))

    def meddle(path: bytes) -> None:
        full = source / os.fsdecode(path)
        match path:
            case b"vanishes" | b"large vanishes":
                full.unlink(missing_ok=True)
            case b"becomes a link":
                full.unlink()
                full.symlink_to("/etc/passwd")
            case b"becomes a directory":
                full.unlink()
                full.mkdir()
            case b"replaced":
                (source.parent / "new").write_bytes(b"new content")
                (source.parent / "new").rename(full)
            case b"large shrinks":
                os.truncate(full, 9 * MIB)
            case b"large grows":
                with full.open("ab") as file:
                    file.write(b"more")

    daemon = MemoryDaemon()
    host = Host(daemon, trees=MeddledTrees(meddle))
    archive, outcome = await host.backup(str(source), workers=1)  # one by one: a large file's first range is read first

    assert outcome.outcome == "done"
    commit = daemon.archives[archive].commit
    assert commit is not None
    assert outcome.problems == commit.problems == len(commit.problem_lines) == 6
    entries = daemon.entries(archive)
    assert entries[b"good"].problem == entries[b"large good"].problem == entries[b"replaced"].problem == ""
    assert "vanished" in entries[b"vanishes"].problem
    assert "vanished" in entries[b"large vanishes"].problem
    assert "not a regular file" in entries[b"becomes a link"].problem
    assert "not a regular file" in entries[b"becomes a directory"].problem
    assert "size 20971520, then 9437184" in entries[b"large shrinks"].problem
    assert "size 20971520, then" in entries[b"large grows"].problem
    assert any(line.startswith("large shrinks: changed") for line in commit.problem_lines)

    outcome = await host.restore(archive, str(tmp_path / "target"))
    assert outcome.outcome == "done", host.note_text
    target = tmp_path / "target"
    assert sorted(path.name for path in target.iterdir()) == [
        "good",
        "large good",
        "large grows",
        "large shrinks",
        "large vanishes",
        "replaced",
    ]
    assert (target / "replaced").read_bytes() == b"new content"
    assert (target / "large shrinks").stat().st_size <= 16 * MIB
    assert (target / "large good").read_bytes() == (source / "large good").read_bytes()
    assert "vanishes: in the backup with a problem" in host.note_text


async def test_a_small_file_that_grows_while_it_is_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1000)

    def grow(_path: bytes) -> None:
        path.write_bytes(b"x" * (2 * MIB))

    daemon = MemoryDaemon()
    archive, outcome = await Host(daemon, trees=MeddledTrees(grow)).backup(str(tmp_path))
    entry = daemon.entries(archive)[b"log"]
    assert outcome.problems == 1
    assert entry.size == 1000
    assert "changed while it was read: size 2097152" in entry.problem


async def test_problems_are_listed_up_to_a_thousand_and_the_rest_counted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(PROBLEM_LINES_MAX + 5):
        (source / f"{number:05}").write_bytes(b"x")
    daemon = MemoryDaemon()
    host = Host(daemon, trees=MeddledTrees(lambda path: (source / os.fsdecode(path)).unlink()))
    archive, outcome = await host.backup(str(source))
    commit = daemon.archives[archive].commit
    assert commit is not None
    assert outcome.problems == commit.problems == PROBLEM_LINES_MAX + 5
    assert len(commit.problem_lines) == PROBLEM_LINES_MAX
    assert commit.problem_lines[-1] == "and 6 more"


async def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"small {number}").write_bytes(b"%d" % number * 1000)
    (source / "large").write_bytes(os.urandom(3 * MIB))
    os.link(source / "small 1", source / "linked")
    daemon = MemoryDaemon()
    trees = MeddledTrees(lambda _path: None)
    host = Host(daemon, RealWorld(clock=LaterClock()), trees)
    full, _ = await host.backup(str(source))
    assert len(trees.files_read) == 21

    trees.files_read.clear()
    first, outcome = await host.backup(str(source), parent=full)
    assert outcome.outcome == "done"
    assert trees.files_read == []
    assert daemon.archives[first].numbers(BlockKind.PAYLOAD) == []

    (source / "small 3").write_bytes(b"changed")
    os.utime(source / "small 3", ns=(1, 1))
    os.chmod(source / "small 4", 0o600)
    (source / "new").write_bytes(b"new")
    (source / "small 5").unlink()
    trees.files_read.clear()
    second, _ = await host.backup(str(source), parent=first)
    assert sorted(trees.files_read) == [b"new", b"small 3", b"small 4"]
    assert daemon.trailer(second, "nocrypt").archives == [second, first, full]
    before = describe(source)
    assert (await host.restore(second, str(tmp_path / "target"))).outcome == "done"
    assert describe(tmp_path / "target") == before


async def test_a_resumed_backup_does_not_read_again_what_its_manifest_covers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.agent.backup.CHECKPOINT_BYTES", 8 * MIB)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(60):
        (source / f"{number:02}").write_bytes(os.urandom(MIB))
    daemon = MemoryDaemon()
    trees = MeddledTrees(lambda _path: None)
    host = Host(daemon, trees=trees)
    archive = host.new_name()
    for breaks in (30, 10):
        daemon.break_after_blocks = breaks
        _, outcome = await host.backup(str(source), archive=archive)
        assert outcome.outcome == "interrupted"
    daemon.break_after_blocks = None
    trees.files_read.clear()
    _, outcome = await host.backup(str(source), archive=archive)
    assert outcome.outcome == "done"
    assert len(trees.files_read) <= 30, "two checkpoints of the first attempt, one of the second"
    before = describe(source)
    assert (await host.restore(archive, str(tmp_path / "target"))).outcome == "done"
    assert describe(tmp_path / "target") == before


async def test_a_resumed_backup_goes_on_within_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.agent.backup.CHECKPOINT_BYTES", 16 * MIB)
    source = tmp_path / "source"
    source.mkdir()
    (source / "before").write_bytes(b"small")
    (source / "image").write_bytes(os.urandom(100 * MIB))
    (source / "later").write_bytes(b"small")
    with (source / "sparse").open("wb") as file:
        for number in range(50):
            file.seek(number * 2 * MIB)
            file.write(os.urandom(MIB))
    daemon = MemoryDaemon()
    host = Host(daemon)
    archive = host.new_name()
    for breaks in (70, 25, 20, 35):
        daemon.break_after_blocks = breaks
        _, outcome = await host.backup(str(source), archive=archive, compression="None")
        assert outcome.outcome == "interrupted"
    daemon.break_after_blocks = None
    _, outcome = await host.backup(str(source), archive=archive, compression="None")
    assert outcome.outcome == "done"
    assert daemon.archives[archive].stored_bytes < (150 + 4 * 32) * MIB, "each break costs less than two checkpoints"
    entries = daemon.entries(archive)
    assert entries[b"image"].size == 100 * MIB
    before = describe(source)
    assert (await host.restore(archive, str(tmp_path / "target"))).outcome == "done"
    assert describe(tmp_path / "target") == before


async def test_damage_is_named_and_everything_else_restored(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    for number in range(8):
        (source / "inner" / f"{number}").write_bytes(os.urandom(MIB // 2 + 1000))
    (source / "large").write_bytes(os.urandom(20 * MIB))
    daemon = MemoryDaemon()
    host = Host(daemon)
    archive, _ = await host.backup(str(source), crypto="AES-256-GCM")
    entries = daemon.entries(archive, "AES-256-GCM")
    flipped = entries[b"inner/3"].extents[0].block
    missing = entries[b"large"].extents[10].block
    header, payload = daemon.archives[archive].blocks[flipped]
    daemon.archives[archive].blocks[flipped] = (header, payload[:-1] + bytes([payload[-1] ^ 1]))
    daemon.unreadable.add((archive, missing))

    outcome = await host.restore(archive, str(tmp_path / "target"), crypto="AES-256-GCM")

    assert outcome.outcome == "error"
    assert outcome.problems >= 2
    hurt = {path for path, entry in entries.items() if {one.block for one in entry.extents} & {flipped, missing}}
    assert all(f"{os.fsdecode(path)}: bytes" in host.note_text for path in hurt)
    for path in entries.keys() - hurt - {b"", b"inner"}:
        name = os.fsdecode(path)
        assert (tmp_path / "target" / name).read_bytes() == (source / name).read_bytes()
    large = (tmp_path / "target" / "large").read_bytes()
    original = (source / "large").read_bytes()
    lost = entries[b"large"].extents[10]
    end = lost.file_offset + lost.length
    assert large[: lost.file_offset] == original[: lost.file_offset]
    assert large[lost.file_offset : end] == bytes(lost.length)
    assert large[end:] == original[end:]


async def test_a_damaged_manifest_block_costs_its_own_names_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbcore.archive.manifest.ENTRIES_PER_BLOCK", 10)
    source = tmp_path / "source"
    for directory in ("a", "b", "c"):
        (source / directory / "deeper").mkdir(parents=True)
        for number in range(9):
            (source / directory / "deeper" / str(number)).write_bytes(b"%d" % number)
    daemon = MemoryDaemon()
    host = Host(daemon)
    archive, _ = await host.backup(str(source))
    rows = daemon.trailer(archive, "nocrypt").manifest
    assert len(rows) >= 3
    daemon.unreadable.add((archive, rows[1].block))
    lost = set(list(daemon.entries(archive))[10:20])

    outcome = await host.restore(archive, str(tmp_path / "target"))

    assert outcome.outcome == "error"
    assert f"manifest block {rows[1].block}" in host.note_text
    expected, found = describe(source), describe(tmp_path / "target")
    for path, row in expected.items():
        if path not in lost and "content" in row:
            assert found[path]["content"] == row["content"]


async def test_another_master_key_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    host = Host(MemoryDaemon())
    archive, _ = await host.backup(str(tmp_path / "file"), crypto="AES-256-GCM")
    host.keys = AgentKeys(signing_seed=host.keys.signing_seed, master_key=bytes(32))
    outcome = await host.restore(archive, str(tmp_path / "target"), crypto="AES-256-GCM")
    assert outcome.outcome == "error"
    assert "encrypted with the key" in outcome.reason
    _, outcome = await host.backup(str(tmp_path / "file"), crypto="AES-256-GCM", parent=archive)
    assert outcome.outcome == "error"
    assert "encrypted with the key" in outcome.reason


async def test_a_full_pool_ends_the_attempt_and_another_goes_on(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(os.urandom(40 * MIB))
    daemon = MemoryDaemon()
    host = Host(daemon)
    daemon.full_after_blocks = 12
    archive, outcome = await host.backup(str(tmp_path / "source"))
    assert outcome.outcome == "interrupted"
    assert outcome.reason == "the pool is full"
    daemon.full_after_blocks = None
    _, outcome = await host.backup(str(tmp_path / "source"), archive=archive)
    assert outcome.outcome == "done"


@pytest.mark.parametrize("medium_order", [False, True])
@pytest.mark.parametrize("after_blocks", [0, 1, 3, 6])
async def test_a_restore_whose_channel_ends_midway_is_not_done(
    tmp_path: Path, after_blocks: int, medium_order: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        (source / f"file {number}").write_bytes(os.urandom(9 * MIB))
    daemon = MemoryDaemon()
    host = Host(daemon)
    archive, _ = await host.backup(str(source))
    asked = 0

    def end(_archive: str, _number: int) -> None:
        nonlocal asked
        asked += 1
        if asked > after_blocks:
            raise Unavailable("broken on purpose")

    daemon.on_fetch = end
    outcome = await host.restore(archive, str(tmp_path / "back"), medium_order=medium_order)
    assert outcome.outcome == "interrupted"
    assert asked > after_blocks
    daemon.on_fetch = lambda _archive, _number: None
    outcome = await host.restore(archive, str(tmp_path / "again"), medium_order=medium_order)
    assert outcome.outcome == "done"
    assert describe(tmp_path / "again") == describe(source)


async def test_kill_ends_the_work_and_pause_holds_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(60 * MIB))
    daemon = MemoryDaemon()
    host = Host(daemon)
    seen = 0
    paused = trio.Event()

    async def on_block(_header: BlockHeader) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            host.control.pause()
            paused.set()
        if seen == 20:
            host.control.kill()

    daemon.on_block = on_block
    outcome = None

    async def back_up() -> None:
        nonlocal outcome
        _, outcome = await host.backup(str(tmp_path))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(back_up)
            await paused.wait()
            await trio.testing.wait_all_tasks_blocked(0.05)
            held = seen
            assert held < 20, "what was under way arrives, and nothing more"
            host.control.resume()
    assert outcome is not None
    assert outcome.outcome == "killed"


@pytest.mark.parametrize(
    ("body", "mode", "settings", "outcome_is", "says"),
    [
        ("echo before; exit 0", 0o755, ScriptSettings(), "done", "script: before"),
        ("echo no; exit 3", 0o755, ScriptSettings(), "error", "ended with code 3"),
        ("exit 0", 0o644, ScriptSettings(), "error", "not an executable file"),
        ("exit 0", 0o777, ScriptSettings(), "error", "can be changed by others"),
        ("exit 0", 0o755, ScriptSettings(allowed=False), "error", "do not allow scripts"),
        ("sleep 60", 0o755, ScriptSettings(timeout_seconds=0.2), "error", "took longer"),
    ],
)
async def test_scripts(
    tmp_path: Path, body: str, mode: int, settings: ScriptSettings, outcome_is: str, says: str
) -> None:
    (tmp_path / "source").mkdir()
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(mode)
    host = Host(MemoryDaemon())
    _, outcome = await host.backup(
        str(tmp_path / "source"), parameters={"script_before_snapshot": str(script)}, scripts=settings
    )
    assert outcome.outcome == outcome_is
    assert says in host.note_text + outcome.reason


async def test_the_error_script_runs_when_the_backup_fails(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    host = Host(MemoryDaemon())
    _, outcome = await host.backup(str(tmp_path / "nowhere"), parameters={"script_error_snapshot": str(script)})
    assert outcome.outcome == "error"
    assert "does not exist on the client" in outcome.reason
    assert (tmp_path / "ran").exists()


async def test_the_error_script_runs_when_the_channel_ends(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(os.urandom(40 * MIB))
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    daemon = MemoryDaemon()
    daemon.break_after_blocks = 3
    host = Host(daemon)
    _, outcome = await host.backup(str(tmp_path / "source"), parameters={"script_error_snapshot": str(script)})
    assert outcome.outcome == "interrupted"
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(("ignore", "outcome_is"), [(True, "done"), (False, "error")])
async def test_a_snapshot_that_cannot_be_made_is_not_passed_over_in_silence(
    tmp_path: Path, ignore: bool, outcome_is: str
) -> None:
    (tmp_path / "source").mkdir()
    host = Host(MemoryDaemon())
    parameters: dict[str, object] = {"use_snapshot": True, "ignore_errors_snapshot": ignore}
    _, outcome = await host.backup(str(tmp_path / "source"), parameters=parameters)
    assert outcome.outcome == outcome_is
    assert "snapshot" in host.note_text + outcome.reason
