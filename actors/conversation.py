"""Requests and answers over a link that may lose and repeat: at-least-once delivery, exactly-once effect.

Who asks repeats the request until the answer comes or the deadline passes. Who is asked remembers the answers it gave
(a bounded number of them) and gives the same again; a request that is still being worked on is not started twice.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import trio

from actors.link import Link, LinkClosed
from rbcore.errors import UNDECODABLE, DeadlineExceeded, Failure, ProtocolViolation, RbError, Unavailable
from rbcore.ports import World

_log = logging.getLogger(__name__)

REPEAT_FIRST_SECONDS = 0.5
REPEAT_SECONDS_MAX = 5.0
ANSWERS_REMEMBERED = 1024
REQUESTS_AT_ONCE_MAX = 64


class Message(Protocol):
    """What a codec makes of bytes: ``rbcore.messages.Parcel`` and ``actors.bus.BusParcel`` are of this shape."""

    @property
    def id(self) -> str: ...
    @property
    def reply_to(self) -> str: ...
    @property
    def body(self) -> Any: ...
    @property
    def failure(self) -> Failure | None: ...


class Codec(Protocol):
    def encode(self, id: str, reply_to: str, body: Any, failure: Failure | None) -> bytes: ...

    def decode(self, data: bytes) -> Message:
        """Raises ``ProtocolViolation``."""


class ParcelCodec:
    """Codec for any struct with the fields of ``Message``."""

    def __init__(self, parcel: type[Any], bytes_max: int) -> None:
        self._parcel = parcel
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(parcel).decode
        self._bytes_max = bytes_max

    def encode(self, id: str, reply_to: str, body: Any, failure: Failure | None) -> bytes:
        return self._encode(self._parcel(id=id, reply_to=reply_to, body=body, failure=failure))

    def decode(self, data: bytes) -> Message:
        if len(data) > self._bytes_max:
            raise ProtocolViolation(f"A message of {len(data)} bytes is over the bound of {self._bytes_max}.")
        try:
            message: Message = self._decode(data)
        except UNDECODABLE as error:
            raise ProtocolViolation(f"A message of {len(data)} bytes is none of this protocol: {error}") from error
        if not 0 < len(message.id) <= 128 or len(message.reply_to) > 128:
            raise ProtocolViolation("A message has no usable id.")
        return message


class Answers:
    """The bounded memory of answers. Share one between the conversations of a peer that reconnects."""

    def __init__(self, bound: int = ANSWERS_REMEMBERED) -> None:
        self._bound = bound
        self._answers: OrderedDict[str, tuple[Any, Failure | None]] = OrderedDict()
        self._working: set[str] = set()

    def __len__(self) -> int:
        return len(self._answers)

    def begin(self, id: str) -> bool:
        """False when the request is being worked on."""
        if id in self._working:
            return False
        self._working.add(id)
        return True

    def end(self, id: str) -> None:
        self._working.discard(id)

    def working(self) -> int:
        return len(self._working)

    def remember(self, id: str, body: Any, failure: Failure | None) -> None:
        self._answers[id] = (body, failure)
        while len(self._answers) > self._bound:
            self._answers.popitem(last=False)

    def find(self, id: str) -> tuple[Any, Failure | None] | None:
        return self._answers.get(id)


class ConversationStatistics(msgspec.Struct, frozen=True, kw_only=True):
    asked: int
    repeated: int
    answered: int
    answered_again: int
    dropped: int


class _Question:
    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Message | None = None


class Conversation:
    """Both directions over one link.

    ``handle(body, id)`` answers the peer's requests: a body, or None for what needs no answer (telemetry, heartbeats). It may
    raise ``RbError``, which the peer gets as a ``Failure``. ``run`` reads until the link closes or the peer violates the protocol.
    """

    def __init__(
        self,
        link: Link,
        codec: Codec,
        handle: Callable[[Any, str], Awaitable[Any]],
        world: World,
        answers: Answers | None = None,
    ) -> None:
        self.link = link
        self._codec = codec
        self._handle = handle
        self._answers = answers or Answers()
        self._name = world.randomness.token_bytes(8).hex()
        self._count = 0
        self._questions: dict[str, _Question] = {}
        self._closed = False
        self._asked = self._repeated = self._answered = self._answered_again = self._dropped = 0

    def statistics(self) -> ConversationStatistics:
        return ConversationStatistics(
            asked=self._asked,
            repeated=self._repeated,
            answered=self._answered,
            answered_again=self._answered_again,
            dropped=self._dropped,
        )

    def new_id(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"

    async def run(self) -> None:
        """Read the link and answer. Raises ``LinkClosed`` or ``ProtocolViolation``; the link is closed then."""
        try:
            async with trio.open_nursery() as nursery:
                try:
                    while True:
                        self._take(self._codec.decode(await self.link.receive()), nursery)
                except (LinkClosed, ProtocolViolation):
                    nursery.cancel_scope.cancel()
                    raise
        except BaseExceptionGroup as group:
            # Not except*: what is raised within one comes out wrapped in a group of its own, in some releases of Python.
            known, others = group.split((LinkClosed, ProtocolViolation))
            if known is None or others is not None:
                raise others or group from None
            raise _first(known) from None
        finally:
            self._closed = True
            self.link.close()
            for question in self._questions.values():
                question.done.set()

    def _take(self, message: Message, nursery: trio.Nursery) -> None:
        if message.reply_to:
            question = self._questions.get(message.reply_to)
            if question is not None and question.answer is None:
                question.answer = message
                question.done.set()
            return
        known = self._answers.find(message.id)
        if known is not None:
            self._answered_again += 1
            nursery.start_soon(self._send, self._codec.encode(self.new_id(), message.id, *known))
        elif len(nursery.child_tasks) >= REQUESTS_AT_ONCE_MAX:
            self._dropped += 1  # the peer repeats it
        elif self._answers.begin(message.id):
            nursery.start_soon(self._work, message)

    async def _work(self, message: Message) -> None:
        body: Any = None
        failure: Failure | None = None
        try:
            body = await self._handle(message.body, message.id)
        except RbError as error:
            failure = Failure.of(error)
        finally:
            self._answers.end(message.id)
        if body is None and failure is None:
            return
        if failure is None or failure.code not in _PASSING_CODES:
            self._answers.remember(message.id, body, failure)
        self._answered += 1
        await self._send(self._codec.encode(self.new_id(), message.id, body, failure))

    async def _send(self, data: bytes) -> None:
        try:
            await self.link.send(data)
        except LinkClosed:
            _log.debug("an answer to %s was not sent: the link is closed", self.link.address)

    async def tell(self, body: Any) -> None:
        """Send once; it may be lost. Raises ``LinkClosed``."""
        await self.link.send(self._codec.encode(self.new_id(), "", body, None))

    async def ask(self, body: Any, deadline_seconds: float = math.inf, request_id: str = "") -> Any:
        """The peer's answer. Raises ``DeadlineExceeded``, ``Unavailable`` when the link closes, or what the peer answered.

        Give the same ``request_id`` again on a later conversation to ask the same thing without doing it twice.
        """
        request_id = request_id or self.new_id()
        question = self._questions[request_id] = _Question()
        self._asked += 1
        data = self._codec.encode(request_id, "", body, None)
        try:
            with trio.move_on_after(deadline_seconds):
                await self._ask(data, question)
                return self._answer_of(question)
            raise DeadlineExceeded(f"{self.link.address} did not answer within {deadline_seconds} s.")
        finally:
            del self._questions[request_id]

    async def _ask(self, data: bytes, question: _Question) -> None:
        pause = REPEAT_FIRST_SECONDS
        while not (question.done.is_set() or self._closed):
            try:
                await self.link.send(data)
            except LinkClosed:
                return
            with trio.move_on_after(pause):
                await question.done.wait()
                return
            self._repeated += 1
            pause = min(2 * pause, REPEAT_SECONDS_MAX)

    def _answer_of(self, question: _Question) -> Any:
        answer = question.answer
        if answer is None:
            raise Unavailable(f"The connection to {self.link.address} was lost before the answer.")
        if answer.failure is not None:
            raise answer.failure.to_error()
        return answer.body


_PASSING_CODES = frozenset({Unavailable.code, DeadlineExceeded.code, "read_only_log_volume_full"})
"""Failures that say nothing happened yet: not remembered, so that a repeat is tried again."""


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
