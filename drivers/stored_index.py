"""The index file of an archive: written at the end, read at the beginning, made again from the containers when it is lost."""

from __future__ import annotations

from typing import Final

from drivers.container_scan import ContainerScan, ScanBuffer, ScannedBlock
from rbcore.archive.container import Index, container_name, container_number
from rbcore.errors import Damaged
from rbcore.ports import Volume

INDEX_NAME: Final = "index"
_UNFINISHED_NAME: Final = "index.new"


def load_index(volume: Volume, path: str, archive_id: bytes) -> Index:
    """Raises ``NotFound``, ``Damaged``."""
    file = volume.open(f"{path}/{INDEX_NAME}")
    try:
        index = Index.decode(file.read_at(0, file.size()))
    finally:
        file.close()
    if index.archive_id != archive_id:
        raise Damaged(f"the index of {path} belongs to archive {index.archive_id.hex()}")
    return index


def store_index(volume: Volume, path: str, index: Index) -> int:
    """Durable and in place, replacing another; its size in bytes. Raises ``StorageFull``."""
    raw = index.encode()
    unfinished = f"{path}/{_UNFINISHED_NAME}"
    volume.remove(unfinished)
    file = volume.create(unfinished)
    try:
        file.write(raw)
        file.sync()
    finally:
        file.close()
    volume.rename(unfinished, f"{path}/{INDEX_NAME}")
    volume.sync_directory(path)
    return len(raw)


def rebuild_index(volume: Volume, path: str, archive_id: bytes) -> Index:
    """What the containers say, damaged blocks left out. Of two copies of a block (one misdirected) the first counts."""
    index = Index(archive_id)
    strays = Index(archive_id)
    buffer = ScanBuffer()
    last_block = -1
    for number in container_numbers(volume, path):
        file = volume.open(f"{path}/{container_name(number)}")
        try:
            for step in ContainerScan(file, archive_id, number, buffer).headers():
                if not isinstance(step, ScannedBlock) or not step.intact:
                    continue
                if step.header.number > last_block:
                    last_block = step.header.number
                    index.add(step.header, number, step.offset)
                else:
                    strays.add(step.header, number, step.offset)
        finally:
            file.close()
    index.merge(strays)
    return index


def container_numbers(volume: Volume, path: str) -> list[int]:
    """Numbers of the containers that are there, ascending."""
    return sorted(n for name in volume.list(path) if (n := container_number(name)) is not None)
