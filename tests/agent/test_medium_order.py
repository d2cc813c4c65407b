"""Restores in the order of the medium: the same trees and the same problems, and every archive of the chain visited once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.agent import medium_order
from actors.agent.medium_order import MediumOrder
from actors.agent.port import WorkOutcome
from actors.agent.restore_plan import UNIT_BLOCKS_MAX
from drivers.simulated.file_tree import SimulatedTrees
from drivers.simulated.world import SimulatedWorld
from drivers.world import RealWorld
from rbcore.archive.manifest import path_order_key
from rbcore.archive.model import BlockKind, Entry, EntryType, Extent
from rbcore.errors import Damaged
from rbcore.messages import Archive, StartRestore
from tests.agent.crafted import File, craft_chain
from tests.agent.daemon import Host, MemoryDaemon
from tests.agent.test_round_trip import needs_root
from tests.agent.test_simulated_trees import CHANGES, apply, simulate
from tests.agent.test_trouble import LaterClock
from tests.agent.trees import describe, make_everything

KIB = 1024
MIB = 1024 * 1024


def visits(fetched: Sequence[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    """Archives in the order in which they were read, each with the numbers of one contiguous run."""
    return [
        (archive, [number for _, number in run]) for archive, run in itertools.groupby(fetched, key=lambda one: one[0])
    ]


def jumps_back(numbers: Sequence[int], *, within: int = 0) -> int:
    """How often the medium must go back further than ``within`` blocks before the last that was read."""
    return sum(1 for last, number in itertools.pairwise(numbers) if number < last - within)


def check_medium_order(daemon: MemoryDaemon, chain: Sequence[str], *, within: int = 0) -> None:
    """One run for each archive of ``chain`` (the oldest first) that was read at all; numbers ascending within it."""
    runs = visits(daemon.fetched)
    read = [archive for archive, _ in runs]
    assert read == [archive for archive in chain if archive in set(read)]
    assert all(jumps_back(numbers, within=within) == 0 for _, numbers in runs), runs


async def restore_both_ways(host: Host, archive: str, name: str, **how: Any) -> tuple[str, WorkOutcome]:
    """Restore to ``name`` and ``name``'s neighbour; both outcomes and journals must be the same but for the order of lines."""
    host.notes.clear()
    plain = await host.restore(archive, f"{name} in path order", **how)
    notes = sorted(host.notes)
    host.notes.clear()
    host.daemon.fetched.clear()
    medium = await host.restore(archive, name, medium_order=True, **how)
    assert medium == plain
    assert sorted(host.notes) == notes
    return f"{name} in path order", medium


def test_an_order_without_the_field_is_one_in_path_order() -> None:
    order = StartRestore(
        task_id=1,
        transfer_token=b"t",
        archive=Archive(archive="0" * 32, root="", crypto="nocrypt", key_id=""),
        destination_path="/",
        only=[],
        parameters={},
        medium_order=True,
    )
    fields = msgspec.to_builtins(order, builtin_types=(bytes,))
    assert fields.pop("medium_order")
    assert not msgspec.convert(fields, StartRestore).medium_order


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(CHANGES, max_size=12), min_size=1, max_size=5), st.sampled_from(["nocrypt", "AES-256-GCM"]))
def test_any_chain_restores_to_the_same_tree(history: list[list[tuple[object, ...]]], crypto: str) -> None:
    async def scenario() -> None:
        trees = SimulatedTrees()
        trees.make_directory("/data")
        daemon = MemoryDaemon()
        host = Host(daemon, SimulatedWorld.of_seed(1), trees)
        chain: list[str] = []
        for number, changes in enumerate(history):
            for change in changes:
                apply(trees, change)
            archive, _ = await host.backup("/data", parent=chain[-1] if chain else None, crypto=crypto)
            chain.append(archive)
            snapshot = trees.snapshot("/data")
            other, outcome = await restore_both_ways(host, archive, f"/restored/{number}", crypto=crypto)
            assert outcome.outcome == "done", host.note_text
            assert trees.snapshot(f"/restored/{number}") == trees.snapshot(other) == snapshot
            check_medium_order(daemon, chain)

    simulate(scenario)


