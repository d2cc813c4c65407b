"""The daemon's side of an HTTP worker: judge its reads, carry out everything else in the daemon's own application.

There is one implementation of every method, and it is here. A worker that is gone takes its requests with it, as a client that hangs up does: what was handed to the
journal happens, nobody is told.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

import trio

from httpapi.channel import (
    BODY_BYTES,
    Begin,
    Channel,
    ChannelClosed,
    Ended,
    Failed,
    FromDaemon,
    FromWorker,
    Gone,
    Hello,
    Judged,
    More,
    Part,
    Start,
    Taking,
)
from httpapi.envelope import Reply
from httpapi.front import Front, send_reply
from httpapi.handover import Handover, Place

log = logging.getLogger("rbmedia.api")

BODY_MESSAGES = 16
"""Pieces of a request's body that wait for the application, which takes them as they come."""


async def serve_worker(front: Front, end: socket.socket, hello: Hello, place: Place, handover: Handover) -> str:
    """Serve until the worker closes its end of the channel; why it was closed from here, if it was. While the worker takes connections, it has a ``place`` at the ``handover``."""
    channel: Channel[FromDaemon, FromWorker] = Channel(end, FromWorker)
    worker = _Worker(front, channel, place, handover)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            channel.note(hello)
            while messages := await channel.receive():
                for one in messages:
                    await worker.take(one, nursery)
                channel.flush()
            nursery.cancel_scope.cancel()
    finally:
        handover.leave(place)
        channel.close()
    return channel.closed_because


class _Worker:
    """What is under way for one worker."""

    def __init__(
        self, front: Front, channel: Channel[FromDaemon, FromWorker], place: Place, handover: Handover
    ) -> None:
        self._front, self._channel, self._place, self._handover = front, channel, place, handover
        self._requests: dict[int, _Request] = {}

    async def take(self, message: FromWorker, nursery: trio.Nursery) -> None:
        match message:
            case Begin():
                if not self._judged_at_once(message):
                    request = _Request(self._channel, message)
                    self._requests[message.number] = request
                    nursery.start_soon(self._serve, request)
            case More() | Gone():
                request_told = self._requests.get(message.number)
                if request_told is not None:
                    await request_told.told(message)
            case Taking():
                (self._handover.join if message.yes else self._handover.leave)(self._place)
            case Ended():
                self._place.ended()

    def _judged_at_once(self, begin: Begin) -> bool:
        """Answer, with the next flush, what takes no waiting: nearly every read. A task for each would be half of what it costs."""
        scope = begin.scope.asgi
        found = self._front.reads.find(scope)
        judged = self._front.judged_at_once(*found, scope) if found is not None else None
        if judged is None:
            return False
        frame = self._channel.encoded(Judged(begin.number, judged, self._front.services.journal.log.head, 0))
        if frame is None:
            return False
        self._channel.put(frame)
        return True

    async def _serve(self, request: _Request) -> None:
        try:
            await request.serve(self._front)
        except ChannelClosed:
            pass  # nobody is there to be answered
        except Exception:
            log.exception("a request of an HTTP worker ended in an error: %s", request.scope["path"])
            request.fail()
        finally:
            del self._requests[request.number]
            request.close()


class _Request:
    """One request, as ASGI wants it."""

    def __init__(self, channel: Channel[FromDaemon, FromWorker], begin: Begin) -> None:
        self._channel = channel
        self.number = begin.number
        self.scope = begin.scope.asgi
        self._first: dict[str, Any] | None = _body(begin)
        self._put, self._take = trio.open_memory_channel[dict[str, Any]](BODY_MESSAGES)

    async def serve(self, front: Front) -> None:
        found = front.reads.find(self.scope)
        if found is None:
            await front.rest(self.scope, self._receive, self._send)
            return
        judged = await front.judged(*found, self.scope)
        if not isinstance(judged, Reply):
            log = front.services.journal.log
            time_ns = 0 if judged.at is None else log.time_at(judged.at)
            frame = self._channel.encoded(Judged(self.number, judged, log.head, time_ns))
            if frame is not None:
                await self._channel.send_encoded(frame)
                return
            judged = await front.carried_out(judged, self.scope)  # it names more ids than a frame holds
        await send_reply(judged, self._send)

    async def told(self, message: More | Gone) -> None:
        """More of the body, or that nobody waits any more."""
        told = _body(message) if isinstance(message, More) else _DISCONNECT
        with contextlib.suppress(trio.BrokenResourceError):  # answered meanwhile
            await self._put.send(told)

    def fail(self) -> None:
        self._channel.note(Failed(self.number))

    def close(self) -> None:
        self._put.close()
        self._take.close()

    async def _receive(self) -> dict[str, Any]:
        first, self._first = self._first, None
        return first if first is not None else await self._take.receive()

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            await self._channel.send(Start(self.number, message["status"], list(message["headers"])))
            return
        body, more = bytes(message.get("body", b"")), message.get("more_body", False)
        for start in range(0, max(1, len(body)), BODY_BYTES):
            end = start + BODY_BYTES
            await self._channel.send(Part(self.number, body[start:end], more or end < len(body)))


_DISCONNECT: dict[str, Any] = {"type": "http.disconnect"}


def _body(message: Begin | More) -> dict[str, Any]:
    return {"type": "http.request", "body": message.body, "more_body": message.more}
