"""Between the daemon and one of its HTTP workers: framed messages over a pair of connected sockets, many requests in flight.

The pair is made by the daemon and inherited by the worker, so it has no name: nobody else can connect, nothing has to be removed, and its end is seen by the
other side the moment a process is gone, however it went. A frame is its length (4 bytes, big endian) and one msgpack message. Requests and answers are ASGI's own
messages, numbered; the one that is ours is ``Judged``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any, Generic, TypeVar

import msgspec
import trio

from httpapi.reading import Reading
from rbcore.errors import UNDECODABLE

FRAME_BYTES_MAX = 1 << 20
BODY_BYTES = 256 * 1024
"""Of a body in one frame: what is larger travels in pieces, between which those of other requests pass."""
PENDING_BYTES = 1 << 20
"""Waiting to be sent: beyond it senders wait."""
SEND_SECONDS = 30.0
"""How long the other process may leave what was sent to it unread."""
_RECEIVE_BYTES = 256 * 1024
_LENGTH = struct.Struct(">I")


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello", array_like=True):
    """The daemon's first message: all that a worker is told."""

    version: str
    views_fingerprint: str
    views: str
    """Path of the view files."""
    host: str
    certificate: str
    key: str
    requests_max: int


class Begin(msgspec.Struct, frozen=True, tag="begin", array_like=True):
    """A request, as far as its head."""

    number: int
    scope: Scope
    body: bytes
    more: bool


class Scope(msgspec.Struct, frozen=True, array_like=True):
    """What of an ASGI scope is not the same for every request."""

    http_version: str
    method: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    server: tuple[str, int] | None

    @classmethod
    def of(cls, scope: Any) -> Scope:
        return cls(**{name: scope[name] for name in cls.__struct_fields__})

    @property
    def asgi(self) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "root_path": "",
            "extensions": {},
            **msgspec.structs.asdict(self),
        }


class More(msgspec.Struct, frozen=True, tag="more", array_like=True):
    """A piece of a request's body."""

    number: int
    body: bytes
    more: bool


class Gone(msgspec.Struct, frozen=True, tag="gone", array_like=True):
    """Nobody waits for the answer any more."""

    number: int


class Taking(msgspec.Struct, frozen=True, tag="taking", array_like=True):
    """Whether the worker takes connections."""

    yes: bool


class Ended(msgspec.Struct, frozen=True, tag="ended", array_like=True):
    """One of the worker's connections has ended."""


class Judged(msgspec.Struct, frozen=True, tag="judged", array_like=True):
    """The request may read that: the worker answers it from the views."""

    number: int
    reading: Reading
    position: int
    """Head of the log: where an answer stands that has no position of its own."""
    time_ns: int
    """Of the event at the position that is looked at (``?at=``); 0: it is now."""


class Start(msgspec.Struct, frozen=True, tag="start", array_like=True):
    """The head of an answer."""

    number: int
    status: int
    headers: list[tuple[bytes, bytes]]


class Part(msgspec.Struct, frozen=True, tag="part", array_like=True):
    """A piece of an answer's body."""

    number: int
    body: bytes
    more: bool


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    """There will be no answer, or no more of it."""

    number: int


FromWorker = Begin | More | Gone | Taking | Ended
FromDaemon = Hello | Judged | Start | Part | Failed
Out = TypeVar("Out", bound=msgspec.Struct)
In = TypeVar("In", bound=msgspec.Struct)


class ChannelClosed(Exception):
    """Nothing can be sent any more."""


class Channel(Generic[Out, In]):
    """One end. ``run`` has to run; ``receive`` is for one task.

    It works on the socket itself: what is to be sent is handed to the kernel at once, without waking a task that does it.
    """

    def __init__(self, end: socket.socket, received: Any) -> None:
        """``received``: the union of the messages that may come."""
        end.setblocking(False)
        self._end = end
        self._decoder = msgspec.msgpack.Decoder(received)
        self._encode = msgspec.msgpack.Encoder().encode
        self._received = bytearray()
        self._pending = bytearray()
        self._left_over = trio.Event()
        self._room = trio.Event()
        self.closed_because = ""
        """Why this end was closed from here; empty: it was not, or as it should be."""
        self._closed = False

    async def run(self) -> None:
        """Send what the kernel did not take at once, until the channel is closed."""
        while True:
            await self._left_over.wait()
            self._left_over = trio.Event()
            if self._closed:
                return
            with trio.move_on_after(SEND_SECONDS) as patience:
                with contextlib.suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_writable(self._end)
            if patience.cancelled_caught:
                self.closed_because = f"the other process has read nothing for {SEND_SECONDS:g} s"
                self.close()
            self.flush()

    def close(self) -> None:
        """At once: what is not sent is lost."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._end)
            self._end.close()
            self._left_over.set()
            self._wake()

    def encoded(self, message: Out) -> bytes | None:
        """For ``send_encoded``; None when it is larger than a frame may be."""
        frame = self._encode(message)
        return frame if len(frame) <= FRAME_BYTES_MAX else None

    async def send(self, message: Out) -> None:
        """Return when it is on its way. Raises ``ChannelClosed``."""
        frame = self.encoded(message)
        assert frame is not None, "bodies are cut, and heads are bounded"
        await self.send_encoded(frame)

    async def send_encoded(self, frame: bytes) -> None:
        while len(self._pending) >= PENDING_BYTES and not self._closed:
            await self._room.wait()
        if self._closed:
            raise ChannelClosed
        self.put(frame)
        self.flush()

    def note(self, message: Out) -> None:
        """Send something small without waiting, if it can be sent at all."""
        self.put(self._encode(message))
        self.flush()

    def put(self, frame: bytes) -> None:
        """To be sent with the next ``flush``."""
        self._pending += _LENGTH.pack(len(frame))
        self._pending += frame

    def flush(self) -> None:
        """Hand to the kernel what it takes; the rest goes by itself (``run``)."""
        if self._closed or not self._pending:
            return
        try:
            sent = self._end.send(self._pending)
        except BlockingIOError:
            sent = 0
        except OSError:  # the other process is gone: whoever receives finds out
            self.close()
            return
        del self._pending[:sent]
        if self._pending:
            self._left_over.set()
        if sent:
            self._wake()

    async def receive(self) -> list[In]:
        """The next messages, at least one; none when the channel is closed, by whomever."""
        while True:
            try:
                received = await self._receive_some()
            except OSError:
                return []
            self._received += received
            try:
                messages = self._taken()
            except (ChannelClosed, *UNDECODABLE) as error:
                self.closed_because = f"what came is no message: {error}"
                self.close()
                return []
            if messages or not received:
                return messages

    async def _receive_some(self) -> bytes:
        """Nothing: it is closed."""
        await trio.lowlevel.checkpoint()
        while not self._closed:
            try:
                return self._end.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                with contextlib.suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_readable(self._end)
        return b""

    def _taken(self) -> list[In]:
        """Whole messages out of what was received."""
        messages: list[In] = []
        start, view = 0, memoryview(bytes(self._received))
        while len(view) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(view, start)
            if length > FRAME_BYTES_MAX:
                raise ChannelClosed(f"a frame of {length} bytes was announced, {FRAME_BYTES_MAX} are the most")
            end = start + _LENGTH.size + length
            if len(view) < end:
                break
            messages.append(self._decoder.decode(view[start + _LENGTH.size : end]))
            start = end
        del self._received[:start]
        return messages

    def _wake(self) -> None:
        if self._room.statistics().tasks_waiting:
            self._room.set()
            self._room = trio.Event()
