"""Crashes at any step: what was reported durable is there, nothing half is visible, and the work can always go on."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.simulated.volume import SimulatedVolume
from rbcore.archive.block import iter_blocks, parse_header
from rbcore.archive.root import RootHasher
from rbcore.archive.store import ArchiveWriter
from rbcore.errors import NotFound, Unavailable
from tests.archive.samples import ARCHIVE, ARCHIVE_ID, CATALOG, Seeded, plaintexts, sealed_archive, verified

BLOCKS = sealed_archive(plaintexts([700, 3000, 5000, 1, 4096, 9000, 2, 8000, 4000, 600, 300, 200]))
NUMBERS = [parse_header(block).number for block in BLOCKS]
OTHER = "07a" + "c" * 29


class Crash(Exception):
    """Not an ``RbError``: nothing may handle it."""


class Machine:
    """A store on a disk that crashes after a number of operations; ``restart`` goes on with what survived."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.volume = SimulatedVolume()
        initialise_catalog(self.volume, CATALOG)
        self.crashes = 0
        self._restarted(self.volume)

    def _restarted(self, volume: SimulatedVolume) -> None:
        self.volume = volume
        self.store = DirectoryStore(volume, CATALOG, container_bytes_max=13_000)
        self.steps_left = self.random.randint(0, 60) if self.crashes < 8 else 1 << 30
        volume.before_each = self._before_each

    def _before_each(self, operation: str, path: str) -> None:
        if self.steps_left == 0:
            raise Crash
        self.steps_left -= 1

    def restart(self) -> None:
        """After a crash of the whole machine, or of the process alone: then nothing is lost, and nothing more durable than before."""
        self.crashes += 1
        if self.random.random() < 0.3:
            self._restarted(self.volume)
        else:
            self.lose_power()

    def lose_power(self) -> None:
        self._restarted(self.volume.crash(Seeded(self.random.getrandbits(32))))


def root_before(number: int) -> bytes:
    root = RootHasher(ARCHIVE_ID)
    for header, _ in iter_blocks(b"".join(BLOCKS)):
        if header.number < number:
            root.add(header)
    return root.value if number else b""


class Agent:
    """Writes the archive, as far as a crash lets it, and remembers what it was told is durable."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.durable = -1
        self.finished = False

    def attempt(self) -> None:
        writer: ArchiveWriter = self.machine.store.open_writer(ARCHIVE)
        assert writer.next_block > self.durable, "what was reported durable is there"
        if not self.finished:
            self.durable = writer.next_block - 1
        kept = [number for number in NUMBERS if number < writer.next_block]
        assert writer.read(kept) == b"".join(BLOCKS[: len(kept)])
        assert writer.root_so_far == root_before(writer.next_block)
        assert writer.manifest_blocks == [number for number in kept if number == NUMBERS[-2]]
        position = len(kept)
        while position < len(BLOCKS):
            count = self.machine.random.randint(1, 4)
            writer.write(b"".join(BLOCKS[position : position + count]))
            position = min(position + count, len(BLOCKS))
            if position < len(BLOCKS) and self.machine.random.random() < 0.5:
                self.durable = writer.sync()
                assert self.durable == NUMBERS[position - 1]
        summary = writer.finish()
        assert summary.root == root_before(1 << 40)
        self.finished = True


def check_visible(machine: Machine, *, must: bool) -> None:
    """What is visible is whole."""
    machine.steps_left = 1 << 30
    assert machine.store.archives() in (([ARCHIVE],) if must else ([], [ARCHIVE]))
    for archive in machine.store.archives():
        report = verified(machine.store, archive)
        assert (report.findings, report.root) == ([], root_before(1 << 40))
        assert machine.store.open_reader(archive).read(NUMBERS) == b"".join(BLOCKS)


@settings(max_examples=250)
@given(st.integers(0, 2**64))
def test_an_archive_is_written_through_any_crashes(seed: int) -> None:
    machine = Machine(seed)
    agent = Agent(machine)
    while not agent.finished:
        try:
            agent.attempt()
        except Crash:
            machine.restart()
            steps = machine.steps_left
            check_visible(machine, must=False)
            machine.steps_left = steps
    machine.lose_power()
    check_visible(machine, must=True)


@settings(max_examples=150)
@given(st.integers(0, 2**64))
def test_a_removal_through_any_crashes_leaves_all_or_nothing(seed: int) -> None:
    machine = Machine(seed)
    machine.crashes, machine.steps_left = 0, 1 << 30
    Agent(machine).attempt()
    machine.steps_left = machine.random.randint(0, 25)
    while True:
        try:
            machine.store.remove(ARCHIVE)
            break
        except Crash:
            machine.restart()
            steps = machine.steps_left
            check_visible(machine, must=False)
            machine.steps_left = steps
    machine.lose_power()
    machine.steps_left = 1 << 30
    assert machine.store.archives() == machine.store.unfinished() == []
    machine.store.sweep(set())
    assert machine.volume.list(ARCHIVE[:2]) == []


@settings(max_examples=150)
@given(st.integers(0, 2**64))
def test_a_sweep_through_any_crashes_keeps_what_it_must(seed: int) -> None:
    """What the last moment before a crash removed may be back; the next sweep takes it."""
    machine = Machine(seed)
    machine.steps_left = 1 << 30
    Agent(machine).attempt()
    writer = machine.store.open_writer(OTHER)
    writer.write(b"".join(sealed_archive(plaintexts([100, 200, 300]), archive=OTHER)))
    writer.finish()
    machine.steps_left = machine.random.randint(0, 40)
    while True:
        try:
            machine.store.sweep({ARCHIVE})
            break
        except Crash:
            machine.restart()
    machine.lose_power()
    machine.steps_left = 1 << 30
    machine.store.sweep({ARCHIVE})
    assert machine.store.archives() == [ARCHIVE]
    assert machine.volume.list(OTHER[:2]) == []
    assert verified(machine.store).findings == []


@given(st.integers(0, 2**64))
def test_a_catalog_is_marked_through_any_crashes(seed: int) -> None:
    machine = Machine(seed)
    machine._restarted(SimulatedVolume())
    while True:
        try:
            initialise_catalog(machine.volume, CATALOG)
            break
        except Crash:
            machine.restart()
    machine.lose_power()
    machine.steps_left = 1 << 30
    assert machine.store.archives() == []


def test_a_dead_machine_answers_nothing() -> None:
    machine = Machine(1)
    volume = machine.volume
    machine.lose_power()
    volume.before_each = None
    with pytest.raises(Unavailable, match="crashed"):
        DirectoryStore(volume, CATALOG).archives()
    with pytest.raises(NotFound):
        machine.volume.open("nothing")
