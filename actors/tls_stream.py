"""TLS for bulk: a trio stream that takes many TLS records per step.

``trio.SSLStream`` answers each ``receive_some`` with one record, at most 16 KiB, and each costs about 25 us of the loop; for a backup of
gigabytes that is a core. This stream reads the socket in larger pieces and empties the TLS object in one go. Only what the data
channel needs: no renegotiation (TLS 1.3 has none), one sender and one receiver at a time.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Sequence
from typing import Final, cast

import trio

from drivers.bulk_stream import Buffer, BulkStream

PIECE_BYTES: Final = 16 * 16 * 1024
"""Read from the socket, decrypted for the caller, encrypted for the socket at once: whole TLS records, and a round of the loop for each. Programs that
carry bulk call ``keep_freed_memory``: by default malloc asks the kernel for fresh pages for each buffer of 128 KiB or more."""
JOIN_BYTES: Final = 64 * 1024
"""Parts below this are joined before they are sent: a TLS record and a system call cost more than the copy."""
CLOSE_SECONDS_MAX: Final = 2.0


class TlsStream(BulkStream):
    """TLS over ``transport``. Call ``do_handshake`` first. Errors as the ``trio.abc.Stream`` interface has them."""

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._flushing = trio.Lock()
        self._sender = trio.Lock()
        self._receiver = trio.Lock()
        self._plain = memoryview(bytearray(PIECE_BYTES))
        self._broken = False

    async def do_handshake(self) -> None:
        """Raises ``trio.BrokenResourceError`` when the peer does not speak TLS with us, or is not who it should be."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except ssl.SSLError as error:
                await self._give_up(error)
            else:
                await self._flush()
                return

    async def send_all(self, data: Buffer) -> None:
        await self.send_parts([data])

    async def send_parts(self, parts: Sequence[Buffer]) -> None:
        with _taken(self._sender, "another task is sending on this stream"):
            self._check()
            joined = bytearray()
            for part in parts:
                if len(part) < JOIN_BYTES:
                    joined += part
                    if len(joined) < JOIN_BYTES:
                        continue
                    part = b""
                if joined:
                    await self._encrypt(joined)
                    joined = bytearray()
                await self._encrypt(part)
            await self._encrypt(joined)

    async def _encrypt(self, data: Buffer) -> None:
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            try:
                # An SSLObject over memory takes all or nothing.
                self._tls.write(view[start : start + PIECE_BYTES])
            except ssl.SSLError as error:
                await self._give_up(error)
            await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        async with self._sender:
            await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Up to ``max_bytes``, of as many records as are here; empty after the peer's orderly end."""
        limit = PIECE_BYTES if max_bytes is None else min(max_bytes, PIECE_BYTES)
        return bytes(self._plain[: await self.receive_into(self._plain[:limit])])

    async def receive_into(self, view: memoryview) -> int:
        """As much as is here of so many records as are here, at most PIECE_BYTES in one go."""
        if self._receiver.locked():
            raise trio.BusyResourceError("another task is receiving on this stream")
        async with self._receiver:
            self._check()
            while True:
                got, ended = self._take(view[:PIECE_BYTES])
                if self._outgoing.pending:
                    await self._flush()  # an answer to a change of keys
                if got or ended:
                    return got
                await self._feed()

    def _take(self, view: memoryview) -> tuple[int, bool]:
        """Decrypt what is here: bytes, and whether the peer said that there is no more."""
        got = 0
        try:
            while got < len(view):
                # With a buffer, read gives the number of bytes; the type stubs only know the other form.
                count = cast("int", self._tls.read(len(view) - got, view[got:]))
                if count == 0:
                    return got, True
                got += count
        except ssl.SSLWantReadError:
            return got, False
        except ssl.SSLZeroReturnError:
            return got, True
        except ssl.SSLError as error:
            if not got:
                self._broken = True
                raise trio.BrokenResourceError(f"TLS failed: {error}") from error
        return got, False

    async def _feed(self) -> None:
        """More bytes from the socket."""
        chunk = await self._transport.receive_some(PIECE_BYTES)
        if chunk:
            self._incoming.write(chunk)
        else:
            # Without the peer's TLS goodbye this is no orderly end, and the next read says so.
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """Everything that is to go out goes out, in order. After a cancellation amid this nothing more can be sent."""
        try:
            # A free lock is taken without a round of the loop, of which there would be two for each piece otherwise.
            self._flushing.acquire_nowait()
        except trio.WouldBlock:
            await self._flushing.acquire()
        try:
            data = self._outgoing.read()
            if data:
                await self._transport.send_all(data)
        except BaseException:
            self._broken = True
            raise
        finally:
            self._flushing.release()

    async def _give_up(self, error: ssl.SSLError) -> None:
        """Send the alert that OpenSSL may have prepared, then raise."""
        self._broken = True
        gone = contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError)
        with gone, trio.move_on_after(CLOSE_SECONDS_MAX):
            await self._transport.send_all(self._outgoing.read())
        raise trio.BrokenResourceError(f"TLS failed: {error}") from error

    def _check(self) -> None:
        if self._broken:
            raise trio.BrokenResourceError("this TLS stream failed before")

    async def aclose(self) -> None:
        """Say goodbye if that is possible at once, and close. What the peer has not received may be lost."""
        try:
            if not self._broken:
                with trio.move_on_after(CLOSE_SECONDS_MAX):
                    self._say_goodbye()
                    await self._flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer went first
        finally:
            self._broken = True
            await self._transport.aclose()

    def _say_goodbye(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return  # the peer's goodbye is not waited for, or the handshake was never done


@contextlib.contextmanager
def _taken(lock: trio.Lock, complaint: str) -> Iterator[None]:
    """Held inside, without a round of the loop for it. Raises ``trio.BusyResourceError`` when another task holds it."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        raise trio.BusyResourceError(complaint) from None
    try:
        yield
    finally:
        lock.release()
