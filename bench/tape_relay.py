"""The least that agent and daemon could do: bytes of files over a Unix socket into SCSI commands, and back; nothing checked, nothing recorded.

What a library in memory leaves to be had on this machine: both processes share its processors with the library.
``python -m bench.tape_relay send TREE | receive BYTES`` is the other process, with the socket as its standard input.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import trio

from bench.tape_raw import second_drive
from drivers.scsi.drive import Found

BLOCKS_AHEAD: Final = 4


async def relay_write(url: str, tree: Path, size: int, block_bytes: int) -> float:
    """Seconds for ``size`` bytes of the files in ``tree``, with a filemark in the end."""
    async with second_drive(url) as drive:
        started = time.perf_counter()
        stream, process = _other("send", str(tree))
        blocks_in, blocks = trio.open_memory_channel[memoryview](BLOCKS_AHEAD)

        async def receive() -> None:
            async with blocks_in:
                for _ in range(size // block_bytes):
                    block = memoryview(bytearray(block_bytes))
                    got = 0
                    while got < block_bytes:
                        got += await stream.recv_into(block[got:])
                    await blocks_in.send(block)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            async for block in blocks:
                await drive.write(block)
        await drive.write_filemarks(1)
        took = time.perf_counter() - started
        stream.close()
        process.wait()
        return took


async def relay_read(url: str, size: int, block_bytes: int) -> float:
    """The same the other way round, into no file."""
    async with second_drive(url) as drive:
        started = time.perf_counter()
        stream, process = _other("receive", str(size))
        blocks_in, blocks = trio.open_memory_channel[bytes](BLOCKS_AHEAD)

        async def send() -> None:
            async for block in blocks:
                await trio.SocketStream(stream).send_all(block)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            async with blocks_in:
                for _ in range(size // block_bytes):
                    result = await drive.read(block_bytes)
                    assert result.found is Found.BLOCK, "what raw_write wrote"
                    await blocks_in.send(result.data)
        await trio.to_thread.run_sync(process.wait)
        took = time.perf_counter() - started
        stream.close()
        return took


def _other(*arguments: str) -> tuple[trio.socket.SocketType, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-m", "bench.tape_relay", *arguments], stdin=theirs.fileno())
    return trio.socket.from_stdlib_socket(ours), process


def main() -> None:
    direction, what = sys.argv[1:]
    room = memoryview(bytearray(1024 * 1024))
    with socket.socket(fileno=0) as connected:
        if direction == "send":
            for path in sorted(Path(what).iterdir()):
                with path.open("rb", buffering=0) as file:
                    while count := file.readinto(room):
                        connected.sendall(room[:count])
        else:
            left = int(what)
            while left:
                left -= connected.recv_into(room)


if __name__ == "__main__":
    main()
