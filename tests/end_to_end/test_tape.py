"""Backups to tape and back through the real daemon, on the real SCSI target and on the simulated library.

What is restored is compared with what was backed up, byte by byte and attribute by attribute, and comes from cartridges that were
unloaded and mounted anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rbcore.vocabulary import PoolType
from rbmedia.client import ApiError
from rbmedia.compare import describe
from rbmedia.scratch import Scratch
from tests.end_to_end.tape_installation import (
    SIMULATED,
    TARGETED,
    TapeInstallation,
    assert_same,
    noise,
    tape_installation,
)

CARTRIDGES = 20


@pytest.fixture(scope="module", params=[TARGETED, SIMULATED])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def site(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TapeInstallation]:
    """One installation for all tests here; each has its own pool, cartridges and tree."""
    with tape_installation(tmp_path_factory.mktemp(kind), kind, cartridges=CARTRIDGES) as installation:
        yield installation


@pytest.mark.parametrize("pool_type", [PoolType.TAPE_NATIVE, PoolType.TAPE_LTFS])
def test_a_chain_goes_to_tape_and_comes_back(site: TapeInstallation, kind: str, tmp_path: Path, pool_type: str) -> None:
    if kind == TARGETED and pool_type == PoolType.TAPE_LTFS:
        pytest.skip("NOT TESTED: LTFS takes two partitions, and tgtd's tapes have one")
    pool = f"chain {pool_type}"
    tags = site.make_pool(pool, 2, pool_type)
    scratch = Scratch(tmp_path / "tree", big_bytes=1_000_000, sparse_bytes=8_000_000, small_files=60)
    scratch.make()
    links = []
    for backup_type in ("full", "incremental", "incremental"):
        links.append((site.back_up(scratch.root, pool, backup_type, "AES-256-GCM"), describe(scratch.root)))
        if backup_type == "full":
            scratch.change()
    types = [site.rest.get(f"/repository/{number}")["backup_type"] for number, _ in links]
    assert types == ["full", "incremental", "incremental"]
    site.becomes(site.queue_verification(links[1][0]), "Done")
    assert site.rest.get(f"/repository/{links[1][0]}")["verification_status"] == "Trusted"
    site.unload(*tags)
    for number, wanted in links:
        site.restores_identical(number, wanted)


def test_an_archive_spans_cartridges_and_waits_for_the_one_that_was_taken_out(
    site: TapeInstallation, kind: str, tmp_path: Path
) -> None:
    site.make_pool("spanning", 3)
    tree = noise(tmp_path / "tree", [10, 10, 10, 6])
    wanted = describe(tree)
    number = site.back_up(tree, "spanning")
    tags = site.tags_of(number)
    assert len(tags) > 1
    site.unload(*tags)
    site.restores_identical(number, wanted)

    gone = tags[-1]
    exported = site.order("export_cartridge", gone)
    assert exported["status"] == "Done", exported
    element = site.element_of(gone)
    assert element["type"] == "import-export"
    assert site.cartridge(gone)["exported"]
    if kind == SIMULATED:
        assert site.library.fault(f"take_out {element['number']}") == gone
    task_id, target = site.queue_restore(number)
    suspended = site.becomes(task_id, "Suspended")
    assert gone in suspended["status_reason"], suspended
    if kind == SIMULATED:
        site.library.fault(f"put_in {gone} {element['number']}")
    site.rest.call(
        "PATCH", "/library_slots/import_cartridge", body={"data": {"library_id": 1, "pool_name": "spanning"}}
    )
    assert not site.cartridge(gone)["exported"]
    site.go_on(task_id)
    site.becomes(task_id, "Done")
    assert_same(wanted, target)


def test_four_backups_at_once_and_all_of_them_come_back(site: TapeInstallation, tmp_path: Path) -> None:
    tags = site.make_pool("streams", 2)
    trees = [noise(tmp_path / f"tree {number}", [0.5, 2, 1.5], seed=number) for number in range(4)]
    tasks = [site.queue_backup(tree, "streams") for tree in trees]
    backups = [site.backup_of(task) for task in tasks]
    site.unload(*tags)
    restores = [(site.queue_restore(number), tree) for number, tree in zip(backups, trees, strict=True)]
    for (task, target), tree in restores:
        site.becomes(task, "Done")
        assert_same(describe(tree), target)


def test_a_copy_on_tape_outlives_its_source(site: TapeInstallation, tmp_path: Path) -> None:
    tags = site.make_pool("copies", 1)
    tree = noise(tmp_path / "tree", [3, 1])
    on_disk = site.back_up(tree, "Default")
    copy = site.backup_of(site.queue_copy(on_disk, "copies"))
    site.delete(on_disk)
    site.unload(*tags)
    site.restores_identical(copy, describe(tree))


def test_a_backup_moves_from_tape_to_disk(site: TapeInstallation, tmp_path: Path) -> None:
    site.make_pool("moving away", 1)
    tree = noise(tmp_path / "tree", [3, 1])
    number = site.back_up(tree, "moving away")
    site.becomes(site.queue_copy(number, "Default", move=True), "Done")
    assert site.rest.get(f"/repository/{number}")["pool"] == "Default"
    assert site.tags_of(number) == []
    site.restores_identical(number, describe(tree))


def test_a_copy_from_tape_to_tape_takes_both_drives(site: TapeInstallation, tmp_path: Path) -> None:
    first, second = site.make_pool("from", 1), site.make_pool("to", 1)
    tree = noise(tmp_path / "tree", [3, 1])
    number = site.back_up(tree, "from")
    copy = site.backup_of(site.queue_copy(number, "to"))
    assert (site.tags_of(number), site.tags_of(copy)) == (first, second)
    site.unload(*first, *second)
    site.restores_identical(copy, describe(tree))


def test_a_cartridge_is_erased_and_used_again_when_nothing_must_stay_on_it(
    site: TapeInstallation, tmp_path: Path
) -> None:
    (tag,) = site.make_pool("erasing", 1)
    tree = noise(tmp_path / "tree", [2])
    number = site.back_up(tree, "erasing")
    with pytest.raises(ApiError, match=tag):
        site.order("erase_cartridge", tag, as_list=True)
    site.delete(number)
    assert site.cartridge(tag)["archives"] == 0
    done = site.order("erase_cartridge", tag, as_list=True)
    assert done["status"] == "Done", done
    again = site.back_up(tree, "erasing")
    assert site.tags_of(again) == [tag]
    site.unload(tag)
    site.restores_identical(again, describe(tree))
