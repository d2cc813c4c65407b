"""The ASGI application of an HTTP worker: it asks the daemon about every request, reads the views itself where that is the answer, and relays what else the daemon says.

A worker knows no user, no role and no method. It never repeats a request: when the daemon goes while one is under way, the client is told that it may have been carried out.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from typing import Any, Final

import trio

from eventlog.views.port import ViewReader
from httpapi.channel import (
    BODY_BYTES,
    Begin,
    Channel,
    ChannelClosed,
    Failed,
    FromDaemon,
    FromWorker,
    Gone,
    Hello,
    Judged,
    More,
    Part,
    Scope,
    Start,
)
from httpapi.envelope import Reply
from httpapi.front import send_reply
from httpapi.incident import incident_of
from httpapi.judging import Admission, ReadMethods
from rbcore.errors import RbError, Unavailable
from rbcore.ports import Randomness

TIMES_MAX: Final = 1024
"""Positions whose time is remembered."""


class Times:
    """Times of positions of the log, as the daemon told them: a worker does not open the log. Readers on threads may ask."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, int] = OrderedDict()

    def __call__(self, position: int) -> int:
        """Nanoseconds of the event there. Only positions that were told with a reading are asked for."""
        return self._known[position]

    def tell(self, position: int, time_ns: int) -> None:
        self._known[position] = time_ns
        self._known.move_to_end(position)
        while len(self._known) > TIMES_MAX:
            self._known.popitem(last=False)


class Relay:
    """``run`` has to run; it returns when the daemon has closed the channel."""

    def __init__(
        self,
        channel: Channel[FromWorker, FromDaemon],
        views: ViewReader,
        times: Times,
        reads: ReadMethods,
        admission: Admission,
        randomness: Randomness,
    ) -> None:
        """``times`` are those that ``views`` ask."""
        self._channel, self._views, self._times, self._reads = channel, views, times, reads
        self._admission, self._randomness = admission, randomness
        self._numbers = itertools.count(1)
        self._answers: dict[int, trio.MemorySendChannel[FromDaemon]] = {}
        self._position = 0
        """The last that was heard of: where an answer stands that the daemon had no part in."""

    async def run(self) -> None:
        while messages := await self._channel.receive():
            for one in messages:
                answer = None if isinstance(one, Hello) else self._answers.get(one.number)
                if answer is not None:
                    answer.send_nowait(one)
        self._channel.close()
        for answer in self._answers.values():
            answer.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        number = next(self._numbers)
        # Unbounded: it holds one answer, which the daemon has made whole before it sends it. To wait here for a slow client would make all others wait.
        put, take = trio.open_memory_channel[FromDaemon](math.inf)
        self._answers[number] = put
        answering = _Answering(self, number, take, scope, send)
        try:
            if self._reads.find(scope) is not None:
                await self._channel.send(Begin(number, Scope.of(scope), b"", False))
                await answering.run()
            else:
                await self._forward(number, scope, receive, answering)
        except (ChannelClosed, trio.EndOfChannel):
            await answering.tell_cut()
        finally:
            del self._answers[number]
            put.close()
            take.close()
            if not answering.ended:
                self._channel.note(Gone(number))

    async def _forward(self, number: int, scope: Any, receive: Any, answering: _Answering) -> None:
        """With its body, and until the client hangs up."""
        first = await receive()
        if first["type"] == "http.disconnect":
            answering.ended = True  # nobody was told of it
            return
        body, more = first.get("body", b""), first.get("more_body", False)
        await self._channel.send(Begin(number, Scope.of(scope), body[:BODY_BYTES], more or len(body) > BODY_BYTES))
        with trio.CancelScope() as answered:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._upload, number, body[BODY_BYTES:], more, receive, nursery.cancel_scope)
                nursery.start_soon(answering.run_and_cancel, answered)

    async def _upload(self, number: int, body: bytes, more: bool, receive: Any, gone: trio.CancelScope) -> None:
        """The rest of the body; then wait for the client to hang up."""
        try:
            while True:
                for start in range(0, len(body), BODY_BYTES):
                    end = start + BODY_BYTES
                    await self._channel.send(More(number, body[start:end], more or end < len(body)))
                message = await receive()
                if message["type"] == "http.disconnect":
                    gone.cancel()
                    return
                body, more = message.get("body", b""), message.get("more_body", False)
                if not body:
                    await self._channel.send(More(number, b"", more))
        except ChannelClosed:
            pass  # whoever waits for the answer finds out too

    async def carried_out(self, judged: Judged, scope: Any) -> Reply:
        self._position = judged.position
        reading = judged.reading
        if reading.at is not None:
            self._times.tell(reading.at, judged.time_ns)
        try:
            with self._admission.one():
                return Reply.of(await reading.answer(self._views), judged.position)
        except RbError as error:
            return Reply.of_error(error, judged.position)
        except Exception as error:
            return Reply.of_error(incident_of(error, self._randomness, scope["method"], scope["path"]), judged.position)

    @property
    def position(self) -> int:
        return self._position


class _Answering:
    """The answer to one request, on its way to the client."""

    def __init__(
        self, relay: Relay, number: int, take: trio.MemoryReceiveChannel[FromDaemon], scope: Any, send: Any
    ) -> None:
        self._relay, self.number, self._take, self._scope, self._send = relay, number, take, scope, send
        self._begun = False
        self.ended = False
        """The daemon says no more."""

    async def run(self) -> None:
        """Raises ``EndOfChannel`` when the daemon is gone before the end."""
        while not self.ended:
            one = await self._take.receive()
            match one:
                case Judged():
                    self.ended = True
                    await send_reply(await self._relay.carried_out(one, self._scope), self._send)
                case Start():
                    self._begun = True
                    await self._send({"type": "http.response.start", "status": one.status, "headers": one.headers})
                case Part():
                    self.ended = not one.more
                    await self._send({"type": "http.response.body", "body": one.body, "more_body": one.more})
                case Failed():
                    self.ended = True  # Hypercorn answers for an application that did not, or closes
                case Hello():
                    raise AssertionError("it has no number")

    async def run_and_cancel(self, scope: trio.CancelScope) -> None:
        try:
            await self.run()
        except trio.EndOfChannel:
            await self.tell_cut()
        scope.cancel()

    async def tell_cut(self) -> None:
        """The daemon is gone. Half an answer cannot be mended: Hypercorn closes the connection."""
        self.ended = True
        if not self._begun:
            sentence = "The daemon is gone. What was asked for may have been carried out: look before you ask again."
            await send_reply(Reply.of_error(Unavailable(sentence), self._relay.position), self._send)


async def _lifespan(receive: Any, send: Any) -> None:
    """There is nothing to start and nothing to stop."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
