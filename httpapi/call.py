"""One request on its way through a handler: who asks, what for, and the few things a handler may do."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import replace as replace_struct

from eventlog.views import LOGS
from eventlog.views.port import Page, Query
from httpapi import idempotency
from httpapi.envelope import Answer
from httpapi.reading import Overlay, PageReading, Reading, RowReading
from httpapi.services import Services
from rbcore import access
from rbcore.commands import Command, NoteAccessDenied, Order, Reply
from rbcore.errors import AccessDenied, CommandIdReused, NotFound, ReadOnly
from rbcore.resource import UNLIMITED_ROLES, Scoped
from rbcore.resources import by_kind, by_name
from rbcore.targets import targets_of

log = logging.getLogger("rbmedia.access")
"""Incidents of authorisation have the documented log file of their own."""


_SCOPED: dict[str, Scoped] = {**by_name, **{one.name: one for one in LOGS}}


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
    roles: frozenset[str] = frozenset()
    """Those that may use the method."""
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

    @property
    def _keyed_id(self) -> str:
        """Id of this request's command when it has a key; empty: it has none."""
        return f"{self.caller.actor} {self.verb} {self.path} {self.idempotency_key}" if self.idempotency_key else ""

    @property
    def repeats(self) -> bool:
        """A request with this key was carried out before: what ``submit`` takes now is not looked at, so nothing need be found out for it."""
        return bool(self._keyed_id) and self.services.journal.knows(self._keyed_id)

    async def submit(self, command: Any) -> Reply:
        """Execute one command, and return when the views show its result: a client reads its own writes.

        ``Idempotency-Key`` becomes the command id, so that a repeat gets the first answer and changes nothing. It is scoped
        by user and path: another user's key, or the same key for another method, is another command. With another body it is refused.

        Raises ``AccessDenied`` and ``NotFound`` for what is out of the caller's reach.
        """
        services = self.services
        if self.is_limited:
            await self._check_command(command)
        command_id = self._keyed_id or services.randomness.token_bytes(16).hex()
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

    async def note(self, command: Command) -> None:
        """Record something about this request (a login, a refusal); nobody waits for a view. A full log volume must not keep the operator
        out who comes to make room."""
        command_id = self.services.randomness.token_bytes(16).hex()
        order = Order(command=command, command_id=command_id, actor=self.caller.actor, correlation=command_id)
        try:
            await self.services.journal.execute(order)
        except ReadOnly as error:
            log.warning("not recorded, because %s: %r", error.message, command)

    # --- what the caller reaches: every read and every command of a handler goes through here ------------------------

    @property
    def is_limited(self) -> bool:
        """Whether the roles by which the caller may use the method reach a part of the records only."""
        return (UNLIMITED_ROLES & self.roles).isdisjoint(self.caller.roles)

    async def page(self, query: Query) -> Page:
        """Rows that the caller reaches, of a resource or of an append-only view."""
        return await self.services.views.page(replace_struct(query, visible=self._reach(query.resource)))

    async def row(self, resource: str, id: int, at: int | None = None) -> tuple[dict[str, Any] | None, int]:
        """The record, None when the caller does not reach it, and the position of the answer."""
        return await self.services.views.row(resource, id, at, self._reach(resource))

    def reading_of_page(self, query: Query, overlay: Overlay | None = None) -> PageReading:
        """What ``page`` would read, to be carried out by whoever has the views."""
        return PageReading(query=replace_struct(query, visible=self._reach(query.resource)), overlay=overlay)

    def reading_of_row(
        self, resource: str, id: int, noun: str, at: int | None = None, overlay: Overlay | None = None
    ) -> RowReading:
        """What ``row`` would read; not to be there is then an error that names the ``noun``."""
        return RowReading(resource=resource, id=id, noun=noun, at=at, visible=self._reach(resource), overlay=overlay)

    async def carry_out(self, reading: Reading) -> Answer:
        """Raises ``InvalidRequest`` and ``NotFound``."""
        return await reading.answer(self.services.views)

    async def check(self, *targets: access.Target) -> None:
        """Whether the caller may do that, for what no command of the core says (``rbcore.targets``). Raises ``AccessDenied`` and ``NotFound``, and
        records both: who tries ids learns nothing, but whoever reads the audit learns of him."""
        if not self.is_limited:
            return
        try:
            access.judge(self.services.journal.state, self._grants(), self.roles, targets)
        except (AccessDenied, NotFound) as error:
            await self.note_denied(error.message)
            raise

    def reached(self, resource: str, ids: list[int]) -> list[int]:
        """Those of ``ids`` on which the caller may act by this method."""
        declared, state, grants = by_name[resource], self.services.journal.state, self._grants()
        table = state.tables[declared.kind]
        return [one for one in ids if one in table and access.reaches(state, grants, declared, self.roles, table[one])]

    def sees(self, stream: str) -> bool:
        """Whether the caller reaches what a stream of the log (``task/17``) is about, as it is now."""
        kind, _, number = stream.partition("/")
        declared = by_kind.get(kind)
        if declared is None or not self.is_limited:
            return not self.is_limited
        state = self.services.journal.state
        entity = state.tables[kind].get(int(number))
        return entity is not None and access.reaches(state, self._grants(), declared, declared.read, entity)

    async def note_denied(self, why: str) -> None:
        name = self.caller.name
        await self.note(NoteAccessDenied(user_name=name, method=self.verb, path=self.path, address=self.address))
        log.warning("%s from %s may not %s %s: %s", name, self.address, self.verb, self.path, why)

    async def _check_command(self, command: Command) -> None:
        targets = targets_of(self.services.journal.state, command)
        if targets is None:
            await self.note_denied(f"{type(command).__name__} is not for limited roles")
            raise AccessDenied("Access denied: this is for roles that reach all records.")
        await self.check(*targets)

    def _grants(self) -> access.Grants:
        return access.grants_of(self.services.journal.state, self.caller.user_id, self.caller.roles)

    def _reach(self, resource: str) -> access.Reach:
        declared = _SCOPED[resource]
        if not (UNLIMITED_ROLES & declared.read).isdisjoint(self.caller.roles):
            return None
        return access.reach(self.services.journal.state, self._grants(), declared, declared.read)

    async def position_asked(self) -> int | None:
        """``?at=`` as a position; None: now."""
        moment = self.query.get("at")
        return None if moment is None else await self.services.views.position_of(moment)