@settings(max_examples=30, deadline=None)
@given(st.lists(CHANGES, min_size=3, max_size=15), st.lists(CHANGES, max_size=6), st.data())
def test_granular_restores_are_the_same(
    changes: list[tuple[object, ...]], later: list[tuple[object, ...]], data: st.DataObject
) -> None:
    async def scenario() -> None:
        trees = SimulatedTrees()
        trees.make_directory("/data")
        daemon = MemoryDaemon()
        host = Host(daemon, SimulatedWorld.of_seed(4), trees)
        for change in changes:
            apply(trees, change)
        full, _ = await host.backup("/data")
        for change in later:
            apply(trees, change)
        archive, _ = await host.backup("/data", parent=full)
        names = [*trees.names("/data"), "/data/not there"]
        only = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        # A directory on the way that was there before keeps what it has.
        for destination in ("/restored", "/restored in path order"):
            trees.make_directory(f"{destination}/a")
            trees.change(f"{destination}/a", mode=0o711, mtime_ns=5, atime_ns=6)
        other, _ = await restore_both_ways(host, archive, "/restored", only=only)
        assert _without_times_of_parents(trees, "/restored", only) == _without_times_of_parents(trees, other, only)
        check_medium_order(daemon, [full, archive])

    simulate(scenario)


def _without_times_of_parents(trees: SimulatedTrees, destination: str, only: list[str]) -> dict[str, Any]:
    """What was there before and is only on the way has the times of the last change in it, which differ."""
    snapshot = trees.snapshot(destination)
    for path in {"", "a"} - {one.removeprefix("/data").strip("/") for one in only}:
        snapshot[path] = (*snapshot[path][:4], *snapshot[path][6:])
    return snapshot


# --- files whose content is spread over archives -----------------------------------------------------------------------

FILES = st.builds(
    File,
    path=st.sampled_from([b"a", b"b", b"d/a", b"d/b", b"d/e/x", b"f/1", b"f/2", b"f/3", b"z"]),
    runs=st.lists(
        st.tuples(
            st.integers(0, 3),  # archive
            st.integers(0, 60),  # block number
            st.integers(0, 40),  # hole in front, KiB
            st.sampled_from([1, 1000, 65_536, MIB]),
        ),
        max_size=14,
    ),
    tail=st.sampled_from([0, 0, 100_000]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(FILES, max_size=9, unique_by=lambda file: file.path),
    st.sets(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=3),
    st.sampled_from([None, None, "few spread files", "small windows"]),
)
def test_spread_files_get_each_piece_in_the_pass_of_its_archive(
    files: list[File], unreadable: set[tuple[int, int]], limited: str | None
) -> None:
    async def scenario() -> None:
        trees = SimulatedTrees()
        daemon = MemoryDaemon()
        host = Host(daemon, SimulatedWorld.of_seed(5), trees)
        chain = craft_chain(daemon, host, files, archives=4)
        daemon.unreadable = {(chain[-1 - archive], number) for archive, number in unreadable}
        other, outcome = await restore_both_ways(host, chain[-1], "/restored")
        restored = trees.snapshot("/restored")
        assert restored == trees.snapshot(other)
        if outcome.outcome == "done":
            for file in files:
                assert restored[os.fsdecode(file.path)][6] == file.content
        if limited is None:
            # Files whose runs of blocks overlap, which this agent does not write, may be in units that do.
            check_medium_order(daemon, chain, within=UNIT_BLOCKS_MAX)
        assert outcome.files == len(files) + (1 if files else 0)

    with pytest.MonkeyPatch.context() as patch:
        if limited == "few spread files":
            patch.setattr(medium_order, "SPREAD_FILES", 1)
        elif limited == "small windows":
            patch.setattr(medium_order, "WINDOW_BYTES", 3000)
            patch.setattr(medium_order, "WINDOW_LARGE_FILES", 2)
        simulate(scenario)


async def test_one_spread_file_too_many_costs_one_more_visit_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medium_order, "SPREAD_FILES", 2)
    files = [File(b"%d" % number, [(2, number, 0, 50), (0, number, 0, 50)]) for number in range(9)]
    trees = SimulatedTrees()
    daemon = MemoryDaemon()
    host = Host(daemon, SimulatedWorld.of_seed(5), trees)
    chain = craft_chain(daemon, host, files, archives=3)
    assert (await host.restore(chain[-1], "/restored", medium_order=True)).outcome == "done"
    assert visits(daemon.fetched) == [(chain[0], list(range(9))), (chain[-1], [*range(2, 9), 0, 1])]


