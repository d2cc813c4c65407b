"""A world out of one seed: virtual time, drawn randomness, threads that are none (``rbcore.ports.World``)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

T = TypeVar("T")

SIMULATION_EPOCH_NS = 1_750_000_000_000_000_000
"""Where a simulation's wall clock starts: 2025-06-15, whatever the day it is run on."""


class SimulatedClock:
    """Wall time that follows trio's (virtual) clock; ``jump`` moves it like an operator or NTP would."""

    def __init__(self, start_ns: int = SIMULATION_EPOCH_NS) -> None:
        self._start_ns = start_ns
        self._origin_seconds = trio.current_time()

    def now_ns(self) -> int:
        return self._start_ns + round((trio.current_time() - self._origin_seconds) * 1e9)

    def jump(self, by_ns: int) -> None:
        self._start_ns += by_ns


class SeededRandomness:
    """Reproducible, and for that reason good for nothing else."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  (reproducible is the point)

    def token_bytes(self, length: int) -> bytes:
        return self._random.randbytes(length)


class InlineThreads:
    """Work is done at once, in place, after one scheduling point: the order of a run follows from the seed alone."""

    async def run(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work()


@dataclass(frozen=True, slots=True)
class SimulatedWorld:
    clock: SimulatedClock
    randomness: SeededRandomness
    threads: InlineThreads

    @classmethod
    def of_seed(cls, seed: int) -> SimulatedWorld:
        """Call it inside of the trio run whose clock it follows."""
        return cls(SimulatedClock(), SeededRandomness(seed), InlineThreads())
