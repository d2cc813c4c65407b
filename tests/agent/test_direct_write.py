"""Writing past the page cache: whatever the pieces, the file holds what was written where it was written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.direct_write import DIRECT_BYTES_MIN, DirectWriter
from drivers.volume import STAGE_BYTES, Bounces

SIZES = st.one_of(
    st.integers(1, 5000),
    st.sampled_from([4096, DIRECT_BYTES_MIN, 1 << 20, STAGE_BYTES, STAGE_BYTES + 1]),
    st.integers(DIRECT_BYTES_MIN, 6 << 20),
)
GAPS = st.sampled_from([0, 0, 0, 1, 4096, 1 << 20])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(GAPS, SIZES), min_size=1, max_size=6), st.integers(0, 2**32), st.booleans())
def test_every_byte_is_where_it_belongs(shape: list[tuple[int, int]], seed: int, direct: bool) -> None:
    content = memoryview(seed.to_bytes(8, "big") * 1_000_000)
    wanted = bytearray()
    pieces: list[tuple[int, memoryview]] = []
    for gap, size in shape:
        wanted += bytes(gap)
        piece = content[len(pieces) : len(pieces) + size]
        pieces.append((len(wanted), piece))
        wanted += piece
    # On the volume of the checkout: a temporary directory in memory cannot do direct writes.
    with tempfile.TemporaryDirectory(dir=Path.cwd() if direct else None) as folder:
        path = Path(folder) / "file"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        writer = DirectWriter(fd, Bounces())
        try:
            half = len(pieces) // 2
            writer.write(pieces[half:])
            writer.write(pieces[:half])
        finally:
            writer.close()
            os.close(fd)
        assert path.read_bytes() == wanted


def test_a_full_file_system_is_an_error(tmp_path: Path) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    writer = DirectWriter(fd, Bounces())
    try:
        with pytest.raises(OSError, match="No space left"):
            writer.write([(0, memoryview(bytes(1 << 20)))])
    finally:
        writer.close()
        os.close(fd)
