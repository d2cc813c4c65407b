"""The journal: the one writer. Commands come in, events go to the log, answers go out when the events are durable.

There is no task and no mailbox here, and that is the point: ``_decide`` is one synchronous function that owns every
transition (decide, submit, apply), so trio's cooperative scheduling makes it a critical section by itself. Callers then
wait, all side by side, for the log's group commit. A mailbox in front of it would cost two task switches per command and
order nothing that is not ordered already.

State runs ahead of the disk by what is being committed. Nothing leaves the journal on the strength of such state: even an
error, or an answer without events, waits until what it was decided upon is durable. When a commit fails the log takes the
positions back and the journal takes the state back (``Undo``), newest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import trio

from eventlog.port import Batch, EventLog, PendingCommit
from rbcore.commands import Context, Order, Reply
from rbcore.decide import Decision, decide
from rbcore.errors import CommandIdReused, DeadlineExceeded, Failure, RbError, Unavailable
from rbcore.events import Event, all_events
from rbcore.evolve import apply
from rbcore.ports import World
from rbcore.state import State, Undo

IN_FLIGHT_MAX = 4096
"""Commands whose events may be under way to the disk. At the bound new ones are refused with ``Unavailable``."""

REPLAY_CHUNK_EVENTS = 20_000


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the log remembers with a command id: what the first sender was told."""

    reply: Reply | None = None
    failure: Failure | None = None
    digest: str = ""
    """The order's."""

    def give(self, digest: str = "") -> Reply:
        """The answer, or the failure raised; ``CommandIdReused`` when ``digest`` tells of another question."""
        if digest and self.digest and digest != self.digest:
            raise CommandIdReused("This command id was used before, for another question.")
        if self.failure is not None:
            raise self.failure.to_error()
        assert self.reply is not None, "an answer is a reply or a failure"
        return self.reply


class JournalStatistics(msgspec.Struct, frozen=True, kw_only=True):
    commands: int
    refused: int
    repeated: int
    rolled_back: int
    in_flight: int
    in_flight_max: int
    events_replayed: int


class _Flight:
    """A batch on its way to the disk, with what is needed to take its effect on the state back."""

    __slots__ = ("answer", "command_id", "pending", "position", "undos")

    def __init__(self, command_id: str, answer: Answer, pending: PendingCommit) -> None:
        self.command_id = command_id
        self.answer = answer
        self.pending = pending
        self.position = pending.envelopes[-1].position
        self.undos: list[list[Undo]] = []
        """Per event."""