@needs_root
async def test_a_spread_file_that_cannot_be_made_is_named_once(tmp_path: Path) -> None:
    daemon = MemoryDaemon()
    host = Host(daemon)
    chain = craft_chain(daemon, host, [File(b"d/a", [(2, 1, 0, 9), (1, 1, 0, 9), (0, 1, 0, 9)])], archives=3)
    (tmp_path / "target" / "d" / "a").mkdir(parents=True)
    outcome = await host.restore(chain[-1], str(tmp_path / "target"), medium_order=True)
    assert (outcome.outcome, outcome.problems) == ("error", 2), "the file, and the link to it"
    assert host.note_text.count("d/a: was not restored") == 1


def test_an_archive_that_the_trailer_does_not_name_is_damage() -> None:
    plan = MediumOrder(2)
    cutter = next(plan.passes())
    with pytest.raises(Damaged, match="names archive 2 of 2"):
        list(cutter.add(_file(b"x", [Extent(0, 1, 2, 0, 0)])))


# --- order and memory --------------------------------------------------------------------------------------------------


def _file(path: bytes, extents: list[Extent]) -> Entry:
    size = sum(extent.length for extent in extents)
    return Entry(path, EntryType.FILE, 0o600, 0, 0, "", "", 0, 0, size, 0, 0, 1, extents)


def test_the_plan_of_a_long_manifest_stays_within_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medium_order, "WINDOW_BYTES", 2_000_000)
    (cutter,) = MediumOrder(1).passes()
    waiting = waiting_max = 0
    numbers: list[int] = []

    def take(units: Any) -> None:
        nonlocal waiting
        for unit in units:
            numbers.extend(number for _, number in sorted(unit.blocks))
            waiting -= unit.names
            assert unit.content_bytes <= 24 * MIB
            assert len(unit.blocks) <= 24

    for number in range(100_000):
        # Two attempts of a backup, whose blocks alternate in the order of paths.
        block = number // 10 + (1_000_000 if number % 7 else 0)
        waiting += 1
        take(cutter.add(_file(b"%06d" % number, [Extent(0, 1000, 0, block, 0)])))
        waiting_max = max(waiting_max, waiting)
    take(cutter.end())
    assert waiting == 0
    assert waiting_max <= 2_000_000 // 1200 + 1
    assert jumps_back(numbers) <= 100_000 * 1207 // 2_000_000 + 1, "one sweep for each window"


async def test_what_an_interrupted_backup_left_is_read_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.agent.backup.CHECKPOINT_BYTES", 8 * MIB)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(60):
        (source / f"{number:02}").write_bytes(os.urandom(MIB))
    (source / "55 large").write_bytes(os.urandom(20 * MIB))
    daemon = MemoryDaemon()
    host = Host(daemon, RealWorld(clock=LaterClock()))
    archive = host.new_name()
    for breaks in (30, 10):
        daemon.break_after_blocks = breaks
        await host.backup(str(source), archive=archive)
        for number in range(0, 60, 9):
            os.utime(source / f"{number:02}", ns=(breaks, breaks))
    daemon.break_after_blocks = None
    await host.backup(str(source), archive=archive)
    before = describe(source)
    assert (await host.restore(archive, str(tmp_path / "target"))).outcome == "done"
    assert jumps_back([number for _, number in daemon.fetched]) >= 2, "in path order"
    daemon.fetched.clear()
    assert (await host.restore(archive, str(tmp_path / "medium"), medium_order=True)).outcome == "done"
    assert describe(tmp_path / "medium") == describe(tmp_path / "target") == before
    check_medium_order(daemon, [archive])


# --- real trees --------------------------------------------------------------------------------------------------------


