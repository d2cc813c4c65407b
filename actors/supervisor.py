"""Supervision: an actor that fails is started again, later each time, and at last visibly given up.

The rule is the classic one (Erlang's intensity and period): more than ``failures_max`` failures within ``window_seconds``
mean that starting again does not help. What giving up means is the caller's to say: a quarantine event, a log line, the end of the daemon.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Literal

import msgspec
import trio

from actors.link import LinkClosed
from rbcore.errors import RbError, Unavailable
from rbcore.ports import Randomness, World

_log = logging.getLogger(__name__)


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    first_delay_seconds: float = 0.2
    delay_seconds_max: float = 30.0
    failures_max: int = 5
    window_seconds: float = 300.0


class ActorStatistics(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    state: Literal["running", "waiting", "ended", "given up"]
    failures: int
    last_error: str


class Backoff:
    """Delays that double up to a bound, each drawn from its upper half so that many who wait do not come back at once."""

    def __init__(self, first_seconds: float, seconds_max: float, randomness: Randomness) -> None:
        assert 0 < first_seconds <= seconds_max, "delays grow"
        self._first = first_seconds
        self._max = seconds_max
        self._randomness = randomness
        self._step = 0

    def next_seconds(self) -> float:
        full = min(self._max, self._first * 2.0 ** min(self._step, 60))
        self._step += 1
        drawn = int.from_bytes(self._randomness.token_bytes(4), "big") / 2**32
        return full * (0.5 + drawn / 2)

    def reset(self) -> None:
        self._step = 0


def cleanup_scope(seconds: float) -> AbstractContextManager[trio.CancelScope]:
    """For the work that must be done although the task is cancelled: shielded, and bounded."""
    return trio.move_on_after(seconds, shield=True)


class Supervisor:
    """Runs actors by name. ``on_giving_up(name, reason)`` is awaited once per actor that is given up."""

    def __init__(
        self,
        world: World,
        *,
        policy: RestartPolicy | None = None,
        on_giving_up: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        self._world = world
        self._policy = policy or RestartPolicy()
        self._on_giving_up = on_giving_up
        self._actors: dict[str, ActorStatistics] = {}

    def statistics(self) -> list[ActorStatistics]:
        return list(self._actors.values())

    async def run(self, name: str, body: Callable[[], Awaitable[None]], policy: RestartPolicy | None = None) -> None:
        """Run ``body`` until it returns or is given up. Cancellation passes through."""
        policy = policy or self._policy
        backoff = Backoff(policy.first_delay_seconds, policy.delay_seconds_max, self._world.randomness)
        recent: deque[float] = deque()
        failures = 0
        while True:
            self._note(name, "running", failures)
            try:
                await body()
            except Exception as error:  # whatever an actor dies of, its supervisor decides
                failures += 1
                reason = describe(error)
                _log.error("%s failed: %s", name, reason, exc_info=error)
            else:
                self._note(name, "ended", failures)
                return
            now = trio.current_time()
            while recent and recent[0] <= now - policy.window_seconds:
                recent.popleft()
            if not recent:
                backoff.reset()
            recent.append(now)
            if len(recent) > policy.failures_max:
                self._note(name, "given up", failures, reason)
                _log.critical("%s is given up after %d failures: %s", name, failures, reason)
                if self._on_giving_up is not None:
                    await self._on_giving_up(name, reason)
                return
            self._note(name, "waiting", failures, reason)
            await trio.sleep(backoff.next_seconds())

    def _note(
        self,
        name: str,
        state: Literal["running", "waiting", "ended", "given up"],
        failures: int,
        last_error: str | None = None,
    ) -> None:
        before = self._actors.get(name)
        error = last_error if last_error is not None else (before.last_error if before else "")
        self._actors[name] = ActorStatistics(name=name, state=state, failures=failures, last_error=error)


def describe(error: BaseException) -> str:
    """One line for an error, the members of a group included."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(one) for one in error.exceptions)
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def leading_error(error: BaseException) -> RbError | None:
    """The error with an address among what a nursery raised; one that says more than that a peer is gone leads. None: a bug."""
    found = _addressed(error)
    telling = [one for one in found if not isinstance(one, Unavailable)]
    return next(iter(telling or found), None)


def _addressed(error: BaseException) -> list[RbError]:
    if isinstance(error, RbError):
        return [error]
    if isinstance(error, OSError):
        return [Unavailable(f"The operating system says: {error}")]
    if isinstance(error, LinkClosed):
        return [Unavailable(str(error))]
    if isinstance(error, BaseExceptionGroup):
        parts = [_addressed(one) for one in error.exceptions]
        return [one for part in parts for one in part] if all(parts) else []
    return []
