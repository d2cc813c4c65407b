"""Bulk between an agent and the daemon of its own host: a Unix socket in the daemon's home, without TLS.

Who may enter the folder (mode 0700) may read the home's keys as well, so a certificate would prove nothing more, and what is said never leaves the
kernel. Encryption and decryption are two thirds of what the bytes of a backup cost on their way (``docs/ARCHITECTURE.md``, "Data plane").
A transfer needs its token here as over TLS.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import trio

from drivers.bulk_stream import Buffer, BulkStream

BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Asked of the kernel for what is under way, which gives what ``net.core.wmem_max`` allows: fewer rounds of the loop."""
BACKLOG: Final = 64
PARTS_MAX: Final = 512
"""Of one system call; the kernel takes 1024."""


class LocalStream(BulkStream):
    """One connected Unix socket. One sender and one receiver at a time."""

    def __init__(self, connected: trio.SocketStream) -> None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._stream = connected
        self._sender = trio.Lock()

    async def send_all(self, data: Buffer) -> None:
        await self.send_parts([data])

    async def send_parts(self, parts: Sequence[Buffer]) -> None:
        if self._sender.locked():
            raise trio.BusyResourceError("another task is sending on this stream")
        async with self._sender:
            views = [memoryview(part) for part in parts if len(part)]
            first = 0
            while first < len(views):
                with _stream_errors():
                    sent = await self._stream.socket.sendmsg(views[first : first + PARTS_MAX])
                while sent:
                    taken = min(sent, len(views[first]))
                    views[first] = views[first][taken:]
                    sent -= taken
                    first += not views[first]

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def receive_into(self, view: memoryview) -> int:
        with _stream_errors():
            return await self._stream.socket.recv_into(view)

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextlib.contextmanager
def _stream_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBADF:
            raise trio.ClosedResourceError("this stream was closed") from None
        raise trio.BrokenResourceError(f"the local stream broke: {error}") from error


def listen_local(path: Path) -> trio.SocketListener:
    """Listening at ``path``, whose folder exists and belongs to the caller alone. What an earlier process left there is replaced.

    Raises ``OSError``.
    """
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            listening.bind(name)
        path.chmod(0o600)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


async def dial_local(path: Path) -> LocalStream:
    """Raises ``OSError`` when nobody listens there, or this process may not go there."""
    connecting = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            await connecting.connect(name)
        return LocalStream(trio.SocketStream(connecting))
    except BaseException:
        connecting.close()
        raise


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Another name for ``path``, because addresses of Unix sockets are cut at 108 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
