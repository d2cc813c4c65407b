"""A restore never leaves its target, whatever stands there and whatever the archive says."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
import trio

from drivers.file_tree import HostTrees
from drivers.posix_target import PosixTarget
from rbcore.archive.model import Entry, EntryType
from rbcore.errors import InvalidRequest
from rbcore.file_tree import SmallFile
from tests.agent.daemon import Host, MemoryDaemon
from tests.agent.trees import describe


def entry(path: bytes, type: EntryType = EntryType.FILE, size: int = 0, **fields: object) -> Entry:
    values: dict[str, object] = {"links": 1, **fields}
    return Entry(
        path,
        type,
        0o755,
        os.geteuid(),
        os.getegid(),
        "",
        "",
        10,
        10,
        size,
        1,
        1,
        **values,  # type: ignore[arg-type]
    )


async def chattr(*arguments: str | Path) -> bool:
    """Whether the file system knows inode flags and let us set them."""
    try:
        done = await trio.run_process(["chattr", *arguments], check=False, capture_stderr=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0


async def test_symbolic_links_in_the_target_are_not_followed(tmp_path: Path) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    (source / "directory" / "inner").mkdir(parents=True)
    (source / "directory" / "inner" / "file").write_bytes(b"content")
    (source / "file").write_bytes(b"content")
    (source / "other").write_bytes(b"other")
    outside.mkdir()
    (outside / "victim").write_bytes(b"victim")
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").symlink_to(outside / "victim")
    (target / "directory").symlink_to(outside)
    (target / "other").mkdir()
    before = describe(outside)
    host = Host(MemoryDaemon())
    archive, _ = await host.backup(str(source))

    outcome = await host.restore(archive, str(target))

    assert describe(outside) == before
    assert outcome.outcome == "error"
    assert "other: was not restored: a directory stands in its place" in host.note_text
    assert outcome.problems == 1
    assert (target / "file").read_bytes() == b"content"
    assert not (target / "file").is_symlink()
    assert (target / "directory" / "inner" / "file").read_bytes() == b"content"
    assert not (target / "directory").is_symlink()


def test_a_link_made_by_the_archive_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = PosixTarget(os.fsencode(tmp_path / "target"))
    assert target.make_special([entry(b"way out", EntryType.SYMLINK, link_target=os.fsencode(outside))]) == []
    problems = target.write_small([SmallFile(entry(b"way out/file"), [])])
    problems += target.make_directories([entry(b"way out/sub", EntryType.DIRECTORY)])
    problems += target.make_links([entry(b"way out/link", EntryType.HARDLINK, link_target=b"way out")])
    problems += target.finish_directories([entry(b"way out", EntryType.DIRECTORY)])
    problems += target.make_special([entry(b"way out/pipe", EntryType.FIFO)])
    with pytest.raises(NotADirectoryError):
        target.create_large(entry(b"way out/large"))
    target.close()
    assert len(problems) == 5
    assert all("not a directory" in what for _, what in problems)
    assert list(outside.iterdir()) == []


def test_a_directory_that_is_swapped_for_a_link_again_and_again_lets_nothing_out(tmp_path: Path) -> None:
    """A race: another process plays with the target while it is written."""
    outside, base = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    (base / "d").mkdir(parents=True)
    target = PosixTarget(os.fsencode(base))
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(base / "d", base / "real")
            os.symlink(outside, base / "d")
            os.unlink(base / "d")
            os.rename(base / "real", base / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(1500):
            target.write_small([SmallFile(entry(b"d/%d" % number, size=1), [(0, memoryview(b"x"))])])
            target.make_special([entry(b"d/link %d" % number, EntryType.SYMLINK, link_target=b"x")])
            target.finish_directories([entry(b"d", EntryType.DIRECTORY)])
    finally:
        stop.set()
        thread.join()
    target.close()
    assert list(outside.iterdir()) == []
    assert outside.stat().st_mtime_ns != 10


async def test_one_file_alone_and_with_its_parents(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "wanted").write_bytes(b"wanted")
    (source / "a" / "b" / "wanted too").write_bytes(b"not")
    (source / "a" / "first").write_bytes(b"linked")
    os.link(source / "a" / "first", source / "a" / "b" / "second")
    os.link(source / "a" / "first", source / "a" / "b" / "third")
    (source / "whole" / "deep").mkdir(parents=True)
    (source / "whole" / "deep" / "file").write_bytes(b"w")
    os.utime(source / "a" / "b", ns=(5, 5))
    os.chmod(source / "a", 0o711)
    host = Host(MemoryDaemon())
    archive, _ = await host.backup(str(source))
    target = tmp_path / "target"

    outcome = await host.restore(
        archive, str(target), only=["/a/b/wanted", f"{source}/whole", "a/b/second", "a/b/third", "a/b/absent"]
    )

    assert outcome.outcome == "error"
    assert outcome.problems == 1
    assert "a/b/absent: is not in the backup" in host.note_text
    found = describe(target)
    assert set(found) == {
        b"", b"a", b"a/b", b"a/b/wanted", b"a/b/second", b"a/b/third", b"whole", b"whole/deep", b"whole/deep/file",
    }  # fmt: skip
    assert found[b"a"]["mode"] == oct(stat.S_IFDIR | 0o711)
    assert found[b"a/b"]["mtime_ns"] == 5
    assert (target / "a" / "b" / "second").samefile(target / "a" / "b" / "third")
    assert (target / "a" / "b" / "second").read_bytes() == b"linked"


async def test_parents_that_exist_keep_their_metadata_in_a_granular_restore(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d").mkdir(parents=True)
    (source / "d" / "file").write_bytes(b"x")
    host = Host(MemoryDaemon())
    archive, _ = await host.backup(str(source))
    (target / "d").mkdir(parents=True)
    os.chmod(target / "d", 0o1777)
    assert (await host.restore(archive, str(target), only=["d/file"])).outcome == "done"
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o1777


async def test_the_root_keeps_its_metadata_when_something_else_lives_there(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir(mode=0o700)
    (source / "file").write_bytes(b"x")
    target.mkdir()
    (target / "theirs").write_bytes(b"theirs")
    os.chmod(target, 0o1777)
    host = Host(MemoryDaemon())
    archive, _ = await host.backup(str(source))
    assert (await host.restore(archive, str(target))).outcome == "done"
    assert stat.S_IMODE(target.stat().st_mode) == 0o1777
    assert (target / "theirs").read_bytes() == b"theirs"


async def test_a_single_file_gets_its_name_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    host = Host(MemoryDaemon())
    archive, outcome = await host.backup(str(tmp_path / "file"))
    assert outcome.outcome == "done"
    assert (await host.restore(archive, str(tmp_path / "target"))).outcome == "done"
    assert (tmp_path / "target" / "file").read_bytes() == b"content"


async def test_owner_names_win_over_numbers_unless_asked_otherwise(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("owners need root")
    target = PosixTarget(os.fsencode(tmp_path / "names"))
    moved = entry(b"file")
    moved = Entry(b"file", EntryType.FILE, 0o644, 4242, 4242, "daemon", "daemon", 1, 1, 0, 1, 1, 1)
    assert target.write_small([SmallFile(moved, [])]) == []
    assert (tmp_path / "names" / "file").owner() == "daemon"
    numbers = PosixTarget(os.fsencode(tmp_path / "numbers"), numeric_owner=True)
    assert numbers.write_small([SmallFile(moved, [])]) == []
    assert (tmp_path / "numbers" / "file").stat().st_uid == 4242
    target.close()
    numbers.close()


async def test_inode_flags_come_back_last(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "fixed").write_bytes(b"fixed")
    os.link(source / "fixed", source / "zlink")
    if not await chattr("+i", source / "fixed"):
        pytest.skip("this file system has no immutable flag")
    host = Host(MemoryDaemon())
    try:
        archive, _ = await host.backup(str(source))
        outcome = await host.restore(archive, str(tmp_path / "target"))
        assert outcome.outcome == "done", host.note_text
        assert describe(tmp_path / "target") == describe(source)
    finally:
        await chattr("-R", "-i", tmp_path)


def test_paths_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    depth = 60
    current = here
    for _ in range(depth):
        os.mkdir("n" * 200, dir_fd=current)
        following = os.open("n" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=current)
        if current != here:
            os.close(current)
        current = following
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=current))
    os.close(current)
    os.close(here)
    tree = HostTrees().source(str(tmp_path))
    entries = [found for batch in tree.scan() for found in batch.entries]
    assert len(entries) == depth + 2
    assert len(entries[-1].path) > 4096 * 2
    assert tree.read_small([entries[-1]])[0].entry.problem == ""
    tree.close()


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        HostTrees().source("relative")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidRequest):
        HostTrees().target(str(tmp_path / "file"))


def test_the_root_of_an_interrupted_restore_is_still_the_restores_to_set(tmp_path: Path) -> None:
    """Found by simulation: the second attempt took what the first had left for somebody else's."""
    destination = os.fsencode(tmp_path / "new")
    first = PosixTarget(destination, restore="a/1")
    first.close()
    (tmp_path / "new" / "left by the first attempt").write_text("x")
    root = Entry(b"", EntryType.DIRECTORY, 0o751, os.getuid(), os.getgid(), "", "", 10**9, 0, 0, 0, 0, 1)
    stranger = PosixTarget(destination, restore="b/2")
    stranger.finish_directories([root])
    stranger.close()
    assert (tmp_path / "new").stat().st_mode & 0o7777 != 0o751
    second = PosixTarget(destination, restore="a/1")
    assert second.finish_directories([root]) == []
    second.close()
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o751
    assert os.listxattr(destination) == []
