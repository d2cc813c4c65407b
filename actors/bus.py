"""The bus: actors by address. ``drive/3@media-1`` is the actor ``drive/3`` on the host ``media-1``.

An actor serves a mailbox; whoever asks knows only the address. On the same host a message goes straight into the mailbox
as the value it is (structs are frozen); to another host it travels as msgpack over a link (``bus_nng``, ``bus_memory``) with the
repeats and the memory of answers of ``actors.conversation``. The actor's code is the same.
"""

from __future__ import annotations

import logging
import re
from typing import Any, NamedTuple

import msgspec
import trio

from actors.conversation import Answers, Conversation, ParcelCodec
from actors.link import Link, LinkClosed
from actors.mailbox import Mailbox
from rbcore.errors import (
    UNDECODABLE,
    DeadlineExceeded,
    Failure,
    InvalidRequest,
    NotFound,
    ProtocolViolation,
    RbError,
    Unavailable,
)
from rbcore.messages import MESSAGE_BYTES_MAX
from rbcore.ports import World

_log = logging.getLogger(__name__)

GREETING_SECONDS_MAX = 60.0
_ADDRESS = re.compile(r"([a-z_]+)/([A-Za-z0-9_.-]+)@([A-Za-z0-9_.-]+)")


class Address(NamedTuple):
    kind: str
    name: str
    host: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ``InvalidRequest``."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise InvalidRequest(f"{text!r} is no address; one looks like drive/3@media-1.")
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}@{self.host}"


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    host: str


class Shipment(msgspec.Struct, frozen=True, kw_only=True):
    """A message for another host's actor."""

    to: str
    type: str
    body: msgspec.Raw
    deadline_seconds: float
    """How long the sender still waits; 0: it told and does not wait."""
    causation: int
    correlation: str


