"""The real world: wall clock, the kernel's randomness, worker threads (``rbcore.ports.World``)."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import trio

T = TypeVar("T")


class WallClock:
    """UTC as the kernel tells it. It may jump."""

    def now_ns(self) -> int:
        return time.time_ns()


class KernelRandomness:
    def token_bytes(self, length: int) -> bytes:
        return secrets.token_bytes(length)


class WorkerThreads:
    """trio's thread cache behind a limiter of its own, so that bulk work cannot starve whatever else uses threads.

    A hop costs about 130 us: hand over pieces of 1 to 8 MiB. ``run`` is not abandoned on cancellation: the bytes a piece
    works on belong to its caller, who may only go on when the piece has ended.
    """

    def __init__(self, count: int | None = None) -> None:
        self._limiter = trio.CapacityLimiter(count or max(4, 2 * (os.cpu_count() or 1)))

    async def run(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


@dataclass(frozen=True, slots=True)
class RealWorld:
    """``rbcore.ports.World`` of a running program."""

    clock: WallClock = field(default_factory=WallClock)
    randomness: KernelRandomness = field(default_factory=KernelRandomness)
    threads: WorkerThreads = field(default_factory=WorkerThreads)
