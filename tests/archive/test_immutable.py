"""Immutable archives: what the attribute protects from, what lifts it, and what happens where it cannot be had."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.volume import DirectoryVolume, set_immutable
from rbcore.errors import NotFound, Refused
from tests.archive.samples import ARCHIVE
from tests.archive.test_erase import DIRECTORY, stored


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[DirectoryVolume]:
    probe = tmp_path / "probe"
    probe.write_text("")
    try:
        set_immutable(str(probe), on=True)
    except OSError as error:
        pytest.skip(f"no immutable files here ({error.strerror}): it takes root and a file system that knows them")
    set_immutable(str(probe), on=False)
    yield DirectoryVolume(tmp_path)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            set_immutable(str(file), on=False)


def containers(volume: DirectoryVolume) -> list[Path]:
    return [one for one in sorted((volume.root / DIRECTORY).iterdir()) if "index" not in one.name]


@pytest.mark.parametrize("way", ["remove", "erase", "sweep"])
def test_nobody_but_the_store_changes_or_removes_it(volume: DirectoryVolume, way: str) -> None:
    store = stored(volume)
    store.protect(ARCHIVE, on=True)
    store.protect(ARCHIVE, on=True)
    files = containers(volume)
    assert files
    for file in files:
        with pytest.raises(PermissionError):
            file.unlink()
        with pytest.raises(PermissionError):
            file.rename(file.with_name("stolen"))
        with pytest.raises(PermissionError):
            file.open("r+b")
    reader = store.open_reader(ARCHIVE)
    assert reader.read(reader.block_numbers())
    reader.close()
    if way == "remove":
        assert store.remove(ARCHIVE)
    elif way == "erase":
        list(store.erase(ARCHIVE))
    else:
        assert store.sweep(frozenset())
    assert not (volume.root / DIRECTORY).exists()


def test_lifted_it_is_as_any_other(volume: DirectoryVolume) -> None:
    store = stored(volume)
    store.protect(ARCHIVE, on=True)
    store.protect(ARCHIVE, on=False)
    for file in containers(volume):
        file.unlink()
    with pytest.raises(NotFound):
        store.protect("ab" * 16, on=True)


@pytest.mark.parametrize("why", [errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP])
def test_where_it_cannot_be_had_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: int) -> None:
    store = stored(DirectoryVolume(tmp_path))

    def refuse(*_: object) -> int:
        raise OSError(why, "no")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with pytest.raises(Refused, match="CAP_LINUX_IMMUTABLE"):
        store.protect(ARCHIVE, on=True)