class JournalActor:
    """Implements ``actors.port.Journal``. Make it, ``await recover()``, then ``execute`` from any task of the same run."""

    def __init__(
        self,
        log: EventLog,
        world: World,
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        decide: Callable[[State, Any, Context], Decision] = decide,
        apply: Callable[[State, str, int, int, int, Event], list[Undo]] = apply,
    ) -> None:
        self._log = log
        self._world = world
        self._in_flight_max = in_flight_max
        self._decide_with = decide
        self._apply_with = apply
        self._state = State()
        self._flights: deque[_Flight] = deque()
        self._by_command: dict[str, _Flight] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode_answer = msgspec.msgpack.Decoder(Answer).decode
        self._broken: str = ""
        self._commands = self._refused = self._repeated = self._rolled_back = self._replayed = 0
        log.on_rollback(self._take_back)

    @property
    def state(self) -> State:
        return self._state

    @property
    def log(self) -> EventLog:
        return self._log

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(
            commands=self._commands,
            refused=self._refused,
            repeated=self._repeated,
            rolled_back=self._rolled_back,
            in_flight=len(self._flights),
            in_flight_max=self._in_flight_max,
            events_replayed=self._replayed,
        )

    async def recover(self) -> int:
        """Fold the whole log into the state; the number of events. Call once, before the first ``execute``."""
        assert self._state.position == 0, "recovered once"
        while self._state.position < self._log.head:
            await self._world.threads.run(self._replay_chunk)
        return self._replayed

    def _replay_chunk(self) -> None:
        state, apply_event = self._state, self._apply_with
        decoders = _DECODERS
        after = state.position
        for envelope in self._log.read(after, after + REPLAY_CHUNK_EVENTS):
            event = decoders[envelope.type](envelope.body)
            apply_event(state, envelope.stream, envelope.version, envelope.time_ns, envelope.position, event)
            self._replayed += 1
        assert state.position > after, "the log is gapless up to its head"

    async def execute(self, order: Order) -> Reply:
        """Decide, append, and answer once the events are on stable storage.

        A repeat of ``order.command_id`` gets the first answer, also while the first is under way. Raises what ``decide``
        raises, ``CommandIdReused`` (see ``Order.digest``), ``Unavailable`` (too much under way), ``ReadOnly`` (log volume full: nothing happened), ``DeadlineExceeded``
        (the command may still take effect: repeat it with the same id to learn how it ended).
        """
        with trio.move_on_after(order.deadline_seconds):
            return await self._execute(order)
        raise DeadlineExceeded(
            f"The command was not on stable storage after {order.deadline_seconds} s. Repeat it with the same command id."
        )

    async def _execute(self, order: Order) -> Reply:
        self._forget_durable()
        known = self._by_command.get(order.command_id)
        if known is not None:
            self._repeated += 1
            await known.pending.durable()
            return known.answer.give(order.digest)
        remembered = self._log.answer_of(order.command_id)
        if remembered is not None:
            self._repeated += 1
            await trio.lowlevel.checkpoint()
            return self._decode_answer(remembered).give(order.digest)
        premises = self._flights[-1] if self._flights else None
        try:
            outcome = self._decide(order)
        except RbError:
            self._refused += 1
            await self._settle(premises)
            raise
        if isinstance(outcome, Reply):
            await self._settle(premises)
            return outcome
        await outcome.pending.durable()
        return outcome.answer.give()

    def knows(self, command_id: str) -> bool:
        return command_id in self._by_command or self._log.answer_of(command_id) is not None

    async def settled(self) -> None:
        """Return when everything the state shows now is on stable storage. Raises ``ReadOnly`` when it was taken back."""
        self._forget_durable()
        await self._settle(self._flights[-1] if self._flights else None)

    async def _settle(self, premises: _Flight | None) -> None:
        """Wait until what was decided upon is durable; ``ReadOnly`` when it was taken back."""
        if premises is None:
            await trio.lowlevel.checkpoint()
        else:
            await premises.pending.durable()

    def _decide(self, order: Order) -> _Flight | Reply:
        """The one place where the state changes. Synchronous: nothing can come between decision and effect."""
        if self._broken:
            raise Unavailable(self._broken)
        if len(self._flights) >= self._in_flight_max:
            raise Unavailable(
                f"{len(self._flights)} commands are on their way to the log, which is the bound. Try again shortly."
            )
        self._commands += 1
        state = self._state
        context = Context(
            now_ns=self._world.clock.now_ns(),
            actor=order.actor,
            random=self._world.randomness.token_bytes(16),
        )
        decision = self._decide_with(state, order.command, context)
        if not decision.events:
            if decision.refusal is not None:
                raise decision.refusal
            return msgspec.structs.replace(decision.reply, position=state.position)
        answer = self._answer_of(decision, state.position + len(decision.events), order.digest)
        pending = self._log.submit(
            Batch(
                events=decision.events,
                expected={one.stream: state.versions.get(one.stream, 0) for one in decision.events},
                command_id=order.command_id,
                actor=order.actor,
                causation=order.causation,
                correlation=order.correlation or order.command_id,
                time_ns=context.now_ns,
                answer=self._encode(answer),
            )
        )
        flight = _Flight(order.command_id, answer, pending)
        self._flights.append(flight)
        self._by_command[order.command_id] = flight
        self._apply(flight, [one.event for one in decision.events])
        return flight

    def _answer_of(self, decision: Decision, position: int, digest: str) -> Answer:
        if decision.refusal is not None:
            self._refused += 1
            return Answer(failure=Failure.of(decision.refusal), digest=digest)
        return Answer(reply=msgspec.structs.replace(decision.reply, position=position), digest=digest)

    def _apply(self, flight: _Flight, events: Sequence[Event]) -> None:
        state, apply_event = self._state, self._apply_with
        assert flight.pending.envelopes[0].position == state.position + 1, "the journal is the only writer"
        try:
            for envelope, event in zip(flight.pending.envelopes, events, strict=True):
                flight.undos.append(
                    apply_event(state, envelope.stream, envelope.version, envelope.time_ns, envelope.position, event)
                )
        except Exception:
            # The log has events that the fold does not understand: no decision may be built on this state again.
            self._broken = f"The journal could not apply event {flight.position}; restart the daemon to replay the log."
            raise
        assert state.position == flight.position, "apply moves the state to the event's position"

    def _forget_durable(self) -> None:
        head, flights = self._log.head, self._flights
        while flights and flights[0].position <= head:
            self._by_command.pop(flights.popleft().command_id, None)

    def _take_back(self, position: int) -> None:
        """The log took back everything after ``position``."""
        state = self._state
        while self._flights and self._flights[-1].position > position:
            flight = self._flights.pop()
            self._by_command.pop(flight.command_id, None)
            for envelope, undos in zip(reversed(flight.pending.envelopes), reversed(flight.undos), strict=True):
                state.take_back_all(undos, envelope.stream, envelope.version, envelope.position)
            self._rolled_back += 1
        assert state.position == position, "every event after the durable head belongs to a flight"


_DECODERS = {name: msgspec.msgpack.Decoder(kind).decode for name, kind in all_events().items()}
