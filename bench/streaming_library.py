"""A simulated library whose drives take the time that LTO-9 takes for data, and none for anything else, served over iSCSI.

``python -m bench.streaming_library DIR CARTRIDGES DRIVES MEBIBYTES`` prints the address of its target and serves until standard input ends. For
measurements of rates: the motion of robots and tapes would hide them, and a library as fast as memory says nothing about drives.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import IO

import trio

from drivers.allocator import keep_freed_memory
from drivers.simulated.tape import IscsiServing, Mechanics, SimulatedLibrary, serve_iscsi
from drivers.simulated.tape.generations import Generation, generation
from drivers.volume import DirectoryVolume
from drivers.world import RealWorld
from rbmedia.companion import parent_gone

LTO = 9
STOP_SECONDS = 20.0


class DataRate(Mechanics, frozen=True, kw_only=True):
    """Transfers alone take time."""

    def robot_seconds(self, *places: int) -> float:
        return 0.0

    def position_robot_seconds(self) -> float:
        return 0.0

    def scan_seconds(self, elements: int) -> float:
        return 0.0

    def load_seconds(self, drive: Generation, *, is_new_medium: bool) -> float:
        return 0.0

    def unload_seconds(self, drive: Generation, metres: float) -> float:
        return 0.0

    def rewind_seconds(self, drive: Generation, metres: float) -> float:
        return 0.0

    def locate_seconds(self, drive: Generation, metres: float) -> float:
        return 0.0


class StreamingProcess:
    """The same interface as the libraries of the tests."""

    def __init__(self, directory: Path, *, cartridges: int, mebibytes: int, drives: int) -> None:
        self._arguments = [str(directory), str(cartridges), str(drives), str(mebibytes)]
        self._process: subprocess.Popen[bytes] | None = None
        self.target = ""

    @property
    def changer_url(self) -> str:
        return f"{self.target}/0"

    def drive_url(self, number: int) -> str:
        return f"{self.target}/{number + 1}"

    @property
    def process_id(self) -> int:
        assert self._process is not None, "it was started"
        return self._process.pid

    def start(self) -> None:
        command = [sys.executable, "-m", "bench.streaming_library", *self._arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        output: IO[bytes] | None = self._process.stdout
        assert output is not None, "a pipe was asked for"
        self.target = output.readline().decode().strip()
        assert self.target, "the library started"

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None, "a pipe was asked for"
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _serve(directory: Path, cartridges: int, drives: int, mebibytes: int) -> None:
    world = RealWorld()
    library = SimulatedLibrary(
        slots=cartridges + 4,
        drives=drives,
        generation_number=LTO,
        volume=DirectoryVolume(directory),
        threads=world.threads,
        randomness=world.randomness,
        mechanics=DataRate(),
        capacity_factor=mebibytes * 2**20 / generation(LTO).capacity_bytes,
    )
    for number in range(1, cartridges + 1):
        library.add_cartridge(f"VT{number:04d}L{LTO}")
    async with trio.open_nursery() as nursery:
        serving: IscsiServing = await nursery.start(serve_iscsi, library)
        print(serving.address(0).rpartition("/")[0], flush=True)
        await parent_gone()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        keep_freed_memory()
        cartridges, drives, mebibytes = map(int, sys.argv[2:5])
        trio.run(_serve, Path(sys.argv[1]), cartridges, drives, mebibytes)
