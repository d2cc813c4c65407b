"""Export and import carry a log whole, or not at all."""

from __future__ import annotations

import io
import sys
import zlib
from pathlib import Path

import pytest
import trio

from eventlog import open_log
from eventlog.audit import verify
from eventlog.transfer import ExportEnd, export_log, import_log, read_export
from rbcore.errors import Damaged, NotFound, Refused
from tests.eventlog.logs import batch, make_log, overwrite, stored


def exported(path: Path, until: int | None = None) -> tuple[bytes, ExportEnd]:
    buffer = io.BytesIO()
    end = export_log(path, buffer, until)
    return buffer.getvalue(), end


async def test_a_copy_is_the_log(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 9000, checkpoint_every_events=1000)
    data, end = exported(path)
    assert import_log(io.BytesIO(data), tmp_path / "copy") == end
    assert list(read_export(io.BytesIO(data))) == list(stored(path)) == list(stored(tmp_path / "copy"))
    assert verify(tmp_path / "copy") == verify(path)
    assert exported(tmp_path / "copy") == (data, end)


async def test_a_copy_goes_on_where_the_log_was(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 300)
    import_log(io.BytesIO(exported(path)[0]), tmp_path / "copy")
    async with open_log(tmp_path / "copy", secrets=tmp_path / "secrets") as log:
        assert log.answer_of("command-299") == b"answer"
        await log.submit(batch("more", "task/1", expected={"task/1": 30})).durable()
    assert verify(tmp_path / "copy").sound


async def test_a_part_and_an_empty_log_can_be_exported(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 300, checkpoint_every_events=100)
    data, end = exported(path, until=150)
    assert end.events == 150
    import_log(io.BytesIO(data), tmp_path / "part")
    report = verify(tmp_path / "part")
    assert report.sound, report.findings
    assert (report.events, report.signed_events) == (150, 100)
    data, end = exported(path, until=0)
    import_log(io.BytesIO(data), tmp_path / "nothing")
    assert verify(tmp_path / "nothing").sound


_EXPORTER = """
import sys
from pathlib import Path
from eventlog.transfer import export_log

with open(sys.argv[2], "wb") as file:
    print(export_log(Path(sys.argv[1]), file).events)
"""


async def test_export_works_beside_a_running_daemon(tmp_path: Path) -> None:
    """LMDB opens an environment once per process: the daemon's neighbour is another process."""
    async with open_log(tmp_path / "log", secrets=tmp_path / "secrets") as log:
        await log.submit(batch("a", *["task/1"] * 300)).durable()
        command = [sys.executable, "-c", _EXPORTER, str(tmp_path / "log"), str(tmp_path / "export")]
        told = await trio.run_process(command, capture_stdout=True)
        assert told.stdout == b"300\n"


async def test_damage_anywhere_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 6, checkpoint_every_events=3)
    data, _ = exported(path)
    target = tmp_path / "copy"
    for offset in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[offset] ^= 0x10
        with pytest.raises(Damaged):
            import_log(io.BytesIO(damaged), target, map_bytes=1 << 24)
        assert not (target / "data.mdb").exists()
        with pytest.raises(Damaged):
            list(read_export(io.BytesIO(damaged)))
    for length in range(0, len(data), 11):
        with pytest.raises(Damaged):
            import_log(io.BytesIO(data[:length]), target, map_bytes=1 << 24)
        assert not (target / "data.mdb").exists()
    import_log(io.BytesIO(data), target, map_bytes=1 << 24)


async def test_damage_with_a_fitting_checksum_is_refused_by_the_chain(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 6)
    data = bytearray(exported(path)[0])
    frames = []
    offset = 8
    while offset < len(data):
        length = int.from_bytes(data[offset + 1 : offset + 5], "big")
        frames.append((offset, length))
        offset += 9 + length
    for start, length in frames[1:]:
        forged = bytearray(data)
        forged[start + 9 + length // 2] ^= 1
        crc = zlib.crc32(forged[start + 9 : start + 9 + length], zlib.crc32(forged[start : start + 5]))
        forged[start + 5 : start + 9] = crc.to_bytes(4, "big")
        with pytest.raises(Damaged):
            import_log(io.BytesIO(forged), tmp_path / "copy", map_bytes=1 << 24)


async def test_a_damaged_log_is_not_exported_as_sound(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    value = bytearray(stored(path)[16])
    value[20] ^= 1
    overwrite(path, {17: bytes(value)})
    with pytest.raises(Damaged, match="event 17"):
        exported(path)


async def test_an_import_never_replaces_a_log(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 3)
    data, _ = exported(path)
    with pytest.raises(Refused, match="already"):
        import_log(io.BytesIO(data), path)
    assert len(stored(path)) == 3
    with pytest.raises(NotFound):
        exported(tmp_path / "nowhere")
