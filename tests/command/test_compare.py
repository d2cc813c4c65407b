"""The comparer of the main job must see what it is there to see: every kind of difference, and none where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rbmedia.compare import describe, differences
from rbmedia.scratch import Scratch


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    scratch = Scratch(tmp_path / "tree", big_bytes=300_000, sparse_bytes=40_000_000, small_files=40)
    scratch.make()
    return scratch.root


def told(before: Path, work: Callable[[Path], object]) -> list[str]:
    wanted = describe(before)
    work(before)
    return [str(one) for one in differences(wanted, describe(before))]


def test_a_tree_equals_itself(tree: Path) -> None:
    assert told(tree, lambda _: None) == []


def test_two_scratch_trees_of_a_seed_have_the_same_content(tree: Path, tmp_path: Path) -> None:
    other = Scratch(tmp_path / "other", big_bytes=300_000, sparse_bytes=40_000_000, small_files=40)
    other.make()
    left, right = describe(tree), describe(other.root)
    assert {name: one.digest for name, one in left.entries.items()} == {n: o.digest for n, o in right.entries.items()}


def _rewrite(path: Path) -> None:
    info = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def _touch(path: Path) -> None:
    info = path.lstat()
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + 1), follow_symlinks=False)


def _retarget(path: Path) -> None:
    info = path.lstat()
    path.unlink()
    os.symlink("elsewhere", path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


CHANGES: dict[str, Callable[[Path], object]] = {
    "one bit": lambda root: _rewrite(root / "content" / "noise.bin"),
    "a nanosecond": lambda root: _touch(root / "content" / "text.txt"),
    "a nanosecond of a symlink": lambda root: _touch(root / "links" / "dangling"),
    "a permission": lambda root: (root / "attributes" / "plain").chmod(0o640),
    "setuid": lambda root: (root / "attributes" / "setuid").chmod(0o755),
    "the sticky bit": lambda root: (root / "directories" / "shared").chmod(0o777),
    "a symlink's target": lambda root: _retarget(root / "links" / "relative"),
    "a hole filled": lambda root: (root / "content" / "only a hole").write_bytes(bytes(5_000_000)),
    "a directory missing": lambda root: (root / "directories" / "empty").rmdir(),
    "a fifo missing": lambda root: (root / "fifo").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_it_sees(tree: Path, change: Callable[[Path], object]) -> None:
    assert told(tree, change)


def test_it_sees_a_broken_hard_link(tree: Path) -> None:
    def separate(root: Path) -> None:
        second = root / "links" / "second name"
        shutil.copy2(second, root / "copy")
        folder = root / "links"
        info = folder.stat()
        (root / "copy").replace(second)
        os.utime(folder, ns=(info.st_atime_ns, info.st_mtime_ns))

    assert any("same_as" in line for line in told(tree, separate))


def test_it_sees_extended_attributes(tree: Path) -> None:
    path = tree / "content" / "text.txt"
    try:
        os.setxattr(path, "user.probe", b"1")
    except OSError:
        pytest.fail("this file system has no extended attributes: the test needs one that has")
    assert any("extended" in line for line in told(tree, lambda _: os.removexattr(path, "user.probe")))


def test_changes_of_the_scratch_tree_are_all_noticed(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "tree", big_bytes=300_000, sparse_bytes=40_000_000, small_files=40)
    scratch.make()
    lines = told(scratch.root, lambda _: scratch.change())
    for name in (
        "content/zeros.bin",
        "content/sparse.img",
        "links/relative",
        "attributes/plain",
        "many/03",
        "new folder",
    ):
        assert any(line.startswith(name) for line in lines), name
