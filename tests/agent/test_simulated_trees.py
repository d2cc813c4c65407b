"""Properties of the pipelines on generated trees: any tree, any change, any chain, any interruption comes back as it was."""

from __future__ import annotations

import os

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.simulated.file_tree import SimulatedTrees
from drivers.simulated.world import SimulatedWorld
from rbcore.archive.model import EntryType
from tests.agent.daemon import Host, MemoryDaemon

COMPONENTS = st.sampled_from(["a", "b", "a.b", "a-b", "c d", "\udcff\udc80", "\n", "x" * 40])
PATHS = st.lists(COMPONENTS, min_size=1, max_size=4).map(lambda parts: "/data/" + "/".join(parts))
SIZES = st.sampled_from([0, 1, 17, 4096, 65_537, 1024 * 1024 - 1, 1024 * 1024, 1024 * 1024 + 1, 9 * 1024 * 1024 + 3])
CHANGES = st.one_of(
    st.tuples(st.just("write"), PATHS, SIZES, st.booleans()),
    st.tuples(st.just("directory"), PATHS),
    st.tuples(st.just("special"), PATHS, st.sampled_from([EntryType.SYMLINK, EntryType.FIFO, EntryType.BLOCK_DEVICE])),
    st.tuples(st.just("link"), PATHS, st.integers(0, 50)),
    st.tuples(st.just("attributes"), st.integers(0, 50), st.integers(0, 0o7777), st.binary(max_size=20)),
    st.tuples(st.just("remove"), st.integers(0, 50)),
)


def apply(trees: SimulatedTrees, change: tuple[object, ...]) -> None:
    """Do one change, if it makes sense in this tree."""
    kind, first, *rest = change
    names = trees.names("/data")
    if isinstance(first, int):
        if not names:
            return
        first = names[first % len(names)]
    assert isinstance(first, str)
    parent = first.rpartition("/")[0]
    parts = first.split("/")
    above = ["/".join(parts[:count]) for count in range(2, len(parts))]
    files = {
        name
        for name in names
        if trees.nodes[name[1:].encode("utf-8", "surrogateescape")].type is not EntryType.DIRECTORY
    }
    if kind != "remove" and any(one in files for one in above):
        return
    if kind == "write" and (first in files or first not in names):
        size, holes = rest
        assert isinstance(size, int)
        pattern = bytes(range(256)) * (size // 256 + 1)
        content = bytearray(pattern[:size])
        if holes:
            content[size // 4 : size // 2] = bytes(size // 2 - size // 4)
        trees.make_directory(parent)
        trees.write(first, bytes(content), holes=bool(holes))
    elif kind == "directory" and first not in files:
        trees.make_directory(first)
    elif kind == "special" and first not in names:
        trees.make_directory(parent)
        assert isinstance(rest[0], EntryType)
        target = os.fsencode(first) if rest[0] is EntryType.SYMLINK else b""
        trees.make_special(first, rest[0], link_target=target, rdev=7 if rest[0] is EntryType.BLOCK_DEVICE else 0)
    elif kind == "link" and files and first not in names:
        assert isinstance(rest[0], int)
        trees.make_directory(parent)
        trees.link(sorted(files)[rest[0] % len(files)], first)
    elif kind == "attributes":
        trees.change(first, mode=rest[0], xattrs={b"user.x": rest[1]}, uid=len(str(rest[1])))
    elif kind == "remove":
        trees.remove(first)


def simulate(scenario: object) -> None:
    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(CHANGES, max_size=12), min_size=1, max_size=4), st.sampled_from(["nocrypt", "AES-256-GCM"]))
def test_every_link_of_a_chain_restores_to_what_it_saw(history: list[list[tuple[object, ...]]], crypto: str) -> None:
    async def scenario() -> None:
        trees = SimulatedTrees()
        trees.make_directory("/data")
        daemon = MemoryDaemon()
        host = Host(daemon, SimulatedWorld.of_seed(1), trees)
        seen: list[tuple[str, dict[str, object]]] = []
        for changes in history:
            for change in changes:
                apply(trees, change)
            parent = seen[-1][0] if seen else None
            archive, outcome = await host.backup("/data", parent=parent, crypto=crypto)
            assert outcome.outcome == "done", outcome
            assert outcome.problems == 0
            daemon.entries(archive, crypto)
            seen.append((archive, trees.snapshot("/data")))
        for number, (archive, snapshot) in enumerate(seen):
            outcome = await host.restore(archive, f"/restored/{number}", crypto=crypto)
            assert outcome.outcome == "done", host.note_text
            assert trees.snapshot(f"/restored/{number}") == snapshot

    simulate(scenario)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(CHANGES, min_size=3, max_size=15), st.lists(st.integers(0, 12), max_size=4), st.lists(CHANGES, max_size=3)
)
def test_an_interrupted_backup_goes_on(
    changes: list[tuple[object, ...]], breaks: list[int], between: list[tuple[object, ...]]
) -> None:
    async def scenario() -> None:
        trees = SimulatedTrees()
        trees.make_directory("/data")
        for change in changes:
            apply(trees, change)
        daemon = MemoryDaemon()
        host = Host(daemon, SimulatedWorld.of_seed(2), trees)
        archive = host.new_name()
        for number, after in enumerate(breaks):
            daemon.break_after_blocks = after
            _, outcome = await host.backup("/data", archive=archive, crypto="AES-256-GCM")
            if outcome.outcome == "done":
                break
            assert outcome.outcome == "interrupted"
            if number < len(between):
                apply(trees, between[number])
        else:
            daemon.break_after_blocks = None
            _, outcome = await host.backup("/data", archive=archive, crypto="AES-256-GCM")
            assert outcome.outcome == "done", outcome
        outcome = await host.restore(archive, "/restored", crypto="AES-256-GCM")
        assert outcome.outcome == "done", host.note_text
        assert trees.snapshot("/restored") == trees.snapshot("/data")

    simulate(scenario)


def test_the_same_seed_makes_the_same_blocks() -> None:
    made: list[list[bytes]] = []

    async def scenario() -> None:
        trees = SimulatedTrees()
        trees.make_directory("/data/x")
        for number in range(300):
            trees.write(f"/data/x/{number}", b"%d" % number * 100)
        trees.write("/data/large", os.urandom(10) + bytes(20_000_000))
        trees.change("/data/large", content=b"l" * 20_000_000)
        daemon = MemoryDaemon()
        archive, outcome = await Host(daemon, SimulatedWorld.of_seed(3), trees).backup("/data", crypto="AES-256-GCM")
        assert outcome.outcome == "done"
        made.append([header.raw for header, _ in daemon.archives[archive].blocks.values()])

    simulate(scenario)
    simulate(scenario)
    assert made[0] == made[1]