@needs_root
async def test_a_chain_of_real_trees_comes_back_in_every_attribute(tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_everything(source)
    daemon = MemoryDaemon()
    host = Host(daemon, RealWorld(clock=LaterClock()))
    chain: list[str] = []

    async def back_up() -> None:
        name, outcome = await host.backup(str(source), parent=chain[-1] if chain else None, crypto="AES-256-GCM")
        assert outcome.outcome == "done"
        chain.append(name)

    await back_up()
    with (source / "large").open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"changed in the middle")
    (source / "small 007").write_bytes(b"changed")
    os.link(source / "large", source / "zz link to large")
    await back_up()
    with (source / "sparse").open("r+b") as file:
        file.seek(50 * MIB)
        file.write(b"third island" * 1000)
    (source / "small 011").unlink()
    await back_up()
    await back_up()
    before = describe(source)

    daemon.fetched.clear()
    outcome = await host.restore(chain[-1], str(tmp_path / "target"), crypto="AES-256-GCM", medium_order=True)
    assert outcome.outcome == "done", host.note_text
    assert describe(tmp_path / "target") == before
    assert [archive for archive, _ in visits(daemon.fetched)] == chain[:3]
    check_medium_order(daemon, chain)
    assert os.stat(tmp_path / "target" / "sparse").st_blocks * 512 < MIB, "holes are holes again"

    outcome = await host.restore(chain[-1], str(tmp_path / "target"), crypto="AES-256-GCM", medium_order=True)
    assert outcome.outcome == "done", "what is there is replaced"
    found = describe(tmp_path / "target")
    del found[b""], before[b""]  # a destination that held something keeps its own metadata
    assert found == before


@needs_root
async def test_spread_files_on_a_real_file_system(tmp_path: Path) -> None:
    runs = [(number % 3, number, 16 * (number % 2), MIB) for number in range(24)]
    files = [File(b"d/image", runs, tail=300_000), File(b"d/other", [(1, 50, 0, 4097), (2, 50, 0, 5000)])]
    daemon = MemoryDaemon()
    host = Host(daemon)
    chain = craft_chain(daemon, host, files, archives=3)
    other, outcome = await restore_both_ways(host, chain[-1], str(tmp_path / "target"))
    assert outcome.outcome == "done", host.note_text
    assert describe(tmp_path / "target") == describe(other)
    for file in files:
        assert (tmp_path / "target" / os.fsdecode(file.path)).read_bytes() == file.content
    check_medium_order(daemon, chain)


# --- trouble -----------------------------------------------------------------------------------------------------------


async def _chain_of_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Host, list[str], Path]:
    """Manifests of several blocks, small files and a large one in each of three archives."""
    monkeypatch.setattr("rbcore.archive.manifest.ENTRIES_PER_BLOCK", 10)
    source = tmp_path / "source"
    host = Host(MemoryDaemon(), RealWorld(clock=LaterClock()))
    chain: list[str] = []
    for name in ("a", "b", "c"):
        for directory in ("1", "2", "3"):
            (source / directory / "deeper").mkdir(parents=True, exist_ok=True)
            for number in range(5):
                (source / directory / "deeper" / f"{number} {name}").write_bytes(os.urandom(300 * KIB))
        (source / "2" / f"large {name}").write_bytes(os.urandom(12 * MIB))
        os.link(source / "2" / f"large {name}", source / "3" / f"link {name}")
        archive, _ = await host.backup(str(source), parent=chain[-1] if chain else None)
        chain.append(archive)
    return host, chain, source


async def test_damaged_blocks_cost_the_same_as_in_path_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, chain, _ = await _chain_of_three(tmp_path, monkeypatch)
    daemon = host.daemon
    rows = daemon.trailer(chain[-1], "nocrypt").manifest
    assert len(rows) >= 5
    for archive in chain:
        numbers = daemon.archives[archive].numbers(BlockKind.PAYLOAD)
        daemon.unreadable |= {(archive, number) for number in numbers[2::7]}
    for damaged in ([], [rows[0].block], [rows[2].block], [rows[1].block, rows[4].block]):
        kept = set(daemon.unreadable)
        daemon.unreadable |= {(chain[-1], number) for number in damaged}
        name = str(tmp_path / f"target {len(damaged)} {damaged[:1]}")
        other, outcome = await restore_both_ways(host, chain[-1], name)
        assert outcome.outcome == "error"
        expected, found = describe(other), describe(name)
        assert found.keys() == expected.keys()
        for path, row in expected.items():
            if not row["mode"].startswith("0o4") or not damaged:  # times of directories whose own entries are lost
                assert found[path] == row
        daemon.unreadable = kept


