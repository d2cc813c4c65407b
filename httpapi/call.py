"""One request on its way through a handler: who asks, what for, and the few things a handler may do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from httpapi import idempotency
from httpapi.services import Services
from rbcore.commands import Order, Reply
from rbcore.errors import CommandIdReused, NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The signed-in user; id 0 and no name where no sign-in is needed."""

    user_id: int = 0
    name: str = ""
    roles: tuple[str, ...] = ()

    @property
    def actor(self) -> str:
        return f"user:{self.name}" if self.name else "user:"


NOBODY = Caller()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a handler gets. Frozen: the steps of the way make a new one with what they found."""

    services: Services
    caller: Caller
    verb: str
    path: str
    """As asked for, for the access log of the journal."""
    segments: dict[str, str]
    """Path parameters as they came."""
    query: dict[str, Any]
    """By declared name; absent parameters are absent."""
    body: Any
    headers: Any
    cookies: Any
    address: str
    """Of the peer."""
    idempotency_key: str
    digest: str = ""
    """Of what is asked for; empty without a key (``idempotency``)."""
    message: str
    """The manual's text for success of this method."""

    def with_body(self, body: Any) -> Call:
        return replace(self, body=body)

    def id(self, noun: str, name: str = "id") -> int:
        """A path parameter that names a record. What is not an id names nothing: ``NotFound``."""
        text = self.segments[name]
        if text.isascii() and text.isdecimal() and len(text) <= 18 and int(text) > 0:
            return int(text)
        raise NotFound(f"{noun} not found", errors={name: [f"{text!r} is not an id."]})

    async def submit(self, command: Any) -> Reply:
        """Execute one command, and return when the views show its result: a client reads its own writes.

        ``Idempotency-Key`` becomes the command id, so that a repeat gets the first answer and changes nothing. It is scoped
        by user and path: another user's key, or the same key for another method, is another command. With another body it is refused.
        """
        services = self.services
        if self.idempotency_key:
            command_id = f"{self.caller.actor} {self.verb} {self.path} {self.idempotency_key}"
        else:
            command_id = services.randomness.token_bytes(16).hex()
        order = Order(
            command=command,
            command_id=command_id,
            actor=self.caller.actor,
            correlation=command_id,
            digest=self.digest,
        )
        try:
            reply = await services.journal.execute(order)
        except CommandIdReused as error:
            raise idempotency.refusal("This key was used before, for a request with other contents.") from error
        await services.views.wait_for(reply.position, services.settings.view_wait_seconds)
        return reply

    async def note(self, command: Any) -> None:
        """Execute a command about this request (a login, a refusal); nobody waits for a view."""
        command_id = self.services.randomness.token_bytes(16).hex()
        order = Order(command=command, command_id=command_id, actor=self.caller.actor, correlation=command_id)
        await self.services.journal.execute(order)

    async def position_asked(self) -> int | None:
        """``?at=`` as a position; None: now."""
        moment = self.query.get("at")
        return None if moment is None else await self.services.views.position_of(moment)
