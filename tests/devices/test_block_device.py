"""The driver of block devices against real loop devices with real file systems, and against what is none."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.block_device import HostBlockDevices
from drivers.world import RealWorld
from rbcore.errors import InvalidRequest, Unavailable

SIZE_BYTES = 64 * 1024 * 1024


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _attach(path: Path) -> str:
    """A loop device over the file, or a skipped test where nobody may make one."""
    if os.geteuid() or shutil.which("losetup") is None:
        pytest.skip("making loop devices takes root and losetup")
    done = subprocess.run(["losetup", "--find", "--show", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr}")
    return done.stdout.strip()


def _write(disk: str, offset: int, data: bytes) -> None:
    with open(disk, "r+b") as opened:
        opened.seek(offset)
        opened.write(data)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """An empty disk of 64 MiB."""
    image = tmp_path / "disk.img"
    image.touch()
    os.truncate(image, SIZE_BYTES)
    device = _attach(image)
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@pytest.fixture
def devices() -> HostBlockDevices:
    return HostBlockDevices(RealWorld().threads)


async def test_an_empty_disk_tells_its_size_and_holds_nothing(disk: str, devices: HostBlockDevices) -> None:
    facts = await devices.look(disk)
    assert (facts.real_path, facts.size_bytes, facts.contents, facts.same_as) == (disk, SIZE_BYTES, [], [])


async def test_a_file_system_is_named_and_not_touched(disk: str, devices: HostBlockDevices, tmp_path: Path) -> None:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4")
    run("mkfs.ext4", "-q", "-L", "data", disk)
    run("sync")
    before = (tmp_path / "disk.img").read_bytes()
    assert (await devices.look(disk)).contents == ["ext4 file system 'data'"]
    assert (tmp_path / "disk.img").read_bytes() == before


@pytest.mark.parametrize(
    ("offset", "magic", "says"),
    [
        (0, b"LUKS\xba\xbe\x00\x01", "crypto_LUKS"),
        (0, b"XFSB", ""),
        (4086, b"SWAPSPACE2", "swap"),
        (510, b"\x55\xaa", "dos partition table"),
    ],
)
async def test_other_signatures(disk: str, devices: HostBlockDevices, offset: int, magic: bytes, says: str) -> None:
    """What has a magic number alone, and no sound structure behind it, is nothing that anybody could miss."""
    _write(disk, offset, magic)
    if magic.startswith(b"SWAP"):
        _write(disk, 1024, (1).to_bytes(4, "little") + (100).to_bytes(4, "little"))
    contents = (await devices.look(disk)).contents
    assert (says in " ".join(contents)) if says else not contents


async def test_a_link_and_the_disk_behind_it_are_one(disk: str, devices: HostBlockDevices, tmp_path: Path) -> None:
    link = tmp_path / "by-id"
    link.symlink_to(disk)
    other = tmp_path / "other"
    other.symlink_to("/dev/null")
    facts = await devices.look(str(link), [disk, str(other), "/dev/nowhere"])
    assert (facts.real_path, facts.same_as) == (disk, [disk])


async def test_a_disk_and_a_partition_of_it_are_one(disk: str, devices: HostBlockDevices) -> None:
    """Two storages on them would write over each other. Two partitions of one disk are two."""
    # The kernel is told of partitions: not every one reads their tables from loop devices.
    run("addpart", disk, "1", "2048", "20480")
    run("addpart", disk, "2", "22528", "20480")
    first, second = f"{disk}p1", f"{disk}p2"
    try:
        assert (await devices.look(disk, [first, second, "/dev/null"])).same_as == [first, second]
        assert (await devices.look(first, [disk, second])).same_as == [disk]
        assert (await devices.look(first)).size_bytes == 20480 * 512
    finally:
        run("delpart", disk, "2")
        run("delpart", disk, "1")


async def test_a_disk_that_somebody_uses_is_refused(disk: str, devices: HostBlockDevices) -> None:
    held = os.open(disk, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(InvalidRequest, match="is in use: it is mounted, or serves as swap"):
            await devices.look(disk)
    finally:
        os.close(held)
    await devices.look(disk)


async def test_a_disk_that_cannot_be_written_is_refused(disk: str, devices: HostBlockDevices) -> None:
    run("blockdev", "--setro", disk)
    try:
        with pytest.raises(InvalidRequest, match="read only"):
            await devices.look(disk)
    finally:
        run("blockdev", "--setrw", disk)


async def test_a_device_without_a_medium_is_refused(devices: HostBlockDevices, tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.touch()
    device = _attach(empty)
    try:
        with pytest.raises(InvalidRequest, match="no medium"):
            await devices.look(device)
    finally:
        run("losetup", "--detach", device)


async def test_what_is_no_block_device_is_refused_by_name(devices: HostBlockDevices, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    dangling = tmp_path / "dangling"
    dangling.symlink_to("/dev/nowhere")
    for path, says in (
        (str(tmp_path), "is no block device, but a directory"),
        (str(file), "is no block device, but a file"),
        ("/dev/null", "is no block device, but a character device"),
        ("/dev/nowhere", "there is no such device"),
        (str(dangling), "there is no such device"),
        (f"{file}/below", "there is no such device"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            await devices.look(path)


async def test_without_the_tool_nothing_is_guessed(disk: str, tmp_path: Path) -> None:
    threads = RealWorld().threads
    with pytest.raises(Unavailable, match="the program wipefs"):
        await HostBlockDevices(threads, wipefs=str(tmp_path / "missing")).look(disk)
    for script, says in (("echo broken >&2; exit 3", "wipefs says: broken"), ("echo {", "what is not understood")):
        tool = tmp_path / "tool"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        with pytest.raises(Unavailable, match=says):
            await HostBlockDevices(threads, wipefs=str(tool)).look(disk)