@pytest.mark.parametrize("damaged_at", ["first", "later"])
async def test_a_manifest_that_reads_differently_later_ends_the_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged_at: str
) -> None:
    host, chain, source = await _chain_of_three(tmp_path, monkeypatch)
    daemon = host.daemon
    block = daemon.trailer(chain[-1], "nocrypt").manifest[3].block
    times = 0

    def on_fetch(archive: str, number: int) -> None:
        nonlocal times
        if (archive, number) == (chain[-1], block):
            times += 1
            daemon.unreadable = {(archive, number)} if (times == 1) == (damaged_at == "first") else set()

    daemon.on_fetch = on_fetch
    outcome = await host.restore(chain[-1], str(tmp_path / "target"), medium_order=True)
    assert outcome.outcome == "interrupted"
    assert f"Manifest block {block}" in outcome.reason
    daemon.on_fetch = lambda _archive, _number: None
    daemon.unreadable = set()
    outcome = await host.restore(chain[-1], str(tmp_path / "target"), medium_order=True)
    assert outcome.outcome == "done"
    assert describe(tmp_path / "target") == describe(source)


@pytest.mark.parametrize("how", ["killed", "interrupted"])
async def test_an_attempt_that_ends_in_the_second_pass_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    host, chain, source = await _chain_of_three(tmp_path, monkeypatch)
    descriptors = len(os.listdir("/proc/self/fd"))

    def on_fetch(archive: str, number: int) -> None:
        if archive == chain[1]:
            if how == "killed":
                host.control.kill()
            else:
                host.control.scope.cancel()

    host.daemon.on_fetch = on_fetch
    outcome = await host.restore(chain[-1], str(tmp_path / "target"), medium_order=True)
    assert outcome.outcome == how
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert [archive for archive, _ in visits(host.daemon.fetched)][:1] == chain[:1]
    host.daemon.on_fetch = lambda _archive, _number: None
    outcome = await host.restore(chain[-1], str(tmp_path / "target"), medium_order=True)
    assert outcome.outcome == "done"
    assert describe(tmp_path / "target") == describe(source)


async def test_progress_grows_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.agent.restore.PROGRESS_SECONDS", 0)
    host, chain, source = await _chain_of_three(tmp_path, monkeypatch)
    told: list[tuple[int, int, int]] = []

    async def progress(*figures: int) -> None:
        told.append(figures)  # type: ignore[arg-type]

    new_control: Callable[[], Any] = host.new_control

    def told_control() -> Any:
        control = new_control()
        control.progress = progress
        return control

    monkeypatch.setattr(host, "new_control", told_control)
    outcome = await host.restore(chain[-1], str(tmp_path / "target"), medium_order=True)
    assert told == sorted(told)
    total = sum(
        path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.name.startswith("link")
    )
    assert told[-1] == (total, total, outcome.files)
    assert len(told) > 5


def test_names_of_a_pass_come_in_manifest_order() -> None:
    """What the cutter relies on: directories are complete when a name outside of them comes."""
    paths = [b"", b"a", b"a/b", b"a/b/c", b"a-b", b"a.b"]
    (cutter,) = MediumOrder(1).passes()
    units = []
    for path in sorted(paths, key=path_order_key):
        entry = msgspec.structs.replace(_file(path, []), type=EntryType.DIRECTORY)
        units += list(cutter.add(entry))
    units += list(cutter.end())
    after = [one.path for unit in units for one in unit.after if isinstance(one, Entry)]
    assert after == [b"a/b/c", b"a/b", b"a", b"a-b", b"a.b", b""]
