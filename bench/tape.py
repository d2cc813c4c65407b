"""Tape: the whole path from agent to cartridge and back beside raw SCSI transfers of the same block size; and mounts of a thousand queued restores.

``scripts/bench tape [--runs N] [--mebibytes N] [--media DIR] [--folder DIR] [PART ...]``, where PART is one of

- ``tgtd``: native cartridges of Debian's ``tgtd``, which moves bytes as fast as memory does;
- ``native``, ``ltfs``: cartridges of this program's simulated library, served over iSCSI without delays;
- ``drive``: native cartridges of the same library, whose drives take the time that LTO-9 takes for each block (and none for motion);
- ``mounts``: a thousand restores from ten cartridges, mixed, with the real dispatcher and agent; the cartridges count how often they were loaded.

Libraries have two drives: the daemon has the first, raw transfers go to a cartridge in the second, one command at a time as ours do. Daemon, agent
and library are processes of their own. Files are random bytes, not compressed and not encrypted, sent over the socket of one host, so bytes on tape are bytes of
content. They and the cartridges lie in memory, what is restored goes to ``--folder``. Ours is timed from the request until the task is seen as
Done, with its mount and its end of archive. ``session`` is the cartridge's format alone, in one process, without agent and network. Raw and ours
take turns; a ratio is within one run, the median of them. Beside each rate stand the processor seconds that agent, daemon and library needed for a
gigabyte.

The limit, 0.8 of raw, is asked of ``drive``, where the drive sets the pace as in a real library: LTO-9 is the fastest type there is. Libraries in memory
are as fast as the processors, which they share with daemon and agent, so there a ratio says how many cores there are: ``relay`` beside it is what the same
bytes reach when nothing is checked and nothing recorded, from one process through the same kind of socket into the same commands.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from bench.backup import Installation, check_same
from bench.measure import Verdicts, rate_line, ratio_of_rounds
from bench.streaming_library import StreamingProcess
from bench.tape_raw import raw_read, raw_write, second_drive, undo_partitions
from bench.tape_relay import relay_read, relay_write
from drivers.allocator import keep_freed_memory
from drivers.scsi.changer import Changer, ElementType
from drivers.scsi.iscsi import IscsiTransport
from drivers.tape import identify, label_cartridge
from rbcore.archive.block import BlockCodec
from rbcore.archive.model import BlockKind
from rbcore.tape.session import ArchiveInfo, CartridgeFormat, LabelOrder, PartStart
from rbcore.vocabulary import PoolType
from tests.end_to_end.tape_installation import SimulatedProcess, TargetLibrary
from tests.tape_actors.queued_restores import loads_by_queued_restores

MIB: Final = 1024 * 1024
FILE_BYTES: Final = 64 * MIB
SESSION_BYTES_MAX: Final = 1024 * MIB
SLACK_BYTES: Final = 64 * MIB
"""More than labels, manifests and indexes of all runs take."""
RATIO_MIN: Final = 0.8
CARTRIDGES, DRIVES = 2, 2
"""One cartridge for the daemon, one for raw transfers."""
POOL: Final = "Tapes"
POLL_SECONDS: Final = 0.1
"""Each question costs the daemon some milliseconds, which this machine has not got to spare."""
RESTORES, RESTORED_CARTRIDGES, BACKUPS_EACH = 1000, 10, 10
MOUNTS_SECONDS_MAX: Final = 1800.0
LibraryProcess: TypeAlias = TargetLibrary | SimulatedProcess | StreamingProcess
PARTS: Final[dict[str, tuple[type[LibraryProcess], CartridgeFormat, int]]] = {
    "tgtd": (TargetLibrary, CartridgeFormat.NATIVE, MIB),
    "native": (SimulatedProcess, CartridgeFormat.NATIVE, MIB),
    "ltfs": (SimulatedProcess, CartridgeFormat.LTFS, MIB // 2),
    "drive": (StreamingProcess, CartridgeFormat.NATIVE, MIB),
}
"""Library, format of the cartridges, and the length of the blocks that it writes."""
PACED_BY_DRIVE: Final = "drive"
POOL_TYPES: Final = {CartridgeFormat.NATIVE: PoolType.TAPE_NATIVE, CartridgeFormat.LTFS: PoolType.TAPE_LTFS}


def random_files(folder: Path, mebibytes: int) -> int:
    """Incompressible files; bytes."""
    folder.mkdir()
    count = max(1, mebibytes * MIB // FILE_BYTES)
    for number in range(count):
        (folder / f"{number:05}").write_bytes(os.urandom(FILE_BYTES))
    return count * FILE_BYTES


# --- raw, and the session alone ---------------------------------------------------------------------------------------


async def prepare(library: LibraryProcess, reused_bytes: int) -> None:
    """Bring the last cartridge to the second drive, for raw transfers: the daemon has the first drive alone.

    ``reused_bytes``: of both cartridges so much is written before, and erased. From then on no transfer pays for memory that the machine sees for the
    first time, which costs as much again as the transfer, once, and would fall upon whoever comes first. Used cartridges are the usual case, too.
    """
    transport = IscsiTransport(library.changer_url)
    try:
        changer = Changer(transport)
        await changer.wait_ready(60)
        parts = await changer.element_addresses()
        slot, drive = parts[ElementType.STORAGE].first, parts[ElementType.DRIVE].first + 1
        for cartridge in range(CARTRIDGES):
            await changer.move(slot + cartridge, drive)
            if reused_bytes:
                await raw_write(library.drive_url(1), reused_bytes, MIB)
                async with second_drive(library.drive_url(1)) as mounted:
                    await mounted.erase(long=False)
            if cartridge < CARTRIDGES - 1:
                async with second_drive(library.drive_url(1)) as mounted:
                    await mounted.unload()
                await changer.move(drive, slot + cartridge)
    finally:
        await transport.aclose()


async def session_alone(url: str, size: int, format: CartridgeFormat) -> tuple[float, float]:
    """Seconds to write and to read an archive of blocks of a megabyte, which were sealed before."""
    archive = os.urandom(16)
    codec = BlockCodec(archive)
    blocks = [codec.seal(BlockKind.PAYLOAD, number, os.urandom(MIB)) for number in range(size // MIB)]
    async with second_drive(url) as drive:
        order = LabelOrder(
            volume_tag="VT0002L9", pool=POOL, server="bench", software="bench", cartridge=os.urandom(16), created_ns=1
        )
        session = await label_cartridge(drive, order, await identify(drive), format)
        info = ArchiveInfo(client="bench", resource="/", backup_type="full", crypto="nocrypt", created_ns=1)
        started = time.perf_counter()
        await session.begin_part(PartStart(archive=archive, part=1, info=info))
        for at in range(0, len(blocks), 8):
            await session.write(blocks[at : at + 8])
        place = await session.finish_part(root=bytes(32), ended_ns=2)
        written = time.perf_counter() - started
        assert place is not None, "the cartridge is large enough"
        started = time.perf_counter()
        reader = session.reader(archive, place)
        for number in range(0, len(blocks), 2):
            found = await reader.read(range(number, min(number + 2, len(blocks))))
            assert found[-MIB:] == blocks[min(number + 1, len(blocks) - 1)][-MIB:], "what was written"
        read = time.perf_counter() - started
        await session.close()
        return written, read


# --- the whole path ---------------------------------------------------------------------------------------------------


def add_library(ours: Installation, format: CartridgeFormat) -> None:
    """The pool, the library with its first drive alone, and the cartridges."""
    rest = ours.rest
    rest.post("/pool_list", {"pool_name": POOL, "pool_type": POOL_TYPES[format], "compression_type": "None"})
    server = rest.get("/media_servers")["items"][0]["hostname"]
    found = rest.get("/tape_libraries/candidates", media_server=server, adding_method="automatic")
    order = {
        "pool": POOL,
        "media_server": server,
        "description": "",
        "medium_changer_candidate_id": found["medium_changers"][0]["id"],
        "tape_drives_candidates_ids": [min(one["id"] for one in found["tape_drives"])],
    }
    answer = rest.call("POST", "/tape_libraries", body={"data": order})
    for tag in answer.data["unknown_cartridges"]:
        kind = "CLN" if tag.startswith("CLN") else f"LTO-{tag[-1]}"
        rest.post("/tape_cartridges", {"type": kind, "pool": POOL, "volume_tag": tag, "description": ""})


class Rates:
    """MB/s of each step, run by run, and processor seconds a gigabyte of the processes."""

    def __init__(self, size: int, processes: dict[str, int]) -> None:
        self.size = size
        self.of: dict[str, list[float]] = {}
        self._processes = processes
        self._processors: dict[str, dict[str, list[float]]] = {}

    def add(self, step: str, seconds: float, size: int = 0) -> None:
        self.of.setdefault(step, []).append((size or self.size) / seconds / 1e6)

    def measure(self, step: str, work: Callable[[], Any]) -> Any:
        before = {name: _processor_seconds(process) for name, process in self._processes.items()}
        started = time.perf_counter()
        result = work()
        self.add(step, time.perf_counter() - started)
        for name, process in self._processes.items():
            used = (_processor_seconds(process) - before[name]) / self.size * 1e9
            self._processors.setdefault(step, {}).setdefault(name, []).append(used)
        return result

    def processors(self, step: str) -> str:
        used = {name: statistics.median(values) for name, values in self._processors[step].items()}
        listed = ", ".join(f"{name} {seconds:.2f}" for name, seconds in used.items())
        return f"{listed}: {sum(used.values()):.2f}"


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(part: str, media: Path, size: int, runs: int) -> Iterator[LibraryProcess]:
    kind, _, _ = PARTS[part]
    capacity = (runs + 1) * size
    directory = media / part
    directory.mkdir()
    library = kind(directory, cartridges=CARTRIDGES, mebibytes=capacity // MIB, drives=DRIVES)
    try:
        library.start()
        trio.run(prepare, library, runs * size + SLACK_BYTES)
        yield library
    finally:
        library.stop()
        shutil.rmtree(directory)


def one_part(part: str, folder: Path, media: Path, tree: Path, size: int, runs: int) -> Rates:
    _, cartridge_format, block_bytes = PARTS[part]
    with running(part, media, size, runs) as library:
        (folder / part).mkdir()
        environment = {"RBMEDIA_ISCSI_TARGETS": library.target}
        with contextlib.closing(Installation(folder / part, environment, poll_seconds=POLL_SECONDS)) as ours:
            add_library(ours, cartridge_format)
            rates = Rates(size, ours.processes | {"library": library.process_id})
            raw = library.drive_url(1)
            for number in range(runs):
                restored = folder / part / f"restored {number}"
                if cartridge_format is CartridgeFormat.LTFS:
                    trio.run(undo_partitions, raw)
                rates.add("relay write", trio.run(relay_write, raw, tree, size, block_bytes))
                rates.add("raw write", trio.run(raw_write, raw, size, block_bytes))
                backup = functools.partial(ours.backup, tree, "full", pool=POOL, crypto="nocrypt")
                made = rates.measure("write", backup)
                rates.add("raw read", trio.run(raw_read, raw, size, block_bytes))
                rates.add("relay read", trio.run(relay_read, raw, size, block_bytes))
                rates.measure("read", functools.partial(ours.restore, made, restored))
                check_same(tree, restored)
                shutil.rmtree(restored)
                alone = min(size, SESSION_BYTES_MAX)
                for step, seconds in zip(
                    ("session write", "session read"),
                    trio.run(session_alone, raw, alone, cartridge_format),
                    strict=True,
                ):
                    rates.add(step, seconds, alone)
    return rates


def report(part: str, rates: Rates, verdicts: Verdicts) -> None:
    for what in ("write", "read"):
        raw = rates.of[f"raw {what}"]
        rate_line(f"{part}: raw {what}", raw, "MB/s")
        rate_line(f"{part}: {what} by a bare relay", rates.of[f"relay {what}"], "MB/s")
        rate_line(f"{part}: {what} by a session alone", rates.of[f"session {what}"], "MB/s")
        rate_line(f"{part}: {what}, agent {'to' if what == 'write' else 'from'} cartridge", rates.of[what], "MB/s")
        print(f"    processor seconds for a gigabyte: {rates.processors(what)}", flush=True)
        ratio = ratio_of_rounds(rates.of[f"session {what}"], raw)
        limit = RATIO_MIN if part == PACED_BY_DRIVE else None
        verdicts.ratio(f"{part}: {what}, a bare relay of raw", ratio_of_rounds(rates.of[f"relay {what}"], raw), None)
        verdicts.ratio(f"{part}: {what}, a session alone of raw", ratio, limit)
        verdicts.ratio(f"{part}: {what}, agent and cartridge of raw", ratio_of_rounds(rates.of[what], raw), limit)


def mounts(folder: Path, verdicts: Verdicts) -> None:
    work = functools.partial(
        loads_by_queued_restores,
        folder / "mounts",
        cartridges=RESTORED_CARTRIDGES,
        backups_each=BACKUPS_EACH,
        restores=RESTORES,
        seconds_max=MOUNTS_SECONDS_MAX,
    )
    loads = trio.run(work)
    print(f"  {RESTORES} queued restores from {len(loads)} cartridges: {loads.total()} mounts", flush=True)
    verdicts.ratio("cartridges for each mount", len(loads) / loads.total(), 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.tape", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}, mounts; default: all")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mebibytes", type=int, default=2048, help="content of one backup")
    parser.add_argument("--media", type=Path, default=Path("/dev/shm"), help="where cartridges and files lie")
    parser.add_argument("--folder", type=Path, help="where everything else goes (default: the temporary directory)")
    options = parser.parse_args()
    chosen = options.parts or [*PARTS, "mounts"]
    if unknown := set(chosen) - {*PARTS, "mounts"}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    keep_freed_memory()
    verdicts = Verdicts()
    with (
        tempfile.TemporaryDirectory(dir=options.folder, prefix="rbmedia-bench-") as name,
        tempfile.TemporaryDirectory(dir=options.media, prefix="rbmedia-bench-") as media_name,
    ):
        folder, media = Path(name), Path(media_name)
        tree = media / "tree"
        size = random_files(tree, options.mebibytes)
        print(f"{size / 1e6:,.0f} MB in files of {FILE_BYTES // MIB} MiB, {options.runs} runs", flush=True)
        for part in chosen:
            if part == "mounts":
                mounts(folder, verdicts)
            else:
                report(part, one_part(part, folder, media, tree, size, options.runs), verdicts)
    return verdicts.end()


if __name__ == "__main__":
    sys.exit(main())