class BusParcel(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope between hosts. ``kind`` says what ``body`` is: ``greeting``, ``shipment`` or ``answer``."""

    id: str
    reply_to: str = ""
    kind: str = ""
    content: msgspec.Raw = msgspec.Raw(b"\xc0")
    failure: Failure | None = None

    @property
    def body(self) -> tuple[str, msgspec.Raw]:
        return self.kind, self.content


class _BusCodec(ParcelCodec):
    def __init__(self) -> None:
        super().__init__(BusParcel, MESSAGE_BYTES_MAX)

    def encode(self, id: str, reply_to: str, body: Any, failure: Failure | None) -> bytes:
        kind, content = body or ("", None)
        raw = content if isinstance(content, msgspec.Raw) else msgspec.Raw(msgspec.msgpack.encode(content))
        return self._encode(BusParcel(id=id, reply_to=reply_to, kind=kind, content=raw, failure=failure))


class Delivery:
    """A message in an actor's mailbox. Answer it once, with ``answer`` or ``fail``; for a told message both do nothing."""

    __slots__ = ("_slot", "address", "causation", "correlation", "deadline_at", "message")

    def __init__(
        self, address: Address, message: Any, deadline_at: float, causation: int, correlation: str, slot: _Slot | None
    ) -> None:
        self.address = address
        self.message = message
        self.deadline_at = deadline_at
        """On trio's clock: past it nobody waits for the answer, so that the work may be left undone."""
        self.causation = causation
        self.correlation = correlation
        self._slot = slot

    def answer(self, body: Any) -> None:
        if self._slot is not None:
            self._slot.settle(body, None)

    def fail(self, error: RbError) -> None:
        if self._slot is not None:
            self._slot.settle(None, error)


class _Slot:
    __slots__ = ("body", "done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.body: Any = None
        self.error: RbError | None = None

    def settle(self, body: Any, error: RbError | None) -> None:
        if not self.done.is_set():
            self.body, self.error = body, error
            self.done.set()


class Bus:
    """One host's part of the bus. ``types`` are the structs that may cross to other hosts, by class name."""

    def __init__(self, host: str, world: World, types: tuple[type[Any], ...] = ()) -> None:
        self.host = host
        self._world = world
        self._types = {one.__name__: one for one in types}
        assert len(self._types) == len(types), "message types have names of their own"
        self._mailboxes: dict[tuple[str, str], Mailbox[Delivery]] = {}
        self._routes: dict[str, Conversation] = {}
        self._route_added = trio.Event()
        self._answers = Answers()

    def serve(self, address: str, bound: int = 64) -> Mailbox[Delivery]:
        """The mailbox of a new actor at ``address`` (which must be on this host). ``withdraw`` ends it."""
        parsed = Address.parse(address)
        assert parsed.host == self.host, f"{address} is not an address of {self.host}"
        key = (parsed.kind, parsed.name)
        assert key not in self._mailboxes, f"{address} is served once"
        mailbox = self._mailboxes[key] = Mailbox[Delivery](address, bound)
        return mailbox

    def withdraw(self, address: str) -> None:
        """Close the mailbox; who waits in it gets ``Unavailable``."""
        parsed = Address.parse(address)
        mailbox = self._mailboxes.pop((parsed.kind, parsed.name), None)
        if mailbox is None:
            return
        for delivery in mailbox.drain():
            delivery.fail(Unavailable(f"{address} is stopping."))

    def addresses(self) -> list[str]:
        return sorted(box.owner for box in self._mailboxes.values())

    async def ask(
        self,
        address: str,
        message: Any,
        deadline_seconds: float,
        *,
        causation: int = 0,
        correlation: str = "",
        id: str = "",
    ) -> Any:
        """The actor's answer. Raises ``NotFound`` (no such actor), ``Unavailable`` (mailbox full, host not connected, actor
        stopping), ``DeadlineExceeded``, or what the actor answered. A repeat to another host with the same ``id`` is not done twice.
        """
        to = Address.parse(address)
        if to.host == self.host:
            return await self._ask_here(to, message, deadline_seconds, causation, correlation)
        shipment = self._ship(to, message, deadline_seconds, causation, correlation)
        kind, content = await self._route(to).ask(("shipment", shipment), deadline_seconds, id)
        return self._unpack(kind, content)

    async def tell(self, address: str, message: Any, *, causation: int = 0, correlation: str = "") -> None:
        """Put it in the actor's mailbox, or give it to the link; nobody says what became of it. Raises as ``ask`` does."""
        to = Address.parse(address)
        if to.host == self.host:
            self._put(to, message, 0.0, causation, correlation, None)
            return
        try:
            await self._route(to).tell(("shipment", self._ship(to, message, 0.0, causation, correlation)))
        except LinkClosed as error:
            raise Unavailable(str(error)) from error

    async def attach(self, link: Link) -> None:
        """Route to the host at the other end of ``link`` while it lives. Both ends call this. Raises ``ProtocolViolation``."""
        peer = _Peer()

        async def handle(body: tuple[str, msgspec.Raw], _id: str) -> Any:
            return await self._handle(peer, conversation, *body)

        conversation = Conversation(link, _BusCodec(), handle, self._world, self._answers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._greet, conversation)
            try:
                await conversation.run()
            except LinkClosed:
                _log.info("the link to %s is closed", peer.host or link.address)
            finally:
                nursery.cancel_scope.cancel()
                if peer.host and self._routes.get(peer.host) is conversation:
                    del self._routes[peer.host]

    async def connected(self, host: str) -> None:
        """Return when ``host`` can be asked."""
        while host not in self._routes:
            await self._route_added.wait()

    async def _greet(self, conversation: Conversation) -> None:
        try:
            await conversation.ask(("greeting", Greeting(host=self.host)), GREETING_SECONDS_MAX)
        except RbError as error:
            _log.warning("%s does not greet: %s", conversation.link.address, error.message)
            conversation.link.close()

    async def _handle(self, peer: _Peer, conversation: Conversation, kind: str, content: msgspec.Raw) -> Any:
        if kind == "greeting":
            peer.host = _convert(content, Greeting).host
            self._routes[peer.host] = conversation
            self._route_added.set()
            self._route_added = trio.Event()
            return ("greeting", Greeting(host=self.host))
        if kind != "shipment" or not peer.host:
            raise ProtocolViolation("Only greetings and shipments travel here, in that order.")
        shipment = _convert(content, Shipment)
        to = Address.parse(shipment.to)
        if to.host != self.host:
            raise NotFound(f"{shipment.to} is not on {self.host}.")
        message = self._unpack(shipment.type, shipment.body)
        if not shipment.deadline_seconds:
            self._put(to, message, 0.0, shipment.causation, shipment.correlation, None)
            return None
        body = await self._ask_here(to, message, shipment.deadline_seconds, shipment.causation, shipment.correlation)
        return self._pack(body)

    def _put(
        self, to: Address, message: Any, deadline_at: float, causation: int, correlation: str, slot: _Slot | None
    ) -> None:
        mailbox = self._mailboxes.get((to.kind, to.name))
        if mailbox is None:
            raise NotFound(f"There is no actor {to}.")
        mailbox.put_nowait(Delivery(to, message, deadline_at, causation, correlation, slot))

    async def _ask_here(
        self, to: Address, message: Any, deadline_seconds: float, causation: int, correlation: str
    ) -> Any:
        slot = _Slot()
        self._put(to, message, trio.current_time() + deadline_seconds, causation, correlation, slot)
        with trio.move_on_after(deadline_seconds):
            await slot.done.wait()
        if not slot.done.is_set():
            raise DeadlineExceeded(f"{to} did not answer within {deadline_seconds} s.")
        if slot.error is not None:
            raise slot.error
        return slot.body

    def _route(self, to: Address) -> Conversation:
        route = self._routes.get(to.host)
        if route is None:
            raise Unavailable(f"The host of {to} is not connected.")
        return route

    def _ship(self, to: Address, message: Any, deadline_seconds: float, causation: int, correlation: str) -> Shipment:
        kind, body = self._pack(message)
        return Shipment(
            to=str(to),
            type=kind,
            body=body,
            deadline_seconds=deadline_seconds,
            causation=causation,
            correlation=correlation,
        )

    def _pack(self, message: Any) -> tuple[str, msgspec.Raw]:
        kind = type(message).__name__
        assert kind in self._types, f"{kind} is not declared to cross hosts"
        return kind, msgspec.Raw(msgspec.msgpack.encode(message))

    def _unpack(self, kind: str, content: msgspec.Raw) -> Any:
        wanted = self._types.get(kind)
        if wanted is None:
            raise ProtocolViolation(f"Messages of type {kind!r} are not known here.")
        return _convert(content, wanted)


class _Peer:
    def __init__(self) -> None:
        self.host = ""


def _convert(content: msgspec.Raw, kind: type[Any]) -> Any:
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except UNDECODABLE as error:
        raise ProtocolViolation(f"A message is no {kind.__name__}: {error}") from error
