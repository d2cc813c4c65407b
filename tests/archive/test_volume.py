"""What every ``Volume`` must do, on real directories past and through the page cache, and on the simulated disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.simulated.volume import SimulatedVolume
from drivers.volume import STAGE_BYTES, DirectoryVolume
from rbcore.errors import Damaged, NotFound, StorageFull, Unavailable
from rbcore.ports import Volume
from tests.archive.samples import VOLUMES, Seeded


@pytest.fixture(params=VOLUMES)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    return VOLUMES[request.param](tmp_path)


def test_a_file_is_appended_to_and_read(volume: Volume) -> None:
    file = volume.create("a")
    file.write(b"one")
    file.write(memoryview(b"two"))
    assert file.size() == 6
    file.sync()
    file.write(b"x" * 10_000)
    file.sync()
    file.close()
    again = volume.open("a")
    assert again.read_at(0, 6) == b"onetwo"
    assert again.read_at(4, 4) == b"wo" + b"xx"
    assert again.read_at(10_000, 100) == b"x" * 6
    assert again.read_at(20_000, 5) == b""
    buffer = bytearray(12)
    assert again.read_into(3, memoryview(buffer)) == 12
    assert bytes(buffer) == b"two" + b"x" * 9
    assert again.size() == volume.size("a") == 10_006
    again.close()


@pytest.mark.parametrize("name", VOLUMES)
@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.sampled_from(["sync", "reopen", "truncate"]) | st.integers(0, 3 * 4096) | st.just(STAGE_BYTES + 1),
        max_size=12,
    )
)
def test_any_writes_are_what_is_read(
    name: str, steps: list[int | str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    volume = VOLUMES[name](tmp_path_factory.mktemp("volume"))
    file = volume.create("f")
    expected = bytearray()
    for number, step in enumerate(steps):
        if isinstance(step, int):
            data = bytes([number + 1]) * step
            file.write(data)
            expected += data
        elif step == "truncate":
            file.truncate(len(expected) // 2)
            del expected[len(expected) // 2 :]
        else:
            file.sync()
            if step == "reopen":
                file.close()
                file = volume.open("f", writable=True)
        assert file.size() == len(expected)
    file.sync()
    assert file.read_at(0, len(expected) + 1) == expected
    assert volume.open("f").read_at(1, len(expected)) == expected[1:]


def test_directories(volume: Volume) -> None:
    volume.make_directory("d/e")
    volume.make_directory("d/e")
    volume.create("d/e/f").close()
    volume.create("d/g").close()
    volume.sync_directory("d/e")
    volume.sync_directory("")
    assert volume.list("d") == ["e", "g"]
    assert volume.list("missing") == []
    assert volume.exists("d/e/f")
    assert not volume.exists("d/e/g")
    volume.rename("d/e", "d/h")
    assert volume.list("d/h") == ["f"]
    with pytest.raises(FileExistsError):
        volume.create("d/g")
    with pytest.raises(NotFound):
        volume.open("d/e/f")
    with pytest.raises(NotFound):
        volume.rename("nothing", "something")
    with pytest.raises(NotFound):
        volume.size("nothing")


def test_a_rename_replaces_a_file_but_no_directory(volume: Volume) -> None:
    for name in ("a", "b"):
        file = volume.create(name)
        file.write(name.encode())
        file.sync()
        file.close()
    volume.rename("a", "b")
    assert volume.open("b").read_at(0, 9) == b"a"
    for name in ("c", "d"):
        volume.make_directory(name)
        volume.create(f"{name}/x").close()
    with pytest.raises(Unavailable):
        volume.rename("c", "d")


def test_removal_tells_what_was_freed(volume: Volume) -> None:
    volume.make_directory("d/e")
    for path, size in (("d/a", 100), ("d/e/b", 5000)):
        file = volume.create(path)
        file.write(bytes(size))
        file.sync()
        file.close()
    assert volume.remove("d") == 5100
    assert volume.remove("d") == 0
    assert not volume.exists("d")


def test_paths_stay_inside(volume: Volume) -> None:
    operations: list[Callable[[str], object]] = [
        volume.create,
        volume.open,
        volume.remove,
        volume.make_directory,
        volume.list,
    ]
    for path in ("../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a\0b"):
        for operation in operations:
            with pytest.raises(ValueError, match="not a path within"):
                operation(path)


def test_a_removal_does_not_follow_symbolic_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"kept")
    inside = tmp_path / "volume"
    (inside / "d").mkdir(parents=True)
    (inside / "d" / "link").symlink_to(outside)
    volume = DirectoryVolume(inside)
    with pytest.raises(Unavailable):
        volume.open("d/link")
    volume.remove("d")
    assert (outside / "precious").read_bytes() == b"kept"


def test_a_directory_that_is_gone_is_no_empty_volume(tmp_path: Path) -> None:
    volume = DirectoryVolume(tmp_path / "unmounted")
    operations: list[Callable[[], object]] = [
        lambda: volume.make_directory("ab"),
        lambda: volume.create("a"),
        volume.free_bytes,
    ]
    for operation in operations:
        with pytest.raises(Unavailable, match="mounted"):
            operation()


def failing(code: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, Unavailable), (errno.EROFS, Unavailable)],
)
def test_a_write_that_failed_fails_the_file(
    direct: bool, code: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = DirectoryVolume(tmp_path, direct=direct).create("f")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", failing(code))
        with pytest.raises(kind):
            file.write(bytes(STAGE_BYTES))
    with pytest.raises(kind):
        file.sync()
    file.close()


def test_what_the_device_cannot_read_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(bytes(100))
    file = DirectoryVolume(tmp_path).open("f")
    monkeypatch.setattr(os, "preadv", failing(errno.EIO))
    with pytest.raises(Damaged, match="cannot be read at 7"):
        file.read_at(7, 10)
    file.close()


def test_a_file_system_without_direct_requests_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system_open = os.open

    def refusing(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return system_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refusing)
    file = DirectoryVolume(tmp_path).create("f")
    assert "direct" not in repr(file)
    file.write(b"abc")
    file.sync()
    assert file.read_at(1, 5) == b"bc"
    file.close()


# --- what only the simulated disk can show ---


def test_a_full_disk() -> None:
    volume = SimulatedVolume(capacity_bytes=100)
    file = volume.create("f")
    with pytest.raises(StorageFull):
        file.write(bytes(101))
    assert volume.free_bytes() == 0
    file.truncate(40)
    assert volume.free_bytes() == 60


@given(seed=st.integers(0, 2**32), synced=st.integers(0, 20_000), later=st.integers(0, 20_000))
def test_a_crash_keeps_what_was_synced(seed: int, synced: int, later: int) -> None:
    volume = SimulatedVolume()
    file = volume.create("f")
    volume.sync_directory("")
    file.write(b"s" * synced)
    file.sync()
    file.write(b"l" * later)
    survivor = volume.crash(Seeded(seed)).open("f")
    assert survivor.read_at(0, synced) == b"s" * synced
    assert synced <= survivor.size() <= synced + later
    with pytest.raises(Unavailable, match="crashed"):
        file.sync()


def test_a_crash_may_lose_and_tear_what_was_not_synced() -> None:
    outcomes = set()
    for seed in range(60):
        volume = SimulatedVolume()
        file = volume.create("f")
        volume.sync_directory("")
        file.write(b"x" * 12_000)
        volume.create("g").close()
        survivor = volume.crash(Seeded(seed))
        content = survivor.open("f").read_at(0, 12_000)
        outcomes.add((len(content) == 12_000, content.count(0) > 0, survivor.exists("g")))
    assert {whole for whole, _, _ in outcomes} <= {True, False}
    assert any(torn for _, torn, _ in outcomes)
    assert {True, False} == {exists for _, _, exists in outcomes}


def test_a_rename_survives_wholly_or_not_at_all() -> None:
    outcomes = set()
    for seed in range(30):
        volume = SimulatedVolume()
        volume.create("old").close()
        volume.sync_directory("")
        volume.rename("old", "new")
        outcomes.add(tuple(volume.crash(Seeded(seed)).list("")))
    assert outcomes == {("old",), ("new",)}


def test_faults_by_name() -> None:
    volume = SimulatedVolume()
    for name in ("a", "b"):
        file = volume.create(name)
        file.write(bytes(100))
    volume.flip_bit("a", 8)
    assert volume.open("a").read_at(1, 1) == b"\x01"
    volume.misdirect_next_write("a", 50)
    volume.open("b", writable=True).write(b"lost")
    assert volume.open("a").read_at(50, 4) == b"lost"
    assert volume.open("b").read_at(100, 4) == bytes(4)
    volume.spoil("b", 10, 5)
    assert volume.open("b").read_at(0, 10) == bytes(10)
    with pytest.raises(Damaged):
        volume.open("b").read_at(14, 10)
