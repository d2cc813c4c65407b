"""Removal with zeros: bytes are overwritten before their file goes, nothing spoilt keeps its name, and what a crash leaves is found again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.directory_store import REMOVING_SUFFIX, DirectoryStore
from drivers.simulated.volume import SimulatedVolume
from drivers.volume import DirectoryVolume
from rbcore.ports import Volume
from tests.archive.samples import ARCHIVE, VOLUMES, Seeded, make_store, plaintexts, sealed_archive

DIRECTORY = f"{ARCHIVE[:2]}/{ARCHIVE}"
OTHER = "ab" * 16


@pytest.fixture(params=VOLUMES)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    return VOLUMES[request.param](tmp_path)


def stored(volume: Volume, *, finished: bool = True) -> DirectoryStore:
    store = make_store(volume, container_bytes_max=5_000)
    writer = store.open_writer(ARCHIVE)
    writer.write(b"".join(sealed_archive(plaintexts([3000, 2000, 4000, 900]))))
    if finished:
        writer.finish()
    else:
        writer.sync()
        writer.suspend()
    return store


def begun(volume: Volume) -> DirectoryStore:
    """Another archive, of which nothing is written yet."""
    store = make_store(volume)
    store.open_writer(OTHER).suspend()
    return store


def paths(volume: Volume) -> set[str]:
    return {f"{fan_out}/{name}" for fan_out in volume.list("") if len(fan_out) == 2 for name in volume.list(fan_out)}


@pytest.mark.parametrize("finished", [True, False])
def test_all_of_it_goes_and_the_bytes_are_counted(volume: Volume, finished: bool) -> None:
    store = stored(volume, finished=finished)
    (directory,) = paths(volume)
    size = sum(volume.size(f"{directory}/{name}") for name in volume.list(directory))
    counts = list(store.erase(ARCHIVE))
    assert counts == sorted(counts)
    assert counts[-1] == size
    assert (paths(volume), store.archives(), store.unfinished(), store.leftovers()) == (set(), [], [], [])
    assert [*store.erase(ARCHIVE)][-1:] in ([], [0]), "harmless to repeat"


def test_the_first_piece_takes_the_name_away_and_spares_others(volume: Volume) -> None:
    begun(volume)
    store = stored(volume)
    pieces = store.erase(ARCHIVE)
    assert next(pieces) == 0
    assert (store.archives(), store.unfinished(), store.leftovers()) == ([], [OTHER], [ARCHIVE])
    again = stored(volume)  # the same archive comes back, as a copy may
    list(pieces)
    assert (again.archives(), again.unfinished(), again.leftovers()) == ([ARCHIVE], [OTHER], [])


def test_the_bytes_on_the_disk_are_zeros_before_they_are_nobodys(tmp_path: Path) -> None:
    """A hard link keeps the file, as a snapshot or a curious reader would."""
    volume = DirectoryVolume(tmp_path)
    store = stored(volume)
    kept = []
    for number, name in enumerate(volume.list(DIRECTORY)):
        os.link(tmp_path / DIRECTORY / name, tmp_path / f"kept-{number}")
        kept.append(tmp_path / f"kept-{number}")
    sizes = [one.stat().st_size for one in kept]
    assert any(any(one.read_bytes()) for one in kept)
    list(store.erase(ARCHIVE))
    assert [one.stat().st_size for one in kept] == sizes
    assert not any(any(one.read_bytes()) for one in kept)


@given(pieces=st.integers(0, 12), seed=st.integers(0, 1000))
def test_after_a_crash_in_the_middle_no_archive_is_spoilt_and_the_rest_goes(pieces: int, seed: int) -> None:
    volume = SimulatedVolume()
    begun(volume)
    erasing = stored(volume).erase(ARCHIVE)
    for _ in range(pieces):
        next(erasing, None)
    after = volume.crash(Seeded(seed))
    store = make_store(after)
    assert store.unfinished() == [OTHER]
    if ARCHIVE in store.archives():
        assert pieces == 0
        list(store.open_reader(ARCHIVE).read(store.open_reader(ARCHIVE).block_numbers()))
    list(store.erase(ARCHIVE))
    assert (store.archives(), store.unfinished(), store.leftovers()) == ([], [OTHER], [])


def test_a_sweep_leaves_what_is_being_erased_to_its_eraser(volume: Volume) -> None:
    store = stored(volume)
    pieces = store.erase(ARCHIVE)
    next(pieces)
    assert store.sweep(frozenset(), frozenset({ARCHIVE})) == []
    assert paths(volume) == {DIRECTORY + REMOVING_SUFFIX}
    (swept,) = store.sweep(frozenset())
    assert swept[0] == DIRECTORY + REMOVING_SUFFIX
    assert next(pieces, 0) == 0, "what is gone is passed over"
